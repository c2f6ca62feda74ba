"""Clocks in stories: times, pauses, alarms, re-planning, what is told and what is frozen. P3 promises a first answer in
60 minutes, a next one in 30, a resolution in 240; warnings at half time.
"""

from __future__ import annotations

from services.sla_timer.domain.clocks import State, Ticket
from services.sla_timer.domain.rules import What
from shared.events import SlaKind, Target
from shared.taxonomy import Channel, Priority, Queue
from tests.unit.sla_timer.support import NINE, TICKET, Watch, at, happened, policies_of, targets

FIRST, NEXT, RESOLUTION = Target.FIRST_RESPONSE, Target.NEXT_RESPONSE, Target.RESOLUTION


def kinds(events: list) -> list[tuple[Target, SlaKind]]:  # type: ignore[type-arg]
    return [(event.target, event.kind) for event in events]


def test_opening_starts_two_promises_under_the_provisional_priority() -> None:
    watch = Watch()
    events = watch.take(0.5)
    assert kinds(events) == [(FIRST, SlaKind.STARTED), (RESOLUTION, SlaKind.STARTED)]
    first = events[0]
    assert (first.step, first.started_at, first.due_at, first.priority) == (1, NINE, at(60), Priority.P3)
    assert first.policy == "default/P3"
    assert watch.next_alarm_at == at(30)


def test_nothing_new_tells_nothing() -> None:
    watch = Watch()
    watch.take(0.5, happened(What.ROUTED, 0.2, Priority.P3, Queue.GENERAL, 1))
    stored = dict(watch.stored)
    assert watch.take(0.6, happened(What.ROUTED, 0.2, Priority.P3, Queue.GENERAL, 1)) == []
    assert watch.stored == stored


def test_routing_replans_from_the_start_and_says_so() -> None:
    watch = Watch()
    watch.take(0.1)
    events = watch.take(0.3, happened(What.ROUTED, 0.2, Priority.P1, Queue.SECURITY, 1))
    assert kinds(events) == [(FIRST, SlaKind.REPLANNED), (RESOLUTION, SlaKind.REPLANNED)]
    assert [event.due_at for event in events] == [at(10), at(60)]
    assert events[0].queue is Queue.SECURITY
    assert events[0].step == 2


def test_routing_to_the_provisional_priority_tells_nothing_but_is_kept() -> None:
    watch = Watch()
    watch.take(0.1)
    assert watch.take(0.3, happened(What.ROUTED, 0.2, Priority.P3, Queue.REFUNDS, 1)) == []
    assert watch.clock(FIRST).queue is Queue.REFUNDS


def test_a_warning_and_a_breach_ring_once_and_tell_how_late() -> None:
    watch = Watch()
    watch.take(0)
    assert watch.take(29.9) == []
    (warning,) = watch.take(30)
    assert (warning.kind, warning.at, warning.warning_share, warning.lateness_ms) == (SlaKind.WARNING, at(30), 0.5, 0)
    assert not warning.breached
    assert watch.next_alarm_at == at(60)
    assert watch.take(31) == []
    (breach,) = watch.take(60.5)
    assert (breach.kind, breach.at, breach.fired_at, breach.lateness_ms) == (SlaKind.BREACHED, at(60), at(60.5), 30_000)
    assert breach.breached
    assert breach.business_seconds == 3600
    assert watch.take(61) == []
    assert watch.next_alarm_at == at(120)  # the resolution's warning


def test_an_answer_at_the_due_time_is_in_time_and_one_later_is_not() -> None:
    watch = Watch()
    watch.take(59, happened(What.REPLIED, 60))
    (met,) = [event for event in watch.take(60, happened(What.REPLIED, 60)) if event.target is FIRST]
    assert (met.kind, met.business_seconds, met.breached) == (SlaKind.MET, 3600, False)
    late = Watch()
    told = [event for event in late.take(61, happened(What.REPLIED, 60.5)) if event.target is FIRST]
    assert [event.kind for event in told] == [SlaKind.STARTED, SlaKind.BREACHED, SlaKind.MET]
    assert [event.breached for event in told] == [False, True, True]
    assert told[-1].business_seconds == 3630


def test_paused_time_never_counts_and_the_due_time_moves_by_it() -> None:
    watch = Watch()
    watch.take(11, happened(What.REPLIED, 5), happened(What.WAITING, 10))
    paused = watch.clock(RESOLUTION)
    assert (paused.state, paused.due_at) == (State.PAUSED, None)
    assert watch.next_alarm_at is None
    assert watch.take(1000) == []
    events = watch.take(1011, happened(What.CUSTOMER_WROTE, 1010))
    resumed = next(event for event in events if event.target is RESOLUTION)
    assert (resumed.kind, resumed.at, resumed.due_at) == (SlaKind.RESUMED, at(1010), at(240 + 1000))
    (met,) = [event for event in watch.take(1021, happened(What.RESOLVED, 1020)) if event.target is RESOLUTION]
    assert met.business_seconds == (10 + 10) * 60


def test_resolved_while_paused_counts_until_the_pause() -> None:
    watch = Watch()
    events = watch.take(500, happened(What.WAITING, 10), happened(What.REPLIED, 9), happened(What.RESOLVED, 499))
    (met,) = [event for event in events if event.target is RESOLUTION and event.kind is SlaKind.MET]
    assert met.business_seconds == 600
    assert not met.breached


def test_a_breach_told_is_frozen_against_replanning_and_late_news() -> None:
    watch = Watch()
    watch.take(0)
    watch.take(60)
    assert watch.take(61, happened(What.ROUTED, 60.5, Priority.P4, Queue.GENERAL, 1))[0].target is RESOLUTION
    breached = watch.clock(FIRST)
    assert (breached.breached_at, breached.due_at, breached.terms.policy) == (at(60), at(60), "default/P3")
    # An answer of minute 40 that arrives only now meets the clock at its own time; what was told stays told.
    (met,) = [event for event in watch.take(62, happened(What.REPLIED, 40)) if event.target is FIRST]
    assert (met.kind, met.at, met.business_seconds, met.breached) == (SlaKind.MET, at(40), 2400, True)
    assert [step.kind for step in watch.clock(FIRST).course] == [
        SlaKind.STARTED,
        SlaKind.WARNING,
        SlaKind.MET,
        SlaKind.BREACHED,
    ]


def test_a_stricter_priority_that_comes_after_its_due_time_breaches_at_once() -> None:
    watch = Watch()
    watch.take(0)
    events = watch.take(
        20,
        happened(What.ROUTED, 0.1, Priority.P3, Queue.GENERAL, 1),
        happened(What.CORRECTED, 19.9, Priority.P1),
    )
    first = [event for event in events if event.target is FIRST]
    assert [event.kind for event in first] == [SlaKind.REPLANNED, SlaKind.WARNING, SlaKind.BREACHED]
    assert (first[-1].at, first[-1].lateness_ms) == (at(10), 600_000)


def test_an_earlier_answer_that_arrives_late_corrects_the_time_of_meeting() -> None:
    watch = Watch()
    watch.take(41, happened(What.REPLIED, 40))
    assert watch.clock(FIRST).ended_at == at(40)
    (again,) = [event for event in watch.take(42, happened(What.REPLIED, 20)) if event.target is FIRST]
    assert (again.kind, again.at, again.step) == (SlaKind.MET, at(20), 3)  # started, met, met again
    assert watch.clock(FIRST).ended_at == at(20)


def test_the_latest_revision_is_the_truth_whatever_the_clocks_of_the_hosts_say() -> None:
    watch = Watch()
    watch.take(
        2,
        happened(What.ROUTED, 1.0, Priority.P1, Queue.SECURITY, 1),
        happened(What.ROUTED, 0.5, Priority.P2, Queue.ACCESS, 2),
    )
    assert watch.clock(FIRST).priority is Priority.P2


def test_a_correction_replans_open_promises_only() -> None:
    watch = Watch()
    watch.take(6, happened(What.REPLIED, 5))
    events = watch.take(8, happened(What.CORRECTED, 7, Priority.P1, Queue.SECURITY))
    assert kinds(events) == [(RESOLUTION, SlaKind.REPLANNED)]
    assert watch.clock(FIRST).terms.policy == "default/P3"


def test_an_edited_policy_replans_what_is_open_and_leaves_history_alone() -> None:
    watch = Watch()
    watch.take(6, happened(What.REPLIED, 5))
    watch.policies = policies_of(
        default={"calendar": "always", "warnings": [0.5], "targets": {"*": targets("1m", "1m", "2h")}}
    )
    events = watch.take(7)
    assert kinds(events) == [(RESOLUTION, SlaKind.REPLANNED)]
    assert events[0].due_at == at(120)
    first = watch.clock(FIRST)
    assert (first.terms.target_seconds, first.breached_at) == (3600, None)


def test_business_time_is_that_of_the_policys_calendar() -> None:
    # Wednesday 16:30 in an office that closes at 17:00: a promise of an hour is due on Thursday at 9:30.
    watch = Watch(
        policies_of(default={"calendar": "office", "warnings": [], "targets": {"*": targets("1h", "1h", "1d")}}),
        Ticket(TICKET.id, "upay", Channel.EMAIL, at(450)),
    )
    first, resolution = watch.take(450)
    assert first.due_at == at(24 * 60 + 30)
    assert resolution.target_seconds == 8 * 3600


def test_a_message_that_arrives_late_starts_the_promise_at_its_own_time() -> None:
    watch = Watch()
    watch.take(6, happened(What.REPLIED, 5))
    watch.take(31, happened(What.CUSTOMER_WROTE, 30))
    events = watch.take(32, happened(What.CUSTOMER_WROTE, 20))
    assert [(event.kind, event.started_at, event.due_at) for event in events if event.target is NEXT] == [
        (SlaKind.STARTED, at(20), at(50))
    ]


def test_an_activity_before_the_opening_counts_from_the_opening() -> None:
    watch = Watch()
    watch.take(1, happened(What.REPLIED, -30))
    assert watch.clock(FIRST).used_seconds == 0
