"""The delivery policy, record by record: what is retried, what becomes a dead letter, what stops.

No broker here: the decision is under test. The policy on real brokers is in tests/integration/test_behaviour.py.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from aiokafka import ConsumerRecord
from sqlalchemy.exc import DBAPIError

from shared import topics
from shared.broker import PublishFailed
from shared.cloudevents import Outgoing, Received
from shared.delivery import FailureBudget, Paused, Refusal, Subscription, is_passing
from shared.events import DeadLetter, DeadLetterReason
from shared.settings import CommonSettings


class RecordingPublisher:
    """Keeps what is published; fails while `broken`."""

    def __init__(self) -> None:
        self.broken = False
        self.letters: list[DeadLetter] = []

    async def publish(self, outgoing: Sequence[Outgoing]) -> None:
        if self.broken:
            raise PublishFailed("the broker is away")
        for item in outgoing:
            assert item.topic == topics.DEAD_LETTERS.name
            assert isinstance(item.event, DeadLetter)
            self.letters.append(item.event)


def record(offset: int, value: bytes | None = None, **fields: Any) -> ConsumerRecord[Any, Any]:
    body = {
        "brand": "upay",
        "channel": "wechat",
        "message_id": f"m{offset}",
        "customer": {"id": "c1"},
        "text": "余额不对",
        "sent_at": "2026-11-20T12:00:00+08:00",
        **fields,
    }
    return ConsumerRecord(
        topic=topics.CHANNEL_MESSAGES.name,
        partition=0,
        offset=offset,
        timestamp=1_795_000_000_000,
        timestamp_type=0,
        key=b"upay/wechat/c1",
        value=json.dumps(body).encode() if value is None else value,
        checksum=None,
        serialized_key_size=0,
        serialized_value_size=0,
        headers=(),
    )


Handle = Callable[[Sequence[Received[Any]]], Awaitable[Any]]


def subscription(handler: Handle, publisher: RecordingPublisher, **settings: Any) -> Subscription:
    built = Subscription(
        service="intake",
        group="intake.channel.messages",
        topics=[topics.CHANNEL_MESSAGES],
        handler=handler,
        publisher=publisher,  # type: ignore[arg-type]  # a small class of our own, with the one method
        settings=CommonSettings(delivery_retry_seconds=0.05, **settings),
    )
    built._jittered = lambda seconds: 0.0  # type: ignore[method-assign]  # back-off is not what is tested here
    return built


@pytest.fixture
def publisher() -> RecordingPublisher:
    return RecordingPublisher()


async def test_bad_records_become_dead_letters_and_the_rest_goes_on(publisher: RecordingPublisher) -> None:
    handled: list[str] = []

    async def handler(batch: Sequence[Received[Any]]) -> None:
        handled.extend(received.event.message_id for received in batch)

    await subscription(handler, publisher).on_batch(
        [record(0), record(1, b"{not json"), record(2, channel="pigeon"), record(3, b""), record(4)]
    )
    assert handled == ["m0", "m4"]
    assert [(letter.offset, letter.reason) for letter in publisher.letters] == [
        (1, DeadLetterReason.MALFORMED),
        (2, DeadLetterReason.INVALID),
        (3, DeadLetterReason.MALFORMED),
    ]
    assert "channel" in publisher.letters[1].detail


async def test_a_dead_letter_carries_no_secret(publisher: RecordingPublisher) -> None:
    async def handler(batch: Sequence[Received[Any]]) -> None:
        raise AssertionError("nothing to handle")

    await subscription(handler, publisher).on_batch(
        [record(0, text="卡号 4111 1111 1111 1111", channel="pigeon"), record(1, b"{4111111111111111")]
    )
    assert len(publisher.letters) == 2
    for letter in publisher.letters:
        assert "4111" not in letter.model_dump_json()
        assert "[card]" in letter.value


async def test_a_refused_record_becomes_a_dead_letter(publisher: RecordingPublisher) -> None:
    async def handler(batch: Sequence[Received[Any]]) -> list[Refusal]:
        return [Refusal(batch[1], "too old")]

    await subscription(handler, publisher).on_batch([record(0), record(1)])
    (letter,) = publisher.letters
    assert (letter.offset, letter.reason, letter.detail) == (1, DeadLetterReason.REFUSED, "too old")


async def test_a_record_that_the_handler_alone_fails_on_is_found_and_given_up(publisher: RecordingPublisher) -> None:
    handled: set[str] = set()

    async def handler(batch: Sequence[Received[Any]]) -> None:
        if any(received.event.message_id == "m137" for received in batch):
            raise ValueError("卡号 4111 1111 1111 1111")
        handled.update(received.event.message_id for received in batch)

    await subscription(handler, publisher).on_batch([record(offset) for offset in range(300)])
    assert handled == {f"m{offset}" for offset in range(300)} - {"m137"}
    (letter,) = publisher.letters
    assert (letter.offset, letter.reason) == (137, DeadLetterReason.HANDLER_FAILED)
    assert letter.detail.startswith("ValueError in handler (test_delivery.py:")
    assert letter.traceback is not None
    assert "4111" not in letter.model_dump_json()


async def test_a_record_that_fails_once_is_no_dead_letter(publisher: RecordingPublisher) -> None:
    calls = 0

    async def handler(batch: Sequence[Received[Any]]) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ValueError

    await subscription(handler, publisher).on_batch([record(0)])
    assert calls == 2
    assert publisher.letters == []


async def test_a_passing_fault_is_retried_and_never_a_dead_letter(publisher: RecordingPublisher) -> None:
    faults = [ConnectionRefusedError(), TimeoutError(), PublishFailed("away")]
    sizes = []

    async def handler(batch: Sequence[Received[Any]]) -> None:
        sizes.append(len(batch))
        if faults:
            raise faults.pop()

    await subscription(handler, publisher).on_batch([record(0), record(1)])
    assert sizes == [2, 2, 2, 2]
    assert publisher.letters == []


async def test_a_fault_that_stays_pauses_the_consumer(publisher: RecordingPublisher) -> None:
    async def handler(batch: Sequence[Received[Any]]) -> None:
        raise ConnectionRefusedError

    with pytest.raises(Paused):
        await subscription(handler, publisher).on_batch([record(0)])
    assert publisher.letters == []


async def test_a_bad_deploy_stops_and_does_not_empty_the_topic(publisher: RecordingPublisher) -> None:
    async def handler(batch: Sequence[Received[Any]]) -> None:
        raise ValueError

    consumer = subscription(handler, publisher)
    for _ in range(3):  # the same records come again, as after a nack
        with pytest.raises(Paused):
            await consumer.on_batch([record(offset) for offset in range(50)])
    assert publisher.letters == []


async def test_when_the_dead_letter_cannot_be_published_the_batch_is_not_done(publisher: RecordingPublisher) -> None:
    async def handler(batch: Sequence[Received[Any]]) -> None:
        return None

    consumer = subscription(handler, publisher)
    publisher.broken = True
    with pytest.raises(Paused):
        await consumer.on_batch([record(0, b"?")])
    publisher.broken = False
    await consumer.on_batch([record(0, b"?")])
    assert [letter.offset for letter in publisher.letters] == [0]


async def test_stopping_ends_the_waiting(publisher: RecordingPublisher) -> None:
    async def handler(batch: Sequence[Received[Any]]) -> None:
        consumer.stop()
        raise ConnectionRefusedError

    consumer = subscription(handler, publisher)
    consumer._settings = CommonSettings(delivery_retry_seconds=100)
    with pytest.raises(Paused):
        await consumer.on_batch([record(0)])


def test_the_budget_is_earned_back_by_records_handled() -> None:
    budget = FailureBudget(start=2, most=3, per_success=10)
    assert [budget.spend() for _ in range(3)] == [True, True, False]
    budget.earn(9)
    assert not budget.spend()
    budget.earn(1)
    assert budget.spend()
    budget.earn(1000)
    assert [budget.spend() for _ in range(4)] == [True, True, True, False]


async def test_several_bad_records_among_many_good_ones_are_all_given_up(publisher: RecordingPublisher) -> None:
    bad = {f"m{offset}" for offset in range(25, 500, 50)}  # 10 of 500

    async def handler(batch: Sequence[Received[Any]]) -> None:
        if any(received.event.message_id in bad for received in batch):
            raise ValueError

    await subscription(handler, publisher).on_batch([record(offset) for offset in range(500)])
    assert len(publisher.letters) == 10


class _Driver(Exception):
    def __init__(self, sqlstate: str) -> None:
        self.sqlstate = sqlstate


@pytest.mark.parametrize(
    ("error", "passing"),
    [
        (PublishFailed("x"), True),
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (DBAPIError("s", {}, _Driver("40P01")), True),  # deadlock
        (DBAPIError("s", {}, _Driver("57P01")), True),  # server shuts down
        (DBAPIError("s", {}, _Driver("53300")), True),  # too many connections
        (DBAPIError("s", {}, _Driver("42P01")), True),  # no such table: a deploy ahead of its migration
        (DBAPIError("s", {}, _Driver("22P05")), False),  # a character that cannot be stored
        (ValueError(), False),
        (KeyError(), False),
    ],
)
def test_what_can_pass_is_told_from_what_cannot(error: Exception, passing: bool) -> None:
    assert is_passing(error) is passing
