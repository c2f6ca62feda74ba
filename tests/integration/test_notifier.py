"""The notifier on a real broker, PostgreSQL, HTTP receiver and mail server: who is told, how often, what is retried."""

from __future__ import annotations

import asyncio
import email
import json
import shutil
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiokafka import AIOKafkaConsumer
from aiokafka.partitioner import murmur2
from aiosmtpd.controller import Controller
from sqlalchemy import text
from standardwebhooks import Webhook

from deploy.audit import read_all
from deploy.processes import free_port
from services.notifier import storage
from services.notifier.app import build
from services.notifier.domain.notifications import contact_of
from services.notifier.domain.texts import reference_of
from services.notifier.settings import Settings
from shared import topics
from shared.brands import BRANDS_DIRECTORY
from shared.broker import Publisher, build_broker
from shared.cloudevents import Outgoing, decode, trace_of
from shared.database import Database
from shared.events import (
    ActivityKind,
    Customer,
    DeadLetter,
    DecisionTrace,
    Disposition,
    EscalationLevel,
    Event,
    NotificationKind,
    NotificationOutcome,
    NotificationStatus,
    Point,
    PolicyChanged,
    SlaEvent,
    SlaKind,
    Target,
    TicketActivity,
    TicketMessage,
    TicketRouted,
)
from shared.service import Service
from shared.taxonomy import CATEGORIES, Category, Channel, Fact, Language, Priority, Queue
from tests.support.surroundings import Kafka
from tests.support.waiting import eventually

GATEWAY_SECRET = "whsec_" + "Z2F0ZXdheS1zZWNyZXQtZm9yLXRlc3Rz"
PREVIOUS_SECRET = "whsec_" + "cHJldmlvdXMtc2VjcmV0LWZvci10ZXN0cw=="
LEADS_SECRET = "whsec_" + "bGVhZHMtc2VjcmV0LWZvci10aGUtdGVzdHM="
LEAD_MAIL = "security.lead@leads.example"
ON_CALL_MAIL = "on.call@leads.example"


@dataclass(frozen=True)
class Call:
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def payload(self) -> Any:
        return json.loads(self.body)

    @property
    def ticket_id(self) -> str | None:
        ticket: str | None = self.payload["data"].get("ticket_id")
        return ticket


@dataclass
class Receiver:
    """An HTTP/1.1 server on a real socket. `answers` are what it says next on a path, then 204."""

    calls: list[Call] = field(default_factory=list)
    answers: dict[str, list[tuple[int, str]]] = field(default_factory=lambda: defaultdict(list))
    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                first, *lines = head.decode().strip().split("\r\n")
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
                body = await reader.readexactly(int(headers["content-length"]))
                path = first.split()[1]
                self.calls.append(Call(path, headers, body))
                status, more = self.answers[path].pop(0) if self.answers[path] else (204, "")
                writer.write(f"HTTP/1.1 {status} Answer\r\nContent-Length: 0\r\n{more}\r\n".encode())
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    @asynccontextmanager
    async def listening(self, port: int = 0) -> AsyncIterator[None]:
        server = await asyncio.start_server(self.serve, "127.0.0.1", port)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            server.close()

    def about(self, ticket_id: uuid.UUID) -> list[Call]:
        return [call for call in self.calls if call.ticket_id == str(ticket_id)]


class Mailbox:
    """An SMTP server's handler. `answers` are its replies to the next mails to an address, then it takes them."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.answers: dict[str, list[str]] = defaultdict(list)

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        (recipient,) = envelope.rcpt_tos
        if self.answers[recipient]:
            return self.answers[recipient].pop(0)
        self.mails.append(email.message_from_bytes(envelope.content, policy=policy.default))
        return "250 OK"

    def to(self, address: str) -> list[EmailMessage]:
        return [mail for mail in self.mails if mail["To"] == address]


@contextmanager
def mail_server(mailbox: Mailbox) -> Iterator[int]:
    controller = Controller(mailbox, hostname="127.0.0.1", port=free_port())
    controller.start()
    try:
        yield controller.port
    finally:
        controller.stop()


@asynccontextmanager
async def running(service: Service) -> AsyncIterator[Service]:
    app = service.app()
    async with app.router.lifespan_context(app):
        yield service


@dataclass
class World:
    """A running notifier, what surrounds it, and what it said on `notifications.outcomes`."""

    receiver: Receiver
    mailbox: Mailbox
    settings: Settings
    publisher: Publisher
    database: Database
    outcomes: list[NotificationOutcome] = field(default_factory=list)

    async def publish(self, topic: str, *events: Event) -> None:
        await self.publisher.publish([Outgoing(topic, event, trace_of(event)) for event in events])

    async def route(self, *routed: TicketRouted) -> None:
        for event in routed:
            await self.publish(topics.queue_topic_name(event.queue), event)

    def outcomes_of(self, ticket_id: uuid.UUID) -> list[NotificationOutcome]:
        return [outcome for outcome in self.outcomes if outcome.ticket_id == ticket_id]

    async def statuses(self, ticket_id: uuid.UUID) -> list[NotificationStatus]:
        return [outcome.status for outcome in sorted(self.outcomes_of(ticket_id), key=lambda item: item.attempt)]

    async def eventually_said(self, ticket_id: uuid.UUID, *expected: NotificationStatus) -> None:
        async def said() -> bool:
            assert await self.statuses(ticket_id) == list(expected)
            return True

        await eventually(said)

    async def rows(self, ticket_id: uuid.UUID) -> list[Any]:
        async with self.database.transaction() as connection:
            found = await connection.execute(
                text("SELECT * FROM notifier.notifications WHERE ticket_id = :id ORDER BY created_at"),
                {"id": ticket_id},
            )
            return list(found)


def _brands(directory: Path) -> Path:
    """The committed brands, save that tp_wallet has no heads and nobody on call."""
    copies = shutil.copytree(BRANDS_DIRECTORY, directory / "brands")
    content = yaml.safe_load((copies / "tp_wallet.yaml").read_text(encoding="utf-8"))
    for section in ("heads", "on_call"):
        del content[section]
    (copies / "tp_wallet.yaml").write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    return copies


@pytest.fixture(scope="module")
async def world(kafka: Kafka, database: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    receiver, mailbox = Receiver(), Mailbox()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(receiver.listening())
        smtp_port = stack.enter_context(mail_server(mailbox))
        environment = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in {
            "NOTIFIER_GATEWAY_URL": f"http://127.0.0.1:{receiver.port}",
            "NOTIFIER_GATEWAY_SECRET": GATEWAY_SECRET,
            "NOTIFIER_GATEWAY_SECRET_PREVIOUS": PREVIOUS_SECRET,
            "NOTIFIER_LEADS_URL": f"http://127.0.0.1:{receiver.port}/leads",
            "NOTIFIER_LEADS_SECRET": LEADS_SECRET,
            "NOTIFIER_SECURITY_LEAD_MAIL": LEAD_MAIL,
            "NOTIFIER_ON_CALL_MAIL": ON_CALL_MAIL,
        }.items():
            environment.setenv(name, value)
        settings = Settings(
            kafka_bootstrap_servers=kafka.bootstrap_servers,
            kafka_idempotence=kafka.is_real,
            database_url=database,
            brands_directory=_brands(tmp_path_factory.mktemp("notifier")),
            notifier_retry_delays_seconds=(0.0, 0.1, 0.2),
            notifier_retry_jitter_share=0.0,
            notifier_delivery_timeout_seconds=10.0,
            notifier_lease_seconds=20.0,
            notifier_webhook_allowed_hosts=("127.0.0.1",),
            notifier_acknowledgements_per_hour=3,
            notifier_reminders_per_window=5,
            notifier_reminder_window_seconds=2,
            notifier_smtp_port=smtp_port,
            notifier_smtp_security="none",
        )
        service = await stack.enter_async_context(running(build(settings)))
        broker = build_broker(settings, service="test")
        await broker.start()
        stack.push_async_callback(broker.stop)
        own_database = Database(settings, service="test")
        stack.push_async_callback(own_database.close)
        world = World(receiver, mailbox, settings, Publisher(broker, settings, service="test"), own_database)

        consumer = AIOKafkaConsumer(
            topics.NOTIFICATIONS_OUTCOMES.name,
            bootstrap_servers=kafka.bootstrap_servers,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )
        await consumer.start()
        stack.push_async_callback(consumer.stop)

        async def listen() -> None:
            async for record in consumer:
                world.outcomes.append(NotificationOutcome.model_validate_json(record.value))

        listening = asyncio.create_task(listen())
        stack.callback(listening.cancel)

        async def ready() -> bool:
            assert await service.not_ready() == {}
            return True

        await eventually(ready)
        yield world


# --- events ----------------------------------------------------------------------------------------------------------


def routed_event(**changes: Any) -> TicketRouted:
    now = datetime.now(UTC)
    category = changes.get("category", Category.TOP_UP)
    fields: dict[str, Any] = {
        "ticket_id": uuid.uuid4(),
        "cause_id": uuid.uuid4(),
        "revision": 1,
        "queue": CATEGORIES[category].queue,
        "category": category,
        "priority": CATEGORIES[category].priority,
        "confidence": 0.93,
        "language": Language.ZH,
        "trace": DecisionTrace(decided_by="model", model="test"),
        "decided_at": now,
        "brand": "upay",
        "channel": Channel.APP_CHAT,
        "customer": Customer(id=f"customer-{uuid.uuid4().hex[:8]}"),
        "sequence": 1,
        "disposition": Disposition.OPENED,
        "text": "充值没成功",
        "sent_at": now,
        "opened_at": now,
    }
    return TicketRouted(**(fields | changes))


def message_event(ticket_id: uuid.UUID, **changes: Any) -> TicketMessage:
    now = datetime.now(UTC)
    fields: dict[str, Any] = {
        "ticket_id": ticket_id,
        "brand": "upay",
        "channel": Channel.EMAIL,
        "message_id": uuid.uuid4().hex,
        "sequence": 1,
        "disposition": Disposition.OPENED,
        "customer": Customer(id="someone"),
        "text": "hello",
        "sent_at": now,
        "accepted_at": now,
        "opened_at": now,
    }
    return TicketMessage(**(fields | changes))


def reply_event(ticket_id: uuid.UUID, words: str) -> TicketActivity:
    return TicketActivity(
        ticket_id=ticket_id,
        activity_id=uuid.uuid4().hex,
        kind=ActivityKind.REPLIED,
        agent="agent-7",
        at=datetime.now(UTC),
        text=words,
    )


def sla_event(kind: SlaKind = SlaKind.BREACHED, **changes: Any) -> SlaEvent:
    due = datetime(2026, 11, 23, 6, 30, tzinfo=UTC)
    fields: dict[str, Any] = {
        "clock_id": uuid.uuid4(),
        "ticket_id": uuid.uuid4(),
        "step": 3,
        "kind": kind,
        "target": Target.FIRST_RESPONSE,
        "brand": "upay",
        "channel": Channel.APP_CHAT,
        "queue": Queue.PAYMENTS,
        "priority": Priority.P2,
        "policy": "default",
        "target_seconds": 900,
        "started_at": due - timedelta(minutes=15),
        "due_at": due,
        "at": due,
    }
    return SlaEvent(**(fields | changes))


def escalation_event(level: EscalationLevel, **changes: Any) -> SlaEvent:
    """Of a promise of 15 minutes, 2 hours of business time after it began."""
    fields: dict[str, Any] = {"step": 4, "escalation": level, "business_seconds": 7200}
    return sla_event(SlaKind.ESCALATED, **(fields | changes))


def ticket_beside(key: str, partitions: int) -> uuid.UUID:
    """A new ticket's id whose records stand on the same partition as those of `key`."""

    def partition_of(key: str) -> int:  # as Kafka's own clients place a key
        return int(murmur2(key.encode()) & 0x7FFFFFFF) % partitions

    while partition_of(str(ticket_id := uuid.uuid4())) != partition_of(key):
        pass
    return ticket_id


def verified(call: Call, secret: str) -> Any:
    """The payload; raises when the signature is not of this secret."""
    return Webhook(secret).verify(call.body, call.headers)


DELIVERED, FAILED, GIVEN_UP = NotificationStatus.DELIVERED, NotificationStatus.FAILED, NotificationStatus.GIVEN_UP


# --- acknowledgements ------------------------------------------------------------------------------------------------


async def test_acknowledges_with_the_missing_facts_by_a_signed_webhook(world: World) -> None:
    event = routed_event(missing=(Fact.AMOUNT, Fact.ORDER_NO))
    await world.route(event)
    await world.eventually_said(event.ticket_id, DELIVERED)
    (call,) = world.receiver.about(event.ticket_id)
    data = verified(call, GATEWAY_SECRET)["data"]
    assert verified(call, PREVIOUS_SECRET)["type"] == "notification.acknowledgement"
    assert call.path == "/upay"
    assert call.headers["webhook-id"] == data["notification_id"]
    assert (data["customer_id"], data["channel"], data["language"]) == (event.customer.id, "app_chat", "zh")
    assert data["missing"] == ["amount", "order_no"]
    assert reference_of(event.ticket_id) in data["text"]
    assert "涉及的金额和币种" in data["text"]
    assert "事情发生的时间" not in data["text"]  # it is not missing


async def test_acknowledges_by_mail_in_the_language_of_the_message(world: World) -> None:
    address = f"{uuid.uuid4().hex[:8]}@customers.example"
    event = routed_event(
        language=Language.EN,
        channel=Channel.EMAIL,
        category=Category.TOP_UP,
        reply_to=address,
        missing=(Fact.METHOD,),
        points=(
            Point(category=Category.TOP_UP, start=0, end=9, text="my top-up"),
            Point(category=Category.REFUND, start=10, end=20, text="the refund"),
        ),
    )
    await world.route(event)
    await world.eventually_said(event.ticket_id, DELIVERED)
    (mail,) = world.mailbox.to(address)
    assert mail["Subject"] == f"We have your message [ticket {reference_of(event.ticket_id)}]"
    assert mail["From"] == "UPay <service@upay.example>"
    assert mail["Auto-Submitted"] == "auto-replied"
    notification_id = world.outcomes_of(event.ticket_id)[0].notification_id
    assert mail["Message-ID"] == f"<{event.ticket_id}.{notification_id}@upay.example>"
    words = mail.get_content()
    assert "1. top-up" in words
    assert "2. refund" in words
    assert "how you paid" in words
    assert world.receiver.about(event.ticket_id) == []


async def test_the_same_event_again_and_follow_ups_change_nothing(world: World) -> None:
    event = routed_event()
    follow_up = event.model_copy(
        update={"cause_id": uuid.uuid4(), "revision": 2, "sequence": 2, "disposition": Disposition.FOLLOWED_UP}
    )
    moved = event.model_copy(update={"cause_id": uuid.uuid4(), "revision": 3, "queue": Queue.GENERAL})
    after = routed_event(
        brand="upay", customer=event.customer
    )  # a later ticket: when it is told, all before was handled
    await world.route(event, event, follow_up, moved)
    await world.eventually_said(event.ticket_id, DELIVERED)
    await world.route(event, after)
    await world.eventually_said(after.ticket_id, DELIVERED)
    assert len(world.receiver.about(event.ticket_id)) == 1
    assert await world.statuses(event.ticket_id) == [DELIVERED]


async def test_two_machines_do_not_answer_each_other_for_ever(world: World) -> None:
    hour = datetime.now(UTC).replace(minute=30)
    robot = Customer(id="out-of-office")
    tickets = [routed_event(customer=robot, decided_at=hour, brand="topay") for _ in range(5)]
    await world.route(*tickets)

    async def told() -> bool:
        said = [await world.statuses(ticket.ticket_id) for ticket in tickets]
        assert sorted(said) == [[DELIVERED]] * 3 + [[GIVEN_UP]] * 2
        return True

    await eventually(told)
    held = [
        outcome for ticket in tickets for outcome in world.outcomes_of(ticket.ticket_id) if outcome.status is GIVEN_UP
    ]
    assert all("loop guard" in outcome.detail for outcome in held)


async def test_a_bounce_is_not_acknowledged(world: World) -> None:
    bounce = routed_event(channel=Channel.EMAIL, reply_to="MAILER-DAEMON@mx.example")
    await world.route(bounce)
    await world.eventually_said(bounce.ticket_id, GIVEN_UP)
    assert world.mailbox.to("MAILER-DAEMON@mx.example") == []


# --- replies ---------------------------------------------------------------------------------------------------------


async def test_passes_an_agents_reply_on_once(world: World) -> None:
    event = routed_event(brand="topay", language=Language.EN)
    await world.route(event)
    await world.eventually_said(event.ticket_id, DELIVERED)
    reply = reply_event(event.ticket_id, "Your top-up arrived.")
    await world.publish(topics.TICKETS_ACTIVITY.name, reply, reply)
    await world.publish(
        topics.TICKETS_ACTIVITY.name, reply.model_copy(update={"kind": ActivityKind.RESOLVED, "activity_id": "r"})
    )
    await world.eventually_said(event.ticket_id, DELIVERED, DELIVERED)
    acknowledged, passed_on = world.receiver.about(event.ticket_id)
    data = verified(passed_on, GATEWAY_SECRET)["data"]
    assert passed_on.payload["type"] == "notification.reply"
    assert (data["text"], data["agent"], data["customer_id"]) == ("Your top-up arrived.", "agent-7", event.customer.id)
    assert acknowledged.headers["webhook-id"] != passed_on.headers["webhook-id"]


async def test_a_reply_waits_for_its_contact(world: World) -> None:
    ticket_id = uuid.uuid4()
    address = f"{uuid.uuid4().hex[:8]}@customers.example"
    await world.publish(topics.TICKETS_ACTIVITY.name, reply_event(ticket_id, "您的款项已到账。"))

    async def waits() -> bool:
        return [row.state for row in await world.rows(ticket_id)] == ["waiting_contact"]

    await eventually(waits)
    await world.publish(topics.TICKETS_MESSAGES.name, message_event(ticket_id, reply_to=address))
    await world.eventually_said(ticket_id, DELIVERED)
    (mail,) = world.mailbox.to(address)
    assert mail.get_content().strip() == "您的款项已到账。"
    assert mail["Auto-Submitted"] is None  # a person wrote it
    assert reference_of(ticket_id) in mail["Subject"]


async def test_a_later_messages_address_is_the_one_that_counts(world: World) -> None:
    ticket_id = uuid.uuid4()
    old, new = (f"{uuid.uuid4().hex[:8]}@customers.example" for _ in range(2))
    first = message_event(ticket_id, reply_to=old)
    second = message_event(ticket_id, sequence=2, disposition=Disposition.FOLLOWED_UP, reply_to=new)
    for message in (second, first):  # as after a redelivery: the older one comes last
        async with world.database.transaction() as connection:
            await storage.remember_contacts(connection, [contact_of(message)])
    await world.publish(topics.TICKETS_ACTIVITY.name, reply_event(ticket_id, "hello"))
    await world.eventually_said(ticket_id, DELIVERED)
    assert [len(world.mailbox.to(address)) for address in (old, new)] == [0, 1]


async def test_mails_stand_below_the_customers_latest_mail(world: World) -> None:
    ticket_id, customer = uuid.uuid4(), Customer(id="li@mail.example")
    address = f"{uuid.uuid4().hex[:8]}@customers.example"
    fields = {"customer": customer, "reply_to": address}
    first = message_event(ticket_id, message_id="first@mail.example", subject="充值没到账", **fields)
    await world.publish(topics.TICKETS_MESSAGES.name, first)

    async def is_known() -> bool:
        async with world.database.transaction() as connection:
            return ticket_id in await storage.contacts_for_replies(connection, [ticket_id])

    await eventually(is_known)
    routed = {"ticket_id": ticket_id, "channel": Channel.EMAIL, **fields}
    await world.route(routed_event(**routed))
    await world.eventually_said(ticket_id, DELIVERED)
    second = first.model_copy(update={"message_id": "second@mail.example", "sequence": 2, "subject": "充值还没到"})
    later = routed_event(**routed, revision=2, sequence=2, disposition=Disposition.FOLLOWED_UP)
    # What is in the second mail is told before which mail it is, and the first comes once more.
    async with world.database.transaction() as connection:
        await storage.remember_contacts(connection, [contact_of(later)])
        (contact,) = (await storage.contacts_for_replies(connection, [ticket_id])).values()
        assert (contact.sequence, contact.message_id, contact.subject) == (2, "first@mail.example", "充值没到账")
        for message in (second, first):
            await storage.remember_contacts(connection, [contact_of(message)])
    await world.publish(topics.TICKETS_ACTIVITY.name, reply_event(ticket_id, "到账了"))
    await world.eventually_said(ticket_id, DELIVERED, DELIVERED)
    acknowledged, replied = world.mailbox.to(address)
    assert [mail["In-Reply-To"] for mail in (acknowledged, replied)] == [
        "<first@mail.example>",
        "<second@mail.example>",
    ]
    assert [mail["References"] for mail in (acknowledged, replied)] == ["<first@mail.example>", "<second@mail.example>"]
    assert replied["Subject"] == "Re: 充值还没到"
    assert replied["Message-ID"].startswith(f"<{ticket_id}.")


async def test_a_secret_in_a_reply_is_neither_stored_nor_sent(world: World) -> None:
    event = routed_event()
    await world.route(event)
    await world.publish(topics.TICKETS_ACTIVITY.name, reply_event(event.ticket_id, "卡号 4111 1111 1111 1111 已解绑"))
    await world.eventually_said(event.ticket_id, DELIVERED, DELIVERED)
    assert not any("4111" in row.body for row in await world.rows(event.ticket_id))
    assert not any(b"4111" in call.body for call in world.receiver.about(event.ticket_id))


# --- leads -----------------------------------------------------------------------------------------------------------


async def test_a_breach_reaches_the_lead_by_webhook_and_mail(world: World) -> None:
    breach = sla_event(queue=Queue.SECURITY, priority=Priority.P1)
    await world.publish(topics.SLA_EVENTS.name, breach, breach, sla_event(SlaKind.MET, ticket_id=breach.ticket_id))
    await world.eventually_said(breach.ticket_id, DELIVERED, DELIVERED)
    (call,) = world.receiver.about(breach.ticket_id)
    data = verified(call, LEADS_SECRET)["data"]
    assert (call.path, call.payload["type"], data["person"]) == ("/leads", "notification.breach", "security_lead")
    assert (data["queue"], data["priority"], data["target"]) == ("security", "P1", "first_response")
    (mail,) = [mail for mail in world.mailbox.to(LEAD_MAIL) if reference_of(breach.ticket_id) in mail["Subject"]]
    assert "2026-11-23 14:30:00 CST" in mail.get_content()  # 06:30 UTC, told in the lead's zone
    assert mail["Auto-Submitted"] == "auto-generated"


async def test_many_warnings_are_folded_into_few_messages(world: World) -> None:
    warnings = [sla_event(SlaKind.WARNING, brand="topay", queue=Queue.GENERAL, step=index + 1) for index in range(30)]
    await world.publish(topics.SLA_EVENTS.name, *warnings)

    async def all_told() -> bool:
        said = [await world.statuses(warning.ticket_id) for warning in warnings]
        assert said == [[DELIVERED]] * 30
        return True

    await eventually(all_told)
    calls = [call for call in world.receiver.calls if call.path == "/leads" and "topay" in call.body.decode()]
    digests = [call for call in calls if call.payload["type"] == "notification.digest"]
    alone = [call for call in calls if call.payload["type"] == "notification.warning"]
    assert sum(verified(call, LEADS_SECRET)["data"]["count"] for call in digests) + len(alone) == 30
    # 5 alone and one digest per window; the batch may have met the end of one or two windows.
    assert 1 <= len(digests) <= 3
    assert len(alone) <= 15


async def test_an_escalation_reaches_the_head_and_those_on_call_once(world: World) -> None:
    head = escalation_event(EscalationLevel.HEAD)
    on_call = escalation_event(EscalationLevel.ON_CALL, ticket_id=head.ticket_id, clock_id=head.clock_id, step=5)
    last = sla_event(ticket_id=head.ticket_id, step=6)  # the same partition: when it is told, all before was handled
    await world.publish(topics.SLA_EVENTS.name, head, on_call, head, on_call, last)
    # The head by webhook, who is on call by webhook and mail, the lead of the last one by webhook.
    await world.eventually_said(head.ticket_id, DELIVERED, DELIVERED, DELIVERED, DELIVERED)
    assert len(await world.rows(head.ticket_id)) == 4
    calls = {verified(call, LEADS_SECRET)["data"]["person"]: call for call in world.receiver.about(head.ticket_id)}
    assert len(world.receiver.about(head.ticket_id)) == len(calls) == 3
    for person, level in (("service_head", "head"), ("on_call_rota", "on_call")):
        assert calls[person].payload["type"] == "notification.breach"
        data = calls[person].payload["data"]
        assert (data["escalation"], data["business_seconds"], data["late_by_seconds"]) == (level, 7200, 6300)
        assert "按工作时间已超时 1 小时 45 分钟" in data["text"]
    (mail,) = [mail for mail in world.mailbox.to(ON_CALL_MAIL) if reference_of(head.ticket_id) in mail["Subject"]]
    assert mail["Subject"].startswith("紧急，呼叫值班人员：UPay")
    assert {outcome.kind for outcome in world.outcomes_of(head.ticket_id)} == {NotificationKind.BREACH}


@pytest.mark.parametrize("level", [EscalationLevel.HEAD, EscalationLevel.ON_CALL])
async def test_without_heads_and_nobody_on_call_the_lead_is_called(world: World, level: EscalationLevel) -> None:
    event = escalation_event(level, brand="tp_wallet", queue=Queue.REFUNDS)
    await world.publish(topics.SLA_EVENTS.name, event)
    await world.eventually_said(event.ticket_id, DELIVERED)
    (call,) = world.receiver.about(event.ticket_id)
    data = verified(call, LEADS_SECRET)["data"]
    assert (data["person"], data["escalation"]) == ("money_lead", level)
    assert "因此改为通知您" in data["text"]


async def test_those_on_call_are_called_each_time_and_heads_within_their_limit(world: World) -> None:
    def escalations(level: EscalationLevel) -> list[SlaEvent]:
        return [escalation_event(level, brand="u_wallet", queue=Queue.CREDIT) for _ in range(30)]

    to_head, to_on_call = escalations(EscalationLevel.HEAD), escalations(EscalationLevel.ON_CALL)
    await world.publish(topics.SLA_EVENTS.name, *to_head, *to_on_call)

    async def all_told() -> bool:
        said = [await world.statuses(event.ticket_id) for event in to_head]
        assert said == [[DELIVERED]] * 30
        said = [await world.statuses(event.ticket_id) for event in to_on_call]
        assert said == [[DELIVERED, DELIVERED]] * 30
        return True

    await eventually(all_told)
    for event in to_on_call:
        assert [row.digest_id for row in await world.rows(event.ticket_id)] == [None, None]
        assert [call.payload["type"] for call in world.receiver.about(event.ticket_id)] == ["notification.breach"]
    # 5 alone in each window; the batch may have met the end of one or two windows.
    folded = [row for event in to_head for row in await world.rows(event.ticket_id) if row.digest_id is not None]
    assert len(folded) >= 15
    async with world.database.transaction() as connection:
        scopes = set((await connection.execute(text("SELECT scope FROM notifier.allowances"))).scalars())
    assert "reminder/leads/service_head" in scopes
    assert not scopes & {"reminder/leads/on_call_rota", f"reminder/mail/{ON_CALL_MAIL}"}


async def test_a_change_of_policies_is_passed_over_and_a_call_of_nobody_refused(world: World) -> None:
    change = PolicyChanged(policy_version=uuid.uuid4().hex, previous_version="before", at=datetime.now(UTC))
    ticket_id = ticket_beside(change.key, topics.SLA_EVENTS.partitions)
    nobody = escalation_event(EscalationLevel.HEAD, ticket_id=ticket_id, escalation=None)
    breach = sla_event(ticket_id=ticket_id, step=5)
    await world.publish(topics.SLA_EVENTS.name, change, nobody, breach)
    await world.eventually_said(ticket_id, DELIVERED)
    assert len(await world.rows(ticket_id)) == 1
    ours = (str(ticket_id), change.policy_version)

    async def refused() -> list[DeadLetter]:
        records = (await read_all(world.settings, [topics.DEAD_LETTERS.name]))[topics.DEAD_LETTERS.name]
        letters: list[DeadLetter] = [decode(record, (DeadLetter,)).event for record in records]
        return [letter for letter in letters if any(name in letter.value for name in ours)]

    (letter,) = await eventually(refused)
    assert letter.record_key == str(ticket_id)
    assert letter.detail == "escalation: missing in an event of kind escalated; say lead, head or on_call"


# --- failures --------------------------------------------------------------------------------------------------------


async def test_a_receiver_that_comes_back_gets_what_it_missed(world: World) -> None:
    world.receiver.answers["/u_wallet"] = [(503, "Retry-After: 0\r\n")]
    event = routed_event(brand="u_wallet")
    await world.route(event)
    await world.eventually_said(event.ticket_id, FAILED, DELIVERED)
    first, second = world.receiver.about(event.ticket_id)
    assert first.body == second.body
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    failed, delivered = sorted(world.outcomes_of(event.ticket_id), key=lambda outcome: outcome.attempt)
    assert (failed.attempt, failed.detail, delivered.attempt) == (1, "HTTP 503", 2)
    assert failed.next_try_at is not None
    assert failed.next_try_at >= failed.at + timedelta(seconds=0.05)
    # At its time, not when the lease of the first try would have run out.
    assert delivered.at < failed.next_try_at + timedelta(seconds=world.settings.notifier_lease_seconds / 2)


async def test_gives_up_after_the_last_try_and_says_so(world: World) -> None:
    world.receiver.answers["/tp_wallet"] = [(500, ""), (302, "Location: http://127.0.0.1:1/\r\n"), (404, "")]
    event = routed_event(brand="tp_wallet")
    await world.route(event)
    await world.eventually_said(event.ticket_id, FAILED, FAILED, GIVEN_UP)
    details = [outcome.detail for outcome in sorted(world.outcomes_of(event.ticket_id), key=lambda item: item.attempt)]
    assert details == ["HTTP 500", "HTTP 302", "HTTP 404; given up after 3 tries"]
    assert len(world.receiver.about(event.ticket_id)) == 3


async def test_a_gone_endpoint_is_left_alone_until_it_is_enabled(world: World) -> None:
    world.receiver.answers["/u_wallet_app"] = [(410, "")]
    first, second = routed_event(brand="u_wallet_app"), routed_event(brand="u_wallet_app")
    await world.route(first)
    await world.eventually_said(first.ticket_id, GIVEN_UP)
    await world.route(second)
    await world.eventually_said(second.ticket_id, GIVEN_UP)
    assert world.receiver.about(second.ticket_id) == []
    assert world.outcomes_of(second.ticket_id)[0].detail.startswith("endpoint disabled since")
    async with world.database.transaction() as connection:
        assert await storage.enable_endpoint(connection, "u_wallet_app", datetime.now(UTC)) == 2
    await world.eventually_said(first.ticket_id, GIVEN_UP, DELIVERED)
    await world.eventually_said(second.ticket_id, GIVEN_UP, DELIVERED)


@pytest.mark.parametrize(
    ("answer", "expected", "detail"),
    [
        ("451 4.7.1 try later", (FAILED, DELIVERED), "SMTP 451 4.7.1"),
        ("550 5.1.1 no such user", (GIVEN_UP,), "SMTP 550 5.1.1"),
    ],
)
async def test_mail_is_tried_again_only_when_that_can_help(
    world: World, answer: str, expected: tuple[NotificationStatus, ...], detail: str
) -> None:
    address = f"{uuid.uuid4().hex[:8]}@customers.example"
    world.mailbox.answers[address] = [answer]
    event = routed_event(channel=Channel.WEB_FORM, reply_to=address)
    await world.route(event)
    await world.eventually_said(event.ticket_id, *expected)
    assert min(world.outcomes_of(event.ticket_id), key=lambda outcome: outcome.attempt).detail == detail
    assert len(world.mailbox.to(address)) == len(expected) - 1


async def test_a_lease_that_ran_out_is_taken_up_again_and_the_late_result_is_void(world: World) -> None:
    """What kill -9 leaves behind: a leased row that nobody works on."""
    event = routed_event(brand="upay_wallet")
    # Nobody else leases it: the endpoint that the row names is known to this test only.
    notification_id = uuid.uuid4()
    now = datetime.now(UTC)
    async with world.database.transaction() as connection:
        await connection.execute(
            text("INSERT INTO notifier.deadlines VALUES (:id, 'crash_test', :id, :now, :now, 0)"),
            {"id": notification_id, "now": now},
        )
        (dead,) = await storage.lease_due(connection, now, 10, {"crash_test": 5})
        assert await storage.lease_due(connection, now + timedelta(seconds=9), 10, {"crash_test": 5}) == []
        (heir,) = await storage.lease_due(connection, now + timedelta(seconds=11), 10, {"crash_test": 5})
        assert (dead.attempt, heir.attempt) == (1, 2)
        assert await storage.end_leases(connection, {dead: None}) == set()
        assert await storage.end_leases(connection, {heir: None}) == {notification_id}
    await world.route(event)
    await world.eventually_said(event.ticket_id, DELIVERED)


async def test_no_more_is_leased_than_an_endpoint_has_room_for(world: World) -> None:
    now = datetime.now(UTC)
    async with world.database.transaction() as connection:
        for endpoint in ("slow_test", "quick_test"):
            for _ in range(20):
                await connection.execute(
                    text("INSERT INTO notifier.deadlines VALUES (:id, :endpoint, :id, :now, :now, 0)"),
                    {"id": uuid.uuid4(), "endpoint": endpoint, "now": now},
                )
        leases = await storage.lease_due(connection, now, 10, {"slow_test": 3, "quick_test": 7})
        counts = {name: sum(lease.endpoint == name for lease in leases) for name in ("slow_test", "quick_test")}
        await connection.execute(text("DELETE FROM notifier.deadlines WHERE kind IN ('slow_test', 'quick_test')"))
    assert counts == {"slow_test": 3, "quick_test": 7}


async def test_two_replicas_deliver_each_notification_once(world: World) -> None:
    async with running(build(world.settings)) as second:

        async def ready() -> bool:
            assert await second.not_ready() == {}
            return True

        await eventually(ready)
        tickets = [routed_event(brand="upay_wallet") for _ in range(100)]
        by_queue = [Outgoing(topics.queue_topic_name(item.queue), item, trace_of(item)) for item in tickets]
        await world.publisher.publish(by_queue)
        await world.publisher.publish(by_queue)

        async def all_told() -> bool:
            for ticket in tickets:
                assert await world.statuses(ticket.ticket_id) == [DELIVERED]
            return True

        await eventually(all_told)
    assert [len(world.receiver.about(ticket.ticket_id)) for ticket in tickets] == [1] * 100


async def test_finished_notifications_are_erased_and_deleted_in_time(world: World) -> None:
    event = routed_event()
    await world.route(event)
    await world.eventually_said(event.ticket_id, DELIVERED)
    before = datetime.now(UTC) - timedelta(days=30)
    async with world.database.transaction() as connection:
        await storage.purge(connection, texts=before, records=before, contacts=before)
    (row,) = await world.rows(event.ticket_id)
    assert row.body
    orphan = reply_event(uuid.uuid4(), "to nobody")
    await world.publish(topics.TICKETS_ACTIVITY.name, orphan)

    async def waits() -> bool:
        return [row.state for row in await world.rows(orphan.ticket_id)] == ["waiting_contact"]

    await eventually(waits)
    now = datetime.now(UTC) + timedelta(seconds=1)
    async with world.database.transaction() as connection:
        while await storage.purge(connection, texts=now, records=before, contacts=before):
            pass
    (row,) = await world.rows(event.ticket_id)
    assert (row.body, row.subject, row.data, row.recipient) == ("", "", {}, None)
    async with world.database.transaction() as connection:
        while await storage.purge(connection, texts=now, records=now, contacts=now):
            pass
    assert await world.rows(event.ticket_id) == await world.rows(orphan.ticket_id) == []
