"""`drain`: when everything that a service was given has had its effect, so that it may be taken out."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from deploy.ops import groups as kafka
from deploy.ops import postgres
from deploy.ops.console import REFUSED, add_command, add_json, duration, say, tell
from shared.database import SERVICES
from shared.settings import CommonSettings

_LOOK_SECONDS: Final = 0.5
_SAY_SECONDS: Final = 10.0
_FEEDS: Final[Mapping[str, tuple[str, ...]]] = {
    "intake": ("channels", "desk"),
    "classifier": ("intake", "desk"),
    "sla_timer": ("intake", "classifier", "desk"),
    "notifier": ("intake", "classifier", "sla_timer", "desk"),
    "desk": ("intake", "classifier", "sla_timer", "notifier"),
}
_WITH_OUTBOX_AND_DEADLINES: Final = frozenset({"intake", "sla_timer", "notifier", "desk"})


def register(nouns: argparse._SubParsersAction[Any]) -> None:
    parser = add_command(
        nouns,
        "drain",
        help="wait until what a service was given has had its effect; changes nothing",
        says="Watch a service until it has done with everything that was there when this command began: its "
        "groups have taken those records, its outbox has published what stood in it, deadlines that were "
        "due have fired (deliveries were tried once). Then say so, with exit status 0: now it may be "
        "stopped. Exit status 1 when --timeout runs out.\n\n"
        "Stopping is safe at any time (SIGTERM finishes the batch at hand, what is left waits in topics and "
        "outbox). Drain first when what is left must not wait: before a migration that contracts, before "
        "more partitions, before a service is away for long.\n\n"
        "--idle waits until nothing at all is left, also of what came later: stop what feeds the service "
        "first. --until-stopped goes on until nobody consumes any more, and says whether all is still done.",
        examples="drain notifier\ndrain classifier --timeout 15m --until-stopped\ndrain desk --idle --json",
    )
    parser.add_argument("service", choices=SERVICES)
    parser.add_argument(
        "--timeout", type=duration, default=duration("10m"), metavar="TIME", help="at most so long (10m)"
    )
    parser.add_argument("--idle", action="store_true", help="until nothing is left, also of what came later")
    parser.add_argument("--until-stopped", action="store_true", help="then wait until the service was stopped")
    add_json(parser)
    parser.set_defaults(run=_run)


@dataclass(frozen=True, slots=True)
class Left:
    """What a service has not done with. `due`: deadlines (deliveries, too) that were due and have not fired."""

    records: int
    outbox: int
    due: int

    @property
    def nothing(self) -> bool:
        return not (self.records or self.outbox or self.due)

    def __str__(self) -> str:
        parts = [f"{self.records} records"]
        parts += [f"{self.outbox} events in its outbox"] if self.outbox else []
        parts += [f"{self.due} deadlines that were due"] if self.due else []
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Mark:
    """What was there when the command began: ends of the topics; `outbox`, the last id once those were taken."""

    ends: Mapping[tuple[str, str, int], int]
    at: datetime


async def _run(chosen: argparse.Namespace) -> int:
    settings = CommonSettings()
    service: str = chosen.service
    groups = kafka.groups_of([service])
    deadline = time.monotonic() + chosen.timeout.total_seconds()
    mark = Mark(
        {(item.group, item.topic, item.partition): item.end for item in await kafka.lags(settings, groups)},
        datetime.now(UTC),
    )
    if not any((await kafka.members(settings, list(groups))).values()):
        say(f"nobody consumes for {service}: nothing will get less until it is started")
    async with postgres.engine(settings) as engine, engine.connect() as connection:
        connection = await connection.execution_options(isolation_level="AUTOCOMMIT")
        left, taken_at = await _wait(chosen, settings, connection, mark, deadline)
        if left.nothing and chosen.until_stopped:
            say(f"{service} is drained: stop it now ({_how(service)})")
            stopped = await _wait_until_stopped(settings, list(groups), deadline)
            left = await _left(settings, connection, service, mark, idle=chosen.idle, outbox_until=taken_at)
            if not stopped:
                return _end(chosen, left, f"{service} was not stopped in time")
    return _end(chosen, left, None if left.nothing else "not drained in time")


def _end(chosen: argparse.Namespace, left: Left, failed: str | None) -> int:
    if chosen.json:
        tell(
            {
                "service": chosen.service,
                "drained": left.nothing,
                "failed": failed,
                "records": left.records,
                "outbox": left.outbox,
                "due": left.due,
            }
        )
    if failed:
        say(f"{failed}: left are {left}. Its log and `lag --service {chosen.service} --all` say where it hangs")
        return REFUSED
    if not chosen.until_stopped:
        say(f"{chosen.service} is drained: it may be stopped ({_how(chosen.service)})")
    else:
        say(f"{chosen.service} is drained and stopped; nothing of what it was given is left")
    return 0


def _how(service: str) -> str:
    dashed = service.replace("_", "-")
    return f"docker compose stop {service}; kubectl scale deployment/{dashed} --replicas=0; SIGTERM to the process"


async def _wait(
    chosen: argparse.Namespace, settings: CommonSettings, connection: AsyncConnection, mark: Mark, deadline: float
) -> tuple[Left, int]:
    """Until nothing is left, or the deadline. Also the last id of the outbox when the records had been taken."""
    said = 0.0
    outbox_until: int | None = None
    while True:
        left = await _left(settings, connection, chosen.service, mark, idle=chosen.idle, outbox_until=outbox_until)
        if outbox_until is None and not left.records:
            # What they brought about stands in the outbox by now; only what stands there now is waited for.
            outbox_until = await _outbox_end(connection, chosen.service)
            continue
        if left.nothing or time.monotonic() >= deadline:
            return left, outbox_until or 0
        if time.monotonic() - said >= _SAY_SECONDS:
            say(
                f"{chosen.service}: {left} left" + (f"; {', '.join(_FEEDS[chosen.service])} may add more" * chosen.idle)
            )
            said = time.monotonic()
        await asyncio.sleep(_LOOK_SECONDS)


async def _left(
    settings: CommonSettings,
    connection: AsyncConnection,
    service: str,
    mark: Mark,
    *,
    idle: bool,
    outbox_until: int | None,
) -> Left:
    records = 0
    for item in await kafka.lags(settings, kafka.groups_of([service])):
        end = item.end if idle else min(item.end, mark.ends.get((item.group, item.topic, item.partition), 0))
        records += max(0, end - item.position)
    outbox = due = 0
    if service in _WITH_OUTBOX_AND_DEADLINES:
        until = None if idle else outbox_until
        outbox = int(
            await connection.scalar(
                text(f"SELECT count(*) FROM {service}.outbox WHERE CAST(:id AS bigint) IS NULL OR id <= :id"),  # noqa: S608
                {"id": until},
            )
            or 0
        )
        # One that was tried and waits for its next try is not waited for: that may take a day.
        due = int(
            await connection.scalar(
                text(f"SELECT count(*) FROM {service}.deadlines WHERE due_at <= :at AND attempt = 0"),  # noqa: S608
                {"at": mark.at},
            )
            or 0
        )
    return Left(records, outbox, due)


async def _outbox_end(connection: AsyncConnection, service: str) -> int:
    if service not in _WITH_OUTBOX_AND_DEADLINES:
        return 0
    return int(await connection.scalar(text(f"SELECT coalesce(max(id), 0) FROM {service}.outbox")) or 0)  # noqa: S608


async def _wait_until_stopped(settings: CommonSettings, groups: list[str], deadline: float) -> bool:
    while any((await kafka.members(settings, groups)).values()):
        if time.monotonic() >= deadline:
            return False
        await asyncio.sleep(_LOOK_SECONDS)
    return True
