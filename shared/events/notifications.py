"""`notifications.outcomes`: what became of a notification."""

from __future__ import annotations

import uuid
from datetime import datetime
from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from shared.events.base import AwareDatetime, BrandCode, Event, derive_id
from shared.events.channel import ShortText


class NotificationKind(StrEnum):
    ACKNOWLEDGEMENT = "acknowledgement"  # to the customer, when his ticket opens
    REPLY = "reply"  # an agent's answer, to the customer
    WARNING = "warning"  # to the lead
    BREACH = "breach"  # to the lead


class Output(StrEnum):
    WEBHOOK = "webhook"
    MAIL = "mail"


class NotificationStatus(StrEnum):
    DELIVERED = "delivered"
    FAILED = "failed"  # this try failed, another follows
    GIVEN_UP = "given_up"


class NotificationOutcome(Event):
    """One try to deliver a notification."""

    TYPE: ClassVar[str] = "switchyard.notification.outcome.v1"

    notification_id: uuid.UUID
    ticket_id: uuid.UUID
    brand: BrandCode
    kind: NotificationKind
    output: Output
    status: NotificationStatus
    attempt: Annotated[int, Field(ge=1)]
    at: AwareDatetime
    next_try_at: AwareDatetime | None = None
    detail: ShortText = Field(default="", description="the receiver's answer or the error; no message text")

    @property
    def event_id(self) -> uuid.UUID:
        return derive_id("notification.outcome", self.notification_id, self.attempt, self.status)

    @property
    def key(self) -> str:
        return str(self.notification_id)

    @property
    def occurred_at(self) -> datetime:
        return self.at
