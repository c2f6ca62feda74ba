"""kill -9 in the middle of a delivery: the notification still arrives, under the same id, also without Kafka."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import text

from deploy.processes import free_port
from services.notifier import storage
from services.notifier.config import load_outputs, load_texts
from services.notifier.domain.notifications import Notification, acknowledgement
from services.notifier.settings import Settings
from shared.brands import BRANDS_DIRECTORY
from shared.database import Database
from tests.support.waiting import eventually
from tests.unit.notifier.examples import CONFIG_FILE, KEY, TRACE, routed_event

REPOSITORY = Path(__file__).parents[2]


class Receiver:
    """Takes requests and, while `hangs`, never answers them."""

    def __init__(self) -> None:
        self.hangs = True
        self.webhook_ids: list[str] = []
        self.port = 0

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        connections: set[asyncio.StreamWriter] = set()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connections.add(writer)
            try:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                self.webhook_ids.append(head.partition("webhook-id: ")[2].partition("\r\n")[0])
                if not self.hangs:
                    writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
                    await writer.drain()
                await reader.read()
            except (ConnectionError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            for writer in connections:
                writer.close()
            server.close()


@asynccontextmanager
async def notifier_process(environment: dict[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.notifier"),
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
            await process.wait()


def pending(environment: dict[str, str]) -> Notification:
    outputs = load_outputs(CONFIG_FILE, BRANDS_DIRECTORY, environment)
    made = acknowledgement(routed_event(), load_texts(), outputs, TRACE)
    assert made is not None
    return made


async def test_what_was_under_way_at_kill_9_is_tried_again(new_database: Callable[[], Awaitable[str]]) -> None:
    receiver = Receiver()
    async with receiver.listening():
        url = await new_database()
        environment = {
            "KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}",  # nobody there: what is due goes out all the same
            "DATABASE_URL": url,
            "HTTP_PORT": "0",
            "NOTIFIER_GATEWAY_URL": f"http://127.0.0.1:{receiver.port}",
            "NOTIFIER_GATEWAY_SECRET": KEY,
            "NOTIFIER_LEADS_URL": "https://leads.example",
            "NOTIFIER_LEADS_SECRET": KEY,
            "NOTIFIER_WEBHOOK_ALLOWED_HOSTS": "127.0.0.1",
            "NOTIFIER_DELIVERY_TIMEOUT_SECONDS": "1.5",
            "NOTIFIER_LEASE_SECONDS": "3",
        }
        database = Database(Settings(database_url=url), service="test")
        notification = pending(environment)
        async with database.transaction() as connection:
            await storage.add_notifications(connection, [notification])
            await storage.schedule(connection, [notification], datetime.now(UTC) - timedelta(seconds=1))

        async with notifier_process(environment) as first:

            async def under_way() -> bool:
                return len(receiver.webhook_ids) == 1

            await eventually(under_way)
            first.send_signal(signal.SIGKILL)
            await first.wait()
        receiver.hangs = False
        async with notifier_process(environment) as second:

            async def delivered() -> bool:
                async with database.transaction() as connection:
                    state = await connection.scalar(text("SELECT state FROM notifier.notifications"))
                return bool(state == "delivered")

            await eventually(delivered)
            second.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(second.wait(), 30) in (0, -signal.SIGTERM)
        assert receiver.webhook_ids == [str(notification.notification_id)] * 2
        async with database.transaction() as connection:
            attempt = await connection.scalar(text("SELECT attempt FROM notifier.notifications"))
            said = await connection.scalar(text("SELECT count(*) FROM notifier.outbox"))
        assert (attempt, said) == (2, 1)  # the killed try counts; one outcome waits for the broker
        await database.close()
