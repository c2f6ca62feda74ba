"""What time alone brings about: alarms of clocks, the minute's look at arrivals, re-planning and forgetting."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from services.sla_timer import storage
from services.sla_timer.domain.peaks import arrivals_of, evaluate, learned_windows, next_evaluation
from services.sla_timer.domain.policies import Policies
from services.sla_timer.measures import Measures
from services.sla_timer.promises import CLOCKS_DEADLINE, settle
from services.sla_timer.storage import DEADLINES, OUTBOX
from shared import topics
from shared.cloudevents import Outgoing, trace_of
from shared.database import Database
from shared.deadlines import FIRE_BATCH, Deadline, fire_in_transaction
from shared.events import SlaEvent, derive_id

logger = logging.getLogger(__name__)

PEAKS_DEADLINE: Final = "peaks"
_PEAKS_ID: Final = derive_id("sla_timer.deadline", PEAKS_DEADLINE)
_HELD_AGAIN: Final = timedelta(milliseconds=20)
_REPLAN_BATCH: Final = 500
_LET_OTHERS_SECONDS: Final = 0.01
_WEEK: Final = timedelta(weeks=1)


class Firing:
    def __init__(self, database: Database, policies: Policies, measures: Measures) -> None:
        self._database = database
        self._policies = policies
        self._measures = measures
        self._told: list[SlaEvent] = []
        self._fire_due = fire_in_transaction(database, DEADLINES, self._fire, service="sla_timer", limit=FIRE_BATCH)

    async def on_due(self) -> int:
        """Fire what is due, in one transaction; returns how many deadlines there were."""
        self._told = []
        fired = await self._fire_due()
        self._measures.told(self._told)
        return fired

    async def _fire(self, connection: AsyncConnection, due: Sequence[Deadline], now: datetime) -> None:
        tickets = {item.subject for item in due if item.kind == CLOCKS_DEADLINE}
        self._told = await self._alarm(connection, tickets, now)
        if any(item.kind == PEAKS_DEADLINE for item in due):
            await self._look_at_arrivals(connection, now)

    async def _alarm(self, connection: AsyncConnection, tickets: set[uuid.UUID], now: datetime) -> list[SlaEvent]:
        free = await storage.lock_free(connection, tickets)
        events = await settle(connection, self._policies, free.values(), now, fired=True)
        # A handler holds the others, and waiting for it while we hold the deadline that it may want to move would be a
        # deadlock. Mostly it settles the alarm itself; we look again in a moment.
        held = tickets - set(free)
        await DEADLINES.schedule(
            connection, [Deadline(item, CLOCKS_DEADLINE, item, now + _HELD_AGAIN) for item in sorted(held)]
        )
        return events

    # --- peaks -------------------------------------------------------------------------------------------------------

    async def schedule_peaks(self) -> None:
        """Have arrivals looked at from the next minute on. Every replica asks for it, and one deadline comes of it."""
        async with self._database.transaction() as connection:
            await _next_look(connection, datetime.now(UTC))

    async def _look_at_arrivals(self, connection: AsyncConnection, now: datetime) -> None:
        at = now.replace(second=0, microsecond=0)
        rules = self._policies.peaks
        seen = await storage.count_arrivals(connection, at - rules.window, at)
        learned = [
            count
            for since, until in learned_windows(at, rules.window)
            for count in await storage.count_arrivals(connection, since, until)
        ]
        first = await storage.first_arrival_at(connection)
        weeks = min(4, (at - first) // _WEEK) if first is not None else 0
        active = await storage.active_peaks(connection)
        counted = arrivals_of(seen, learned, weeks)
        events = evaluate(at, counted, active, rules, self._policies.calendars)
        for event in events:
            await storage.save_peak(connection, event)
        await OUTBOX.add(connection, [Outgoing(topics.PEAKS_EVENTS.name, event, trace_of(event)) for event in events])
        await _next_look(connection, now)

    # --- upkeep ------------------------------------------------------------------------------------------------------

    async def replan(self) -> None:
        """Bring the open promises under the policies of now, once, after a start; those that have ended keep theirs."""
        total = 0
        while True:
            async with self._database.transaction() as connection:
                outdated = await storage.lock_outdated(connection, self._policies.version, _REPLAN_BATCH)
                events = await settle(connection, self._policies, outdated.values(), datetime.now(UTC))
            self._measures.told(events)
            if not outdated:
                break
            total += len(outdated)
            await asyncio.sleep(_LET_OTHERS_SECONDS)
        if total:
            logger.info("re-planned %d tickets under policies %s", total, self._policies.version)

    async def measure(self) -> None:
        async with self._database.transaction() as connection:
            self._measures.open_clocks(await storage.count_open(connection))
            self._measures.peaks((await storage.active_peaks(connection)).keys())

    async def forget(self, history: timedelta, arrivals: timedelta) -> None:
        """Delete what has been kept long enough."""
        now = datetime.now(UTC)
        while True:
            async with self._database.transaction() as connection:
                forgotten = await storage.forget_tickets(connection, now - history)
            if forgotten < storage.FORGET_AT_ONCE:
                break
        async with self._database.transaction() as connection:
            await storage.forget_arrivals(connection, now - arrivals)


async def _next_look(connection: AsyncConnection, now: datetime) -> None:
    await DEADLINES.schedule(connection, [Deadline(_PEAKS_ID, PEAKS_DEADLINE, _PEAKS_ID, next_evaluation(now))])
