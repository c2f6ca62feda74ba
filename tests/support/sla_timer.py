"""The sla_timer under test: policies with targets of seconds, events as other services would write them."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import text

from services.sla_timer.app import build
from services.sla_timer.firing import Firing
from services.sla_timer.handlers import Handlers
from services.sla_timer.in_force import PoliciesInForce
from services.sla_timer.measures import Measures
from services.sla_timer.settings import Settings
from services.sla_timer.storage import DEADLINES
from shared import topics
from shared.cloudevents import Origin, Outgoing, Received, trace_of
from shared.database import Database
from shared.deadlines import Runner
from shared.events import (
    REGISTRY,
    ActivityKind,
    Customer,
    DecisionTrace,
    Disposition,
    Event,
    PeakEvent,
    PolicyChanged,
    SlaEvent,
    TicketActivity,
    TicketMessage,
    TicketRouted,
)
from shared.service import Service
from shared.taxonomy import Category, Channel, Language, Priority, Queue
from tests.support.brands import write_brand

POLICIES = """\
rules:
  default:
    brand: "*"
    channel: "*"
    calendar: always
    warnings: [0.5]
    targets:
      P1: {first_response: 1s, next_response: 1s, resolution: 3s}
      P2: {first_response: 30m, next_response: 30m, resolution: 2s}
      "*": {first_response: 1h, next_response: 30m, resolution: 4h}
peaks: {window_minutes: 15, least_arrivals: 10}
"""
CALENDARS = """\
calendars:
  always: {zone: UTC, week: 24/7}
"""
TOKEN = "token-" + uuid.uuid4().hex


def settings_for(directory: Path, database_url: str, **more: Any) -> Settings:
    sla, calendars = directory / "sla.yaml", directory / "calendars.yaml"
    sla.write_text(POLICIES, encoding="utf-8")
    calendars.write_text(CALENDARS, encoding="utf-8")
    return Settings(
        database_url=database_url,
        sla_timer_policies_file=sla,
        sla_timer_calendars_file=calendars,
        brands_directory=write_brand(directory / "brands"),
        sla_timer_api_token=TOKEN,
        **more,
    )


# --- events ----------------------------------------------------------------------------------------------------------


def message(
    ticket_id: uuid.UUID, sent_at: datetime, opened_at: datetime | None = None, **changes: Any
) -> TicketMessage:
    fields: dict[str, Any] = {
        "ticket_id": ticket_id,
        "brand": "upay",
        "channel": Channel.APP_CHAT,
        "message_id": uuid.uuid4().hex,
        "sequence": 1 if opened_at is None else 2,
        "disposition": Disposition.OPENED if opened_at is None else Disposition.FOLLOWED_UP,
        "customer": Customer(id="c1"),
        "text": "充值没到账",
        "sent_at": sent_at,
        "accepted_at": sent_at,
        "opened_at": opened_at or sent_at,
    }
    return TicketMessage(**fields | changes)


def routed(
    opening: TicketMessage, priority: Priority, queue: Queue = Queue.PAYMENTS, revision: int = 1, **changes: Any
) -> TicketRouted:
    fields: dict[str, Any] = {
        "ticket_id": opening.ticket_id,
        "cause_id": uuid.uuid4(),
        "revision": revision,
        "queue": queue,
        "category": Category.TOP_UP,
        "priority": priority,
        "confidence": 0.9,
        "language": Language.ZH,
        "trace": DecisionTrace(decided_by="model", model="m1"),
        "decided_at": opening.sent_at,
        "brand": opening.brand,
        "channel": opening.channel,
        "customer": opening.customer,
        "sequence": opening.sequence,
        "disposition": opening.disposition,
        "text": opening.text,
        "sent_at": opening.sent_at,
        "opened_at": opening.opened_at,
    }
    return TicketRouted(**fields | changes)


def act(ticket_id: uuid.UUID, kind: ActivityKind, at: datetime, **more: Any) -> TicketActivity:
    if kind is ActivityKind.REPLIED:
        more.setdefault("text", "已经在查了")
    return TicketActivity(ticket_id=ticket_id, activity_id=uuid.uuid4().hex, kind=kind, agent="li", at=at, **more)


def topic_of(event: Event) -> str:
    match event:
        case TicketRouted():
            return topics.queue_topic_name(event.queue)
        case TicketMessage():
            return topics.TICKETS_MESSAGES.name
        case _:
            return topics.TICKETS_ACTIVITY.name


def received(*events: Event) -> list[Received[Any]]:
    return [
        Received(event, Origin(topic_of(event), 0, index), datetime.now(UTC), trace_of(event))
        for index, event in enumerate(events)
    ]


def outgoing(*events: Event) -> list[Outgoing]:
    return [Outgoing(topic_of(event), event, trace_of(event)) for event in events]


# --- a replica without a broker --------------------------------------------------------------------------------------


@dataclass
class Replica:
    """Handlers and deadline runner on a database of their own connections; what is told stays in the outbox."""

    settings: Settings
    database: Database = field(init=False)
    handlers: Handlers = field(init=False)
    firing: Firing = field(init=False)
    in_force: PoliciesInForce = field(init=False)

    def __post_init__(self) -> None:
        self.database = Database(self.settings, service="sla_timer")
        self.in_force = PoliciesInForce(self.settings.policy_files, self.database)
        measures = Measures()
        self.handlers = Handlers(self.database, self.in_force, measures, group="test")
        self.firing = Firing(self.database, self.in_force, measures)

    async def take(self, *events: Event) -> None:
        await self.handlers.on_tickets(received(*events))

    def runner(self) -> Runner:
        return Runner(self.database, DEADLINES, self.firing.on_due, at_once=2)

    async def told(self, ticket_id: uuid.UUID | None = None) -> list[SlaEvent]:
        """What has been put into the outbox, in order."""
        events = [event for event in await self._outbox() if isinstance(event, SlaEvent)]
        return [event for event in events if ticket_id is None or event.ticket_id == ticket_id]

    async def policy_changes(self) -> list[PolicyChanged]:
        return [event for event in await self._outbox() if isinstance(event, PolicyChanged)]

    async def peaks(self) -> list[PeakEvent]:
        return [event for event in await self._outbox() if isinstance(event, PeakEvent)]

    async def _outbox(self) -> list[Event]:
        async with self.database.transaction() as connection:
            rows = await connection.execute(text("SELECT type, body FROM sla_timer.outbox ORDER BY id"))
            return [REGISTRY[row.type].model_validate_json(row.body) for row in rows]

    async def deadlines(self) -> int:
        async with self.database.transaction() as connection:
            number: int = await connection.scalar(
                text("SELECT count(*) FROM sla_timer.deadlines WHERE kind = 'clocks'")
            )
            return number


@asynccontextmanager
async def replicas(settings: Settings, number: int = 1) -> AsyncIterator[Sequence[Replica]]:
    made = [Replica(settings) for _ in range(number)]
    try:
        yield made
    finally:
        for replica in made:
            await replica.database.close()


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Service]:
    """The whole service, in this process."""
    service = build(settings)
    app = service.app()
    async with app.router.lifespan_context(app):
        yield service
