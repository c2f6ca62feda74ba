"""`sla.events`: the life of a clock, i.e. of one promise about one ticket."""

from __future__ import annotations

import uuid
from datetime import datetime
from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from shared.events.base import AwareDatetime, BrandCode, Event, Identifier, derive_id
from shared.taxonomy import Channel, Priority, Queue


class Target(StrEnum):
    """What was promised."""

    FIRST_RESPONSE = "first_response"
    NEXT_RESPONSE = "next_response"
    RESOLUTION = "resolution"


class SlaKind(StrEnum):
    STARTED = "started"
    REPLANNED = "replanned"  # the due time moved: routed, priority changed, policy edited
    WARNING = "warning"
    BREACHED = "breached"
    MET = "met"
    PAUSED = "paused"
    RESUMED = "resumed"
    CANCELLED = "cancelled"  # the promise fell away (e.g. resolved without a reply being owed)


class SlaEvent(Event):
    """Something happened to a clock. `step` counts the events of one clock, from 1."""

    TYPE: ClassVar[str] = "switchyard.sla.event.v1"

    clock_id: uuid.UUID
    ticket_id: uuid.UUID
    step: Annotated[int, Field(ge=1)]
    kind: SlaKind
    target: Target
    brand: BrandCode
    channel: Channel
    queue: Queue | None = Field(default=None, description="none while the ticket has not been routed")
    priority: Priority | None = None
    policy: Identifier = Field(description="name of the policy rule that set the target")
    target_seconds: Annotated[int, Field(ge=1)] = Field(description="promised business seconds")
    started_at: AwareDatetime
    due_at: AwareDatetime | None = Field(default=None, description="none while paused")
    at: AwareDatetime = Field(description="when it happened: for warnings and breaches the time it was due")
    fired_at: AwareDatetime | None = Field(default=None, description="warning, breached: when it really fired")
    lateness_ms: Annotated[int, Field(ge=0)] | None = Field(default=None, description="warning, breached: fired - due")
    business_seconds: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="met, breached: business time used, pauses left out"
    )
    warning_share: Annotated[float, Field(gt=0, lt=1)] | None = None
    breached: bool = Field(
        default=False, description="whether the clock has ever been breached; frozen when it happens"
    )

    @property
    def event_id(self) -> uuid.UUID:
        return derive_id("sla.event", self.clock_id, self.step)

    @property
    def key(self) -> str:
        return str(self.ticket_id)

    @property
    def occurred_at(self) -> datetime:
        return self.at
