"""`tickets.activity`: what an agent did with a ticket, through the desk or any other tool."""

from __future__ import annotations

import uuid
from datetime import datetime
from enum import StrEnum
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from shared.events.base import AwareDatetime, BrandCode, Event, Identifier, derive_id
from shared.events.channel import Text
from shared.taxonomy import Category, Priority, Queue


class ActivityKind(StrEnum):
    CLAIMED = "claimed"
    RELEASED = "released"
    REPLIED = "replied"
    WAITING_ON_CUSTOMER = "waiting_on_customer"
    RESOLVED = "resolved"
    REOPENED = "reopened"
    CORRECTED = "corrected"
    RATED = "rated"
    MERGED = "merged"  # into another ticket, which goes on for both


class ReleaseReason(StrEnum):
    AGENT = "agent"
    TAKE_BACK = "take_back"


class TicketActivity(Event):
    """One thing that an agent (or the desk on his behalf) did.

    `activity_id` is the writer's own id of the act (the desk derives it; a tool may use any unique string): writing the
    same act again has no further effect.
    """

    TYPE: ClassVar[str] = "switchyard.ticket.activity.v2"

    ticket_id: uuid.UUID
    activity_id: Identifier
    kind: ActivityKind
    agent: Identifier = Field(description="id of the agent; `switchyard` where the desk itself acts")
    at: AwareDatetime
    text: Text | None = Field(default=None, description="replied: what is sent to the customer; else a note")
    queue: Queue | None = Field(
        default=None, description="corrected: where it belongs; claimed: where it was taken from"
    )
    category: Category | None = Field(default=None, description="corrected: what it is")
    priority: Priority | None = Field(default=None, description="corrected: how urgent it is")
    rating: Annotated[int, Field(ge=1, le=5)] | None = Field(default=None, description="rated: 1 (bad) to 5 (good)")
    release_reason: ReleaseReason | None = None
    merged_into: uuid.UUID | None = Field(default=None, description="merged: the ticket that goes on for both")
    agent_group: Identifier | None = Field(default=None, description="the team that the agent works in")
    brand: BrandCode | None = None

    @model_validator(mode="after")
    def _has_what_its_kind_needs(self) -> Self:
        if self.kind is ActivityKind.REPLIED and not (self.text or "").strip():
            raise ValueError("a reply needs `text`")
        if self.kind is ActivityKind.CORRECTED and not (self.queue or self.category or self.priority):
            raise ValueError("a correction needs `queue`, `category` or `priority`")
        if self.kind is ActivityKind.RATED and self.rating is None:
            raise ValueError("a rating needs `rating`, 1 to 5")
        if self.kind is ActivityKind.MERGED and self.merged_into in (None, self.ticket_id):
            raise ValueError("a merge needs `merged_into`, the id of another ticket")
        return self

    @property
    def event_id(self) -> uuid.UUID:
        return derive_id("ticket.activity", self.ticket_id, self.activity_id)

    @property
    def key(self) -> str:
        return str(self.ticket_id)

    @property
    def occurred_at(self) -> datetime:
        return self.at
