"""The sla_timer in memory: the same decisions in the same order as the handlers, the deadline runner and the re-planner
make them, without broker and database. Whoever holds it says what time it is.
"""

from __future__ import annotations

import heapq
import uuid
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from services.sla_timer.domain import clocks as clockwork
from services.sla_timer.domain import peaks as peakwork
from services.sla_timer.domain.arrivals import comparable_windows
from services.sla_timer.domain.clocks import Clock, Happening, Ticket, Told
from services.sla_timer.domain.peaks import Active, Arrivals, Counts, PeakRules, Place, arrivals_of, with_totals
from services.sla_timer.domain.policies import Policies
from services.sla_timer.simulation.invariants import Checks, Why
from services.sla_timer.simulation.kept import Kept
from shared.calendars import Calendar
from shared.events import PeakEvent, PeakKind, SlaEvent

_HALF_HOUR: Final = timedelta(minutes=30)


@dataclass(frozen=True, slots=True)
class Decisions:
    """What decides. Tests put a fault in here, and see that the checks find it."""

    fold: Callable[[Ticket, Iterable[Happening], Policies, datetime, Mapping[uuid.UUID, Clock]], list[Clock]] = (
        clockwork.fold
    )
    reconcile: Callable[[Ticket, Mapping[uuid.UUID, Clock], Sequence[Clock], datetime], Told] = clockwork.reconcile
    ring: Callable[[Ticket, Iterable[Clock], datetime], Told] = clockwork.ring
    evaluate: Callable[
        [
            datetime,
            Mapping[Place, Arrivals],
            Mapping[Place, Active],
            PeakRules,
            Mapping[str, Calendar],
            Callable[[Place], int | None],
        ],
        list[PeakEvent],
    ] = peakwork.evaluate


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event as it comes in. `ticket`: of every event that is no activity. `arrival`: of a first routing."""

    ticket_id: uuid.UUID
    ticket: Ticket | None = None
    happening: Happening | None = None
    arrival: Place | None = None


@dataclass(slots=True)
class Counted:
    """Arrivals of one brand in order of time, each with its place."""

    times: list[tuple[datetime, int]] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)

    def add(self, at: datetime, place: Place) -> None:
        insort(self.times, (at, len(self.places)))
        self.places.append(place)

    def within(self, start: datetime, end: datetime) -> Counter[Place]:
        first, last = bisect_left(self.times, (start, 0)), bisect_left(self.times, (end, 0))
        return Counter(self.places[index] for _, index in self.times[first:last])


class Timer:
    def __init__(self, policies: Policies, checks: Checks, decisions: Decisions | None = None) -> None:
        self.policies = policies
        self.kept: dict[uuid.UUID, Kept] = {}
        self.told: Counter[str] = Counter()
        self.peaks: list[PeakEvent] = []
        self.active: dict[Place, Active] = {}
        self.counted: dict[str, Counted] = {}
        self.open_resolutions = 0
        self._arrived: set[uuid.UUID] = set()
        self._checks = checks
        self._decide = decisions or Decisions()
        self._alarms: list[tuple[datetime, uuid.UUID]] = []

    # --- the handlers ------------------------------------------------------------------------------------------------

    def take(self, batch: Sequence[Delivery], now: datetime) -> None:
        touched: dict[uuid.UUID, Kept] = {}
        for item in batch:
            kept = self.kept.setdefault(item.ticket_id, Kept(item.ticket_id))
            kept.ticket = kept.ticket or item.ticket
            if item.happening is not None:
                kept.log.append((now, item.happening))
                if item.happening.id in kept.happenings:
                    continue
                kept.happenings[item.happening.id] = item.happening
                touched[kept.ticket_id] = kept
            elif kept.version is None:
                touched[kept.ticket_id] = kept
            if item.arrival is not None and item.ticket is not None and item.ticket_id not in self._arrived:
                self._arrived.add(item.ticket_id)
                self.counted.setdefault(item.arrival.brand, Counted()).add(item.ticket.opened_at, item.arrival)
        for kept in touched.values():
            if kept.ticket is not None:
                self._settle(kept, now, Why.NEWS)

    def _settle(self, kept: Kept, now: datetime, why: Why) -> None:
        assert kept.ticket is not None
        self._checks.nothing_was_missed(kept, now)
        before = dict(kept.clocks)
        folded = self._decide.fold(kept.ticket, kept.happenings.values(), self.policies, now, before)
        told = self._decide.reconcile(kept.ticket, before, folded, now)
        self._store(kept, told)
        kept.version = self.policies.version
        kept.versions.add(kept.version)
        kept.has_open = any(clock.is_open for clock in folded)
        self._schedule(kept, told.next_alarm_at)
        self._tell(told.events)
        self._checks.settled(kept, before, folded, told, self.policies, now, why)
        if self._checks.samples():
            again = self._decide.fold(kept.ticket, kept.happenings.values(), self.policies, now, kept.clocks)
            self._checks.tells_nothing_twice(kept, self._decide.reconcile(kept.ticket, kept.clocks, again, now), now)

    # --- the deadline runner -----------------------------------------------------------------------------------------

    @property
    def next_alarm_at(self) -> datetime | None:
        while self._alarms and self.kept[self._alarms[0][1]].alarm_at != self._alarms[0][0]:
            heapq.heappop(self._alarms)  # it has been moved
        return self._alarms[0][0] if self._alarms else None

    def fire(self, now: datetime) -> int:
        """Ring all that is due; how many tickets that were."""
        due = []
        while (at := self.next_alarm_at) is not None and at <= now:
            kept = self.kept[heapq.heappop(self._alarms)[1]]
            kept.alarm_at = None
            due.append(kept)
        for kept in due:
            if kept.version == self.policies.version:
                self._ring(kept, now)
            else:
                self._settle(kept, now, Why.EDIT)
        return len(due)

    def _ring(self, kept: Kept, now: datetime) -> None:
        assert kept.ticket is not None
        self._checks.nothing_was_missed(kept, now)
        before = dict(kept.clocks)
        still_open = [clock for clock in before.values() if clock.is_open]
        told = self._decide.ring(kept.ticket, still_open, now)
        if self._checks.samples():
            folded = self._decide.fold(kept.ticket, kept.happenings.values(), self.policies, now, before)
            self._checks.short_way_is_the_long_way(
                kept, told, self._decide.reconcile(kept.ticket, before, folded, now), now
            )
        self._store(kept, told)
        self._schedule(kept, told.next_alarm_at)
        self._tell(told.events)
        self._checks.rung(kept, before, told, self.policies, now)

    # --- the re-planner ----------------------------------------------------------------------------------------------

    def reload(self, policies: Policies) -> None:
        policies.learn({calendar.version: calendar for calendar in self.policies.calendars.values()})
        self.policies = policies

    def replan(self, now: datetime, limit: int) -> int:
        """Bring some tickets under the policies of now; how many there were."""
        outdated = [kept for kept in self.kept.values() if kept.has_open and kept.version != self.policies.version][
            :limit
        ]
        for kept in outdated:
            self._settle(kept, now, Why.EDIT)
        return len(outdated)

    # --- the look at arrivals ----------------------------------------------------------------------------------------

    def look_at_arrivals(self, at: datetime) -> list[PeakEvent]:
        rules = self.policies.peaks
        since = at - rules.window
        seen = with_totals(item for counted in self.counted.values() for item in counted.within(since, at).items())
        comparable = {brand: self._usual(brand, at, counted) for brand, counted in self.counted.items()}
        counts = arrivals_of(seen, comparable)
        events = self._decide.evaluate(
            at, counts, self.active, rules, self.policies.calendars, lambda place: self._staff_needed(seen, place)
        )
        for event in events:
            place = Place(event.brand, event.queue, event.channel)
            if event.kind is PeakKind.BEGAN:
                self.active[place] = Active(event.began_at, event.cause)
            else:
                self.active.pop(place, None)
        self.peaks += events
        self._checks.peaks_told(events, {brand: counted.times for brand, counted in self.counted.items()}, at)
        return events

    def _usual(self, brand: str, at: datetime, counted: Counted) -> list[Counts]:
        rules = self.policies.peaks
        windows = comparable_windows(
            at, rules.window, self.policies.zone_calendar(brand), rules.learned_weeks, counted.times[0][0]
        )
        return [with_totals(counted.within(start, end).items()) for start, end in windows]

    def _staff_needed(self, seen: Counts, place: Place) -> int:
        """As services/sla_timer/firing.py asks it."""
        return sum(
            self.policies.staffing_of(part.channel).agents_needed(count * (_HALF_HOUR / self.policies.peaks.window))
            for part, count in seen.items()
            if part.channel is not None
            and part.all_channels == place.all_channels
            and place.channel in (None, part.channel)
        )

    # --- what is kept ------------------------------------------------------------------------------------------------

    def _store(self, kept: Kept, told: Told) -> None:
        was_open = kept.has_open_resolution
        kept.clocks |= {clock.id: clock for clock in told.changed}
        self.open_resolutions += kept.has_open_resolution - was_open

    def _schedule(self, kept: Kept, at: datetime | None) -> None:
        kept.alarm_at = at
        if at is not None:
            heapq.heappush(self._alarms, (at, kept.ticket_id))

    def _tell(self, events: Sequence[SlaEvent]) -> None:
        self.told.update(event.kind for event in events)
        self._checks.told(events)
