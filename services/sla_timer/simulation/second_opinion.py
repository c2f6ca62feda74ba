"""The clocks of a ticket once more, written down from the documentation and not from the code: no table of rules, no
playing through, no `deadline`. Slow and plain. Whatever the real code says is held against it.

It says when each clock started, ran, stood and ended, and whose terms were promised when. How much business time that
is, the calendar says (`used`), or a walk through the single minutes (`used_minute_by_minute`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from typing import Final

from services.sla_timer.domain.clocks import Happening, State, Ticket
from services.sla_timer.domain.rules import What
from shared.calendars import Calendar
from shared.events import Target
from shared.taxonomy import Category, Priority, Queue

_MICROSECOND: Final = timedelta(microseconds=1)
_MINUTE: Final = timedelta(minutes=1)
_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Nature:
    """What a ticket is, from some time on."""

    since: datetime
    priority: Priority
    queue: Queue | None = None
    category: Category | None = None


@dataclass(slots=True)
class Life:
    """Of one clock, or of an occasion on which nothing was promised (`is_promised`). `runs`: from when to when it ran;
    the last has no end while it runs. Occasions are numbered whatever is promised.
    """

    target: Target
    generation: int
    started_at: datetime
    runs: list[tuple[datetime, datetime | None]]
    state: State = State.RUNNING
    ended_at: datetime | None = None
    is_promised: bool = True

    @property
    def is_open(self) -> bool:
        return self.ended_at is None

    def pause(self, at: datetime) -> None:
        if self.state is State.RUNNING:
            self.runs[-1] = (self.runs[-1][0], at)
            self.state = State.PAUSED

    def resume(self, at: datetime) -> None:
        if self.state is State.PAUSED:
            self.runs.append((at, None))
            self.state = State.RUNNING

    def end(self, state: State, at: datetime) -> None:
        if self.state is State.RUNNING:
            self.runs[-1] = (self.runs[-1][0], at)
        self.state, self.ended_at = state, at

    def ran_until(self, until: datetime) -> Iterator[tuple[datetime, datetime]]:
        for begun, ended in self.runs:
            if begun < until:
                yield begun, until if ended is None else min(ended, until)


@dataclass(slots=True)
class Opinion:
    occasions: list[Life] = field(default_factory=list)
    natures: list[Nature] = field(default_factory=list)
    """One after the other; the first from the opening on."""

    @property
    def lives(self) -> dict[tuple[Target, int], Life]:
        """Of the promises that were made."""
        return {(life.target, life.generation): life for life in self.occasions if life.is_promised}

    def natures_from(self, at: datetime) -> Sequence[Nature]:
        """What the ticket was at that time, and after it."""
        ends = [*(nature.since for nature in self.natures[1:]), datetime.max.replace(tzinfo=at.tzinfo)]
        return [nature for nature, end in zip(self.natures, ends, strict=True) if end > at]

    @property
    def nature(self) -> Nature:
        return self.natures[-1]

    def latest(self, target: Target) -> Life | None:
        return next((life for life in reversed(self.occasions) if life.target is target), None)

    def start(self, target: Target, at: datetime, promised: Promised) -> None:
        before = self.latest(target)
        number = before.generation + 1 if before else 1
        is_promised = promised(target, number, self.nature, at)
        self.occasions.append(Life(target, number, at, [(at, None)], is_promised=is_promised))


Promised = Callable[[Target, int, Nature, datetime], bool]
"""Whether a promise is made on an occasion: by target, the occasion's number, what the ticket is, and the time."""


def second_opinion(
    ticket: Ticket, happenings: Iterable[Happening], provisional: Priority, promised: Promised, now: datetime
) -> Opinion:
    opinion = Opinion()
    acts, changes = _told_apart(ticket, happenings, now)
    nature = Nature(ticket.opened_at, provisional)
    if changes and changes[0].what is What.ROUTED and changes[0].at <= ticket.opened_at:
        nature = _changed(nature, changes.pop(0), ticket.opened_at)
    opinion.natures.append(nature)
    opinion.start(Target.FIRST_RESPONSE, ticket.opened_at, promised)
    opinion.start(Target.RESOLUTION, ticket.opened_at, promised)
    for item in sorted([*acts, *changes], key=lambda item: item.at):
        if item.what in (What.ROUTED, What.CORRECTED):
            opinion.natures.append(_changed(opinion.nature, item, item.at))
        else:
            _act(opinion, item, promised)
    return opinion


def _told_apart(
    ticket: Ticket, happenings: Iterable[Happening], now: datetime
) -> tuple[list[Happening], list[Happening]]:
    """Acts, and what changed the nature of the ticket, by time. The first routing counts from the opening on."""
    acts: list[Happening] = []
    routings: list[Happening] = []
    corrections: list[Happening] = []
    for item in happenings:
        if item.what is What.ROUTED:
            routings.append(item)
        elif item.at <= now:
            (corrections if item.what is What.CORRECTED else acts).append(item)
    routings.sort(key=lambda item: item.revision)
    first = [
        Happening(item.id, item.what, ticket.opened_at, item.queue, item.priority, item.revision, item.category)
        for item in routings[:1]
    ]
    later = [item for item in routings[1:] if item.at <= now]
    return acts, first + sorted([*later, *corrections], key=lambda item: item.at)


def _changed(nature: Nature, item: Happening, at: datetime) -> Nature:
    return Nature(at, item.priority or nature.priority, item.queue or nature.queue, item.category or nature.category)


def _act(opinion: Opinion, item: Happening, promised: Promised) -> None:
    at = item.at
    first, following, update, resolution = (opinion.latest(target) for target in Target)
    assert first is not None
    assert resolution is not None
    match item.what:
        case What.CUSTOMER_WROTE | What.TOOK_OVER:
            # He is owed an answer once somebody has answered him before, and the ticket is taken up again.
            if not first.is_open:
                if following is None or not following.is_open:
                    opinion.start(Target.NEXT_RESPONSE, at, promised)
                else:
                    following.resume(at)
            if update is not None:
                update.resume(at)
            _take_up(opinion, resolution, at, promised)
        case What.CUSTOMER_THANKED:
            for life in (following, update, resolution):
                if life is not None:
                    life.resume(at)
        case What.REPLIED:
            for life in (first, following):
                if life is not None and life.is_open:
                    life.end(State.MET, at)
            if resolution.state is State.RUNNING:
                if update is not None and update.is_open:
                    update.end(State.MET, at)
                opinion.start(Target.PERIODIC_UPDATE, at, promised)
        case What.WAITING:
            for life in (following, update, resolution):
                if life is not None:
                    life.pause(at)
        case What.RESOLVED:
            for life, state in (
                (first, State.MET),
                (following, State.CANCELLED),
                (update, State.CANCELLED),
                (resolution, State.MET),
            ):
                if life is not None and life.is_open:
                    life.end(state, at)
        case What.MERGED:
            for life in (first, following, update, resolution):
                if life is not None and life.is_open:
                    life.end(State.CANCELLED, at)
        case What.REOPENED:
            if update is not None and update.is_open:
                update.resume(at)
            else:
                opinion.start(Target.PERIODIC_UPDATE, at, promised)
            _take_up(opinion, resolution, at, promised)
        case _:
            pass  # no person has answered


def _take_up(opinion: Opinion, resolution: Life, at: datetime, promised: Promised) -> None:
    if resolution.is_open:
        resolution.resume(at)
    else:
        opinion.start(Target.RESOLUTION, at, promised)


# --- how much business time ------------------------------------------------------------------------------------------


def used(life: Life, calendar: Calendar, until: datetime) -> timedelta:
    """Business time in which the clock ran, until then."""
    return sum((calendar.business_time(begun, ended) for begun, ended in life.ran_until(until)), timedelta(0))


def is_first_instant(life: Life, calendar: Calendar, at: datetime, seconds: float) -> bool:
    """Whether `at` is the first instant by which the clock has used so much."""
    target = timedelta(seconds=seconds)
    return used(life, calendar, at) == target and used(life, calendar, at - _MICROSECOND) < target


def used_minute_by_minute(life: Life, calendar: Calendar, until: datetime) -> timedelta:
    """The same, by looking at the clock on the wall in each single minute. For calendars of whole minutes."""
    total = timedelta(0)
    for begun, ended in life.ran_until(until):
        minute = begun.replace(second=0, microsecond=0)
        while minute < ended:
            if is_worked(calendar, minute):
                total += min(ended, minute + _MINUTE) - max(begun, minute)
            minute += _MINUTE
    return total


def is_worked(calendar: Calendar, at: datetime) -> bool:
    """Whether the clock on the wall shows a time within a period of the day, or of one that began the day before."""
    wall = calendar.local(at)
    return any(
        period.start_seconds <= _seconds(wall, day) < period.end_seconds
        for day in (wall.date(), wall.date() - _DAY)
        for period in calendar.periods_of(day)
    )


def _seconds(wall: datetime, day: date) -> float:
    return (wall.replace(tzinfo=None) - datetime.combine(day, time())).total_seconds()
