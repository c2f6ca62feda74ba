"""What tests of SMTP and IMAP share: an adapter, mails, and somebody who accepts or refuses them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from services.intake.channels.email import EmailAdapter, EmailConfig
from shared.events import ChannelMessage
from shared.taxonomy import Channel


def email_adapter(brand: str = "upay", **fields: Any) -> EmailAdapter:
    return EmailAdapter(brand, EmailConfig.model_validate({"addresses": [f"service@{brand}.example"], **fields}))


def mail(number: int = 1, *, text: str = "充值没到账", headers: str = "") -> bytes:
    return (
        f"From: li@mail.example\r\nTo: service@upay.example\r\nSubject: Top-up\r\n"
        f"Message-ID: <{number}@mail.example>\r\n"
        f"{headers}Content-Type: text/plain; charset=utf-8\r\n\r\n{text}\r\n"
    ).encode()


class Accepting:
    """Takes what it is given; raises `error` instead while there is one."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.messages: list[ChannelMessage] = []
        self.ignored: list[str] = []
        self.asked = 0

    async def __call__(
        self, brand: str, channel: Channel, messages: Sequence[ChannelMessage], ignored: Sequence[str]
    ) -> None:
        self.asked += 1
        assert channel is Channel.EMAIL
        assert {message.brand for message in messages} <= {brand}
        if self.error is not None:
            raise self.error
        self.messages += messages
        self.ignored += ignored

    @property
    def ids(self) -> list[str]:
        return [message.message_id for message in self.messages]
