"""Events as other services publish them, with what a test cares about as arguments."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from shared.events import (
    ActivityKind,
    Customer,
    DecisionTrace,
    Disposition,
    SlaEvent,
    SlaKind,
    Target,
    TicketActivity,
    TicketLeft,
    TicketMessage,
    TicketRouted,
    derive_id,
)
from shared.taxonomy import Category, Channel, Language, Priority, Queue

T0 = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
CUSTOMER = Customer(id="c-1", name="李雷")


def minutes(number: float) -> timedelta:
    return timedelta(minutes=number)


def at(number: float) -> datetime:
    """`number` minutes after T0."""
    return T0 + minutes(number)


def routed(ticket_id: uuid.UUID, **changes: Any) -> TicketRouted:
    revision = changes.get("revision", 1)
    values: dict[str, Any] = {
        "ticket_id": ticket_id,
        "cause_id": derive_id("test.cause", ticket_id, revision, changes.get("sequence", 1)),
        "revision": revision,
        "queue": Queue.PAYMENTS,
        "category": Category.TOP_UP,
        "priority": Priority.P3,
        "confidence": 0.9,
        "language": Language.ZH,
        "trace": DecisionTrace(decided_by="model", model="test"),
        "decided_at": T0,
        "brand": "upay",
        "channel": Channel.APP_CHAT,
        "customer": CUSTOMER,
        "sequence": 1,
        "disposition": Disposition.OPENED,
        "text": "充值没有到账",
        "sent_at": T0,
        "opened_at": T0,
    }
    return TicketRouted.model_validate({**values, **changes})


def points_in(text: str, **parts: str) -> dict[str, Any]:
    """What `routed` is told of a message with these points: category=its words in `text`, in their order."""
    points: list[dict[str, Any]] = []
    for category, words in parts.items():
        start = text.index(words, points[-1]["end"] if points else 0)
        points.append({"category": category, "start": start, "end": start + len(words), "text": words})
    return {"text": text, "points": points}


def message(ticket_id: uuid.UUID, sequence: int, **changes: Any) -> TicketMessage:
    values: dict[str, Any] = {
        "ticket_id": ticket_id,
        "brand": "upay",
        "channel": Channel.APP_CHAT,
        "message_id": f"{ticket_id}-{sequence}",
        "sequence": sequence,
        "disposition": Disposition.OPENED if sequence == 1 else Disposition.FOLLOWED_UP,
        "customer": CUSTOMER,
        "text": f"message {sequence}",
        "sent_at": T0,
        "accepted_at": T0,
        "opened_at": T0,
    }
    return TicketMessage.model_validate({**values, **changes})


def activity(
    ticket_id: uuid.UUID, kind: ActivityKind, when: datetime, agent: str = "mei", **changes: Any
) -> TicketActivity:
    needed: dict[ActivityKind, dict[str, Any]] = {
        ActivityKind.REPLIED: {"text": "请稍等"},
        ActivityKind.CORRECTED: {"priority": Priority.P1},
        ActivityKind.RATED: {"rating": 5},
        ActivityKind.MERGED: {"merged_into": uuid.UUID(int=1)},
    }
    values: dict[str, Any] = {
        "ticket_id": ticket_id,
        "activity_id": uuid.uuid4().hex,
        "kind": kind,
        "agent": agent,
        "at": when,
        **({} if changes else needed.get(kind, {})),
    }
    return TicketActivity.model_validate({**values, **changes})


def left(ticket_id: uuid.UUID, queue: Queue, to_queue: Queue, when: datetime) -> TicketLeft:
    return TicketLeft(ticket_id=ticket_id, cause_id=uuid.uuid4(), queue=queue, to_queue=to_queue, at=when)


def clock_event(ticket_id: uuid.UUID, kind: SlaKind, step: int, **changes: Any) -> SlaEvent:
    values: dict[str, Any] = {
        "clock_id": derive_id("test.clock", ticket_id, changes.get("target", Target.FIRST_RESPONSE)),
        "ticket_id": ticket_id,
        "step": step,
        "kind": kind,
        "target": Target.FIRST_RESPONSE,
        "brand": "upay",
        "channel": Channel.APP_CHAT,
        "policy": "test",
        "target_seconds": 600,
        "started_at": T0,
        "due_at": at(10),
        "at": T0,
    }
    return SlaEvent.model_validate({**values, **changes})
