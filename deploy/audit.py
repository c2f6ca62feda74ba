"""Counts, from the topics and the database, what became of every record that was sent: nothing lost, nothing doubled.

A record sent to `channel.messages` is accounted for when its message is on `tickets.messages`, or a dead letter names
the record's own coordinates. An accepted message is accounted for when a `TicketRouted` names it as its cause. What is
not accounted for is lost; what is accounted for twice is doubled. Of messages that intake withholds it keeps why: what
was folded is accounted for by the messages that stand for its flood, what was taken back or replaced before it came by
its row.

After a crash a record may be published once more. Such a redelivery is the same event, with the same id and content;
every consumer takes it once. It is counted apart (`redelivered`), and it is doubled only when its content differs; but
what a customer took back meanwhile is published without its words.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, TypeVar

import asyncpg
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from deploy.ops.groups import groups_of, lags
from shared import topics
from shared.admin import partitions as partitions_of
from shared.cloudevents import InvalidRecord, decode
from shared.events import (
    ChannelMessage,
    DeadLetter,
    Event,
    NotificationOutcome,
    NotificationStatus,
    PeakEvent,
    SlaEvent,
    SlaKind,
    Target,
    TicketMessage,
    TicketRouted,
)
from shared.settings import CommonSettings

E = TypeVar("E", bound=Event)
_PENDING: Final = (
    "SELECT (SELECT count(*) FROM intake.outbox) + (SELECT count(*) FROM sla_timer.outbox) "
    "+ (SELECT count(*) FROM notifier.outbox) + (SELECT count(*) FROM desk.outbox) "
    "+ (SELECT count(*) FROM intake.deadlines)"
)
_ON_THE_WAY_TO_A_QUEUE: Final = ("intake", "classifier")
_LOOK_AGAIN_SECONDS: Final = 0.5


async def read_all(settings: CommonSettings, names: Iterable[str]) -> dict[str, list[ConsumerRecord[bytes, bytes]]]:
    """Every record of these topics up to their ends as of now, without a consumer group."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap_servers, enable_auto_commit=False, auto_offset_reset="earliest"
    )
    found: dict[str, list[ConsumerRecord[bytes, bytes]]] = {name: [] for name in names}
    await consumer.start()
    try:
        counts = await partitions_of(settings)
        partitions = [TopicPartition(name, part) for name in found for part in range(counts.get(name, 0))]
        ends = await consumer.end_offsets(partitions)
        begins = await consumer.beginning_offsets(partitions)
        open_ones = {partition for partition in partitions if ends[partition] > begins[partition]}
        consumer.assign(sorted(open_ones))
        for partition in open_ones:
            consumer.seek(partition, begins[partition])
        while open_ones:
            for partition, records in (await consumer.getmany(timeout_ms=500, max_records=5000)).items():
                found[partition.topic] += [record for record in records if record.offset < ends[partition]]
            for partition in list(open_ones):
                if await consumer.position(partition) >= ends[partition]:
                    open_ones.discard(partition)
                    consumer.pause(partition)
    finally:
        await consumer.stop()
    return found


@dataclass
class Audit:
    """What the topics and the database say. `lost_detail` and `doubled_detail` name the first few cases."""

    messages: int = 0
    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0
    tickets: int = 0
    routed: int = 0
    by_queue: dict[str, int] = field(default_factory=dict)
    by_priority: dict[str, int] = field(default_factory=dict)
    warnings: int = 0
    breaches: int = 0
    delivered: int = 0
    failed: int = 0
    pending: int = 0
    lost: int = 0
    doubled: int = 0
    redelivered: int = 0
    folded: int = 0
    lateness_ms: dict[Target, int] = field(default_factory=dict)
    lost_detail: list[str] = field(default_factory=list)
    doubled_detail: list[str] = field(default_factory=list)
    latest: dict[str, TicketRouted] = field(default_factory=dict)
    sla: list[SlaEvent] = field(default_factory=list)
    peaks: list[PeakEvent] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)

    def lose(self, what: str) -> None:
        self.lost += 1
        self.lost_detail.append(what)

    def double(self, what: str, times: int) -> None:
        if times > 1:
            self.doubled += times - 1
            self.doubled_detail.append(f"{what}: {times} times")

    @property
    def max_lateness_ms(self) -> int:
        return max(self.lateness_ms.values(), default=0)

    @property
    def settled(self) -> bool:
        """Whether everything that was sent has become something."""
        return not self.lost and not self.pending


async def audit_when_settled(
    settings: CommonSettings, timeout_seconds: float, services: Collection[str] = _ON_THE_WAY_TO_A_QUEUE
) -> Audit:
    """Count once everything that was sent has become something, or when that takes too long: then what is missing is
    lost. Topics are read when nothing is on its way any more, and not before: a count of all of them takes its time.

    `services`: who must have taken all there is. Promises that come due by themselves keep others at work for ever.
    """
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        if not await _on_its_way(settings, services):
            found = await audit(settings)
            if found.settled:
                return found
        await asyncio.sleep(_LOOK_AGAIN_SECONDS)
    return await audit(settings)


async def _on_its_way(settings: CommonSettings, services: Collection[str]) -> int:
    """Events that are not published, else records that are not taken."""
    connection = await asyncpg.connect(settings.database_url.get_secret_value())
    try:
        pending: int = await connection.fetchval(_PENDING)
    finally:
        await connection.close()
    return pending or sum(place.lag for place in await lags(settings, groups_of(services)))


async def audit(settings: CommonSettings) -> Audit:
    """Read all topics and the services' tables."""
    records = await read_all(settings, [topic.name for topic in topics.ALL])
    sent = records[topics.CHANNEL_MESSAGES.name]
    result = Audit(messages=len(sent))
    result.dead = _events(result, records[topics.DEAD_LETTERS.name], DeadLetter)
    messages = _events(result, records[topics.TICKETS_MESSAGES.name], TicketMessage)
    in_queues = [record for topic in topics.QUEUES for record in records[topic.name]]
    routed = _events(result, in_queues, TicketRouted)
    withheld = await _compare_with_tables(result, settings, messages)
    _account_for_sent(result, sent, messages, withheld)
    _account_for_accepted(result, messages, routed)
    accepted_at: dict[uuid.UUID, datetime] = {}
    for message in messages:
        accepted_at[message.ticket_id] = min(
            message.accepted_at, accepted_at.get(message.ticket_id, message.accepted_at)
        )
    _count_promises(result, _events(result, records[topics.SLA_EVENTS.name], SlaEvent), accepted_at)
    _count_notifications(result, _events(result, records[topics.NOTIFICATIONS_OUTCOMES.name], NotificationOutcome))
    result.peaks = _events(result, records[topics.PEAKS_EVENTS.name], PeakEvent)
    return result


def _events(result: Audit, records: Iterable[ConsumerRecord[bytes, bytes]], model: type[E]) -> list[E]:
    """The events of this type, each once. The same id with another content is doubled."""
    found: dict[object, E] = {}
    for record in records:
        if dict(record.headers).get("ce_type") != model.TYPE.encode():
            continue
        event: E = decode(record, (model,)).event
        known = found.setdefault(event.event_id, event)
        if known is event:
            continue
        result.redelivered += 1
        # A dead letter says when it was written, which is each time anew.
        is_same = known == event or event == _without_words(known) or known == _without_words(event)
        if not isinstance(event, DeadLetter) and not is_same:
            result.double(f"{model.__name__} {event.event_id} with two contents", 2)
    return list(found.values())


def _without_words(event: Event) -> Event:
    """As it is told again once its customer has taken his words back."""
    if isinstance(event, TicketMessage):
        return event.model_copy(update={"text": "", "subject": None, "attachments": (), "redactions": ()})
    if isinstance(event, TicketRouted):
        return event.model_copy(update={"text": "", "subject": None, "points": ()})
    return event


def _account_for_sent(
    result: Audit,
    sent: list[ConsumerRecord[bytes, bytes]],
    messages: list[TicketMessage],
    withheld: set[tuple[str, str, str]],
) -> None:
    by_message = Counter((item.brand, item.channel.value, item.message_id) for item in messages)
    dead = Counter((item.topic, item.partition, item.offset) for item in result.dead)
    seen: Counter[tuple[str, str, str]] = Counter()
    for record in sent:
        place = f"{record.topic}[{record.partition}]@{record.offset}"
        rejected = dead[record.topic, record.partition, record.offset]
        result.double(f"dead letter of {place}", rejected)
        if rejected:
            result.rejected += 1
            continue
        try:
            message: ChannelMessage = decode(record, topics.CHANNEL_MESSAGES.carries).event
        except InvalidRecord:
            result.lose(f"{place} is bad and has no dead letter")
            continue
        identity = (message.brand, message.channel.value, message.message_id)
        seen[identity] += 1
        if seen[identity] > 1:
            result.duplicates += 1
        elif not by_message[identity] and identity not in withheld:
            result.lose(f"{place} ({'/'.join(identity)}) is on no ticket")
    for identity, times in by_message.items():
        result.double(f"message {'/'.join(identity)} on {topics.TICKETS_MESSAGES.name}", times)
    tickets_of: dict[tuple[str, str, str], set[str]] = {}
    for item in messages:
        tickets_of.setdefault((item.brand, item.channel.value, item.message_id), set()).add(str(item.ticket_id))
    for identity, tickets in tickets_of.items():
        result.double(f"tickets of message {'/'.join(identity)}", len(tickets))
    result.accepted = len(by_message) - sum(item.folded > 0 for item in messages)
    result.tickets = len({item.ticket_id for item in messages})


def _account_for_accepted(result: Audit, messages: list[TicketMessage], routed: list[TicketRouted]) -> None:
    by_cause = Counter(event.cause_id for event in routed)
    for message in messages:
        if not by_cause[message.event_id]:
            result.lose(f"message {message.brand}/{message.channel}/{message.message_id} was routed nowhere")
    for cause, times in by_cause.items():
        result.double(f"routing caused by {cause}", times)
    result.routed = len({message.event_id for message in messages} & set(by_cause))
    for event in routed:
        known = result.latest.get(str(event.ticket_id))
        if known is None or known.revision < event.revision:
            result.latest[str(event.ticket_id)] = event
    result.by_queue = dict(sorted(Counter(event.queue.value for event in result.latest.values()).items()))
    result.by_priority = dict(sorted(Counter(event.priority.value for event in result.latest.values()).items()))


async def _compare_with_tables(
    result: Audit, settings: CommonSettings, messages: list[TicketMessage]
) -> set[tuple[str, str, str]]:
    """Returns the messages that intake has withheld (brand, channel, id)."""
    connection = await asyncpg.connect(settings.database_url.get_secret_value())
    try:
        stored = await connection.fetch(
            "SELECT brand, channel, message_id, ticket_id, withheld, flood_id IS NOT NULL AS is_of_flood "
            "FROM intake.messages"
        )
        result.pending = await connection.fetchval(_PENDING)
    finally:
        await connection.close()
    published = {(item.brand, item.channel.value, item.message_id): str(item.ticket_id) for item in messages}
    withheld: set[tuple[str, str, str]] = set()
    must_stand: Counter[str] = Counter()
    may_stand: Counter[str] = Counter()
    for row in stored:
        stored_identity = (row["brand"], row["channel"], row["message_id"])
        if row["withheld"] is not None:
            withheld.add(stored_identity)
            must_stand[str(row["ticket_id"])] += row["withheld"] == "folded"
            may_stand[str(row["ticket_id"])] += row["is_of_flood"]  # one may have been taken back after it was told
            if stored_identity in published:
                result.double(f"message {'/'.join(stored_identity)}, which is withheld,", 2)
        elif published.get(stored_identity) != str(row["ticket_id"]):
            result.lose(f"message {'/'.join(stored_identity)} is stored, but not published with its ticket")
    stands: Counter[str] = Counter()
    for message in messages:
        stands[str(message.ticket_id)] += message.folded
    result.folded = stands.total()
    for ticket_id in must_stand if not result.pending else ():
        if stands[ticket_id] < must_stand[ticket_id]:
            result.lose(f"{must_stand[ticket_id] - stands[ticket_id]} messages of a flood of ticket {ticket_id}")
    for ticket_id, count in stands.items():
        if count > may_stand[ticket_id]:
            result.double(f"messages of a flood of ticket {ticket_id}", 1 + count - may_stand[ticket_id])
    return withheld


def _count_promises(result: Audit, events: list[SlaEvent], accepted_at: Mapping[uuid.UUID, datetime]) -> None:
    """`max_lateness_ms` is our own lateness: a promise that was broken before its message came is not late by that."""
    for (clock, kind, step), times in Counter((event.clock_id, event.kind, event.step) for event in events).items():
        result.double(f"{kind} (step {step}) of clock {clock}", times)
    breaches = Counter(event.clock_id for event in events if event.kind is SlaKind.BREACHED)
    for clock, times in breaches.items():
        result.double(f"breach of clock {clock}", times)
    result.sla = events
    result.warnings = sum(event.kind is SlaKind.WARNING for event in events)
    result.breaches = len(breaches)
    for event in events:
        if event.fired_at is not None:
            known = max(event.at, accepted_at.get(event.ticket_id, event.at))
            late_ms = max(0, (event.fired_at - known) // timedelta(milliseconds=1))
            result.lateness_ms[event.target] = max(late_ms, result.lateness_ms.get(event.target, 0))


def _count_notifications(result: Audit, outcomes: list[NotificationOutcome]) -> None:
    delivered = Counter(event.notification_id for event in outcomes if event.status is NotificationStatus.DELIVERED)
    for notification, times in delivered.items():
        result.double(f"delivery of notification {notification}", times)
    result.delivered = len(delivered)
    result.failed = len({event.notification_id for event in outcomes if event.status is NotificationStatus.GIVEN_UP})
