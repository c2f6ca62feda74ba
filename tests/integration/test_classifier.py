"""The classifier as a service: messages in, queues out, on a real broker and a real database."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from pydantic import SecretStr
from sqlalchemy import text

from services.classifier.app import build
from services.classifier.domain.decide import Classifier
from services.classifier.handlers import Handlers
from services.classifier.settings import Settings
from shared import metrics, topics
from shared.cloudevents import Origin, Outgoing, Received, trace_of
from shared.database import Database
from shared.delivery import Refusal
from shared.events import (
    ActivityKind,
    Customer,
    Disposition,
    Event,
    TicketActivity,
    TicketLeft,
    TicketMessage,
    TicketRouted,
)
from shared.taxonomy import Category, Channel, Priority, Queue
from tests.support.surroundings import Kafka
from tests.support.waiting import eventually

SENT_AT = datetime(2026, 11, 5, 2, 0, tzinfo=UTC)


def message(
    text: str, ticket_id: uuid.UUID | None = None, sequence: int = 1, *, minutes: float = 0, **more: Any
) -> TicketMessage:
    sent_at = SENT_AT + timedelta(minutes=minutes)
    return TicketMessage(
        ticket_id=ticket_id or uuid.uuid4(),
        brand="upay",
        channel=Channel.APP_CHAT,
        message_id=str(uuid.uuid4()),
        sequence=sequence,
        disposition=Disposition.OPENED if sequence == 1 else Disposition.FOLLOWED_UP,
        customer=Customer(id="c-1"),
        text=text,
        sent_at=sent_at,
        accepted_at=sent_at,
        opened_at=SENT_AT,
        **more,
    )


def correction(ticket_id: uuid.UUID, **named: Any) -> TicketActivity:
    return TicketActivity(
        ticket_id=ticket_id,
        activity_id=str(uuid.uuid4()),
        kind=ActivityKind.CORRECTED,
        agent="anna",
        at=SENT_AT + timedelta(hours=1),
        **named,
    )


class Outbox:
    """Stands where the publisher stands, and keeps what is published; `fails_next` loses one batch as a crash would."""

    def __init__(self) -> None:
        self.published: list[Outgoing] = []
        self.fails_next = False

    async def publish(self, outgoing: list[Outgoing]) -> None:
        if self.fails_next:
            self.fails_next = False
            raise ConnectionError("the process died before it could publish")
        self.published += outgoing

    def take(self) -> list[tuple[str, Event]]:
        taken = [(one.topic, one.event) for one in self.published]
        self.published = []
        return taken

    def take_routed(self) -> list[TicketRouted]:
        return [event for _, event in self.take() if isinstance(event, TicketRouted)]


@dataclass
class Bench:
    """The handlers on a real database, fed by hand: what a batch brings is decided by the test."""

    handlers: Handlers
    out: Outbox
    database: Database
    offsets: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def received(self, event: Event) -> Received[Any]:
        topic = "tickets.messages" if isinstance(event, TicketMessage) else "tickets.activity"
        self.offsets[topic] += 1
        return Received(event, Origin(topic, 0, self.offsets[topic]), datetime.now(UTC), trace_of(event))

    async def messages(self, *events: TicketMessage) -> list[TicketRouted]:
        await self.handlers.on_messages([self.received(event) for event in events])
        return self.out.take_routed()

    async def correct(self, activity: TicketActivity) -> list[tuple[str, Event]]:
        assert await self.handlers.on_activities([self.received(activity)]) == []
        return self.out.take()

    async def rows(self, statement: str, **parameters: Any) -> list[Any]:
        async with self.database.transaction() as connection:
            return list(await connection.execute(text(statement), parameters))


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    database = Database(Settings(database_url=SecretStr(url)), service="classifier-test")
    try:
        yield database
    finally:
        await database.close()


@pytest.fixture
async def bench(database: str) -> AsyncIterator[Bench]:
    async with opened(database) as connected:
        out = Outbox()
        handlers = Handlers(connected, out, Classifier(), timedelta(days=31))  # type: ignore[arg-type]
        yield Bench(handlers, out, connected)


async def test_every_message_yields_one_routed_event(bench: Bench) -> None:
    texts = ["付款失败了", "Somebody stole my card", "", "怎么提现", "你好", "qwv zzk pfft"]
    events = [message(text) for text in texts]
    routed = await bench.messages(*events)
    assert [one.cause_id for one in routed] == [event.event_id for event in events]
    assert [one.text for one in routed] == texts
    assert [one.queue for one in routed] == [
        Queue.PAYMENTS, Queue.SECURITY, Queue.GENERAL, Queue.PAYMENTS, Queue.GENERAL, Queue.TRIAGE,
    ]  # fmt: skip
    assert {one.revision for one in routed} == {1}
    assert all(one.previous_queue is None for one in routed)


async def test_the_messages_of_a_ticket_see_each_other_within_a_batch(bench: Bench) -> None:
    ticket = uuid.uuid4()
    first, second, third = await bench.messages(
        message("什么是云闪付，怎么使用", ticket, 1),
        message("昨天转账2000元，还没到账", ticket, 2, minutes=1),
        message("你好？", ticket, 3, minutes=2),
    )
    assert (first.queue, first.category) == (Queue.GENERAL, Category.HOW_TO)
    assert (second.queue, second.category, second.priority) == (Queue.PAYMENTS, Category.MISSING_FUNDS, Priority.P1)
    assert (second.previous_queue, second.previous_priority) == (Queue.GENERAL, Priority.P4)
    # A greeting moves nothing, lowers nothing and forgets nothing.
    assert (third.queue, third.priority, third.facts.amount) == (Queue.PAYMENTS, Priority.P1, "2000")
    assert [one.revision for one in (first, second, third)] == [1, 2, 3]


async def test_an_edit_is_decided_on_its_new_words(bench: Bench) -> None:
    ticket = uuid.uuid4()
    original = message("优惠券怎么用", ticket)
    edit = message("我的账户被盗了！", ticket, 2, minutes=60 * 24, edits=original.message_id)
    first, edited = await bench.messages(original, edit)
    assert (first.edits, edited.edits, edited.deletes) == (None, original.message_id, None)
    assert (edited.queue, edited.text) == (Queue.SECURITY, edit.text)
    (row,) = await bench.rows("SELECT state FROM classifier.tickets WHERE ticket_id = :id", id=ticket)
    assert json.loads(row.state)["contacts"] == 1


async def test_a_deletion_changes_nothing_and_rubs_the_words_out(bench: Bench) -> None:
    ticket = uuid.uuid4()
    original = message("我的账户被盗了！南京路1号", ticket)
    edit = message("我的账户被盗了！南京路2号", ticket, 2, minutes=1, edits=original.message_id)
    other = message("你好？", ticket, 3, minutes=2)
    await bench.messages(original, edit)
    *_, last = await bench.messages(other)
    deletion = message("", ticket, 4, minutes=3, deletes=original.message_id)
    (told,) = await bench.messages(deletion)
    assert (told.cause_id, told.revision, told.deletes) == (deletion.event_id, 4, original.message_id)
    kept = ("queue", "category", "priority", "facts", "missing", "language", "sequence", "text", "disposition")
    assert [getattr(told, name) for name in kept] == [getattr(last, name) for name in kept]
    assert (told.previous_queue, told.previous_priority, told.reasons) == (None, None, ())
    # Nor is it in what a correction would tell again; and what stands is deleted with the next.
    rows = await bench.rows("SELECT event FROM classifier.decisions WHERE ticket_id = :id", id=ticket)
    assert all("南京路" not in row.event for row in rows)
    (told,) = await bench.messages(message("", ticket, 5, minutes=4, deletes=other.message_id))
    assert (told.text, told.revision, told.priority) == ("", 5, last.priority)
    (row,) = await bench.rows("SELECT event FROM classifier.tickets WHERE ticket_id = :id", id=ticket)
    assert other.text not in row.event


async def test_in_one_batch_what_is_taken_back_is_not_told(bench: Bench) -> None:
    ticket = uuid.uuid4()
    original = message("我的账户被盗了！南京路1号", ticket)
    first, told = await bench.messages(original, message("", ticket, 2, minutes=1, deletes=original.message_id))
    assert (first.text, first.points, told.text) == ("", (), "")
    assert (first.queue, told.queue) == (Queue.SECURITY, Queue.SECURITY)


async def test_the_old_queue_is_told_that_a_ticket_left_it(bench: Bench) -> None:
    ticket = uuid.uuid4()
    await bench.messages(message("优惠券怎么用", ticket))
    await bench.handlers.on_messages([bench.received(message("我的账户被盗了！", ticket, 2, minutes=1))])
    (left_topic, left), (routed_topic, routed) = bench.out.take()
    assert (left_topic, routed_topic) == ("queues.promotions", "queues.security")
    assert isinstance(left, TicketLeft)
    assert isinstance(routed, TicketRouted)
    assert (left.queue, left.to_queue, left.cause_id) == (Queue.PROMOTIONS, Queue.SECURITY, routed.cause_id)


async def test_a_redelivery_publishes_the_same_again_and_changes_nothing(bench: Bench) -> None:
    ticket = uuid.uuid4()
    batch = [bench.received(message("how do I use this", ticket)), bench.received(message("我被骗了", ticket, 2))]
    await bench.handlers.on_messages(batch)
    first = [(topic, event.model_dump_json()) for topic, event in bench.out.take()]
    await bench.handlers.on_messages(batch)
    assert [(topic, event.model_dump_json()) for topic, event in bench.out.take()] == first
    assert len(first) == 3  # two routed, one left
    (row,) = await bench.rows("SELECT revision FROM classifier.tickets WHERE ticket_id = :id", id=ticket)
    assert row.revision == 2


async def test_what_was_stored_and_not_published_is_published_when_it_comes_again(bench: Bench) -> None:
    batch = [bench.received(message("充值失败"))]
    bench.out.fails_next = True
    with pytest.raises(ConnectionError):
        await bench.handlers.on_messages(batch)
    assert bench.out.take() == []
    await bench.handlers.on_messages(batch)
    assert [event.cause_id for event in bench.out.take_routed()] == [batch[0].event.event_id]


async def test_another_record_of_the_same_message_is_dropped(bench: Bench) -> None:
    event = message("退款多久到账")
    assert len(await bench.messages(event, event)) == 1
    assert await bench.messages(event) == []
    (row,) = await bench.rows("SELECT revision FROM classifier.tickets WHERE ticket_id = :id", id=event.ticket_id)
    assert row.revision == 1


async def test_a_correction_moves_the_ticket_and_stays(bench: Bench) -> None:
    ticket = uuid.uuid4()
    await bench.messages(message("付款失败", ticket))
    activity = correction(ticket, category=Category.CARD_BINDING, priority=Priority.P4)
    (left_topic, _), (topic, routed) = await bench.correct(activity)
    assert (left_topic, topic) == ("queues.payments", "queues.access")
    assert isinstance(routed, TicketRouted)
    assert (routed.category, routed.queue, routed.priority) == (Category.CARD_BINDING, Queue.ACCESS, Priority.P4)
    assert routed.trace.decided_by == "agent:anna"
    assert (routed.cause_id, routed.revision, routed.text) == (activity.event_id, 2, "付款失败")
    # The same message again would be payment_failed, P2: the agent's word stays.
    (after,) = await bench.messages(message("付款失败", ticket, 2, minutes=30))
    assert (after.category, after.queue, after.priority) == (Category.CARD_BINDING, Queue.ACCESS, Priority.P4)
    # What is urgent raises it where it is.
    (after,) = await bench.messages(message("我的账户被盗刷了，快冻结", ticket, 3, minutes=60))
    assert (after.category, after.queue, after.priority) == (Category.CARD_BINDING, Queue.ACCESS, Priority.P1)


async def test_a_redelivered_correction_publishes_the_same_again_and_is_learnt_from_once(bench: Bench) -> None:
    ticket = uuid.uuid4()
    await bench.messages(message("付款失败", ticket))
    record = bench.received(correction(ticket, queue=Queue.TECHNICAL))
    await bench.handlers.on_activities([record])
    first = [event.model_dump_json() for _, event in bench.out.take()]
    await bench.handlers.on_activities([record])
    assert [event.model_dump_json() for _, event in bench.out.take()] == first
    (row,) = await bench.rows("SELECT * FROM classifier.feedback WHERE ticket_id = :id", id=ticket)
    assert (row.category, row.queue, row.corrected_category, row.corrected_queue) == (
        "payment_failed", "payments", None, "technical",
    )  # fmt: skip
    assert (row.sequence, row.agent) == (1, "anna")


def counted(name: str, **labels: str) -> float:
    return metrics.REGISTRY.get_sample_value(f"switchyard_{name}_total", labels) or 0.0


async def test_drift_is_counted_by_model_each_decision_and_each_correction_once(bench: Bench) -> None:
    model = Classifier().model.name
    failed = {"model": model, "category": "payment_failed"}
    decided = counted("model_decisions", **failed, triage="no")
    unsure = counted("model_decisions", model=model, category="other", triage="yes")
    corrected = counted("model_corrections", **failed, corrected_to="top_up")
    again = counted("model_corrections", model=model, category="top_up", corrected_to="refund")
    ticket = uuid.uuid4()
    record = bench.received(message("付款失败", ticket))
    await bench.handlers.on_messages([record, bench.received(message("qwv zzk pfft"))])
    await bench.handlers.on_messages([record])
    assert counted("model_decisions", **failed, triage="no") == decided + 1
    assert counted("model_decisions", model=model, category="other", triage="yes") == unsure + 1
    told = bench.received(correction(ticket, category=Category.TOP_UP))
    for activity in (told, told, bench.received(correction(ticket, category=Category.REFUND))):
        await bench.handlers.on_activities([activity])
    assert counted("model_corrections", **failed, corrected_to="top_up") == corrected + 1
    # The second agent corrected the first one, not the model.
    assert counted("model_corrections", model=model, category="top_up", corrected_to="refund") == again


async def test_a_correction_of_the_queue_alone_says_nothing_of_the_category(bench: Bench) -> None:
    ticket, model = uuid.uuid4(), Classifier().model.name
    await bench.messages(message("付款失败", ticket))
    same = {"model": model, "category": "payment_failed", "corrected_to": "payment_failed"}
    before = counted("model_corrections", **same)
    await bench.correct(correction(ticket, queue=Queue.TECHNICAL))
    await bench.correct(correction(ticket, category=Category.PAYMENT_FAILED))
    assert counted("model_corrections", **same) == before


async def test_a_correction_of_an_unknown_ticket_is_refused_and_the_rest_goes_on(bench: Bench) -> None:
    ticket = uuid.uuid4()
    await bench.messages(message("付款失败", ticket))
    unknown = bench.received(correction(uuid.uuid4(), queue=Queue.TECHNICAL))
    known = bench.received(correction(ticket, queue=Queue.TECHNICAL))
    refusals = await bench.handlers.on_activities([unknown, known])
    assert refusals == [Refusal(unknown, "ticket_id: no message of this ticket has been routed")]
    assert [event.ticket_id for event in bench.out.take_routed()] == [ticket]


async def test_resolved_merged_and_reopened_are_marked(bench: Bench) -> None:
    ticket = uuid.uuid4()
    await bench.messages(message("付款失败", ticket))
    for number, (kind, expected) in enumerate(
        (
            (ActivityKind.RESOLVED, SENT_AT),
            (ActivityKind.REOPENED, None),
            (ActivityKind.MERGED, SENT_AT),
            (ActivityKind.REOPENED, None),
        )
    ):
        activity = TicketActivity(
            ticket_id=ticket,
            activity_id=str(number),
            kind=kind,
            agent="anna",
            at=SENT_AT,
            merged_into=uuid.uuid4() if kind is ActivityKind.MERGED else None,
        )
        assert await bench.correct(activity) == []
        (row,) = await bench.rows("SELECT resolved_at FROM classifier.tickets WHERE ticket_id = :id", id=ticket)
        assert row.resolved_at == expected


async def test_decisions_are_forgotten_when_no_redelivery_can_ask_for_them(bench: Bench) -> None:
    old, new = message("付款失败"), message("充值失败")
    await bench.messages(old, new)
    await bench.rows(
        "UPDATE classifier.decisions SET decided_at = now() - interval '32 days' WHERE cause_id = :id RETURNING 1",
        id=old.event_id,
    )
    await bench.handlers.prune()
    left = await bench.rows(
        "SELECT cause_id FROM classifier.decisions WHERE cause_id IN (:old, :new)", old=old.event_id, new=new.event_id
    )
    assert [row.cause_id for row in left] == [new.event_id]


async def test_a_large_batch_lets_others_have_their_turn(bench: Bench) -> None:
    """Heartbeats run on the same event loop: no stretch of computing may hold it up."""
    longest = 0.0
    done = asyncio.Event()

    async def watch() -> None:
        nonlocal longest
        clock = asyncio.get_running_loop().time
        before = clock()
        while not done.is_set():
            await asyncio.sleep(0)
            now = clock()
            longest, before = max(longest, now - before), now

    watching = asyncio.create_task(watch())
    body = "我昨天用银联充值了三千元，一直没到账，订单号是A12345678。另外怎么修改手机号？" * 40
    await bench.handlers.on_messages([bench.received(message(body)) for _ in range(100)])
    done.set()
    await watching
    assert len(bench.out.take_routed()) == 100
    assert longest < 2.0, f"the event loop stood still for {longest:.2f} s"


async def test_the_service_routes_from_kafka_to_kafka(kafka: Kafka, database: str) -> None:
    ticket = uuid.uuid4()
    events = [message("提现怎么操作", ticket), message("我被骗了两千块", ticket, 2, minutes=1)]
    routed: dict[uuid.UUID, TicketRouted] = {}
    lefts: list[TicketLeft] = []
    settings = Settings(kafka_bootstrap_servers=kafka.bootstrap_servers, database_url=SecretStr(database), http_port=0)
    service = build(settings)
    app = service.app()
    consumer = AIOKafkaConsumer(
        *(topic.name for topic in topics.QUEUES),
        bootstrap_servers=kafka.bootstrap_servers,
        auto_offset_reset="earliest",
        group_id=None,
    )
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers, acks="all")
    await consumer.start()
    await producer.start()
    try:
        async with app.router.lifespan_context(app):
            await eventually(lambda: _is_ready(service), timeout_seconds=60)
            for event in events:
                outgoing = Outgoing(topics.TICKETS_MESSAGES.name, event, trace_of(event))
                await producer.send_and_wait(
                    outgoing.topic,
                    outgoing.body(),
                    key=event.key.encode(),
                    headers=[(name, value.encode()) for name, value in outgoing.headers("test").items()],
                )

            async def all_seen() -> bool:
                for batch in (await consumer.getmany(timeout_ms=200)).values():
                    for record in batch:
                        if json.loads(record.value)["ticket_id"] != str(ticket):
                            continue
                        assert record.key == str(ticket).encode()
                        if dict(record.headers)["ce_type"] == TicketLeft.TYPE.encode():
                            lefts.append(TicketLeft.model_validate_json(record.value))
                        else:
                            event = TicketRouted.model_validate_json(record.value)
                            assert record.topic == topics.queue_topic_name(event.queue)
                            routed[event.cause_id] = event
                return len(routed) == len(events) and bool(lefts)

            await eventually(all_seen, timeout_seconds=60)
    finally:
        await consumer.stop()
        await producer.stop()
    first, second = (routed[event.event_id] for event in events)
    assert (first.queue, first.revision) == (Queue.PAYMENTS, 1)
    assert (second.queue, second.previous_queue, second.revision) == (Queue.SECURITY, Queue.PAYMENTS, 2)
    assert [left.queue for left in lefts] == [Queue.PAYMENTS]


async def _is_ready(service: Any) -> bool:
    return not await service.not_ready()
