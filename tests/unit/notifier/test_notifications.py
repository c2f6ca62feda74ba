"""Which notifications follow from which event."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest

from services.notifier.domain.notifications import (
    DIGEST_LINES_MOST,
    Kind,
    acknowledgement,
    addressed,
    contact_of,
    digest_of,
    held_back,
    latest_contacts,
    lead_notifications,
    payload,
    reply,
    window_start,
    written_digest,
)
from services.notifier.domain.texts import reference_of
from shared.events import (
    ActivityKind,
    Customer,
    Disposition,
    Point,
    SlaKind,
    TicketActivity,
    TicketMessage,
    TicketRouted,
    derive_id,
)
from shared.taxonomy import Category, Channel, Fact, Language, Queue
from tests.unit.notifier.examples import NOW, OUTPUTS, TEXTS, TRACE, routed_event, sla_event


def point(category: Category, start: int) -> Point:
    return Point(category=category, start=start, end=start + 1, text="…")


def activity(**changes: object) -> TicketActivity:
    fields = {
        "ticket_id": routed_event().ticket_id,
        "activity_id": "a-1",
        "kind": ActivityKind.REPLIED,
        "agent": "agent-1",
        "at": NOW,
        "text": "done",
    }
    return TicketActivity.model_validate(fields | changes)


def test_one_acknowledgement_per_ticket_whatever_the_revision() -> None:
    first = acknowledgement(routed_event(), TEXTS, OUTPUTS, TRACE)
    again = acknowledgement(routed_event(revision=2, cause_id=uuid.UUID(int=8)), TEXTS, OUTPUTS, TRACE)
    assert first is not None
    assert again is not None
    ticket_id = routed_event().ticket_id
    assert first.notification_id == again.notification_id == derive_id("notification", "acknowledgement", ticket_id)


@pytest.mark.parametrize(
    "changes",
    [
        {"sequence": 2, "disposition": Disposition.FOLLOWED_UP},
        {"sequence": 2, "disposition": Disposition.REOPENED},
    ],
)
def test_follow_ups_and_reopened_tickets_get_none(changes: dict[str, object]) -> None:
    assert acknowledgement(routed_event(**changes), TEXTS, OUTPUTS, TRACE) is None


def test_points_are_named_once_in_the_customers_order() -> None:
    event = routed_event(
        category=Category.REFUND,
        points=(
            point(Category.REFUND, 30),
            point(Category.TOP_UP, 0),
            point(Category.OTHER, 10),
            point(Category.TOP_UP, 20),
        ),
        missing=(Fact.AMOUNT,),
    )
    made = acknowledgement(event, TEXTS, OUTPUTS, TRACE)
    assert made is not None
    assert made.data["points"] == ["top_up", "refund"]
    assert made.data["missing"] == ["amount"]
    assert "1. 充值" in made.text
    assert "2. 退款" in made.text


def test_a_primary_category_without_a_point_comes_first() -> None:
    made = acknowledgement(
        routed_event(category=Category.REFUND, points=(point(Category.TOP_UP, 0),)), TEXTS, OUTPUTS, TRACE
    )
    assert made is not None
    assert made.data["points"] == ["refund", "top_up"]


def test_a_guess_in_triage_is_not_told_as_a_fact() -> None:
    made = acknowledgement(routed_event(queue=Queue.TRIAGE, category=Category.CREDIT_WEALTH), TEXTS, OUTPUTS, TRACE)
    assert made is not None
    assert TEXTS.zh.categories[Category.CREDIT_WEALTH].next not in made.text
    assert TEXTS.zh.categories[Category.OTHER].next in made.text


def test_the_loop_guard() -> None:
    made = acknowledgement(routed_event(), TEXTS, OUTPUTS, TRACE)
    assert made is not None
    assert held_back(made, 3, 3) is None
    assert held_back(made, 4, 3) == "loop guard: more than 3 acknowledgements to this customer within an hour"
    robot = routed_event(channel=Channel.EMAIL, reply_to="postmaster@mx.example")
    bounced = acknowledgement(robot, TEXTS, OUTPUTS, TRACE)
    assert bounced is not None
    assert held_back(bounced, 1, 3) == "loop guard: nobody reads this mailbox"


@pytest.mark.parametrize("kind", [kind for kind in ActivityKind if kind is not ActivityKind.REPLIED])
def test_only_a_reply_is_passed_on(kind: ActivityKind) -> None:
    assert reply(activity(kind=kind, rating=5, queue=Queue.GENERAL), "x", TRACE) is None


def test_a_reply_is_addressed_by_its_contact() -> None:
    waiting = reply(activity(), "done", TRACE)
    assert waiting is not None
    assert waiting.route is None
    assert waiting.notification_id == derive_id("notification", "reply", activity().event_id)
    event = routed_event(language=Language.EN, channel=Channel.EMAIL, reply_to="a@b.example")
    ready = addressed(waiting, contact_of(event), TEXTS, OUTPUTS)
    assert ready.route is not None
    assert ready.route.recipient == "a@b.example"
    assert ready.subject == f"Reply from UPay customer service [ticket {reference_of(event.ticket_id)}]"
    assert (ready.text, ready.brand, ready.data["agent"]) == ("done", "upay", "agent-1")


def test_the_latest_message_says_how_a_customer_is_reached() -> None:
    event = routed_event(reply_to="old", language=Language.EN)
    later = TicketMessage(
        ticket_id=event.ticket_id,
        brand="upay",
        channel=Channel.APP_CHAT,
        message_id="m-2",
        sequence=2,
        disposition=Disposition.FOLLOWED_UP,
        customer=Customer(id="customer-1"),
        text="…",
        sent_at=NOW,
        accepted_at=NOW,
        opened_at=NOW,
        reply_to="new",
    )
    orders: list[list[TicketMessage | TicketRouted]] = [[event, later], [later, event]]
    for order in orders:
        (contact,) = latest_contacts(order).values()
        assert (contact.reply_to, contact.sequence, contact.language) == ("new", 2, Language.EN)


@pytest.mark.parametrize("kind", SlaKind)
def test_leads_hear_of_warnings_and_breaches_only(kind: SlaKind) -> None:
    kinds = {item.kind for item in lead_notifications(sla_event(kind=kind), TEXTS, OUTPUTS, TRACE)}
    assert kinds == {SlaKind.WARNING: {Kind.WARNING}, SlaKind.BREACHED: {Kind.BREACH}}.get(kind, set())


def test_each_lead_and_each_step_is_a_notification_of_its_own() -> None:
    both = lead_notifications(sla_event(queue=Queue.COMPLAINTS), TEXTS, OUTPUTS, TRACE)
    again = lead_notifications(sla_event(queue=Queue.COMPLAINTS), TEXTS, OUTPUTS, TRACE)
    later = lead_notifications(sla_event(queue=Queue.COMPLAINTS, step=3), TEXTS, OUTPUTS, TRACE)
    assert [item.notification_id for item in both] == [item.notification_id for item in again]
    assert len({item.notification_id for item in (*both, *later)}) == 4


def test_due_times_are_told_in_the_leads_zone() -> None:
    (told,) = lead_notifications(sla_event(brand="topay"), TEXTS, OUTPUTS, TRACE)
    assert "first response was due 2026-11-23 16:00:00 CST" in told.text  # 08:00 UTC
    assert told.data["due_at"] == "2026-11-23T08:00:00+00:00"


def test_a_reminder_before_routing_goes_to_the_default_leads() -> None:
    (told,) = lead_notifications(sla_event(queue=None, priority=None), TEXTS, OUTPUTS, TRACE)
    assert told.data["lead"] == "service_lead"
    assert TEXTS.zh.lead.no_queue in told.text


def test_windows_do_not_overlap() -> None:
    start = window_start(NOW + timedelta(seconds=299), 300)
    assert start == NOW
    assert window_start(NOW + timedelta(seconds=300), 300) == NOW + timedelta(seconds=300)


def test_a_digest_counts_all_and_spells_out_breaches_first() -> None:
    warnings = [
        lead_notifications(sla_event(kind=SlaKind.WARNING, step=step + 1, brand="topay"), TEXTS, OUTPUTS, TRACE)[0]
        for step in range(DIGEST_LINES_MOST + 20)
    ]
    (breach,) = lead_notifications(sla_event(brand="topay"), TEXTS, OUTPUTS, TRACE)
    digest = digest_of(breach, NOW)
    assert digest.notification_id == digest_of(warnings[0], NOW).notification_id
    assert digest.notification_id != digest_of(breach, NOW + timedelta(seconds=300)).notification_id
    written = written_digest(digest, [*warnings, breach], TEXTS)
    assert written.subject == "121 reminders of due times"
    assert written.text.splitlines()[1] == f"- {breach.subject}"
    assert written.text.splitlines()[-1] == "… +21"
    assert written.data["count"] == 121


def test_a_webhooks_body_names_type_time_and_ticket() -> None:
    made = acknowledgement(routed_event(), TEXTS, OUTPUTS, TRACE)
    assert made is not None
    body = payload(made)
    assert body["type"] == "notification.acknowledgement"
    assert body["timestamp"] == "2026-11-23T08:00:00+00:00"
    assert body["data"]["reference"] == "1A2B3C4D"
    assert body["data"]["customer_id"] == "customer-1"
