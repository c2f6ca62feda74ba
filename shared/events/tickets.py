"""`tickets.messages`: an accepted, redacted message of a ticket."""

from __future__ import annotations

import uuid
from datetime import datetime
from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from shared.events.base import AwareDatetime, BrandCode, Contract, Event, Identifier, derive_id
from shared.events.channel import Attachment, Customer, ShortText, Text
from shared.taxonomy import Channel


class Disposition(StrEnum):
    """What the message did to its ticket."""

    OPENED = "opened"
    FOLLOWED_UP = "followed_up"
    REOPENED = "reopened"


class Redaction(Contract):
    """How many secrets of a kind were cut, never the secret."""

    kind: Identifier
    count: Annotated[int, Field(ge=1)]


class TicketMessage(Event):
    """One accepted message, secrets cut, and the ticket it belongs to."""

    TYPE: ClassVar[str] = "switchyard.ticket.message.v2"

    ticket_id: uuid.UUID
    brand: BrandCode
    channel: Channel
    message_id: Identifier
    sequence: Annotated[int, Field(ge=1)] = Field(
        description="1 for the message that opened the ticket, then 2, 3, ..."
    )
    disposition: Disposition
    customer: Customer
    text: Text
    subject: ShortText | None = None
    sent_at: AwareDatetime = Field(description="when the customer sent it")
    accepted_at: AwareDatetime = Field(description="when intake accepted it")
    opened_at: AwareDatetime = Field(description="sent_at of the message that opened the ticket")
    reply_to: ShortText | None = None
    attachments: tuple[Attachment, ...] = ()
    redactions: tuple[Redaction, ...] = ()
    linked_ticket_id: uuid.UUID | None = Field(
        default=None,
        description="the conversation's earlier ticket, when this one was opened after it had ended",
    )
    related_ticket_ids: Annotated[tuple[uuid.UUID, ...], Field(max_length=20)] = Field(
        default=(),
        description="tickets of the same person on other channels, known by a verified contact; the latest first",
    )
    edits: Identifier | None = Field(default=None, description="message_id of the message whose words these replace")
    deletes: Identifier | None = Field(default=None, description="message_id of the message that was taken back")
    folded: Annotated[int, Field(ge=0)] = Field(
        default=0, description="further messages of a flood that this one stands for"
    )

    @property
    def changes(self) -> str | None:
        """The message that this one edits or deletes: then the customer has not written anything further."""
        return self.edits or self.deletes

    @property
    def event_id(self) -> uuid.UUID:
        return message_event_id_of(self.brand, self.channel, self.message_id)

    @property
    def key(self) -> str:
        return str(self.ticket_id)

    @property
    def occurred_at(self) -> datetime:
        return self.sent_at


def message_event_id_of(brand: str, channel: str, message_id: str) -> uuid.UUID:
    """The event id of the TicketMessage that this message became."""
    return derive_id("ticket.message", brand, channel, message_id)


def ticket_id_of(brand: str, channel: str, message_id: str) -> uuid.UUID:
    """The id of the ticket that this message opens, if it opens one."""
    return derive_id("ticket", brand, channel, message_id)
