"""What time alone brings about: alarms of clocks, the minute's look at arrivals, re-planning and forgetting."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from services.sla_timer import storage
from services.sla_timer.domain.arrivals import comparable_windows
from services.sla_timer.domain.peaks import Counts, Place, arrivals_of, evaluate, next_evaluation, with_totals
from services.sla_timer.domain.policies import Policies
from services.sla_timer.in_force import PoliciesInForce
from services.sla_timer.measures import Measures
from services.sla_timer.promises import CLOCKS_DEADLINE, ring, settle
from services.sla_timer.storage import DEADLINES, OUTBOX
from shared import topics
from shared.cloudevents import Outgoing, trace_of
from shared.database import Database
from shared.deadlines import FIRE_BATCH, AfterCommit, Deadline, fire_in_transaction
from shared.events import SlaEvent, derive_id

logger = logging.getLogger(__name__)

PEAKS_DEADLINE: Final = "peaks"
_PEAKS_ID: Final = derive_id("sla_timer.deadline", PEAKS_DEADLINE)
_HELD_AGAIN: Final = timedelta(milliseconds=20)
_REPLAN_BATCH: Final = 500
_LET_OTHERS_SECONDS: Final = 0.01


class Firing:
    def __init__(self, database: Database, in_force: PoliciesInForce, measures: Measures) -> None:
        self._database = database
        self._in_force = in_force
        self._measures = measures
        self.on_due = fire_in_transaction(database, DEADLINES, self._fire, service="sla_timer", limit=FIRE_BATCH)
        """Fires what is due, in one transaction; returns how many deadlines there were."""

    async def _fire(self, connection: AsyncConnection, due: Sequence[Deadline], now: datetime) -> AfterCommit:
        tickets = {item.subject for item in due if item.kind == CLOCKS_DEADLINE}
        told = await self._alarm(connection, tickets, now)
        if any(item.kind == PEAKS_DEADLINE for item in due):
            await self._look_at_arrivals(connection, now)
        return lambda: self._measures.told(told)

    async def _alarm(self, connection: AsyncConnection, tickets: set[uuid.UUID], now: datetime) -> list[SlaEvent]:
        free = await storage.lock_free(connection, tickets)
        events = await ring(connection, self._in_force.policies, free.values(), now)
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
        policies = self._in_force.policies
        rules = policies.peaks
        seen = with_totals(await storage.count_arrivals(connection, at - rules.window, at))
        comparable = {
            brand: await _usual(connection, policies, brand, at, since)
            for brand, since in (await storage.first_arrivals(connection)).items()
        }
        counted = arrivals_of(seen, comparable)
        active = await storage.active_peaks(connection)
        events = evaluate(at, counted, active, rules, policies.calendars, partial(_staff_needed, policies, seen))
        for event in events:
            await storage.save_peak(connection, event)
        await OUTBOX.add(connection, [Outgoing(topics.PEAKS_EVENTS.name, event, trace_of(event)) for event in events])
        await _next_look(connection, now)

    # --- upkeep ------------------------------------------------------------------------------------------------------

    async def replan(self) -> None:
        """Bring the open promises under the policies of now; those that have ended keep theirs."""
        total = 0
        while True:
            async with self._database.transaction() as connection:
                policies = self._in_force.policies
                outdated = await storage.lock_outdated(connection, policies.version, _REPLAN_BATCH)
                events = await settle(connection, policies, outdated.values(), datetime.now(UTC))
            self._measures.told(events)
            if not outdated:
                break
            total += len(outdated)
            await asyncio.sleep(_LET_OTHERS_SECONDS)
        if total:
            logger.info("re-planned %d tickets under policies %s", total, self._in_force.policies.version)

    async def start(self) -> None:
        """After a start: put the policies on record, and bring the open promises under them."""
        await self._in_force.announce()
        await self.replan()

    async def measure(self) -> None:
        async with self._database.transaction() as connection:
            peaks = await storage.active_peaks(connection)
            clocks = await storage.open_clocks(connection)
        self._measures.peaks(peaks.keys())
        self._measures.open_clocks(clocks)

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


def _staff_needed(policies: Policies, seen: Counts, place: Place) -> int:
    """Agents at work at once to answer what arrives at this window's rate, each channel by its own rules."""
    windows_per_half_hour = timedelta(minutes=30) / policies.peaks.window
    return sum(
        policies.staffing_of(part.channel).agents_needed(count * windows_per_half_hour)
        for part, count in seen.items()
        if part.channel is not None
        and part.all_channels == place.all_channels
        and place.channel in (None, part.channel)
    )


async def _usual(
    connection: AsyncConnection, policies: Policies, brand: str, at: datetime, since: datetime
) -> list[Counts]:
    """What arrived for a brand in the windows that this one is compared with, as far back as it has been counted."""
    rules = policies.peaks
    calendar = policies.zone_calendar(brand)
    windows = comparable_windows(at, rules.window, calendar, rules.learned_weeks, since)
    return [with_totals(await storage.count_arrivals(connection, start, end, brand)) for start, end in windows]


async def _next_look(connection: AsyncConnection, now: datetime) -> None:
    await DEADLINES.schedule(connection, [Deadline(_PEAKS_ID, PEAKS_DEADLINE, _PEAKS_ID, next_evaluation(now))])
