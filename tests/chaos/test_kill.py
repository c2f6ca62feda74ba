"""kill -9 in the middle of the work, on every service: nothing is lost, nothing is doubled."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import asyncpg
import pytest
from aiokafka import AIOKafkaProducer

from deploy.audit import audit_when_settled
from deploy.brokers import Broker
from deploy.demo.receivers import Receivers
from deploy.demo.settings import Credentials, environment
from deploy.stack import ExternalBroker, Stack
from shared import topics
from shared.database import SERVICES
from tests.support.waiting import eventually

MESSAGES: Final = 5_000
CUSTOMERS: Final = 3_000
_TEXTS: Final = (
    "充值没到账，钱扣了",
    "密码忘了登不上",
    "my payment was declined",
    "怎么提现",
    "还没处理好吗？",
    "退款什么时候到",
)


def messages() -> list[tuple[bytes, bytes]]:
    """5,000 messages of 3,000 customers: 1,000 customers write once, 2,000 twice."""
    sent_at = datetime.now(UTC).isoformat()
    records = []
    for number in range(MESSAGES):
        customer = f"chaos-{number % CUSTOMERS}"
        body = {
            "brand": "u_wallet",
            "channel": "app_chat",
            "message_id": f"chaos-{number}",
            "customer": {"id": customer},
            "text": _TEXTS[number % len(_TEXTS)],
            "sent_at": sent_at,
        }
        records.append((f"u_wallet/app_chat/{customer}".encode(), json.dumps(body, ensure_ascii=False).encode()))
    return records


@pytest.fixture
async def receivers() -> AsyncIterator[tuple[Receivers, dict[str, str]]]:
    credentials = Credentials()
    receivers = Receivers(credentials)
    async with receivers.listening():
        yield receivers, environment(credentials, receiver_url=receivers.url, mail_port=receivers.mail_port)


async def publish(stack: Stack) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=stack.broker.bootstrap_servers, acks="all", linger_ms=2)
    await producer.start()
    try:
        futures = [await producer.send(topics.CHANNEL_MESSAGES.name, value, key=key) for key, value in messages()]
        await asyncio.gather(*futures)
    finally:
        await producer.stop()


async def count(stack: Stack, table: str) -> int:
    connection = await asyncpg.connect(stack.database_url)
    try:
        found: int = await connection.fetchval(f"SELECT count(*) FROM {table}")
    finally:
        await connection.close()
    return found


@pytest.mark.timeout(600)
async def test_every_service_is_killed_in_the_middle_of_5000_messages(
    own_broker: Callable[..., Broker], run_directory: Path, receivers: tuple[Receivers, dict[str, str]]
) -> None:
    settings = {**receivers[1], "NOTIFIER_LEASE_SECONDS": "31"}
    broker = ExternalBroker(own_broker().bootstrap_servers)  # the fixture has started it
    async with Stack(run_directory / "chaos-kill", broker, environment=settings) as stack:
        await publish(stack)
        # One after the other, each while messages flow: a part of them is through, a part is not.
        progress_of = {"intake": "intake.messages", "classifier": "classifier.decisions"}
        for service in SERVICES:
            table = progress_of.get(service, "classifier.decisions")
            reached = await count(stack, table)
            wanted = min(MESSAGES - 1, reached + 300)
            await eventually(lambda table=table, wanted=wanted: _at_least(stack, table, wanted), 120)  # type: ignore[misc]
            stack.kill_service(service)
            stack.start_service(service)
        killed_at = await count(stack, "classifier.decisions")
        await stack.wait_until_ready(*SERVICES)
        found = await audit_when_settled(stack.settings, 240)
    assert killed_at < MESSAGES, "the services were killed after the work was done: nothing was tested"
    assert found.settled, f"{found.lost} lost, {found.pending} in outboxes: {found.lost_detail[:5]}"
    assert found.lost_detail == []
    assert found.doubled_detail == []
    assert (found.messages, found.accepted, found.routed, found.tickets) == (MESSAGES, MESSAGES, MESSAGES, CUSTOMERS)


async def _at_least(stack: Stack, table: str, wanted: int) -> bool:
    return await count(stack, table) >= wanted
