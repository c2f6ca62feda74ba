"""The mail itself: headers, encoding, and that nobody can write headers of his own into it."""

from __future__ import annotations

import email
from dataclasses import replace
from email import policy

import pytest

from services.notifier.domain.notifications import (
    Notification,
    acknowledgement,
    addressed,
    contact_of,
    lead_notifications,
    reply,
)
from services.notifier.domain.outputs import Route
from services.notifier.mail import message_of
from shared.events import ActivityKind, Output, TicketActivity
from shared.taxonomy import Channel, Language
from tests.unit.notifier.examples import NOW, OUTPUTS, TEXTS, TRACE, routed_event, sla_event


def acknowledged(**changes: object) -> Notification:
    made = acknowledgement(
        routed_event(channel=Channel.EMAIL, reply_to="customer@mail.example", **changes), TEXTS, OUTPUTS, TRACE
    )
    assert made is not None
    return made


def test_an_acknowledgement_survives_the_wire() -> None:
    made = acknowledged(language=Language.ZH)
    wire = message_of(made, OUTPUTS).as_bytes()
    assert all(byte < 128 for byte in wire)
    assert max(map(len, wire.split(b"\r\n"))) < 998
    mail = email.message_from_bytes(wire, policy=policy.default)
    assert mail["Subject"] == made.subject
    assert mail["To"] == "customer@mail.example"
    assert mail["From"].addresses[0].display_name == "UPay"
    assert mail["Message-ID"] == f"<{made.notification_id}@upay.example>"
    assert (mail["Auto-Submitted"], mail["X-Auto-Response-Suppress"]) == ("auto-replied", "All")
    assert mail.get_content().splitlines() == made.text.splitlines()
    assert mail["Date"].datetime == NOW
    assert wire == message_of(made, OUTPUTS).as_bytes()  # the same at every try


def test_what_machines_must_not_answer_says_so() -> None:
    (reminder,) = lead_notifications(sla_event(), TEXTS, OUTPUTS, TRACE)
    to_lead = replace(reminder, route=Route(Output.MAIL, "mail", "lead@leads.example"))
    assert message_of(to_lead, OUTPUTS)["Auto-Submitted"] == "auto-generated"
    activity = TicketActivity(
        ticket_id=routed_event().ticket_id,
        activity_id="a",
        kind=ActivityKind.REPLIED,
        agent="agent-1",
        at=NOW,
        text="words",
    )
    waiting = reply(activity, "words", TRACE)
    assert waiting is not None
    contact = contact_of(routed_event(channel=Channel.EMAIL, reply_to="customer@mail.example"))
    assert message_of(addressed(waiting, contact, TEXTS, OUTPUTS), OUTPUTS)["Auto-Submitted"] is None


@pytest.mark.parametrize(
    "words", ["x\r\nBcc: all@b.example", "x\nBcc: all@b.example", "x\rBcc: all@b.example", "x\u2028Bcc: a@b.c"]
)
def test_no_header_can_be_slipped_into_a_subject(words: str) -> None:
    mail = email.message_from_bytes(
        message_of(replace(acknowledged(), subject=words), OUTPUTS).as_bytes(), policy=policy.default
    )
    assert mail["Bcc"] is None
    assert mail["Subject"].startswith("x Bcc:")


def test_no_header_can_be_slipped_into_a_recipient() -> None:
    route = Route(Output.MAIL, "mail", "a@b.example\r\nBcc: all@b.example")
    with pytest.raises(ValueError, match=r"CR and LF|invalid arguments"):
        message_of(replace(acknowledged(), route=route), OUTPUTS)
