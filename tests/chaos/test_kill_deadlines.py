"""kill -9 of the sla_timer while thousands of promises come due, with two replicas at it: each breach is told once."""

from __future__ import annotations

import os
import signal
import sys
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from subprocess import Popen
from typing import Final

import pytest
from sqlalchemy import text

from services.sla_timer.settings import Settings
from shared.events import SlaKind
from shared.taxonomy import Priority
from tests.support.sla_timer import Replica, message, replicas, routed, settings_for
from tests.support.waiting import eventually

TICKETS: Final = 3_000


def start(settings: Settings) -> Popen[bytes]:
    """The service as an operator starts it. Without a broker it consumes nothing; its deadlines fire all the same."""
    environment = {
        **os.environ,
        "DATABASE_URL": settings.database_url.get_secret_value(),
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9",
        "SLA_TIMER_POLICIES_FILE": str(settings.sla_timer_policies_file),
        "SLA_TIMER_CALENDARS_FILE": str(settings.sla_timer_calendars_file),
        "BRANDS_DIRECTORY": str(settings.brands_directory),
        "HTTP_PORT": "0",
        "LOG_LEVEL": "ERROR",
    }
    return Popen([sys.executable, "-m", "services.sla_timer"], env=environment)


async def fired(replica: Replica) -> int:
    async with replica.database.transaction() as connection:
        found: int = await connection.scalar(
            text("SELECT count(*) FROM sla_timer.clocks WHERE breached_at IS NOT NULL")
        )
        return found


@pytest.mark.timeout(300)
async def test_replicas_are_killed_while_promises_come_due(
    new_database: Callable[[], Awaitable[str]], tmp_path: Path
) -> None:
    settings = settings_for(tmp_path, await new_database())
    async with replicas(settings) as (watcher,):
        await watcher.firing.start()
        openings = [message(uuid.uuid4(), datetime.now(UTC)) for _ in range(TICKETS)]
        for first in range(0, TICKETS, 500):
            batch = openings[first : first + 500]
            await watcher.take(*batch, *(routed(opening, Priority.P1) for opening in batch))
        at_kill: list[int] = []
        with ExitStack() as processes:

            def run() -> Popen[bytes]:
                process = start(settings)
                processes.callback(_end, process)
                return process

            victim, _ = run(), run()
            for share in (0.02, 0.15):  # early: while we are not looking, they go on
                wanted = int(share * 2 * TICKETS)
                await eventually(lambda wanted=wanted: _reached(watcher, wanted), 90, 0.01)  # type: ignore[misc]
                victim.send_signal(signal.SIGKILL)
                victim.wait()
                at_kill.append(await fired(watcher))
                victim = run()
            await eventually(lambda: _reached(watcher, 2 * TICKETS), 120, 0.1)
            await eventually(lambda: _nothing_due(watcher), 60, 0.1)
        told = await watcher.told()
    assert at_kill[-1] < 2 * TICKETS, "the replicas were killed after the work was done: nothing was tested"
    rang = Counter((event.clock_id, event.kind) for event in told if event.kind in (SlaKind.WARNING, SlaKind.BREACHED))
    assert set(rang.values()) == {1}
    assert sum(kind is SlaKind.BREACHED for _, kind in rang) == 2 * TICKETS
    steps: dict[uuid.UUID, list[int]] = {}
    for event in told:
        steps.setdefault(event.clock_id, []).append(event.step)
    assert all(found == list(range(1, len(found) + 1)) for found in steps.values())


async def _reached(watcher: Replica, wanted: int) -> bool:
    return await fired(watcher) >= wanted


async def _nothing_due(watcher: Replica) -> bool:
    return await watcher.deadlines() == 0


def _end(process: Popen[bytes]) -> None:
    process.kill()
    process.wait()
