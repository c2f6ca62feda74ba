"""`peaks.events`: a peak of arrivals began or ended."""

from __future__ import annotations

import uuid
from datetime import datetime
from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from shared.events.base import AwareDatetime, BrandCode, Event, derive_id
from shared.taxonomy import Channel, Queue


class PeakKind(StrEnum):
    BEGAN = "began"
    ENDED = "ended"


class PeakCause(StrEnum):
    CONFIGURED = "configured"  # a window in which it is known to come
    ARRIVALS = "arrivals"  # more than is usual at this hour of the week


class PeakEvent(Event):
    """Arrivals of a brand's queue, on one channel or on all, rose above what is usual, or fell back to it."""

    TYPE: ClassVar[str] = "switchyard.peak.event.v2"

    brand: BrandCode
    queue: Queue
    channel: Channel | None = Field(default=None, description="none: of all channels together")
    kind: PeakKind
    began_at: AwareDatetime = Field(description="identifies the peak together with brand, queue and channel")
    at: AwareDatetime
    cause: PeakCause | None = Field(default=None, description="why it began")
    window_seconds: Annotated[int, Field(ge=1)] = Field(description="over which arrivals were counted")
    expected_arrivals: Annotated[float, Field(ge=0)]
    seen_arrivals: Annotated[int, Field(ge=0)]
    staff_needed: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="agents at work at once to answer what arrives now in time"
    )

    @property
    def event_id(self) -> uuid.UUID:
        place = (self.brand, self.queue) if self.channel is None else (self.brand, self.queue, self.channel)
        return derive_id("peak.event", *place, self.began_at.isoformat(), self.kind)

    @property
    def key(self) -> str:
        return f"{self.brand}/{self.queue}"

    @property
    def occurred_at(self) -> datetime:
        return self.at
