"""The demo's services under traffic that makes every event a dashboard shows: also what goes wrong now and then."""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import asyncpg
import certifi
import httpx
import yaml
from aiokafka import AIOKafkaProducer

from deploy.demo.agents import Agents
from deploy.demo.messages import load
from deploy.demo.receivers import Receivers
from deploy.demo.settings import Credentials, environment
from deploy.embedded.broker import EmbeddedBroker
from deploy.processes import REPOSITORY
from deploy.stack import Stack
from shared import topics
from shared.taxonomy import Category, Queue
from tests.support.providers.telegram import CONFIG
from tests.support.waiting import eventually

_PER_SECOND: Final = 60
_DEMO: Final = REPOSITORY / "deploy" / "demo" / "sla.yaml"
_PEAK: Final = {"brand": "*", "queue": "payments", "calendar": "always"}
_FLOOD: Final = 30
_HISTORY_DAYS: Final = 18
_BRAND: Final = "upay_wallet"


@contextlib.asynccontextmanager
async def services(directory: Path) -> AsyncIterator[tuple[Stack, Credentials]]:
    """The services as the demo runs them, with a peak in one queue, and weeks that they remember."""
    credentials = Credentials()
    receivers = Receivers(credentials)
    policies = directory / "sla.yaml"
    _write_policies(policies)
    settings = {
        **environment(credentials, receiver_url=receivers.url, mail_port=receivers.mail_port),
        "SLA_TIMER_POLICIES_FILE": str(policies),
        "DESK_TAKE_BACK_MINUTES": "0.1",
        "TP_WALLET_TELEGRAM_BOT_TOKEN": CONFIG["bot_token"],
        "TP_WALLET_TELEGRAM_SECRET_TOKEN": CONFIG["secret_token"],
        # Windows are of the clock: wherever one ends within the flood, there is one on either side.
        "INTAKE_FLOOD_MESSAGES": "5",
        # Any authorities will do: when they end is shown.
        "HTTP_CA_FILE": certifi.where(),
        # Nothing there takes spans: they are counted as not taken.
        "TRACING_OTLP_ENDPOINT": receivers.url,
    }
    stack = Stack(directory, EmbeddedBroker(directory / "broker"), environment=settings)
    receivers.intake_url = stack.url("intake")
    async with receivers.listening(), stack:
        await _remember_arrivals(stack)
        stack.stop_service("sla_timer")  # it looks ahead when it starts, and then seldom
        stack.start_service("sla_timer")
        await stack.wait_until_ready("sla_timer")
        yield stack, credentials


@contextlib.asynccontextmanager
async def traffic(stack: Stack, credentials: Credentials) -> AsyncIterator[None]:
    """Every message sent, and agents at work until the end of the block."""
    lines = load(REPOSITORY / "examples" / "messages.jsonl", datetime.now(UTC))
    closing_time = asyncio.Event()
    tasks = [asyncio.create_task(_publish(stack, [(line.key, line.value) for line in lines]))]
    try:
        await _as_an_agent(stack, credentials)
        tasks.append(asyncio.create_task(_receipts(stack, closing_time)))
        tasks.append(asyncio.create_task(Agents(stack.url("desk"), credentials.agent).work(closing_time)))
        await _requests(stack, credentials)
        await tasks[0]
        yield
    finally:
        closing_time.set()
        tasks[0].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _write_policies(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    demo = yaml.safe_load(_DEMO.read_text())
    path.write_text(yaml.safe_dump({**demo, "peaks": {"windows": [_PEAK]}}))


async def _remember_arrivals(stack: Stack) -> None:
    """Weeks of tickets, so that there is something to forecast from."""
    connection = await asyncpg.connect(stack.database_url)
    try:
        now = datetime.now(UTC)
        times = [now - timedelta(hours=hours) for hours in range(12, _HISTORY_DAYS * 24)]
        await connection.copy_records_to_table(
            "arrivals",
            schema_name="sla_timer",
            columns=["ticket_id", "brand", "queue", "channel", "at"],
            records=[(uuid.uuid4(), _BRAND, "payments", "app_chat", at) for at in times],
        )
    finally:
        await connection.close()


async def _publish(stack: Stack, records: list[tuple[bytes | None, bytes]]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=stack.broker.bootstrap_servers, acks="all")
    await producer.start()
    try:
        for key, value in records:
            await producer.send_and_wait(topics.CHANNEL_MESSAGES.name, _as_of_now(value), key=key)
            await asyncio.sleep(1 / _PER_SECOND)
    finally:
        await producer.stop()


def _as_of_now(line: bytes) -> bytes:
    """The message as sent at this moment, so that its age is what the services took; rubbish as it is."""
    try:
        body = json.loads(line)
        datetime.fromisoformat(body["sent_at"])
    except (ValueError, KeyError, TypeError):
        return line
    return json.dumps({**body, "sent_at": datetime.now(UTC).isoformat()}).encode()


async def _requests(stack: Stack, credentials: Credentials) -> None:
    """Over HTTP: a flood, and something refused."""
    async with httpx.AsyncClient(base_url=stack.url("intake"), timeout=20, trust_env=False) as intake:
        key = {"Authorization": f"Bearer {credentials.channel}"}
        for number in range(_FLOOD):
            answer = await intake.post("/v1/messages", json=_message("flood", number), headers=key)
            assert answer.is_success, answer.text
        refused = await intake.post(
            "/v1/messages", json=_message("stranger", 0), headers={"Authorization": "Bearer no"}
        )
        assert refused.status_code == httpx.codes.UNAUTHORIZED


async def _receipts(stack: Stack, closing_time: asyncio.Event) -> None:
    """A provider's requests that are no messages, one after the other."""
    token = {"X-Telegram-Bot-Api-Secret-Token": CONFIG["secret_token"]}
    async with httpx.AsyncClient(base_url=stack.url("intake"), timeout=20, trust_env=False) as intake:
        while not closing_time.is_set():
            answer = await intake.post(
                "/v1/channels/telegram/tp_wallet", json={"update_id": 1, "edited_channel_post": {}}, headers=token
            )
            assert answer.is_success, answer.text
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(closing_time.wait(), 1)


def _message(customer: str, number: int) -> dict[str, Any]:
    return {
        "brand": _BRAND,
        "channel": "app_chat",
        "message_id": f"dashboards-{customer}-{number}",
        "customer": {"id": customer},
        "text": f"My top-up {number} has not arrived. And how do I change my phone number?",
        "sent_at": datetime.now(UTC).isoformat(),
    }


async def _as_an_agent(stack: Stack, credentials: Credentials) -> None:
    """One ticket whose category is corrected, and one resolved with a point left open."""
    headers = {"Authorization": f"Bearer {credentials.lead}"}
    async with httpx.AsyncClient(
        base_url=f"{stack.url('desk')}/v1", timeout=20, trust_env=False, headers=headers
    ) as desk:

        async def claim() -> dict[str, Any] | None:
            for queue in Queue:
                answer = await desk.post(f"/queues/{queue}/claim")
                if answer.status_code == httpx.codes.OK:
                    ticket: dict[str, Any] = answer.json()
                    return ticket
            return None

        async def claim_with_points() -> dict[str, Any] | None:
            ticket = await claim()
            return ticket if ticket and ticket["points"] else None

        ticket = await eventually(claim)
        assert ticket
        other = Category.OTHER if ticket["category"] != Category.OTHER else Category.FEEDBACK
        moved = await desk.post(f"/tickets/{ticket['ticket_id']}/reroute", json={"category": other})
        assert moved.is_success, moved.text
        ticket = await eventually(claim_with_points)
        assert ticket
        resolved = await desk.post(f"/tickets/{ticket['ticket_id']}/resolve")
        assert resolved.is_success, resolved.text
