"""What Prometheus is told, on real databases and a real broker: also when the broker is away, partitions move, and
strangers send what they like.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from aiokafka import AIOKafkaConsumer
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text

from services.desk import storage as desk_storage
from services.desk.domain import Rules
from services.desk.handlers import Handlers as DeskHandlers
from services.desk.live import LiveQueues
from services.intake.acceptance import Acceptance
from services.intake.app import build as build_intake
from services.intake.handlers import Handlers as IntakeHandlers
from services.intake.settings import Settings as IntakeSettings
from services.notifier import storage as notifier_storage
from services.sla_timer import storage as sla_storage
from services.sla_timer.domain.reports import By, Question
from services.sla_timer.forecasts import Asked, forecast_of
from services.sla_timer.hours import HoursOfWeek
from services.sla_timer.in_force import PoliciesInForce
from services.sla_timer.outlook import Outlook
from services.sla_timer.reports import read
from shared import metrics, topics
from shared.broker import Publisher, build_broker
from shared.cloudevents import Origin, Outgoing, Received, trace_of
from shared.database import Database
from shared.delivery import Subscription
from shared.events import ActivityKind, ChannelMessage, Customer, Target, TicketActivity
from shared.http import token_hash
from shared.lag import Lag
from shared.outbox import Outbox, Relay
from shared.service import Service
from shared.settings import CommonSettings
from shared.taxonomy import Channel, Priority, Queue
from tests.support.brands import write_brand
from tests.support.sla_timer import settings_for
from tests.support.surroundings import Kafka
from tests.support.waiting import eventually
from tests.unit.desk.samples import routed


def value(name: str, **labels: str) -> float | None:
    return metrics.REGISTRY.get_sample_value(f"switchyard_{name}", labels)


def series(name: str, **labels: str) -> dict[tuple[str, ...], float]:
    """The values of a metric by those labels that are not among `labels`, in the order of their names."""
    return {
        tuple(text for label, text in sorted(sample.labels.items()) if label not in labels): sample.value
        for family in metrics.REGISTRY.collect()
        for sample in family.samples
        if sample.name == f"switchyard_{name}" and labels.items() <= sample.labels.items()
    }


_FILLED: Final = (
    "sla_timer.arrivals, sla_timer.clocks, sla_timer.outbox, desk.tickets, desk.requests, notifier.notifications, "
    "notifier.deadlines"
)


@pytest.fixture
async def fresh(database: str) -> AsyncIterator[Database]:
    """The module's database, empty."""
    connected = Database(CommonSettings(database_url=database), service="sla_timer")
    async with connected.transaction() as connection:
        await connection.execute(text(f"TRUNCATE {_FILLED} RESTART IDENTITY"))
    yield connected
    await connected.close()


class Nowhere(Publisher):
    """For a service whose broker is away, or that is not asked what it publishes."""

    def __init__(self) -> None:
        pass

    async def publish(self, outgoing: Sequence[Outgoing]) -> None:
        pass


# --- what every service shows --------------------------------------------------------------------------------------


async def test_what_waits_for_a_broker_that_is_away_is_measured(fresh: Database) -> None:
    outbox = Outbox("sla_timer")
    relay = Relay(fresh, outbox, publisher=Nowhere(), service="sla_timer")
    await relay.measure()
    assert (value("outbox_depth", service="sla_timer"), value("outbox_oldest_age_seconds", service="sla_timer")) == (
        0,
        0,
    )
    event = TicketActivity(
        ticket_id=uuid.uuid4(), activity_id="a", kind=ActivityKind.CLAIMED, agent="li", at=datetime.now(UTC)
    )
    async with fresh.transaction() as connection:
        await outbox.add(connection, [Outgoing(topics.SLA_EVENTS.name, event, trace_of(event))] * 3)
        await connection.execute(
            text("UPDATE sla_timer.outbox SET stored_at = stored_at - interval '1 hour' WHERE id = 1")
        )
    await relay.measure()
    assert value("outbox_depth", service="sla_timer") == 3
    assert value("outbox_oldest_age_seconds", service="sla_timer") == pytest.approx(3600, abs=300)


async def test_the_pool_and_the_tables_are_measured(fresh: Database) -> None:
    def pool() -> tuple[float | None, ...]:
        return tuple(
            value("database_pool_connections", service="sla_timer", state=state) for state in ("in_use", "idle")
        )

    async with fresh.transaction(), fresh.transaction():
        assert pool() == (2, 0)
    assert pool() == (0, 2)
    assert value("database_pool_connections", service="sla_timer", state="most") == fresh.pool_most
    await fresh.measure_size()
    before = value("database_size_bytes", service="sla_timer")
    async with fresh.transaction() as connection:
        await connection.execute(
            text(
                "INSERT INTO sla_timer.arrivals (ticket_id, brand, queue, channel, at) "
                "SELECT gen_random_uuid(), 'upay', 'payments', 'email', now() FROM generate_series(1, 5000)"
            )
        )
    await fresh.measure_size()
    assert (value("database_size_bytes", service="sla_timer") or 0) >= (before or 0) + 500_000


async def test_series_that_alerts_watch_are_there_before_the_first_fault() -> None:
    name = f"zero-{uuid.uuid4().hex}"
    service = Service(name, CommonSettings())

    async def nothing(_: Sequence[Received[Any]]) -> None:
        return None

    service.subscribe([topics.TICKETS_ACTIVITY], nothing, description="")
    service.announce(topics.SLA_EVENTS)
    await service.database.close()
    group = f"{name}.tickets.activity"
    assert set(series("publish_failures_total", service=name).items()) == {(("dead.letters",), 0), (("sla.events",), 0)}
    assert {labels[0] for labels in series("dead_letters_total", group=group, topic="tickets.activity")} == {
        "malformed", "invalid", "unknown_type", "refused", "handler_failed",
    }  # fmt: skip
    assert value("batch_retries_total", group=group) == 0
    assert value("consumer_paused", group=group) == 0


# --- lag -----------------------------------------------------------------------------------------------------------


class _Listening:
    """A consumer of one topic as a subscription has it, without the loop around."""

    def __init__(self, kafka: Kafka, group: str) -> None:
        async def nothing(_: Sequence[Received[Any]]) -> None:
            return None

        self.subscription = Subscription(
            service="test",
            group=group,
            topics=[topics.TICKETS_ACTIVITY],
            handler=nothing,
            publisher=Nowhere(),
            settings=kafka.settings,
        )
        self.consumer = AIOKafkaConsumer(
            topics.TICKETS_ACTIVITY.name,
            bootstrap_servers=kafka.bootstrap_servers,
            group_id=group,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )
        self.subscription.consumer = lambda: self.consumer
        self.lag = Lag(self.subscription)

    async def measured(self) -> dict[tuple[str, ...], float]:
        """Lag by partition."""
        await self.lag.measure()
        return series("consumer_lag_records", group=self.subscription.group, topic=topics.TICKETS_ACTIVITY.name)

    async def has(self, partitions: int) -> bool:
        await self.consumer.getmany(timeout_ms=50)
        return len(self.consumer.assignment()) == partitions


async def test_lag_grows_while_a_consumer_is_held_up_and_leaves_with_its_partitions(kafka: Kafka) -> None:
    group = f"lag-{uuid.uuid4().hex}"
    one = _Listening(kafka, group)
    await one.consumer.start()
    try:
        await eventually(lambda: one.has(topics.TICKETS_ACTIVITY.partitions), 60)
        await one.consumer.seek_to_end()
        assert set((await one.measured()).values()) == {0}

        # It fetches nothing from now on, and the topic grows.
        await _publish(kafka, 20)
        one.subscription.busy = True
        metrics.LOOP_PROGRESS.labels(group).set(1)
        assert sum((await one.measured()).values()) >= 20
        assert value("loop_progress_timestamp_seconds", group=group) == 1

        # What is in hand is not handled yet, though there is nothing further to take.
        await one.consumer.seek_to_end()
        partition = sorted(one.consumer.assignment())[0]
        one.subscription.in_hand = {(partition.topic, partition.partition): 5}
        assert sum((await one.measured()).values()) >= 5
        assert value("loop_progress_timestamp_seconds", group=group) == 1

        # Nothing to do is progress.
        one.subscription.busy, one.subscription.in_hand = False, {}
        await one.consumer.seek_to_end()
        await one.measured()
        assert (value("loop_progress_timestamp_seconds", group=group) or 0) > 1

        other = _Listening(kafka, group)
        await other.consumer.start()
        try:

            async def shared_out() -> bool:
                both = [await each.has(topics.TICKETS_ACTIVITY.partitions // 2) for each in (one, other)]
                return all(both)

            await eventually(shared_out, 60)
            kept = {(str(partition.partition),) for partition in one.consumer.assignment()}
            assert set(await one.measured()) == kept
        finally:
            await other.consumer.stop()
    finally:
        await one.consumer.stop()


async def _publish(kafka: Kafka, count: int) -> None:
    broker = build_broker(kafka.settings, service="test")
    await broker.connect()
    events = [
        TicketActivity(
            ticket_id=uuid.uuid4(),
            activity_id=uuid.uuid4().hex,
            kind=ActivityKind.CLAIMED,
            agent="li",
            at=datetime.now(UTC),
        )
        for _ in range(count)
    ]
    try:
        await Publisher(broker, kafka.settings, service="test").publish(
            [Outgoing(topics.TICKETS_ACTIVITY.name, event, trace_of(event)) for event in events]
        )
    finally:
        await broker.stop()


# --- strangers -----------------------------------------------------------------------------------------------------

_CLOSED: Mapping[str, frozenset[str]] = {
    "channel": frozenset({*Channel, "http"}),
    "queue": frozenset({*Queue, "none"}),
    "priority": frozenset({*Priority, "none"}),
    "method": frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "other"}),
}


async def test_what_strangers_send_makes_no_label(database: str, tmp_path: Path) -> None:
    key = f"key-{uuid.uuid4().hex}"
    keys = [{"key_sha256": token_hash(key)}]
    brands = write_brand(tmp_path / "brands", "upay", channels={"app_chat": {"hours": "always", "keys": keys}})
    settings = IntakeSettings(database_url=database, brands_directory=brands)
    service = build_intake(settings)
    evil = uuid.uuid4().hex[:8]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(service.app()), base_url="http://intake") as client:
        before = await _labels(client)
        for number in range(20):
            name = f"evil_{evil}_{number}"
            await client.get(f"/{name}")
            await client.request(f"{evil}{number}".upper(), "/v1/messages")
            await client.post(f"/v1/channels/{name}/{name}", json={"x": 1})
            await client.post(f"/v1/channels/whatsapp/{name}", json={"x": 1})
            await client.post("/v1/messages", json=_message(brand=name), headers={"X-API-Key": key})
            await client.post("/v1/messages", json=_message(channel=name), headers={"X-API-Key": name})
        accepted = await client.post("/v1/messages", json=_message(), headers={"X-API-Key": key})
        assert accepted.status_code < 300, accepted.text
        await _accept_from_kafka(service, [f"evil_{evil}_{number}" for number in range(20)])
        after = await _labels(client)
    await service.database.close()
    assert not [text for texts in after.values() for text in texts if evil in text.lower()]
    assert after["brand"] - before.get("brand", set()) <= {"upay", "other"}
    assert "other" in after["brand"]
    assert "unmatched" in after["route"]
    for label, closed in _CLOSED.items():
        assert after.get(label, set()) - before.get(label, set()) <= closed, label


def _message(**changes: Any) -> dict[str, Any]:
    return {
        "brand": "upay",
        "channel": "app_chat",
        "message_id": uuid.uuid4().hex,
        "customer": {"id": uuid.uuid4().hex},
        "text": "充值没到账",
        "sent_at": datetime.now(UTC).isoformat(),
    } | changes


async def _accept_from_kafka(service: Service, brands: Sequence[str]) -> None:
    """Whoever may write `channel.messages` may name any brand."""
    settings = service.settings
    assert isinstance(settings, IntakeSettings)
    acceptance = Acceptance(service.database, settings.windows, Outbox("intake"), settings.flood_limit)
    handlers = IntakeHandlers(acceptance, Nowhere(), None)
    batch = []
    for offset, brand in enumerate(brands):
        event = ChannelMessage(
            brand=brand,
            channel=Channel.EMAIL,
            message_id=uuid.uuid4().hex,
            customer=Customer(id=uuid.uuid4().hex),
            text="x",
            sent_at=datetime.now(UTC),
        )
        origin = Origin(topics.CHANNEL_MESSAGES.name, 0, offset)
        batch.append(Received(event, origin, datetime.now(UTC), trace_of(event)))
    await handlers.on_messages(batch)


async def _labels(client: httpx.AsyncClient) -> dict[str, set[str]]:
    """Every value of every label that `/metrics` shows."""
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families((await client.get("/metrics")).text):
        for sample in family.samples:
            for label, text_ in sample.labels.items():
                found.setdefault(label, set()).add(text_)
    return found


# --- sla_timer -----------------------------------------------------------------------------------------------------


@pytest.fixture
def in_force(database: str, fresh: Database, tmp_path: Path) -> PoliciesInForce:
    settings = settings_for(tmp_path, database)
    return PoliciesInForce(settings.policy_files, fresh)


async def test_open_clocks_are_counted_by_what_has_become_of_them(fresh: Database) -> None:
    now = datetime.now(UTC)
    for state, breached, ended, count in (
        ("running", None, None, 3), ("running", now, None, 2), ("paused", None, None, 1), ("paused", now, None, 1),
        ("met", None, now, 7),
    ):  # fmt: skip
        await _clocks(fresh, count, state=state, breached_at=breached, ended_at=ended)
    async with fresh.transaction() as connection:
        found = {item.state: item.clocks for item in await sla_storage.open_clocks(connection)}
    assert found == {"running": 3, "overdue": 3, "paused": 1}


async def test_the_hours_of_the_week_say_what_the_report_says(fresh: Database, in_force: PoliciesInForce) -> None:
    now = datetime.now(UTC).replace(minute=30)
    for back in range(0, 40 * 24, 9):
        at = now - timedelta(hours=back, minutes=back % 30)
        await _clocks(fresh, 1 + back % 3, state="met", started_at=at, used_seconds=back, ended_at=now)
        await _clocks(fresh, 1, state="met", started_at=at, used_seconds=back // 2, ended_at=now)
        await _arrivals(fresh, "upay", [at] * (back % 4))
    await _clocks(fresh, 3, state="met", brand="evil", started_at=now, used_seconds=1, ended_at=now)
    await HoursOfWeek(fresh, in_force).measure(now)
    zone = in_force.policies.zone_calendar("upay").zone
    question = Question(
        since=now.replace(minute=0, second=0, microsecond=0) - timedelta(weeks=4, hours=1),
        until=now,
        zone=zone,
        by=By.HOUR,
        targets=(Target.FIRST_RESPONSE,),
        brand="upay",
    )
    report = await read(fresh, question, now=now, statement_most=timedelta(minutes=1))
    told = {
        row.group: float(row.overall.business_seconds.p90)
        for row in report.rows
        if row.overall.business_seconds.p90 is not None
    }
    shown = series("hour_of_week_response_p90_business_seconds", brand="upay")
    assert len(told) > 40
    assert {f"{weekday[2:]} {hour}": p90 for (hour, weekday), p90 in shown.items()} == told
    arrivals = series("hour_of_week_arrivals", brand="upay")
    assert len(arrivals) == 7 * 24
    assert {weekday for _, weekday in arrivals} == {"1 Mon", "2 Tue", "3 Wed", "4 Thu", "5 Fri", "6 Sat", "7 Sun"}
    async with fresh.transaction() as connection:
        counted = await connection.scalar(
            text("SELECT count(*) FROM sla_timer.arrivals WHERE at >= :since AND at < :until"),
            {
                "since": now.replace(minute=0, second=0, microsecond=0) - timedelta(weeks=4),
                "until": now.replace(minute=0, second=0, microsecond=0),
            },
        )
    assert sum(arrivals.values()) == pytest.approx(counted / 4)
    assert series("hour_of_week_arrivals", brand="evil") == {}


async def test_the_half_hour_of_now_is_forecast_and_staffed(fresh: Database, in_force: PoliciesInForce) -> None:
    now = datetime.now(UTC)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    hours = [midnight - timedelta(hours=back, minutes=minute) for back in range(1, 30 * 24) for minute in (10, 40)]
    await _arrivals(fresh, "upay", hours * 4)
    await _arrivals(fresh, "topay", hours[:200])  # of four days
    outlook = Outlook(fresh, in_force)
    await outlook.forecast(now)
    day = await forecast_of(fresh, in_force.policies, Asked(brand="upay", day=now.date()), now)
    row = day.rows[(now - midnight) // timedelta(minutes=30)]
    assert row.expected > 1
    assert series("forecast_arrivals_per_hour", brand="upay") == {
        ("expected",): row.expected * 2, ("low",): row.low * 2, ("high",): row.high * 2,
    }  # fmt: skip
    assert value("staff_needed", brand="upay") == row.agents_needed
    assert series("forecast_arrivals_per_hour", brand="topay") == {}
    # Tomorrow nothing of today's is shown, until that day's forecast is made.
    outlook.show(now + timedelta(days=1))
    assert series("forecast_arrivals_per_hour", brand="upay") == {}
    assert value("staff_needed", brand="upay") is None


async def _arrivals(database: Database, brand: str, ats: Sequence[datetime]) -> None:
    async with database.transaction() as connection:
        await connection.execute(
            text(
                "INSERT INTO sla_timer.arrivals (ticket_id, brand, queue, channel, at) "
                "SELECT gen_random_uuid(), :brand, 'payments', 'app_chat', unnest(CAST(:ats AS timestamptz[]))"
            ),
            {"brand": brand, "ats": list(ats)},
        )


async def _clocks(database: Database, count: int, **changes: Any) -> None:
    row = {
        "brand": "upay",
        "state": "running",
        "started_at": datetime.now(UTC),
        "ended_at": None,
        "breached_at": None,
        "used_seconds": None,
    } | changes
    async with database.transaction() as connection:
        await connection.execute(
            text(
                "INSERT INTO sla_timer.clocks (clock_id, ticket_id, target, generation, state, brand, channel, queue, "
                "priority, policy, calendar, policy_version, calendar_version, target_seconds, marks, started_at, "
                "ended_at, breached_at, used_seconds, course, alarms, told) "
                "SELECT gen_random_uuid(), gen_random_uuid(), 'first_response', 1, :state, :brand, 'app_chat', "
                "'payments', 'P3', 'p', 'always', 'v', 'v', 600, '[]', CAST(:started_at AS timestamptz), "
                "CAST(:ended_at AS timestamptz), CAST(:breached_at AS timestamptz), CAST(:used_seconds AS int), "
                "'[]', '[]', 0 FROM generate_series(1, :count)"
            ),
            {**row, "count": count},
        )


# --- notifier and desk ---------------------------------------------------------------------------------------------


async def test_the_oldest_notification_is_one_that_is_due(fresh: Database) -> None:
    now = datetime.now(UTC)

    async def pending(output: str, *, stored: int, planned: int, attempt: int = 0, state: str = "pending") -> None:
        """Stored so many seconds ago, to be tried in so many seconds."""
        async with fresh.transaction() as connection:
            await connection.execute(
                text(
                    "WITH added AS (INSERT INTO notifier.notifications (notification_id, kind, state, output, "
                    "endpoint, language, subject, body, data, caused_at, traceparent, attempt, detail, created_at, "
                    "erased) VALUES ("
                    "gen_random_uuid(), 'breach', :state, :output, 'e', 'en', '', '', '{}', :stored, '', :attempt, '', "
                    ":stored, false) RETURNING notification_id) "
                    "INSERT INTO notifier.deadlines (id, kind, subject, due_at, planned_at, attempt) "
                    "SELECT notification_id, 'e', notification_id, :planned, :planned, :attempt FROM added"
                ),
                {
                    "state": state,
                    "output": output,
                    "attempt": attempt,
                    "stored": now - timedelta(seconds=stored),
                    "planned": now + timedelta(seconds=planned),
                },
            )

    async def oldest() -> dict[str, float]:
        async with fresh.transaction() as connection:
            return await notifier_storage.oldest_due(connection, now)

    await pending("webhook", stored=5000, planned=600)  # a digest's window goes on
    await pending("webhook", stored=9000, planned=-9000, state="delivered")
    assert await oldest() == {}
    await pending("webhook", stored=300, planned=-200)
    await pending("mail", stored=100, planned=-100)
    assert await oldest() == pytest.approx({"webhook": 200, "mail": 100})
    await pending("webhook", stored=3000, planned=7200, attempt=4)  # tried in vain, and again in two hours
    assert await oldest() == pytest.approx({"webhook": 3000, "mail": 100})


async def test_queues_and_agents_are_measured_by_brand(fresh: Database) -> None:
    now = datetime.now(UTC)
    live = LiveQueues(fresh, 0.001, asyncio.Event())
    await live.measure()
    tickets = [
        routed(
            uuid.uuid4(), brand=brand, queue=Queue.CREDIT, priority=Priority.P2, decided_at=now - timedelta(minutes=age)
        )
        for brand, age in (("upay", 10), ("upay", 20), ("upay", 30), ("evil_1", 5), ("evil_2", 7))
    ]
    received = [
        Received(ticket, Origin("queues.credit", 0, offset), now, trace_of(ticket))
        for offset, ticket in enumerate(tickets)
    ]
    await DeskHandlers(fresh, Rules()).on_routed(received)
    async with fresh.transaction() as connection:
        await connection.execute(
            text("UPDATE desk.tickets SET state = 'claimed', claimed_by = 'li' WHERE ticket_id = :id"),
            {"id": tickets[2].ticket_id},
        )
        for agent, ago in (("li", 1), ("mei", 14), ("tom", 16)):
            await desk_storage.begin_request(connection, agent, "key", "", now - timedelta(minutes=ago))
    await live.measure()
    assert series("queue_waiting", queue="credit", priority="P2") == {("upay",): 2, ("other",): 2}
    oldest = series("queue_oldest_age_seconds", queue="credit", priority="P2")
    assert oldest == pytest.approx({("upay",): 1200, ("other",): 420}, abs=200)
    assert series("tickets_claimed", queue="credit") == {("upay",): 1, ("other",): 0}
    assert value("agents_working", service="desk") == 2
    async with fresh.transaction() as connection:
        await connection.execute(text("UPDATE desk.tickets SET state = 'resolved'"))
    await asyncio.sleep(0.01)  # what was read is that old, and read again
    await live.measure()
    assert set(series("queue_waiting", queue="credit", priority="P2").values()) == {0}
    assert set(series("queue_oldest_age_seconds", queue="credit", priority="P2").values()) == {0}
    assert value("agents_working", service="desk") == 2
