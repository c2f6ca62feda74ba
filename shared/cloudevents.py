"""Events as Kafka records: CloudEvents 1.0 in binary mode (`ce_` headers, JSON body) with W3C trace context.

A record without `ce_type` is read as the event that its topic carries, if it carries just one: a channel may publish
bare JSON.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Generic, Protocol, TypeVar

from pydantic import ValidationError

from shared.events import EARLIER, REGISTRY, Event
from shared.events.dead_letters import DeadLetterReason
from shared.trace_context import derived, is_valid

MAX_ERRORS_NAMED: Final = 10

E = TypeVar("E", bound=Event)


class InvalidRecord(Exception):
    """A record that can never be processed, however often it is tried."""

    def __init__(self, reason: DeadLetterReason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class Record(Protocol):
    """What we read of aiokafka's ConsumerRecord."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a record was read: the same after a redelivery, another for a duplicate that was published again."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]@{self.offset}"


@dataclass(frozen=True, slots=True)
class Received(Generic[E]):
    """An event and the record that brought it. `traceparent` is the record's own, or derived from the event."""

    event: E
    origin: Origin
    recorded_at: datetime
    traceparent: str


@dataclass(frozen=True, slots=True)
class Outgoing:
    """An event on its way to `topic`. `traceparent` of the cause, so that one trace follows a message to its
    delivery.
    """

    topic: str
    event: Event
    traceparent: str

    @property
    def key(self) -> str:
        return self.event.key

    def headers(self, source: str) -> dict[str, str]:
        event = self.event
        return {
            "ce_specversion": "1.0",
            "ce_id": str(event.event_id),
            "ce_source": f"switchyard/{source}",
            "ce_type": event.TYPE,
            "ce_time": event.occurred_at.astimezone(UTC).isoformat(),
            "ce_subject": event.key,
            "content-type": "application/json",
            "traceparent": self.traceparent,
        }

    def body(self) -> bytes:
        return self.event.model_dump_json().encode()


def trace_of(event: Event) -> str:
    """A trace context for an event that came without one; the same each time it comes."""
    return derived(event.event_id)


def given_trace(traceparent: str, event: Event) -> str:
    """The trace context that a producer sent along, or one for the event where it sent none that is valid."""
    return traceparent if is_valid(traceparent) else trace_of(event)


def describe(error: ValidationError) -> str:
    """Each wrong field and what is wrong with it, without the values: they may be secrets."""
    named = [
        f"{'.'.join(map(str, item['loc'])) or 'body'}: {item['msg']}"
        for item in error.errors(include_url=False, include_context=False, include_input=False)
    ]
    more = len(named) - MAX_ERRORS_NAMED
    return "; ".join(named[:MAX_ERRORS_NAMED]) + (f"; and {more} more" if more > 0 else "")


def header_map(record: Record) -> dict[str, str]:
    """Headers as text. A header that is not UTF-8 is kept readable instead of failing the whole batch."""
    return {name: _text(value) or "" for name, value in record.headers}


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "backslashreplace")


def decode(record: Record, carries: Sequence[type[Event]]) -> Received[Any]:
    """The event in a record of a topic that carries these types, or an earlier version of one. Raises InvalidRecord."""
    headers = dict(record.headers)
    model = _model_of(_text(headers.get("ce_type")), carries, record.topic)
    if not record.value:
        raise InvalidRecord(DeadLetterReason.MALFORMED, "the record has no body; send the event as a JSON object")
    try:
        event = model.model_validate_json(record.value).upgraded()
    except ValidationError as error:
        # pydantic reports JSON that does not parse under this one type
        malformed = any(item["type"] == "json_invalid" for item in error.errors(include_input=False, include_url=False))
        reason = DeadLetterReason.MALFORMED if malformed else DeadLetterReason.INVALID
        raise InvalidRecord(reason, f"{model.TYPE}: {describe(error)}") from None
    return Received(
        event=event,
        origin=Origin(record.topic, record.partition, record.offset),
        recorded_at=datetime.fromtimestamp(record.timestamp / 1000, UTC),
        traceparent=given_trace(_text(headers.get("traceparent")) or "", event),
    )


def _model_of(named: str | None, carries: Sequence[type[Event]], topic: str) -> type[Event]:
    if named is None and len(carries) == 1:
        return carries[0]
    for current in carries:
        for model in (current, *EARLIER.get(current, ())):
            if named == model.TYPE:
                return model
    expected = " or ".join(model.TYPE for model in carries)
    if named is None:
        raise InvalidRecord(
            DeadLetterReason.UNKNOWN_TYPE,
            f"{topic} carries several types: set the header ce_type to {expected}",
        )
    known = "known elsewhere, but not on this topic" if named in REGISTRY else "unknown here"
    raise InvalidRecord(DeadLetterReason.UNKNOWN_TYPE, f"ce_type {named!r} is {known}; {topic} carries {expected}")
