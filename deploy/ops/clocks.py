"""`clocks replan`: open promises planned anew under the policies in force."""

from __future__ import annotations

import argparse
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from deploy.ops import postgres
from deploy.ops.console import (
    Refused,
    add_changing,
    add_command,
    add_json,
    add_verbs,
    confirm,
    say,
    short_duration,
    tell,
)
from services.sla_timer import storage
from services.sla_timer.config import load_policies
from services.sla_timer.domain.clocks import Clock
from services.sla_timer.domain.policies import Policies
from services.sla_timer.promises import settle
from services.sla_timer.settings import Settings

_AT_ONCE: Final = 200
_FIRST: Final = uuid.UUID(int=0)


def register(nouns: argparse._SubParsersAction[Any]) -> None:
    verbs = add_verbs(nouns, "clocks", help="look after promises")
    parser = add_command(
        verbs,
        "replan",
        help="plan open promises anew under the policies in force",
        says="The sla_timer plans open promises anew by itself when its files change. This does it for all of "
        "them at once, whatever they were planned under: after a restore, after a fix of the arithmetic, "
        "while it is stopped. Reads the policies that the environment names (SLA_TIMER_POLICIES_FILE, "
        "SLA_TIMER_CALENDARS_FILE, BRANDS_DIRECTORY); they must be those in force. Safe beside a running "
        "sla_timer. Promises that have ended stay. What changes is told on sla.events by the sla_timer's "
        "relay; a promise that is found broken is told as such.",
        examples="clocks replan --dry-run\nclocks replan --brand upay --yes\nclocks replan --dry-run --json",
    )
    parser.add_argument("--brand", help="only tickets of this brand")
    add_changing(parser)
    add_json(parser)
    parser.set_defaults(run=_run)


@dataclass(slots=True)
class Changes:
    """`moved`: by target, how far due times move (in seconds, later is positive). `events`: what is told, by kind."""

    tickets: int = 0
    clocks: int = 0
    ended: int = 0
    moved: dict[str, list[float]] = field(default_factory=dict)
    events: Counter[str] = field(default_factory=Counter)


async def _run(chosen: argparse.Namespace) -> int:
    settings = Settings()
    policies = load_policies(settings.policy_files)
    async with postgres.engine(settings) as engine:
        async with engine.begin() as connection:
            await _adopt(connection, policies)
        async with engine.connect() as connection:
            planned = await _replan(connection, policies, chosen.brand, keep=False)
        _say(planned, chosen.json)
        if not planned.clocks and not planned.events:
            say("nothing changes")
            return 0
        if not confirm(chosen, f"plan {planned.clocks} clocks anew"):
            return 0
        async with engine.connect() as connection:
            done = await _replan(connection, policies, chosen.brand, keep=True)
    say(f"planned {done.clocks} clocks of {done.tickets} tickets anew, {done.events.total()} events wait to be told")
    return 0


async def _adopt(connection: AsyncConnection, policies: Policies) -> None:
    """Take since when the policies are in force, and the calendars of before, as the sla_timer has them on record."""
    latest = await storage.latest_policies(connection)
    if latest is None:
        raise Refused("the sla_timer has never run on this database: there is nothing to plan anew")
    if latest.version != policies.version:
        raise Refused(
            f"the files here are policies {policies.version}, in force are {latest.version}: name the files of the "
            "sla_timer, or let it take up the changed ones first (it looks every few seconds)"
        )
    policies.learn(await storage.archived_calendars(connection))
    policies.since = latest.at


async def _replan(connection: AsyncConnection, policies: Policies, brand: str | None, *, keep: bool) -> Changes:
    """In short transactions, each undone at its end unless `keep`."""
    changes = Changes()
    last = _FIRST
    while True:
        ids = await _some(connection, last, brand)
        if not ids:
            return changes
        last = ids[-1]
        held = await storage.lock_free(connection, ids)
        before = await storage.clocks_of(connection, sorted(held))
        events = await settle(connection, policies, held.values(), datetime.now(UTC))
        after = await storage.clocks_of(connection, sorted(held))
        _compare(changes, before, after)
        changes.events.update(event.kind.value for event in events)
        await (connection.commit() if keep else connection.rollback())


async def _some(connection: AsyncConnection, after: uuid.UUID, brand: str | None) -> list[uuid.UUID]:
    rows = await connection.execute(
        text(
            "SELECT ticket_id FROM sla_timer.tickets WHERE has_open AND ticket_id > :after "
            "AND (CAST(:brand AS text) IS NULL OR brand = :brand) ORDER BY ticket_id LIMIT :n"
        ),
        {"after": after, "brand": brand, "n": _AT_ONCE},
    )
    return list(rows.scalars())


def _compare(
    changes: Changes,
    before: Mapping[uuid.UUID, Mapping[uuid.UUID, Clock]],
    after: Mapping[uuid.UUID, Mapping[uuid.UUID, Clock]],
) -> None:
    for ticket_id, clocks in after.items():
        known = before.get(ticket_id, {})
        different = [clock for clock in clocks.values() if clock != known.get(clock.id)]
        changes.tickets += bool(different)
        changes.clocks += len(different)
        for clock in different:
            old = known.get(clock.id)
            if old is None:
                continue
            changes.ended += old.ended_at is None and clock.ended_at is not None
            if old.due_at and clock.due_at and old.due_at != clock.due_at:
                by = (clock.due_at - old.due_at) / timedelta(seconds=1)
                changes.moved.setdefault(clock.target.value, []).append(by)


def _say(changes: Changes, as_json: bool) -> None:
    moved = {
        target: {
            "clocks": len(by),
            "earlier": sum(seconds < 0 for seconds in by),
            "later": sum(seconds > 0 for seconds in by),
            "earliest_seconds": min(by),
            "latest_seconds": max(by),
        }
        for target, by in sorted(changes.moved.items())
    }
    if as_json:
        tell(
            {
                "tickets": changes.tickets,
                "clocks": changes.clocks,
                "ended": changes.ended,
                "moved": moved,
                "events": dict(changes.events),
            }
        )
        return
    say(f"{changes.clocks} clocks of {changes.tickets} tickets change, {changes.ended} of them end")
    for target, of_it in moved.items():
        say(
            f"  {target}: {of_it['earlier']} fall due earlier, {of_it['later']} later "
            f"(from {_signed(of_it['earliest_seconds'])} to {_signed(of_it['latest_seconds'])})"
        )
    if changes.events:
        say("  told: " + ", ".join(f"{count} {kind}" for kind, count in changes.events.most_common()))


def _signed(seconds: float) -> str:
    return ("-" if seconds < 0 else "+") + short_duration(abs(seconds))
