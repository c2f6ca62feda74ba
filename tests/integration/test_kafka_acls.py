"""Apache Kafka that asks everyone who they are: what each user may do, and the services with their own users.

`-s` prints the matrix of what was allowed.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import ssl
import sys
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaConnectionError
from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from pydantic import SecretStr

from deploy.demo.receivers import Receivers
from deploy.demo.settings import Credentials, environment
from deploy.kafka.acls import ADMIN, OPERATIONS, PRINCIPALS, Acl, Operation, Resource, acls_of, readers_of, writers_of
from deploy.kafka.authorization import Authorization, NotPermitted, client_configuration
from deploy.kafka.native import NativeKafka, unavailable_reason
from deploy.kafka.secured import Security
from deploy.migrations import upgrade_all
from deploy.postgres import roles as postgres_roles
from deploy.postgres.roles import Roles, url_of
from deploy.processes import HOST, REPOSITORY
from deploy.stack import ExternalBroker, Stack
from shared import topics
from shared.admin import connection_options
from shared.cloudevents import Outgoing, Received, trace_of
from shared.database import SERVICES
from shared.events import NotificationKind, NotificationOutcome, NotificationStatus, Output
from shared.service import Service
from shared.settings import CommonSettings
from tests.support.surroundings import create_database, drop_database
from tests.support.waiting import eventually

pytestmark = [pytest.mark.real_kafka, pytest.mark.timeout(600)]

GROUPS = tuple(f"{owner}.tried" for owner in (*SERVICES, "agents", "operations"))
DENIED = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED)
VERDICT_SECONDS = 90.0


@dataclass(frozen=True)
class Secured:
    """A broker with all topics, users and ACLs, and every user's password."""

    kafka: NativeKafka
    security: Security
    authorization: Authorization
    passwords: Mapping[str, SecretStr]

    def settings(self, user: str) -> CommonSettings:
        return self.security.settings(self.kafka.bootstrap_servers, user, self.passwords[user])

    def configuration(self, user: str, **more: Any) -> dict[str, Any]:
        return {**client_configuration(self.settings(user)), **more}

    def environment(self, user: str) -> dict[str, str]:
        """What a service is told, to sign in as `user`."""
        return {
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka.bootstrap_servers,
            "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "KAFKA_SASL_USERNAME": user,
            "KAFKA_SASL_PASSWORD": self.passwords[user].get_secret_value(),
            "KAFKA_SSL_CAFILE": str(self.security.authority.certificate),
        }


@pytest.fixture(scope="module")
async def secured(run_directory: Path) -> AsyncIterator[Secured]:
    if reason := unavailable_reason():
        pytest.skip(f"Apache Kafka cannot run natively here: {reason}")
    directory = run_directory / "secured-kafka"
    security = Security(directory / "tls")
    passwords = {user: SecretStr(secrets.token_urlsafe(24)) for user in PRINCIPALS}
    with NativeKafka(directory / "kafka", security=security) as kafka:
        found = Secured(kafka, security, Authorization(kafka.settings), {**passwords, ADMIN: security.admin_password})
        given = {f"KAFKA_PASSWORD_{user.upper()}": password.get_secret_value() for user, password in passwords.items()}
        # As docs/kafka-security.md has it, and by the same commands.
        await operate(found, ADMIN, "topics", "create", "--yes")
        await operate(found, ADMIN, "acls", "apply", "--yes")
        await operate(found, ADMIN, "users", "apply", "--yes", **given)
        await operate(found, OPERATIONS, "acls", "verify")
        yield found


async def operate(secured: Secured, user: str, *command: str, **more: str) -> str:
    """What `python -m deploy.ops <command>` says as `user`. It must succeed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "deploy.ops", *command),
        cwd=REPOSITORY,
        env={**os.environ, **secured.environment(user), **more},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    return said.decode()


# --- the services, each as its own user of Kafka and of PostgreSQL -----------------------------------------------


class SecuredStack(Stack):
    """The five services over a broker and a database that are there already."""

    def __init__(self, directory: Path, secured: Secured, urls: Mapping[str, str], more: Mapping[str, str]) -> None:
        super().__init__(
            directory,
            ExternalBroker(secured.kafka.bootstrap_servers),
            environment=more,
            of_service={
                service: {**secured.environment(service), "DATABASE_URL": urls[service]} for service in SERVICES
            },
        )

    async def start(self, said: object = None) -> None:
        for service in self.services:
            self.start_service(service)
        await self.wait_until_ready(*self.services)


@pytest.fixture
async def urls(database: str) -> AsyncIterator[dict[str, str]]:
    async with roles_of(database) as (_, urls):
        yield urls


@asynccontextmanager
async def roles_of(database: str) -> AsyncIterator[tuple[Roles, dict[str, str]]]:
    """The database's URL for `owner` and each service, by roles that go again."""
    roles = Roles(f"test_{uuid.uuid4().hex[:8]}")
    passwords = {who: SecretStr(secrets.token_urlsafe(24)) for who in roles.all}
    await postgres_roles.apply(database, roles, passwords)
    assert await postgres_roles.verify(database, roles) == []
    yield roles, {who: url_of(database, role, passwords[who]) for who, role in roles.all.items()}
    connection = await asyncpg.connect(database)
    try:
        await connection.execute(f"REASSIGN OWNED BY {roles.owner} TO CURRENT_USER")
        for role in roles.all.values():
            await connection.execute(f"DROP OWNED BY {role}")
            await connection.execute(f"DROP ROLE {role}")
    finally:
        await connection.close()


async def test_every_service_works_with_its_own_rights_alone(
    secured: Secured, urls: dict[str, str], run_directory: Path
) -> None:
    credentials = Credentials()
    receivers = Receivers(credentials)
    customer = f"acl-{uuid.uuid4().hex}"
    async with receivers.listening():
        more = environment(credentials, receiver_url=receivers.url, mail_port=receivers.mail_port)
        async with SecuredStack(run_directory / "secured-stack", secured, urls, more) as stack:
            await publish(secured, customer)
            outcome = await first_of(secured, OPERATIONS, "notifications.outcomes")
            queued = await first_of(secured, "agents", *(topic.name for topic in topics.QUEUES))
            async with httpx.AsyncClient(
                base_url=stack.url("desk"), headers={"Authorization": f"Bearer {credentials.agent}"}, trust_env=False
            ) as agent:
                claimed = await eventually(lambda: claim(agent, queued["queue"]), 60)
            activity = await first_of(secured, OPERATIONS, "tickets.activity")
            clock = await first_of(secured, OPERATIONS, "sla.events")
    ticket = queued["ticket_id"]
    assert claimed is not None
    assert claimed["ticket_id"] == ticket
    assert (activity["ticket_id"], activity["kind"]) == (ticket, "claimed")
    assert (outcome["ticket_id"], clock["ticket_id"]) == (ticket, ticket)


async def test_a_role_reaches_its_own_schema_only(urls: dict[str, str]) -> None:
    for service in SERVICES:
        connection = await asyncpg.connect(urls[service])
        try:
            for schema in SERVICES:
                tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = $1", schema)
                assert tables
                for (table,) in tables:
                    if schema == service:
                        await connection.fetch(f"SELECT * FROM {schema}.{table} LIMIT 1")
                    else:
                        with pytest.raises(asyncpg.InsufficientPrivilegeError):
                            await connection.fetch(f"SELECT * FROM {schema}.{table} LIMIT 1")
            for forbidden in (
                f"CREATE TABLE {service}.mine (n int)",
                f"DROP TABLE {service}.{tables[0][0]}" if service == "desk" else f"DROP SCHEMA {service} CASCADE",
                "CREATE SCHEMA mine",
                "CREATE TEMPORARY TABLE mine (n int)",
            ):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute(forbidden)
        finally:
            await connection.close()


async def test_tables_of_a_later_migration_are_the_services_to_use(urls: dict[str, str]) -> None:
    owner, intake, desk = [await asyncpg.connect(urls[who]) for who in ("owner", "intake", "desk")]
    try:
        await owner.execute("CREATE TABLE intake.later (n bigint GENERATED ALWAYS AS IDENTITY, word text)")
        assert await intake.fetchval("INSERT INTO intake.later (word) VALUES ('new') RETURNING n") == 1
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await desk.fetch("SELECT * FROM intake.later")
        await owner.execute("DROP TABLE intake.later")
    finally:
        for connection in (owner, intake, desk):
            await connection.close()


async def test_roles_may_be_made_before_there_is_a_table_and_their_owner_then_migrates(database_server: str) -> None:
    """As compose does on its first start: nobody migrates as a superuser."""
    database = await create_database(database_server)
    try:
        async with roles_of(database) as (roles, urls):
            await upgrade_all(urls["owner"])
            assert await postgres_roles.verify(database, roles) == []
            intake = await asyncpg.connect(urls["intake"])
            try:
                assert await intake.fetchval("SELECT count(*) FROM intake.messages") == 0
            finally:
                await intake.close()
    finally:
        await drop_database(database_server, database)


async def test_a_right_too_many_in_the_database_is_named(database: str, urls: dict[str, str]) -> None:
    owner = await asyncpg.connect(urls["owner"])
    try:
        prefix = (await owner.fetchval("SELECT current_user")).removesuffix("_owner")
        await owner.execute(f"GRANT USAGE ON SCHEMA intake TO {prefix}_desk")
        await owner.execute(f"GRANT SELECT ON intake.messages TO {prefix}_desk")
        await owner.execute(f"REVOKE INSERT ON desk.outbox FROM {prefix}_desk")
        found = [
            f"{prefix}_desk may use schema intake",
            f"{prefix}_desk may not INSERT desk.outbox",
            f"{prefix}_desk may SELECT intake.messages",
        ]
        assert sorted(await postgres_roles.verify(database, Roles(prefix))) == sorted(found)
        await postgres_roles.apply(database, Roles(prefix), {})
        assert await postgres_roles.verify(database, Roles(prefix)) == []
    finally:
        await owner.close()


async def publish(secured: Secured, customer: str) -> None:
    """One message, as the channels' user."""
    body = {
        "brand": "u_wallet",
        "channel": "app_chat",
        "message_id": customer,
        "customer": {"id": customer},
        "text": "充值没到账，钱扣了",
        "sent_at": datetime.now(UTC).isoformat(),
    }
    producer = AIOKafkaProducer(**connection_options(secured.settings("channels")), enable_idempotence=True)
    async with producer:
        await producer.send_and_wait(
            topics.CHANNEL_MESSAGES.name, json.dumps(body).encode(), key=f"u_wallet/app_chat/{customer}".encode()
        )


async def first_of(secured: Secured, user: str, *names: str, holding: str = "{") -> dict[str, Any]:
    """The body of the first record on these topics that holds these characters, as `user` reads it."""
    consumer = AIOKafkaConsumer(
        *names,
        **connection_options(secured.settings(user)),
        group_id=f"{user}.{uuid.uuid4().hex}",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    async with consumer, asyncio.timeout(90):
        record = await consumer.getone()
        while holding.encode() not in record.value:
            record = await consumer.getone()
        await consumer.commit()
    body: dict[str, Any] = json.loads(record.value)
    return body


async def claim(agent: httpx.AsyncClient, queue: str) -> dict[str, Any] | None:
    answer = await agent.post(f"/v1/queues/{queue}/claim")
    return answer.json() if answer.status_code == httpx.codes.OK else None


# --- who may do what: tried, not asked ---------------------------------------------------------------------------


async def test_everyone_may_what_is_declared_and_nothing_else(secured: Secured) -> None:
    """Each user writes to every topic, reads every topic, and commits in every group; the broker decides."""
    await asyncio.to_thread(fill, secured)
    allowed: dict[str, dict[str, str]] = {}
    for user in PRINCIPALS:
        writes, reads, groups = await asyncio.gather(
            asyncio.to_thread(tried_writes, secured, user),
            asyncio.to_thread(tried_reads, secured, user),
            asyncio.to_thread(tried_groups, secured, user),
        )
        allowed[user] = {
            **{
                topic.name: ("r" if reads[topic.name] else "-") + ("w" if writes[topic.name] else "-")
                for topic in topics.ALL
            },
            **{f"group {name}": "g" if groups[name] else "-" for name in groups},
        }
    print_matrix(allowed)
    assert allowed == {user: declared_for(user) for user in PRINCIPALS}


def declared_for(user: str) -> dict[str, str]:
    """What `user` may, reckoned from the topics, not from the ACLs."""
    everything = user == OPERATIONS
    return {
        **{
            topic.name: ("r" if everything or user in readers_of(topic) else "-")
            + ("w" if everything or user in writers_of(topic) else "-")
            for topic in topics.ALL
        },
        **{
            f"group {name}": "g"
            if name.startswith(f"{user}.") or (everything and not name.startswith("agents."))
            else "-"
            for name in GROUPS
        },
    }


def fill(secured: Secured) -> None:
    """A record at the beginning of each topic, so that reading has something to find."""
    producer = Producer({**client_configuration(secured.kafka.settings), "enable.idempotence": True})
    for topic in topics.ALL:
        producer.produce(topic.name, b"tried", partition=0)
    assert producer.flush(VERDICT_SECONDS) == 0


def tried_writes(secured: Secured, user: str) -> dict[str, bool]:
    """Which topics took a record. Idempotent, as the services produce; who may write nowhere cannot even begin so."""
    verdicts: dict[str, bool] = {}

    def on_delivery(error: KafkaError | None, message: Message) -> None:
        assert error is None or error.code() in DENIED, error
        verdicts[str(message.topic())] = error is None

    producer = Producer(secured.configuration(user, **{"enable.idempotence": user != "keda"}))
    for topic in topics.ALL:
        producer.produce(topic.name, b"tried", partition=0, on_delivery=on_delivery)
    assert producer.flush(VERDICT_SECONDS) == 0
    return verdicts


def tried_reads(secured: Secured, user: str) -> dict[str, bool]:
    """Which topics gave a record. Without a group: groups are tried by themselves."""
    verdicts: dict[str, bool] = {}
    consumer = Consumer(secured.configuration(user, **{"group.id": "none.is.joined", "enable.auto.commit": False}))
    try:
        for topic in topics.ALL:
            # Who may not even see a topic is refused when he asks where it lies; a client then never gets to read.
            error = consumer.list_topics(topic.name, VERDICT_SECONDS).topics[topic.name].error
            assert error is None or error.code() in DENIED, error
            if error is not None:
                verdicts[topic.name] = False
        seen = [topic.name for topic in topics.ALL if topic.name not in verdicts]
        consumer.assign([TopicPartition(name, 0, OFFSET_BEGINNING) for name in seen])
        deadline = time.monotonic() + VERDICT_SECONDS
        while len(verdicts) < len(topics.ALL):
            assert time.monotonic() < deadline, f"{user}: no verdict on {sorted(set(topics.BY_NAME) - set(verdicts))}"
            message = consumer.poll(0.5)
            if message is None:
                continue
            error = message.error()
            if (error is not None and error.code() not in DENIED) or message.topic() is None:
                continue  # e.g. about the group, which is not joined
            verdicts[str(message.topic())] = error is None
    finally:
        consumer.close()
    return verdicts


def tried_groups(secured: Secured, user: str) -> dict[str, bool]:
    """In which groups an offset could be committed. Kafka looks at the group first, then at the topic."""
    readable = next((topic.name for topic in topics.ALL if user in readers_of(topic)), topics.CHANNEL_MESSAGES.name)
    client = AdminClient(secured.configuration(user))
    asked = {
        name: client.alter_consumer_group_offsets(
            [ConsumerGroupTopicPartitions(name, [TopicPartition(readable, 0, 0)])], request_timeout=VERDICT_SECONDS
        )[name]
        for name in GROUPS
    }
    verdicts = {}
    for name, future in asked.items():
        try:
            (partition,) = future.result().topic_partitions
            error = partition.error
        except KafkaException as refused:
            error = refused.args[0]
        assert error is None or error.code() in DENIED, error
        verdicts[name] = error is None
    return verdicts


def print_matrix(allowed: Mapping[str, Mapping[str, str]]) -> None:
    """Rows: topics and groups; columns: users."""
    print()
    print(" ".join(["".ljust(24), *(user.ljust(10) for user in allowed)]))
    for row in next(iter(allowed.values())):
        print(" ".join([row.ljust(24), *(allowed[user][row].ljust(10) for user in allowed)]))


# --- a service whose rights do not do ----------------------------------------------------------------------------


@asynccontextmanager
async def running(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    app = service.app()
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service")
    async with app.router.lifespan_context(app), client:
        yield client


async def missing(client: httpx.AsyncClient) -> dict[str, str]:
    found: dict[str, str] = (await client.get("/readyz")).json()["missing"]
    return found


async def test_a_service_that_may_not_see_its_topics_says_who_must_be_granted_what(
    secured: Secured, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    for user, name, topic, wanted in (
        ("keda", "desk", topics.DEAD_LETTERS, r"missing topics: dead\.letters; .*, or grant User:keda its rights"),
        ("desk", "intake", topics.TICKETS_ACTIVITY, r"GroupAuthorizationFailedError: .*; User:desk lacks the right"),
    ):
        caplog.clear()
        service = Service(name, secured.settings(user).model_copy(update={"database_url": SecretStr(database)}))
        service.subscribe([topic], never, description="")
        async with running(service) as client:
            await eventually(lambda wanted=wanted: said(caplog, wanted), 60)  # type: ignore[misc]
            assert (await missing(client))["broker"] == "not consuming yet"


async def test_a_right_that_is_taken_away_stops_the_work_and_loses_nothing(
    secured: Secured, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The desk passes tickets on to a topic that it may read and not write, until somebody grants it."""
    tried: list[float] = []
    settings = secured.settings("desk").model_copy(
        update={"database_url": SecretStr(database), "delivery_retry_seconds": 0.1}
    )
    service = Service("desk", settings)

    async def pass_on(batch: Sequence[Received[Any]]) -> None:
        tried.append(time.monotonic())
        await service.publisher.publish(
            [Outgoing(topics.PEAKS_EVENTS.name, item.event, trace_of(item.event)) for item in batch]
        )

    service.subscribe([topics.NOTIFICATIONS_OUTCOMES], pass_on, description="")
    outcome = NotificationOutcome(
        notification_id=uuid.uuid4(),
        ticket_id=uuid.uuid4(),
        brand="u_wallet",
        kind=NotificationKind.ACKNOWLEDGEMENT,
        output=Output.WEBHOOK,
        status=NotificationStatus.DELIVERED,
        attempt=1,
        at=datetime.now(UTC),
    )
    notifier = Service("notifier", secured.settings("notifier"))
    await notifier.broker.connect()
    await notifier.publisher.publish([Outgoing(topics.NOTIFICATIONS_OUTCOMES.name, outcome, trace_of(outcome))])
    await notifier.broker.stop()
    lacking = Acl("desk", Resource.TOPIC, topics.PEAKS_EVENTS.name, Operation.WRITE)
    async with running(service) as client:
        refused = r"PublishFailed: \d+ of \d+ records were refused: .*peaks\.events.*; User:desk lacks the right"
        await eventually(lambda: said(caplog, refused), 60)

        async def told() -> bool:
            return (await missing(client)).get("desk.notifications.outcomes") == "paused: PublishFailed"

        await eventually(told, 60)
        begun = len(tried)
        # At most three tries come close together, then it pauses for 2.5 s or more.
        await eventually(lambda: more_than(tried, begun + 4), 60)
        assert tried[begun + 4] - tried[begun] > 2, "it spins"
        await asyncio.to_thread(secured.authorization.apply, secured.authorization.compare([*acls_of(), lacking]))
        try:
            await eventually(lambda: is_ready(client), 60)
        finally:
            await asyncio.to_thread(secured.authorization.apply, secured.authorization.compare(acls_of()))
    passed_on = await first_of(secured, OPERATIONS, topics.PEAKS_EVENTS.name, holding=str(outcome.notification_id))
    assert passed_on["ticket_id"] == str(outcome.ticket_id)


async def never(batch: Sequence[Received[Any]]) -> None:
    raise AssertionError("a record came where none may be read")


async def said(caplog: pytest.LogCaptureFixture, pattern: str) -> bool:
    return any(re.search(pattern, record.getMessage()) for record in caplog.records)


async def more_than(found: Sequence[object], count: int) -> bool:
    return len(found) > count


async def is_ready(client: httpx.AsyncClient) -> bool:
    return (await client.get("/readyz")).status_code == httpx.codes.OK


# --- signing in --------------------------------------------------------------------------------------------------


async def test_nobody_comes_in_without_certificate_user_and_password(secured: Secured, tmp_path: Path) -> None:
    right = secured.settings("intake")
    await sign_in(right)
    refused = {
        "plaintext": right.model_copy(update={"kafka_security_protocol": "PLAINTEXT"}),
        "no encryption": right.model_copy(update={"kafka_security_protocol": "SASL_PLAINTEXT"}),
        "no user": right.model_copy(update={"kafka_security_protocol": "SSL"}),
        "wrong password": right.model_copy(update={"kafka_sasl_password": secured.passwords["desk"]}),
        "unknown user": right.model_copy(update={"kafka_sasl_username": "nobody"}),
        "another authority": right.model_copy(update={"kafka_ssl_cafile": Security(tmp_path).authority.certificate}),
    }
    came_in = [how for how, settings in refused.items() if not await is_refused(settings)]
    assert came_in == []


async def test_the_controllers_ask_for_a_certificate(secured: Secured) -> None:
    """Who is let in there is a super user: only brokers hold a certificate."""
    properties = (secured.kafka.directory / "server.properties").read_text()
    port = int(properties.split("controller.quorum.voters=1@")[1].split("\n")[0].rsplit(":", 1)[1])
    trusting = ssl.create_default_context(cafile=str(secured.security.authority.certificate))
    with pytest.raises(
        ssl.SSLError, match=r"CERTIFICATE_REQUIRED|BAD_CERTIFICATE|certificate required|bad certificate"
    ):
        await asyncio.wait_for(first_byte(port, trusting), 30)


async def test_a_password_changes_without_a_moment_at_which_none_holds(secured: Secured) -> None:
    old = secured.settings("keda")
    following = SecretStr(secrets.token_urlsafe(24))
    new = old.model_copy(update={"kafka_sasl_mechanism": "SCRAM-SHA-256", "kafka_sasl_password": following})
    await asyncio.to_thread(secured.authorization.set_password, "keda", following, "SCRAM-SHA-256")
    await sign_in(old)
    await sign_in(new)
    await operate(secured, ADMIN, "users", "remove", "keda", "--mechanism", "SCRAM-SHA-512", "--yes")
    await sign_in(new)
    assert await is_refused(old)
    await asyncio.to_thread(secured.authorization.set_password, "keda", secured.passwords["keda"])


async def test_an_administrator_who_is_none_is_told_so(secured: Secured) -> None:
    operator = Authorization(secured.settings(OPERATIONS))
    assert operator.compare(acls_of()).none  # it may look
    with pytest.raises(NotPermitted, match=r"as User:operations: it has no right to"):
        operator.set_password("keda", SecretStr("x" * 24))
    with pytest.raises(NotPermitted, match=r"as User:intake: it has no right to"):
        Authorization(secured.settings("intake")).acls()
    with pytest.raises(NotPermitted, match=r"as User:intake: it has no right to"):
        Authorization(secured.settings("intake")).users()
    with pytest.raises(ValueError, match="at least 20"):
        secured.authorization.set_password("keda", SecretStr("short"))


async def sign_in(settings: CommonSettings) -> None:
    client = AIOKafkaAdminClient(**connection_options(settings), request_timeout_ms=10_000)
    try:
        await client.start()
        await client.list_topics()
    finally:
        await client.close()


async def is_refused(settings: CommonSettings) -> bool:
    try:
        await sign_in(settings)
    except KafkaConnectionError:
        return True
    return False


async def first_byte(port: int, trusting: ssl.SSLContext) -> bytes:
    """What a server says to who shows no certificate: in TLS 1.3 it comes behind the client's part of the handshake."""
    reader, writer = await asyncio.open_connection(HOST, port, ssl=trusting)
    try:
        return await reader.read(1)
    finally:
        writer.transport.abort()
