"""`dead.letters`: what could not be processed, with all it takes to replay it."""

from __future__ import annotations

import uuid
from datetime import datetime
from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from shared.events.base import AwareDatetime, Event, Identifier, derive_id


class DeadLetterReason(StrEnum):
    MALFORMED = "malformed"  # not JSON, not UTF-8
    INVALID = "invalid"  # breaks the contract; `detail` names the fields
    UNKNOWN_TYPE = "unknown_type"  # a CloudEvents type that this topic does not carry
    REFUSED = "refused"  # valid by itself, but the service cannot accept it; `detail` says why
    HANDLER_FAILED = "handler_failed"  # the handler failed on this record alone, repeatedly


class DeadLetter(Event):
    """A record that was taken off its topic. Secrets are cut from `value`, so that it may be looked at and replayed."""

    TYPE: ClassVar[str] = "switchyard.dead.letter.v1"

    service: Identifier
    group: Identifier
    reason: DeadLetterReason
    detail: str
    topic: Identifier
    partition: Annotated[int, Field(ge=0)]
    offset: Annotated[int, Field(ge=0)]
    record_key: str | None = None
    headers: dict[str, str] = Field(default_factory=dict)
    value: str = Field(
        description="the record's body as text (bytes that are not UTF-8 are written \\xNN), secrets cut"
    )
    recorded_at: AwareDatetime = Field(description="the record's own timestamp")
    failed_at: AwareDatetime
    traceback: str | None = Field(default=None, description="head of it, without values")

    @property
    def event_id(self) -> uuid.UUID:
        return derive_id("dead.letter", self.group, self.topic, self.partition, self.offset)

    @property
    def key(self) -> str:
        return self.record_key or f"{self.topic}/{self.partition}"

    @property
    def occurred_at(self) -> datetime:
        return self.failed_at
