"""Mails: `python -m tests.fuzz.mail -atheris_runs=100000`. Only an Answer or a Refused may come out.

It begins with the recorded mails. Each is also taken as text that a mail program shows, since the history's and the
signature's cutters see little of mails that are cut to pieces.
"""

from __future__ import annotations

from datetime import UTC, datetime

import atheris

from tests.channels import cases
from tests.fuzz.harness import fuzz

with atheris.instrument_imports(include=["services.intake.channels", "email"]):
    from services.intake.channels.base import Answer, Refused
    from services.intake.channels.email import EmailAdapter, EmailConfig, Envelope
    from services.intake.channels.quoting import Kind, html_text, own_text

RECEIVED_AT = datetime(2026, 11, 20, 4, 0, tzinfo=UTC)
ADAPTER = EmailAdapter("upay", EmailConfig.model_validate(cases.config("email")))
ENVELOPE = Envelope("li@mail.example", ("service@upay.example",))
ANSWERS = Kind(is_reply=True, is_forward=False)


def try_one(data: bytes) -> None:
    envelope = ENVELOPE if len(data) % 2 else None
    try:
        answer = ADAPTER.read_mail(data, RECEIVED_AT, envelope)
    except Refused:
        pass
    else:
        assert isinstance(answer, Answer)
    text = data.decode("utf-8", "replace")
    assert isinstance(own_text(text, ANSWERS), str)
    assert isinstance(html_text(text, ANSWERS), str)


if __name__ == "__main__":
    fuzz("mail", try_one, [named.case.request.built().body for named in cases.load("email")])
