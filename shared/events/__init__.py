"""The contracts between services: one module per topic family, frozen pydantic models, versioned.

`REGISTRY` maps a CloudEvents type to its model; `shared.topics` says which types a topic carries.
"""

from __future__ import annotations

from shared.events.activity import ActivityKind, ReleaseReason, TicketActivity
from shared.events.base import Event, derive_id
from shared.events.channel import Attachment, ChannelMessage, Customer
from shared.events.dead_letters import DeadLetter, DeadLetterReason
from shared.events.notifications import NotificationKind, NotificationOutcome, NotificationStatus, Output
from shared.events.peaks import PeakEvent, PeakKind
from shared.events.queues import (
    Alternative,
    DecisionTrace,
    Facts,
    Point,
    Reason,
    TicketLeft,
    TicketRouted,
    TraceStep,
)
from shared.events.sla import SlaEvent, SlaKind, Target
from shared.events.tickets import Disposition, Redaction, TicketMessage

REGISTRY: dict[str, type[Event]] = {
    model.TYPE: model
    for model in (
        ChannelMessage,
        TicketMessage,
        TicketRouted,
        TicketLeft,
        TicketActivity,
        SlaEvent,
        PeakEvent,
        NotificationOutcome,
        DeadLetter,
    )
}

__all__ = [
    "REGISTRY",
    "ActivityKind",
    "Alternative",
    "Attachment",
    "ChannelMessage",
    "Customer",
    "DeadLetter",
    "DeadLetterReason",
    "DecisionTrace",
    "Disposition",
    "Event",
    "Facts",
    "NotificationKind",
    "NotificationOutcome",
    "NotificationStatus",
    "Output",
    "PeakEvent",
    "PeakKind",
    "Point",
    "Reason",
    "Redaction",
    "ReleaseReason",
    "SlaEvent",
    "SlaKind",
    "Target",
    "TicketActivity",
    "TicketLeft",
    "TicketMessage",
    "TicketRouted",
    "TraceStep",
    "derive_id",
]
