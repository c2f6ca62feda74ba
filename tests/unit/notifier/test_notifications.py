"""Which notifications follow from which event."""

from __future__ import annotations

import json
import uuid
from datetime import timedelta

import pytest

from services.notifier.domain.notifications import (
    DIGEST_LINES_MOST,
    LEFT_HOLDS_MS,
    Kind,
    acknowledgement,
    addressed,
    bypasses_limits,
    contact_of,
    digest_of,
    held_back,
    latest_contacts,
    payload,
    reminders_of,
    reply,
    uncallable,
    window_start,
    written_digest,
)
from services.notifier.domain.texts import reference_of
from shared.events import (
    ActivityKind,
    Customer,
    Disposition,
    EscalationLevel,
    Point,
    SlaKind,
    Target,
    TicketActivity,
    TicketMessage,
    TicketRouted,
    derive_id,
)
from shared.taxonomy import QUEUE_NAMES, Category, Channel, Fact, Language, Queue
from tests.unit.notifier.examples import (
    NOW,
    OUTPUTS,
    TEXTS,
    TRACE,
    escalation_event,
    outputs_with,
    routed_event,
    sla_event,
)


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
    needed = {"rating": 5, "queue": Queue.GENERAL}
    if kind is ActivityKind.MERGED:
        needed = {"merged_into": uuid.UUID(int=9)}
    assert reply(activity(kind=kind, **needed), "x", TRACE) is None


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


def test_the_latest_mail_is_known_whatever_comes_first() -> None:
    mail = TicketMessage(
        ticket_id=routed_event().ticket_id,
        brand="upay",
        channel=Channel.EMAIL,
        message_id="a1@mail.example",
        sequence=1,
        disposition=Disposition.OPENED,
        customer=Customer(id="li@mail.example"),
        text="…",
        subject="充值没到账",
        sent_at=NOW,
        accepted_at=NOW,
        opened_at=NOW,
    )
    told = routed_event(channel=Channel.EMAIL)
    orders: list[list[TicketMessage | TicketRouted]] = [[mail, told], [told, mail]]
    for order in orders:
        (contact,) = latest_contacts(order).values()
        assert (contact.message_id, contact.subject, contact.language) == ("a1@mail.example", "充值没到账", Language.ZH)


@pytest.mark.parametrize(
    ("channel", "message_id"),
    [
        (Channel.APP_CHAT, "a1@mail.example"),  # some other channel's id
        (Channel.EMAIL, "sha256-" + "0" * 64),  # a mail without a Message-ID
        (Channel.EMAIL, "a> <b@mail.example"),  # would be two ids, or a header of its own
    ],
)
def test_what_is_no_message_id_is_not_answered(channel: Channel, message_id: str) -> None:
    message = TicketMessage(
        ticket_id=routed_event().ticket_id,
        brand="upay",
        channel=channel,
        message_id=message_id,
        sequence=1,
        disposition=Disposition.OPENED,
        customer=Customer(id="li@mail.example"),
        text="…",
        subject="充值没到账",
        sent_at=NOW,
        accepted_at=NOW,
        opened_at=NOW,
    )
    assert (contact_of(message).message_id, contact_of(message).subject) == (None, None)


@pytest.mark.parametrize("kind", SlaKind)
def test_people_hear_of_warnings_breaches_and_escalations_only(kind: SlaKind) -> None:
    event = sla_event(kind=kind, escalation=EscalationLevel.LEAD)
    kinds = {item.kind for item in reminders_of(event, TEXTS, OUTPUTS, TRACE)}
    assert kinds == {
        SlaKind.WARNING: {Kind.WARNING},
        SlaKind.BREACHED: {Kind.BREACH},
        SlaKind.ESCALATED: {Kind.BREACH},
    }.get(kind, set())


@pytest.mark.parametrize(
    ("level", "person"),
    [
        (EscalationLevel.LEAD, "money_lead"),
        (EscalationLevel.HEAD, "service_head"),
        (EscalationLevel.ON_CALL, "on_call_rota"),
    ],
)
def test_an_escalation_is_a_breach_that_names_its_level(level: EscalationLevel, person: str) -> None:
    (told,) = reminders_of(escalation_event(level), TEXTS, OUTPUTS, TRACE)
    assert payload(told)["type"] == "notification.breach"
    assert told.data["person"] == person
    # 75 minutes used of 10 promised.
    assert (told.data["escalation"], told.data["business_seconds"], told.data["late_by_seconds"]) == (level, 4500, 3900)
    assert json.loads(json.dumps(told.data)) == told.data
    assert told.subject == TEXTS.zh.escalations[level].subject.format(
        brand="UPay", queue=QUEUE_NAMES[Queue.PAYMENTS][0], priority="P2", reference="1A2B3C4D"
    )
    assert told.text.endswith("按工作时间已超时 1 小时 5 分钟。")
    assert "2026-11-23 16:00:00 CST" in told.text


def test_every_step_after_a_breach_is_a_notification_of_its_own() -> None:
    outputs = outputs_with({"leads": {"default": ("service_lead",)}, "heads": {}, "on_call": {}})
    events = [
        sla_event(),
        *(escalation_event(level, step=4 + place) for place, level in enumerate(EscalationLevel)),
        escalation_event(EscalationLevel.LEAD, step=4),  # again
    ]
    made = [reminders_of(event, TEXTS, outputs, TRACE)[0] for event in events]
    assert {item.data["person"] for item in made} == {"service_lead"}
    assert len({item.notification_id for item in made}) == 4


def test_who_is_called_instead_is_told_so() -> None:
    event = escalation_event(EscalationLevel.ON_CALL)
    (stood_in,) = reminders_of(event, TEXTS, outputs_with({"heads": {}, "on_call": {}}), TRACE)
    (called,) = reminders_of(event, TEXTS, OUTPUTS, TRACE)
    assert stood_in.data["person"] == "money_lead"
    assert stood_in.text.splitlines() == [*called.text.splitlines(), "这里没有指定值班人员，因此改为通知您。"]


def test_only_a_call_of_those_on_call_bypasses_the_limits_whoever_is_reached() -> None:
    outputs = outputs_with({"heads": {}, "on_call": {}})
    for level in EscalationLevel:
        (told,) = reminders_of(escalation_event(level), TEXTS, outputs, TRACE)
        assert bypasses_limits(told) is (level is EscalationLevel.ON_CALL)
    (breach,) = reminders_of(sla_event(), TEXTS, outputs, TRACE)
    assert not bypasses_limits(breach)


def test_an_escalation_of_unknown_length_is_told_without_one() -> None:
    (told,) = reminders_of(escalation_event(EscalationLevel.HEAD, business_seconds=None), TEXTS, OUTPUTS, TRACE)
    assert told.data["late_by_seconds"] is None
    assert "按工作时间已超时" not in told.text


def test_an_escalation_to_no_level_is_told_to_nobody() -> None:
    event = escalation_event(EscalationLevel.HEAD, escalation=None)
    assert uncallable(event) == "escalation: missing in an event of kind escalated; say lead, head or on_call"
    assert reminders_of(event, TEXTS, OUTPUTS, TRACE) == []
    assert uncallable(escalation_event(EscalationLevel.HEAD)) is uncallable(sla_event()) is None


@pytest.mark.parametrize(
    ("brand", "left_seconds", "subject", "text"),
    [
        (
            "upay",
            600,
            "还剩 10 分钟：UPay 支付与资金 P2 工单 1A2B3C4D",
            "进展更新期限为 2026-11-23 16:00:00 CST，按工作时间还剩 10 分钟",
        ),
        (
            "topay",
            600,
            "10 minutes left: Topay Wallet Payments P2 ticket 1A2B3C4D",
            "periodic update is due 2026-11-23 16:00:00 CST, 10 minutes of business time left",
        ),
        ("topay", 3600, "1 hour left: Topay Wallet Payments P2 ticket 1A2B3C4D", "1 hour of business time left"),
    ],
)
def test_a_warning_by_time_left_says_how_much(brand: str, left_seconds: int, subject: str, text: str) -> None:
    event = sla_event(
        kind=SlaKind.WARNING, target=Target.PERIODIC_UPDATE, brand=brand, warning_before_seconds=left_seconds
    )
    (told,) = reminders_of(event, TEXTS, OUTPUTS, TRACE)
    assert told.subject == subject
    assert text in told.text
    assert told.data["left_seconds"] == left_seconds


@pytest.mark.parametrize(
    ("lateness_ms", "begins"), [(LEFT_HOLDS_MS, "10 minutes left"), (LEFT_HOLDS_MS + 1, "Due soon")]
)
def test_a_warning_that_fired_late_no_longer_says_how_much_is_left(lateness_ms: int, begins: str) -> None:
    event = sla_event(kind=SlaKind.WARNING, brand="topay", warning_before_seconds=600, lateness_ms=lateness_ms)
    (told,) = reminders_of(event, TEXTS, OUTPUTS, TRACE)
    assert told.subject.startswith(begins)


def test_a_warning_by_share_is_due_soon() -> None:
    event = sla_event(kind=SlaKind.WARNING, brand="topay", warning_share=0.8)
    (told,) = reminders_of(event, TEXTS, OUTPUTS, TRACE)
    assert told.subject.startswith("Due soon: ")
    assert "left_seconds" not in told.data


def test_each_lead_and_each_step_is_a_notification_of_its_own() -> None:
    both = reminders_of(sla_event(queue=Queue.COMPLAINTS), TEXTS, OUTPUTS, TRACE)
    again = reminders_of(sla_event(queue=Queue.COMPLAINTS), TEXTS, OUTPUTS, TRACE)
    later = reminders_of(sla_event(queue=Queue.COMPLAINTS, step=3), TEXTS, OUTPUTS, TRACE)
    assert [item.notification_id for item in both] == [item.notification_id for item in again]
    assert len({item.notification_id for item in (*both, *later)}) == 4


def test_due_times_are_told_in_the_leads_zone() -> None:
    (told,) = reminders_of(sla_event(brand="topay"), TEXTS, OUTPUTS, TRACE)
    assert "first response was due 2026-11-23 16:00:00 CST" in told.text  # 08:00 UTC
    assert told.data["due_at"] == "2026-11-23T08:00:00+00:00"


def test_a_reminder_before_routing_goes_to_the_default_leads() -> None:
    (told,) = reminders_of(sla_event(queue=None, priority=None), TEXTS, OUTPUTS, TRACE)
    assert told.data["person"] == "service_lead"
    assert TEXTS.zh.reminders.no_queue in told.text


def test_windows_do_not_overlap() -> None:
    start = window_start(NOW + timedelta(seconds=299), 300)
    assert start == NOW
    assert window_start(NOW + timedelta(seconds=300), 300) == NOW + timedelta(seconds=300)


def test_a_digest_counts_all_and_spells_out_breaches_first() -> None:
    warnings = [
        reminders_of(sla_event(kind=SlaKind.WARNING, step=step + 1, brand="topay"), TEXTS, OUTPUTS, TRACE)[0]
        for step in range(DIGEST_LINES_MOST + 20)
    ]
    (breach,) = reminders_of(sla_event(brand="topay"), TEXTS, OUTPUTS, TRACE)
    digest = digest_of(breach, NOW)
    assert digest.notification_id == digest_of(warnings[0], NOW).notification_id
    assert digest.notification_id != digest_of(breach, NOW + timedelta(seconds=300)).notification_id
    written = written_digest(digest, [*warnings, breach], TEXTS)
    assert written.subject == "121 reminders of due times"
    assert written.text.splitlines()[1] == f"- {breach.subject}"
    assert written.text.splitlines()[-1] == "… +21"
    assert written.data["count"] == 121


def test_a_digest_spells_out_escalations_before_breaches() -> None:
    (breach,) = reminders_of(sla_event(brand="topay"), TEXTS, OUTPUTS, TRACE)
    later = escalation_event(EscalationLevel.LEAD, brand="topay", at=NOW + timedelta(hours=1))
    (escalation,) = reminders_of(later, TEXTS, OUTPUTS, TRACE)
    written = written_digest(digest_of(breach, NOW), [breach, escalation], TEXTS)
    assert written.text.splitlines()[1:] == [f"- {escalation.subject}", f"- {breach.subject}"]
    assert [item.get("escalation") for item in written.data["reminders"]] == ["lead", None]


def test_a_webhooks_body_names_type_time_and_ticket() -> None:
    made = acknowledgement(routed_event(), TEXTS, OUTPUTS, TRACE)
    assert made is not None
    body = payload(made)
    assert body["type"] == "notification.acknowledgement"
    assert body["timestamp"] == "2026-11-23T08:00:00+00:00"
    assert body["data"]["reference"] == "1A2B3C4D"
    assert body["data"]["customer_id"] == "customer-1"
