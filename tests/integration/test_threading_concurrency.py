"""Three intake processes on one Kafka, and customers who write in bursts: exactly one ticket per burst."""

from __future__ import annotations

import asyncio
import os
import random
import sys
import uuid
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Final

import httpx
import pytest
from aiokafka import AIOKafkaProducer

from deploy.audit import read_all
from deploy.processes import HOST, Program, free_port
from services.intake.domain import conversation_id_of
from shared import topics
from shared.events import ChannelMessage, Customer, TicketMessage
from shared.taxonomy import Channel
from tests.support.surroundings import Kafka
from tests.support.waiting import eventually
from tests.unit.intake.samples import T0

PROCESSES: Final = 3
PRODUCERS: Final = 3
CUSTOMERS: Final = 1_000
REPOSITORY: Final = Path(__file__).parents[2]


def bursts(brand: str, chosen: random.Random) -> list[ChannelMessage]:
    """Each customer's: two to six messages within milliseconds."""
    return [
        ChannelMessage(
            brand=brand,
            channel=Channel.APP_CHAT,
            message_id=f"{customer}-{number}",
            customer=Customer(id=f"c-{customer}"),
            text=f"充值没到账 {number}",
            sent_at=T0 + timedelta(seconds=customer, milliseconds=chosen.randrange(20)),
        )
        for customer in range(CUSTOMERS)
        for number in range(chosen.randint(2, 6))
    ]


@contextmanager
def intake_processes(kafka: Kafka, database_url: str, directory: Path) -> Iterator[list[str]]:
    """Their URLs. Each is ready, so each has its part of the partitions."""
    programs: list[Program] = []
    urls: list[str] = []
    try:
        for number in range(PROCESSES):
            port = free_port()
            program = Program(f"intake-{number}", directory / f"intake-{number}", stop_timeout_seconds=40)
            program.start(
                [sys.executable, "-m", "services.intake"],
                environment={
                    **os.environ,
                    "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
                    "DATABASE_URL": database_url,
                    "HTTP_HOST": HOST,
                    "HTTP_PORT": str(port),
                },
                working_directory=REPOSITORY,
            )
            programs.append(program)
            urls.append(f"http://{HOST}:{port}")
        for program, url in zip(programs, urls, strict=True):
            program.wait_until(partial(_is_ready, url), 90)
        yield urls
    finally:
        for program in programs:
            program.stop()


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=5, trust_env=False).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


async def send(kafka: Kafka, deliveries: list[ChannelMessage], chosen: random.Random) -> None:
    """From several producers at once; without a key half of the time: one customer's lie in several partitions then."""
    bodies = {item.message_id: item.model_dump_json().encode() for item in deliveries}
    keyed = [(bodies[item.message_id], item.key.encode() if chosen.random() < 0.5 else None) for item in deliveries]

    async def produce(part: list[tuple[bytes, bytes | None]]) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers, acks="all", linger_ms=5)
        await producer.start()
        try:
            topic = topics.CHANNEL_MESSAGES.name
            futures = [await producer.send(topic, body, key=key) for body, key in part]
            await asyncio.gather(*futures)
        finally:
            await producer.stop()

    await asyncio.gather(*(produce(keyed[number::PRODUCERS]) for number in range(PRODUCERS)))


async def taken(url: str) -> float:
    """Records of `channel.messages` that this process has consumed."""
    async with httpx.AsyncClient(trust_env=False) as client:
        lines = (await client.get(f"{url}/metrics")).text.splitlines()
    prefix = 'switchyard_records_consumed_total{group="intake.channel.messages"'
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(prefix))


@pytest.mark.timeout(180)
async def test_each_burst_is_one_ticket_whichever_process_takes_it(
    kafka: Kafka, new_database: Callable[[], Awaitable[str]], run_directory: Path
) -> None:
    chosen = random.Random(20260302)
    brand = f"b_{uuid.uuid4().hex[:12]}"
    messages = bursts(brand, chosen)
    deliveries = [message for message in messages for _ in range(chosen.randint(1, 5))]
    chosen.shuffle(deliveries)
    with intake_processes(kafka, await new_database(), run_directory / brand) as urls:
        await send(kafka, deliveries, chosen)

        async def all_taken() -> bool:
            return sum([await taken(url) for url in urls]) >= len(deliveries)

        await eventually(all_taken, 90, 0.2)
        shares = [await taken(url) for url in urls]
    records = (await read_all(kafka.settings, [topics.TICKETS_MESSAGES.name]))[topics.TICKETS_MESSAGES.name]
    told: dict[str, set[bytes]] = defaultdict(set)
    tickets: dict[uuid.UUID, set[uuid.UUID]] = defaultdict(set)
    sequences: dict[uuid.UUID, set[int]] = defaultdict(set)
    conversation_of = {message.message_id: conversation_id_of(message) for message in messages}
    for record in records:
        value = record.value or b""
        if brand.encode() in value:
            event = TicketMessage.model_validate_json(value)
            told[event.message_id].add(value)
            tickets[conversation_of[event.message_id]].add(event.ticket_id)
            sequences[event.ticket_id].add(event.sequence)
    doubled = sum(len(contents) - 1 for contents in told.values()) + sum(len(found) - 1 for found in tickets.values())
    print(
        f"\n{CUSTOMERS} customers, {len(messages)} messages, {len(deliveries)} deliveries, {PROCESSES} processes "
        f"({', '.join(f'{share:.0f}' for share in shares)} records): {len(sequences)} tickets, {doubled} doubled"
    )
    assert min(shares) > 0, "one of the processes took nothing: they did not compete"
    assert set(told) == set(conversation_of)
    assert (len(tickets), len(sequences), doubled) == (CUSTOMERS, CUSTOMERS, 0)
    per_customer = Counter(conversation_of.values())
    for conversation, (ticket_id,) in tickets.items():
        assert sequences[ticket_id] == set(range(1, per_customer[conversation] + 1))
