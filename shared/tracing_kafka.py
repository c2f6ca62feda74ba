"""Spans of records, as OpenTelemetry's conventions for messaging name them: `process <topic>` and `send <topic>`.

A batch has a span for each of its records, the child of what the record carries: so one trace follows a message, and
not one a batch. FastStream's own middleware makes one span a batch, and sees no record that is published unconfirmed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from shared import tracing
from shared.cloudevents import Origin, Outgoing, Received
from shared.events import Event
from shared.tracing import BRAND, CHANNEL, TICKET, Attributes, Span

_SYSTEM: Final = "kafka"


def begin_processing(good: Sequence[Received[Any]], group: str) -> tuple[list[Received[Any]], list[Span]]:
    """The same records, each with the context of its new span, and these spans. For when tracing is on."""
    spans = [
        tracing.begin(
            f"process {received.origin.topic}",
            received.traceparent,
            "consumer",
            {**_of_record(received.origin, group, len(good)), **_of_event(received.event)},
        )
        for received in good
    ]
    return [replace(received, traceparent=span.traceparent) for received, span in zip(good, spans, strict=True)], spans


def rejected(origin: Origin, group: str, traceparent: str, reason: str) -> str:
    """The span of a record that cannot be read; returns its context."""
    span = tracing.begin(f"process {origin.topic}", traceparent, "consumer", _of_record(origin, group, 1))
    span.fail(reason)
    span.end()
    return span.traceparent


def begin_sending(outgoing: Sequence[Outgoing], service: str) -> list[Span]:
    """A span for each event on its way to the broker. For when tracing is on."""
    return [
        tracing.begin(
            f"send {item.topic}",
            item.traceparent,
            "producer",
            {
                "messaging.system": _SYSTEM,
                "messaging.operation.name": "send",
                "messaging.operation.type": "send",
                "messaging.destination.name": item.topic,
                "messaging.client.id": f"switchyard-{service}",
                "messaging.message.id": str(item.event.event_id),
                **_of_event(item.event),
            },
        )
        for item in outgoing
    ]


def _of_record(origin: Origin, group: str, batch: int) -> Attributes:
    return {
        "messaging.system": _SYSTEM,
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": origin.topic,
        "messaging.destination.partition.id": str(origin.partition),
        "messaging.kafka.offset": origin.offset,
        "messaging.consumer.group.name": group,
        "switchyard.batch.records": batch,
    }


def _of_event(event: Event) -> Attributes:
    ticket_id = getattr(event, "ticket_id", None)
    return {
        TICKET: str(ticket_id) if ticket_id else None,
        BRAND: getattr(event, "brand", None),
        CHANNEL: getattr(event, "channel", None),
    }
