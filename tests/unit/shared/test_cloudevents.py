"""Reading records: which type they are, what is wrong with them, said without their values."""

from __future__ import annotations

import json
from typing import Any

import pytest
from aiokafka import ConsumerRecord

from shared import topics
from shared.cloudevents import InvalidRecord, Origin, Outgoing, decode, trace_of
from shared.events import ChannelMessage, DeadLetterReason, TicketLeft, TicketRouted
from shared.events.base import derive_id
from tests.contract.snapshots import GOLDEN

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def golden(model: type[Any]) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((GOLDEN / f"{model.TYPE}.json").read_text("utf-8"))["data"]
    return data


def record(value: Any, headers: dict[str, bytes] | None = None, topic: str = "t") -> ConsumerRecord[Any, Any]:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return ConsumerRecord(topic, 2, 7, 1_795_000_000_000, 0, b"key", body, None, 0, 0, tuple((headers or {}).items()))


def test_a_record_without_headers_is_what_its_topic_carries() -> None:
    received = decode(record(golden(ChannelMessage)), (ChannelMessage,))
    assert isinstance(received.event, ChannelMessage)
    assert received.origin == Origin("t", 2, 7)
    assert received.traceparent == trace_of(received.event)


def test_the_type_decides_where_a_topic_carries_several() -> None:
    headers = {"ce_type": TicketLeft.TYPE.encode(), "traceparent": TRACE.encode()}
    received = decode(record(golden(TicketLeft), headers), (TicketRouted, TicketLeft))
    assert isinstance(received.event, TicketLeft)
    assert received.traceparent == TRACE


@pytest.mark.parametrize(
    ("value", "headers", "carries", "reason", "says"),
    [
        (b"", {}, (ChannelMessage,), DeadLetterReason.MALFORMED, "no body"),
        (b"{", {}, (ChannelMessage,), DeadLetterReason.MALFORMED, "JSON"),
        (b"\xff", {}, (ChannelMessage,), DeadLetterReason.MALFORMED, ""),
        (b"[]", {}, (ChannelMessage,), DeadLetterReason.INVALID, "body"),
        ({"brand": "4111 1111"}, {}, (ChannelMessage,), DeadLetterReason.INVALID, "message_id: Field required"),
        ({}, {}, (TicketRouted, TicketLeft), DeadLetterReason.UNKNOWN_TYPE, "set the header ce_type"),
        ({}, {"ce_type": b"x"}, (ChannelMessage,), DeadLetterReason.UNKNOWN_TYPE, "unknown here"),
        ({}, {"ce_type": b"\xff"}, (ChannelMessage,), DeadLetterReason.UNKNOWN_TYPE, "unknown here"),
        (
            {},
            {"ce_type": TicketLeft.TYPE.encode()},
            (ChannelMessage,),
            DeadLetterReason.UNKNOWN_TYPE,
            "not on this topic",
        ),
    ],
)
def test_what_cannot_be_read_says_why(
    value: Any, headers: dict[str, bytes], carries: tuple[type[Any], ...], reason: DeadLetterReason, says: str
) -> None:
    with pytest.raises(InvalidRecord) as raised:
        decode(record(value, headers), carries)
    assert raised.value.reason is reason
    assert says in raised.value.detail
    assert "4111" not in raised.value.detail


def test_many_errors_are_named_up_to_a_limit() -> None:
    message = golden(ChannelMessage) | {"attachments": [{"name": number} for number in range(30)]}
    with pytest.raises(InvalidRecord, match="and 20 more"):
        decode(record(message), (ChannelMessage,))


@pytest.mark.parametrize("given", [b"", b"junk", b"00-xyz-1-01", TRACE.upper().encode()])
def test_a_trace_context_that_is_none_is_replaced_by_a_derived_one(given: bytes) -> None:
    received = decode(record(golden(ChannelMessage), {"traceparent": given}), (ChannelMessage,))
    assert received.traceparent == trace_of(received.event)
    assert received.traceparent.startswith(f"00-{received.event.event_id.hex}-")


def test_what_is_sent_is_read_back_the_same() -> None:
    event = ChannelMessage.model_validate(golden(ChannelMessage))
    outgoing = Outgoing(topics.CHANNEL_MESSAGES.name, event, TRACE)
    headers = {name: value.encode() for name, value in outgoing.headers("test").items()}
    received = decode(record(outgoing.body(), headers), (ChannelMessage,))
    assert received.event == event
    assert received.traceparent == TRACE
    assert headers["ce_id"].decode() == str(event.event_id)


def test_ids_differ_when_causes_differ_however_they_are_cut() -> None:
    assert derive_id("s", "ab", "c") != derive_id("s", "a", "bc")
    assert derive_id("s", "a") != derive_id("t", "a")
    assert derive_id("s", "a") == derive_id("s", "a")
