"""All SQL of the desk, in its schema `desk`. Every function works in the caller's transaction.

Rows are locked in one order (tickets by id, then history, then the rest), so that no two replicas wait for each other.
"""

from __future__ import annotations

import uuid
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

from pydantic import TypeAdapter
from sqlalchemy import (
    CTE,
    DateTime,
    Float,
    Index,
    Integer,
    Text,
    bindparam,
    cast,
    func,
    literal_column,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy import Uuid as UuidType
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql import ColumnElement, Select
from sqlmodel import Field, SQLModel

from services.desk.domain import RankKey, State, Ticket
from services.desk.domain_changes import MESSAGE, Told
from services.desk.domain_points import TicketPoint
from services.desk.domain_view import ROUTED, Clock, TicketEvent, View, is_breached, kind_of, next_due_at
from shared.database import service_metadata
from shared.deadlines import Deadlines, deadlines_table
from shared.events import PeakEvent, PeakKind, Target, TicketMessage, TicketRouted
from shared.outbox import Outbox, outbox_table
from shared.taxonomy import Category, Channel, Language, Priority, Queue

SCHEMA: Final = "desk"
METADATA: Final = service_metadata(SCHEMA)
DEADLINES_TABLE: Final = deadlines_table(METADATA)
OUTBOX_TABLE: Final = outbox_table(METADATA)
DEADLINES: Final = Deadlines(SCHEMA)
OUTBOX: Final = Outbox(SCHEMA)

_CLOCKS: Final = TypeAdapter(dict[Target, Clock])
_TIME: Final = DateTime(timezone=True)
_CLAIMERS_AT_ONCE: Final = 200
"""How far down a queue a claimer looks for a ticket that no one else is claiming at that moment."""
_RESOLVED: Final[ColumnElement[str]] = literal_column(
    "'resolved'"
)  # literal, so that the planner knows the partial indexes to apply
_QUEUED: Final[ColumnElement[str]] = literal_column("'queued'")


class _Base(SQLModel):
    metadata = METADATA


class TicketRow(_Base, table=True):
    """The view of one ticket: `domain.Ticket`, and what is shown of it."""

    __tablename__ = "tickets"

    ticket_id: uuid.UUID = Field(primary_key=True)
    state: str = Field(sa_type=Text)
    queue: str | None = Field(default=None, sa_type=Text)
    category: str | None = Field(default=None, sa_type=Text)
    priority: str | None = Field(default=None, sa_type=Text)
    enqueued_at: datetime | None = Field(default=None, sa_type=_TIME)
    rank_at: datetime | None = Field(default=None, sa_type=_TIME)
    claimed_by: str | None = Field(default=None, sa_type=Text)
    claimed_at: datetime | None = Field(default=None, sa_type=_TIME)
    claim_expires_at: datetime | None = Field(default=None, sa_type=_TIME)
    state_at: datetime | None = Field(default=None, sa_type=_TIME)
    acted_here: bool
    resolved_at: datetime | None = Field(default=None, sa_type=_TIME)
    merged_into: uuid.UUID | None = None
    corrected_at: datetime | None = Field(default=None, sa_type=_TIME)
    sequence: int
    revision: int
    routed_at: datetime | None = Field(default=None, sa_type=_TIME)
    brand: str | None = Field(default=None, sa_type=Text)
    channel: str | None = Field(default=None, sa_type=Text)
    language: str | None = Field(default=None, sa_type=Text)
    subject: str | None = Field(default=None, sa_type=Text)
    text: str | None = Field(default=None, sa_type=Text)
    text_sequence: int
    opened_at: datetime | None = Field(default=None, sa_type=_TIME)
    clocks: dict[str, Any] = Field(sa_type=JSONB)
    next_due_at: datetime | None = Field(default=None, sa_type=_TIME)
    breached: bool
    open_points: int = Field(sa_column_kwargs={"server_default": "0"})
    has_changes: bool = Field(sa_column_kwargs={"server_default": "false"})
    decision: dict[str, Any] | None = Field(default=None, sa_type=JSONB)
    traceparent: str | None = Field(default=None, sa_type=Text)


class HistoryRow(_Base, table=True):
    """What happened to a ticket, once per event."""

    __tablename__ = "history"

    event_id: uuid.UUID = Field(primary_key=True)
    ticket_id: uuid.UUID
    at: datetime = Field(sa_type=_TIME)
    kind: str = Field(sa_type=Text)
    payload: dict[str, Any] = Field(sa_type=JSONB)


class PointRow(_Base, table=True):
    """One matter that a customer raised, and who ticked it off. It stays with its own ticket when that is merged."""

    __tablename__ = "points"

    point_id: uuid.UUID = Field(primary_key=True)
    ticket_id: uuid.UUID
    message_event_id: uuid.UUID
    sequence: int
    start: int
    end: int
    text: str = Field(sa_type=Text)
    category: str = Field(sa_type=Text)
    done_at: datetime | None = Field(default=None, sa_type=_TIME)
    done_by: str | None = Field(default=None, sa_type=Text)


class LinkRow(_Base, table=True):
    """Two tickets of one person on different channels; each link is there both ways."""

    __tablename__ = "links"

    ticket_id: uuid.UUID = Field(primary_key=True)
    related_ticket_id: uuid.UUID = Field(primary_key=True)


class RequestRow(_Base, table=True):
    """What a request with an Idempotency-Key did, so that its repetition is answered and does nothing."""

    __tablename__ = "requests"

    agent: str = Field(primary_key=True, sa_type=Text)
    key: str = Field(primary_key=True, sa_type=Text)
    fingerprint: str = Field(sa_type=Text)
    ticket_id: uuid.UUID | None = None
    stored_at: datetime = Field(sa_type=_TIME)


ALL_CHANNELS: Final = "*"


class PeakRow(_Base, table=True):
    """The latest peak of a brand's queue, on one channel or (`*`) on all together: each begins and ends by itself."""

    __tablename__ = "peaks"

    brand: str = Field(primary_key=True, sa_type=Text)
    queue: str = Field(primary_key=True, sa_type=Text)
    channel: str = Field(primary_key=True, sa_type=Text)
    kind: str = Field(sa_type=Text)
    began_at: datetime = Field(sa_type=_TIME)
    at: datetime = Field(sa_type=_TIME)
    expected_arrivals: float = Field(sa_type=Float)
    seen_arrivals: int
    staff_needed: int | None = None


TICKETS: Final = METADATA.tables[f"{SCHEMA}.tickets"]
HISTORY: Final = METADATA.tables[f"{SCHEMA}.history"]
POINTS: Final = METADATA.tables[f"{SCHEMA}.points"]
LINKS: Final = METADATA.tables[f"{SCHEMA}.links"]
REQUESTS: Final = METADATA.tables[f"{SCHEMA}.requests"]
PEAKS: Final = METADATA.tables[f"{SCHEMA}.peaks"]

_RANK: Final = (TICKETS.c.rank_at, TICKETS.c.enqueued_at, TICKETS.c.ticket_id)
_RANKED: Final = TICKETS.c.rank_at.is_not(None)
Index(
    "ix_tickets_queue_order",
    TICKETS.c.queue,
    *_RANK,
    postgresql_where=(TICKETS.c.state == _QUEUED) & _RANKED,
)
Index("ix_tickets_state_order", TICKETS.c.state, *_RANK, postgresql_where=_RANKED)
Index("ix_tickets_open", TICKETS.c.queue, postgresql_where=TICKETS.c.state != _RESOLVED)
Index("ix_tickets_claimed_by", TICKETS.c.claimed_by, *_RANK, postgresql_where=TICKETS.c.state != _RESOLVED)
Index("ix_tickets_merged_into", TICKETS.c.merged_into, postgresql_where=TICKETS.c.merged_into.is_not(None))
Index("ix_history_ticket_id", HISTORY.c.ticket_id, HISTORY.c.at, HISTORY.c.event_id)
Index("ix_points_ticket_id", POINTS.c.ticket_id, POINTS.c.sequence, POINTS.c.start)
Index("ix_requests_stored_at", REQUESTS.c.stored_at)

# The decision is large and only shown: it is not loaded to be changed, and only written when there is a later one.
_CHANGEABLE: Final = tuple(column for column in TICKETS.c if column.name != "decision")


# --- tickets -------------------------------------------------------------------------------------------------------


async def lock_or_create(connection: AsyncConnection, ids: Iterable[uuid.UUID]) -> dict[uuid.UUID, View]:
    """These tickets, locked until the transaction ends; one not seen yet comes to be, without a queue."""
    ordered = sorted(set(ids))
    await connection.execute(
        text(
            "INSERT INTO desk.tickets "
            "(ticket_id, state, acted_here, sequence, revision, text_sequence, clocks, breached) "
            "SELECT ticket_id, 'queued', false, 0, 0, 0, '{}', false FROM unnest(:ids) AS row (ticket_id) "
            "ON CONFLICT (ticket_id) DO NOTHING"
        ).bindparams(bindparam("ids", type_=ARRAY(UuidType()))),
        {"ids": ordered},
    )
    return await _locked(connection, select(*_CHANGEABLE).where(_among(ordered)).with_for_update())


async def lock(connection: AsyncConnection, ids: Iterable[uuid.UUID]) -> dict[uuid.UUID, View]:
    """Those of these tickets that there are, locked until the transaction ends."""
    return await _locked(connection, select(*_CHANGEABLE).where(_among(sorted(set(ids)))).with_for_update())


async def lock_free(connection: AsyncConnection, ids: Iterable[uuid.UUID]) -> dict[uuid.UUID, View]:
    """Those of these tickets that no other transaction has locked, locked."""
    return await _locked(
        connection, select(*_CHANGEABLE).where(_among(sorted(set(ids)))).with_for_update(skip_locked=True)
    )


async def lock_next(connection: AsyncConnection, queue: Queue, brands: Collection[str] | None) -> View | None:
    """The next ticket of `queue` by the queue order, locked; claimers skip the tickets that others are claiming.
    `brands`: only of these; none for all.

    SKIP LOCKED on the rows would do that too, but also skip every ticket that a batch of events happens to hold: whole
    queues looked empty for moments, and the first in line was passed over. So claimers agree among themselves by
    advisory locks, and wait for the row.
    """
    waiting = [TICKETS.c.queue == queue.value, TICKETS.c.state == _QUEUED, _RANKED]
    if brands is not None:
        waiting.append(TICKETS.c.brand.in_(sorted(brands)))
    ahead = select(TICKETS.c.ticket_id).where(*waiting).order_by(*_RANK).limit(_CLAIMERS_AT_ONCE)
    in_order = ahead.cte("ahead").prefix_with("MATERIALIZED", dialect="postgresql")
    free = select(in_order.c.ticket_id).where(
        func.pg_try_advisory_xact_lock(func.hashtext("desk claims"), func.hashtext(cast(in_order.c.ticket_id, Text)))
    )
    while True:
        ticket_id = await connection.scalar(free.limit(1))
        if ticket_id is None:
            return None
        locked = await _locked(connection, select(*_CHANGEABLE).where(_among([ticket_id]), *waiting).with_for_update())
        if locked:
            return locked[ticket_id]
        # Claimed or moved while we waited for it: it is not in line any more, so the next look finds another.


async def save(connection: AsyncConnection, views: Iterable[View]) -> None:
    """Write these tickets, which the caller has locked."""
    with_decision: list[dict[str, Any]] = []
    without: list[dict[str, Any]] = []
    for view in views:
        values = _values(view)
        if view.decision is None:
            without.append(values)
        else:
            with_decision.append({**values, "new_decision": view.decision.model_dump_json()})
    if with_decision:
        await connection.execute(_UPDATE.values(decision=_json("decision")), with_decision)
    if without:
        await connection.execute(_UPDATE, without)


async def find(connection: AsyncConnection, ticket_id: uuid.UUID) -> View | None:
    """The ticket with its decision, not locked."""
    row = (await connection.execute(select(TICKETS).where(_among([ticket_id])))).first()
    return None if row is None else _view(row._mapping)


async def merged_here(connection: AsyncConnection, ticket_id: uuid.UUID) -> list[uuid.UUID]:
    """The tickets that were merged into this one, by the time they were."""
    rows = await connection.execute(
        select(TICKETS.c.ticket_id)
        .where(TICKETS.c.merged_into == ticket_id)
        .order_by(TICKETS.c.resolved_at, TICKETS.c.ticket_id)
    )
    return list(rows.scalars())


@dataclass(frozen=True, slots=True)
class Filter:
    """Which tickets to list: of these queues and brands (none: all), in this state, held by this agent."""

    queues: Collection[Queue] | None = None
    brands: Collection[str] | None = None
    state: State | None = None
    claimed_by: str | None = None


async def page(connection: AsyncConnection, wanted: Filter, after: RankKey | None, limit: int) -> list[View]:
    """Up to `limit` tickets in queue order, those after the rank `after`. Without their decisions."""
    query = select(*_CHANGEABLE).where(_RANKED)
    if wanted.queues is not None:
        query = query.where(TICKETS.c.queue.in_(sorted(queue.value for queue in wanted.queues)))
    if wanted.brands is not None:
        query = query.where(TICKETS.c.brand.in_(sorted(wanted.brands)))
    if wanted.state is not None:
        query = query.where(TICKETS.c.state == wanted.state.value)
    if wanted.claimed_by is not None:
        query = query.where(TICKETS.c.claimed_by == wanted.claimed_by)
    if after is not None:
        query = query.where(tuple_(*_RANK) > tuple_(*after))
    rows = await connection.execute(query.order_by(*_RANK).limit(limit))
    return [_view(row._mapping) for row in rows]


# --- history -------------------------------------------------------------------------------------------------------


async def record(connection: AsyncConnection, events: Mapping[uuid.UUID, TicketEvent]) -> set[uuid.UUID]:
    """Add these events (by event id) to the history; returns the ids of those that were not in it."""
    rows = await connection.execute(
        text(
            "INSERT INTO desk.history (event_id, ticket_id, at, kind, payload) "
            "SELECT event_id, ticket_id, at, kind, payload::jsonb "
            "FROM unnest(:event_ids, :ticket_ids, :ats, :kinds, :payloads) "
            "AS row (event_id, ticket_id, at, kind, payload) "
            "ON CONFLICT (event_id) DO NOTHING RETURNING event_id"
        ).bindparams(
            bindparam("event_ids", type_=ARRAY(UuidType())),
            bindparam("ticket_ids", type_=ARRAY(UuidType())),
            bindparam("ats", type_=ARRAY(_TIME)),
            bindparam("kinds", type_=ARRAY(Text())),
            bindparam("payloads", type_=ARRAY(Text())),
        ),
        {
            "event_ids": list(events),
            "ticket_ids": [event.ticket_id for event in events.values()],
            "ats": [event.occurred_at for event in events.values()],
            "kinds": [kind_of(event) for event in events.values()],
            "payloads": [event.model_dump_json(exclude_none=True) for event in events.values()],
        },
    )
    return set(rows.scalars())


class HistoryEntry(NamedTuple):
    event_id: uuid.UUID
    at: datetime
    kind: str
    payload: dict[str, Any]


async def history(connection: AsyncConnection, ticket_id: uuid.UUID, limit: int) -> list[HistoryEntry]:
    """The latest `limit` events of a ticket, oldest first."""
    rows = await connection.execute(
        select(HISTORY.c.event_id, HISTORY.c.at, HISTORY.c.kind, HISTORY.c.payload)
        .where(HISTORY.c.ticket_id == ticket_id)
        .order_by(HISTORY.c.at.desc(), HISTORY.c.event_id.desc())
        .limit(limit)
    )
    return [HistoryEntry(*row) for row in rows][::-1]


async def told(connection: AsyncConnection, ids: Collection[uuid.UUID]) -> dict[uuid.UUID, list[Told]]:
    """What the history says of the messages of these tickets."""
    rows = await connection.execute(
        select(HISTORY.c.ticket_id, HISTORY.c.kind, HISTORY.c.payload).where(
            HISTORY.c.ticket_id.in_(sorted(ids)), HISTORY.c.kind.in_([MESSAGE, ROUTED])
        )
    )
    found: defaultdict[uuid.UUID, list[Told]] = defaultdict(list)
    for row in rows:
        event = (TicketMessage if row.kind == MESSAGE else TicketRouted).model_validate(row.payload)
        if (message := Told.by(event)) is not None:
            found[row.ticket_id].append(message)
    return found


async def forget_words(connection: AsyncConnection, gone: Mapping[uuid.UUID, Collection[int]]) -> None:
    """Rub out what these messages (ticket -> sequences) said, wherever it was told again. Their tickets are locked."""
    pairs = [(ticket_id, sequence) for ticket_id, sequences in gone.items() for sequence in sequences]
    if not pairs:
        return
    await connection.execute(
        _FORGET_WORDS,
        {"ids": [ticket_id for ticket_id, _ in pairs], "sequences": [sequence for _, sequence in pairs]},
    )


_FORGET_WORDS: Final = text(
    "WITH gone AS (SELECT * FROM unnest(:ids, :sequences) AS row (ticket_id, sequence)), of_tickets AS ("
    "UPDATE desk.tickets SET decision = decision - 'subject' - 'points' || '{\"text\": \"\"}' FROM gone "
    "WHERE tickets.ticket_id = gone.ticket_id AND (decision ->> 'sequence')::int = gone.sequence) "
    "UPDATE desk.history SET payload = payload - 'subject' - 'points' - 'attachments' || '{\"text\": \"\"}' FROM gone "
    "WHERE history.ticket_id = gone.ticket_id AND kind IN ('message', 'routed') "
    "AND (payload ->> 'sequence')::int = gone.sequence AND payload ->> 'text' <> ''"
).bindparams(bindparam("ids", type_=ARRAY(UuidType())), bindparam("sequences", type_=ARRAY(Integer())))


# --- links ---------------------------------------------------------------------------------------------------------


async def add_links(connection: AsyncConnection, links: Iterable[tuple[uuid.UUID, uuid.UUID]]) -> None:
    """Keep that these pairs of tickets are one person's, for each of the two."""
    both_ways = {pair for one, other in links for pair in ((one, other), (other, one))}
    if both_ways:
        await connection.execute(
            upsert(LINKS).on_conflict_do_nothing(),
            [{"ticket_id": one, "related_ticket_id": other} for one, other in sorted(both_ways)],
        )


async def related(connection: AsyncConnection, ticket_id: uuid.UUID) -> list[View]:
    """The tickets of the same person on other channels, the latest first. One not heard of yet is left out."""
    rows = await connection.execute(
        select(*_CHANGEABLE)
        .join(LINKS, LINKS.c.related_ticket_id == TICKETS.c.ticket_id)
        .where(LINKS.c.ticket_id == ticket_id)
        .order_by(TICKETS.c.opened_at.desc().nulls_last(), TICKETS.c.ticket_id)
        .limit(_MOST_RELATED)
    )
    return [_view(row._mapping) for row in rows]


_MOST_RELATED: Final = 100


# --- points --------------------------------------------------------------------------------------------------------


async def add_points(connection: AsyncConnection, points: Sequence[TicketPoint]) -> None:
    """Add these; one that is there already stays as it is, ticked or not."""
    if points:
        await connection.execute(upsert(POINTS).on_conflict_do_nothing(), [asdict(point) for point in points])


async def drop_points(connection: AsyncConnection, message_event_ids: Collection[uuid.UUID]) -> Counter[uuid.UUID]:
    """Delete the points of these messages that are not ticked off; how many of each ticket they were."""
    if not message_event_ids:
        return Counter()
    rows = await connection.execute(
        POINTS.delete()
        .where(POINTS.c.message_event_id.in_(sorted(message_event_ids)), POINTS.c.done_at.is_(None))
        .returning(POINTS.c.ticket_id)
    )
    return Counter(rows.scalars())


async def points(connection: AsyncConnection, ticket_id: uuid.UUID) -> list[TicketPoint]:
    """The ticket's points by message and place, then those of the tickets merged into it, by the time they were."""
    shown = _with_merged([ticket_id])
    rows = await connection.execute(
        select(POINTS)
        .join(shown, shown.c.ticket_id == POINTS.c.ticket_id)
        .order_by(
            POINTS.c.ticket_id != ticket_id,
            shown.c.resolved_at,
            POINTS.c.ticket_id,
            POINTS.c.sequence,
            POINTS.c.start,
        )
    )
    return [TicketPoint(**{**row._mapping, "category": Category(row.category)}) for row in rows]


async def open_points(connection: AsyncConnection, ids: Collection[uuid.UUID]) -> Mapping[uuid.UUID, int]:
    """How many points of each of these tickets, and of those merged into it, are not ticked off."""
    shown = _with_merged(sorted(ids))
    rows = await connection.execute(
        select(shown.c.root, func.sum(shown.c.open_points).label("open")).group_by(shown.c.root)
    )
    return {row.root: row.open for row in rows}


async def ticket_of_point(connection: AsyncConnection, point_id: uuid.UUID) -> uuid.UUID | None:
    """The ticket whose customer raised it, which never changes. None if there is no such point."""
    found: uuid.UUID | None = await connection.scalar(select(POINTS.c.ticket_id).where(POINTS.c.point_id == point_id))
    return found


async def goes_on_for(connection: AsyncConnection, ticket_id: uuid.UUID, other: uuid.UUID) -> bool:
    """Whether `other` is this ticket or was merged into it, at any remove."""
    shown = _with_merged([ticket_id])
    return await connection.scalar(select(shown.c.root).where(shown.c.ticket_id == other)) is not None


async def tick(connection: AsyncConnection, point_id: uuid.UUID, done: tuple[str, datetime] | None) -> bool:
    """Keep who ticked the point off and when; None: it is open again. False, and nothing changed, if it was so."""
    was_otherwise = POINTS.c.done_at.is_(None) if done else POINTS.c.done_at.is_not(None)
    by, at = done or (None, None)
    changed = await connection.execute(
        update(POINTS).where(POINTS.c.point_id == point_id, was_otherwise).values(done_at=at, done_by=by)
    )
    return changed.rowcount == 1


def _with_merged(ids: Sequence[uuid.UUID]) -> CTE:
    """`root` and a ticket: each of these tickets with itself, and with all that were merged into it, at any remove.

    UNION drops what was found before, so that it ends even where other tools merged in a circle.
    """
    told = (TICKETS.c.ticket_id, TICKETS.c.open_points, TICKETS.c.resolved_at)
    shown = select(TICKETS.c.ticket_id.label("root"), *told).where(_among(ids)).cte(recursive=True)
    return shown.union(select(shown.c.root, *told).where(TICKETS.c.merged_into == shown.c.ticket_id))


# --- requests ------------------------------------------------------------------------------------------------------


class KnownRequest(NamedTuple):
    fingerprint: str
    ticket_id: uuid.UUID | None


async def begin_request(
    connection: AsyncConnection, agent: str, key: str, fingerprint: str, now: datetime
) -> KnownRequest | None:
    """None for a new request. A repeated one waits until the first has ended, then what that one did is returned."""
    added = await connection.scalar(
        upsert(REQUESTS)
        .values(agent=agent, key=key, fingerprint=fingerprint, stored_at=now)
        .on_conflict_do_nothing()
        .returning(REQUESTS.c.agent)
    )
    if added is not None:
        return None
    row = (
        await connection.execute(select(REQUESTS.c.fingerprint, REQUESTS.c.ticket_id).where(_request(agent, key)))
    ).one()
    return KnownRequest(*row)


async def end_request(connection: AsyncConnection, agent: str, key: str, ticket_id: uuid.UUID) -> None:
    """Keep which ticket a request was about, for its repetitions."""
    await connection.execute(update(REQUESTS).where(_request(agent, key)).values(ticket_id=ticket_id))


async def forget_request(connection: AsyncConnection, agent: str, key: str) -> None:
    """It did nothing: sent again, it is tried again."""
    await connection.execute(REQUESTS.delete().where(_request(agent, key)))


async def forget_requests(connection: AsyncConnection, before: datetime) -> None:
    await connection.execute(REQUESTS.delete().where(REQUESTS.c.stored_at < before))


# --- queues and peaks ----------------------------------------------------------------------------------------------


class QueueCount(NamedTuple):
    """Open tickets of one queue, brand, priority and state."""

    queue: Queue
    brand: str | None
    priority: Priority
    state: State
    tickets: int
    oldest_enqueued_at: datetime | None
    next_due_at: datetime | None
    breached: int
    open_points: int
    """Of these tickets, and of those merged into them."""


async def queue_counts(connection: AsyncConnection) -> list[QueueCount]:
    """All open tickets, counted."""
    rows = await connection.execute(
        text(
            "WITH RECURSIVE open AS MATERIALIZED ("
            "SELECT ticket_id, queue, brand, priority, state, enqueued_at, next_due_at, breached, open_points "
            "FROM desk.tickets WHERE state <> 'resolved' AND queue IS NOT NULL AND priority IS NOT NULL"
            "), merged (root, ticket_id, open_points) AS ("
            "SELECT open.ticket_id, tickets.ticket_id, tickets.open_points "
            "FROM open JOIN desk.tickets ON merged_into = open.ticket_id "
            "UNION SELECT root, tickets.ticket_id, tickets.open_points "
            "FROM merged JOIN desk.tickets ON merged_into = merged.ticket_id"
            "), of_merged AS (SELECT root, sum(open_points) AS open_points FROM merged GROUP BY root) "
            "SELECT queue, brand, priority, state, count(*), min(enqueued_at), min(next_due_at), "
            "count(*) FILTER (WHERE breached), sum(open.open_points + coalesce(of_merged.open_points, 0))::bigint "
            "FROM open LEFT JOIN of_merged ON root = ticket_id GROUP BY queue, brand, priority, state"
        )
    )
    return [QueueCount(Queue(row[0]), row[1], Priority(row[2]), State(row[3]), *row[4:]) for row in rows]


async def count_working(connection: AsyncConnection, since: datetime) -> int:
    """Agents who hold a ticket, or have asked for something with a key (as the desk's clients do) since then."""
    return (
        await connection.scalar(
            text(
                "SELECT count(*) FROM (SELECT claimed_by FROM desk.tickets "
                "WHERE state = 'claimed' AND claimed_by IS NOT NULL "
                "UNION SELECT agent FROM desk.requests WHERE stored_at >= :since) AS working"
            ),
            {"since": since},
        )
        or 0
    )


async def save_peaks(connection: AsyncConnection, events: Sequence[PeakEvent]) -> None:
    """Keep the latest of each brand's queue and channel."""
    latest: dict[tuple[str, str, str], PeakEvent] = {}
    for event in sorted(events, key=lambda event: (event.began_at, event.at)):
        latest[event.brand, event.queue, event.channel or ALL_CHANNELS] = event
    statement = upsert(PEAKS)
    new = statement.excluded
    await connection.execute(
        statement.on_conflict_do_update(
            index_elements=[column.name for column in PEAKS.primary_key],
            set_={column.name: new[column.name] for column in PEAKS.c if not column.primary_key},
            where=tuple_(PEAKS.c.began_at, PEAKS.c.at) < tuple_(new.began_at, new.at),
        ),
        [
            {**{name: getattr(event, name) for name in PEAKS.c.keys()}, "channel": key[-1]}  # noqa: SIM118 - columns
            for key, event in sorted(latest.items())
        ],
    )


class Peak(NamedTuple):
    """A peak that has not ended."""

    brand: str
    queue: Queue
    channel: Channel | None
    began_at: datetime
    staff_needed: int | None


async def peaks(connection: AsyncConnection) -> list[Peak]:
    rows = await connection.execute(
        select(PEAKS.c.brand, PEAKS.c.queue, PEAKS.c.channel, PEAKS.c.began_at, PEAKS.c.staff_needed).where(
            PEAKS.c.kind == PeakKind.BEGAN.value
        )
    )
    return [
        Peak(
            row.brand,
            Queue(row.queue),
            None if row.channel == ALL_CHANNELS else Channel(row.channel),
            row.began_at,
            row.staff_needed,
        )
        for row in rows
    ]


# --- rows and views ------------------------------------------------------------------------------------------------

_TICKET_FIELDS: Final = tuple(Ticket.__dataclass_fields__)


def _json(column: str) -> ColumnElement[Any]:
    """A JSON column's new value, already written out: pydantic does that several times faster than a driver's codec."""
    return cast(bindparam(f"new_{column}", type_=Text), JSONB)


_UPDATE: Final = (
    update(TICKETS)
    .where(TICKETS.c.ticket_id == bindparam("id"))
    .values(
        {
            column.name: _json(column.name) if isinstance(column.type, JSONB) else bindparam(f"new_{column.name}")
            for column in _CHANGEABLE
            if not column.primary_key
        }
    )
)


def _among(ids: Sequence[uuid.UUID]) -> ColumnElement[bool]:
    return TICKETS.c.ticket_id == ids[0] if len(ids) == 1 else TICKETS.c.ticket_id.in_(ids)


def _request(agent: str, key: str) -> ColumnElement[bool]:
    return (REQUESTS.c.agent == agent) & (REQUESTS.c.key == key)


async def _locked(connection: AsyncConnection, query: Select[Any]) -> dict[uuid.UUID, View]:
    rows = await connection.execute(query.order_by(TICKETS.c.ticket_id))
    return {row.ticket_id: _view(row._mapping) for row in rows}


def _values(view: View) -> dict[str, Any]:
    values: dict[str, Any] = {f"new_{name}": getattr(view.ticket, name) for name in _TICKET_FIELDS}
    values["id"] = values.pop("new_ticket_id")
    shown = (
        "brand",
        "channel",
        "language",
        "subject",
        "text",
        "text_sequence",
        "opened_at",
        "open_points",
        "has_changes",
        "traceparent",
    )
    values |= {f"new_{name}": getattr(view, name) for name in shown}
    values["new_clocks"] = _CLOCKS.dump_json(dict(view.clocks)).decode()
    values["new_next_due_at"] = next_due_at(view.clocks)
    values["new_breached"] = is_breached(view.clocks)
    return values


def _view(row: Mapping[Any, Any]) -> View:
    ticket = {name: row[name] for name in _TICKET_FIELDS}
    ticket["state"] = State(ticket["state"])
    decision = row.get("decision")
    return View(
        ticket=Ticket(
            **{
                **ticket,
                "queue": _none_or(Queue, row["queue"]),
                "category": _none_or(Category, row["category"]),
                "priority": _none_or(Priority, row["priority"]),
            }
        ),
        brand=row["brand"],
        channel=_none_or(Channel, row["channel"]),
        language=_none_or(Language, row["language"]),
        subject=row["subject"],
        text=row["text"],
        text_sequence=row["text_sequence"],
        opened_at=row["opened_at"],
        clocks=_CLOCKS.validate_python(row["clocks"]),
        open_points=row["open_points"],
        has_changes=row["has_changes"],
        traceparent=row["traceparent"],
        decision=None if decision is None else TicketRouted.model_validate(decision),
    )


def _none_or(kind: Any, value: Any) -> Any:
    return None if value is None else kind(value)
