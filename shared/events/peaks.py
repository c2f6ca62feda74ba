"""`peaks.events`: a peak of arrivals began or ended."""

from __future__ import annotations

import uuid
from datetime import datetime
from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from shared.events.base import AwareDatetime, BrandCode, Event, derive_id
from shared.taxonomy import Queue


class PeakKind(StrEnum):
    BEGAN = "began"
    ENDED = "ended"


class PeakEvent(Event):
    """Arrivals of a brand's queue rose above (or fell back to) what its staff can answer in time."""

    TYPE: ClassVar[str] = "switchyard.peak.event.v1"

    brand: BrandCode
    queue: Queue
    kind: PeakKind
    began_at: AwareDatetime = Field(description="identifies the peak together with brand and queue")
    at: AwareDatetime
    window_seconds: Annotated[int, Field(ge=1)] = Field(description="over which arrivals were counted")
    expected_arrivals: Annotated[float, Field(ge=0)]
    seen_arrivals: Annotated[int, Field(ge=0)]
    staff_needed: Annotated[int, Field(ge=0)] | None = None

    @property
    def event_id(self) -> uuid.UUID:
        return derive_id("peak.event", self.brand, self.queue, self.began_at.isoformat(), self.kind)

    @property
    def key(self) -> str:
        return f"{self.brand}/{self.queue}"

    @property
    def occurred_at(self) -> datetime:
        return self.at
