"""One installation for all tests of operations: real broker, real PostgreSQL, the five services as processes."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import asyncpg
import httpx
import pytest
from aiokafka import AIOKafkaProducer

from deploy.audit import Audit, audit_when_settled
from deploy.demo.receivers import Receivers
from deploy.demo.settings import Credentials, environment
from deploy.ops.__main__ import run
from deploy.processes import RUN_DIRECTORY
from deploy.stack import Stack
from shared import topics
from shared.database import SERVICES
from shared.settings import CommonSettings
from tests.support.surroundings import BrokerChoice
from tests.support.waiting import eventually

_SETTLE_SECONDS: Final = 240


@dataclass
class Said:
    """What a command did: exit status, standard output, standard error."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        lines = self.out.splitlines()
        return json.loads(lines[0]) if len(lines) == 1 else [json.loads(line) for line in lines]


Ops = Callable[..., Any]


async def ops(settings: dict[str, str], *arguments: str | Path) -> Said:
    """Run a command line of `python -m deploy.ops` in this process, with these environment variables."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = await run([str(argument) for argument in arguments])
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
    return Said(status, out.getvalue(), err.getvalue())


@dataclass
class Installation:
    stack: Stack
    receivers: Receivers
    credentials: Credentials
    environment: dict[str, str]
    sent: int = 0
    refused: list[str] = field(default_factory=list)

    @property
    def settings(self) -> CommonSettings:
        return self.stack.settings

    async def ops(self, *arguments: str | Path) -> Said:
        return await ops(
            {
                **self.environment,
                "KAFKA_BOOTSTRAP_SERVERS": self.stack.broker.bootstrap_servers,
                "DATABASE_URL": self.stack.database_url,
            },
            *arguments,
        )

    async def publish(self, records: Sequence[tuple[bytes | None, bytes]]) -> None:
        """Put these (key, value) on channel.messages."""
        producer = AIOKafkaProducer(bootstrap_servers=self.stack.broker.bootstrap_servers, acks="all")
        await producer.start()
        try:
            sent = [await producer.send(topics.CHANNEL_MESSAGES.name, value, key=key) for key, value in records]
            await asyncio.gather(*sent)
        finally:
            await producer.stop()
        self.sent += len(records)

    async def write(
        self, count: int, prefix: str, texts: Sequence[str] = ("充值没到账，钱扣了", "my card was lost")
    ) -> None:
        """`count` customers write once each."""
        now = datetime.now(UTC).isoformat()
        await self.publish([message(f"{prefix}-{number}", texts[number % len(texts)], now) for number in range(count)])

    async def rows(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self.stack.database_url)
        try:
            found: list[asyncpg.Record] = await connection.fetch(statement, *arguments)
        finally:
            await connection.close()
        return found

    async def value(self, statement: str, *arguments: Any) -> Any:
        return (await self.rows(statement, *arguments))[0][0]

    def desk(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=f"{self.stack.url('desk')}/v1",
            headers={"Authorization": f"Bearer {self.credentials.lead}"},
            timeout=30,
            trust_env=False,
        )

    async def settled(self) -> Audit:
        """Once everything that was sent has become something, and no service has anything left."""

        async def told() -> bool:
            open_ones = await self.rows(
                "SELECT kind, count(*) AS waiting FROM notifier.notifications WHERE finished_at IS NULL GROUP BY 1"
            )
            assert not open_ones, [dict(row) for row in open_ones]
            return True

        async def quiet() -> Audit:
            await eventually(told, _SETTLE_SECONDS, 0.2)  # what came of it is on a topic, or in an outbox
            found = await audit_when_settled(self.settings, _SETTLE_SECONDS, SERVICES)
            assert found.settled, f"{found.lost} lost, {found.pending} in outboxes: {found.lost_detail[:3]}"
            assert await told()
            return found

        return await eventually(quiet, _SETTLE_SECONDS)


def message(customer: str, text: str, sent_at: str, **changes: Any) -> tuple[bytes, bytes]:
    body = {
        "brand": "u_wallet",
        "channel": "app_chat",
        "message_id": f"m-{customer}-{uuid.uuid4().hex[:8]}",
        "customer": {"id": customer},
        "text": text,
        "sent_at": sent_at,
        **changes,
    }
    return f"u_wallet/app_chat/{customer}".encode(), json.dumps(body, ensure_ascii=False).encode()


@pytest.fixture(scope="session")
async def installation(run_directory: Path) -> AsyncIterator[Installation]:
    credentials = Credentials()
    receivers = Receivers(credentials)
    directory = run_directory / "ops"
    async with receivers.listening():
        surroundings = environment(credentials, receiver_url=receivers.url, mail_port=receivers.mail_port)
        # Promises of days: what these tests look at must not change by itself while they look.
        surroundings["SLA_TIMER_POLICIES_FILE"] = str(Path(__file__).with_name("sla.yaml"))
        broker = BrokerChoice.make(RUN_DIRECTORY).broker(directory / "kafka")
        async with Stack(directory, broker, environment=surroundings) as stack:
            yield Installation(stack, receivers, credentials, surroundings)


@pytest.fixture
async def running(installation: Installation) -> Installation:
    """With every service up, whatever the test before has stopped."""
    for service in installation.stack.services:
        if installation.stack.pid(service) is None:
            installation.stack.start_service(service)
    await installation.stack.wait_until_ready(*installation.stack.services)
    return installation
