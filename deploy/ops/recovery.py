"""After a restore: what services told since the backup is in the log; here it is given back to their tables.

Most services need nothing: set back, they take events again, and make the same effects under the same ids. Two do:

- intake accepted messages that are in no topic that it reads (they came over HTTP, by mail, from a provider). Its own
  `tickets.messages` has them: so it knows a repetition again, and which ticket a conversation is at.
- the notifier delivered to the outside world. Its own `notifications.outcomes` says what: so nobody is told twice.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from deploy.ops import groups as kafka
from deploy.ops import postgres
from deploy.ops.letters import read_ranges
from services.intake import storage as intake
from services.intake.domain import Original, Ticket, apply_activities, conversation_id_of, make_current
from shared import topics
from shared.cloudevents import InvalidRecord, decode
from shared.events import (
    ChannelMessage,
    Disposition,
    NotificationOutcome,
    NotificationStatus,
    TicketActivity,
    TicketMessage,
    derive_id,
)
from shared.settings import CommonSettings
from shared.topics import Topic

_AT_ONCE: Final = 500
_STATES: Final = {NotificationStatus.DELIVERED: "delivered", NotificationStatus.GIVEN_UP: "given_up"}


@dataclass(slots=True)
class Learnt:
    messages: int = 0
    notifications: int = 0


async def learn(settings: CommonSettings, since: Mapping[TopicPartition, int]) -> Learnt:
    """Read what was told from these places on, and store what intake and the notifier should know of it. Again is
    harmless.
    """
    learnt = Learnt()
    reader = kafka.consumer(settings)
    await reader.start()
    try:
        ends = await reader.end_offsets(list(since))

        def ranges(*wanted: Topic) -> dict[TopicPartition, tuple[int, int]]:
            names = {topic.name for topic in wanted}
            return {place: (begin, ends[place]) for place, begin in since.items() if place.topic in names}

        conversations = await _conversations(reader, ranges(topics.CHANNEL_MESSAGES))
        async with postgres.engine(settings) as engine:
            told = ranges(topics.TICKETS_MESSAGES, topics.TICKETS_ACTIVITY)
            async for batch in _batches(_in_order(reader, told)):
                async with engine.begin() as connection:
                    for record in batch:
                        learnt.messages += await _accepted(connection, record, conversations)
            async for batch in _batches(read_ranges(reader, ranges(topics.NOTIFICATIONS_OUTCOMES))):
                learnt.notifications += await _done(engine, batch)
    finally:
        await reader.stop()
    return learnt


async def _in_order(
    reader: AIOKafkaConsumer, ranges: dict[TopicPartition, tuple[int, int]]
) -> AsyncIterator[ConsumerRecord[bytes, bytes]]:
    """By time stamp: an agent's resolution stands between the messages before and after it. Of what came since a
    backup, so it fits into memory.
    """
    records = [record async for record in read_ranges(reader, ranges)]
    for record in sorted(records, key=lambda item: (item.timestamp, item.topic, item.partition, item.offset)):
        yield record


async def _batches(
    records: AsyncIterator[ConsumerRecord[bytes, bytes]],
) -> AsyncIterator[list[ConsumerRecord[bytes, bytes]]]:
    batch: list[ConsumerRecord[bytes, bytes]] = []
    async for record in records:
        batch.append(record)
        if len(batch) >= _AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


def _event(record: ConsumerRecord[bytes, bytes]) -> Any:
    """None for what cannot be read: it moved to dead.letters when it came."""
    try:
        return decode(record, topics.BY_NAME[record.topic].carries).event
    except InvalidRecord:
        return None


# --- intake ----------------------------------------------------------------------------------------------------------


async def _conversations(
    reader: AIOKafkaConsumer, ranges: dict[TopicPartition, tuple[int, int]]
) -> dict[intake.MessageKey, ChannelMessage]:
    """What channels sent since, by message: only there stands which conversation of the channel's it belongs to."""
    found = {}
    async for record in read_ranges(reader, ranges):
        message = _event(record)
        if message is not None:
            found[intake.key_of(message)] = message.model_copy(update={"text": "", "attachments": ()})
    return found


async def _accepted(
    connection: AsyncConnection,
    record: ConsumerRecord[bytes, bytes],
    sent: Mapping[intake.MessageKey, ChannelMessage],
) -> int:
    """Store what `record` says of an accepted message, or of a ticket's end. 1 if a message was new."""
    event = _event(record)
    if isinstance(event, TicketActivity):
        conversation_ids = await intake.lock_conversations_of_tickets(connection, [event.ticket_id])
        if conversation_ids:
            of_them = await intake.tickets_of_activities(connection, [event.ticket_id], conversation_ids)
            await intake.save_tickets(connection, apply_activities([event], of_them))
        return 0
    if not isinstance(event, TicketMessage) or event.folded:
        return 0  # one that stands for a flood is no message of the customer's
    known = {ticket.ticket_id: ticket for ticket in await intake.tickets(connection, [event.ticket_id])}
    origin = sent.get(intake.key_of(event))
    conversation_id = (
        known[event.ticket_id].conversation_id
        if known
        else conversation_id_of(origin)
        if origin
        else _unthreaded(event)
    )
    await _keep_conversation(connection, conversation_id, event, origin)
    if not await _keep_message(connection, event):
        return 0
    near = await intake.tickets_of_activities(connection, [event.ticket_id], [conversation_id])
    tickets = {ticket.ticket_id: ticket for ticket in near}
    ticket = _with_message(tickets.get(event.ticket_id), conversation_id, event)
    await intake.save_tickets(connection, list(make_current(ticket, event.sent_at, tickets).values()))
    if event.changes is not None:
        original = Original(
            event.changes,
            event.changes,
            event.ticket_id,
            event.sent_at,
            event.sent_at,
            taken_back=event.deletes is not None,
        )
        await intake.save_originals(connection, [(conversation_id, original)])
        if event.deletes is not None:
            await intake.forget_words(connection, [event.ticket_id], [event.deletes])
    return 1


def _unthreaded(event: TicketMessage) -> uuid.UUID:
    """Conversation of a customer on a channel that does not thread by itself, as nearly all do."""
    return derive_id("conversation", event.brand, event.channel, event.customer.id, "")


def _with_message(ticket: Ticket | None, conversation_id: uuid.UUID, event: TicketMessage) -> Ticket:
    if ticket is None:
        return Ticket(
            ticket_id=event.ticket_id,
            conversation_id=conversation_id,
            opened_at=event.opened_at,
            first_message_at=event.sent_at,
            last_message_at=event.sent_at,
            message_count=event.sequence,
            is_open=False,
            linked_ticket_id=event.linked_ticket_id,
        )
    return replace(
        ticket,
        first_message_at=min(ticket.first_message_at, event.sent_at),
        last_message_at=max(ticket.last_message_at, event.sent_at),
        message_count=max(ticket.message_count, event.sequence),
        resolved_at=None if event.disposition is Disposition.REOPENED else ticket.resolved_at,
    )


async def _keep_conversation(
    connection: AsyncConnection, conversation_id: uuid.UUID, event: TicketMessage, origin: ChannelMessage | None
) -> None:
    if origin is not None:
        await intake.lock_conversations(connection, {conversation_id: origin}, event.accepted_at)
        return
    await connection.execute(
        text(
            "INSERT INTO intake.conversations (conversation_id, brand, channel, customer_id, last_seen_at) "
            "VALUES (:id, :brand, :channel, :customer, :at) ON CONFLICT DO NOTHING"
        ),
        {
            "id": conversation_id,
            "brand": event.brand,
            "channel": event.channel.value,
            "customer": event.customer.id,
            "at": event.accepted_at,
        },
    )


async def _keep_message(connection: AsyncConnection, event: TicketMessage) -> bool:
    """False if it was known. It has no origin: the record that brought it counts as a repetition, and is dropped."""
    added = await connection.execute(
        text(
            "INSERT INTO intake.messages "
            "(brand, channel, message_id, ticket_id, sequence, disposition, sent_at, accepted_at, event) "
            "VALUES (:brand, :channel, :message_id, :ticket_id, :sequence, :disposition, :sent_at, :accepted_at, "
            ":event) "
            "ON CONFLICT DO NOTHING"
        ),
        {
            "brand": event.brand,
            "channel": event.channel.value,
            "message_id": event.message_id,
            "ticket_id": event.ticket_id,
            "sequence": event.sequence,
            "disposition": event.disposition.value,
            "sent_at": event.sent_at,
            "accepted_at": event.accepted_at,
            "event": event.model_dump_json(),
        },
    )
    return added.rowcount == 1


# --- notifier --------------------------------------------------------------------------------------------------------


async def _done(engine: AsyncEngine, batch: Sequence[ConsumerRecord[bytes, bytes]]) -> int:
    """Keep that these notifications are done with. One that the tables do not know yet is kept without its text."""
    done = {
        event.notification_id: event
        for record in batch
        if isinstance(event := _event(record), NotificationOutcome) and event.status in _STATES
    }
    if not done:
        return 0
    now = datetime.now(UTC)
    async with engine.begin() as connection:
        for notification_id in sorted(done):
            event = done[notification_id]
            await connection.execute(
                text(
                    "INSERT INTO notifier.notifications (notification_id, kind, state, ticket_id, brand, output, "
                    "language, subject, body, data, caused_at, traceparent, attempt, detail, created_at, finished_at, "
                    "erased) VALUES (:id, :kind, :state, :ticket, :brand, :output, 'en', '', '', '{}', :at, '', "
                    ":attempt, :detail, :now, :at, true) "
                    "ON CONFLICT (notification_id) DO UPDATE SET state = excluded.state, attempt = excluded.attempt, "
                    "detail = excluded.detail, finished_at = excluded.finished_at, next_try_at = NULL"
                ),
                {
                    "id": notification_id,
                    "kind": event.kind.value,
                    "state": _STATES[event.status],
                    "ticket": event.ticket_id,
                    "brand": event.brand,
                    "output": event.output.value,
                    "attempt": event.attempt,
                    "detail": event.detail,
                    "at": event.at,
                    "now": now,
                },
            )
        await connection.execute(text("DELETE FROM notifier.deadlines WHERE id = ANY(:ids)"), {"ids": sorted(done)})
    return len(done)
