"""What every service relies on, on Apache Kafka and on the embedded broker alike, so that the default cannot drift.

One small service with one subscription stands for all of them: broker, delivery, publishing and life are shared.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from deploy.audit import read_all
from shared import topics
from shared.admin import create_topics, partitions
from shared.broker import Publisher, build_broker
from shared.cloudevents import Outgoing, Received, decode, trace_of
from shared.delivery import Handler, Subscription, subscribe
from shared.events import ActivityKind, DeadLetter, DeadLetterReason, TicketActivity, derive_id
from shared.settings import CommonSettings
from tests.support.surroundings import Kafka
from tests.support.waiting import eventually

TOPIC = topics.TICKETS_ACTIVITY


@pytest.fixture
def settings(each_kafka: Kafka) -> CommonSettings:
    return CommonSettings(
        kafka_bootstrap_servers=each_kafka.bootstrap_servers, delivery_retry_seconds=0.2, batch_max_records=50
    )


@pytest.fixture
def run_id() -> str:
    """Marks this test's records: the broker is shared with other tests."""
    return uuid.uuid4().hex


def act(run_id: str, number: int, ticket: int = 0) -> Outgoing:
    event = TicketActivity(
        ticket_id=derive_id("behaviour", run_id, ticket),
        activity_id=f"{run_id}:{number}",
        kind=ActivityKind.CLAIMED,
        agent="li.wei",
        at=datetime.now(UTC),
    )
    return Outgoing(TOPIC.name, event, trace_of(event))


class Member:
    """One consumer of a group, and what it was given that belongs to this test."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.numbers: list[int] = []
        self.origins: dict[int, list[int]] = defaultdict(list)
        self.partitions: set[int] = set()
        self.fail: Callable[[int], BaseException | None] = lambda number: None
        self.subscription: Subscription

    async def handle(self, batch: Sequence[Received[Any]]) -> None:
        mine = [received for received in batch if received.event.activity_id.startswith(self.run_id)]
        numbers = [int(received.event.activity_id.split(":")[1]) for received in mine]
        for number in numbers:
            error = self.fail(number)
            if error is not None:
                raise error
        for number, received in zip(numbers, mine, strict=True):
            self.numbers.append(number)
            self.origins[number].append(received.origin.offset)
            self.partitions.add(received.origin.partition)


@asynccontextmanager
async def consuming(settings: CommonSettings, group: str, handler: Handler) -> AsyncIterator[Subscription]:
    broker = build_broker(settings, service="behaviour")
    publisher = Publisher(broker, settings, service="behaviour")
    subscription = subscribe(
        broker, publisher, settings, service="behaviour", group=group, topics=[TOPIC], handler=handler, description=""
    )
    await broker.start()
    try:
        yield subscription
    finally:
        subscription.stop()
        await broker.stop()


async def publish(settings: CommonSettings, outgoing: Sequence[Outgoing]) -> None:
    broker = build_broker(settings, service="behaviour")
    await broker.connect()
    try:
        await Publisher(broker, settings, service="behaviour").publish(outgoing)
    finally:
        await broker.stop()


async def publish_raw(settings: CommonSettings, *records: tuple[bytes, list[tuple[str, bytes]]]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap_servers)
    await producer.start()
    try:
        for value, headers in records:
            await producer.send_and_wait(TOPIC.name, value, headers=headers)
    finally:
        await producer.stop()


async def dead_letters(settings: CommonSettings, group: str) -> list[DeadLetter]:
    records = (await read_all(settings, [topics.DEAD_LETTERS.name]))[topics.DEAD_LETTERS.name]
    letters = [decode(record, (DeadLetter,)).event for record in records]
    return [letter for letter in letters if letter.group == group]


async def test_topics_are_as_the_plan_says(settings: CommonSettings) -> None:
    existing = await partitions(settings)
    assert {topic.name: existing.get(topic.name) for topic in topics.ALL} == {
        topic.name: topic.partitions for topic in topics.ALL
    }
    assert await create_topics(settings) == []


async def test_order_within_a_ticket_is_kept_and_a_ticket_has_one_partition(
    settings: CommonSettings, run_id: str
) -> None:
    sent = [act(run_id, number, ticket=number % 20) for number in range(600)]
    await publish(settings, sent)
    records = (await read_all(settings, [TOPIC.name]))[TOPIC.name]
    numbers, places = defaultdict(list), defaultdict(set)
    for record in sorted(records, key=lambda record: (record.partition, record.offset)):
        if run_id.encode() in (record.value or b""):
            event = decode(record, TOPIC.carries).event
            numbers[event.ticket_id].append(int(event.activity_id.split(":")[1]))
            places[event.ticket_id].add(record.partition)
    assert len(numbers) == 20
    assert all(found == sorted(found) and len(found) == 30 for found in numbers.values())
    assert all(len(found) == 1 for found in places.values())
    assert len(set.union(*places.values())) > 1  # keys decide the partition, not one partition for all


async def test_records_are_cloudevents_in_binary_mode(settings: CommonSettings, run_id: str) -> None:
    sent = act(run_id, 1)
    await publish(settings, [sent])
    (record,) = [
        record
        for record in (await read_all(settings, [TOPIC.name]))[TOPIC.name]
        if run_id.encode() in (record.value or b"")
    ]
    headers = {name: value.decode() for name, value in record.headers}
    assert headers["ce_specversion"] == "1.0"
    assert headers["ce_id"] == str(sent.event.event_id)
    assert headers["ce_type"] == TicketActivity.TYPE
    assert headers["ce_source"] == "switchyard/behaviour"
    assert headers["content-type"] == "application/json"
    assert headers["traceparent"] == sent.traceparent
    assert record.key == sent.event.key.encode()


async def test_a_consumer_goes_on_where_its_group_stopped(settings: CommonSettings, run_id: str) -> None:
    group = f"behaviour.{run_id}"
    await publish(settings, [act(run_id, number) for number in range(100)])
    first, second = Member(run_id), Member(run_id)
    async with consuming(settings, group, first.handle):
        await eventually(lambda: _has(first, 100))
    await publish(settings, [act(run_id, number) for number in range(100, 120)])
    async with consuming(settings, group, second.handle):
        await eventually(lambda: _has(second, 20))
    assert first.numbers == list(range(100))
    assert second.numbers == list(range(100, 120))


async def test_what_was_not_finished_comes_again_and_nothing_is_skipped(settings: CommonSettings, run_id: str) -> None:
    """A dependency is away for longer than the retries last: the batch is nacked, and taken up again from its start."""
    member = Member(run_id)
    away = True
    member.fail = lambda number: ConnectionRefusedError() if away and number >= 30 else None
    await publish(settings, [act(run_id, number) for number in range(200)])
    async with consuming(settings, f"behaviour.{run_id}", member.handle) as subscription:
        await eventually(lambda: _paused(subscription))
        away = False
        await eventually(lambda: _has(member, 200), timeout_seconds=60)
    assert sorted(set(member.numbers)) == list(range(200))
    assert await dead_letters(settings, f"behaviour.{run_id}") == []
    # The same record has the same coordinates each time: that is how services know a redelivery from a duplicate.
    assert all(len(set(offsets)) == 1 for offsets in member.origins.values())


async def test_a_poison_record_moves_to_dead_letters_and_the_others_go_on(
    settings: CommonSettings, run_id: str
) -> None:
    member = Member(run_id)
    member.fail = lambda number: ValueError("卡号 4111 1111 1111 1111") if number == 77 else None
    await publish(settings, [act(run_id, number, ticket=number) for number in range(150)])
    async with consuming(settings, f"behaviour.{run_id}", member.handle):
        await eventually(lambda: _has(member, 149))
        # The records have keys of their own: any of them may be the last one that is done, the poison one too.
        (letter,) = await eventually(lambda: dead_letters(settings, f"behaviour.{run_id}"))
    assert sorted(set(member.numbers)) == [number for number in range(150) if number != 77]
    assert letter.reason is DeadLetterReason.HANDLER_FAILED
    assert f"{run_id}:77" in letter.value
    assert "4111" not in letter.model_dump_json()


async def test_rubbish_moves_to_dead_letters_with_its_coordinates(settings: CommonSettings, run_id: str) -> None:
    member = Member(run_id)
    group = f"behaviour.{run_id}"
    mark = run_id.encode()
    await publish_raw(
        settings,
        (b"\xff\xfe not utf-8 " + mark, []),
        (b'{"no": "' + mark + b'"}', [("ce_type", b"switchyard.something.else.v9")]),
        (b'{"ticket_id": "' + mark + b'"}', [("odd", b"\xff\xff"), ("traceparent", b"\x00")]),
    )
    await publish(settings, [act(run_id, 1)])
    async with consuming(settings, group, member.handle):
        await eventually(lambda: _has(member, 1))
        # Without keys they lie in partitions that are fetched one by one: the good record is not always the last.
        await eventually(lambda: _letters(settings, group, run_id, 3))
    letters = await _letters(settings, group, run_id, 3)
    assert Counter(letter.reason for letter in letters) == {
        DeadLetterReason.MALFORMED: 1,
        DeadLetterReason.UNKNOWN_TYPE: 1,
        DeadLetterReason.INVALID: 1,
    }
    records = {
        (record.partition, record.offset): record.value or b""
        for record in (await read_all(settings, [TOPIC.name]))[TOPIC.name]
    }
    assert all(mark in records[letter.partition, letter.offset] for letter in letters)


async def test_two_members_share_the_partitions_and_one_takes_over(settings: CommonSettings, run_id: str) -> None:
    first, second = Member(run_id), Member(run_id)
    group = f"behaviour.{run_id}"
    async with consuming(settings, group, first.handle) as one:
        # The topic holds what other tests have written: see the note on rebalances under load below.
        await eventually(lambda: _caught_up(one), timeout_seconds=60)
        async with consuming(settings, group, second.handle) as two:
            await eventually(lambda: _assigned(one, two), timeout_seconds=60)
            await publish(settings, [act(run_id, number, ticket=number) for number in range(300)])
            await eventually(lambda: _has_together(300, first, second), timeout_seconds=60)
            assert first.partitions
            assert second.partitions
            assert not first.partitions & second.partitions
            await eventually(lambda: _caught_up(one, two), timeout_seconds=60)
        await eventually(lambda: _assigned(one), timeout_seconds=60)
        await publish(settings, [act(run_id, number, ticket=number) for number in range(300, 400)])
        await eventually(lambda: _has_together(400, first, second), timeout_seconds=60)
    assert sorted(set(first.numbers) | set(second.numbers)) == list(range(400))


async def test_members_come_and_go_under_load_and_nothing_is_skipped(
    settings: CommonSettings, each_kafka: Kafka, run_id: str
) -> None:
    if not each_kafka.is_real:
        # A commit in the middle of a rebalance leaves its group stuck there, which Apache Kafka allows (ADR 0002).
        pytest.skip("the embedded broker serves one replica of each service: rebalances under load need Apache Kafka")
    members = [Member(run_id) for _ in range(3)]
    group = f"behaviour.{run_id}"
    async with consuming(settings, group, members[0].handle):
        for wave, member in enumerate(members[1:]):
            async with consuming(settings, group, member.handle):
                for start in range(wave * 1000, wave * 1000 + 1000, 100):
                    await publish(
                        settings, [act(run_id, number, ticket=number) for number in range(start, start + 100)]
                    )
        await eventually(lambda: _has_together(2000, *members), timeout_seconds=60)
    assert {number for member in members for number in member.numbers} == set(range(2000))


async def test_a_batch_is_committed_only_when_it_is_done(settings: CommonSettings, run_id: str) -> None:
    """A consumer that dies between handling and committing leaves its batch to the next one."""
    group = f"behaviour.{run_id}"
    await publish(settings, [act(run_id, number) for number in range(40)])
    doomed, heir = Member(run_id), Member(run_id)
    started = asyncio.Event()

    async def never_done(batch: Sequence[Received[Any]]) -> None:
        await doomed.handle(batch)
        if doomed.numbers:
            started.set()
            raise ConnectionResetError("dies before it is done")

    async with consuming(settings, group, never_done):
        async with asyncio.timeout(30):
            await started.wait()
    async with consuming(settings, group, heir.handle):
        await eventually(lambda: _has(heir, 40))
    assert heir.numbers == list(range(40))


async def _letters(settings: CommonSettings, group: str, run_id: str, count: int) -> list[DeadLetter]:
    letters = [letter for letter in await dead_letters(settings, group) if run_id in letter.value]
    return letters if len(letters) >= count else []


async def _has(member: Member, count: int) -> bool:
    return len(set(member.numbers)) >= count


async def _has_together(count: int, *members: Member) -> bool:
    return len({number for member in members for number in member.numbers}) >= count


async def _paused(subscription: Subscription) -> bool:
    from shared import metrics

    return bool(metrics.CONSUMER_PAUSED.labels(subscription.group)._value.get() == 1)


async def _caught_up(*subscriptions: Subscription) -> bool:
    """Whether these hold all partitions and have committed all there is: nobody is about to commit."""
    held = 0
    for subscription in subscriptions:
        consumer = subscription.consumer()
        if subscription.busy or not consumer:
            return False
        held += len(consumer.assignment())
        ends = await consumer.end_offsets(consumer.assignment())
        if [place for place, end in ends.items() if end and await consumer.committed(place) != end]:
            return False
    return held == TOPIC.partitions


async def _assigned(*subscriptions: Subscription) -> bool:
    shares = [len(consumer.assignment()) if (consumer := one.consumer()) else 0 for one in subscriptions]
    return all(shares) and sum(shares) == TOPIC.partitions
