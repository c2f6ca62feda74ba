"""Each check of the simulation can fail: a fault is put into the decisions, and the check against it says so."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.sla_timer.domain import clocks as clockwork
from services.sla_timer.domain import peaks as peakwork
from services.sla_timer.domain.clocks import Alarm, Clock, Happening, State, Ticket, Told
from services.sla_timer.domain.policies import Policies
from services.sla_timer.domain.rules import What
from services.sla_timer.simulation import invariants, world
from services.sla_timer.simulation.invariants import Broken, Checks, Standing
from services.sla_timer.simulation.second_opinion import (
    Life,
    Nature,
    is_first_instant,
    is_worked,
    second_opinion,
    used,
    used_minute_by_minute,
)
from services.sla_timer.simulation.timer import Decisions
from services.sla_timer.simulation.world import Run, simulate
from shared.calendars import Calendar, Period
from shared.events import PeakEvent, PeakKind, SlaEvent, SlaKind, Target
from shared.taxonomy import Priority
from tests.unit.sla_timer.support import NINE, OFFICE, TICKET, at, happened
from tests.unit.sla_timer.worlds import small_world

SEED = 5
Known = Mapping[uuid.UUID, Clock]
Fold = Callable[[Ticket, Iterable[Happening], Policies, datetime, Known], list[Clock]]


@pytest.fixture(scope="module")
def run() -> Run:
    """Without any fault."""
    return simulate(small_world(seed=SEED))


def test_nothing_is_broken_without_a_fault(run: Run) -> None:
    assert len(run.arrivals) > 20
    assert {event.kind for event in run.timer.peaks} == set(PeakKind)
    # All kinds of what can happen have happened, or the checks would check nothing.
    log = [item.what for kept in run.timer.kept.values() for _, item in kept.log]
    assert set(log) >= set(What) - {What.OPENED, What.REOPENED, What.MERGED, What.TOOK_OVER}
    assert all(run.timer.told[kind] for kind in SlaKind)
    assert run.delivered["late"]
    assert run.delivered["repeated"]


def _each(change: Callable[[Clock], Clock]) -> Fold:
    """The real fold, and then each clock changed."""

    def fold(
        ticket: Ticket, happenings: Iterable[Happening], policies: Policies, now: datetime, known: Known
    ) -> list[Clock]:
        return [change(clock) for clock in clockwork.fold(ticket, happenings, policies, now, known)]

    return fold


def _pauses_count(clock: Clock) -> Clock:
    """Due as if it had never been paused."""
    resumed = [step for step in clock.course if step.kind is SlaKind.RESUMED]
    return replace(clock, due_at=clock.course[0].due_at) if resumed and clock.state is State.RUNNING else clock


def _alarms_moved(by: timedelta) -> Callable[[Clock], Clock]:
    def moved(clock: Clock) -> Clock:
        return replace(clock, alarms=tuple(Alarm(alarm.at + by, alarm.mark) for alarm in clock.alarms))

    return moved


def _breached_in_time(clock: Clock) -> Clock:
    return replace(clock, breached_at=clock.ended_at) if clock.state is State.MET and not clock.breached_at else clock


def _ignoring_waits(
    ticket: Ticket, happenings: Iterable[Happening], policies: Policies, now: datetime, known: Known
) -> list[Clock]:
    return clockwork.fold(ticket, (item for item in happenings if item.what is not What.WAITING), policies, now, known)


def _at_the_time_of_arrival(
    ticket: Ticket, happenings: Iterable[Happening], policies: Policies, now: datetime, known: Known
) -> list[Clock]:
    """What comes late counts as if it had happened after all that came before it."""
    latest = ticket.opened_at
    arrived = []
    for item in happenings:
        latest = max(latest, item.at)
        arrived.append(replace(item, at=latest))
    return clockwork.fold(ticket, arrived, policies, now, known)


def _without_memory(
    ticket: Ticket, happenings: Iterable[Happening], policies: Policies, now: datetime, known: Known
) -> list[Clock]:
    return clockwork.fold(ticket, happenings, policies, now)


_FOLDS: dict[str, tuple[Fold, str]] = {
    "pauses count": (_each(_pauses_count), "due when the target is used"),
    "waiting pauses nothing": (_ignoring_waits, "the second opinion agrees"),
    "late news counts when it comes": (_at_the_time_of_arrival, "the second opinion agrees"),
    "alarms a second early": (_each(_alarms_moved(-timedelta(seconds=1))), "every alarm is planned for its time"),
    "alarms a microsecond late": (
        _each(_alarms_moved(timedelta(microseconds=1))),
        "every alarm is planned for its time",
    ),
    "the last alarm is lost": (
        _each(lambda clock: replace(clock, alarms=clock.alarms[:-1])),
        "every alarm is planned",
    ),
    "no breach is seen": (
        _each(lambda clock: replace(clock, breached_at=None)),
        "what is breached keeps its terms",
    ),
    "answers in time are breaches": (
        _each(_breached_in_time),
        "breached when more than the target was used",
    ),
    "a paused clock is due": (
        _each(lambda clock: replace(clock, due_at=clock.course[0].due_at) if clock.due_at is None else clock),
        "a paused clock is never due",
    ),
    "answers take a second more": (
        _each(
            lambda clock: replace(
                clock,
                course=tuple(
                    replace(step, used_seconds=(step.used_seconds or 0) + 1) if step.kind is SlaKind.MET else step
                    for step in clock.course
                ),
            )
        ),
        "an answer says how long it took",
    ),
    "priorities are forgotten": (
        _each(lambda clock: replace(clock, priority=Priority.P4) if clock.is_open else clock),
        "a clock knows what its ticket is",
    ),
    "nothing is frozen": (_without_memory, "an edit of the policies undoes no history"),
}


@pytest.mark.parametrize(("fold", "rule"), _FOLDS.values(), ids=_FOLDS)
def test_a_fault_in_fold_is_found(fold: Fold, rule: str) -> None:
    _is_found(Decisions(fold=fold), rule, tickets_per_week=80.0)


_NEVER = 1_000_000
"""The costly checks are left out: they would find the fault first."""


def _is_found(decisions: Decisions, rule: str, **changes: Any) -> Broken:
    with pytest.raises(Broken) as caught:
        simulate(small_world(seed=SEED, **{"sample_every": _NEVER, **changes}), decisions)
    assert caught.value.rule == rule, caught.value
    return caught.value


def test_what_is_broken_says_where_and_how_to_play_it_again() -> None:
    fold, _ = _FOLDS["waiting pauses nothing"]
    with pytest.raises(Broken) as caught:
        simulate(small_world(seed=SEED), Decisions(fold=fold))
    text = str(caught.value)
    first, where, ticket, *history = text.splitlines()
    assert first.startswith("the second opinion agrees: ")
    assert "of simulate --seed 5 --weeks 1 --from 2026-10-26 --tickets-per-week 30 --agents-factor 0.5" in where
    assert ticket.startswith("ticket ")
    assert any("came: waiting_on_customer of" in line for line in history)
    assert any("resolution 1: running" in line for line in history)
    with pytest.raises(Broken) as again:
        simulate(small_world(seed=SEED), Decisions(fold=fold))
    assert str(again.value) == text


def test_an_edit_that_undoes_history_is_found() -> None:
    """What has ended gets the terms of the new policies."""

    def fold(
        ticket: Ticket, happenings: Iterable[Happening], policies: Policies, now: datetime, known: Known
    ) -> list[Clock]:
        folded = clockwork.fold(ticket, happenings, policies, now, known)
        return [
            clock
            if clock.is_open or clock.breached_at or clock.terms.policy_version == policies.version
            else replace(clock, terms=replace(clock.terms, policy_version=policies.version))
            for clock in folded
        ]

    _is_found(Decisions(fold=fold), "an edit of the policies undoes no history")


def test_what_was_breached_and_is_planned_anew_is_found() -> None:
    def fold(
        ticket: Ticket, happenings: Iterable[Happening], policies: Policies, now: datetime, known: Known
    ) -> list[Clock]:
        folded = clockwork.fold(ticket, happenings, policies, now, known)
        return [
            replace(clock, due_at=now) if clock.is_open and clock.id in known and known[clock.id].breached_at else clock
            for clock in folded
        ]

    _is_found(Decisions(fold=fold), "what is breached keeps its due time")


# --- what is told ----------------------------------------------------------------------------------------------------


def _telling(change: Callable[[Told], Told]) -> Decisions:
    def reconcile(ticket: Ticket, known: Known, folded: Sequence[Clock], now: datetime) -> Told:
        return change(clockwork.reconcile(ticket, known, folded, now))

    return Decisions(reconcile=reconcile)


def _events(told: Told, events: Iterable[SlaEvent]) -> Told:
    return replace(told, events=tuple(events))


_TELLINGS: dict[str, tuple[Callable[[Told], Told], str]] = {
    "twice": (lambda told: _events(told, [*told.events, *told.events]), "steps count 1, 2, 3"),
    "not all": (
        lambda told: _events(told, (event for event in told.events if event.kind is not SlaKind.PAUSED)),
        "steps count 1, 2, 3",
    ),
    "the end of a resolution is left out": (
        lambda told: _events(
            told,
            (event for event in told.events if not (event.kind is SlaKind.MET and event.target is Target.RESOLUTION)),
        ),
        "the backlog is arrivals without what ended",
    ),
    "a breach is taken back": (
        lambda told: _events(
            told,
            (
                event.model_copy(update={"breached": False}) if event.kind is SlaKind.MET else event
                for event in told.events
            ),
        ),
        "breached never goes back",
    ),
    "the next alarm is forgotten": (lambda told: replace(told, next_alarm_at=None), "no alarm is lost"),
    "the next alarm is to ring later": (
        lambda told: replace(told, next_alarm_at=told.next_alarm_at and told.next_alarm_at + timedelta(seconds=1)),
        "no alarm is lost",
    ),
}


@pytest.mark.parametrize(("change", "rule"), _TELLINGS.values(), ids=_TELLINGS)
def test_a_fault_in_telling_is_found(change: Callable[[Told], Told], rule: str) -> None:
    _is_found(_telling(change), rule)


def test_an_undone_promise_that_stands_is_found() -> None:
    """A clock that nothing started any more is left as it was."""

    def fold(
        ticket: Ticket, happenings: Iterable[Happening], policies: Policies, now: datetime, known: Known
    ) -> list[Clock]:
        return [
            clock
            for clock in clockwork.fold(ticket, happenings, policies, now, known)
            if clock.target is not Target.NEXT_RESPONSE
        ]

    _is_found(Decisions(fold=fold), "the second opinion agrees")


# --- the deadline runner ---------------------------------------------------------------------------------------------


def _ringing(change: Callable[[Told], Told], ahead: timedelta = timedelta(0)) -> Decisions:
    def ring(ticket: Ticket, known: Iterable[Clock], now: datetime) -> Told:
        return change(clockwork.ring(ticket, known, now + ahead))

    return Decisions(ring=ring)


def test_alarms_rung_before_their_time_are_found() -> None:
    _is_found(_ringing(lambda told: told, timedelta(hours=1)), "an alarm says how late it is")


def test_a_ring_that_forgets_a_mark_is_found() -> None:
    def forgetful(told: Told) -> Told:
        return replace(told, changed=tuple(replace(clock, alarms=clock.alarms[1:]) for clock in told.changed))

    _is_found(_ringing(forgetful), "ring is settle when only time has run", sample_every=1)


def test_a_ring_that_changes_something_else_is_found() -> None:
    def meddling(told: Told) -> Told:
        return replace(told, changed=tuple(replace(clock, priority=Priority.P4) for clock in told.changed))

    _is_found(_ringing(meddling), "ringing changes nothing else")


def test_a_ring_that_rings_nothing_is_found() -> None:
    def deaf(ticket: Ticket, known: Iterable[Clock], now: datetime) -> Told:
        alarms = [clock.next_alarm_at for clock in known if clock.next_alarm_at is not None]
        return Told((), (), min((alarm for alarm in alarms if alarm > now), default=None))

    _is_found(Decisions(ring=deaf), "no alarm is lost")


def test_an_alarm_that_is_late_for_no_reason_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The runner stops for a day, and the checks are told nothing of it."""
    monkeypatch.setattr(world, "_RUNNER_STOPS_MINUTES", (1440.0, 1441.0))
    told = simulate(small_world(seed=SEED))
    assert told.checks.longest_lateness > timedelta(hours=1)
    monkeypatch.setattr(Checks, "outage", lambda *_: None)
    broken = _is_found(Decisions(), "no alarm is lost")
    assert "should have rung at" in str(broken)


# --- peaks -----------------------------------------------------------------------------------------------------------


def test_a_peak_that_begins_twice_is_found() -> None:
    def evaluate(
        at: datetime,
        counted: Mapping[peakwork.Place, peakwork.Arrivals],
        active: Mapping[peakwork.Place, peakwork.Active],
        rules: peakwork.PeakRules,
        calendars: Mapping[str, Calendar],
        staff_needed: Callable[[peakwork.Place], int | None],
    ) -> list[PeakEvent]:
        return peakwork.evaluate(at, counted, {}, rules, calendars, staff_needed)

    _is_found(Decisions(evaluate=evaluate), "peaks begin and end in turn")


def test_a_peak_of_arrivals_that_never_came_is_found() -> None:
    def evaluate(*given: Any) -> list[PeakEvent]:
        return [
            event.model_copy(update={"seen_arrivals": event.seen_arrivals + 1000})
            for event in peakwork.evaluate(*given)
        ]

    _is_found(Decisions(evaluate=evaluate), "a peak counts what arrived")


# --- in the end ------------------------------------------------------------------------------------------------------


def _standings(run: Run) -> dict[uuid.UUID, Standing]:
    return {ticket.id: ticket.standing for ticket in run.desk.tickets.values()}


def test_a_lost_ticket_is_found(run: Run) -> None:
    standings = _standings(run)
    run.checks.conserved(standings, run.timer.kept, run.ended)
    with pytest.raises(Broken, match="no ticket is lost"):
        run.checks.conserved({**standings, uuid.UUID(int=1): Standing.OPEN}, run.timer.kept, run.ended)
    known = dict(run.timer.kept)
    with pytest.raises(Broken, match="no ticket comes from nowhere"):
        run.checks.conserved({}, known, run.ended)


def test_a_ticket_that_ended_only_at_the_desk_is_found(run: Run) -> None:
    standings = _standings(run)
    one = next(ticket_id for ticket_id, standing in standings.items() if standing is Standing.RESOLVED)
    with pytest.raises(Broken, match="open or ended as at the desk"):
        run.checks.conserved({**standings, one: Standing.OPEN}, run.timer.kept, run.ended)


def test_a_last_word_that_is_not_the_state_is_found(run: Run) -> None:
    kept = next(iter(run.timer.kept.values()))
    clock = next(iter(kept.clocks.values()))
    changed = replace(kept, clocks={**kept.clocks, clock.id: replace(clock, told=clock.told + 1)})
    run.checks.told_is_stored([kept], run.ended)
    with pytest.raises(Broken, match="the last event told is the state"):
        run.checks.told_is_stored([changed], run.ended)


def test_an_outcome_that_depends_on_the_order_is_found(run: Run) -> None:
    policies = {version: run.policies for kept in run.timer.kept.values() for version in kept.versions}
    kept = next(
        kept
        for kept in run.timer.kept.values()
        if kept.versions == {run.policies.version} and all(clock.breached_at is None for clock in kept.clocks.values())
    )
    run.checks.in_any_order(kept, policies, run.ended)
    clock = next(iter(kept.clocks.values()))
    for wrong in (
        replace(clock, state=State.PAUSED),
        replace(clock, started_at=clock.started_at + timedelta(seconds=1)),
    ):
        changed = replace(kept, clocks={**kept.clocks, clock.id: wrong})
        with pytest.raises(Broken, match="order and repetition do not matter"):
            run.checks.in_any_order(changed, policies, run.ended)


def test_a_clock_that_is_owed_to_nobody_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the second opinion struck dumb, what happened alone says what is owed."""
    monkeypatch.setattr(Checks, "_same_clocks", lambda *_: None)

    def fold(
        ticket: Ticket, happenings: Iterable[Happening], policies: Policies, now: datetime, known: Known
    ) -> list[Clock]:
        folded = clockwork.fold(ticket, happenings, policies, now, known)
        return [clock for clock in folded if clock.target is not Target.NEXT_RESPONSE]

    _is_found(Decisions(fold=fold), "whoever wrote last is owed an answer")


# --- the second opinion ----------------------------------------------------------------------------------------------


def test_minutes_that_do_not_add_up_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    real = used_minute_by_minute
    monkeypatch.setattr(invariants, "used_minute_by_minute", lambda *given: real(*given) + timedelta(microseconds=1))
    _is_found(Decisions(), "business time, minute by minute", sample_every=1)


NIGHTS = Calendar("nights", "America/New_York", ((Period.parse("22:00-06:00"),),) * 7)


@pytest.mark.parametrize(("day", "hours"), [(7, 7), (14, 8)], ids=["clocks put forward", "any night"])
def test_the_walk_through_the_minutes_knows_the_clock_on_the_wall(day: int, hours: int) -> None:
    noon = datetime(2026, 3, day, 17, tzinfo=UTC)
    life = Life(Target.RESOLUTION, 1, noon, [(noon, None)])
    assert used_minute_by_minute(life, NIGHTS, noon + timedelta(days=1)) == timedelta(hours=hours)
    assert used(life, NIGHTS, noon + timedelta(days=1)) == timedelta(hours=hours)
    assert not is_worked(NIGHTS, noon)
    assert is_worked(NIGHTS, noon + timedelta(hours=12))


def test_the_first_instant_is_no_other() -> None:
    life = Life(Target.RESOLUTION, 1, NINE, [(NINE, at(60)), (at(120), None)])
    assert is_first_instant(life, OFFICE, at(150), 90 * 60)
    assert not is_first_instant(life, OFFICE, at(150) + timedelta(microseconds=1), 90 * 60)
    assert not is_first_instant(life, OFFICE, at(120), 60 * 60)  # it had used them when it was paused
    assert is_first_instant(life, OFFICE, at(60), 60 * 60)


def test_the_second_opinion_reads_the_rules_from_the_documentation() -> None:
    def is_made(target: Target, number: int, nature: Nature, at: datetime) -> bool:
        return target is not Target.PERIODIC_UPDATE or nature.priority is Priority.P1

    story = [
        happened(What.ROUTED, 1, Priority.P1, revision=1),
        happened(What.REPLIED, 5),
        happened(What.WAITING, 6),
        happened(What.CUSTOMER_WROTE, 30),
        happened(What.CORRECTED, 31, Priority.P4),
        happened(What.RESOLVED, 40),
        happened(What.REOPENED, 50),
    ]
    opinion = second_opinion(
        TICKET,
        reversed(story),
        Priority.P3,
        is_made,
        at(60),
    )
    assert {(target.value, number): (life.state, life.runs) for (target, number), life in opinion.lives.items()} == {
        ("first_response", 1): (State.MET, [(at(0), at(5))]),
        ("next_response", 1): (State.CANCELLED, [(at(30), at(40))]),
        ("periodic_update", 1): (State.CANCELLED, [(at(5), at(6)), (at(30), at(40))]),  # it stands as it was made
        ("resolution", 1): (State.MET, [(at(0), at(6)), (at(30), at(40))]),
        ("resolution", 2): (State.RUNNING, [(at(50), None)]),
    }
    assert [nature.priority for nature in opinion.natures] == [Priority.P1, Priority.P4]
    assert [nature.since for nature in opinion.natures_from(at(10))] == [NINE, at(31)]
    assert [nature.since for nature in opinion.natures_from(at(31))] == [at(31)]
