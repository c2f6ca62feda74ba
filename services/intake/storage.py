"""The tables of intake and every statement on them.

Order of locks, the same in every transaction, each step sorted: conversations, tickets, messages. So no two of them
can wait for each other in a circle. Whoever holds a conversation's row decides alone what becomes of its tickets, on
whichever replica; should anything slip past that, the unique index on open tickets refuses it.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Index,
    Integer,
    Interval,
    PrimaryKeyConstraint,
    Text,
    bindparam,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import Boolean, TypeEngine
from sqlalchemy.types import Uuid as UuidType
from sqlmodel import Field, SQLModel

from services.intake.domain import Ticket
from shared.cloudevents import Origin
from shared.database import service_metadata
from shared.events import ChannelMessage, TicketMessage
from shared.outbox import outbox_table
from shared.redaction import redact

METADATA: Final = service_metadata("intake")
OUTBOX: Final = outbox_table(METADATA)


class Base(SQLModel):
    metadata = METADATA


def _timestamp(*, nullable: bool = False) -> Any:
    return Field(sa_column=Column(DateTime(timezone=True), nullable=nullable))


class ConversationRow(Base, table=True):
    """What one customer writes on one channel of one brand. Its row is the lock under which its tickets change."""

    __tablename__ = "conversations"

    conversation_id: uuid.UUID = Field(primary_key=True)
    brand: str = Field(sa_type=Text)
    channel: str = Field(sa_type=Text)
    customer_id: str = Field(sa_type=Text)
    channel_conversation_id: str | None = Field(sa_type=Text)
    last_seen_at: datetime = _timestamp()


class TicketRow(Base, table=True):
    """`services.intake.domain.Ticket`, stored."""

    __tablename__ = "tickets"
    __table_args__ = (
        # Invariant 2: two open tickets of one conversation cannot be, whatever the code above thinks.
        Index("uq_tickets_open_conversation", "conversation_id", unique=True, postgresql_where=text("is_open")),
        Index("ix_tickets_conversation_id_opened_at", "conversation_id", "opened_at"),
        {"schema": "intake"},
    )

    ticket_id: uuid.UUID = Field(primary_key=True)
    conversation_id: uuid.UUID
    opened_at: datetime = _timestamp()
    first_message_at: datetime = _timestamp()
    last_message_at: datetime = _timestamp()
    message_count: int
    is_open: bool
    resolved_at: datetime | None = _timestamp(nullable=True)
    activity_at: datetime | None = _timestamp(nullable=True)
    linked_ticket_id: uuid.UUID | None = None


class MessageRow(Base, table=True):
    """An accepted message: proof that it was, where it came from, and the event it became."""

    __tablename__ = "messages"
    __table_args__ = (
        PrimaryKeyConstraint("brand", "channel", "message_id"),
        Index("ix_messages_ticket_id", "ticket_id"),
        {"schema": "intake"},
    )

    brand: str = Field(sa_column=Column(Text, nullable=False))
    channel: str = Field(sa_column=Column(Text, nullable=False))
    message_id: str = Field(sa_column=Column(Text, nullable=False))
    ticket_id: uuid.UUID
    sequence: int = Field(sa_type=Integer)
    disposition: str = Field(sa_type=Text)
    accepted_at: datetime = _timestamp()
    # The record that brought it; none of a message that came over HTTP.
    topic: str | None = Field(sa_type=Text)
    partition: int | None = Field(sa_type=Integer)
    record_offset: int | None = Field(sa_type=BigInteger)
    # The TicketMessage as JSON, secrets cut: what a redelivery publishes again must be the same to the byte.
    event: str = Field(sa_type=Text)


MessageKey = tuple[str, str, str]


def key_of(message: ChannelMessage | TicketMessage) -> MessageKey:
    """Brand, channel, message id: what makes a message the same message."""
    return message.brand, message.channel, message.message_id


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message that was accepted earlier."""

    ticket_id: uuid.UUID
    origin: Origin | None
    event_json: str

    def event(self) -> TicketMessage:
        return TicketMessage.model_validate_json(self.event_json)


def _columns(statement: str, **columns: TypeEngine[Any]) -> Any:
    """A statement that takes each of these parameters as an array: one element per row."""
    return text(statement).bindparams(
        *(bindparam(name, type_=ARRAY(kind, dimensions=1)) for name, kind in columns.items())
    )


_LOCK_CONVERSATIONS: Final = _columns(
    """
    INSERT INTO intake.conversations
        (conversation_id, brand, channel, customer_id, channel_conversation_id, last_seen_at)
    SELECT conversation_id, brand, channel, customer_id, channel_conversation_id, :now
    FROM unnest(:conversation_ids, :brands, :channels, :customer_ids, :channel_conversation_ids)
        AS new (conversation_id, brand, channel, customer_id, channel_conversation_id)
    ORDER BY conversation_id
    ON CONFLICT (conversation_id) DO UPDATE SET last_seen_at = excluded.last_seen_at
    """,
    conversation_ids=UuidType(),
    brands=Text(),
    channels=Text(),
    customer_ids=Text(),
    channel_conversation_ids=Text(),
).bindparams(bindparam("now", type_=DateTime(timezone=True)))

_LOCK_CONVERSATIONS_OF_TICKETS: Final = _columns(
    """
    SELECT conversation_id FROM intake.conversations
    WHERE conversation_id IN (SELECT conversation_id FROM intake.tickets WHERE ticket_id = ANY(:ticket_ids))
    ORDER BY conversation_id FOR UPDATE
    """,
    ticket_ids=UuidType(),
)

_STORED_MESSAGES: Final = _columns(
    """
    SELECT brand, channel, message_id, ticket_id, topic, partition, record_offset, event
    FROM unnest(:brands, :channels, :message_ids) AS wanted (brand, channel, message_id)
    JOIN intake.messages USING (brand, channel, message_id)
    """,
    brands=Text(),
    channels=Text(),
    message_ids=Text(),
)

_TICKET_COLUMNS: Final = (
    "ticket_id, conversation_id, opened_at, first_message_at, last_message_at, message_count, is_open, resolved_at,"
    " activity_at, linked_ticket_id"
)

# A customer of many years has hundreds of tickets: only those that can matter are read.
_TICKETS_NEAR: Final = _columns(
    f"""
    SELECT {_TICKET_COLUMNS} FROM (
        SELECT near.*
        FROM unnest(:conversation_ids, :earliest) AS asked (id, earliest)
        JOIN intake.tickets AS near ON near.conversation_id = asked.id
            AND (near.is_open OR greatest(near.last_message_at, near.activity_at) >= asked.earliest - :longest)
        UNION
        SELECT previous.*
        FROM unnest(:conversation_ids, :earliest) AS asked (id, earliest)
        CROSS JOIN LATERAL (
            SELECT * FROM intake.tickets
            WHERE conversation_id = asked.id AND opened_at <= asked.earliest
            ORDER BY opened_at DESC, ticket_id DESC LIMIT 1
        ) AS previous
    ) AS tickets
    """,  # noqa: S608 - our own column names
    conversation_ids=UuidType(),
    earliest=DateTime(timezone=True),
).bindparams(bindparam("longest", type_=Interval()))

_TICKETS_OF_ACTIVITIES: Final = _columns(
    f"""
    SELECT {_TICKET_COLUMNS} FROM intake.tickets WHERE ticket_id = ANY(:ticket_ids)
    UNION
    SELECT {_TICKET_COLUMNS} FROM intake.tickets WHERE conversation_id = ANY(:conversation_ids) AND is_open
    """,  # noqa: S608 - our own column names
    ticket_ids=UuidType(),
    conversation_ids=UuidType(),
)

# Closed before opened: the index on open tickets looks at each row as it is written.
_SAVE_TICKETS: Final = _columns(
    f"""
    INSERT INTO intake.tickets ({_TICKET_COLUMNS})
    SELECT {_TICKET_COLUMNS}
    FROM unnest(:ticket_ids, :conversation_ids, :opened, :first_messages, :last_messages, :counts, :open, :resolved,
        :activities, :linked) AS changed ({_TICKET_COLUMNS})
    ORDER BY is_open, ticket_id
    ON CONFLICT (ticket_id) DO UPDATE SET
        first_message_at = excluded.first_message_at, last_message_at = excluded.last_message_at,
        message_count = excluded.message_count, is_open = excluded.is_open, resolved_at = excluded.resolved_at,
        activity_at = excluded.activity_at
    """,  # noqa: S608 - our own column names
    ticket_ids=UuidType(),
    conversation_ids=UuidType(),
    opened=DateTime(timezone=True),
    first_messages=DateTime(timezone=True),
    last_messages=DateTime(timezone=True),
    counts=Integer(),
    open=Boolean(),
    resolved=DateTime(timezone=True),
    activities=DateTime(timezone=True),
    linked=UuidType(),
)

_ADD_MESSAGES: Final = _columns(
    """
    INSERT INTO intake.messages (brand, channel, message_id, ticket_id, sequence, disposition, accepted_at,
        topic, partition, record_offset, event)
    SELECT * FROM unnest(:brands, :channels, :message_ids, :ticket_ids, :sequences, :dispositions, :accepted,
        :topics, :partitions, :offsets, :events)
        AS new (brand, channel, message_id, ticket_id, sequence, disposition, accepted_at,
            topic, partition, record_offset, event)
    ORDER BY brand, channel, message_id
    ON CONFLICT DO NOTHING
    """,
    brands=Text(),
    channels=Text(),
    message_ids=Text(),
    ticket_ids=UuidType(),
    sequences=Integer(),
    dispositions=Text(),
    accepted=DateTime(timezone=True),
    topics=Text(),
    partitions=Integer(),
    offsets=BigInteger(),
    events=Text(),
)


async def lock_conversations(
    connection: AsyncConnection, conversations: Mapping[uuid.UUID, ChannelMessage], now: datetime
) -> None:
    """Hold these conversations (id -> any message of it) until the transaction ends; make those that are new."""
    messages = list(conversations.values())
    await connection.execute(
        _LOCK_CONVERSATIONS,
        {
            "conversation_ids": list(conversations),
            "brands": [message.brand for message in messages],
            "channels": [message.channel for message in messages],
            "customer_ids": [message.customer.id for message in messages],
            # Only to read: `conversation_id` is made of what the channel sent. A mail's thread may be its subject.
            "channel_conversation_ids": [
                None if message.conversation_id is None else redact(message.conversation_id).text
                for message in messages
            ],
            "now": now,
        },
    )


async def lock_conversations_of_tickets(
    connection: AsyncConnection, ticket_ids: Collection[uuid.UUID]
) -> list[uuid.UUID]:
    """Hold the conversations of these tickets until the transaction ends. Unknown tickets have none."""
    rows = await connection.execute(_LOCK_CONVERSATIONS_OF_TICKETS, {"ticket_ids": list(ticket_ids)})
    return [row.conversation_id for row in rows]


async def stored_messages(connection: AsyncConnection, keys: Collection[MessageKey]) -> dict[MessageKey, StoredMessage]:
    """Which of these messages were accepted before."""
    rows = await connection.execute(
        _STORED_MESSAGES,
        {
            "brands": [brand for brand, _, _ in keys],
            "channels": [channel for _, channel, _ in keys],
            "message_ids": [message_id for _, _, message_id in keys],
        },
    )
    return {
        (row.brand, row.channel, row.message_id): StoredMessage(
            row.ticket_id,
            None if row.topic is None else Origin(row.topic, row.partition, row.record_offset),
            row.event,
        )
        for row in rows
    }


async def tickets_near(
    connection: AsyncConnection, earliest: Mapping[uuid.UUID, datetime], longest: timedelta
) -> list[Ticket]:
    """The tickets of these conversations that a message sent at `earliest` or later can join or follow."""
    rows = await connection.execute(
        _TICKETS_NEAR,
        {"conversation_ids": list(earliest), "earliest": list(earliest.values()), "longest": longest},
    )
    return [Ticket(**row._mapping) for row in rows]


async def tickets_of_activities(
    connection: AsyncConnection, ticket_ids: Collection[uuid.UUID], conversation_ids: Collection[uuid.UUID]
) -> list[Ticket]:
    """These tickets, and the open ones of these conversations."""
    rows = await connection.execute(
        _TICKETS_OF_ACTIVITIES, {"ticket_ids": list(ticket_ids), "conversation_ids": list(conversation_ids)}
    )
    return [Ticket(**row._mapping) for row in rows]


async def save_tickets(connection: AsyncConnection, tickets: Sequence[Ticket]) -> None:
    """Write new and changed tickets. Their conversations must be locked."""
    if not tickets:
        return
    await connection.execute(
        _SAVE_TICKETS,
        {
            "ticket_ids": [ticket.ticket_id for ticket in tickets],
            "conversation_ids": [ticket.conversation_id for ticket in tickets],
            "opened": [ticket.opened_at for ticket in tickets],
            "first_messages": [ticket.first_message_at for ticket in tickets],
            "last_messages": [ticket.last_message_at for ticket in tickets],
            "counts": [ticket.message_count for ticket in tickets],
            "open": [ticket.is_open for ticket in tickets],
            "resolved": [ticket.resolved_at for ticket in tickets],
            "activities": [ticket.activity_at for ticket in tickets],
            "linked": [ticket.linked_ticket_id for ticket in tickets],
        },
    )


async def add_messages(connection: AsyncConnection, messages: Iterable[tuple[TicketMessage, Origin | None]]) -> bool:
    """Write accepted messages. False when one of them was there already: then the transaction must not commit."""
    events, origins = zip(*messages, strict=True)
    result = await connection.execute(
        _ADD_MESSAGES,
        {
            "brands": [event.brand for event in events],
            "channels": [event.channel for event in events],
            "message_ids": [event.message_id for event in events],
            "ticket_ids": [event.ticket_id for event in events],
            "sequences": [event.sequence for event in events],
            "dispositions": [event.disposition for event in events],
            "accepted": [event.accepted_at for event in events],
            "topics": [origin and origin.topic for origin in origins],
            "partitions": [origin and origin.partition for origin in origins],
            "offsets": [origin and origin.offset for origin in origins],
            "events": [event.model_dump_json() for event in events],
        },
    )
    return bool(result.rowcount == len(events))
