"""The tables of intake and every statement on them.

Order of locks, the same in every transaction, each step sorted: conversations, contacts, tickets, messages, floods. So
no two of them can wait for each other in a circle. Whoever holds a conversation's row decides alone what becomes of its
tickets, on whichever replica; should anything slip past that, the unique index on open tickets refuses it.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
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

from services.intake.domain import Original, Ticket, Withheld, without_words
from services.intake.domain_floods import Flood
from shared.cloudevents import Origin
from shared.database import service_metadata
from shared.deadlines import Deadline, Deadlines, deadlines_table
from shared.events import ChannelMessage, TicketMessage
from shared.outbox import outbox_table
from shared.redaction import redact

METADATA: Final = service_metadata("intake")
OUTBOX: Final = outbox_table(METADATA)
DEADLINES_TABLE: Final = deadlines_table(METADATA)
DEADLINES: Final = Deadlines("intake")
FLOOD_DEADLINE: Final = "flood"


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
    """An accepted message: proof that it was, where it came from, and the event it became.

    `withheld` says why no event of it is published. One that was taken back or replaced before it came has no event,
    and it may have no ticket.
    """

    __tablename__ = "messages"
    __table_args__ = (
        PrimaryKeyConstraint("brand", "channel", "message_id"),
        Index("ix_messages_ticket_id_sent_at", "ticket_id", "sent_at"),
        Index("ix_messages_flood_id", "flood_id", postgresql_where=text("flood_id IS NOT NULL")),
        {"schema": "intake"},
    )

    brand: str = Field(sa_column=Column(Text, nullable=False))
    channel: str = Field(sa_column=Column(Text, nullable=False))
    message_id: str = Field(sa_column=Column(Text, nullable=False))
    ticket_id: uuid.UUID | None = None
    sequence: int | None = Field(sa_type=Integer)
    disposition: str | None = Field(sa_type=Text)
    withheld: str | None = Field(sa_type=Text)
    # Of one that is folded: the flood with which it is told.
    flood_id: uuid.UUID | None = None
    # None of messages of before there were floods.
    sent_at: datetime | None = _timestamp(nullable=True)
    accepted_at: datetime = _timestamp()
    # The record that brought it; none of a message that came over HTTP.
    topic: str | None = Field(sa_type=Text)
    partition: int | None = Field(sa_type=Integer)
    record_offset: int | None = Field(sa_type=BigInteger)
    # The TicketMessage as JSON, secrets cut: what a redelivery publishes again must be the same to the byte. Of what
    # the customer has taken back, without its words.
    event: str | None = Field(sa_type=Text)


class ChangeRow(Base, table=True):
    """`services.intake.domain.Original`, stored once it was changed: a message that was edited or taken back."""

    __tablename__ = "changes"
    __table_args__ = (PrimaryKeyConstraint("conversation_id", "message_id"), {"schema": "intake"})

    conversation_id: uuid.UUID
    message_id: str = Field(sa_column=Column(Text, nullable=False))
    known_as: str = Field(sa_type=Text)
    ticket_id: uuid.UUID | None = None
    sent_at: datetime = _timestamp()
    changed_at: datetime = _timestamp()
    taken_back: bool


class PersonRow(Base, table=True):
    """A conversation of a person whom a brand knows by a verified contact. No number and no address is kept."""

    __tablename__ = "people"
    __table_args__ = (PrimaryKeyConstraint("contact_id", "conversation_id"), {"schema": "intake"})

    contact_id: uuid.UUID
    conversation_id: uuid.UUID
    brand: str = Field(sa_type=Text)
    seen_at: datetime = _timestamp()


class FloodRow(Base, table=True):
    """A window in which a ticket was flooded. `told_to`: the last sequence for which a message stands already;
    `due_at`: when the next one does, none while nothing waits for it.
    """

    __tablename__ = "floods"
    __table_args__ = ({"schema": "intake"},)

    flood_id: uuid.UUID = Field(primary_key=True)
    ticket_id: uuid.UUID
    starts_at: datetime = _timestamp()
    due_at: datetime | None = _timestamp(nullable=True)
    parts: int
    told_to: int


MessageKey = tuple[str, str, str]


def key_of(message: ChannelMessage | TicketMessage) -> MessageKey:
    """Brand, channel, message id: what makes a message the same message."""
    return message.brand, message.channel, message.message_id


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message that was accepted earlier."""

    ticket_id: uuid.UUID | None
    origin: Origin | None
    withheld: Withheld | None
    event_json: str | None

    def event(self) -> TicketMessage | None:
        """What was published of it, or should have been."""
        if self.withheld is not None or self.event_json is None:
            return None
        return TicketMessage.model_validate_json(self.event_json)


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message about to be stored; `event` and `origin` as in its row."""

    message: ChannelMessage
    origin: Origin | None
    ticket_id: uuid.UUID | None
    event: TicketMessage | None
    withheld: Withheld | None = None
    flood_id: uuid.UUID | None = None


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

_ORIGINAL: Final = (
    "change.known_as, change.ticket_id AS changed_ticket_id, change.sent_at, change.changed_at, taken_back"
)

# What is known of messages, and what was said of them before they came.
_STORED_MESSAGES: Final = _columns(
    f"""
    SELECT wanted.brand, wanted.channel, message_id, wanted.conversation_id, stored.accepted_at, stored.ticket_id,
        topic, partition, record_offset, withheld, event, {_ORIGINAL}
    FROM unnest(:brands, :channels, :message_ids, :conversation_ids)
        AS wanted (brand, channel, message_id, conversation_id)
    LEFT JOIN intake.messages AS stored USING (brand, channel, message_id)
    LEFT JOIN intake.changes AS change USING (conversation_id, message_id)
    WHERE stored.accepted_at IS NOT NULL OR change.known_as IS NOT NULL
    """,  # noqa: S608 - our own column names
    brands=Text(),
    channels=Text(),
    message_ids=Text(),
    conversation_ids=UuidType(),
)

_CHANGED: Final = _columns(
    f"""
    SELECT conversation_id, name, change.message_id, {_ORIGINAL}
    FROM unnest(:conversation_ids, :names) AS asked (conversation_id, name)
    JOIN intake.changes AS change USING (conversation_id)
    WHERE name IN (change.message_id, change.known_as)
    """,  # noqa: S608 - our own column names
    conversation_ids=UuidType(),
    names=Text(),
)

_NAMED: Final = _columns(
    """
    SELECT asked.conversation_id, asked.message_id, stored.ticket_id, event
    FROM unnest(:brands, :channels, :message_ids, :conversation_ids)
        AS asked (brand, channel, message_id, conversation_id)
    JOIN intake.messages AS stored USING (brand, channel, message_id)
    WHERE stored.ticket_id IS NOT NULL
    """,
    brands=Text(),
    channels=Text(),
    message_ids=Text(),
    conversation_ids=UuidType(),
)

# The tickets of replies that went back by their channel, by the provider's ids of them.
_TICKETS_OF_REPLIES: Final = _columns(
    """
    SELECT asked.conversation_id, asked.message_id, replies.ticket_id
    FROM unnest(:brands, :channels, :message_ids, :conversation_ids)
        AS asked (brand, channel, message_id, conversation_id)
    JOIN intake.replies ON replies.brand = asked.brand AND replies.channel = asked.channel
        AND replies.message_ids @> ARRAY[asked.message_id]
    WHERE replies.ticket_id IS NOT NULL
    """,
    brands=Text(),
    channels=Text(),
    message_ids=Text(),
    conversation_ids=UuidType(),
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

_TICKETS: Final = _columns(
    f"SELECT {_TICKET_COLUMNS} FROM intake.tickets WHERE ticket_id = ANY(:ticket_ids)",  # noqa: S608 - our own names
    ticket_ids=UuidType(),
)

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
    INSERT INTO intake.messages (brand, channel, message_id, ticket_id, sequence, disposition, withheld, flood_id,
        sent_at, accepted_at, topic, partition, record_offset, event)
    SELECT brand, channel, message_id, ticket_id, sequence, disposition, withheld, flood_id, sent_at, :now,
        topic, partition, record_offset, event
    FROM unnest(:brands, :channels, :message_ids, :ticket_ids, :sequences, :dispositions, :withheld, :flood_ids,
        :sent, :topics, :partitions, :offsets, :events)
        AS new (brand, channel, message_id, ticket_id, sequence, disposition, withheld, flood_id, sent_at, topic,
            partition, record_offset, event)
    ORDER BY brand, channel, message_id
    ON CONFLICT DO NOTHING
    """,
    brands=Text(),
    channels=Text(),
    message_ids=Text(),
    ticket_ids=UuidType(),
    sequences=Integer(),
    dispositions=Text(),
    withheld=Text(),
    flood_ids=UuidType(),
    sent=DateTime(timezone=True),
    topics=Text(),
    partitions=Integer(),
    offsets=BigInteger(),
    events=Text(),
).bindparams(bindparam("now", type_=DateTime(timezone=True)))

_SAVE_ORIGINALS: Final = _columns(
    """
    INSERT INTO intake.changes (conversation_id, message_id, known_as, ticket_id, sent_at, changed_at, taken_back)
    SELECT conversation_id, message_id, known_as, ticket_id, sent_at, changed_at, taken_back
    FROM unnest(:conversation_ids, :message_ids, :known_as, :ticket_ids, :sent, :changed, :taken_back)
        AS new (conversation_id, message_id, known_as, ticket_id, sent_at, changed_at, taken_back)
    ORDER BY conversation_id, message_id
    ON CONFLICT (conversation_id, message_id) DO UPDATE SET
        changed_at = excluded.changed_at, taken_back = excluded.taken_back
    """,
    conversation_ids=UuidType(),
    message_ids=Text(),
    known_as=Text(),
    ticket_ids=UuidType(),
    sent=DateTime(timezone=True),
    changed=DateTime(timezone=True),
    taken_back=Boolean(),
)

_MESSAGES_WITH_WORDS: Final = _columns(
    """
    SELECT brand, channel, message_id, withheld, event FROM intake.messages
    WHERE ticket_id = ANY(:ticket_ids) AND event IS NOT NULL
        AND (message_id = ANY(:names) OR event::jsonb ->> 'edits' = ANY(:names))
    ORDER BY brand, channel, message_id FOR UPDATE
    """,
    ticket_ids=UuidType(),
    names=Text(),
)

_REWRITE_MESSAGES: Final = _columns(
    """
    UPDATE intake.messages AS stored SET event = new.event, withheld = new.withheld
    FROM unnest(:brands, :channels, :message_ids, :withheld, :events)
        AS new (brand, channel, message_id, withheld, event)
    WHERE (stored.brand, stored.channel, stored.message_id) = (new.brand, new.channel, new.message_id)
    """,
    brands=Text(),
    channels=Text(),
    message_ids=Text(),
    withheld=Text(),
    events=Text(),
)

# By an inner query in order: two transactions with the same contacts take their locks in the same order.
_LOCK_CONTACTS: Final = _columns(
    """
    SELECT pg_advisory_xact_lock(key)
    FROM (SELECT DISTINCT key FROM unnest(:keys) AS contact (key) ORDER BY key) AS ordered
    """,
    keys=BigInteger(),
)

_SAVE_PEOPLE: Final = _columns(
    """
    INSERT INTO intake.people (contact_id, conversation_id, brand, seen_at)
    SELECT contact_id, conversation_id, brand, seen_at
    FROM unnest(:contact_ids, :conversation_ids, :brands, :seen) AS new (contact_id, conversation_id, brand, seen_at)
    ORDER BY contact_id, conversation_id
    ON CONFLICT (contact_id, conversation_id) DO UPDATE SET seen_at = greatest(people.seen_at, excluded.seen_at)
    """,
    contact_ids=UuidType(),
    conversation_ids=UuidType(),
    brands=Text(),
    seen=DateTime(timezone=True),
)

_CONVERSATIONS_OF_PEOPLE: Final = _columns(
    "SELECT contact_id, conversation_id FROM intake.people WHERE contact_id = ANY(:contact_ids)",
    contact_ids=UuidType(),
)

_TICKETS_OF_PEOPLE: Final = _columns(
    f"""
    SELECT found.* FROM unnest(:contact_ids) AS asked (contact_id)
    CROSS JOIN LATERAL (
        SELECT asked.contact_id, {_TICKET_COLUMNS}
        FROM intake.people JOIN intake.tickets USING (conversation_id)
        WHERE people.contact_id = asked.contact_id
            AND (resolved_at IS NULL OR greatest(last_message_at, activity_at) >= :since)
        ORDER BY greatest(last_message_at, activity_at) DESC, ticket_id DESC LIMIT :most
    ) AS found
    """,  # noqa: S608 - our own column names
    contact_ids=UuidType(),
).bindparams(bindparam("since", type_=DateTime(timezone=True)), bindparam("most", type_=Integer))

_COUNT_FLOODS: Final = _columns(
    """
    SELECT asked.ticket_id, asked.starts_at, count(*) AS seen
    FROM unnest(:ticket_ids, :starts) AS asked (ticket_id, starts_at)
    JOIN intake.messages AS stored ON stored.ticket_id = asked.ticket_id
        AND stored.sent_at >= asked.starts_at AND stored.sent_at < asked.starts_at + :window
    GROUP BY asked.ticket_id, asked.starts_at
    """,
    ticket_ids=UuidType(),
    starts=DateTime(timezone=True),
).bindparams(bindparam("window", type_=Interval()))

_ADD_FLOODS: Final = _columns(
    """
    INSERT INTO intake.floods (flood_id, ticket_id, starts_at, due_at, parts, told_to)
    SELECT flood_id, ticket_id, starts_at, due_at, 0, 0
    FROM unnest(:flood_ids, :ticket_ids, :starts, :due) AS new (flood_id, ticket_id, starts_at, due_at)
    ORDER BY flood_id
    ON CONFLICT (flood_id) DO UPDATE SET due_at = coalesce(floods.due_at, excluded.due_at)
    RETURNING flood_id, due_at
    """,
    flood_ids=UuidType(),
    ticket_ids=UuidType(),
    starts=DateTime(timezone=True),
    due=DateTime(timezone=True),
)

_FLOODS: Final = _columns(
    "SELECT flood_id, ticket_id, starts_at, parts, told_to FROM intake.floods WHERE flood_id = ANY(:flood_ids)",
    flood_ids=UuidType(),
)

# A replica that holds a conversation may be about to write one of the deadlines that whoever calls this has taken: who
# waited for it here would wait in a circle.
_LOCK_FREE_CONVERSATIONS: Final = _columns(
    """
    SELECT conversation_id FROM intake.conversations
    WHERE conversation_id IN (SELECT conversation_id FROM intake.tickets WHERE ticket_id = ANY(:ticket_ids))
    ORDER BY conversation_id FOR UPDATE SKIP LOCKED
    """,
    ticket_ids=UuidType(),
)

_FOLDED: Final = _columns(
    """
    SELECT flood_id, event
    FROM unnest(:flood_ids, :told_to) AS asked (flood_id, told_to)
    JOIN intake.messages AS stored USING (flood_id)
    WHERE withheld = 'folded' AND stored.sequence > asked.told_to
    ORDER BY stored.sequence
    """,
    flood_ids=UuidType(),
    told_to=Integer(),
)

_SAVE_FLOODS: Final = _columns(
    """
    UPDATE intake.floods SET due_at = NULL, parts = new.parts, told_to = new.told_to
    FROM unnest(:flood_ids, :parts, :told_to) AS new (flood_id, parts, told_to)
    WHERE floods.flood_id = new.flood_id
    """,
    flood_ids=UuidType(),
    parts=Integer(),
    told_to=Integer(),
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


Named = Mapping[uuid.UUID, Mapping[str, Original]]
"""By conversation, and by the names of messages in it."""


async def stored_messages(
    connection: AsyncConnection, keys: Mapping[MessageKey, uuid.UUID]
) -> tuple[dict[MessageKey, StoredMessage], Named]:
    """Which of these messages (key -> conversation) were accepted before, and which were changed before they came."""
    rows = await connection.execute(
        _STORED_MESSAGES, _asked((*key, conversation) for key, conversation in keys.items())
    )
    stored: dict[MessageKey, StoredMessage] = {}
    originals: defaultdict[uuid.UUID, dict[str, Original]] = defaultdict(dict)
    for row in rows:
        if row.accepted_at is not None:
            stored[row.brand, row.channel, row.message_id] = StoredMessage(
                row.ticket_id,
                None if row.topic is None else Origin(row.topic, row.partition, row.record_offset),
                None if row.withheld is None else Withheld(row.withheld),
                row.event,
            )
        if row.known_as is not None:
            originals[row.conversation_id][row.message_id] = _original(row)
    return stored, originals


def _original(row: Any) -> Original:
    return Original(
        row.message_id, row.known_as, row.changed_ticket_id, row.sent_at, row.changed_at, taken_back=row.taken_back
    )


Reference = tuple[str, str, str, uuid.UUID]
"""Brand, channel, the id of a message that another one names, the conversation of that other one."""


def _asked(references: Iterable[Reference]) -> dict[str, list[Any]]:
    brands, channels, message_ids, conversation_ids = zip(*references, strict=True)
    return {
        "brands": list(brands),
        "channels": list(channels),
        "message_ids": list(message_ids),
        "conversation_ids": list(conversation_ids),
    }


async def tickets_of_messages(
    connection: AsyncConnection, references: Collection[Reference]
) -> list[tuple[uuid.UUID, str, uuid.UUID]]:
    """Conversation, id and ticket of those of these messages that a customer sent. The ticket may be anybody's."""
    rows = await connection.execute(_NAMED, _asked(references))
    return [(row.conversation_id, row.message_id, row.ticket_id) for row in rows]


async def tickets_of_replies(
    connection: AsyncConnection, references: Collection[Reference]
) -> list[tuple[uuid.UUID, str, uuid.UUID]]:
    """The same for messages that we sent."""
    rows = await connection.execute(_TICKETS_OF_REPLIES, _asked(references))
    return [(row.conversation_id, row.message_id, row.ticket_id) for row in rows]


async def originals_of(connection: AsyncConnection, references: Collection[Reference]) -> Named:
    """The messages that changes name, as far as they are known. Their tickets may be anybody's."""
    found: defaultdict[uuid.UUID, dict[str, Original]] = defaultdict(dict)
    names = {(conversation, message_id): message_id for _, _, message_id, conversation in references}
    for row in await connection.execute(_NAMED, _asked(references)):
        if row.event is not None:
            event = TicketMessage.model_validate_json(row.event)
            # Who changes a change, changes what that has changed.
            name = event.changes or row.message_id
            names[row.conversation_id, row.message_id] = name
            found[row.conversation_id][row.message_id] = Original(name, name, row.ticket_id, event.sent_at)
    rows = await connection.execute(
        _CHANGED, {"conversation_ids": [conversation for conversation, _ in names], "names": list(names.values())}
    )
    changed = {(row.conversation_id, row.name): _original(row) for row in rows}
    for (conversation, message_id), name in names.items():
        if (original := changed.get((conversation, name))) is not None:
            found[conversation][message_id] = original
    return found


async def tickets(connection: AsyncConnection, ticket_ids: Collection[uuid.UUID]) -> list[Ticket]:
    rows = await connection.execute(_TICKETS, {"ticket_ids": list(ticket_ids)})
    return [Ticket(**row._mapping) for row in rows]


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


async def add_messages(connection: AsyncConnection, messages: Collection[NewMessage], now: datetime) -> bool:
    """Write accepted messages. False when one of them was there already: then the transaction must not commit."""
    result = await connection.execute(
        _ADD_MESSAGES,
        {
            "brands": [item.message.brand for item in messages],
            "channels": [item.message.channel for item in messages],
            "message_ids": [item.message.message_id for item in messages],
            "ticket_ids": [item.ticket_id for item in messages],
            "sequences": [item.event and item.event.sequence for item in messages],
            "dispositions": [item.event and item.event.disposition for item in messages],
            "withheld": [item.withheld for item in messages],
            "flood_ids": [item.flood_id for item in messages],
            "sent": [item.message.sent_at for item in messages],
            "now": now,
            "topics": [item.origin and item.origin.topic for item in messages],
            "partitions": [item.origin and item.origin.partition for item in messages],
            "offsets": [item.origin and item.origin.offset for item in messages],
            "events": [item.event and item.event.model_dump_json() for item in messages],
        },
    )
    return bool(result.rowcount == len(messages))


# --- changes ---------------------------------------------------------------------------------------------------------


async def save_originals(connection: AsyncConnection, originals: Collection[tuple[uuid.UUID, Original]]) -> None:
    """Keep what became of changed messages (conversation, original). Their conversations must be locked."""
    await connection.execute(
        _SAVE_ORIGINALS,
        {
            "conversation_ids": [conversation for conversation, _ in originals],
            "message_ids": [original.message_id for _, original in originals],
            "known_as": [original.known_as for _, original in originals],
            "ticket_ids": [original.ticket_id for _, original in originals],
            "sent": [original.sent_at for _, original in originals],
            "changed": [original.changed_at for _, original in originals],
            "taken_back": [original.taken_back for _, original in originals],
        },
    )


async def forget_words(connection: AsyncConnection, ticket_ids: Collection[uuid.UUID], names: Collection[str]) -> None:
    """Rub out what these messages of these tickets said, and all edits of them. One that waits to be told with its
    flood is not told at all.
    """
    rows = (
        await connection.execute(_MESSAGES_WITH_WORDS, {"ticket_ids": list(ticket_ids), "names": list(names)})
    ).all()
    if not rows:
        return
    await connection.execute(
        _REWRITE_MESSAGES,
        {
            "brands": [row.brand for row in rows],
            "channels": [row.channel for row in rows],
            "message_ids": [row.message_id for row in rows],
            "withheld": [row.withheld and Withheld.TAKEN_BACK for row in rows],
            "events": [without_words(TicketMessage.model_validate_json(row.event)).model_dump_json() for row in rows],
        },
    )


# --- people ----------------------------------------------------------------------------------------------------------


async def lock_people(
    connection: AsyncConnection, seen: Mapping[tuple[uuid.UUID, uuid.UUID], ChannelMessage]
) -> dict[uuid.UUID, set[uuid.UUID]]:
    """Hold these contacts until the transaction ends, and keep that their owners have these conversations.

    `seen`: contact and conversation -> the latest message. Returns the conversations of each contact: whoever comes
    second by another channel sees the first.
    """
    contact_ids = {contact for contact, _ in seen}
    keys = [int.from_bytes(contact.bytes[:8], signed=True) for contact in contact_ids]
    await connection.execute(_LOCK_CONTACTS, {"keys": keys})
    await connection.execute(
        _SAVE_PEOPLE,
        {
            "contact_ids": [contact for contact, _ in seen],
            "conversation_ids": [conversation for _, conversation in seen],
            "brands": [message.brand for message in seen.values()],
            "seen": [message.sent_at for message in seen.values()],
        },
    )
    found: defaultdict[uuid.UUID, set[uuid.UUID]] = defaultdict(set)
    for row in await connection.execute(_CONVERSATIONS_OF_PEOPLE, {"contact_ids": list(contact_ids)}):
        found[row.contact_id].add(row.conversation_id)
    return found


_MOST_TICKETS_OF_A_PERSON: Final = 100


async def tickets_of_people(
    connection: AsyncConnection, contact_ids: Collection[uuid.UUID], since: datetime
) -> dict[uuid.UUID, list[Ticket]]:
    """The latest tickets of each contact that are unresolved, or were active after `since`."""
    found: defaultdict[uuid.UUID, list[Ticket]] = defaultdict(list)
    for row in await connection.execute(
        _TICKETS_OF_PEOPLE,
        {"contact_ids": list(contact_ids), "since": since, "most": _MOST_TICKETS_OF_A_PERSON},
    ):
        fields = dict(row._mapping)
        found[fields.pop("contact_id")].append(Ticket(**fields))
    return found


# --- floods ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WaitingFlood:
    """A flood whose messages are to be told together. `parts`, `told_to`: as in its row."""

    flood: Flood
    parts: int
    told_to: int


async def count_floods(connection: AsyncConnection, floods: Collection[Flood], window: timedelta) -> dict[Flood, int]:
    """How many messages of these windows are stored."""
    rows = await connection.execute(
        _COUNT_FLOODS,
        {
            "ticket_ids": [flood.ticket_id for flood in floods],
            "starts": [flood.starts_at for flood in floods],
            "window": window,
        },
    )
    return {Flood(row.ticket_id, row.starts_at): row.seen for row in rows}


async def add_floods(connection: AsyncConnection, due: Mapping[Flood, datetime]) -> None:
    """Have what waits of these windows told when it is due; of one that is due already, at the time that was set."""
    rows = await connection.execute(
        _ADD_FLOODS,
        {
            "flood_ids": [flood.flood_id for flood in due],
            "ticket_ids": [flood.ticket_id for flood in due],
            "starts": [flood.starts_at for flood in due],
            "due": list(due.values()),
        },
    )
    await DEADLINES.schedule(
        connection, [Deadline(row.flood_id, FLOOD_DEADLINE, row.flood_id, row.due_at) for row in rows]
    )


async def waiting_floods(connection: AsyncConnection, flood_ids: Collection[uuid.UUID]) -> list[WaitingFlood]:
    rows = await connection.execute(_FLOODS, {"flood_ids": list(flood_ids)})
    return [WaitingFlood(Flood(row.ticket_id, row.starts_at), row.parts, row.told_to) for row in rows]


async def lock_free_conversations(connection: AsyncConnection, ticket_ids: Collection[uuid.UUID]) -> list[uuid.UUID]:
    """Those conversations of these tickets that no other transaction holds, held."""
    rows = await connection.execute(_LOCK_FREE_CONVERSATIONS, {"ticket_ids": list(ticket_ids)})
    return [row.conversation_id for row in rows]


async def folded_messages(
    connection: AsyncConnection, floods: Collection[WaitingFlood]
) -> dict[Flood, list[TicketMessage]]:
    """What waits to be told of these floods, in the order of its sequence."""
    by_id = {waiting.flood.flood_id: waiting.flood for waiting in floods}
    rows = await connection.execute(
        _FOLDED,
        {
            "flood_ids": list(by_id),
            "told_to": [waiting.told_to for waiting in floods],
        },
    )
    found: defaultdict[Flood, list[TicketMessage]] = defaultdict(list)
    for row in rows:
        found[by_id[row.flood_id]].append(TicketMessage.model_validate_json(row.event))
    return found


async def save_floods(connection: AsyncConnection, told: Collection[WaitingFlood]) -> None:
    """Nothing of these waits any more."""
    await connection.execute(
        _SAVE_FLOODS,
        {
            "flood_ids": [waiting.flood.flood_id for waiting in told],
            "parts": [waiting.parts for waiting in told],
            "told_to": [waiting.told_to for waiting in told],
        },
    )
