"""From what happened to a ticket to the state of its clocks, and to what must be told.

A ticket's clocks are a function of the set of its happenings and of now: `fold` sorts them by their own time and plays
them through the table of `rules`. So it does not matter in which order they arrive, or how often; a late one counts at
its own time. `reconcile` compares the result with what has been told and says what to tell now.

Every occasion of a promise counts, also one on which nothing was promised: so a clock keeps its number, and with it its
identity, whatever the policies of another day promise.

Three things are frozen against later knowledge: an alarm that was told (a warning, a breach) stays told; a clock that
is breached keeps the terms and the due time it broke; a clock that has ended keeps its terms when policies are edited.

When nothing has happened and only time has run, `ring` comes to what `fold` and `reconcile` would, from the stored
clocks alone: each carries the alarms that lie before it.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from services.sla_timer.domain.policies import Mark, Policies, Terms
from services.sla_timer.domain.rules import ORDER, TABLE, Effect, What
from shared.calendars import Calendar
from shared.events import SlaEvent, SlaKind, Target, derive_id
from shared.taxonomy import Category, Channel, Priority, Queue


@dataclass(frozen=True, slots=True)
class Happening:
    """One thing that happened to a ticket, at its own time. `revision` orders what classifier and desk routed."""

    id: uuid.UUID
    what: What
    at: datetime
    queue: Queue | None = None
    priority: Priority | None = None
    revision: int = 0
    category: Category | None = None
    agent_group: str | None = None


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
ALARMS: Final = frozenset({SlaKind.WARNING, SlaKind.BREACHED, SlaKind.ESCALATED})


@dataclass(frozen=True, slots=True)
class Step:
    """One event in the life of a clock: an SlaEvent, as far as it differs from step to step."""

    kind: SlaKind
    at: datetime
    due_at: datetime | None = None
    used_seconds: int | None = None
    mark: Mark | None = None
    """Of a warning or an escalation: which."""

    @property
    def identity(self) -> tuple[SlaKind, datetime, Mark | None, int | None]:
        """What has to be told anew when it turns out otherwise: also how long an answer took, which a late correction
        may count on another calendar.
        """
        return (self.kind, self.at, self.mark, self.used_seconds if self.kind is SlaKind.MET else None)


Spans = tuple[tuple[datetime, datetime | None], ...]
"""When a clock ran; the last span is open while it runs."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """A moment at which time alone changes something: `at` it, the clock will have used what its mark says."""

    at: datetime
    mark: Mark

    def ring(self, due_at: datetime | None) -> Step:
        kind = self.mark.kind
        used = None if kind is SlaKind.WARNING else int(self.mark.used_seconds)
        return Step(kind, self.at, due_at, used, None if kind is SlaKind.BREACHED else self.mark)


@dataclass(frozen=True, slots=True)
class Clock:
    """One promise about one ticket. `course`: its life so far; `told`: how many SlaEvents it has been given; `alarms`:
    what time will do to it; `agent_group`: of who met it.
    """

    id: uuid.UUID
    target: Target
    generation: int
    state: State
    terms: Terms
    started_at: datetime
    priority: Priority
    queue: Queue | None = None
    category: Category | None = None
    agent_group: str | None = None
    due_at: datetime | None = None
    ended_at: datetime | None = None
    breached_at: datetime | None = None
    course: tuple[Step, ...] = ()
    told: int = 0
    alarms: tuple[Alarm, ...] = ()
    spans: Spans = field(default=(), compare=False)
    """Of a clock that is being played through: when it ran."""

    @property
    def is_open(self) -> bool:
        return self.state in OPEN

    @property
    def used_seconds(self) -> int | None:
        """Business time used until it ended, pauses left out."""
        return next((step.used_seconds for step in reversed(self.course) if step.kind is SlaKind.MET), None)

    @property
    def next_alarm_at(self) -> datetime | None:
        return min((alarm.at for alarm in self.alarms), default=None) if self.is_open else None


_UNPROMISED: Final = Terms("unpromised", "", 0)
"""Terms of an occasion on which nothing is promised. Such a clock runs along in a play, unseen."""


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
        self._category: Category | None = None
        self._current: dict[Target, Clock] = {}
        self._ended: list[Clock] = []

    def happen(self, happening: Happening) -> None:
        self._ring(happening.at, inclusive=False)  # an answer at the due time itself is in time
        if happening.what in (What.ROUTED, What.CORRECTED):
            self._priority = happening.priority or self._priority
            self._queue = happening.queue or self._queue
            self._category = happening.category or self._category
        answered = self._has_ended(Target.FIRST_RESPONSE)  # before this: what meets the first response starts no next
        for target, effect in TABLE[happening.what].items():
            self._apply(target, effect, happening, answered)

    def until(self, now: datetime) -> list[Clock]:
        for target, clock in self._current.items():
            known = self._known.get(clock.id)
            if clock.is_open and known is not None and not known.is_open and known.breached_at is None:
                # Late news opens again what had ended: it is no history any more, and rings.
                self._current[target] = replace(clock, alarms=self._alarms(clock))
        self._ring(now, inclusive=True)
        promises = [clock for clock in (*self._ended, *self._current.values()) if clock.terms.is_promise]
        return sorted(promises, key=lambda clock: (clock.started_at, clock.target))

    def _apply(self, target: Target, effect: Effect, happening: Happening, answered: bool) -> None:
        clock, at = self._current.get(target), happening.at
        is_open = clock is not None and clock.is_open
        if effect is Effect.RENEW:
            resolution = self._current.get(Target.RESOLUTION)
            if resolution is not None and resolution.state is State.RUNNING:
                if clock is not None and is_open:
                    self._end(clock, State.MET, SlaKind.MET, happening)
                self._start(target, at)
        elif effect is Effect.START or (
            not is_open and (effect is Effect.CONTINUE or (effect is Effect.OWE and answered))
        ):
            self._start(target, at)
        elif clock is not None and is_open:
            match effect:
                case Effect.MEET:
                    self._end(clock, State.MET, SlaKind.MET, happening)
                case Effect.CANCEL:
                    self._end(clock, State.CANCELLED, SlaKind.CANCELLED, happening)
                case Effect.PAUSE if clock.state is State.RUNNING:
                    self._pause(clock, at)
                case Effect.OWE | Effect.CONTINUE | Effect.RESUME if clock.state is State.PAUSED:
                    self._resume(clock, at)
                case Effect.REPLAN:
                    self._current[target] = self._planned(clock)
                case _:
                    pass

    def _start(self, target: Target, at: datetime) -> None:
        previous = self._current.get(target)
        generation = previous.generation + 1 if previous else 1
        if previous is not None:
            self._ended.append(previous)
        clock_id = clock_id_of(self._ticket.id, target, generation)
        known = self._known.get(clock_id)
        terms = self._terms_at_start(target, known, at)
        clock = Clock(
            id=clock_id,
            target=target,
            generation=generation,
            state=State.RUNNING,
            terms=terms,
            started_at=at,
            priority=self._priority,
            queue=self._queue,
            category=self._category,
            breached_at=known.breached_at if known else None,
            spans=((at, None),),
        )
        due, alarms = self._times(clock)
        self._current[target] = replace(clock, due_at=due, alarms=alarms, course=(Step(SlaKind.STARTED, at, due),))

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

    def _end(self, clock: Clock, state: State, kind: SlaKind, happening: Happening) -> None:
        met = kind is SlaKind.MET
        used = self._used(clock, happening.at) // timedelta(seconds=1) if met else None
        self._current[clock.target] = replace(
            clock,
            state=state,
            ended_at=happening.at,
            agent_group=happening.agent_group if met else None,
            alarms=(),
            course=(*clock.course, Step(kind, happening.at, clock.due_at, used)),
        )

    def _has_ended(self, target: Target) -> bool:
        clock = self._current.get(target)
        return clock is not None and not clock.is_open

    # --- terms and times ---------------------------------------------------------------------------------------------

    def _terms_at_start(self, target: Target, known: Clock | None, at: datetime) -> Terms:
        """What is promised from now on. Whether anything is, is decided here: a promise that was made stands, and none
        is made after the fact.
        """
        terms = self._policies.terms(self._ticket.brand, self._ticket.channel, self._category, self._priority, target)
        since = self._policies.since
        if terms is None:
            # Those of another day did promise it: an edit undoes nothing, and revives nothing that had fallen away.
            stood = known is not None and known.state is not State.CANCELLED
            is_of_another_day = known is not None and known.terms.policy_version != self._policies.version
            return known.terms if known is not None and stood and is_of_another_day else _UNPROMISED
        if target is Target.PERIODIC_UPDATE and known is None and self._known and since is not None and at < since:
            return _UNPROMISED  # the ticket was planned under policies that did not promise it
        return self._kept(known) or terms

    def _kept(self, known: Clock | None) -> Terms | None:
        """What is breached, or has ended as what the ticket is now, keeps what was promised then."""
        if known is None or (known.is_open and known.breached_at is None):
            return None
        is_as_then = (known.priority, known.category) == (self._priority, self._category)
        return known.terms if known.breached_at is not None or is_as_then else None

    def _planned(self, clock: Clock) -> Clock:
        """The clock under the terms of now, with its due time and its alarms. What is breached keeps its terms, and a
        promise that would not be made any more stands as it was made.
        """
        terms = clock.terms
        if clock.breached_at is None and terms.is_promise:
            now = self._policies.terms(
                self._ticket.brand, self._ticket.channel, self._category, self._priority, clock.target
            )
            terms = self._kept(self._known.get(clock.id)) or now or terms
        planned = replace(clock, terms=terms, priority=self._priority, queue=self._queue, category=self._category)
        due, alarms = self._times(planned)
        if clock.breached_at is not None:
            due = clock.due_at
        is_due = clock.state is State.RUNNING or clock.breached_at is not None
        return replace(planned, due_at=due if is_due else None, alarms=alarms)

    def _times(self, clock: Clock) -> tuple[datetime | None, tuple[Alarm, ...]]:
        """When it is due, and what rings until it ends."""
        known = self._known.get(clock.id)
        if not clock.terms.is_promise:
            return None, ()
        due = clock.breached_at or _reached(
            clock.spans, self._policies.calendar(clock.terms), clock.terms.target_seconds
        )
        if known is not None and not known.is_open:
            # What has ended is history: no later knowledge, and no edited policy, breaches it after the fact.
            return due, ()
        return due, self._alarms(clock)

    def _alarms(self, clock: Clock) -> tuple[Alarm, ...]:
        known, terms = self._known.get(clock.id), clock.terms
        calendar = self._policies.calendar(terms)
        # What has rung stays rung, though its moment moves when the clock is re-planned.
        rung = {_bell(step.mark) for step in (*clock.course, *(known.course if known else ())) if step.mark is not None}
        alarms = []
        for mark in (*terms.marks, terms.breach):
            if _bell(mark) in rung or (clock.breached_at is not None and mark.kind is not SlaKind.ESCALATED):
                continue
            at = _reached(clock.spans, calendar, mark.used_seconds)
            if at is not None:
                alarms.append(Alarm(max(at, clock.breached_at) if clock.breached_at else at, mark))
        return tuple(sorted(alarms, key=_ringing_order))

    def _ring(self, until: datetime, *, inclusive: bool) -> None:
        """Let time run: what is due by `until` warns, breaches and escalates."""
        for target, clock in self._current.items():
            self._current[target] = _rung(clock, until, inclusive=inclusive)

    def _used(self, clock: Clock, until: datetime) -> timedelta:
        if not clock.terms.is_promise:
            return timedelta(0)
        calendar = self._policies.calendar(clock.terms)
        return sum((calendar.business_time(begun, ended or until) for begun, ended in clock.spans), timedelta(0))


def _rung(clock: Clock, until: datetime, *, inclusive: bool) -> Clock:
    """The clock after its alarms until then have rung. A paused one may have some, of a target that was made shorter
    than what it had used: they lie before the pause.
    """
    ringing = [alarm for alarm in clock.alarms if alarm.at < until or (inclusive and alarm.at == until)]
    if not ringing or not clock.is_open:
        return clock
    breach = next((alarm for alarm in ringing if alarm.mark.kind is SlaKind.BREACHED), None)
    due_at = clock.due_at or (breach.at if breach else None)
    return replace(
        clock,
        due_at=due_at,
        course=(*clock.course, *(alarm.ring(due_at) for alarm in ringing)),
        breached_at=breach.at if breach else clock.breached_at,
        # A breached clock is not warned of any more.
        alarms=tuple(
            alarm
            for alarm in clock.alarms
            if alarm not in ringing and not (breach and alarm.mark.kind is SlaKind.WARNING)
        ),
    )


def _ringing_order(alarm: Alarm) -> tuple[datetime, int]:
    return (alarm.at, _STEP_ORDER[alarm.mark.kind])


def _bell(mark: Mark) -> tuple[SlaKind, object]:
    """What makes two marks the same one, though a target of another length rings it at another time."""
    return (mark.kind, mark.share or mark.before_seconds or mark.level)


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


def ring(ticket: Ticket, known: Iterable[Clock], now: datetime) -> Told:
    """What `now` does to a ticket's open clocks (all of them). Nothing has happened since they were settled."""
    changed: list[Clock] = []
    events: list[SlaEvent] = []
    alarms: list[datetime] = []
    for before in known:
        rung = _rung(before, now, inclusive=True)
        steps = rung.course[len(before.course) :]
        if steps:
            after = replace(rung, course=in_order(rung.course), told=before.told + len(steps))
            changed.append(after)
            events += _events(ticket, before, after, steps, now)
        if rung.next_alarm_at is not None:
            alarms.append(rung.next_alarm_at)
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
        and not (clock.due_at == before.due_at and clock.terms.promises_as(before.terms))
        and not any(step.kind in moves_due for step in steps)
    ):
        steps.insert(0, Step(SlaKind.REPLANNED, now, clock.due_at))
    return steps


def _worth_telling(steps: Iterable[Step], clock: Clock) -> Iterator[Step]:
    """A warning or a call for help is of no use once the clock has ended; a breach is a fact."""
    return (step for step in steps if clock.is_open or step.kind not in (SlaKind.WARNING, SlaKind.ESCALATED))


def _kept(before: Clock | None, clock: Clock, steps: Sequence[Step]) -> tuple[Step, ...]:
    """The course to store: what holds now, and every alarm and re-planning that was told."""
    if before is None:
        return in_order(steps)
    lasting = [step for step in before.course if step.kind in ALARMS or step.kind is SlaKind.REPLANNED]
    holding = {step.identity for step in clock.course}
    still = [step for step in before.course if step.identity in holding and step not in lasting]
    fresh = [step for step in steps if step not in lasting and step not in still]
    return in_order([*lasting, *still, *fresh])


def in_order(steps: Iterable[Step]) -> tuple[Step, ...]:
    return tuple(sorted(steps, key=lambda step: (step.at, _STEP_ORDER[step.kind])))


_STEP_ORDER: Final = {
    kind: position
    for position, kind in enumerate(
        (
            SlaKind.STARTED,
            SlaKind.RESUMED,
            SlaKind.REPLANNED,
            SlaKind.WARNING,
            SlaKind.BREACHED,
            SlaKind.ESCALATED,
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
        mark = step.mark
        yield SlaEvent(
            clock_id=clock.id,
            ticket_id=ticket.id,
            step=number,
            kind=step.kind,
            target=clock.target,
            brand=ticket.brand,
            channel=ticket.channel,
            queue=clock.queue,
            category=clock.category,
            priority=clock.priority,
            policy=clock.terms.policy,
            policy_version=clock.terms.policy_version or None,
            calendar=clock.terms.calendar,
            target_seconds=clock.terms.target_seconds,
            started_at=clock.started_at,
            due_at=step.due_at,
            at=step.at,
            fired_at=now if rang else None,
            lateness_ms=(now - step.at) // timedelta(milliseconds=1) if rang else None,
            business_seconds=step.used_seconds,
            warning_share=mark.share if mark else None,
            warning_before_seconds=mark.before_seconds if mark else None,
            escalation=mark.level if mark else None,
            breached=breached,
        )
