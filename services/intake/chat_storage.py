"""What customers of app chat find in their chat: the table of our replies, and every statement of the chat."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

from sqlalchemy import Boolean, Column, DateTime, Index, Text, delete, select, text
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import Field

from services.intake.channels.base import Reply
from services.intake.storage import Base, MessageRow, TicketRow
from shared.events import TicketMessage

REPLIES_CHANNEL: Final = "intake_chat_replies"
"""NOTIFY with a JSON object of `brand`, `customer_id` and `id` when a reply has been stored."""


class ChatReplyRow(Base, table=True):
    """A reply to a customer. Stored is delivered: he sees it at once, or when he comes back."""

    __tablename__ = "chat_replies"
    __table_args__ = (
        Index("ix_chat_replies_brand_customer_id_at", "brand", "customer_id", "at"),
        Index("ix_chat_replies_at", "at"),  # the purge looks for old ones
        {"schema": "intake"},
    )

    notification_id: uuid.UUID = Field(primary_key=True)
    brand: str = Field(sa_type=Text)
    customer_id: str = Field(sa_type=Text)
    text: str = Field(sa_type=Text)
    is_acknowledgement: bool = Field(sa_type=Boolean)
    at: datetime = Field(sa_column=Column(DateTime(timezone=True), nullable=False))


REPLIES: Final = ChatReplyRow.__table__  # type: ignore[attr-defined]
_TICKETS: Final = TicketRow.__table__  # type: ignore[attr-defined]
_MESSAGES: Final = MessageRow.__table__  # type: ignore[attr-defined]


class StoredReply(NamedTuple):
    notification_id: uuid.UUID
    text: str
    is_acknowledgement: bool
    at: datetime


_REPLY: Final = tuple(REPLIES.c[name] for name in StoredReply._fields)


async def add_reply(connection: AsyncConnection, brand: str, reply: Reply, now: datetime) -> None:
    """Store it and, once that is committed, tell every replica. One that is there already stays as it is."""
    added = await connection.scalar(
        upsert(REPLIES)
        .values(
            notification_id=reply.notification_id,
            brand=brand,
            customer_id=reply.customer_id,
            text=reply.text.replace("\x00", ""),
            is_acknowledgement=reply.is_acknowledgement,
            at=now,
        )
        .on_conflict_do_nothing()
        .returning(REPLIES.c.notification_id)
    )
    if added is not None:
        payload = {"brand": brand, "customer_id": reply.customer_id, "id": str(reply.notification_id)}
        await connection.execute(
            text("SELECT pg_notify(:channel, :payload)"), {"channel": REPLIES_CHANNEL, "payload": json.dumps(payload)}
        )


async def reply_of(connection: AsyncConnection, notification_id: uuid.UUID) -> StoredReply | None:
    row = (await connection.execute(select(*_REPLY).where(REPLIES.c.notification_id == notification_id))).first()
    return None if row is None else StoredReply(*row)


async def latest_replies(
    connection: AsyncConnection, brand: str, customer_id: str, limit: int
) -> Sequence[StoredReply]:
    """The latest `limit` of a customer's replies, the latest first."""
    rows = await connection.execute(
        select(*_REPLY)
        .where(REPLIES.c.brand == brand, REPLIES.c.customer_id == customer_id)
        .order_by(REPLIES.c.at.desc(), REPLIES.c.notification_id.desc())
        .limit(limit)
    )
    return [StoredReply(*row) for row in rows]


async def latest_messages(
    connection: AsyncConnection, conversation_id: uuid.UUID, since: datetime, limit: int
) -> Sequence[TicketMessage]:
    """The latest `limit` messages of those tickets of a conversation that had one since, the latest first."""
    rows = await connection.execute(
        select(_MESSAGES.c.event)
        .join(_TICKETS, _TICKETS.c.ticket_id == _MESSAGES.c.ticket_id)
        .where(
            _TICKETS.c.conversation_id == conversation_id,
            _TICKETS.c.last_message_at >= since,
            _MESSAGES.c.event.is_not(None),
        )
        .order_by(_MESSAGES.c.accepted_at.desc(), _MESSAGES.c.sequence.desc())
        .limit(limit)
    )
    return [TicketMessage.model_validate_json(event) for event in rows.scalars()]


async def purge(connection: AsyncConnection, before: datetime) -> None:
    """Delete what was stored before."""
    await connection.execute(delete(REPLIES).where(REPLIES.c.at < before))
