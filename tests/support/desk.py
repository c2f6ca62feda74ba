"""A desk of a test's own on the shared broker: a fresh database, a brand and tokens of its own."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from aiokafka import AIOKafkaConsumer
from fastapi import FastAPI

from services.desk.app import build
from services.desk.settings import Settings
from shared import topics
from shared.broker import Publisher, build_broker
from shared.cloudevents import Outgoing, trace_of
from shared.events import ActivityKind, Event, TicketActivity, TicketRouted
from shared.http import token_hash
from shared.taxonomy import Queue
from tests.support.surroundings import Kafka
from tests.support.waiting import eventually
from tests.unit.desk.samples import routed

MEI, TOM, BOSS, WALL, PAY, ELSE = (f"token-of-{name}-{uuid.uuid4().hex}" for name in ("m", "t", "b", "w", "p", "e"))


@dataclass
class World:
    """The desk, and a hand on every topic it hears. All tickets are of one brand of this world's own."""

    app: FastAPI
    client: httpx.AsyncClient
    publisher: Publisher
    bootstrap_servers: str
    database_url: str
    brand: str

    async def publish(self, *events: Event) -> None:
        by_type = {model: topic.name for topic in topics.ALL for model in topic.carries if topic not in topics.QUEUES}
        await self.publisher.publish(
            [
                Outgoing(
                    topics.queue_topic_name(event.queue) if isinstance(event, TicketRouted) else by_type[type(event)],
                    event,
                    trace_of(event),
                )
                for event in events
            ]
        )

    def ticket(self, **changes: Any) -> TicketRouted:
        return routed(uuid.uuid4(), brand=self.brand, **changes)

    async def waiting(self, *tickets: TicketRouted) -> None:
        """Publish these routings and wait until the desk shows them."""
        await self.publish(*tickets)
        for ticket in tickets:
            await eventually(lambda ticket=ticket: self._routed(ticket))  # type: ignore[misc]

    async def _routed(self, ticket: TicketRouted) -> bool:
        answer = await self.get(f"/v1/tickets/{ticket.ticket_id}")
        return answer.status_code == 200 and (answer.json()["decision"] or {}).get("revision") == ticket.revision

    async def get(self, path: str, token: str = BOSS) -> httpx.Response:
        return await self.client.get(path, headers={"Authorization": f"Bearer {token}"})

    async def post(
        self, path: str, token: str = MEI, *, body: dict[str, Any] | None = None, key: str | None = None
    ) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}", **({"Idempotency-Key": key} if key else {})}
        return await self.client.post(path, json=body, headers=headers)

    async def tick(self, ticket_id: uuid.UUID, point_id: str, token: str = MEI, *, done: Any = True) -> httpx.Response:
        path = f"/v1/tickets/{ticket_id}/points/{point_id}"
        return await self.client.put(path, json={"done": done}, headers={"Authorization": f"Bearer {token}"})

    async def claim(self, token: str = MEI, queue: Queue = Queue.PAYMENTS, **options: Any) -> Any:
        answer = await self.post(f"/v1/queues/{queue}/claim", token, **options)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def ticket_now(self, ticket_id: uuid.UUID) -> Any:
        return (await self.get(f"/v1/tickets/{ticket_id}")).json()

    async def comes_to(self, ticket_id: uuid.UUID, state: str) -> None:
        async def there() -> bool:
            return bool((await self.ticket_now(ticket_id)).get("state") == state)

        await eventually(there)

    async def heard(self, ticket_id: uuid.UUID, kind: str) -> None:
        async def there() -> bool:
            return kind in [item["kind"] for item in (await self.ticket_now(ticket_id))["history"]]

        await eventually(there)

    async def activities(self, ticket_id: uuid.UUID, kinds: Sequence[ActivityKind]) -> list[TicketActivity]:
        """What `tickets.activity` holds of the ticket, once it holds as many as `kinds`; their kinds are checked."""
        consumer = AIOKafkaConsumer(
            topics.TICKETS_ACTIVITY.name,
            bootstrap_servers=self.bootstrap_servers,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )
        found: list[TicketActivity] = []

        async def complete() -> bool:
            batches = await consumer.getmany(timeout_ms=200)
            found.extend(
                TicketActivity.model_validate_json(record.value)
                for records in batches.values()
                for record in records
                if record.key == str(ticket_id).encode()
            )
            return len(found) >= len(kinds)

        await consumer.start()
        try:
            await eventually(complete)
        finally:
            await consumer.stop()
        assert [item.kind for item in found] == list(kinds)
        return found


def agents_file(directory: Path, brand: str) -> Path:
    def entry(agent: str, token: str, role: str, *, queues: str = "all", brands: str = "", more: str = "") -> str:
        return (
            f"  - {{id: {agent}, role: {role}, token_sha256: {token_hash(token)}, queues: {queues}, "
            f"brands: {brands or f'[{brand}]'}{more}}}\n"
        )

    path = directory / "agents.yaml"
    path.write_text(
        "agents:\n"
        + entry("mei", MEI, "agent", more=', name: "<b>Mei</b>", group: wallets')
        + entry("tom", TOM, "agent")
        + entry("boss", BOSS, "lead")
        + entry("wall", WALL, "viewer")
        + entry("pay", PAY, "agent", queues="[payments]")
        + entry("else", ELSE, "agent", brands="[another_brand]")
    )
    return path


@asynccontextmanager
async def running_desk(kafka: Kafka, database_url: str, directory: Path, **changes: Any) -> AsyncIterator[World]:
    """The desk, consuming; `changes` are its settings."""
    brand = f"b_{uuid.uuid4().hex[:12]}"
    settings = Settings(
        **{
            "kafka_bootstrap_servers": kafka.bootstrap_servers,
            "database_url": database_url,
            "desk_agents_file": agents_file(directory, brand),
            "desk_requests_per_second": 10_000,
            "desk_requests_burst": 10_000,
            "desk_refresh_seconds": 0.05,
            **changes,
        }
    )
    app = build(settings).app()
    sender = build_broker(settings, service="test")
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://desk") as client,
        sender,
    ):

        async def ready() -> bool:
            return (await client.get("/readyz")).status_code == 200

        await eventually(ready, timeout_seconds=60)
        await sender.start()
        yield World(
            app, client, Publisher(sender, settings, service="test"), kafka.bootstrap_servers, database_url, brand
        )


@dataclass
class Site:
    """The desk on a port, whose HTTP server can be stopped and started while the service runs on."""

    world: World
    port: int
    server: uvicorn.Server | None = None
    _serving: asyncio.Task[None] | None = field(default=None)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    async def start(self) -> None:
        config = uvicorn.Config(
            self.world.app,
            host="127.0.0.1",
            port=self.port,
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=1,  # streams never end by themselves
        )
        self.server = uvicorn.Server(config)
        self._serving = asyncio.create_task(self.server.serve())

    async def stop(self) -> None:
        assert self.server is not None
        assert self._serving is not None
        self.server.should_exit = True
        await self._serving
