"""The mail itself: headers, encoding, and that nobody can write headers of his own into it."""

from __future__ import annotations

import email
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from email import policy
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from deploy.processes import free_port
from services.notifier.domain.notifications import (
    Contact,
    Notification,
    acknowledgement,
    addressed,
    answering,
    contact_of,
    reminders_of,
    reply,
)
from services.notifier.domain.outputs import Route
from services.notifier.domain.retry import Verdict
from services.notifier.mail import MailSender, message_of
from services.notifier.settings import Settings
from shared.events import ActivityKind, Output, TicketActivity
from shared.taxonomy import Channel, Language
from tests.unit.notifier.examples import NOW, OUTPUTS, TEXTS, TRACE, routed_event, sla_event


def acknowledged(**changes: object) -> Notification:
    made = acknowledgement(
        routed_event(channel=Channel.EMAIL, reply_to="customer@mail.example", **changes), TEXTS, OUTPUTS, TRACE
    )
    assert made is not None
    return made


def mail_contact() -> Contact:
    return contact_of(routed_event(channel=Channel.EMAIL, reply_to="customer@mail.example"))


def replied(contact: Contact) -> Notification:
    activity = TicketActivity(
        ticket_id=contact.ticket_id,
        activity_id="a",
        kind=ActivityKind.REPLIED,
        agent="agent-1",
        at=NOW,
        text="words",
    )
    waiting = reply(activity, "words", TRACE)
    assert waiting is not None
    return addressed(waiting, contact, TEXTS, OUTPUTS)


def test_an_acknowledgement_survives_the_wire() -> None:
    made = acknowledged(language=Language.ZH)
    wire = message_of(made, OUTPUTS).as_bytes()
    assert all(byte < 128 for byte in wire)
    assert max(map(len, wire.split(b"\r\n"))) < 998
    mail = email.message_from_bytes(wire, policy=policy.default)
    assert mail["Subject"] == made.subject
    assert mail["To"] == "customer@mail.example"
    assert mail["From"].addresses[0].display_name == "UPay"
    assert mail["Message-ID"] == f"<{made.ticket_id}.{made.notification_id}@upay.example>"
    assert (mail["Auto-Submitted"], mail["X-Auto-Response-Suppress"]) == ("auto-replied", "All")
    assert mail.get_content().splitlines() == made.text.splitlines()
    assert mail["Date"].datetime == NOW
    assert wire == message_of(made, OUTPUTS).as_bytes()  # the same at every try


def test_an_answer_stands_below_the_customers_mail() -> None:
    long_id = f"{'x=_' * 60}@corp.example"
    for message_id in ("a1@mail.example", long_id):
        made = answering(acknowledged(), replace(mail_contact(), message_id=message_id))
        wire = message_of(made, OUTPUTS).as_bytes()
        assert f"\r\nIn-Reply-To: <{message_id}>\r\nReferences: <{message_id}>\r\n".encode() in wire
    assert message_of(answering(acknowledged(), None), OUTPUTS)["In-Reply-To"] is None
    assert (
        message_of(answering(acknowledged(), replace(mail_contact(), message_id=None)), OUTPUTS)["References"] is None
    )


def test_a_reply_to_a_mail_has_its_subject() -> None:
    assert (
        replied(replace(mail_contact(), message_id="a1@mail.example", subject="充值没到账")).subject == "Re: 充值没到账"
    )
    without = replied(replace(mail_contact(), message_id="a1@mail.example"))
    assert without.subject == "UPay客服回复［工单 1A2B3C4D］"
    assert message_of(without, OUTPUTS)["In-Reply-To"] == "<a1@mail.example>"
    assert message_of(without, OUTPUTS)["Message-ID"] == f"<{without.ticket_id}.{without.notification_id}@upay.example>"


def test_a_reminder_has_no_ticket_in_its_id() -> None:
    (reminder,) = reminders_of(sla_event(), TEXTS, OUTPUTS, TRACE)
    to_lead = replace(reminder, route=Route(Output.MAIL, "mail", "lead@leads.example"))
    assert message_of(to_lead, OUTPUTS)["Message-ID"] == f"<{reminder.notification_id}@upay.example>"


def test_what_machines_must_not_answer_says_so() -> None:
    (reminder,) = reminders_of(sla_event(), TEXTS, OUTPUTS, TRACE)
    to_lead = replace(reminder, route=Route(Output.MAIL, "mail", "lead@leads.example"))
    assert message_of(to_lead, OUTPUTS)["Auto-Submitted"] == "auto-generated"
    assert message_of(replied(mail_contact()), OUTPUTS)["Auto-Submitted"] is None


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


# --- the sender, against a real mail server --------------------------------------------------------------------------


class Refusing:
    """An SMTP server's handler that answers one command as told."""

    def __init__(self, command: str = "", answer: str = "") -> None:
        self.command, self.answer = command, answer
        self.mails = 0

    async def handle_MAIL(self, server: Any, session: Any, envelope: Any, address: str, options: list[str]) -> str:  # noqa: N802
        envelope.mail_from = address
        return self.answer if self.command == "MAIL" else "250 OK"

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: list[str]) -> str:  # noqa: N802
        if self.command == "RCPT":
            return self.answer
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        self.mails += self.command != "DATA"
        return self.answer if self.command == "DATA" else "250 OK"


@contextmanager
def mail_server(handler: Refusing, **options: Any) -> Iterator[int]:
    controller = Controller(handler, hostname="127.0.0.1", port=free_port(), **options)
    controller.start()
    try:
        yield controller.port
    finally:
        controller.stop()


def mail_sender(port: int, **settings: Any) -> MailSender:
    fields = {"notifier_smtp_port": port, "notifier_smtp_security": "none", "notifier_delivery_timeout_seconds": 5.0}
    return MailSender(Settings.model_validate(fields | settings), OUTPUTS)


@pytest.mark.parametrize(
    ("command", "answer", "verdict", "detail"),
    [
        ("", "", Verdict.DELIVERED, "accepted by the mail server"),
        ("DATA", "554 5.7.1 no spam for customer@mail.example", Verdict.HOPELESS, "SMTP 554 5.7.1"),
        ("RCPT", "550 5.1.1 unknown", Verdict.HOPELESS, "SMTP 550 5.1.1"),
        ("RCPT", "450 4.2.1 grey", Verdict.TRY_AGAIN, "SMTP 450 4.2.1"),
        # Not about this mail: our sender address is for us to mend, and then the mail is wanted.
        ("MAIL", "550 5.7.0 sender refused", Verdict.TRY_AGAIN, "SMTP 550 5.7.0"),
    ],
)
async def test_what_the_server_says_decides(command: str, answer: str, verdict: Verdict, detail: str) -> None:
    handler = Refusing(command, answer)
    with mail_server(handler) as port:
        tried = await mail_sender(port).send(acknowledged())
    assert (tried.verdict, tried.detail) == (verdict, detail)
    assert handler.mails == (verdict is Verdict.DELIVERED)


async def test_logs_in_and_retries_when_it_may_not() -> None:
    def authenticator(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        return AuthResult(success=data.password == b"right", handled=False)

    handler = Refusing()
    with mail_server(handler, authenticator=authenticator, auth_require_tls=False) as port:
        details = {}
        for password in ("wrong", "right"):
            sender = mail_sender(port, notifier_smtp_username="mailer", notifier_smtp_password=password)
            tried = await sender.send(acknowledged())
            details[password] = (tried.verdict, tried.detail)
    assert details == {
        "wrong": (Verdict.TRY_AGAIN, "SMTP 535 5.7.8"),
        "right": (Verdict.DELIVERED, "accepted by the mail server"),
    }
    assert handler.mails == 1


async def test_never_falls_back_to_plain_text() -> None:
    handler = Refusing()  # offers no STARTTLS
    with mail_server(handler) as port:
        tried = await mail_sender(port, notifier_smtp_security="starttls").send(acknowledged())
    assert tried.verdict is Verdict.TRY_AGAIN
    assert handler.mails == 0


async def test_a_server_that_is_away_is_tried_again() -> None:
    tried = await mail_sender(free_port()).send(acknowledged())
    assert (tried.verdict, tried.detail) == (Verdict.TRY_AGAIN, "no answer: SMTPConnectError")
