"""The whole sla_timer between a real broker and PostgreSQL: two replicas, events in, `sla.events` out."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer

from shared import topics
from shared.broker import Publisher, build_broker
from shared.cloudevents import decode, header_map
from shared.events import ActivityKind, Event, SlaEvent, SlaKind, Target
from shared.taxonomy import Priority
from tests.support.sla_timer import act, message, outgoing, routed, running, settings_for
from tests.support.surroundings import Kafka
from tests.support.waiting import eventually

FIRST, NEXT, RESOLUTION = Target.FIRST_RESPONSE, Target.NEXT_RESPONSE, Target.RESOLUTION


@dataclass
class World:
    """Two running replicas, and everything that was published on `sla.events` since."""

    publisher: Publisher
    told: list[SlaEvent] = field(default_factory=list)
    keys: dict[uuid.UUID, tuple[str, str]] = field(default_factory=dict)

    async def publish(self, *events: Event) -> None:
        await self.publisher.publish(outgoing(*events))

    def kinds(self, ticket_id: uuid.UUID, target: Target) -> list[SlaKind]:
        return [event.kind for event in self.told if (event.ticket_id, event.target) == (ticket_id, target)]

    async def eventually_told(self, ticket_id: uuid.UUID, target: Target, *expected: SlaKind) -> None:
        async def told() -> bool:
            assert self.kinds(ticket_id, target) == list(expected)
            return True

        await eventually(told)


@pytest.fixture(scope="module")
async def world(kafka: Kafka, database: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    directory: Path = tmp_path_factory.mktemp("sla_timer")
    settings = settings_for(
        directory, database, kafka_bootstrap_servers=kafka.bootstrap_servers, kafka_idempotence=kafka.is_real
    )
    async with AsyncExitStack() as stack:
        services = [await stack.enter_async_context(running(settings)) for _ in range(2)]
        broker = build_broker(settings, service="test")
        await broker.start()
        stack.push_async_callback(broker.stop)
        world = World(Publisher(broker, settings, service="test"))
        consumer = AIOKafkaConsumer(
            topics.SLA_EVENTS.name,
            bootstrap_servers=kafka.bootstrap_servers,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )
        await consumer.start()
        stack.push_async_callback(consumer.stop)

        async def listen() -> None:
            async for record in consumer:
                event = decode(record, topics.SLA_EVENTS.carries).event
                if not isinstance(event, SlaEvent):  # that policies changed is told here, too
                    continue
                world.told.append(event)
                world.keys[event.event_id] = (record.key.decode(), header_map(record)["ce_id"])

        listening = asyncio.create_task(listen())
        stack.callback(listening.cancel)

        async def ready() -> bool:
            assert [await service.not_ready() for service in services] == [{}, {}]
            return True

        await eventually(ready, timeout_seconds=60)
        yield world


async def test_a_ticket_from_opening_to_resolution(world: World) -> None:
    ticket = uuid.uuid4()
    opening = message(ticket, datetime.now(UTC))
    await world.publish(opening, routed(opening, Priority.P3))
    await world.eventually_told(ticket, FIRST, SlaKind.STARTED)
    await world.publish(act(ticket, ActivityKind.REPLIED, datetime.now(UTC)))
    await world.eventually_told(ticket, FIRST, SlaKind.STARTED, SlaKind.MET)
    await world.publish(act(ticket, ActivityKind.WAITING_ON_CUSTOMER, datetime.now(UTC)))
    await world.eventually_told(ticket, RESOLUTION, SlaKind.STARTED, SlaKind.PAUSED)
    await world.publish(message(ticket, datetime.now(UTC), opening.opened_at))
    await world.eventually_told(ticket, RESOLUTION, SlaKind.STARTED, SlaKind.PAUSED, SlaKind.RESUMED)
    await world.eventually_told(ticket, NEXT, SlaKind.STARTED)
    await world.publish(act(ticket, ActivityKind.RESOLVED, datetime.now(UTC)))
    await world.eventually_told(ticket, NEXT, SlaKind.STARTED, SlaKind.CANCELLED)
    await world.eventually_told(ticket, RESOLUTION, SlaKind.STARTED, SlaKind.PAUSED, SlaKind.RESUMED, SlaKind.MET)


async def test_promises_of_a_second_warn_and_breach_once_and_in_order(world: World) -> None:
    openings = [message(uuid.uuid4(), datetime.now(UTC)) for _ in range(40)]
    await world.publish(*openings, *(routed(opening, Priority.P1) for opening in openings))
    tickets = {opening.ticket_id for opening in openings}

    async def all_breached() -> bool:
        breached = [event for event in world.told if event.ticket_id in tickets and event.kind is SlaKind.BREACHED]
        return len(breached) == 2 * len(tickets)

    await eventually(all_breached)
    told = [event for event in world.told if event.ticket_id in tickets]
    assert set(Counter(event.event_id for event in told).values()) == {1}
    for ticket in tickets:
        for target in (FIRST, RESOLUTION):
            events = [event for event in told if (event.ticket_id, event.target) == (ticket, target)]
            assert [event.step for event in events] == list(range(1, len(events) + 1))
            assert [event.kind for event in events if event.kind is not SlaKind.REPLANNED] == [
                SlaKind.STARTED,
                SlaKind.WARNING,
                SlaKind.BREACHED,
            ]
            assert events[-1].at == events[-1].started_at + timedelta(seconds=events[-1].target_seconds)
    assert all(world.keys[event.event_id] == (str(event.ticket_id), str(event.event_id)) for event in told)


async def test_redelivered_records_tell_nothing_again(world: World) -> None:
    ticket, marker = uuid.uuid4(), uuid.uuid4()
    opening = message(ticket, datetime.now(UTC))
    story = [opening, routed(opening, Priority.P3), act(ticket, ActivityKind.RESOLVED, datetime.now(UTC))]
    await world.publish(*story)
    await world.eventually_told(ticket, RESOLUTION, SlaKind.STARTED, SlaKind.MET)
    before = [event for event in world.told if event.ticket_id == ticket]
    await world.publish(*story)
    # Another ticket after it on every partition would do; the same ticket's reopening certainly comes after it.
    await world.publish(act(ticket, ActivityKind.REOPENED, datetime.now(UTC)), message(marker, datetime.now(UTC)))
    await world.eventually_told(marker, FIRST, SlaKind.STARTED)
    await world.eventually_told(ticket, RESOLUTION, SlaKind.STARTED, SlaKind.MET, SlaKind.STARTED)
    after = [event for event in world.told if event.ticket_id == ticket]
    assert after[: len(before)] == before
    assert [event.kind for event in after[len(before) :]] == [SlaKind.STARTED]
