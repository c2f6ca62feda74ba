"""What the desk shows, in whatever order the topics tell it."""

from __future__ import annotations

import uuid
from itertools import permutations

from services.desk.domain import Rules, State, Ticket
from services.desk.domain_view import TicketEvent, View, after_event, is_breached, kind_of, next_due_at
from shared.events import (
    ActivityKind,
    DecisionTrace,
    NotificationKind,
    NotificationOutcome,
    NotificationStatus,
    Output,
    SlaKind,
    Target,
)
from shared.taxonomy import Priority, Queue
from tests.unit.desk.samples import T0, activity, at, clock_event, left, message, routed

ID = uuid.UUID(int=9)
RULES = Rules()


def shown(*events: TicketEvent) -> View:
    view = View(Ticket(ID))
    for event in events:
        view = after_event(view, event, at(60), RULES)
    return view


def test_the_latest_revision_is_shown_in_whatever_order_queues_tell_it() -> None:
    events: list[TicketEvent] = [
        routed(ID, revision=1, decided_at=at(1)),
        routed(ID, revision=2, sequence=2, decided_at=at(2), priority=Priority.P2, text="second"),
        routed(ID, revision=3, sequence=3, decided_at=at(3), priority=Priority.P1, queue=Queue.SECURITY, text="third"),
        left(ID, Queue.PAYMENTS, Queue.SECURITY, at(3)),
    ]
    for order in permutations(events):
        view = shown(*order)
        assert (view.ticket.queue, view.ticket.priority) == (Queue.SECURITY, Priority.P1)
        assert view.ticket.enqueued_at == view.ticket.rank_at == at(1)
        assert view.decision is not None
        assert (view.decision.revision, view.text, view.ticket.sequence) == (3, "third", 3)


def test_leaving_moves_a_ticket_whose_next_routing_has_not_come_yet() -> None:
    view = shown(routed(ID), left(ID, Queue.PAYMENTS, Queue.CREDIT, at(1)))
    assert view.ticket.queue is Queue.CREDIT
    stale = shown(routed(ID, decided_at=at(2)), left(ID, Queue.PAYMENTS, Queue.CREDIT, at(1)))
    assert stale.ticket.queue is Queue.PAYMENTS


def test_an_activity_may_come_before_its_ticket() -> None:
    view = shown(
        activity(ID, ActivityKind.RESOLVED, at(5)), message(ID, 1), routed(ID, decided_at=at(1), brand="topay")
    )
    assert (view.ticket.state, view.ticket.queue, view.brand) == (State.RESOLVED, Queue.PAYMENTS, "topay")


def test_a_routing_decided_before_a_correction_does_not_undo_it() -> None:
    corrected = activity(ID, ActivityKind.CORRECTED, at(5), queue=Queue.REFUNDS, priority=Priority.P1)
    before = routed(ID, revision=2, sequence=2, decided_at=at(4), priority=Priority.P2)
    view = shown(routed(ID), corrected, before)
    assert (view.ticket.queue, view.ticket.priority) == (Queue.REFUNDS, Priority.P1)
    assert view.decision == before
    follows = routed(
        ID,
        revision=3,
        decided_at=at(4.9),  # the classifier's clock is a little behind
        queue=Queue.REFUNDS,
        priority=Priority.P2,
        trace=DecisionTrace(decided_by="agent:mei", model="test"),
    )
    assert shown(routed(ID), corrected, before, follows).ticket.priority is Priority.P2


def test_a_follow_up_is_heard_of_by_two_topics_and_counts_once() -> None:
    waiting: list[TicketEvent] = [routed(ID), activity(ID, ActivityKind.WAITING_ON_CUSTOMER, at(3))]
    told: list[TicketEvent] = [
        message(ID, 2, accepted_at=at(9)),
        routed(ID, revision=2, sequence=2, decided_at=at(9.1), text="message 2"),
    ]
    for order in (told, told[::-1]):
        view = shown(*waiting, *order)
        assert (view.ticket.state, view.ticket.enqueued_at, view.text) == (State.QUEUED, T0, "message 2")
    again = shown(*waiting, told[0], activity(ID, ActivityKind.RESOLVED, at(20)), told[1])
    assert again.ticket.state is State.RESOLVED  # told[1] is no second message


def test_clocks_show_the_latest_step_and_never_forget_a_breach() -> None:
    events = [
        clock_event(ID, SlaKind.STARTED, 1),
        clock_event(ID, SlaKind.WARNING, 2),
        clock_event(ID, SlaKind.BREACHED, 3, breached=True),
        clock_event(ID, SlaKind.MET, 4, breached=True),
    ]
    for order in permutations(events):
        clock = shown(*order).clocks[Target.FIRST_RESPONSE]
        assert (clock.step, clock.kind, clock.breached, clock.running) == (4, SlaKind.MET, True, False)
    later = clock_event(ID, SlaKind.STARTED, 1, clock_id=uuid.uuid4(), started_at=at(30), due_at=at(40))
    assert is_breached(shown(*events, later).clocks)
    assert is_breached(shown(later, *events).clocks)


def test_next_due_is_the_earliest_promise_that_can_still_be_kept() -> None:
    first = clock_event(ID, SlaKind.STARTED, 1, due_at=at(10))
    resolution = clock_event(ID, SlaKind.STARTED, 1, target=Target.RESOLUTION, due_at=at(90))
    assert next_due_at(shown(first, resolution).clocks) == at(10)
    assert next_due_at(shown(first, resolution, clock_event(ID, SlaKind.MET, 2)).clocks) == at(90)
    assert next_due_at(shown(resolution, clock_event(ID, SlaKind.BREACHED, 3, breached=True)).clocks) == at(90)
    paused = clock_event(ID, SlaKind.PAUSED, 2, target=Target.RESOLUTION, due_at=None)
    assert next_due_at(shown(resolution, paused).clocks) is None


def test_history_names_what_happened() -> None:
    outcome = NotificationOutcome(
        notification_id=uuid.uuid4(),
        ticket_id=ID,
        brand="upay",
        kind=NotificationKind.REPLY,
        output=Output.MAIL,
        status=NotificationStatus.DELIVERED,
        attempt=1,
        at=T0,
    )
    events: list[TicketEvent] = [
        routed(ID),
        message(ID, 1),
        left(ID, Queue.PAYMENTS, Queue.CREDIT, T0),
        activity(ID, ActivityKind.WAITING_ON_CUSTOMER, T0),
        clock_event(ID, SlaKind.WARNING, 2),
        outcome,
    ]
    names = ["routed", "message", "left", "waiting_on_customer", "sla.warning", "notification.delivered"]
    assert [kind_of(event) for event in events] == names
    assert shown(outcome) == View(Ticket(ID))
