"""Each truth of /livez and /readyz: about a database and a broker that hang, a full pool, parts that have ended."""

from __future__ import annotations

import asyncio
import signal
import ssl
import struct
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import psutil
import pytest
from sqlalchemy.engine import make_url

from deploy.brokers import Broker
from deploy.embedded.postgres import EmbeddedPostgres
from deploy.kafka.certificates import Authority
from deploy.processes import HOST, free_port
from shared import health, metrics, topics
from shared.admin import create_topics
from shared.build import version
from shared.cloudevents import Received
from shared.database import Database, listen
from shared.service import Service
from tests.integration.test_service_life import nothing, publish, running, settings
from tests.support.surroundings import Kafka
from tests.support.waiting import eventually


async def missing(client: httpx.AsyncClient, path: str = "/readyz") -> dict[str, str]:
    """What it says, at once: an answer that waits for what hangs would not come within any probe's time."""
    async with asyncio.timeout(health.ANSWER_MOST_SECONDS + 8):
        answer = await client.get(path)
    found: dict[str, str] = answer.json()["missing"]
    assert answer.status_code == (503 if found else 200)
    return found


async def names(client: httpx.AsyncClient, *wanted: str) -> bool:
    found = await missing(client)
    assert set(wanted) <= set(found), found
    return True


async def ready(client: httpx.AsyncClient) -> bool:
    assert await missing(client) == {}
    return True


@asynccontextmanager
async def stopped(*processes: psutil.Process) -> AsyncIterator[None]:
    """SIGSTOP: connections stay open, and nobody answers."""
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            process.send_signal(signal.SIGCONT)


@pytest.fixture(scope="module")
def own_postgres(run_directory: Path) -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL that nobody else needs."""
    with EmbeddedPostgres(run_directory / "own-postgres") as server:
        yield server


async def test_a_database_that_hangs_is_told_and_comes_back(own_postgres: EmbeddedPostgres, kafka: Kafka) -> None:
    service = Service("desk", settings(kafka.bootstrap_servers, own_postgres.create_database("hangs")))
    async with running(service.app()) as client:
        await eventually(lambda: ready(client), 60)
        postmaster = psutil.Process(own_postgres.pid)
        async with stopped(postmaster, *postmaster.children(recursive=True)):
            await eventually(lambda: names(client, "database"), 60)
            assert (await client.get("/readyz/http")).status_code == 503
            assert (await client.get("/livez")).status_code == 200
            await eventually(lambda: _is_shown("database", "desk"), 30)
        await eventually(lambda: ready(client), 60)
        async with stopped(postmaster):  # the connections that there are go on; nobody gets another
            await service.database.ping()
            await eventually(lambda: names(client, "database"), 60)
        await eventually(lambda: ready(client), 60)


async def test_a_database_that_takes_no_writes_is_no_database(own_postgres: EmbeddedPostgres, kafka: Kafka) -> None:
    url = own_postgres.create_database("standby")
    connection = await asyncpg.connect(url)
    await connection.execute("ALTER DATABASE standby SET default_transaction_read_only = on")
    await connection.close()
    service = Service("desk", settings(kafka.bootstrap_servers, url))
    async with running(service.app()) as client:
        found = await missing(client)
    assert found["database"] == "takes no writes: it is a standby, or set to read only"


@asynccontextmanager
async def speaking_tls(port: int, certificate: Path) -> AsyncIterator[int]:
    """A port where PostgreSQL at `port` is reached by TLS only: the wheel's own is built without it."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            if await reader.readexactly(8) == struct.pack("!ii", 8, 80877103):  # SSLRequest, else somebody is plain
                writer.write(b"S")
                await writer.start_tls(context)
                behind = await asyncio.open_connection(HOST, port)
                await asyncio.gather(pass_on(reader, behind[1]), pass_on(behind[0], writer))
        writer.close()

    server = await asyncio.start_server(serve, HOST, 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_the_database_is_reached_by_tls_that_is_checked(own_postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path / "ours"), Authority(tmp_path / "another")
    plain = make_url(own_postgres.create_database("checked"))
    async with speaking_tls(plain.port or 0, authority.issue("postgres", address=HOST)) as port:

        def reached(trusted: Authority, host: str = HOST) -> Database:
            query = {"sslmode": "verify-full", "sslrootcert": str(trusted.certificate)}
            url = plain.set(port=port, host=host, query=query).render_as_string(hide_password=False)
            return Database(settings(f"{HOST}:1", url), service="desk")

        database = reached(authority)
        assert database.authority == authority.certificate
        await database.ping()
        heard = asyncio.Event()
        listener = await listen(database, "a_channel", heard.set)
        await listener.execute("NOTIFY a_channel")
        async with asyncio.timeout(30):
            await heard.wait()
        await listener.close()
        await database.close()
        for wrong in (reached(stranger), reached(authority, host="localhost")):
            for attempt in (wrong.ping, wrong.connect):
                with pytest.raises(ssl.SSLCertVerificationError):
                    await attempt()
            await wrong.close()


async def test_a_broker_that_hangs_is_told_and_replicas_without_partitions_are_ready(
    own_broker: Callable[..., Broker], database: str
) -> None:
    broker: Any = own_broker()
    configured = settings(broker.bootstrap_servers, database)
    await create_topics(configured, partitions_of={topics.TICKETS_ACTIVITY.name: 1})

    def replica() -> Service:
        service = Service("desk", configured)
        service.subscribe([topics.TICKETS_ACTIVITY], nothing, description="")
        return service

    async with AsyncExitStack() as replicas:
        services = [replica() for _ in range(2)]
        clients = [await replicas.enter_async_context(running(service.app())) for service in services]
        for client in clients:
            await eventually(lambda client=client: ready(client), 90)  # type: ignore[misc]
        await eventually(lambda: _one_has_all(services), 90)
        for client in clients:
            assert await missing(client) == {}
        async with stopped(psutil.Process(broker.pid)):
            for client in clients:
                await eventually(lambda client=client: names(client, "broker", "desk.tickets.activity"), 60)  # type: ignore[misc]
                assert await missing(client, "/readyz/http") == {}
        for client in clients:
            await eventually(lambda client=client: ready(client), 90)  # type: ignore[misc]


async def _one_has_all(services: Sequence[Service]) -> bool:
    consumers = [service.subscriptions[0].consumer() for service in services]
    return sorted(len(consumer.assignment()) for consumer in consumers if consumer) == [0, 1]


async def test_requests_are_served_while_kafka_is_away(database: str) -> None:
    service = Service("desk", settings(f"{HOST}:{free_port()}", database))
    service.subscribe([topics.TICKETS_ACTIVITY], nothing, description="")
    async with running(service.app()) as client:
        assert await missing(client) == {"broker": "not consuming yet"}
        assert await missing(client, "/readyz/http") == {}
        service.begin_stop()
        assert await missing(client, "/readyz/http") == {"service": "stopping"}


async def test_a_full_pool_is_not_taken_for_a_database_that_is_away(
    kafka: Kafka, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "_FULL_MOST_SECONDS", 0.2)
    service = Service("desk", settings(kafka.bootstrap_servers, database, database_pool_size=2))
    async with running(service.app()) as client:
        await eventually(lambda: ready(client), 60)
        async with AsyncExitStack() as held:
            for _ in range(service.database.pool_most):
                await held.enter_async_context(service.database.transaction())
            await eventually(lambda: names(client, "pool"), 60)
            await _asked_again(service)
            assert "database" not in await missing(client)
            assert "pool" in await missing(client, "/readyz/http")
        await eventually(lambda: ready(client), 60)


async def _asked_again(service: Service) -> None:
    """Twice: the first may have been under way."""
    for _ in range(2):
        service._database_watch._told.clear()
        await service._database_watch.first_answer()


async def test_a_group_that_nobody_coordinates_is_told(kafka: Kafka, database: str) -> None:
    """The broker answers all the while. Two nodes would be needed to have one of them gone: the client stands in."""
    service = Service(f"alone-{uuid.uuid4().hex[:8]}", settings(kafka.bootstrap_servers, database))
    service.subscribe([topics.TICKETS_ACTIVITY], nothing, description="")
    group = service.subscriptions[0].group
    async with running(service.app()) as client:
        await eventually(lambda: ready(client), 90)
        consumer = service.subscriptions[0].consumer()
        asks, consumer.committed = consumer.committed, lambda _: asyncio.Event().wait()
        await eventually(lambda: names(client, group), 60)
        assert (await missing(client)) == {group: "its coordinator: no answer within 2 s"}
        consumer.committed = asks
        await eventually(lambda: ready(client), 60)


async def test_a_consumer_whose_loop_has_ended_is_told_and_started_again(kafka: Kafka, database: str) -> None:
    run = uuid.uuid4().hex
    seen: list[str] = []

    async def take(batch: Sequence[Received[Any]]) -> None:
        seen.extend(item.event.activity_id for item in batch if item.event.activity_id.startswith(run))

    configured = settings(kafka.bootstrap_servers, database)
    service = Service(f"dies-{run[:8]}", configured)
    service.subscribe([topics.TICKETS_ACTIVITY], take, description="")
    async with running(service.app()) as client:
        await eventually(lambda: ready(client), 90)
        (subscriber,) = service.broker.subscribers
        for task in subscriber.tasks:  # type: ignore[attr-defined]
            task.cancel()
        await asyncio.sleep(0)
        assert (await missing(client))[service.subscriptions[0].group] == "its consumer has ended"
        await eventually(lambda: ready(client), 90)
        await publish(configured, run, 1)
        await eventually(lambda: _taken(seen), 60)
    assert seen == [f"{run}-0"]


async def _taken(seen: list[str]) -> bool:
    return bool(seen)


async def test_a_part_that_has_ended_for_good_is_death(kafka: Kafka, database: str) -> None:
    class Fatal(BaseException):
        """Nobody catches it."""

    async def fatal() -> None:
        raise Fatal

    async def once() -> None:
        return

    service = Service("desk", settings(kafka.bootstrap_servers, database))
    service.tasks |= {"fatal": fatal, "once": once}
    async with running(service.app()) as client:
        answer = await eventually(lambda: _dead(client), 30)
        assert answer.json() == {"status": "dead", "ended": ["fatal"]}
        assert (await missing(client))["fatal"] == "has ended"


async def _dead(client: httpx.AsyncClient) -> httpx.Response:
    answer = await client.get("/livez")
    assert answer.status_code == 503
    return answer


async def test_every_check_has_its_series_from_the_start(database: str) -> None:
    service = Service("classifier", settings(f"{HOST}:{free_port()}", database))
    service.subscribe([topics.TICKETS_ACTIVITY], nothing, description="")
    service.checks["gateways"] = lambda: None
    service.every(60, "prune", service.database.ping)
    async with running(service.app()) as client:
        await missing(client)
        shown = {
            sample.labels["check"]: sample.value
            for sample in next(iter(metrics.NOT_READY.collect())).samples
            if sample.labels["service"] == "classifier"
        }
        assert {"service", "database", "pool", "broker", "classifier.tickets.activity", "gateways", "prune"} <= set(
            shown
        )
        assert not any(name.startswith(("measure", "health", "lag")) for name in shown)
        await eventually(lambda: _is_shown("broker", "classifier"), 30)
        answer = await client.get("/metrics")
    assert f'switchyard_build_info{{service="classifier",version="{version()}"}} 1.0' in answer.text
    assert version()[0].isdigit()


async def _is_shown(check: str, service: str) -> bool:
    return _shown(check, service) == 1


def _shown(check: str, service: str = "desk") -> float | None:
    return metrics.REGISTRY.get_sample_value("switchyard_not_ready", {"service": service, "check": check})
