"""A service starts in any order, tells the truth about what is missing, and drains when it is stopped."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import httpx
from fastapi import FastAPI

from deploy.brokers import Broker
from deploy.processes import free_port
from shared import topics
from shared.admin import create_topics
from shared.broker import Publisher, build_broker
from shared.cloudevents import Outgoing, Received, trace_of
from shared.events import ActivityKind, TicketActivity
from shared.service import Service
from shared.settings import CommonSettings
from tests.support.surroundings import Kafka
from tests.support.waiting import eventually


def settings(bootstrap_servers: str, database_url: str, **more: Any) -> CommonSettings:
    return CommonSettings(
        kafka_bootstrap_servers=bootstrap_servers, database_url=database_url, delivery_retry_seconds=0.5, **more
    )


@asynccontextmanager
async def running(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service")
    async with app.router.lifespan_context(app), client:
        yield client


async def nothing(batch: Sequence[Received[Any]]) -> None:
    return None


async def _ready(client: httpx.AsyncClient) -> bool:
    answer = await client.get("/readyz")
    assert answer.status_code == 200, answer.text
    return True


async def test_a_service_waits_for_its_broker_and_topics_and_says_so(
    own_broker: Callable[..., Broker], database: str
) -> None:
    broker = own_broker()
    configured = settings(broker.bootstrap_servers, database)
    broker.stop()
    service = Service("desk", configured)
    service.subscribe([topics.TICKETS_ACTIVITY], nothing, description="")
    async with running(service.app()) as client:
        assert (await client.get("/livez")).status_code == 200
        answer = await client.get("/readyz")
        assert (answer.status_code, answer.json()["missing"]) == (503, {"broker": "not consuming yet"})
        broker.start()
        await create_topics(configured)
        await eventually(lambda: _ready(client), 60)


async def test_a_database_that_is_away_is_named(kafka: Kafka) -> None:
    away = f"postgresql://nobody@127.0.0.1:{free_port()}/nothing"
    service = Service("desk", settings(kafka.bootstrap_servers, away))
    async with running(service.app()) as client:
        missing = (await client.get("/readyz")).json()["missing"]
    assert set(missing) == {"database", "broker"}


async def test_metrics_ask_for_their_token(kafka: Kafka, database: str) -> None:
    service = Service("desk", settings(kafka.bootstrap_servers, database, metrics_token="long-and-random"))
    async with running(service.app()) as client:
        assert (await client.get("/metrics")).status_code == 401
        assert (await client.get("/metrics", headers={"Authorization": "Bearer wrong"})).status_code == 401
        answer = await client.get("/metrics", headers={"Authorization": "Bearer long-and-random"})
    assert answer.status_code == 200
    assert "process_cpu_seconds_total" in answer.text


async def test_a_task_that_fails_is_started_again_and_named_meanwhile(kafka: Kafka, database: str) -> None:
    begun: list[int] = []
    healthy = asyncio.Event()

    async def shaky() -> None:
        begun.append(1)
        if len(begun) < 3:
            raise ConnectionResetError
        healthy.set()
        await asyncio.Event().wait()

    service = Service("desk", settings(kafka.bootstrap_servers, database))
    service.tasks["shaky"] = shaky
    async with running(service.app()) as client:
        missing = (await client.get("/readyz")).json()["missing"]
        async with asyncio.timeout(30):
            await healthy.wait()
        await eventually(lambda: _ready(client), 60)
    assert missing["shaky"] == "ConnectionResetError"
    assert len(begun) == 3


async def test_stopping_finishes_the_batch_at_hand_and_commits_it(kafka: Kafka, database: str) -> None:
    """What was handled before the stop does not come again to the next start."""
    run = uuid.uuid4().hex
    configured = settings(kafka.bootstrap_servers, database)
    handled: list[str] = []
    at_work, go_on = asyncio.Event(), asyncio.Event()

    async def slow(batch: Sequence[Received[Any]]) -> None:
        mine = [item.event.activity_id for item in batch if item.event.activity_id.startswith(run)]
        if mine:
            at_work.set()
            await go_on.wait()
        handled.extend(mine)

    def service() -> Service:
        built = Service(f"life-{run}", configured)
        built.subscribe([topics.TICKETS_ACTIVITY], slow, description="")
        return built

    await publish(configured, run, 5)
    async with running(service().app()):
        async with asyncio.timeout(60):
            await at_work.wait()
        asyncio.get_running_loop().call_later(0.3, go_on.set)
    assert handled
    before = list(handled)
    await publish(configured, run, 1, first=5)
    async with running(service().app()):
        await eventually(lambda: _contains(handled, f"{run}-5"), 60)
    assert len(handled) == len(set(handled)) == 6
    assert handled[: len(before)] == before


async def _contains(items: list[str], wanted: str) -> bool:
    return wanted in items


async def publish(configured: CommonSettings, run: str, count: int, first: int = 0) -> None:
    broker = build_broker(configured, service="life")
    await broker.connect()
    events = [
        TicketActivity(
            ticket_id=uuid.UUID(int=1),
            activity_id=f"{run}-{number}",
            kind=ActivityKind.CLAIMED,
            agent="li.wei",
            at=datetime.now(UTC),
        )
        for number in range(first, first + count)
    ]
    try:
        await Publisher(broker, configured, service="life").publish(
            [Outgoing(topics.TICKETS_ACTIVITY.name, event, trace_of(event)) for event in events]
        )
    finally:
        await broker.stop()
