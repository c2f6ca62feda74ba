"""Earlier versions that may still lie in the topics, or that a tool of yesterday still writes. A consumer is given
their successors: `upgraded`. A version goes when nobody writes it any more and its topic's retention has passed.

Closed sets are repeated here as they were: a committed schema never changes. Classes are named as they were then,
because their names are part of the schema.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from enum import StrEnum
from typing import Annotated, ClassVar, Final, Self

from pydantic import Field, model_validator

from shared.events import activity, peaks, sla, tickets
from shared.events import channel as channels
from shared.events.base import AwareDatetime, BrandCode, Event, Identifier
from shared.events.channel import Attachment, Customer, ShortText, Text
from shared.taxonomy import Category, Channel, Priority, Queue


class _Earlier(Event):
    """Its id, key and time are its successor's: the same effect, whichever version it is written in."""

    @property
    def event_id(self) -> uuid.UUID:
        return self.upgraded().event_id

    @property
    def key(self) -> str:
        return self.upgraded().key

    @property
    def occurred_at(self) -> datetime:
        return self.upgraded().occurred_at


class Target(StrEnum):
    """What was promised."""

    FIRST_RESPONSE = "first_response"
    NEXT_RESPONSE = "next_response"
    RESOLUTION = "resolution"


class SlaKind(StrEnum):
    STARTED = "started"
    REPLANNED = "replanned"
    WARNING = "warning"
    BREACHED = "breached"
    MET = "met"
    PAUSED = "paused"
    RESUMED = "resumed"
    CANCELLED = "cancelled"


class SlaEventV1(_Earlier):
    """Something happened to a clock. `step` counts the events of one clock, from 1."""

    TYPE: ClassVar[str] = "switchyard.sla.event.v1"

    clock_id: uuid.UUID
    ticket_id: uuid.UUID
    step: Annotated[int, Field(ge=1)]
    kind: SlaKind
    target: Target
    brand: BrandCode
    channel: Channel
    queue: Queue | None = None
    priority: Priority | None = None
    policy: Identifier
    target_seconds: Annotated[int, Field(ge=1)]
    started_at: AwareDatetime
    due_at: AwareDatetime | None = None
    at: AwareDatetime
    fired_at: AwareDatetime | None = None
    lateness_ms: Annotated[int, Field(ge=0)] | None = None
    business_seconds: Annotated[int, Field(ge=0)] | None = None
    warning_share: Annotated[float, Field(gt=0, lt=1)] | None = None
    breached: bool = False

    def upgraded(self) -> sla.SlaEvent:
        return sla.SlaEvent.model_validate(self.model_dump())


class PeakEventV1(_Earlier):
    """Arrivals of a brand's queue rose above (or fell back to) what its staff can answer in time."""

    TYPE: ClassVar[str] = "switchyard.peak.event.v1"

    brand: BrandCode
    queue: Queue
    kind: peaks.PeakKind
    began_at: AwareDatetime
    at: AwareDatetime
    window_seconds: Annotated[int, Field(ge=1)]
    expected_arrivals: Annotated[float, Field(ge=0)]
    seen_arrivals: Annotated[int, Field(ge=0)]
    staff_needed: Annotated[int, Field(ge=0)] | None = None

    def upgraded(self) -> peaks.PeakEvent:
        return peaks.PeakEvent.model_validate(self.model_dump())


class ActivityKind(StrEnum):
    CLAIMED = "claimed"
    RELEASED = "released"
    REPLIED = "replied"
    WAITING_ON_CUSTOMER = "waiting_on_customer"
    RESOLVED = "resolved"
    REOPENED = "reopened"
    CORRECTED = "corrected"
    RATED = "rated"


class TicketActivityV1(_Earlier):
    """One thing that an agent (or the desk on his behalf) did.

    `activity_id` is the writer's own id of the act (the desk derives it; a tool may use any unique string): writing the
    same act again has no further effect.
    """

    TYPE: ClassVar[str] = "switchyard.ticket.activity.v1"

    ticket_id: uuid.UUID
    activity_id: Identifier
    kind: ActivityKind
    agent: Identifier
    at: AwareDatetime
    text: Text | None = None
    queue: Queue | None = None
    category: Category | None = None
    priority: Priority | None = None
    rating: Annotated[int, Field(ge=1, le=5)] | None = None
    release_reason: activity.ReleaseReason | None = None
    brand: BrandCode | None = None

    @model_validator(mode="after")
    def _has_what_its_kind_needs(self) -> Self:
        self.upgraded()
        return self

    def upgraded(self) -> activity.TicketActivity:
        return activity.TicketActivity.model_validate(self.model_dump())


class ChannelMessageV1(_Earlier):
    """A customer's message. Unique by brand, channel and `message_id`: the channel's own id of the message."""

    TYPE: ClassVar[str] = "switchyard.channel.message.v1"

    brand: BrandCode
    channel: Channel
    message_id: Identifier
    customer: Customer
    text: Text = ""
    sent_at: AwareDatetime
    subject: ShortText | None = None
    conversation_id: Identifier | None = None
    reply_to: ShortText | None = None
    attachments: Annotated[tuple[Attachment, ...], Field(max_length=50)] = ()

    def upgraded(self) -> channels.ChannelMessage:
        return channels.ChannelMessage.model_validate(self.model_dump())


class TicketMessageV1(_Earlier):
    """One accepted message, secrets cut, and the ticket it belongs to."""

    TYPE: ClassVar[str] = "switchyard.ticket.message.v1"

    ticket_id: uuid.UUID
    brand: BrandCode
    channel: Channel
    message_id: Identifier
    sequence: Annotated[int, Field(ge=1)]
    disposition: tickets.Disposition
    customer: Customer
    text: Text
    subject: ShortText | None = None
    sent_at: AwareDatetime
    accepted_at: AwareDatetime
    opened_at: AwareDatetime
    reply_to: ShortText | None = None
    attachments: tuple[Attachment, ...] = ()
    redactions: tuple[tickets.Redaction, ...] = ()
    linked_ticket_id: uuid.UUID | None = None

    def upgraded(self) -> tickets.TicketMessage:
        return tickets.TicketMessage.model_validate(self.model_dump())


EARLIER: Final[dict[type[Event], tuple[type[Event], ...]]] = {
    channels.ChannelMessage: (ChannelMessageV1,),
    tickets.TicketMessage: (TicketMessageV1,),
    sla.SlaEvent: (SlaEventV1,),
    peaks.PeakEvent: (PeakEventV1,),
    activity.TicketActivity: (TicketActivityV1,),
}
"""The earlier versions of each event, which are read wherever it is."""
