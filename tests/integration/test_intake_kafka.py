"""Intake as a whole, on a real broker: `channel.messages` in, `tickets.messages` and `dead.letters` out."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaProducer, ConsumerRecord

from deploy.audit import read_all
from services.intake.app import build
from services.intake.settings import Settings
from shared import topics
from shared.broker import PublishFailed
from shared.cloudevents import Outgoing
from shared.events import (
    ActivityKind,
    ChannelMessage,
    DeadLetter,
    DeadLetterReason,
    Disposition,
    Event,
    TicketActivity,
    TicketMessage,
)
from shared.http import token_hash
from shared.service import Service
from tests.support.brands import write_brand
from tests.support.surroundings import Kafka
from tests.support.waiting import eventually
from tests.unit.intake.samples import at, message

KEY = f"key-{uuid.uuid4().hex}"
CARD = "4111111111111111"


@dataclass
class World:
    """A broker and a database of one test, whose records are those of its own brand."""

    kafka: Kafka
    settings: Settings
    producer: AIOKafkaProducer
    brand: str

    @asynccontextmanager
    async def intake(
        self, tampered: Callable[[Service], None] = lambda _: None, *, gets_ready: bool = True, **changes: Any
    ) -> AsyncIterator[httpx.AsyncClient]:
        """Intake, consuming, until the block ends. `gets_ready`: not if it is to fail from the beginning."""
        service = build(Settings(**(self.settings.model_dump() | changes)))
        tampered(service)
        app = service.app()
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://intake") as client,
        ):
            if gets_ready:
                await eventually(lambda: _ready(client), timeout_seconds=60)
            yield client

    def message(self, message_id: str, hours: float = 0, **fields: Any) -> ChannelMessage:
        return message(message_id, hours, brand=self.brand, **fields)

    async def send(self, *events: Event) -> None:
        by_type: dict[type[Event], topics.Topic] = {
            ChannelMessage: topics.CHANNEL_MESSAGES,
            TicketActivity: topics.TICKETS_ACTIVITY,
        }
        await self.send_raw(
            *((by_type[type(event)].name, event.key, event.model_dump_json().encode()) for event in events)
        )

    async def send_raw(self, *records: tuple[str, str, bytes], headers: Sequence[tuple[str, bytes]] = ()) -> None:
        futures = [
            await self.producer.send(topic, value, key=key.encode(), headers=list(headers))
            for topic, key, value in records
        ]
        for future in futures:
            await future

    async def tickets_messages(self, count: int) -> list[ConsumerRecord[bytes, bytes]]:
        """The records of this brand on `tickets.messages`, once there are so many; a surplus shows."""
        return await self._records(topics.TICKETS_MESSAGES.name, count)

    async def tickets_messages_up_to(self, message_id: str) -> list[ConsumerRecord[bytes, bytes]]:
        """The records of this brand's one ticket, once this message is the last; else none."""
        records = await self.tickets_messages(1)
        return records if json.loads(records[-1].value or b"")["message_id"] == message_id else []

    async def events(self, count: int) -> list[TicketMessage]:
        return [TicketMessage.model_validate_json(record.value or b"") for record in await self.tickets_messages(count)]

    async def dead_letters(self, count: int) -> list[DeadLetter]:
        records = await self._records(topics.DEAD_LETTERS.name, count)
        return [DeadLetter.model_validate_json(record.value or b"") for record in records]

    async def _records(self, topic: str, count: int) -> list[ConsumerRecord[bytes, bytes]]:
        async def enough() -> list[ConsumerRecord[bytes, bytes]]:
            records = (await read_all(self.kafka.settings, [topic]))[topic]
            ours = [record for record in records if self.brand.encode() in (record.value or b"")]
            return ours if len(ours) >= count else []

        return await eventually(enough)


async def _ready(client: httpx.AsyncClient) -> bool:
    return (await client.get("/readyz")).status_code == 200


@pytest.fixture
async def world(kafka: Kafka, new_database: Callable[[], Awaitable[str]], tmp_path: Path) -> AsyncIterator[World]:
    brand = f"b_{uuid.uuid4().hex[:12]}"
    channels = {"app_chat": {"hours": "always", "keys": [{"key_sha256": token_hash(KEY)}]}}
    settings = Settings(
        kafka_bootstrap_servers=kafka.bootstrap_servers,
        database_url=await new_database(),
        brands_directory=write_brand(tmp_path / "brands", brand, channels=channels),
        delivery_retry_seconds=0.1,
    )
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers, acks="all")
    await producer.start()
    try:
        yield World(kafka, settings, producer, brand)
    finally:
        await producer.stop()


async def test_bad_records_become_dead_letters_and_the_good_ones_among_them_tickets(world: World) -> None:
    topic = topics.CHANNEL_MESSAGES.name
    good = [world.message(f"m-{number}", number / 1000) for number in range(5)]
    invalid = json.loads(good[0].model_dump_json()) | {
        "message_id": "bad",
        "channel": "pigeon",
        "text": f"卡号 {CARD} 密码是abc123",
    }
    records = [(topic, event.key, event.model_dump_json().encode()) for event in good]
    key = good[0].key
    records.insert(1, (topic, key, json.dumps(invalid, ensure_ascii=False).encode()))
    records.insert(3, (topic, key, f'{{"brand": "{world.brand}", "text": "my card is {CARD}'.encode()))
    records.insert(5, (topic, key, f"{world.brand} \udcff 密码是abc123".encode(errors="surrogateescape")))
    await world.send_raw(*records)
    await world.send_raw((topic, key, good[0].model_dump_json().encode()), headers=[("ce_type", b"unheard.of.v9")])
    async with world.intake():
        events = await world.events(5)
        letters = await world.dead_letters(4)
    assert [event.message_id for event in events] == [f"m-{number}" for number in range(5)]
    assert len({event.ticket_id for event in events}) == 1
    assert [event.sequence for event in events] == [1, 2, 3, 4, 5]
    assert sorted(letter.reason for letter in letters) == sorted(
        [
            DeadLetterReason.INVALID,
            DeadLetterReason.MALFORMED,
            DeadLetterReason.MALFORMED,
            DeadLetterReason.UNKNOWN_TYPE,
        ]
    )
    for letter in letters:
        assert (letter.service, letter.group, letter.topic) == ("intake", "intake.channel.messages", topic)
        assert letter.record_key == key
        assert CARD not in letter.value
        assert "abc123" not in letter.value
    (named,) = [letter for letter in letters if letter.reason is DeadLetterReason.INVALID]
    assert "channel: " in named.detail
    assert json.loads(named.value)["text"] == "卡号 [card] 密码是[password]"


async def test_what_the_channel_sends_twice_is_published_once(world: World) -> None:
    sent = [world.message(f"m-{number}", number / 1000) for number in range(20)]
    async with world.intake():
        await world.send(*sent, *sent)
        await world.events(20)
        await world.send(*sent, world.message("last", 1))
        events = await world.events(21)
    assert [event.message_id for event in events] == [*(f"m-{number}" for number in range(20)), "last"]
    assert [event.sequence for event in events] == list(range(1, 22))


async def test_after_a_crash_between_publishing_and_committing_the_same_is_published_again(world: World) -> None:
    """Everything is stored and published, but never committed: the next process is given it all again."""

    def never_commits(service: Service) -> None:
        publish = service.publisher.publish

        async def publish_and_fail(outgoing: Sequence[Outgoing]) -> None:
            await publish(outgoing)
            raise PublishFailed("the process dies here")

        service.publisher.publish = publish_and_fail  # type: ignore[method-assign]

    sent = [world.message(f"m-{number}", number / 1000, text=f"第{number}条 密码是abc123") for number in range(30)]
    await world.send(*sent, sent[0])
    async with world.intake(never_commits, gets_ready=False):
        before = await world.tickets_messages(30)
    async with world.intake():
        await world.send(world.message("last", 1))
        records = await eventually(lambda: world.tickets_messages_up_to("last"))
    assert len(records) >= len(before) + 31  # else nothing was published again, and this shows nothing
    by_id: dict[bytes, set[tuple[Any, ...]]] = {}
    for record in records:
        headers = dict(record.headers)
        by_id.setdefault(headers["ce_id"], set()).add((record.key, record.value, tuple(record.headers)))
    assert len(by_id) == 31
    assert [len(versions) for versions in by_id.values()] == [1] * 31
    assert json.loads(records[-1].value or b"")["sequence"] == 31


async def test_a_message_over_http_leaves_by_the_outbox_and_is_a_duplicate_for_kafka(world: World) -> None:
    sent = world.message("m-1")
    async with world.intake() as client:
        answer = await client.post(
            "/v1/messages",
            content=sent.model_dump_json(),
            headers={"x-api-key": KEY, "content-type": "application/json"},
        )
        assert answer.status_code == 202
        await world.events(1)
        await world.send(sent, world.message("m-2", 0.1))
        events = await world.events(2)
    assert [event.message_id for event in events] == ["m-1", "m-2"]
    assert {str(event.ticket_id) for event in events} == {answer.json()["ticket_id"]}


@pytest.mark.parametrize("by_http", [False, True], ids=["kafka", "http"])
async def test_a_flood_is_told_once_also_when_the_process_dies_before_it_is_due(world: World, *, by_http: bool) -> None:
    sent = [world.message(f"m-{number}", number / 3_600_000, text=f"在吗 {number}") for number in range(30)]

    def dies_before(service: Service) -> None:
        del service.tasks["floods"]

    async def deliver(client: httpx.AsyncClient) -> None:
        if not by_http:
            await world.send(*sent, *sent)
            return
        body = f"[{','.join(item.model_dump_json() for item in sent)}]"
        headers = {"x-api-key": KEY, "content-type": "application/json"}

        async def is_accepted() -> bool:
            return (await client.post("/v1/messages", content=body, headers=headers)).status_code == 202

        for _ in range(2):
            await eventually(is_accepted)  # 503 until this replica has heard from Kafka

    limits: dict[str, Any] = {"intake_flood_messages": 10, "intake_flood_window_seconds": 1}
    async with world.intake(dies_before, **limits) as client:
        await deliver(client)
        alone = await world.events(10)
    async with world.intake(**limits) as client:
        told = await world.events(11)
        await deliver(client)
        await world.send(world.message("last", 1))
        events = await world.events(12)
    assert [event.message_id for event in alone] == [f"m-{number}" for number in range(10)]
    assert len(told) == 11
    assert (told[-1].folded, told[-1].message_id) == (20, f"flood/{alone[0].ticket_id}/{at(0).isoformat()}")
    assert told[-1].text == "\n".join(item.text for item in sent[10:])
    assert [event.message_id for event in events[11:]] == ["last"]


async def test_a_resolved_ticket_is_reopened_by_the_next_message(world: World) -> None:
    async with world.intake() as client:
        await world.send(world.message("m-1"))
        (opened,) = await world.events(1)
        resolved = TicketActivity(
            ticket_id=opened.ticket_id,
            activity_id=f"{world.brand}-1",
            kind=ActivityKind.RESOLVED,
            agent="mei",
            at=at(1),
            brand=world.brand,
        )
        before = await _taken(client, "intake.tickets.activity")
        await world.send(resolved, resolved)
        await eventually(lambda: _taken_since(client, "intake.tickets.activity", before + 2))
        await world.send(world.message("m-2", 2), world.message("m-3", 3))
        events = await world.events(3)
    assert [event.disposition for event in events] == [
        Disposition.OPENED,
        Disposition.REOPENED,
        Disposition.FOLLOWED_UP,
    ]
    assert len({event.ticket_id for event in events}) == 1


async def _taken(client: httpx.AsyncClient, group: str) -> float:
    lines = (await client.get("/metrics")).text.splitlines()
    prefix = f'switchyard_records_consumed_total{{group="{group}"'
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(prefix))


async def _taken_since(client: httpx.AsyncClient, group: str, count: float) -> bool:
    return await _taken(client, group) >= count


async def test_a_message_that_is_too_old_is_refused_into_dead_letters(world: World) -> None:
    async with world.intake(intake_message_oldest_days=1):
        await world.send(world.message("m-1", sent_at="2020-01-01T00:00:00Z", text=f"卡号 {CARD}"))
        (letter,) = await world.dead_letters(1)
    assert letter.reason is DeadLetterReason.REFUSED
    assert letter.detail.startswith("sent_at: is more than 1 days ago")
    assert CARD not in letter.value
