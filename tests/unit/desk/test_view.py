"""What the desk shows, in whatever order the topics tell it."""

from __future__ import annotations

import uuid
from itertools import permutations

from services.desk.domain import Rules, State, Ticket
from services.desk.domain_view import TicketEvent, View, after_event, is_breached, kind_of, next_due_at
from shared.events import (
    ActivityKind,
    Attachment,
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


THANKS = {"text": "好的，谢谢", "accepted_at": at(9)}


def test_a_courtesy_leaves_a_resolved_ticket_resolved_in_whatever_order_it_is_told() -> None:
    resolved: list[TicketEvent] = [routed(ID), activity(ID, ActivityKind.RESOLVED, at(3))]
    said = message(ID, 2, **THANKS)
    put = routed(ID, revision=2, sequence=2, decided_at=at(9.1), text="好的，谢谢", disposition="followed_up")
    orders: list[list[TicketEvent]] = [[said, put], [put, said]]
    for order in orders:
        view = shown(*resolved, *order)
        assert (view.ticket.state, view.ticket.sequence, view.ticket.revision) == (State.RESOLVED, 2, 2)
        assert view.text == "好的，谢谢"
        back = shown(*resolved, *order, message(ID, 3, accepted_at=at(10), text="但是还没到账"))
        assert (back.ticket.state, back.ticket.enqueued_at) == (State.QUEUED, at(10))


def test_thanks_with_more_than_thanks_puts_a_resolved_ticket_back_in_whatever_order_it_is_told() -> None:
    resolved: list[TicketEvent] = [routed(ID), activity(ID, ActivityKind.RESOLVED, at(3))]
    attachment = Attachment(name="still-missing.png", url="https://files.example/1")
    told: list[tuple[TicketEvent, TicketEvent]] = [
        # A routing names no attachments, so the ticket waits for the message itself.
        (
            message(ID, 2, attachments=(attachment,), **THANKS),
            routed(ID, revision=2, sequence=2, decided_at=at(9.1), text="好的，谢谢", disposition="followed_up"),
        ),
        (
            message(ID, 2, subject="退款没到", **THANKS),
            routed(
                ID,
                revision=2,
                sequence=2,
                decided_at=at(9.1),
                text="好的，谢谢",
                subject="退款没到",
                disposition="followed_up",
            ),
        ),
        # Intake has looked at all of it.
        (
            message(ID, 2, disposition="reopened", **THANKS),
            routed(ID, revision=2, sequence=2, decided_at=at(9.1), text="好的，谢谢", disposition="reopened"),
        ),
    ]
    for said, put in told:
        for order in ((said, put), (put, said)):
            assert shown(*resolved, *order).ticket.state is State.QUEUED
    assert shown(*resolved, told[2][1]).ticket.state is State.QUEUED


def test_a_courtesy_puts_a_ticket_that_waits_on_its_customer_back() -> None:
    waiting: list[TicketEvent] = [routed(ID), activity(ID, ActivityKind.WAITING_ON_CUSTOMER, at(3))]
    assert shown(*waiting, message(ID, 2, **THANKS)).ticket.state is State.QUEUED
    put = routed(ID, revision=2, sequence=2, decided_at=at(9.1), text="好的，谢谢", disposition="followed_up")
    assert shown(*waiting, put).ticket.state is State.QUEUED


def test_an_escalation_of_a_broken_promise_changes_nothing_but_the_history() -> None:
    broken = [
        clock_event(ID, SlaKind.STARTED, 1, target=Target.PERIODIC_UPDATE),
        clock_event(ID, SlaKind.BREACHED, 2, target=Target.PERIODIC_UPDATE, breached=True),
    ]
    escalated = clock_event(ID, SlaKind.ESCALATED, 3, target=Target.PERIODIC_UPDATE, breached=True)
    assert shown(*broken, escalated) == shown(*broken)
    assert kind_of(escalated) == "sla.escalated"
    met = clock_event(ID, SlaKind.MET, 4, target=Target.PERIODIC_UPDATE, breached=True)
    assert shown(*broken, escalated, met) == shown(*broken, met, escalated) == shown(*broken, met)
    # Heard of first (the desk was started anew): at least that the promise is broken is known.
    assert is_breached(shown(escalated).clocks)


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
        activity(ID, ActivityKind.MERGED, T0),
        clock_event(ID, SlaKind.WARNING, 2),
        outcome,
    ]
    names = ["routed", "message", "left", "waiting_on_customer", "merged", "sla.warning", "notification.delivered"]
    assert [kind_of(event) for event in events] == names
    assert shown(outcome) == View(Ticket(ID))
