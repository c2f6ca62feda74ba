"""`sla.events`: the life of a clock, i.e. of one promise about one ticket; and that the policies changed."""

from __future__ import annotations

import uuid
from datetime import datetime
from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from shared.events.base import AwareDatetime, BrandCode, Event, Identifier, derive_id
from shared.taxonomy import Category, Channel, Priority, Queue


class Target(StrEnum):
    """What was promised."""

    FIRST_RESPONSE = "first_response"
    NEXT_RESPONSE = "next_response"
    PERIODIC_UPDATE = "periodic_update"
    RESOLUTION = "resolution"


class SlaKind(StrEnum):
    STARTED = "started"
    REPLANNED = "replanned"  # the due time moved: routed, priority changed, policy edited
    WARNING = "warning"
    BREACHED = "breached"
    ESCALATED = "escalated"  # still not kept, so long after the breach: the next person is told
    MET = "met"
    PAUSED = "paused"
    RESUMED = "resumed"
    CANCELLED = "cancelled"  # the promise fell away (e.g. resolved without a reply being owed)


class EscalationLevel(StrEnum):
    """Whom a step after the breach calls. In the order in which they are called."""

    LEAD = "lead"
    HEAD = "head"
    ON_CALL = "on_call"


class SlaEvent(Event):
    """Something happened to a clock. `step` counts the events of one clock, from 1."""

    TYPE: ClassVar[str] = "switchyard.sla.event.v2"

    clock_id: uuid.UUID
    ticket_id: uuid.UUID
    step: Annotated[int, Field(ge=1)]
    kind: SlaKind
    target: Target
    brand: BrandCode
    channel: Channel
    queue: Queue | None = Field(default=None, description="none while the ticket has not been routed")
    category: Category | None = Field(default=None, description="none while the ticket has not been routed")
    priority: Priority | None = None
    policy: Identifier = Field(description="name of the policy rule that set the target")
    policy_version: Identifier | None = Field(default=None, description="of the policies that it was planned under")
    calendar: Identifier | None = Field(default=None, description="on which the target is counted")
    target_seconds: Annotated[int, Field(ge=1)] = Field(description="promised business seconds")
    started_at: AwareDatetime
    due_at: AwareDatetime | None = Field(default=None, description="none while paused")
    at: AwareDatetime = Field(description="when it happened: for alarms the time at which they were to ring")
    fired_at: AwareDatetime | None = Field(
        default=None, description="alarms (warning, breached, escalated): when it really fired"
    )
    lateness_ms: Annotated[int, Field(ge=0)] | None = Field(default=None, description="alarms: fired_at - at")
    business_seconds: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="met, breached, escalated: business time used, pauses left out"
    )
    warning_share: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None, description="warning: the share of the target that is used"
    )
    warning_before_seconds: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="warning: the business time that is left, where the policy says it so"
    )
    escalation: EscalationLevel | None = Field(default=None, description="escalated: whom this step calls")
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


class PolicyChanged(Event):
    """The policies or calendars in force changed. Open promises are re-planned under them; history stays as it was."""

    TYPE: ClassVar[str] = "switchyard.policy.changed.v1"

    policy_version: Identifier
    previous_version: Identifier
    at: AwareDatetime
    added: tuple[Identifier, ...] = Field(default=(), description="rules that are new, by name")
    removed: tuple[Identifier, ...] = ()
    changed: tuple[Identifier, ...] = Field(default=(), description="rules that say something else than before")
    calendars: tuple[Identifier, ...] = Field(default=(), description="calendars that were added, removed or changed")

    @property
    def event_id(self) -> uuid.UUID:
        return derive_id("policy.changed", self.previous_version, self.policy_version, self.at.isoformat())

    @property
    def key(self) -> str:
        return "policies"

    @property
    def occurred_at(self) -> datetime:
        return self.at
