"""The tables of the classifier and every statement on them.

Whoever holds a ticket's row decides alone what becomes of the ticket: rows are locked in the order of their ids, before
anything else is read.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pydantic import TypeAdapter
from sqlalchemy import BigInteger, Column, DateTime, Float, Index, Integer, Text, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import TypeEngine
from sqlalchemy.types import Uuid as UuidType
from sqlmodel import Field, SQLModel

from services.classifier.domain.tickets import TicketState
from services.classifier.learning.corrections import CorrectedTicket
from shared.cloudevents import Origin
from shared.database import service_metadata
from shared.events import TicketActivity, TicketRouted
from shared.taxonomy import Category

METADATA: Final = service_metadata("classifier")
_PRUNE_AT_ONCE: Final = 5_000
_CORRECTED_AT_ONCE: Final = 500


class Base(SQLModel):
    metadata = METADATA


def _timestamp(*, nullable: bool = False) -> Any:
    return Field(sa_column=Column(DateTime(timezone=True), nullable=nullable))


class TicketRow(Base, table=True):
    """A ticket as it was last routed. Revision 0: its row is there to be locked, its first decision is under way."""

    __tablename__ = "tickets"

    ticket_id: uuid.UUID = Field(primary_key=True)
    revision: int = Field(sa_column=Column(Integer, nullable=False, server_default=text("0")))
    queue: str | None = Field(sa_type=Text)
    category: str | None = Field(sa_type=Text)
    priority: str | None = Field(sa_type=Text)
    resolved_at: datetime | None = _timestamp(nullable=True)
    # `TicketState` and the last `TicketRouted`, as JSON.
    state: str | None = Field(sa_type=Text)
    event: str | None = Field(sa_type=Text)


class DecisionRow(Base, table=True):
    """A decision: proof that its cause (a message, a correction) was taken into account, and what was published."""

    __tablename__ = "decisions"
    __table_args__ = (
        Index("ix_decisions_ticket_id", "ticket_id"),
        Index("ix_decisions_decided_at", "decided_at"),
        {"schema": "classifier"},
    )

    cause_id: uuid.UUID = Field(primary_key=True)
    ticket_id: uuid.UUID
    decided_at: datetime = _timestamp()
    # The record that brought the cause: when it comes again, what was published is published again.
    topic: str = Field(sa_type=Text)
    partition: int = Field(sa_type=Integer)
    record_offset: int = Field(sa_type=BigInteger)
    # The TicketRouted as JSON: a repetition must be the same to the byte.
    event: str = Field(sa_type=Text)


class FeedbackRow(Base, table=True):
    """What an agent corrected, beside what had been decided. The message is named by its place; no text is kept."""

    __tablename__ = "feedback"
    __table_args__ = (Index("ix_feedback_corrected_at", "corrected_at"), {"schema": "classifier"})

    activity_id: uuid.UUID = Field(primary_key=True)
    ticket_id: uuid.UUID
    sequence: int = Field(sa_type=Integer, description="of the message that the ticket was last routed by")
    agent: str = Field(sa_type=Text)
    model: str = Field(sa_type=Text)
    confidence: float = Field(sa_type=Float)
    category: str = Field(sa_type=Text)
    queue: str = Field(sa_type=Text)
    priority: str = Field(sa_type=Text)
    corrected_category: str | None = Field(sa_type=Text)
    corrected_queue: str | None = Field(sa_type=Text)
    corrected_priority: str | None = Field(sa_type=Text)
    corrected_at: datetime = _timestamp()


@dataclass(frozen=True, slots=True)
class StoredTicket:
    state: TicketState
    event: TicketRouted


@dataclass(frozen=True, slots=True)
class StoredDecision:
    origin: Origin
    event_json: str

    def event(self) -> TicketRouted:
        return TicketRouted.model_validate_json(self.event_json)


@dataclass(frozen=True, slots=True)
class NewDecision:
    """A decision about to be stored, with the state it leaves the ticket in."""

    origin: Origin
    state: TicketState
    event: TicketRouted


@dataclass(frozen=True, slots=True)
class Feedback:
    """An agent's correction of what stood in `before`."""

    activity: TicketActivity
    before: TicketRouted


_STATE: Final = TypeAdapter(TicketState)


def _columns(statement: str, **columns: TypeEngine[Any]) -> Any:
    """A statement that takes each of these parameters as an array: one element per row."""
    return text(statement).bindparams(*(bindparam(name, type_=ARRAY(kind)) for name, kind in columns.items()))


# The update changes nothing; it locks, and gives back rows that were there as well as new ones, in one round trip.
_LOCK_TICKETS: Final = _columns(
    """
    INSERT INTO classifier.tickets AS ticket (ticket_id)
    SELECT ticket_id FROM unnest(:ticket_ids) AS wanted (ticket_id) ORDER BY ticket_id
    ON CONFLICT (ticket_id) DO UPDATE SET revision = ticket.revision
    RETURNING ticket_id, state, event
    """,
    ticket_ids=UuidType(),
)

_LOCK_KNOWN_TICKETS: Final = _columns(
    """
    SELECT ticket_id, state, event FROM classifier.tickets
    WHERE ticket_id = ANY(:ticket_ids) AND revision > 0 ORDER BY ticket_id FOR UPDATE
    """,
    ticket_ids=UuidType(),
)

_DECISIONS: Final = _columns(
    """
    SELECT cause_id, topic, partition, record_offset, event FROM classifier.decisions
    WHERE cause_id = ANY(:cause_ids)
    """,
    cause_ids=UuidType(),
)

_ADD_DECISIONS: Final = _columns(
    """
    INSERT INTO classifier.decisions (cause_id, ticket_id, decided_at, topic, partition, record_offset, event)
    SELECT * FROM unnest(:cause_ids, :ticket_ids, :decided, :topics, :partitions, :offsets, :events)
        AS new (cause_id, ticket_id, decided_at, topic, partition, record_offset, event)
    """,
    cause_ids=UuidType(),
    ticket_ids=UuidType(),
    decided=DateTime(timezone=True),
    topics=Text(),
    partitions=Integer(),
    offsets=BigInteger(),
    events=Text(),
)

_SAVE_TICKETS: Final = _columns(
    """
    UPDATE classifier.tickets AS ticket
    SET revision = new.revision, queue = new.queue, category = new.category, priority = new.priority,
        state = new.state, event = new.event
    FROM unnest(:ticket_ids, :revisions, :queues, :categories, :priorities, :states, :events)
        AS new (ticket_id, revision, queue, category, priority, state, event)
    WHERE ticket.ticket_id = new.ticket_id
    """,
    ticket_ids=UuidType(),
    revisions=Integer(),
    queues=Text(),
    categories=Text(),
    priorities=Text(),
    states=Text(),
    events=Text(),
)

_MARK_RESOLVED: Final = _columns(
    """
    UPDATE classifier.tickets AS ticket SET resolved_at = new.resolved_at
    FROM unnest(:ticket_ids, :resolved) AS new (ticket_id, resolved_at)
    WHERE ticket.ticket_id = new.ticket_id
    """,
    ticket_ids=UuidType(),
    resolved=DateTime(timezone=True),
)

_ADD_FEEDBACK: Final = _columns(
    """
    INSERT INTO classifier.feedback (activity_id, ticket_id, sequence, agent, model, confidence, category,
        queue, priority, corrected_category, corrected_queue, corrected_priority, corrected_at)
    SELECT * FROM unnest(:activity_ids, :ticket_ids, :sequences, :agents, :models, :confidences, :categories,
        :queues, :priorities, :corrected_categories, :corrected_queues, :corrected_priorities, :corrected)
        AS new (activity_id, ticket_id, sequence, agent, model, confidence, category, queue, priority,
            corrected_category, corrected_queue, corrected_priority, corrected_at)
    ON CONFLICT DO NOTHING
    """,
    activity_ids=UuidType(),
    ticket_ids=UuidType(),
    sequences=Integer(),
    agents=Text(),
    models=Text(),
    confidences=Float(),
    categories=Text(),
    queues=Text(),
    priorities=Text(),
    corrected_categories=Text(),
    corrected_queues=Text(),
    corrected_priorities=Text(),
    corrected=DateTime(timezone=True),
)

# The first correction of a category, of each ticket that has one.
_CORRECTED_TICKETS: Final = text(
    """
    SELECT DISTINCT ON (feedback.ticket_id) feedback.ticket_id, feedback.activity_id, feedback.sequence,
        feedback.category AS wrong, ticket.category AS right
    FROM classifier.feedback JOIN classifier.tickets AS ticket USING (ticket_id)
    WHERE feedback.corrected_category IS NOT NULL AND feedback.ticket_id > :after
    ORDER BY feedback.ticket_id, feedback.corrected_at, feedback.activity_id
    LIMIT :most
    """
).bindparams(bindparam("after", type_=UuidType()), bindparam("most", type_=Integer))

# A ticket's last decision stays when its decisions are pruned.
_KEPT_OF_TICKETS: Final = _columns(
    """
    SELECT ticket_id, event FROM classifier.decisions WHERE ticket_id = ANY(:ticket_ids)
    UNION
    SELECT ticket_id, event FROM classifier.tickets WHERE ticket_id = ANY(:ticket_ids) AND event IS NOT NULL
    """,
    ticket_ids=UuidType(),
)

# The ticket's own is the last of its decisions; it stays when they are pruned.
_REWRITE_DECISIONS: Final = _columns(
    """
    UPDATE classifier.decisions AS decision SET event = new.event
    FROM unnest(:cause_ids, :events) AS new (cause_id, event) WHERE decision.cause_id = new.cause_id
    """,
    cause_ids=UuidType(),
    events=Text(),
)
_REWRITE_TICKETS: Final = _columns(
    """
    UPDATE classifier.tickets AS ticket SET event = new.event
    FROM unnest(:ticket_ids, :revisions, :events) AS new (ticket_id, revision, event)
    WHERE ticket.ticket_id = new.ticket_id AND ticket.revision = new.revision
    """,
    ticket_ids=UuidType(),
    revisions=Integer(),
    events=Text(),
)

# A few at a time: a long delete would hold up the tables' vacuum.
_PRUNE: Final = text(
    """
    DELETE FROM classifier.decisions WHERE cause_id IN (
        SELECT cause_id FROM classifier.decisions WHERE decided_at < :before ORDER BY decided_at LIMIT :most)
    """
).bindparams(bindparam("before", type_=DateTime(timezone=True)), bindparam("most", type_=Integer))


async def lock_tickets(connection: AsyncConnection, ticket_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, StoredTicket]:
    """Hold these tickets until the transaction ends, making those that are new; what is known of those that are not."""
    return _known(await connection.execute(_LOCK_TICKETS, {"ticket_ids": list(set(ticket_ids))}))


async def lock_known_tickets(
    connection: AsyncConnection, ticket_ids: Collection[uuid.UUID]
) -> dict[uuid.UUID, StoredTicket]:
    """Hold those of these tickets that have been routed until the transaction ends."""
    return _known(await connection.execute(_LOCK_KNOWN_TICKETS, {"ticket_ids": list(set(ticket_ids))}))


def _known(rows: Any) -> dict[uuid.UUID, StoredTicket]:
    return {
        row.ticket_id: StoredTicket(_STATE.validate_json(row.state), TicketRouted.model_validate_json(row.event))
        for row in rows
        if row.state is not None
    }


async def decisions_on(
    connection: AsyncConnection, cause_ids: Collection[uuid.UUID]
) -> dict[uuid.UUID, StoredDecision]:
    """What has been decided before on these causes. Lock their tickets first."""
    rows = await connection.execute(_DECISIONS, {"cause_ids": list(cause_ids)})
    return {
        row.cause_id: StoredDecision(Origin(row.topic, row.partition, row.record_offset), row.event) for row in rows
    }


async def save(connection: AsyncConnection, decisions: Sequence[NewDecision]) -> None:
    """Store decisions, in the order they were made, and where they leave their tickets."""
    if not decisions:
        return
    events = [decision.event.model_dump_json() for decision in decisions]
    await connection.execute(
        _ADD_DECISIONS,
        {
            "cause_ids": [decision.event.cause_id for decision in decisions],
            "ticket_ids": [decision.event.ticket_id for decision in decisions],
            "decided": [decision.event.decided_at for decision in decisions],
            "topics": [decision.origin.topic for decision in decisions],
            "partitions": [decision.origin.partition for decision in decisions],
            "offsets": [decision.origin.offset for decision in decisions],
            "events": events,
        },
    )
    # Of several decisions on one ticket the last is where it stands.
    last = {decision.event.ticket_id: index for index, decision in enumerate(decisions)}
    standing = [(decisions[index], events[index]) for index in last.values()]
    await connection.execute(
        _SAVE_TICKETS,
        {
            "ticket_ids": list(last),
            "revisions": [decision.state.revision for decision, _ in standing],
            "queues": [decision.state.queue.value for decision, _ in standing],
            "categories": [decision.state.category.value for decision, _ in standing],
            "priorities": [decision.state.priority.value for decision, _ in standing],
            "states": [_STATE.dump_json(decision.state).decode() for decision, _ in standing],
            "events": [event for _, event in standing],
        },
    )


async def decisions_of(connection: AsyncConnection, ticket_id: uuid.UUID) -> list[TicketRouted]:
    """What is kept of the decisions on a ticket, in the order of their revision."""
    rows = await connection.execute(_KEPT_OF_TICKETS, {"ticket_ids": [ticket_id]})
    return sorted((TicketRouted.model_validate_json(row.event) for row in rows), key=lambda told: told.revision)


async def rewrite(connection: AsyncConnection, told: Sequence[TicketRouted]) -> None:
    """Keep these decisions as they are now: what is told again of them is this. Lock their tickets first."""
    if not told:
        return
    events = [event.model_dump_json() for event in told]
    await connection.execute(_REWRITE_DECISIONS, {"cause_ids": [event.cause_id for event in told], "events": events})
    await connection.execute(
        _REWRITE_TICKETS,
        {
            "ticket_ids": [event.ticket_id for event in told],
            "revisions": [event.revision for event in told],
            "events": events,
        },
    )


async def mark_resolved(connection: AsyncConnection, resolved_at: Mapping[uuid.UUID, datetime | None]) -> None:
    """Ticket -> when it was resolved, None when it was reopened. Lock them first; unknown tickets are passed over."""
    await connection.execute(_MARK_RESOLVED, {"ticket_ids": list(resolved_at), "resolved": list(resolved_at.values())})


async def add_feedback(connection: AsyncConnection, feedback: Sequence[Feedback]) -> None:
    await connection.execute(
        _ADD_FEEDBACK,
        {
            "activity_ids": [one.activity.event_id for one in feedback],
            "ticket_ids": [one.activity.ticket_id for one in feedback],
            "sequences": [one.before.sequence for one in feedback],
            "agents": [one.activity.agent for one in feedback],
            "models": [one.before.trace.model for one in feedback],
            "confidences": [one.before.confidence for one in feedback],
            "categories": [one.before.category.value for one in feedback],
            "queues": [one.before.queue.value for one in feedback],
            "priorities": [one.before.priority.value for one in feedback],
            "corrected_categories": [one.activity.category and one.activity.category.value for one in feedback],
            "corrected_queues": [one.activity.queue and one.activity.queue.value for one in feedback],
            "corrected_priorities": [one.activity.priority and one.activity.priority.value for one in feedback],
            "corrected": [one.activity.at for one in feedback],
        },
    )


async def corrected_tickets(
    connection: AsyncConnection,
) -> AsyncIterator[tuple[CorrectedTicket, list[TicketRouted]]]:
    """Each ticket whose category an agent has corrected, in order of the id, and the decisions on it that are kept."""
    after = uuid.UUID(int=0)
    while True:
        found = await connection.execute(_CORRECTED_TICKETS, {"after": after, "most": _CORRECTED_AT_ONCE})
        tickets = [
            CorrectedTicket(row.ticket_id, row.activity_id, row.sequence, Category(row.wrong), Category(row.right))
            for row in found
        ]
        if not tickets:
            return
        kept: dict[uuid.UUID, list[TicketRouted]] = {ticket.ticket_id: [] for ticket in tickets}
        for row in await connection.execute(_KEPT_OF_TICKETS, {"ticket_ids": list(kept)}):
            kept[row.ticket_id].append(TicketRouted.model_validate_json(row.event))
        for ticket in tickets:
            yield ticket, kept[ticket.ticket_id]
        after = tickets[-1].ticket_id


async def prune(connection: AsyncConnection, before: datetime) -> int:
    """Delete some decisions made before; how many. Call again while it deletes any."""
    deleted = await connection.execute(_PRUNE, {"before": before, "most": _PRUNE_AT_ONCE})
    return deleted.rowcount
