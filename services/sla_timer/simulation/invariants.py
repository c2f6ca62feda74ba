"""What must always hold, checked while the simulation runs. What does not hold raises `Broken`, which says where and
when, with the whole history of the ticket, so that it can be played again.
"""

from __future__ import annotations

import hashlib
import uuid
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, NoReturn

from services.sla_timer.domain.clocks import ALARMS, OPEN, Clock, State, Step, Ticket, Told, fold
from services.sla_timer.domain.policies import Mark, Policies, Terms
from services.sla_timer.domain.rules import What
from services.sla_timer.simulation.kept import Kept
from services.sla_timer.simulation.second_opinion import (
    Life,
    Nature,
    Opinion,
    Promised,
    is_first_instant,
    second_opinion,
    used,
    used_minute_by_minute,
)
from shared.events import PeakEvent, PeakKind, SlaEvent, SlaKind, Target

_MINUTE_SECONDS: Final = 60
_LONGEST_WALK: Final = timedelta(days=10)  # minute by minute, it takes a while


class Why(StrEnum):
    """Why a ticket is settled."""

    NEWS = "news"
    EDIT = "edited policies"


class Standing(StrEnum):
    """What the desk knows of its ticket."""

    OPEN = "open"
    WAITING = "waiting_on_customer"
    RESOLVED = "resolved"
    MERGED = "merged"


_STATE_OF: Final = {
    Standing.OPEN: State.RUNNING,
    Standing.WAITING: State.PAUSED,
    Standing.RESOLVED: State.MET,
    Standing.MERGED: State.CANCELLED,
}
_STATE_SAID_BY: Final = {
    SlaKind.STARTED: State.RUNNING,
    SlaKind.RESUMED: State.RUNNING,
    SlaKind.PAUSED: State.PAUSED,
    SlaKind.MET: State.MET,
    SlaKind.CANCELLED: State.CANCELLED,
}

Bell = tuple[SlaKind, object]
Occasion = tuple[Target, int]


class Broken(Exception):
    """An invariant does not hold."""

    def __init__(self, rule: str, detail: str, where: str, history: Sequence[str] = ()) -> None:
        super().__init__("\n".join([f"{rule}: {detail}", where, *history]))
        self.rule = rule


@dataclass(slots=True)
class Record:
    """What has been told of one clock."""

    steps: int = 0
    breached: bool = False
    state: State = State.RUNNING


class Checks:
    """`run`: how to play it again. `sample_every`: of the costly checks, one in so many is made."""

    def __init__(self, run: str, sample_every: int = 25) -> None:
        self.made: Counter[str] = Counter()
        self.longest_lateness = timedelta(0)
        self._run = run
        self._sample_every = sample_every
        self._asked = 0
        self._outages: list[tuple[datetime, datetime | None]] = []
        self._records: dict[uuid.UUID, Record] = {}
        self._rang: dict[uuid.UUID, set[Bell]] = {}
        self._resolutions: dict[uuid.UUID, State] = {}
        self._open_resolutions = 0
        self._peaks: dict[tuple[str, str, str | None], PeakEvent] = {}
        self._fingerprint = hashlib.sha256()

    @property
    def fingerprint(self) -> str:
        """Of every event that was told: two runs with the same one have told the same."""
        return self._fingerprint.hexdigest()[:16]

    def samples(self) -> bool:
        """Whether it is time for a costly check."""
        self._asked += 1
        return self._asked % self._sample_every == 0

    def outage(self, begun: datetime, ended: datetime | None = None) -> None:
        """The deadline runner has stopped at `begun`, and works again since `ended`."""
        if ended is not None:
            self._outages.pop()
        self._outages.append((begun, ended))

    # --- before a ticket changes -------------------------------------------------------------------------------------

    def nothing_was_missed(self, kept: Kept, now: datetime) -> None:
        """While the runner runs, no alarm lies in the past: each has been rung at its time."""
        for clock in kept.clocks.values():
            at = clock.next_alarm_at
            if at is not None and at < now and not self._was_out(at, now):
                self.broken("no alarm is lost", f"{_name(clock)} should have rung at {at}", now, kept)
        self.made["no alarm is lost"] += 1

    # --- after it has been settled -----------------------------------------------------------------------------------

    def settled(
        self,
        kept: Kept,
        before: Mapping[uuid.UUID, Clock],
        folded: Sequence[Clock],
        told: Told,
        policies: Policies,
        now: datetime,
        why: Why,
    ) -> None:
        ticket = kept.ticket
        assert ticket is not None
        if why is Why.EDIT:
            self._history_stays(kept, before, now)
        opinion = kept.opinion = second_opinion(
            ticket,
            kept.happenings.values(),
            policies.provisional_priority,
            _promised(ticket, before, policies),
            now,
        )
        self._same_clocks(kept, opinion, folded, _of_another_day(before, policies), now)
        self._alarms_told(kept, before, told.events, policies, now, is_news=True)
        for clock in folded:
            stored, known = kept.clocks[clock.id], before.get(clock.id)
            if stored is known and not stored.is_open:
                continue  # it had ended, and was looked at then
            life = opinion.lives[clock.target, clock.generation]
            _Promise(self, kept, known, stored, life, opinion, policies, now).check()
        for clock_id in before.keys() - {clock.id for clock in folded}:
            if kept.clocks[clock_id].state is not State.CANCELLED:
                self.broken("an undone promise is cancelled", f"{_name(kept.clocks[clock_id])} still stands", now, kept)
        self._what_is_owed(kept, now)
        self._next_alarm(kept, told, now)

    def rung(
        self, kept: Kept, before: Mapping[uuid.UUID, Clock], told: Told, policies: Policies, now: datetime
    ) -> None:
        """After the deadline runner has rung a ticket's alarms."""
        self._alarms_told(kept, before, told.events, policies, now, is_news=False)
        self._next_alarm(kept, told, now)
        for clock in kept.clocks.values():
            if _without_alarms(clock) != _without_alarms(before[clock.id]):
                self.broken("ringing changes nothing else", _differences(before[clock.id], clock), now, kept)

    def short_way_is_the_long_way(self, kept: Kept, short: Told, long: Told, now: datetime) -> None:
        """Where only time has run, `ring` comes to what `fold` and `reconcile` do."""
        same = (
            sorted(short.events, key=_place_of) == sorted(long.events, key=_place_of)
            and {clock.id: clock for clock in short.changed} == {clock.id: clock for clock in long.changed}
            and short.next_alarm_at == long.next_alarm_at
        )
        if not same:
            self.broken(
                "ring is settle when only time has run",
                f"ring tells {_kinds(short)}, next at {short.next_alarm_at}; "
                f"settle {_kinds(long)}, next at {long.next_alarm_at}",
                now,
                kept,
            )
        self.made["ring is settle when only time has run"] += 1

    def tells_nothing_twice(self, kept: Kept, again: Told, now: datetime) -> None:
        if again.events or again.changed:
            self.broken("telling twice tells nothing", f"told again: {_kinds(again)}", now, kept)
        self.made["telling twice tells nothing"] += 1

    def _history_stays(self, kept: Kept, before: Mapping[uuid.UUID, Clock], now: datetime) -> None:
        for clock in before.values():
            after = kept.clocks[clock.id]
            if not clock.is_open and after != clock:
                self.broken(
                    "an edit of the policies undoes no history",
                    f"{_name(clock)} was {clock.state}, now {after.state}: {_differences(clock, after)}",
                    now,
                    kept,
                )
        self.made["an edit of the policies undoes no history"] += 1

    def _same_clocks(
        self, kept: Kept, opinion: Opinion, folded: Sequence[Clock], settled: Set[Occasion], now: datetime
    ) -> None:
        """`settled`: occasions of which an earlier edition of the policies has had the last word."""

        def shown(state: State, started_at: datetime, ended_at: datetime | None) -> str:
            return f"{state} from {started_at} to {ended_at}"

        real = {
            (clock.target, clock.generation): shown(clock.state, clock.started_at, clock.ended_at)
            for clock in (kept.clocks[item.id] for item in folded)
        }
        opined = {key: shown(life.state, life.started_at, life.ended_at) for key, life in opinion.lives.items()}
        for key in sorted({*real, *opined} - settled):
            if real.get(key) != opined.get(key):
                self.broken(
                    "the second opinion agrees",
                    f"{key[0]} {key[1]} is {real.get(key)}, by the second opinion {opined.get(key)}",
                    now,
                    kept,
                )
        self.made["the second opinion agrees"] += 1

    def _what_is_owed(self, kept: Kept, now: datetime) -> None:
        """Told from what happened alone: who is owed an answer, and whether the ticket is open."""
        acts = sorted((item for item in kept.happenings.values() if item.at <= now), key=lambda item: item.at)
        opens = (What.CUSTOMER_WROTE, What.TOOK_OVER)
        ends = (What.RESOLVED, What.MERGED)
        is_open, answered, owed = True, False, False
        for item in acts:
            if item.what in opens:
                owed, is_open = owed or answered, True
            elif item.what is What.REOPENED:
                is_open = True
            elif item.what is What.REPLIED:
                answered, owed = True, False
            elif item.what in ends:
                answered, owed, is_open = True, False, False
        states = {
            target: any(clock.target is target and clock.is_open for clock in kept.clocks.values()) for target in Target
        }
        if states[Target.RESOLUTION] != is_open:
            self.broken("an open ticket has an open resolution", f"open: {is_open}, {states}", now, kept)
        if states[Target.NEXT_RESPONSE] != owed or states[Target.FIRST_RESPONSE] == answered:
            self.broken("whoever wrote last is owed an answer", f"owed: {owed}, {states}", now, kept)
        if not is_open and any(states.values()):
            self.broken("an ended ticket owes nothing", f"{states}", now, kept)
        self.made["what is owed"] += 1

    def _next_alarm(self, kept: Kept, told: Told, now: datetime) -> None:
        alarms = [clock.next_alarm_at for clock in kept.clocks.values() if clock.next_alarm_at is not None]
        earliest = min(alarms, default=None)
        if told.next_alarm_at != earliest or kept.alarm_at != earliest:
            self.broken("no alarm is lost", f"the next rings at {earliest}, to be rung at {kept.alarm_at}", now, kept)
        if earliest is not None and earliest <= now:
            self.broken("no alarm is lost", f"one of {earliest} has not been rung", now, kept)

    # --- alarms ------------------------------------------------------------------------------------------------------

    def _alarms_told(
        self,
        kept: Kept,
        before: Mapping[uuid.UUID, Clock],
        events: Sequence[SlaEvent],
        policies: Policies,
        now: datetime,
        *,
        is_news: bool,
    ) -> None:
        for event in events:
            if event.kind not in ALARMS:
                continue
            name = f"{event.kind} of {event.target} at {event.at}"
            clock = kept.clocks[event.clock_id]
            step = next(
                (step for step in clock.course if (step.kind, step.at) == (event.kind, event.at) and _is(step, event)),
                None,
            )
            if step is None:
                self.broken("what is told is stored", f"{name} is not in the course", now, kept)
            rang = self._rang.setdefault(clock.id, set())
            if _bell(event) in rang:
                self.broken("an alarm rings once", name, now, kept)
            rang.add(_bell(event))
            self._at_its_time(kept, before.get(clock.id), clock, step, event, policies, now)
            self._late_for_a_reason(kept, before.get(clock.id), event, now, is_news=is_news)
            self.made["an alarm rings once, at its time"] += 1

    def _at_its_time(
        self,
        kept: Kept,
        before: Clock | None,
        clock: Clock,
        step: Step,
        event: SlaEvent,
        policies: Policies,
        now: datetime,
    ) -> None:
        """Rung at the first instant by which so much business time was used, of what was promised then or since."""
        opinion, ticket = kept.opinion, kept.ticket
        assert opinion is not None
        assert ticket is not None
        life = opinion.lives[clock.target, clock.generation]
        if event.kind is SlaKind.WARNING:
            natures = opinion.natures_from(life.started_at)
            promises = [_terms(policies, ticket, nature, clock.target) for nature in natures]
            if before is not None:
                promises.append(before.terms)
        else:
            promises = [clock.terms]
        for terms in promises:
            if terms is None:
                continue
            calendar = policies.calendar(terms)
            for mark in (*terms.marks, terms.breach):
                if _bell_of(mark) != _bell(event) or (step.mark is not None and step.mark != mark):
                    continue
                if is_first_instant(life, calendar, event.at, mark.used_seconds):
                    return
                if (
                    event.kind is SlaKind.ESCALATED
                    and event.at == clock.breached_at
                    and used(life, calendar, event.at) >= timedelta(seconds=mark.used_seconds)
                ):
                    return
        self.broken(
            "an alarm rings at its time",
            f"{event.kind} of {clock.target}: rung for {event.at}, when the clock had used "
            f"{used(life, policies.calendar(clock.terms), event.at)} of {clock.terms.target_seconds} s ({step.mark})",
            now,
            kept,
        )

    def _late_for_a_reason(
        self, kept: Kept, before: Clock | None, event: SlaEvent, now: datetime, *, is_news: bool
    ) -> None:
        lateness = now - event.at
        if event.fired_at != now or event.lateness_ms != lateness // timedelta(milliseconds=1):
            self.broken("an alarm says how late it is", f"{event.lateness_ms} ms, but it is {lateness}", now, kept)
        if lateness < timedelta(0):
            self.broken("no alarm rings early", f"{event.kind} of {event.target} by {-lateness}", now, kept)
        if lateness == timedelta(0):
            return
        was_planned = before is not None and any(
            alarm.at == event.at and _bell_of(alarm.mark) == _bell(event) for alarm in before.alarms
        )
        if not was_planned and is_news:
            return  # nobody could know of it before
        if self._was_out(event.at, now):
            self.longest_lateness = max(self.longest_lateness, lateness)
        else:
            self.broken(
                "an alarm rings at its time",
                f"{event.kind} of {event.target} late by {lateness}, for no reason",
                now,
                kept,
            )

    def _was_out(self, since: datetime, until: datetime) -> bool:
        return any(begun <= until and (ended is None or ended >= since) for begun, ended in self._outages)

    def rang(self, clock_id: uuid.UUID) -> frozenset[Bell]:
        """What has been told to have rung."""
        return frozenset(self._rang.get(clock_id, ()))

    # --- what is told ------------------------------------------------------------------------------------------------

    def told(self, events: Sequence[SlaEvent]) -> None:
        for event in events:
            self._fingerprint.update(
                f"{event.clock_id} {event.step} {event.kind} {event.at} {event.due_at} {event.fired_at}\n".encode()
            )
            record = self._records.setdefault(event.clock_id, Record())
            where = f"{event.target} of ticket {event.ticket_id}"
            if event.step != record.steps + 1:
                self.broken("steps count 1, 2, 3", f"after {record.steps} came {event.step}, {where}", event.at)
            if record.breached and not event.breached:
                self.broken("breached never goes back", f"step {event.step}, {where}", event.at)
            record.steps, record.breached = event.step, event.breached
            record.state = _STATE_SAID_BY.get(event.kind, record.state)
            if event.target is Target.RESOLUTION:
                self._count_resolution(event.clock_id, record.state)
            self.made["steps count 1, 2, 3"] += 1

    def _count_resolution(self, clock_id: uuid.UUID, state: State) -> None:
        self._open_resolutions += (state in OPEN) - (self._resolutions.get(clock_id) in OPEN)
        self._resolutions[clock_id] = state

    def told_is_stored(self, kept: Iterable[Kept], now: datetime) -> None:
        """The last word told of every clock is its state."""
        for item in kept:
            for clock in item.clocks.values():
                record = self._records.get(clock.id, Record())
                stored = (clock.told, clock.breached_at is not None, clock.state)
                if stored != (record.steps, record.breached, record.state):
                    self.broken(
                        "the last event told is the state", f"{_name(clock)} is {stored}, told {record}", now, item
                    )
                self.made["the last event told is the state"] += 1

    def backlog(self, stored: int, now: datetime) -> None:
        """Arrivals without those that have ended, as told, are the tickets that are open, as stored."""
        if stored != self._open_resolutions:
            self.broken(
                "the backlog is arrivals without what ended", f"told {self._open_resolutions}, stored {stored}", now
            )
        self.made["the backlog is arrivals without what ended"] += 1

    # --- peaks -------------------------------------------------------------------------------------------------------

    def peaks_told(
        self, events: Sequence[PeakEvent], arrivals: Mapping[str, Sequence[tuple[datetime, int]]], now: datetime
    ) -> None:
        for event in events:
            place = (event.brand, event.queue.value, event.channel.value if event.channel else None)
            going_on = self._peaks.get(place)
            if (going_on is None) != (event.kind is PeakKind.BEGAN):
                self.broken("peaks begin and end in turn", f"{event.kind} at {place}, before it {going_on}", now)
            if going_on is not None and (event.began_at, event.cause) != (going_on.began_at, going_on.cause):
                self.broken("a peak ends as it began", f"{event} after {going_on}", now)
            window = timedelta(seconds=event.window_seconds)
            times = arrivals.get(event.brand, ())
            arrived = bisect_left(times, (now, 0)) - bisect_left(times, (now - window, 0))
            if event.seen_arrivals > arrived:
                self.broken("a peak counts what arrived", f"{event.seen_arrivals} of {arrived} of the brand", now)
            if event.kind is PeakKind.BEGAN:
                self._peaks[place] = event
            else:
                del self._peaks[place]
            self._fingerprint.update(f"{place} {event.kind} {event.at} {event.seen_arrivals}\n".encode())
            self.made["peaks begin and end in turn"] += 1

    # --- in the end --------------------------------------------------------------------------------------------------

    def conserved(self, standings: Mapping[uuid.UUID, Standing], kept: Mapping[uuid.UUID, Kept], now: datetime) -> None:
        """When all has been delivered: every ticket that arrived is known, and open or ended as at the desk."""
        for strange in sorted(kept.keys() - standings.keys()):
            self.broken("no ticket comes from nowhere", f"{strange} never arrived", now, kept[strange])
        for ticket_id, standing in standings.items():
            known = kept.get(ticket_id)
            if known is None or known.ticket is None:
                self.broken("no ticket is lost", f"{ticket_id} arrived, and is not known", now)
            resolution = max(
                (clock for clock in known.clocks.values() if clock.target is Target.RESOLUTION),
                key=lambda clock: clock.generation,
            )
            if resolution.state is not _STATE_OF[standing]:
                self.broken(
                    "open or ended as at the desk", f"{standing}, but its clock is {resolution.state}", now, known
                )
            self.made["every ticket is open or ended"] += 1

    def in_any_order(self, kept: Kept, policies: Mapping[str, Policies], now: datetime) -> None:
        """All happenings at once come to what they came to one by one, where no alarm and no edit froze a thing."""
        assert kept.ticket is not None
        if len(kept.versions) != 1:
            return
        (version,) = kept.versions
        since = policies[version].since
        if since is not None and kept.ticket.opened_at < since:
            return
        at_once = fold(kept.ticket, kept.happenings.values(), policies[version], now)
        there = {clock.id for clock in at_once}
        states = {clock.id: clock.state for clock in at_once}
        if states != {clock.id: clock.state for clock in kept.clocks.values() if clock.id in there}:
            self.broken("order and repetition do not matter", f"at once: {states}", now, kept)
        for clock in at_once:
            stored = kept.clocks[clock.id]
            if stored.breached_at is None and clock.breached_at is None and _outcome(stored) != _outcome(clock):
                self.broken(
                    "order and repetition do not matter",
                    f"{_name(clock)}: {_differences(stored, clock)} (one by one -> at once)",
                    now,
                    kept,
                )
        self.made["order and repetition do not matter"] += 1

    # --- when it does not hold ---------------------------------------------------------------------------------------

    def broken(self, rule: str, detail: str, now: datetime, kept: Kept | None = None) -> NoReturn:
        raise Broken(rule, detail, f"at {now.isoformat()} of {self._run}", list(_history(kept)) if kept else [])


class _Promise:
    """One clock beside its second opinion, after its ticket has been settled."""

    def __init__(
        self,
        checks: Checks,
        kept: Kept,
        before: Clock | None,
        clock: Clock,
        life: Life,
        opinion: Opinion,
        policies: Policies,
        now: datetime,
    ) -> None:
        self._checks = checks
        self._kept = kept
        self._before = before
        self._clock = clock
        self._life = life
        self._nature = opinion.nature
        self._natures = opinion.natures_from(life.started_at)
        self._policies = policies
        self._calendar = policies.calendar(clock.terms)
        self._now = now

    def check(self) -> None:
        clock, before = self._clock, self._before
        if before is not None and before.breached_at is not None:
            self._is_frozen(before)
        elif before is not None and not before.is_open and not clock.is_open:
            if clock.breached_at is not None:
                self._broken("no later knowledge breaches what has ended", f"breached at {clock.breached_at}")
        else:
            self._breached_when_more_was_used()
        if clock.is_open and clock.breached_at is None:
            self._as_promised_now()
            self._due()
        if clock.is_open and clock is not before:
            self._alarms()
        if clock.state is State.MET:
            self._used_seconds()
        self._checks.made["each promise beside its second opinion"] += 1

    def _is_frozen(self, before: Clock) -> None:
        clock = self._clock
        now, then = ((each.breached_at, each.terms) for each in (clock, before))
        if now != then:
            self._broken("what is breached keeps its terms", _differences(before, clock))
        if clock.is_open and clock.due_at != before.due_at:
            self._broken("what is breached keeps its due time", f"{before.due_at} -> {clock.due_at}")

    def _breached_when_more_was_used(self) -> None:
        clock, target = self._clock, timedelta(seconds=self._clock.terms.target_seconds)
        total = used(self._life, self._calendar, self._life.ended_at or self._now)
        breached = clock.breached_at is not None
        if total == target:  # used up at closing time, say: then the due time decides, which is checked by itself
            end = self._life.ended_at
            should = breached if clock.due_at is None else clock.due_at < end if end else clock.due_at <= self._now
        else:
            should = total > target
        if breached != should:
            self._broken("breached when more than the target was used", f"{breached}, used {total} of {target}")
        if clock.breached_at is not None and clock.due_at not in (None, clock.breached_at):
            self._broken("it is breached at its due time", f"due {clock.due_at}, breached {clock.breached_at}")
        if self._checks.samples():
            self._minute_by_minute(total)

    def _minute_by_minute(self, total: timedelta) -> None:
        end = self._life.ended_at or self._now
        walkable = all(
            seconds % _MINUTE_SECONDS == 0
            for periods in (*self._calendar.week, self._calendar.extra_working_hours)
            for period in periods
            for seconds in (period.start_seconds, period.end_seconds)
        )
        if walkable and end - self._life.started_at <= _LONGEST_WALK:
            walked = used_minute_by_minute(self._life, self._calendar, end)
            if walked != total:
                self._broken("business time, minute by minute", f"{walked} by minutes, {total} by the calendar")
            self._checks.made["business time, minute by minute"] += 1

    def _as_promised_now(self) -> None:
        clock, ticket = self._clock, self._kept.ticket
        assert ticket is not None
        # What it is now may be promised no such thing: then the promise stands as it was made.
        terms = [_terms(self._policies, ticket, nature, clock.target) for nature in self._natures]
        before = self._before.terms if self._before else None
        promised = next((each for each in reversed(terms) if each is not None), before)
        if clock.terms != promised:
            self._broken("an open promise is that of the policies of now", f"{clock.terms}, but {promised} is promised")
        if (clock.priority, clock.queue, clock.category) != (
            self._nature.priority,
            self._nature.queue,
            self._nature.category,
        ):
            self._broken("a clock knows what its ticket is", f"{clock.priority} {clock.queue}, but {self._nature}")

    def _due(self) -> None:
        """The first instant by which the target is used; none while it is paused."""
        clock = self._clock
        if clock.state is State.PAUSED:
            if clock.due_at is not None or clock.next_alarm_at is not None:
                self._broken("a paused clock is never due", f"due {clock.due_at}, rings {clock.next_alarm_at}")
        elif clock.due_at is None or not is_first_instant(
            self._life, self._calendar, clock.due_at, clock.terms.target_seconds
        ):
            spent = used(self._life, self._calendar, clock.due_at) if clock.due_at else None
            self._broken(
                "due when the target is used", f"due {clock.due_at}, when {spent} of {clock.terms.target_seconds} s is"
            )

    def _alarms(self) -> None:
        """Those that have not rung, each at its first instant, and no others."""
        clock = self._clock
        if clock.state is not State.RUNNING:
            return
        rang = self._checks.rang(clock.id)
        expected = {
            _bell_of(mark): mark
            for mark in (*clock.terms.marks, clock.terms.breach)
            if _bell_of(mark) not in rang and (clock.breached_at is None or mark.kind is SlaKind.ESCALATED)
        }
        planned = {_bell_of(alarm.mark): alarm for alarm in clock.alarms}
        if planned.keys() != expected.keys():
            missing = [str(bell) for bell in expected.keys() - planned.keys()]
            extra = [str(bell) for bell in planned.keys() - expected.keys()]
            self._broken("every alarm is planned", f"missing {missing}, too many {extra}")
        for bell, alarm in planned.items():
            seconds = expected[bell].used_seconds
            if is_first_instant(self._life, self._calendar, alarm.at, seconds):
                continue
            if not (
                alarm.at == clock.breached_at
                and used(self._life, self._calendar, alarm.at) >= timedelta(seconds=seconds)
            ):
                self._broken("every alarm is planned for its time", f"{bell} at {alarm.at}")

    def _used_seconds(self) -> None:
        assert self._life.ended_at is not None
        total = used(self._life, self._calendar, self._life.ended_at) // timedelta(seconds=1)
        if self._clock.used_seconds != total:
            self._broken("an answer says how long it took", f"{self._clock.used_seconds} s, but it took {total} s")

    def _broken(self, rule: str, detail: str) -> NoReturn:
        self._checks.broken(rule, f"{_name(self._clock)}: {detail}", self._now, self._kept)


# --- as it is compared and shown -------------------------------------------------------------------------------------


def _terms(policies: Policies, ticket: Ticket, nature: Nature, target: Target) -> Terms | None:
    return policies.terms(ticket.brand, ticket.channel, nature.category, nature.priority, target)


def _of_another_day(before: Mapping[uuid.UUID, Clock], policies: Policies) -> Set[Occasion]:
    """Promises that had fallen away under other policies. That they stay so is checked by itself."""
    return {
        (clock.target, clock.generation)
        for clock in before.values()
        if clock.state is State.CANCELLED and clock.terms.policy_version != policies.version
    }


def _promised(ticket: Ticket, before: Mapping[uuid.UUID, Clock], policies: Policies) -> Promised:
    """What the policies of now promise, and what those of another day did; nothing is promised after the fact, on an
    occasion before the policies came into force.
    """
    known = {(clock.target, clock.generation): clock for clock in before.values()}

    def promised(target: Target, number: int, nature: Nature, at: datetime) -> bool:
        clock = known.get((target, number))
        if _terms(policies, ticket, nature, target) is None:
            return clock is not None and clock.terms.policy_version != policies.version
        is_after_the_fact = bool(known) and policies.since is not None and at < policies.since
        return clock is not None or target is not Target.PERIODIC_UPDATE or not is_after_the_fact

    return promised


def _bell_of(mark: Mark) -> Bell:
    return (mark.kind, mark.share or mark.before_seconds or mark.level)


def _bell(event: SlaEvent) -> Bell:
    return (event.kind, event.warning_share or event.warning_before_seconds or event.escalation)


def _is(step: Step, event: SlaEvent) -> bool:
    return step.mark is None or _bell_of(step.mark) == _bell(event)


def _without_alarms(clock: Clock) -> tuple[object, ...]:
    return (
        clock.state,
        clock.terms,
        clock.started_at,
        clock.ended_at,
        clock.due_at,
        clock.priority,
        clock.queue,
        clock.category,
    )


def _outcome(clock: Clock) -> tuple[object, ...]:
    return (*_without_alarms(clock)[:-2], clock.queue, clock.used_seconds)


def _place_of(event: SlaEvent) -> tuple[str, int]:
    return (str(event.clock_id), event.step)


def _kinds(told: Told) -> list[str]:
    return [f"{event.target} {event.kind}" for event in told.events]


def _name(clock: Clock) -> str:
    return f"{clock.target} {clock.generation}"


def _differences(before: Clock, after: Clock) -> str:
    names = ["state", "terms", "priority", "queue", "category", "due_at", "ended_at", "breached_at", "used_seconds"]
    names += ["told", "course", "alarms"]
    return "; ".join(
        f"{name} {getattr(before, name)} -> {getattr(after, name)}"
        for name in names
        if getattr(before, name) != getattr(after, name)
    )


def _history(kept: Kept) -> Iterator[str]:
    """All that is known of a ticket: what came in and when, and its clocks."""
    yield f"ticket {kept.ticket_id}: {kept.ticket}"
    known: set[uuid.UUID] = set()
    for taken_at, item in kept.log:
        more = [item.priority, item.queue, item.category, f"revision {item.revision}" if item.revision else None]
        words = " ".join(str(word) for word in more if word)
        came = "came again" if item.id in known else "came"
        known.add(item.id)
        yield f"  {taken_at.isoformat()} {came}: {item.what} of {item.at.isoformat()} {words}".rstrip()
    for clock in kept.clocks.values():
        yield (
            f"  {_name(clock)}: {clock.state}, {clock.terms.policy} ({clock.terms.policy_version}) "
            f"{clock.terms.target_seconds} s on {clock.terms.calendar}, due {clock.due_at}, "
            f"breached {clock.breached_at}, ended {clock.ended_at}"
        )
        for step in clock.course:
            yield f"    {step.at.isoformat()} {step.kind} {step.mark or ''}".rstrip()
        for alarm in clock.alarms:
            yield f"    {alarm.at.isoformat()} will ring: {alarm.mark}"
