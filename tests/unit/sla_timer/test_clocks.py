"""Clocks in stories: times, pauses, alarms, re-planning, what is told and what is frozen. P3 promises a first answer in
60 minutes, a next one in 30, a resolution in 240; warnings at half time.
"""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from datetime import timedelta

from services.sla_timer.domain.clocks import State, Ticket
from services.sla_timer.domain.policies import Policies, PolicyFile
from services.sla_timer.domain.rules import What
from shared.calendars import Calendar, Period
from shared.events import EscalationLevel, SlaKind, Target
from shared.taxonomy import Category, Channel, Priority, Queue
from tests.unit.sla_timer.support import (
    ALWAYS,
    NINE,
    OFFICE,
    POLICIES,
    TICKET,
    Watch,
    at,
    happened,
    policies_of,
    targets,
)

FIRST, NEXT, UPDATE, RESOLUTION = Target


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
    # P1 promises no updates. The one that was promised stands.
    assert (watch.clock(UPDATE).state, watch.clock(UPDATE).terms.policy) == (State.RUNNING, "default/P3")
    watch.take(9, happened(What.REPLIED, 9))
    assert watch.clock(UPDATE).state is State.MET
    assert [clock for clock in watch.stored.values() if clock.target is UPDATE and clock.generation == 2] == []


def test_an_edited_policy_replans_what_is_open_and_leaves_history_alone() -> None:
    watch = Watch()
    watch.take(6, happened(What.REPLIED, 5))
    watch.policies = policies_of(
        default={"calendar": "always", "warnings": [0.5], "targets": {"*": targets("1m", "1m", "2h", "90m")}}
    )
    events = watch.take(7)
    assert kinds(events) == [(RESOLUTION, SlaKind.REPLANNED), (UPDATE, SlaKind.REPLANNED)]  # named after another rule
    assert [event.due_at for event in events] == [at(120), at(95)]
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


# --- warnings by time left, escalations, updates ---------------------------------------------------------------------


def test_a_warning_may_say_what_is_left_and_the_breach_is_followed_by_calls_for_help() -> None:
    watch = Watch()
    watch.take(0, happened(What.ROUTED, 0, Priority.P1, Queue.SECURITY, 1), happened(What.REPLIED, 0))
    told = [event for now in range(1, 120) for event in watch.ring(now) if event.target is RESOLUTION]
    assert [(event.kind, event.at, event.warning_share, event.warning_before_seconds) for event in told[:2]] == [
        (SlaKind.WARNING, at(30), 0.5, None),
        (SlaKind.WARNING, at(55), None, 300),
    ]
    assert [(event.kind, event.at, event.escalation, event.business_seconds) for event in told[2:]] == [
        (SlaKind.BREACHED, at(60), None, 3600),
        (SlaKind.ESCALATED, at(75), EscalationLevel.HEAD, 4500),
        (SlaKind.ESCALATED, at(100), EscalationLevel.ON_CALL, 6000),
    ]
    assert all(event.breached for event in told[2:])
    assert {event.due_at for event in told} == {at(60)}
    assert watch.next_alarm_at is None


def test_nobody_is_called_while_the_customer_is_waited_for_or_after_the_end() -> None:
    watch = Watch()
    watch.take(0, happened(What.ROUTED, 0, Priority.P1, Queue.SECURITY, 1), happened(What.REPLIED, 0))
    watch.ring(61)
    watch.take(70, happened(What.WAITING, 70))
    assert watch.next_alarm_at is None
    assert watch.ring(500) == []
    (resumed,) = [event for event in watch.take(500, happened(What.CUSTOMER_WROTE, 500)) if event.target is RESOLUTION]
    assert (resumed.kind, resumed.due_at, resumed.breached) == (SlaKind.RESUMED, at(60), True)  # what was broken stays
    (called,) = [event for event in watch.ring(506) if event.kind is SlaKind.ESCALATED]
    assert (called.at, called.escalation) == (at(505), EscalationLevel.HEAD)  # 15 minutes of business time after it
    watch.take(510, happened(What.RESOLVED, 510))
    assert watch.next_alarm_at is None
    assert watch.ring(1000) == []


def test_updates_are_owed_at_regular_times_from_the_first_answer_to_the_resolution() -> None:
    watch = Watch()
    watch.take(10, happened(What.REPLIED, 10))
    assert watch.clock(UPDATE).due_at == at(100)
    (met, started) = [event for event in watch.take(60, happened(What.REPLIED, 60)) if event.target is UPDATE]
    assert (met.kind, met.business_seconds, met.breached) == (SlaKind.MET, 3000, False)
    assert (started.kind, started.due_at) == (SlaKind.STARTED, at(150))
    (breach,) = [event for event in watch.ring(151) if event.kind is SlaKind.BREACHED]
    assert (breach.target, breach.at) == (UPDATE, at(150))
    (ended,) = [event for event in watch.take(160, happened(What.RESOLVED, 160)) if event.target is UPDATE]
    assert (ended.kind, ended.breached) == (SlaKind.CANCELLED, True)


def test_the_category_chooses_the_rule() -> None:
    watch = Watch(
        policies_of(
            default={"calendar": "always", "targets": {"*": targets("1h", "1h", "1d")}},
            theft={"calendar": "always", "category": "account_security", "targets": {"*": targets("2m", "5m", "2h")}},
        )
    )
    watch.take(0.5)
    routed = happened(What.ROUTED, 0.6, Priority.P1, Queue.SECURITY, 1, Category.ACCOUNT_SECURITY)
    first, resolution = watch.take(0.7, routed)
    assert (first.kind, first.due_at, first.policy, first.category) == (
        SlaKind.REPLANNED,
        at(2),
        "theft/*",
        Category.ACCOUNT_SECURITY,
    )
    assert resolution.due_at == at(120)
    (back, _) = watch.take(1, happened(What.CORRECTED, 0.9, category=Category.HOW_TO))
    assert (back.kind, back.due_at, back.policy) == (SlaKind.REPLANNED, at(60), "default/*")


def test_who_met_a_promise_is_kept_with_it() -> None:
    watch = Watch()
    watch.take(6, happened(What.REPLIED, 5, agent_group="night"))
    watch.take(9, happened(What.RESOLVED, 8, agent_group="payments"))
    assert (watch.clock(FIRST).agent_group, watch.clock(RESOLUTION).agent_group) == ("night", "payments")
    assert watch.clock(UPDATE).agent_group is None  # fell away, was not met


def test_history_is_computed_on_the_calendar_of_its_time() -> None:
    """An office that closed at 17:00 closes at 12:00 since: what was promised and met before stays as it was."""
    rules = {"default": {"calendar": "office", "warnings": [], "targets": {"*": targets("2h", "1h", "2d")}}}
    opening = Ticket(TICKET.id, "upay", Channel.EMAIL, at(150))  # 11:30
    watch = Watch(policies_of(**rules), opening)
    watch.take(200, happened(What.REPLIED, 200))
    before = watch.clock(FIRST)
    assert before.used_seconds == 3000
    assert before.terms.calendar_version == OFFICE.version
    mornings = Calendar("office", "UTC", ((Period.parse("09:00-12:00"),),) * 5 + ((), ()))
    file = PolicyFile.model_validate({"rules": rules})
    watch.policies = Policies(file, {"office": mornings, "always": ALWAYS}, {OFFICE.version: OFFICE})
    events = watch.take(210, happened(What.CUSTOMER_WROTE, 205))
    assert watch.clock(FIRST) == before
    assert {event.target for event in events} == {NEXT, RESOLUTION}
    resolution = watch.clock(RESOLUTION)
    assert resolution.terms.calendar_version == mornings.version
    # 2 days are now 6 hours: half an hour on Wednesday, 3 on Thursday, 2.5 on Friday.
    assert resolution.due_at == NINE + timedelta(days=2, hours=2.5)


def test_what_would_not_be_promised_today_is_kept_as_it_was_promised() -> None:
    watch = Watch()
    watch.take(10, happened(What.REPLIED, 10), happened(What.REPLIED, 5))
    met = watch.clock(UPDATE)
    assert met.state is State.MET
    watch.policies = policies_of(
        default={"calendar": "always", "warnings": [0.5], "targets": {"*": targets("1h", "30m", "4h")}}
    )
    events = watch.take(20)
    assert kinds(events) == [(RESOLUTION, SlaKind.REPLANNED)]
    assert watch.clock(UPDATE) == met
    assert watch.clock(UPDATE, 2).due_at == at(100)  # a promise that was made stands
    watch.take(30, happened(What.REPLIED, 30))
    assert watch.clock(UPDATE, 2).state is State.MET
    assert len([clock for clock in watch.stored.values() if clock.target is UPDATE]) == 2


def test_a_new_kind_of_promise_is_made_from_the_next_occasion_on() -> None:
    watch = Watch(policies_of(default={"calendar": "always", "targets": {"*": targets("1h", "30m", "4h")}}))
    watch.take(10, happened(What.REPLIED, 10), happened(What.REPLIED, 5))
    watch.policies = copy(POLICIES)
    watch.policies.since = at(15)
    assert UPDATE not in {event.target for event in watch.take(20)}
    events = watch.take(31, happened(What.REPLIED, 30))
    assert [(event.target, event.kind, event.due_at) for event in events] == [(UPDATE, SlaKind.STARTED, at(120))]


def test_a_new_version_that_promises_the_same_is_kept_and_not_told() -> None:
    watch = Watch()
    watch.take(1)
    due = watch.clock(FIRST).due_at
    watch.policies = policies_of(
        other={"calendar": "always", "brand": "topay", "targets": {"P1": targets("1h", "30m", "4h")}},
        default=watch.policies.dump()["default"] | {"warnings": [0.5]},
    )
    assert watch.take(2) == []
    clock = watch.clock(FIRST)
    assert (clock.due_at, clock.terms.policy_version) == (due, watch.policies.version)
    assert replace(clock, terms=replace(clock.terms, policy_version="")).terms.promises_as(clock.terms)


def test_a_late_correction_that_counts_on_another_calendar_is_told_with_what_the_answer_took() -> None:
    """Opened at 16:30 and answered at 17:30: half an hour in the office, an hour round the clock."""
    watch = Watch(
        policies_of(
            default={"calendar": "office", "warnings": [], "targets": {"*": targets("2h", "1h", "2d")}},
            urgent={"calendar": "always", "warnings": [], "targets": {"P1": targets("2h", "1h", "2d")}},
        ),
        Ticket(TICKET.id, "upay", Channel.EMAIL, at(450)),
    )
    watch.take(511, happened(What.REPLIED, 510))
    assert watch.clock(FIRST).used_seconds == 1800
    (again,) = [e for e in watch.take(512, happened(What.CORRECTED, 509, Priority.P1)) if e.target is FIRST]
    assert (again.kind, again.at, again.business_seconds, again.step) == (SlaKind.MET, at(510), 3600, 3)
    assert watch.clock(FIRST).used_seconds == 3600
    assert watch.take(513) == []


# --- found by the simulation -----------------------------------------------------------------------------------------


def test_an_edit_revives_nothing_that_late_news_had_undone() -> None:
    watch = Watch()
    watch.take(6, happened(What.ROUTED, 0.1, Priority.P3, Queue.PAYMENTS, 1), happened(What.REPLIED, 5))
    watch.take(7, happened(What.CORRECTED, 4, Priority.P4))  # it was a P4 by then, and owed no updates
    undone = watch.clock(UPDATE)
    assert undone.state is State.CANCELLED
    watch.policies = policies_of(
        default={
            "calendar": "always",
            "targets": {"P3": targets("1h", "30m", "4h", "90m"), "*": targets("4h", "4h", "24h")},
        }
    )
    watch.take(8)
    assert watch.clock(UPDATE) == undone


def test_what_late_news_opens_again_rings() -> None:
    watch = Watch()
    watch.take(6, happened(What.ROUTED, 0.1, Priority.P3, Queue.PAYMENTS, 1), happened(What.REPLIED, 5))
    watch.take(7, happened(What.CORRECTED, 4, Priority.P4))
    watch.take(8, happened(What.CORRECTED, 4.5, Priority.P3))  # it was a P3 again before the answer
    assert (watch.clock(UPDATE).state, watch.clock(UPDATE).due_at) == (State.RUNNING, at(95))
    rang = [event for event in watch.ring(200) if event.target is UPDATE]
    assert [(event.kind, event.at) for event in rang] == [(SlaKind.WARNING, at(50)), (SlaKind.BREACHED, at(95))]


def test_a_target_made_shorter_than_what_was_used_before_a_pause_is_breached_at_once() -> None:
    watch = Watch()
    watch.take(6, happened(What.ROUTED, 0.1, Priority.P3, Queue.PAYMENTS, 1), happened(What.REPLIED, 5))
    watch.take(121, happened(What.WAITING, 120))
    told = [e for e in watch.take(131, happened(What.CORRECTED, 130, Priority.P1)) if e.kind is SlaKind.BREACHED]
    assert [(event.target, event.at, event.due_at) for event in told] == [(RESOLUTION, at(60), at(60))]
    assert watch.clock(RESOLUTION).state is State.PAUSED
    assert [
        event.kind for event in watch.take(1441, happened(What.CUSTOMER_WROTE, 1440)) if event.target is RESOLUTION
    ] == [SlaKind.RESUMED]
