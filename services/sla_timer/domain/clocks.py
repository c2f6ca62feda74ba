"""From what happened to a ticket to the state of its clocks, and to what must be told.

A ticket's clocks are a function of the set of its happenings and of now: `fold` sorts them by their own time and plays
them through the table of `rules`. So it does not matter in which order they arrive, or how often; a late one counts at
its own time. `reconcile` compares the result with what has been told and says what to tell now.

Three things are frozen against later knowledge: an alarm that was told (a warning, a breach) stays told; a clock that
is breached keeps the terms and the due time it broke; a clock that has ended keeps its terms when policies are edited.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from services.sla_timer.domain.policies import Policies, Terms
from services.sla_timer.domain.rules import ORDER, TABLE, Effect, What
from shared.calendars import Calendar
from shared.events import SlaEvent, SlaKind, Target, derive_id
from shared.taxonomy import Channel, Priority, Queue


@dataclass(frozen=True, slots=True)
class Happening:
    """One thing that happened to a ticket, at its own time. `revision` orders what classifier and desk routed."""

    id: uuid.UUID
    what: What
    at: datetime
    queue: Queue | None = None
    priority: Priority | None = None
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Ticket:
    """What every event but an activity tells of a ticket. Nothing is promised before it is known."""

    id: uuid.UUID
    brand: str
    channel: Channel
    opened_at: datetime


class State(StrEnum):
    RUNNING = "running"
    PAUSED = "paused"
    MET = "met"
    CANCELLED = "cancelled"


OPEN: Final = frozenset({State.RUNNING, State.PAUSED})
ALARMS: Final = frozenset({SlaKind.WARNING, SlaKind.BREACHED})


@dataclass(frozen=True, slots=True)
class Step:
    """One event in the life of a clock: an SlaEvent, as far as it differs from step to step."""

    kind: SlaKind
    at: datetime
    due_at: datetime | None = None
    used_seconds: int | None = None
    share: float | None = None

    @property
    def identity(self) -> tuple[SlaKind, datetime, float | None]:
        return (self.kind, self.at, self.share)


Spans = tuple[tuple[datetime, datetime | None], ...]
"""When a clock ran; the last span is open while it runs."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """A moment at which time alone changes something. No `share`: the due time itself."""

    at: datetime
    share: float | None = None


@dataclass(frozen=True, slots=True)
class Clock:
    """One promise about one ticket. `course`: its life so far; `told`: how many SlaEvents it has been given."""

    id: uuid.UUID
    target: Target
    generation: int
    state: State
    terms: Terms
    started_at: datetime
    priority: Priority
    queue: Queue | None = None
    due_at: datetime | None = None
    ended_at: datetime | None = None
    breached_at: datetime | None = None
    course: tuple[Step, ...] = ()
    told: int = 0
    # Of a clock that is being played through: when it ran (the last span open), and what time will do to it.
    spans: Spans = field(default=(), compare=False)
    alarms: tuple[Alarm, ...] = field(default=(), compare=False)

    @property
    def is_open(self) -> bool:
        return self.state in OPEN

    @property
    def used_seconds(self) -> int | None:
        """Business time used until it ended, pauses left out."""
        return next((step.used_seconds for step in reversed(self.course) if step.kind is SlaKind.MET), None)

    @property
    def next_alarm_at(self) -> datetime | None:
        return min((alarm.at for alarm in self.alarms), default=None) if self.state is State.RUNNING else None


def clock_id_of(ticket_id: uuid.UUID, target: Target, generation: int) -> uuid.UUID:
    return derive_id("clock", ticket_id, target, generation)


# --- playing the happenings ------------------------------------------------------------------------------------------


def fold(
    ticket: Ticket,
    happenings: Iterable[Happening],
    policies: Policies,
    now: datetime,
    known: Mapping[uuid.UUID, Clock] | None = None,
) -> list[Clock]:
    """The ticket's clocks as of `now`, in order of their start. `known`: clocks as stored, for what is frozen."""
    play = _Play(ticket, policies, known or {})
    for happening in _ordered(ticket, happenings):
        if happening.at > now:
            break
        play.happen(happening)
    return play.until(now)


def _ordered(ticket: Ticket, happenings: Iterable[Happening]) -> list[Happening]:
    """By their own time. Nothing happens to a ticket before it opens, and routing never runs back in revision."""
    routed: list[Happening] = []
    acts: list[Happening] = []
    for item in happenings:
        (routed if item.what is What.ROUTED else acts).append(item)
    routed.sort(key=lambda item: (item.revision, item.id))
    ordered = [Happening(ticket.id, What.OPENED, ticket.opened_at)]
    # The first routing says what the ticket was from the start; before it, there was only a guess.
    latest = ticket.opened_at
    for index, item in enumerate(routed):
        latest = max(latest, item.at) if index else latest
        ordered.append(replace(item, at=latest) if item.at != latest else item)
    ordered += [item if item.at >= ticket.opened_at else replace(item, at=ticket.opened_at) for item in acts]
    return sorted(ordered, key=lambda item: (item.at, ORDER[item.what], item.revision, item.id))


class _Play:
    """The state while happenings are played through."""

    def __init__(self, ticket: Ticket, policies: Policies, known: Mapping[uuid.UUID, Clock]) -> None:
        self._ticket = ticket
        self._policies = policies
        self._known = known
        self._priority = policies.provisional_priority
        self._queue: Queue | None = None
        self._current: dict[Target, Clock] = {}
        self._ended: list[Clock] = []

    def happen(self, happening: Happening) -> None:
        self._ring(happening.at, inclusive=False)  # an answer at the due time itself is in time
        if happening.what in (What.ROUTED, What.CORRECTED):
            self._priority = happening.priority or self._priority
            self._queue = happening.queue or self._queue
        answered = self._is_met(Target.FIRST_RESPONSE)  # before this: what meets the first response starts no next
        for target, effect in TABLE[happening.what].items():
            self._apply(target, effect, happening.at, answered)

    def until(self, now: datetime) -> list[Clock]:
        self._ring(now, inclusive=True)
        return sorted([*self._ended, *self._current.values()], key=lambda clock: (clock.started_at, clock.target))

    def _apply(self, target: Target, effect: Effect, at: datetime, answered: bool) -> None:
        clock = self._current.get(target)
        is_open = clock is not None and clock.is_open
        if effect is Effect.START or (
            not is_open and (effect is Effect.CONTINUE or (effect is Effect.OWE and answered))
        ):
            self._start(target, at)
        elif clock is not None and is_open:
            match effect:
                case Effect.MEET:
                    self._end(clock, State.MET, SlaKind.MET, at)
                case Effect.CANCEL:
                    self._end(clock, State.CANCELLED, SlaKind.CANCELLED, at)
                case Effect.PAUSE if clock.state is State.RUNNING:
                    self._pause(clock, at)
                case Effect.OWE | Effect.CONTINUE if clock.state is State.PAUSED:
                    self._resume(clock, at)
                case Effect.REPLAN:
                    self._current[target] = self._planned(clock)
                case _:
                    pass

    def _start(self, target: Target, at: datetime) -> None:
        previous = self._current.pop(target, None)
        if previous is not None:
            self._ended.append(previous)
        generation = previous.generation + 1 if previous else 1
        clock_id = clock_id_of(self._ticket.id, target, generation)
        known = self._known.get(clock_id)
        breached_at = known.breached_at if known else None
        spans = ((at, None),)
        terms = self._terms_now(target, clock_id)
        due, alarms = (breached_at, ()) if breached_at else self._times(target, terms, spans, known, ())
        self._current[target] = Clock(
            id=clock_id,
            target=target,
            generation=generation,
            state=State.RUNNING,
            terms=terms,
            started_at=at,
            priority=self._priority,
            queue=self._queue,
            due_at=due,
            breached_at=breached_at,
            course=(Step(SlaKind.STARTED, at, due),),
            spans=spans,
            alarms=alarms,
        )

    def _pause(self, clock: Clock, at: datetime) -> None:
        *before, (begun, _) = clock.spans
        self._current[clock.target] = self._planned(
            replace(
                clock,
                state=State.PAUSED,
                spans=(*before, (begun, at)),
                course=(*clock.course, Step(SlaKind.PAUSED, at)),
            )
        )

    def _resume(self, clock: Clock, at: datetime) -> None:
        running = self._planned(replace(clock, state=State.RUNNING, spans=(*clock.spans, (at, None))))
        self._current[clock.target] = replace(
            running, course=(*clock.course, Step(SlaKind.RESUMED, at, running.due_at))
        )

    def _end(self, clock: Clock, state: State, kind: SlaKind, at: datetime) -> None:
        used = self._used(clock, at) // timedelta(seconds=1) if kind is SlaKind.MET else None
        step = Step(kind, at, clock.due_at, used)
        self._current[clock.target] = replace(clock, state=state, ended_at=at, alarms=(), course=(*clock.course, step))

    def _is_met(self, target: Target) -> bool:
        clock = self._current.get(target)
        return clock is not None and clock.state is State.MET

    # --- terms and times ---------------------------------------------------------------------------------------------

    def _terms_now(self, target: Target, clock_id: uuid.UUID) -> Terms:
        known = self._known.get(clock_id)
        if known and (known.breached_at or (not known.is_open and known.priority == self._priority)):
            return known.terms
        return self._policies.terms(self._ticket.brand, self._ticket.channel, self._priority, target)

    def _planned(self, clock: Clock) -> Clock:
        """The clock under the terms of now, with its due time and its alarms."""
        if clock.breached_at is not None:  # frozen
            return replace(clock, priority=self._priority, queue=self._queue, alarms=())
        terms = self._terms_now(clock.target, clock.id)
        due, alarms = self._times(clock.target, terms, clock.spans, self._known.get(clock.id), clock.course)
        return replace(
            clock,
            terms=terms,
            priority=self._priority,
            queue=self._queue,
            due_at=due if clock.state is State.RUNNING else None,
            alarms=alarms,
        )

    def _times(
        self, target: Target, terms: Terms, spans: Spans, known: Clock | None, course: Sequence[Step]
    ) -> tuple[datetime | None, tuple[Alarm, ...]]:
        """When it is due, and what rings until then."""
        calendar = self._calendar(terms, target)
        due = _reached(spans, calendar, terms.target_seconds)
        if known is not None and not known.is_open:
            # What has ended is history: no later knowledge, and no edited policy, breaches it after the fact.
            return due, ()
        # A warning that has rung stays rung, though its moment moves when the clock is re-planned.
        rung = {step.share for step in (*course, *(known.course if known else ())) if step.kind is SlaKind.WARNING}
        alarms = [
            Alarm(at, share)
            for share in terms.warnings
            if share not in rung and (at := _reached(spans, calendar, terms.target_seconds * share)) is not None
        ]
        if due is not None:
            alarms.append(Alarm(due))
        return due, tuple(alarms)

    def _ring(self, until: datetime, *, inclusive: bool) -> None:
        """Let time run: what is due by `until` warns and breaches."""
        for target, clock in self._current.items():
            if clock.state is not State.RUNNING or not clock.alarms:
                continue
            ringing = [alarm for alarm in clock.alarms if alarm.at < until or (inclusive and alarm.at == until)]
            if not ringing:
                continue
            steps = [self._alarm_step(clock, alarm) for alarm in sorted(ringing, key=lambda alarm: alarm.at)]
            breach = next((alarm for alarm in ringing if alarm.share is None), None)
            self._current[target] = replace(
                clock,
                course=(*clock.course, *steps),
                breached_at=breach.at if breach else None,
                alarms=() if breach else tuple(alarm for alarm in clock.alarms if alarm not in ringing),
            )

    def _alarm_step(self, clock: Clock, alarm: Alarm) -> Step:
        if alarm.share is not None:
            return Step(SlaKind.WARNING, alarm.at, clock.due_at, share=alarm.share)
        return Step(SlaKind.BREACHED, alarm.at, clock.due_at, clock.terms.target_seconds)

    def _used(self, clock: Clock, until: datetime) -> timedelta:
        calendar = self._calendar(clock.terms, clock.target)
        return sum((calendar.business_time(begun, ended or until) for begun, ended in clock.spans), timedelta(0))

    def _calendar(self, terms: Terms, target: Target) -> Calendar:
        current = self._policies.terms(self._ticket.brand, self._ticket.channel, self._priority, target)
        return self._policies.calendar(terms, current)


def _reached(spans: Spans, calendar: Calendar, seconds: float) -> datetime | None:
    """When the clock, which ran in `spans`, has used so much business time; none when it stands before that."""
    left = timedelta(seconds=seconds)
    for begun, ended in spans:
        if ended is None:
            return calendar.deadline(begun, left)
        used = calendar.business_time(begun, ended)
        if used >= left:
            return calendar.deadline(begun, left)
        left -= used
    return None


# --- what to tell ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Told:
    """A ticket's clocks as they are to be stored (those that changed), and the events that say so."""

    changed: tuple[Clock, ...]
    events: tuple[SlaEvent, ...]
    next_alarm_at: datetime | None


def reconcile(ticket: Ticket, known: Mapping[uuid.UUID, Clock], folded: Sequence[Clock], now: datetime) -> Told:
    """What has to be told so that everyone knows what `folded` says. Telling the same twice tells nothing."""
    changed: list[Clock] = []
    events: list[SlaEvent] = []
    for clock in (*folded, *_fallen_away(known, folded, now)):
        before = known.get(clock.id)
        steps = _untold(before, clock, now)
        after = replace(clock, course=_kept(before, clock, steps), told=(before.told if before else 0) + len(steps))
        if after != before:
            changed.append(after)
        events += _events(ticket, before, after, steps, now)
    alarms = [clock.next_alarm_at for clock in folded if clock.next_alarm_at is not None]
    return Told(tuple(changed), tuple(events), min(alarms, default=None))


def _untold(before: Clock | None, clock: Clock, now: datetime) -> list[Step]:
    if before is None:
        return list(_worth_telling(clock.course, clock))
    # By what it is, not by place: a late event may have changed the middle of the course. A corrected step is told
    # again as a new one; the last one told is the truth.
    told = {step.identity for step in before.course}
    steps = [step for step in _worth_telling(clock.course, clock) if step.identity not in told]
    *_, last = (step for step in clock.course if step.kind not in ALARMS)
    if last not in steps and (before.state is not clock.state or any(step.kind not in ALARMS for step in steps)):
        steps.append(last)  # known, but what came to light lies before it: the last word must be the state
    moves_due = {SlaKind.STARTED, SlaKind.PAUSED, SlaKind.RESUMED}
    if (
        clock.is_open
        and (clock.due_at, clock.terms) != (before.due_at, before.terms)
        and not any(step.kind in moves_due for step in steps)
    ):
        steps.insert(0, Step(SlaKind.REPLANNED, now, clock.due_at))
    return steps


def _worth_telling(steps: Iterable[Step], clock: Clock) -> Iterator[Step]:
    """A warning is of no use once the clock has ended; a breach is a fact."""
    return (step for step in steps if clock.is_open or step.kind is not SlaKind.WARNING)


def _kept(before: Clock | None, clock: Clock, steps: Sequence[Step]) -> tuple[Step, ...]:
    """The course to store: what holds now, and every alarm and re-planning that was told."""
    if before is None:
        return tuple(steps)
    lasting = [step for step in before.course if step.kind in ALARMS or step.kind is SlaKind.REPLANNED]
    holding = {step.identity for step in clock.course}
    still = [step for step in before.course if step.identity in holding and step not in lasting]
    fresh = [step for step in steps if step not in lasting and step not in still]
    return tuple(sorted([*lasting, *still, *fresh], key=lambda step: (step.at, _STEP_ORDER[step.kind])))


_STEP_ORDER: Final = {
    kind: position
    for position, kind in enumerate(
        (
            SlaKind.STARTED,
            SlaKind.RESUMED,
            SlaKind.REPLANNED,
            SlaKind.WARNING,
            SlaKind.BREACHED,
            SlaKind.PAUSED,
            SlaKind.MET,
            SlaKind.CANCELLED,
        )
    )
}


def _fallen_away(known: Mapping[uuid.UUID, Clock], folded: Sequence[Clock], now: datetime) -> Iterator[Clock]:
    """Clocks that a late event has undone: with it, they would never have started."""
    there = {clock.id for clock in folded}
    for clock in known.values():
        if clock.id not in there and clock.state is not State.CANCELLED:
            step = Step(SlaKind.CANCELLED, now, clock.due_at)
            yield replace(clock, state=State.CANCELLED, ended_at=now, course=(*clock.course, step), alarms=())


def _events(
    ticket: Ticket, before: Clock | None, clock: Clock, steps: Sequence[Step], now: datetime
) -> Iterator[SlaEvent]:
    breached = before is not None and before.breached_at is not None
    for number, step in enumerate(steps, (before.told if before else 0) + 1):
        rang = step.kind in ALARMS
        breached = breached or step.kind is SlaKind.BREACHED
        yield SlaEvent(
            clock_id=clock.id,
            ticket_id=ticket.id,
            step=number,
            kind=step.kind,
            target=clock.target,
            brand=ticket.brand,
            channel=ticket.channel,
            queue=clock.queue,
            priority=clock.priority,
            policy=clock.terms.policy,
            target_seconds=clock.terms.target_seconds,
            started_at=clock.started_at,
            due_at=step.due_at,
            at=step.at,
            fired_at=now if rang else None,
            lateness_ms=(now - step.at) // timedelta(milliseconds=1) if rang else None,
            business_seconds=step.used_seconds,
            warning_share=step.share,
            breached=breached,
        )
