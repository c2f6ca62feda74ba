"""`dead.letters`: what could not be processed, with all it takes to replay it, and what operators did about it."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
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


class DeadLetterAction(StrEnum):
    REPLAYED = "replayed"  # its record was published once more to the topic it had come from
    DISCARDED = "discarded"  # nothing is to be done about it; `why` says for what reason


class DeadLetterHandled(Event):
    """What an operator did about a dead letter: from then on it is open no more.

    It stands on `dead.letters` behind its letter, so that who reads the topic knows both, and no database is needed.
    """

    TYPE: ClassVar[str] = "switchyard.dead.letter.handled.v1"

    letter_id: uuid.UUID = Field(description="event id of the dead letter")
    letter_key: str = Field(description="key of the dead letter, which is this event's too: they are kept in order")
    action: DeadLetterAction
    by: Identifier = Field(description="who did it")
    why: str
    edited: bool = Field(default=False, description="whether another value than the kept one was published")
    at: AwareDatetime

    @property
    def event_id(self) -> uuid.UUID:
        return derive_id("dead.letter.handled", self.letter_id, self.action, self.at.astimezone(UTC).isoformat())

    @property
    def key(self) -> str:
        return self.letter_key

    @property
    def occurred_at(self) -> datetime:
        return self.at
