"""Clocks hold their promises in any order of arrival, with any repetition."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from copy import copy
from datetime import datetime, timedelta

from hypothesis import example, given, settings
from hypothesis import strategies as st

from services.sla_timer.domain.clocks import ALARMS, Clock, Happening, State, fold
from services.sla_timer.domain.policies import Policies
from services.sla_timer.domain.rules import What
from shared.events import SlaEvent, SlaKind, Target
from shared.taxonomy import Priority, Queue
from tests.unit.sla_timer.support import POLICIES, TICKET, Watch, at, happened, outcome, policies_of, targets

minutes = st.integers(0, 600).map(lambda tenths: tenths / 2)
acts = st.builds(
    happened,
    st.sampled_from(
        (
            What.CUSTOMER_WROTE,
            What.CUSTOMER_WROTE,
            What.CUSTOMER_THANKED,
            What.ACKNOWLEDGED,
            What.REPLIED,
            What.REPLIED,
            What.WAITING,
            What.RESOLVED,
            What.REOPENED,
            What.MERGED,
            What.TOOK_OVER,
        )
    ),
    minutes,
)
corrections = st.builds(
    happened, st.just(What.CORRECTED), minutes, st.sampled_from(Priority), st.sampled_from([None, Queue.CREDIT])
)
routings = st.builds(
    happened,
    st.just(What.ROUTED),
    minutes,
    st.sampled_from(Priority),
    st.sampled_from([Queue.SECURITY, Queue.GENERAL]),
    st.integers(1, 4),
)
histories = st.lists(
    st.one_of(acts, acts, acts, routings, corrections), max_size=10, unique_by=lambda item: item.id
).filter(lambda items: len(revisions := [item.revision for item in items if item.revision]) == len(set(revisions)))
END = 301.0


def deliver(history: list[Happening], order: random.Random, *, ring: bool) -> Watch:
    """The service's life: shuffled, repeated, in batches; with `ring`, time passes between them and alarms go off."""
    arriving = [*history, *order.choices(history, k=len(history))] if history else []
    order.shuffle(arriving)
    watch = Watch()
    now = END
    if ring:
        watch.take(0)
        now = 0.0
    while arriving:
        batch = [arriving.pop() for _ in range(min(len(arriving), order.randint(1, 3)))]
        if ring:  # nothing arrives before it has happened
            now = max(now, *((item.at - at(0)).total_seconds() / 60 for item in batch)) + order.random() * 10
        watch.take(now, *batch)
    watch.take(max(now, END))
    return watch


@settings(max_examples=100, deadline=None)
@given(histories, st.integers(0, 2**32))
def test_any_order_and_any_repetition_come_to_the_same_clocks(history: list[Happening], seed: int) -> None:
    at_once = fold(TICKET, history, POLICIES, at(END))
    watch = deliver(history, random.Random(seed), ring=False)
    there = [clock for clock in watch.stored.values() if clock.id in {item.id for item in at_once}]
    # Alarms aside: one that has been told on what was known then stays told, and freezes its clock.
    untouched = {clock.id for clock in there if clock.breached_at is None}
    expected = [clock for clock in at_once if clock.id in untouched and clock.breached_at is None]
    assert outcome(clock for clock in there if clock.id in {item.id for item in expected}) == outcome(expected)
    assert {(clock.target, clock.generation): clock.state for clock in there} == {
        (clock.target, clock.generation): clock.state for clock in at_once
    }


@settings(max_examples=100, deadline=None)
@given(histories, st.integers(0, 2**32))
def test_each_alarm_rings_at_most_once_and_steps_count_up(history: list[Happening], seed: int) -> None:
    watch = deliver(history, random.Random(seed), ring=True)
    rang = Counter(
        (event.clock_id, event.kind, event.warning_share, event.warning_before_seconds, event.escalation)
        for event in watch.told
        if event.kind in ALARMS
    )
    assert all(count == 1 for count in rang.values())
    for clock_id in {event.clock_id for event in watch.told}:
        events = [event for event in watch.told if event.clock_id == clock_id]
        assert [event.step for event in events] == list(range(1, len(events) + 1))
        # Once breached, always breached; and what is stored says what was told.
        flags = [event.breached for event in events]
        assert flags == sorted(flags)
        assert (watch.stored[clock_id].breached_at is not None) == flags[-1]
        assert watch.stored[clock_id].told == len(events)


@settings(max_examples=100, deadline=None)
@given(histories, st.lists(st.floats(0, 600), min_size=1, max_size=8), st.integers(0, 2**32))
def test_the_short_way_comes_to_what_the_long_way_does(history: list[Happening], times: list[float], seed: int) -> None:
    """Where only time has run, ringing the stored alarms is settling the whole ticket."""
    order = random.Random(seed)
    watch, arriving, now = Watch(), list(history), 0.0
    order.shuffle(arriving)
    for time in sorted(times):
        batch = [arriving.pop() for _ in range(min(len(arriving), order.randint(0, 3)))]
        now = max(now, time, *((item.at - at(0)).total_seconds() / 60 for item in batch), 0.0)
        watch.take(now, *batch)
        now += order.random() * 200
        short, long = watch.rung(at(now)), watch.settled(at(now))
        assert sorted(short.events, key=_identity) == sorted(long.events, key=_identity)
        assert {clock.id: clock for clock in short.changed} == {clock.id: clock for clock in long.changed}
        assert short.next_alarm_at == long.next_alarm_at
        watch.ring(now)
        assert watch.settled(at(now)).events == ()


UPDATES_FOR_ALL = policies_of(
    default={
        "calendar": "always",
        "targets": {"*": targets("20m", "15m", "2h", "25m"), "P4": targets("20m", "15m", "2h")},
    }
)


@settings(max_examples=150, deadline=None)
@given(histories, st.floats(0, 300), st.integers(0, 2**32), st.booleans())
def test_an_edit_undoes_no_history(history: list[Happening], edited: float, seed: int, forth: bool) -> None:
    """Whatever the policies of tomorrow promise, and whatever they leave out: what has ended stays as it is, and what
    comes later adds to it.
    """
    order = random.Random(seed)
    before, after = (POLICIES, UPDATES_FOR_ALL) if forth else (UPDATES_FOR_ALL, POLICIES)
    watch = Watch(before)
    early = [item for item in history if item.at <= at(edited)]
    watch.take(edited, *early)
    ended = {clock.id: clock for clock in watch.stored.values() if not clock.is_open}
    watch.policies = at_hand(after, at(edited))
    now = edited
    for _ in range(order.randint(1, 3)):
        watch.take(now)
        assert {clock_id: watch.stored[clock_id] for clock_id in ended} == ended
        now += order.random() * 60
    # Nothing is promised after the fact: what is new begins with or after the edit.
    known = {clock.id for clock in watch.stored.values() if clock.started_at < at(edited)}
    late = sorted((item for item in history if item.at > at(edited)), key=lambda item: item.at)
    for item in late:
        watch.take(max(now, (item.at - at(0)).total_seconds() / 60), item)
        assert {clock.id for clock in watch.stored.values() if clock.started_at < at(edited)} == known
        for clock_id, clock in ended.items():
            assert watch.stored[clock_id].state is clock.state
            assert watch.stored[clock_id].used_seconds == clock.used_seconds


def at_hand(policies: Policies, since: datetime) -> Policies:
    """A copy: those at hand belong to every test."""
    edited = copy(policies)
    edited.since = since
    return edited


def _identity(event: SlaEvent) -> tuple[str, int]:
    return (str(event.clock_id), event.step)


@settings(max_examples=100, deadline=None)
@given(histories, st.integers(0, 2**32))
def test_the_last_event_told_is_the_state(history: list[Happening], seed: int) -> None:
    watch = deliver(history, random.Random(seed), ring=True)
    ends = {SlaKind.MET: State.MET, SlaKind.CANCELLED: State.CANCELLED}
    states = {
        SlaKind.STARTED: State.RUNNING,
        SlaKind.RESUMED: State.RUNNING,
        SlaKind.PAUSED: State.PAUSED,
        **ends,
    }
    for clock in watch.stored.values():
        told = [event for event in watch.told if event.clock_id == clock.id and event.kind in states]
        assert states[told[-1].kind] is clock.state, [event.kind for event in told]


@settings(max_examples=100, deadline=None)
@given(histories, st.integers(1, 200))
@example([happened(What.WAITING, 52.5), happened(What.CORRECTED, 0, Priority.P1)], 1)  # breaches after the wait
def test_paused_time_never_counts(history: list[Happening], pause: int) -> None:
    """Everything after a wait moves by the wait: what is used stays the same, a breach comes so much later."""
    before = [item for item in history if item.at < at(100) and item.what is not What.RESOLVED]
    story = [*before, happened(What.REPLIED, 100), happened(What.WAITING, 101)]
    short = fold(TICKET, [*story, happened(What.CUSTOMER_WROTE, 102), happened(What.RESOLVED, 110)], POLICIES, at(2000))
    long = fold(
        TICKET,
        [*story, happened(What.CUSTOMER_WROTE, 102 + pause), happened(What.RESOLVED, 110 + pause)],
        POLICIES,
        at(2000),
    )

    def resolutions(clocks: Iterable[Clock], later: timedelta) -> list[object]:
        found = [clock for clock in clocks if clock.target is Target.RESOLUTION]
        return [(clock.state, clock.used_seconds, _moved(clock.breached_at, later)) for clock in found]

    def _moved(breached_at: datetime | None, later: timedelta) -> datetime | None:
        return breached_at + later if breached_at and breached_at > at(102) else breached_at

    assert resolutions(short, timedelta(minutes=pause)) == resolutions(long, timedelta())


@settings(max_examples=100, deadline=None)
@given(histories)
def test_no_promise_is_forgotten(history: list[Happening]) -> None:
    """Whoever wrote last after the ticket was answered is owed an answer, unless it was answered, set waiting or
    resolved since; and an open ticket has an open resolution.
    """
    clocks = fold(TICKET, history, POLICIES, at(END))
    acts = sorted(
        (item for item in history if item.what not in (What.ROUTED, What.CORRECTED)),
        key=lambda item: (item.at, list(What).index(item.what)),
    )
    ends = (What.RESOLVED, What.MERGED)
    asks = (What.CUSTOMER_WROTE, What.TOOK_OVER)
    answered = [index for index, item in enumerate(acts) if item.what in (What.REPLIED, *ends)]
    last_wrote = max((index for index, item in enumerate(acts) if item.what in asks), default=None)
    answers_nothing = (What.REOPENED, What.CUSTOMER_THANKED, What.ACKNOWLEDGED)
    if (
        last_wrote is not None
        and answered
        and answered[0] < last_wrote
        and all(item.what in answers_nothing for item in acts[last_wrote + 1 :])
    ):
        assert any(clock.target is Target.NEXT_RESPONSE and clock.state is State.RUNNING for clock in clocks)
    resolved = max((index for index, item in enumerate(acts) if item.what in ends), default=-1)
    reopened = any(item.what in (What.REOPENED, *asks) for item in acts[resolved + 1 :])
    is_open = resolved < 0 or reopened
    assert any(clock.target is Target.RESOLUTION and clock.is_open for clock in clocks) == is_open
