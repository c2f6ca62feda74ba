"""Events and files that the notifier's tests share. Every argument replaces one field."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from services.notifier.config import load_outputs, load_texts
from services.notifier.domain.outputs import Outputs
from shared.brands import BRANDS_DIRECTORY
from shared.events import (
    Customer,
    DecisionTrace,
    Disposition,
    EscalationLevel,
    SlaEvent,
    SlaKind,
    Target,
    TicketRouted,
)
from shared.taxonomy import CATEGORIES, Category, Channel, Language, Priority, Queue

CONFIG_FILE = Path(__file__).parents[3] / "deploy" / "config" / "notifications.yaml"
KEY = "c3dpdGNoeWFyZC1ub3RpZmllci10ZXN0LWtleQ=="
ENVIRONMENT = {
    "NOTIFIER_GATEWAY_URL": "https://gateway.example",
    "NOTIFIER_GATEWAY_SECRET": KEY,
    "NOTIFIER_LEADS_URL": "https://leads.example/hook",
    "NOTIFIER_LEADS_SECRET": f"whsec_{KEY}",
}
TEXTS = load_texts()
OUTPUTS = load_outputs(CONFIG_FILE, BRANDS_DIRECTORY, ENVIRONMENT)
NOW = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def routed_event(**changes: Any) -> TicketRouted:
    category = changes.get("category", Category.TOP_UP)
    fields: dict[str, Any] = {
        "ticket_id": uuid.UUID("1a2b3c4d-0000-5000-8000-000000000001"),
        "cause_id": uuid.UUID(int=7),
        "revision": 1,
        "queue": CATEGORIES[category].queue,
        "category": category,
        "priority": CATEGORIES[category].priority,
        "confidence": 0.9,
        "language": Language.ZH,
        "trace": DecisionTrace(decided_by="model", model="test"),
        "decided_at": NOW,
        "brand": "upay",
        "channel": Channel.APP_CHAT,
        "customer": Customer(id="customer-1"),
        "sequence": 1,
        "disposition": Disposition.OPENED,
        "text": "…",
        "sent_at": NOW,
        "opened_at": NOW,
    }
    return TicketRouted(**(fields | changes))


def outputs_with(people: dict[str, dict[str, tuple[str, ...]]]) -> Outputs:
    """The committed outputs, with other `leads`, `heads` or `on_call` of brand upay."""
    brand = OUTPUTS.brand("upay").model_copy(update=people)
    return OUTPUTS.model_copy(update={"brands": {**OUTPUTS.brands, "upay": brand}})


def escalation_event(level: EscalationLevel, **changes: Any) -> SlaEvent:
    """Of a promise of 10 minutes, 75 minutes of business time after it began."""
    fields: dict[str, Any] = {"kind": SlaKind.ESCALATED, "step": 4, "escalation": level, "business_seconds": 4500}
    return sla_event(**(fields | changes))


def sla_event(**changes: Any) -> SlaEvent:
    fields: dict[str, Any] = {
        "clock_id": uuid.UUID(int=1),
        "ticket_id": uuid.UUID("1a2b3c4d-0000-5000-8000-000000000001"),
        "step": 2,
        "kind": SlaKind.BREACHED,
        "target": Target.FIRST_RESPONSE,
        "brand": "upay",
        "channel": Channel.APP_CHAT,
        "queue": Queue.PAYMENTS,
        "priority": Priority.P2,
        "policy": "default",
        "target_seconds": 600,
        "started_at": NOW - timedelta(minutes=10),
        "due_at": NOW,
        "at": NOW,
    }
    return SlaEvent(**(fields | changes))
