"""The contracts between services: one module per topic family, frozen pydantic models, versioned.

`REGISTRY` maps a CloudEvents type to its model; `shared.topics` says which types a topic carries.
"""

from __future__ import annotations

from shared.events.activity import ActivityKind, ReleaseReason, TicketActivity
from shared.events.base import Event, derive_id
from shared.events.channel import Attachment, ChannelMessage, Contact, Customer
from shared.events.dead_letters import DeadLetter, DeadLetterAction, DeadLetterHandled, DeadLetterReason
from shared.events.earlier import EARLIER
from shared.events.notifications import NotificationKind, NotificationOutcome, NotificationStatus, Output
from shared.events.peaks import PeakCause, PeakEvent, PeakKind
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
from shared.events.sla import EscalationLevel, PolicyChanged, SlaEvent, SlaKind, Target
from shared.events.tickets import Disposition, Redaction, TicketMessage

_MODELS: tuple[type[Event], ...] = (
    ChannelMessage,
    TicketMessage,
    TicketRouted,
    TicketLeft,
    TicketActivity,
    SlaEvent,
    PolicyChanged,
    PeakEvent,
    NotificationOutcome,
    DeadLetter,
    DeadLetterHandled,
    *(model for models in EARLIER.values() for model in models),
)
REGISTRY: dict[str, type[Event]] = {model.TYPE: model for model in _MODELS}

__all__ = [
    "EARLIER",
    "REGISTRY",
    "ActivityKind",
    "Alternative",
    "Attachment",
    "ChannelMessage",
    "Contact",
    "Customer",
    "DeadLetter",
    "DeadLetterAction",
    "DeadLetterHandled",
    "DeadLetterReason",
    "DecisionTrace",
    "Disposition",
    "EscalationLevel",
    "Event",
    "Facts",
    "NotificationKind",
    "NotificationOutcome",
    "NotificationStatus",
    "Output",
    "PeakCause",
    "PeakEvent",
    "PeakKind",
    "Point",
    "PolicyChanged",
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
