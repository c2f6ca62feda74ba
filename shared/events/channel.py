"""`channel.messages`: a customer wrote or called, raw, as the channel saw it."""

from __future__ import annotations

import uuid
from datetime import datetime
from enum import StrEnum
from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from shared.events.base import AwareDatetime, BrandCode, Contract, Event, Identifier, derive_id
from shared.taxonomy import Channel, Language

MAX_TEXT_CHARACTERS = 20_000


def _without_nul(value: str) -> str:
    # PostgreSQL cannot store it, no customer typed it, and refusing the message would lose what he did type.
    return value.replace("\x00", "")


Text = Annotated[str, StringConstraints(max_length=MAX_TEXT_CHARACTERS), AfterValidator(_without_nul)]
ShortText = Annotated[str, StringConstraints(max_length=500), AfterValidator(_without_nul)]


class Customer(Contract):
    """Who wrote, as far as the channel knows. `id` is the channel's own id of the person."""

    id: Identifier
    name: ShortText | None = None
    phone: ShortText | None = Field(default=None, description="bound phone number, E.164 where known")
    email: ShortText | None = None
    language: Language | None = Field(default=None, description="preference, where the channel knows one")
    vip: bool = False


class Attachment(Contract):
    """A file by reference: Switchyard never carries its bytes."""

    name: ShortText
    media_type: ShortText = "application/octet-stream"
    url: ShortText | None = None
    size_bytes: Annotated[int, Field(ge=0)] | None = None


class Contact(StrEnum):
    """What a person can be known by on several channels."""

    PHONE = "phone"
    EMAIL = "email"


class ChannelMessage(Event):
    """A customer's message. Unique by brand, channel and `message_id`: the channel's own id of the message.

    Where a channel lets customers change what they wrote, the change is a message with an id of its own that names the
    earlier one: `edits` with the new words, `deletes` with none.
    """

    TYPE: ClassVar[str] = "switchyard.channel.message.v2"

    brand: BrandCode
    channel: Channel
    message_id: Identifier
    customer: Customer
    text: Text = ""
    sent_at: AwareDatetime = Field(description="when the customer sent it; must carry an offset")
    subject: ShortText | None = None
    conversation_id: Identifier | None = Field(
        default=None, description="the channel's thread, where it has several per customer"
    )
    reply_to: ShortText | None = Field(
        default=None,
        description="where an answer goes: an e-mail address, or the channel's own address of the person",
    )
    attachments: Annotated[tuple[Attachment, ...], Field(max_length=50)] = ()
    in_reply_to: Annotated[tuple[Identifier, ...], Field(max_length=50)] = Field(
        default=(), description="ids of messages, the customer's or ours, that this one answers; the nearest first"
    )
    edits: Identifier | None = Field(default=None, description="message_id of his message whose words these replace")
    deletes: Identifier | None = Field(default=None, description="message_id of his message that he took back")
    verified: Annotated[tuple[Contact, ...], Field(max_length=2)] = Field(
        default=(), description="which of the customer's contacts the channel has checked to be his"
    )

    @model_validator(mode="after")
    def _changes_another_message(self) -> Self:
        if self.edits is not None and self.deletes is not None:
            raise ValueError("`edits` and `deletes` cannot both be given")
        if self.message_id in (self.edits, self.deletes):
            raise ValueError("a change needs a `message_id` of its own, not that of the message it changes")
        return self

    @property
    def changes(self) -> str | None:
        """The message that this one edits or deletes."""
        return self.edits or self.deletes

    @property
    def event_id(self) -> uuid.UUID:
        return derive_id("channel.message", self.brand, self.channel, self.message_id)

    @property
    def key(self) -> str:
        return f"{self.brand}/{self.channel}/{self.customer.id}"

    @property
    def occurred_at(self) -> datetime:
        return self.sent_at
