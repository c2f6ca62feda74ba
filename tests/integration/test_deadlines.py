"""The deadline engine and the outbox on real PostgreSQL: on time, once, on any number of replicas, in order."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.broker import PublishFailed
from shared.cloudevents import Outgoing, trace_of
from shared.database import Database, service_metadata
from shared.deadlines import Deadline, Deadlines, Runner, deadlines_table, fire_in_transaction
from shared.events import ActivityKind, TicketActivity
from shared.outbox import Outbox, Relay, outbox_table
from shared.settings import CommonSettings

SCHEMA = "engine_test"
METADATA = service_metadata(SCHEMA)
OUTBOX = outbox_table(METADATA)
DEADLINES = deadlines_table(METADATA)


@pytest.fixture
async def database(new_database: Callable[[], Awaitable[str]]) -> AsyncIterator[Database]:
    database = Database(CommonSettings(database_url=await new_database()), service="test")
    async with database.transaction() as connection:
        await connection.execute(text(f"CREATE SCHEMA {SCHEMA}"))
        await connection.run_sync(METADATA.create_all)
        await connection.execute(
            text(f"CREATE TABLE {SCHEMA}.fired (id uuid, at timestamptz, late_ms double precision)")
        )
    yield database
    await database.close()


def deadline(seconds: float, kind: str = "test") -> Deadline:
    return Deadline(uuid.uuid4(), kind, uuid.uuid4(), datetime.now(UTC) + timedelta(seconds=seconds))


class Replica:
    """A runner whose effect is a row per deadline."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.deadlines = Deadlines(SCHEMA)
        on_due = fire_in_transaction(database, self.deadlines, self.fire, service="test", limit=7)
        self.runner = Runner(database, self.deadlines, on_due)

    async def fire(self, connection: AsyncConnection, due: Sequence[Deadline], now: datetime) -> None:
        for item in due:
            await connection.execute(
                text(f"INSERT INTO {SCHEMA}.fired VALUES (:id, :at, :late)"),
                {"id": item.id, "at": now, "late": item.lateness_seconds(now) * 1000},
            )

    async def schedule(self, *deadlines: Deadline) -> None:
        async with self.database.transaction() as connection:
            await self.deadlines.schedule(connection, deadlines)


async def fired(database: Database, at_least: int, seconds: float = 20) -> list[uuid.UUID]:
    """Ids of what fired, once there are so many."""
    async with asyncio.timeout(seconds):
        while True:
            async with database.transaction() as connection:
                rows = (await connection.execute(text(f"SELECT id FROM {SCHEMA}.fired ORDER BY at"))).scalars().all()
            if len(rows) >= at_least:
                return list(rows)
            await asyncio.sleep(0.01)


async def test_three_replicas_fire_each_deadline_once(database: Database) -> None:
    replicas = [Replica(database) for _ in range(3)]
    wanted = [deadline(0.3 + index / 200) for index in range(100)]
    runners = [asyncio.create_task(replica.runner.run()) for replica in replicas]
    try:
        await replicas[0].schedule(*wanted)
        found = await fired(database, 100)
    finally:
        for runner in runners:
            runner.cancel()
        await asyncio.gather(*runners, return_exceptions=True)
    assert sorted(found) == sorted(item.id for item in wanted)


async def test_an_earlier_deadline_wakes_the_sleeper_and_nothing_fires_before_its_time(database: Database) -> None:
    replica = Replica(database)
    late, soon = deadline(60), deadline(0.2)
    runner = asyncio.create_task(replica.runner.run())
    try:
        await replica.schedule(late)
        await replica.schedule(soon)
        assert await fired(database, 1) == [soon.id]
    finally:
        runner.cancel()
        await asyncio.gather(runner, return_exceptions=True)
    async with database.transaction() as connection:
        early = await connection.scalar(text(f"SELECT count(*) FROM {SCHEMA}.fired WHERE late_ms <= 0"))
    assert early == 0


async def test_what_was_due_while_nobody_ran_fires_at_once_and_says_how_late(database: Database) -> None:
    replica = Replica(database)
    missed = deadline(0)
    await replica.schedule(missed)
    async with database.transaction() as connection:  # as if it had been written an hour ago
        await connection.execute(
            text(
                f"UPDATE {SCHEMA}.deadlines "
                "SET due_at = due_at - '1 hour'::interval, planned_at = planned_at - '1 hour'::interval"
            )
        )
    runner = asyncio.create_task(replica.runner.run())
    try:
        assert await fired(database, 1) == [missed.id]
    finally:
        runner.cancel()
        await asyncio.gather(runner, return_exceptions=True)
    async with database.transaction() as connection:
        late_ms = await connection.scalar(text(f"SELECT late_ms FROM {SCHEMA}.fired"))
    assert late_ms >= 3_600_000


async def test_a_promise_that_was_broken_when_it_was_written_is_not_the_engines_lateness(database: Database) -> None:
    replica = Replica(database)
    await replica.schedule(deadline(-3600))
    async with database.transaction() as connection:
        (item,) = await replica.deadlines.take_due(connection, datetime.now(UTC))
        assert item.lateness_seconds(datetime.now(UTC)) < 60


async def test_scheduling_again_moves_and_cancelling_ends(database: Database) -> None:
    replica = Replica(database)
    moved, cancelled = deadline(-1), deadline(-1)
    await replica.schedule(moved, cancelled)
    later = datetime.now(UTC) + timedelta(hours=1)
    await replica.schedule(Deadline(moved.id, moved.kind, moved.subject, later))
    async with database.transaction() as connection:
        await replica.deadlines.cancel(connection, [cancelled.id])
        assert await replica.deadlines.take_due(connection, datetime.now(UTC)) == []
        assert await replica.deadlines.next_due(connection) == later


async def test_when_the_effect_fails_the_deadline_stays(database: Database) -> None:
    replica = Replica(database)
    await replica.schedule(deadline(-1))

    async def failing(connection: AsyncConnection, due: Sequence[Deadline], now: datetime) -> None:
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await fire_in_transaction(database, replica.deadlines, failing, service="test")()
    on_due = fire_in_transaction(database, replica.deadlines, replica.fire, service="test")
    assert await on_due() == 1
    assert await on_due() == 0


class RecordingPublisher:
    def __init__(self) -> None:
        self.broken = False
        self.published: list[str] = []

    async def publish(self, outgoing: Sequence[Outgoing]) -> None:
        if self.broken:
            raise PublishFailed("the broker is away")
        for item in outgoing:
            assert isinstance(item.event, TicketActivity)
            self.published.append(item.event.activity_id)
            assert item.traceparent == trace_of(item.event)


def act(number: int) -> Outgoing:
    event = TicketActivity(
        ticket_id=uuid.UUID(int=7),
        activity_id=f"a{number}",
        kind=ActivityKind.CLAIMED,
        agent="li",
        at=datetime.now(UTC),
    )
    return Outgoing("tickets.activity", event, trace_of(event))


async def test_the_outbox_publishes_in_order_whatever_fails_in_between(database: Database) -> None:
    outbox, publisher = Outbox(SCHEMA), RecordingPublisher()
    relays = [Relay(database, outbox, publisher, service="test") for _ in range(2)]  # type: ignore[arg-type]
    for start in (0, 300):
        async with database.transaction() as connection:
            await outbox.add(connection, [act(number) for number in range(start, start + 300)])
    publisher.broken = True
    with pytest.raises(PublishFailed):
        await relays[0].publish_once()
    publisher.broken = False
    while sum(await asyncio.gather(*(relay.publish_once() for relay in relays))):
        pass
    assert publisher.published == [f"a{number}" for number in range(600)]


async def test_what_is_rolled_back_is_not_published(database: Database) -> None:
    outbox, publisher = Outbox(SCHEMA), RecordingPublisher()

    async def write_and_fail() -> None:
        async with database.transaction() as connection:
            await outbox.add(connection, [act(1)])
            raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await write_and_fail()
    assert await Relay(database, outbox, publisher, service="test").publish_once() == 0  # type: ignore[arg-type]
    assert publisher.published == []
