"""Start before everything else, in no order; SIGTERM in the middle of the work: nothing lost, nothing done twice."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import signal
import sys
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import httpx
import jwt
import pytest
import websockets
from aiokafka import AIOKafkaProducer

from deploy.audit import audit_when_settled, read_all
from deploy.brokers import Broker
from deploy.demo.receivers import Receivers
from deploy.demo.settings import Credentials, environment
from deploy.embedded.broker import EmbeddedBroker
from deploy.migrations import upgrade_all
from deploy.processes import HOST, REPOSITORY, Program, free_port
from deploy.stack import ExternalBroker, Stack
from shared import topics
from shared.admin import create_topics
from shared.database import SERVICES
from tests.chaos.test_kill import count
from tests.support.waiting import eventually

STOP_PERIOD_SECONDS: Final = 45
"""Of compose; a program that takes longer is killed, which its exit status tells."""
CUSTOMERS: Final = 300
_AT_ONCE: Final = 10
_TEXTS: Final = ("充值没到账，钱扣了", "my payment was declined", "退款什么时候到")
_BRAND: Final = "upay_wallet"


@pytest.fixture
async def outside() -> AsyncIterator[tuple[Credentials, dict[str, str]]]:
    credentials = Credentials()
    receivers = Receivers(credentials)
    async with receivers.listening():
        yield credentials, environment(credentials, receiver_url=receivers.url, mail_port=receivers.mail_port)


def message(number: int) -> dict[str, Any]:
    """Two messages of each customer: the second joins the ticket of the first."""
    customer = f"drain-{number % CUSTOMERS}"
    return {
        "brand": _BRAND,
        "channel": "app_chat",
        "message_id": f"drain-{number}",
        "customer": {"id": customer},
        "text": _TEXTS[number % len(_TEXTS)],
        "sent_at": datetime.now(UTC).isoformat(),
    }


class Traffic:
    """Messages by Kafka and by HTTP, as long as it lasts. A request that is not answered is sent again, as it was."""

    def __init__(self, stack: Stack, key: str) -> None:
        self._stack = stack
        self._headers = {"Authorization": f"Bearer {key}", "Connection": "close"}
        self.sent = 0
        self.answered: list[str] = []
        self.stop = asyncio.Event()

    async def by_kafka(self) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=self._stack.broker.bootstrap_servers, acks="all", linger_ms=2)
        async with producer:
            while not self.stop.is_set():
                batch = [message(number) for number in range(self.sent, self.sent + _AT_ONCE)]
                for item in batch:
                    key = f"{_BRAND}/app_chat/{item['customer']['id']}".encode()
                    await producer.send(topics.CHANNEL_MESSAGES.name, json.dumps(item).encode(), key=key)
                await producer.flush()
                self.sent += len(batch)
                await asyncio.sleep(0.2)

    async def by_http(self) -> None:
        async with httpx.AsyncClient(base_url=self._stack.url("intake"), timeout=30, trust_env=False) as client:
            while not self.stop.is_set():
                item = message(0) | {"message_id": uuid.uuid4().hex, "customer": {"id": uuid.uuid4().hex}}
                await eventually(functools.partial(self._accepted, client, item), 300, 0.1)
                self.answered.append(item["message_id"])

    async def _accepted(self, client: httpx.AsyncClient, item: Mapping[str, Any]) -> bool:
        try:
            answer = await client.post("/v1/messages", json=item, headers=self._headers)
        except httpx.TransportError:
            return False
        assert answer.is_success or answer.status_code == 503, answer.text
        return answer.is_success


@asynccontextmanager
async def flowing(traffic: Traffic) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as senders:
        senders.create_task(traffic.by_kafka())
        senders.create_task(traffic.by_http())
        try:
            yield
        finally:
            traffic.stop.set()


async def _says(stack: Stack, service: str, path: str, status: int) -> bool:
    async with httpx.AsyncClient(base_url=stack.url(service), trust_env=False, timeout=10) as client:
        try:
            return (await client.get(path)).status_code == status
        except httpx.TransportError:
            return False


async def _up_before_everything(stack: Stack, broker: Broker) -> None:
    """The services first, then PostgreSQL, Kafka, the database, the topics, and the tables at last."""
    stack.postgres.start()
    stack.database_url = stack.postgres.url_of("switchyard")  # which nobody has made
    stack.postgres.stop()
    broker.stop()
    for service in SERVICES:
        stack.start_service(service)
    for service in SERVICES:
        await eventually(lambda service=service: _says(stack, service, "/livez", 200), 240)  # type: ignore[misc]
        assert await _says(stack, service, "/readyz", 503)
    await asyncio.to_thread(stack.postgres.start)
    await asyncio.to_thread(broker.start)
    stack.postgres.create_database("switchyard")
    await create_topics(stack.settings)
    await upgrade_all(stack.database_url)
    await stack.wait_until_ready(*SERVICES)


async def _more_than(stack: Stack, table: str, rows: int) -> bool:
    return await count(stack, table) > rows


async def _twice(stack: Stack) -> dict[str, int]:
    """Ids of events that stand on a topic more than once, with how often."""
    produced = [topic.name for topic in topics.ALL if topic is not topics.CHANNEL_MESSAGES]
    found: Counter[str] = Counter()
    for name, records in (await read_all(stack.settings, produced)).items():
        for record in records:
            headers = dict(record.headers)
            found[f"{name}: {headers['ce_type'].decode()} {headers['ce_id'].decode()}"] += 1
    return {event: times for event, times in found.items() if times > 1}


@pytest.mark.timeout(900)
async def test_services_start_first_and_are_restarted_one_by_one_under_load(
    own_broker: Callable[..., Broker], run_directory: Path, outside: tuple[Credentials, dict[str, str]]
) -> None:
    broker = own_broker()
    if isinstance(broker, EmbeddedBroker):
        pytest.skip("the embedded broker cannot come back with what it held")
    stack = Stack(run_directory / "chaos-drain", ExternalBroker(broker.bootstrap_servers), environment=outside[1])
    async with AsyncExitStack() as ended:
        ended.callback(stack.stop)
        await _up_before_everything(stack, broker)
        # A second replica of those that hand partitions over to each other while both are at work.
        for service in ("intake", "classifier"):
            second = Program(f"second-{service}", run_directory / f"second-{service}", stop_timeout_seconds=45)
            ended.callback(second.stop)
            second.start(
                [sys.executable, "-m", f"services.{service}"],
                environment={**stack.environment_of(service), "HTTP_PORT": str(free_port())},
                working_directory=REPOSITORY,
            )
        traffic = Traffic(stack, outside[0].channel)
        statuses: dict[str, int | None] = {}
        async with flowing(traffic):
            for service in SERVICES:
                rows = await count(stack, "classifier.decisions") + 100
                await eventually(lambda rows=rows: _more_than(stack, "classifier.decisions", rows), 240)  # type: ignore[misc]
                statuses[service] = await asyncio.to_thread(stack.stop_service, service)
                stack.start_service(service)
            await stack.wait_until_ready(*SERVICES)
        found = await audit_when_settled(stack.settings, 240)
        statuses |= {f"{name} at last": await asyncio.to_thread(stack.stop_service, name) for name in SERVICES}
        twice = await _twice(stack)
    assert set(statuses.values()) == {0}, statuses
    assert found.settled, f"{found.lost} lost, {found.pending} in outboxes: {found.lost_detail[:5]}"
    assert found.messages == traffic.sent
    assert (found.lost_detail, found.doubled_detail) == ([], [])
    assert found.accepted == traffic.sent + len(set(traffic.answered))
    assert twice == {}
    print(f"{traffic.sent} by Kafka, {len(traffic.answered)} by HTTP, {found.tickets} tickets; stopped {len(statuses)}")


@pytest.mark.timeout(300)
async def test_open_connections_are_answered_or_closed_and_hold_no_stop(
    run_directory: Path, new_database: Callable[[], Any], outside: tuple[Credentials, dict[str, str]]
) -> None:
    """Kafka is away all the while, so this is a stop during an outage, too."""
    credentials, settings = outside
    stack = Stack(
        run_directory / "chaos-connections",
        ExternalBroker(f"{HOST}:{free_port()}"),
        services=("intake", "desk"),
        environment={**settings, "INTAKE_ACCEPT_IN_OUTAGE_SECONDS": "600"},
    )
    stack.database_url = await new_database()
    async with AsyncExitStack() as ended:
        ended.callback(stack.stop)
        for service in stack.services:
            stack.start_service(service)
        for service in stack.services:
            await eventually(lambda service=service: _says(stack, service, "/readyz/http", 200), 240)  # type: ignore[misc]
        chat = await ended.enter_async_context(_chat(stack.ports["intake"], credentials))
        request = await _half_a_request(stack.ports["intake"], credentials)
        desk = httpx.AsyncClient(base_url=stack.url("desk"), timeout=60, trust_env=False)
        await ended.enter_async_context(desk)
        lead = {"Authorization": f"Bearer {credentials.lead}"}
        stream = await ended.enter_async_context(desk.stream("GET", "/v1/queues/stream", headers=lead))
        parts = stream.aiter_text()
        assert "event: queues" in await anext(parts)

        begun = time.monotonic()
        pid = stack.pid("intake")
        assert pid is not None
        stops = [asyncio.create_task(asyncio.to_thread(stack.stop_service, service)) for service in stack.services]
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await _read_to_the_end(chat)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
        await eventually(lambda: _refuses(stack.ports["intake"]), 30)
        # Once more: it is stopping already.
        os.kill(pid, signal.SIGTERM)
        assert (await request.end()).startswith(b"HTTP/1.1 202")
        _ = [part async for part in parts]  # its end is an end, not a break: httpx would raise
        assert await asyncio.gather(*stops) == [0, 0]
        took_seconds = time.monotonic() - begun
    assert took_seconds < STOP_PERIOD_SECONDS
    print(f"stopped within {took_seconds:.1f} s")


@asynccontextmanager
async def _chat(port: int, credentials: Credentials) -> AsyncIterator[Any]:
    expires = datetime.now(UTC) + timedelta(hours=1)
    token = jwt.encode({"sub": "c-1", "aud": _BRAND, "exp": expires}, credentials.chat, algorithm="HS256")
    async with websockets.connect(f"ws://{HOST}:{port}/v1/channels/app_chat/{_BRAND}/socket") as socket:
        await socket.send(json.dumps({"type": "hello", "token": token}))
        assert json.loads(await socket.recv())["type"] == "welcome"
        yield socket


async def _read_to_the_end(chat: Any) -> None:
    while True:
        await chat.recv()


class _Half:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rest: bytes) -> None:
        self._reader, self._writer, self._rest = reader, writer, rest

    async def end(self) -> bytes:
        """Send what is left of the body, and return the whole answer."""
        self._writer.write(self._rest)
        answer = await self._reader.read()
        self._writer.close()
        return answer


async def _half_a_request(port: int, credentials: Credentials) -> _Half:
    """A request of which the server has begun to read the body: it has said so."""
    body = json.dumps(message(1) | {"message_id": uuid.uuid4().hex}).encode()
    head = (
        f"POST /v1/messages HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {credentials.channel}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(head.encode())
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
    return _Half(reader, writer, body)


async def _refuses(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(HOST, port)
    except ConnectionRefusedError:
        return True
    writer.close()
    return False


@pytest.mark.timeout(200)
async def test_a_stop_during_the_start_and_without_any_surroundings_ends_at_once(run_directory: Path) -> None:
    stack = Stack(run_directory / "chaos-early", ExternalBroker(f"{HOST}:{free_port()}"), services=("intake",))
    stack.database_url = f"postgresql://nobody@{HOST}:{free_port()}/nothing"
    async with AsyncExitStack() as ended:
        ended.callback(stack.stop)
        stack.start_service("intake")
        await eventually(lambda: _takes_sigterm(stack.pid("intake")), 60, 0.001)
        assert not await _says(stack, "intake", "/livez", 200), "it was through with its imports: nothing was tested"
        during_the_start = await asyncio.to_thread(stack.stop_service, "intake")
        stack.start_service("intake")
        await eventually(lambda: _says(stack, "intake", "/livez", 200), 150)
        without_surroundings = await asyncio.to_thread(stack.stop_service, "intake")
    assert (during_the_start, without_surroundings) == (0, 0)


async def _takes_sigterm(pid: int | None) -> bool:
    """Whether the process has a handler of its own for it."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()  # noqa: ASYNC240 - in memory
    except FileNotFoundError:
        pytest.skip("there is no /proc here to look it up in")
    caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)
