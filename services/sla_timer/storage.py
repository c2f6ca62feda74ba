"""All SQL of the sla_timer, in its schema `sla_timer`. Every function works in the caller's transaction.

Lock order, so that no two replicas wait for each other in a circle: tickets by id, then whatever belongs to them. The
deadline runner comes the other way round (it holds the deadline first), so it never waits for a ticket: `lock_free`.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Boolean, DateTime, Float, Index, Integer, Text, TextClause, bindparam, text
from sqlalchemy import Uuid as UuidType
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import Field, SQLModel

from services.sla_timer.domain.clocks import Clock, Happening, State, Step, Ticket
from services.sla_timer.domain.peaks import Place
from services.sla_timer.domain.policies import Terms
from services.sla_timer.domain.rules import What
from shared.database import service_metadata
from shared.deadlines import Deadlines, deadlines_table
from shared.events import PeakEvent, PeakKind, SlaKind, Target
from shared.outbox import Outbox, outbox_table
from shared.taxonomy import Channel, Priority, Queue

SCHEMA: Final = "sla_timer"
METADATA: Final = service_metadata(SCHEMA)
DEADLINES_TABLE: Final = deadlines_table(METADATA)
OUTBOX_TABLE: Final = outbox_table(METADATA)
DEADLINES: Final = Deadlines(SCHEMA)
OUTBOX: Final = Outbox(SCHEMA)

_TIME: Final = DateTime(timezone=True)


class _Base(SQLModel):
    metadata = METADATA


class TicketRow(_Base, table=True):
    """A ticket that something has been heard of; brand, channel and opening may still be unknown.

    `version`: of the policies under which its clocks were planned; none as long as it has no clocks. `alarm_at`: the
    deadline that is scheduled for it.
    """

    __tablename__ = "tickets"

    ticket_id: uuid.UUID = Field(primary_key=True)
    brand: str | None = Field(default=None, sa_type=Text)
    channel: str | None = Field(default=None, sa_type=Text)
    opened_at: datetime | None = Field(default=None, sa_type=_TIME)
    version: str | None = Field(default=None, sa_type=Text)
    has_open: bool = False
    alarm_at: datetime | None = Field(default=None, sa_type=_TIME)
    changed_at: datetime = Field(sa_type=_TIME)


class HappeningRow(_Base, table=True):
    """What happened to a ticket, once per event: history, and the guard against repeated events."""

    __tablename__ = "happenings"

    ticket_id: uuid.UUID = Field(primary_key=True)
    event_id: uuid.UUID = Field(primary_key=True)
    what: str = Field(sa_type=Text)
    at: datetime = Field(sa_type=_TIME)
    queue: str | None = Field(default=None, sa_type=Text)
    priority: str | None = Field(default=None, sa_type=Text)
    revision: int


class ClockRow(_Base, table=True):
    """One promise, and after its end the record of how it was kept."""

    __tablename__ = "clocks"

    clock_id: uuid.UUID = Field(primary_key=True)
    ticket_id: uuid.UUID
    target: str = Field(sa_type=Text)
    generation: int
    state: str = Field(sa_type=Text)
    brand: str = Field(sa_type=Text)
    channel: str = Field(sa_type=Text)
    queue: str | None = Field(default=None, sa_type=Text)
    priority: str = Field(sa_type=Text)
    policy: str = Field(sa_type=Text)
    calendar: str = Field(sa_type=Text)
    target_seconds: int
    warnings: list[float] = Field(sa_type=ARRAY(Float))
    started_at: datetime = Field(sa_type=_TIME)
    due_at: datetime | None = Field(default=None, sa_type=_TIME)
    ended_at: datetime | None = Field(default=None, sa_type=_TIME)
    breached_at: datetime | None = Field(default=None, sa_type=_TIME)
    used_seconds: int | None = None
    course: list[Any] = Field(sa_type=JSONB)
    told: int


class ArrivalRow(_Base, table=True):
    """A ticket that was opened, counted once: in the queue that it was first routed to, at the time it was opened."""

    __tablename__ = "arrivals"

    ticket_id: uuid.UUID = Field(primary_key=True)
    brand: str = Field(sa_type=Text)
    queue: str = Field(sa_type=Text)
    channel: str = Field(sa_type=Text)
    at: datetime = Field(sa_type=_TIME)


class PeakRow(_Base, table=True):
    """A peak; it goes on as long as it has no end."""

    __tablename__ = "peaks"

    brand: str = Field(primary_key=True, sa_type=Text)
    queue: str = Field(primary_key=True, sa_type=Text)
    began_at: datetime = Field(primary_key=True, sa_type=_TIME)
    ended_at: datetime | None = Field(default=None, sa_type=_TIME)
    expected_arrivals: float = Field(sa_type=Float)
    seen_arrivals: int


_TICKETS: Final = METADATA.tables[f"{SCHEMA}.tickets"]
_CLOCKS: Final = METADATA.tables[f"{SCHEMA}.clocks"]
_ARRIVALS: Final = METADATA.tables[f"{SCHEMA}.arrivals"]
_PEAKS: Final = METADATA.tables[f"{SCHEMA}.peaks"]
Index("ix_tickets_open_by_version", _TICKETS.c.version, postgresql_where=_TICKETS.c.has_open)
Index("ix_clocks_ticket_id", _CLOCKS.c.ticket_id)
Index("ix_clocks_started_at", _CLOCKS.c.started_at)
Index("ix_clocks_open", _CLOCKS.c.target, _CLOCKS.c.due_at, postgresql_where=_CLOCKS.c.ended_at.is_(None))
Index("ix_arrivals_at", _ARRIVALS.c.at)
Index("ix_peaks_active", _PEAKS.c.brand, _PEAKS.c.queue, unique=True, postgresql_where=_PEAKS.c.ended_at.is_(None))


def _unnest(statement: str, **columns: Any) -> TextClause:
    """A statement over arrays, one parameter per column."""
    # One dimension, said so: SQLAlchemy would look into every value for a further one.
    return text(statement).bindparams(
        *(bindparam(name, type_=ARRAY(kind, dimensions=1)) for name, kind in columns.items())
    )


# --- tickets -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Facts:
    """What one event tells of its ticket. An activity tells only that there is one."""

    ticket_id: uuid.UUID
    brand: str | None = None
    channel: Channel | None = None
    opened_at: datetime | None = None

    def merged(self, other: Facts) -> Facts:
        openings = [at for at in (self.opened_at, other.opened_at) if at is not None]
        return replace(
            self,
            brand=self.brand or other.brand,
            channel=self.channel or other.channel,
            opened_at=min(openings, default=None),
        )


@dataclass(frozen=True, slots=True)
class Kept:
    """A ticket as stored, locked by the caller. `ticket`: none as long as it is not known what was promised to whom."""

    ticket_id: uuid.UUID
    ticket: Ticket | None
    version: str | None
    has_open: bool
    alarm_at: datetime | None


_LOCK: Final = _unnest(
    "INSERT INTO sla_timer.tickets AS kept (ticket_id, brand, channel, opened_at, has_open, changed_at) "
    "SELECT ticket_id, brand, channel, opened_at, false, :now "
    "FROM unnest(:ids, :brands, :channels, :openings) AS row (ticket_id, brand, channel, opened_at) ORDER BY ticket_id "
    "ON CONFLICT (ticket_id) DO UPDATE SET brand = coalesce(kept.brand, excluded.brand), "
    "channel = coalesce(kept.channel, excluded.channel), opened_at = least(kept.opened_at, excluded.opened_at) "
    "RETURNING ticket_id, brand, channel, opened_at, version, has_open, alarm_at",
    ids=UuidType(),
    brands=Text(),
    channels=Text(),
    openings=_TIME,
)


async def lock(connection: AsyncConnection, facts: Iterable[Facts], now: datetime) -> dict[uuid.UUID, Kept]:
    """The tickets, locked until the transaction ends, with what these facts add; one not heard of yet comes to be."""
    merged: dict[uuid.UUID, Facts] = {}
    for fact in facts:
        merged[fact.ticket_id] = merged[fact.ticket_id].merged(fact) if fact.ticket_id in merged else fact
    ordered = [merged[key] for key in sorted(merged)]
    rows = await connection.execute(
        _LOCK,
        {
            "now": now,
            "ids": [fact.ticket_id for fact in ordered],
            "brands": [fact.brand for fact in ordered],
            "channels": [fact.channel for fact in ordered],
            "openings": [fact.opened_at for fact in ordered],
        },
    )
    return {row.ticket_id: _kept(row) for row in rows}


_KEPT: Final = "ticket_id, brand, channel, opened_at, version, has_open, alarm_at"
_LOCK_FREE: Final = text(
    f"SELECT {_KEPT} FROM sla_timer.tickets WHERE ticket_id = ANY(:ids) "  # noqa: S608 - names of our own
    "ORDER BY ticket_id FOR UPDATE SKIP LOCKED"
)
_LOCK_OUTDATED: Final = text(
    f"SELECT {_KEPT} FROM sla_timer.tickets WHERE has_open AND version <> :version "  # noqa: S608 - names of our own
    "ORDER BY ticket_id LIMIT :n FOR UPDATE SKIP LOCKED"
)


async def lock_free(connection: AsyncConnection, ids: Collection[uuid.UUID]) -> dict[uuid.UUID, Kept]:
    """Those of these tickets that no other transaction holds, locked."""
    rows = await connection.execute(_LOCK_FREE, {"ids": sorted(ids)})
    return {row.ticket_id: _kept(row) for row in rows}


async def lock_outdated(connection: AsyncConnection, version: str, limit: int) -> dict[uuid.UUID, Kept]:
    """Some tickets with open clocks that were planned under other policies, locked."""
    rows = await connection.execute(_LOCK_OUTDATED, {"version": version, "n": limit})
    return {row.ticket_id: _kept(row) for row in rows}


def _kept(row: Any) -> Kept:
    is_known = row.brand is not None and row.channel is not None and row.opened_at is not None
    ticket = Ticket(row.ticket_id, row.brand, Channel(row.channel), row.opened_at) if is_known else None
    return Kept(row.ticket_id, ticket, row.version, row.has_open, row.alarm_at)


_SAVE_TICKETS: Final = _unnest(
    "UPDATE sla_timer.tickets AS kept SET version = :version, has_open = row.has_open, alarm_at = row.alarm_at, "
    "changed_at = :now FROM unnest(:ids, :open, :alarms) AS row (ticket_id, has_open, alarm_at) "
    "WHERE kept.ticket_id = row.ticket_id",
    ids=UuidType(),
    open=Boolean(),
    alarms=_TIME,
)


async def save_tickets(connection: AsyncConnection, kept: Sequence[Kept], version: str, now: datetime) -> None:
    """Write back `has_open` and `alarm_at` of tickets that the caller has locked."""
    if kept:
        await connection.execute(
            _SAVE_TICKETS,
            {
                "version": version,
                "now": now,
                "ids": [item.ticket_id for item in kept],
                "open": [item.has_open for item in kept],
                "alarms": [item.alarm_at for item in kept],
            },
        )


# --- happenings ----------------------------------------------------------------------------------------------------

_ADD_HAPPENINGS: Final = _unnest(
    "INSERT INTO sla_timer.happenings (ticket_id, event_id, what, at, queue, priority, revision) "
    "SELECT * FROM unnest(:tickets, :ids, :whats, :ats, :queues, :priorities, :revisions) "
    "ON CONFLICT (ticket_id, event_id) DO NOTHING RETURNING ticket_id, event_id",
    tickets=UuidType(),
    ids=UuidType(),
    whats=Text(),
    ats=_TIME,
    queues=Text(),
    priorities=Text(),
    revisions=Integer(),
)
_HAPPENINGS: Final = text(
    "SELECT ticket_id, event_id, what, at, queue, priority, revision FROM sla_timer.happenings "
    "WHERE ticket_id = ANY(:ids)"
)


async def add_happenings(
    connection: AsyncConnection, happenings: Sequence[tuple[uuid.UUID, Happening]]
) -> dict[uuid.UUID, int]:
    """Keep what happened to these tickets. Returns how many of each were new, if any were."""
    if not happenings:
        return {}
    rows = await connection.execute(
        _ADD_HAPPENINGS,
        {
            "tickets": [ticket_id for ticket_id, _ in happenings],
            "ids": [item.id for _, item in happenings],
            "whats": [item.what for _, item in happenings],
            "ats": [item.at for _, item in happenings],
            "queues": [item.queue for _, item in happenings],
            "priorities": [item.priority for _, item in happenings],
            "revisions": [item.revision for _, item in happenings],
        },
    )
    new: dict[uuid.UUID, int] = {}
    for row in rows:
        new[row.ticket_id] = new.get(row.ticket_id, 0) + 1
    return new


async def happenings_of(connection: AsyncConnection, ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, list[Happening]]:
    found: dict[uuid.UUID, list[Happening]] = {}
    for row in await connection.execute(_HAPPENINGS, {"ids": ids}):
        found.setdefault(row.ticket_id, []).append(
            Happening(
                row.event_id,
                What(row.what),
                row.at,
                Queue(row.queue) if row.queue else None,
                Priority(row.priority) if row.priority else None,
                row.revision,
            )
        )
    return found


# --- clocks ----------------------------------------------------------------------------------------------------------

_CLOCK_COLUMNS: Final = (
    "clock_id, ticket_id, target, generation, state, brand, channel, queue, priority, policy, calendar, "
    "target_seconds, warnings, started_at, due_at, ended_at, breached_at, used_seconds, course, told"
)
_CLOCKS_OF: Final = text(f"SELECT {_CLOCK_COLUMNS} FROM sla_timer.clocks WHERE ticket_id = ANY(:ids)")  # noqa: S608
# An array of arrays must be rectangular and courses are not, so warnings and course travel as JSON.
_SAVE_CLOCKS: Final = _unnest(
    f"INSERT INTO sla_timer.clocks ({_CLOCK_COLUMNS}) "  # noqa: S608 - names of our own
    "SELECT clock_id, ticket_id, target, generation, state, brand, channel, queue, priority, policy, calendar, "
    "target_seconds, ARRAY(SELECT jsonb_array_elements_text(warnings::jsonb)::float), started_at, due_at, ended_at, "
    "breached_at, used_seconds, course::jsonb, told FROM unnest(:ids, :tickets, :targets, :generations, :states, "
    ":brands, :channels, :queues, :priorities, :policies, :calendars, :seconds, :warnings, :starts, :dues, :ends, "
    ":breaches, :used, :courses, :told) AS row (clock_id, ticket_id, target, generation, state, brand, channel, queue, "
    "priority, policy, calendar, target_seconds, warnings, started_at, due_at, ended_at, breached_at, used_seconds, "
    "course, told) "
    "ON CONFLICT (clock_id) DO UPDATE SET state = excluded.state, queue = excluded.queue, "
    "priority = excluded.priority, policy = excluded.policy, calendar = excluded.calendar, "
    "target_seconds = excluded.target_seconds, warnings = excluded.warnings, started_at = excluded.started_at, "
    "due_at = excluded.due_at, ended_at = excluded.ended_at, breached_at = excluded.breached_at, "
    "used_seconds = excluded.used_seconds, course = excluded.course, told = excluded.told",
    ids=UuidType(),
    tickets=UuidType(),
    targets=Text(),
    generations=Integer(),
    states=Text(),
    brands=Text(),
    channels=Text(),
    queues=Text(),
    priorities=Text(),
    policies=Text(),
    calendars=Text(),
    seconds=Integer(),
    warnings=Text(),
    starts=_TIME,
    dues=_TIME,
    ends=_TIME,
    breaches=_TIME,
    used=Integer(),
    courses=Text(),
    told=Integer(),
)


async def clocks_of(connection: AsyncConnection, ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, dict[uuid.UUID, Clock]]:
    """Clocks by ticket and id."""
    found: dict[uuid.UUID, dict[uuid.UUID, Clock]] = {}
    for row in await connection.execute(_CLOCKS_OF, {"ids": ids}):
        found.setdefault(row.ticket_id, {})[row.clock_id] = _clock(row)
    return found


async def save_clocks(connection: AsyncConnection, clocks: Sequence[tuple[Ticket, Clock]]) -> None:
    """Write these clocks, whose tickets the caller has locked."""
    if not clocks:
        return
    await connection.execute(
        _SAVE_CLOCKS,
        {
            "ids": [clock.id for _, clock in clocks],
            "tickets": [ticket.id for ticket, _ in clocks],
            "targets": [clock.target for _, clock in clocks],
            "generations": [clock.generation for _, clock in clocks],
            "states": [clock.state for _, clock in clocks],
            "brands": [ticket.brand for ticket, _ in clocks],
            "channels": [ticket.channel for ticket, _ in clocks],
            "queues": [clock.queue for _, clock in clocks],
            "priorities": [clock.priority for _, clock in clocks],
            "policies": [clock.terms.policy for _, clock in clocks],
            "calendars": [clock.terms.calendar for _, clock in clocks],
            "seconds": [clock.terms.target_seconds for _, clock in clocks],
            "warnings": [json.dumps(clock.terms.warnings) for _, clock in clocks],
            "starts": [clock.started_at for _, clock in clocks],
            "dues": [clock.due_at for _, clock in clocks],
            "ends": [clock.ended_at for _, clock in clocks],
            "breaches": [clock.breached_at for _, clock in clocks],
            "used": [clock.used_seconds for _, clock in clocks],
            "courses": [json.dumps([_step_json(step) for step in clock.course]) for _, clock in clocks],
            "told": [clock.told for _, clock in clocks],
        },
    )


def _clock(row: Any) -> Clock:
    return Clock(
        id=row.clock_id,
        target=Target(row.target),
        generation=row.generation,
        state=State(row.state),
        terms=Terms(row.policy, row.calendar, row.target_seconds, tuple(row.warnings)),
        started_at=row.started_at,
        priority=Priority(row.priority),
        queue=Queue(row.queue) if row.queue else None,
        due_at=row.due_at,
        ended_at=row.ended_at,
        breached_at=row.breached_at,
        course=tuple(_step(item) for item in _from_json(row.course)),
        told=row.told,
    )


def _step_json(step: Step) -> dict[str, Any]:
    told = {
        "kind": step.kind.value,
        "at": step.at.isoformat(),
        "due_at": step.due_at.isoformat() if step.due_at else None,
        "used_seconds": step.used_seconds,
        "share": step.share,
    }
    return {name: value for name, value in told.items() if value is not None}


def _step(item: Mapping[str, Any]) -> Step:
    due_at = item.get("due_at")
    return Step(
        kind=SlaKind(item["kind"]),
        at=datetime.fromisoformat(item["at"]),
        due_at=datetime.fromisoformat(due_at) if due_at else None,
        used_seconds=item.get("used_seconds"),
        share=item.get("share"),
    )


def _from_json(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


async def count_open(connection: AsyncConnection) -> dict[Target, int]:
    rows = await connection.execute(
        text("SELECT target, count(*) AS open FROM sla_timer.clocks WHERE ended_at IS NULL GROUP BY target")
    )
    return dict.fromkeys(Target, 0) | {Target(row.target): row.open for row in rows}


async def next_due(connection: AsyncConnection, limit: int) -> list[tuple[uuid.UUID, Clock]]:
    """The running clocks that are due first, breached ones included, with their tickets' ids."""
    rows = await connection.execute(
        text(
            f"SELECT {_CLOCK_COLUMNS} FROM sla_timer.clocks "  # noqa: S608 - names of our own
            "WHERE ended_at IS NULL AND due_at IS NOT NULL ORDER BY due_at, clock_id LIMIT :n"
        ),
        {"n": limit},
    )
    return [(row.ticket_id, _clock(row)) for row in rows]


# --- arrivals and peaks ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Arrival:
    ticket_id: uuid.UUID
    brand: str
    queue: Queue
    channel: Channel
    at: datetime


_ADD_ARRIVALS: Final = _unnest(
    "INSERT INTO sla_timer.arrivals (ticket_id, brand, queue, channel, at) "
    "SELECT * FROM unnest(:ids, :brands, :queues, :channels, :ats) "
    "ON CONFLICT (ticket_id) DO NOTHING RETURNING ticket_id",
    ids=UuidType(),
    brands=Text(),
    queues=Text(),
    channels=Text(),
    ats=_TIME,
)


async def add_arrivals(connection: AsyncConnection, arrivals: Iterable[Arrival]) -> list[Arrival]:
    """Count these tickets; returns those that had not been counted."""
    ordered = sorted({item.ticket_id: item for item in arrivals}.values(), key=lambda item: item.ticket_id)
    if not ordered:
        return []
    rows = await connection.execute(
        _ADD_ARRIVALS,
        {
            "ids": [item.ticket_id for item in ordered],
            "brands": [item.brand for item in ordered],
            "queues": [item.queue for item in ordered],
            "channels": [item.channel for item in ordered],
            "ats": [item.at for item in ordered],
        },
    )
    new = set(rows.scalars())
    return [item for item in ordered if item.ticket_id in new]


_COUNT: Final = text(
    "SELECT brand, queue, count(*) AS arrived FROM sla_timer.arrivals WHERE at >= :since AND at < :until "
    "GROUP BY brand, queue"
)


async def count_arrivals(connection: AsyncConnection, since: datetime, until: datetime) -> list[tuple[Place, int]]:
    rows = await connection.execute(_COUNT, {"since": since, "until": until})
    return [(Place(row.brand, Queue(row.queue)), row.arrived) for row in rows]


async def first_arrival_at(connection: AsyncConnection) -> datetime | None:
    at: datetime | None = await connection.scalar(text("SELECT min(at) FROM sla_timer.arrivals"))
    return at


async def active_peaks(connection: AsyncConnection) -> dict[Place, datetime]:
    """Peaks going on, and when each began."""
    rows = await connection.execute(text("SELECT brand, queue, began_at FROM sla_timer.peaks WHERE ended_at IS NULL"))
    return {Place(row.brand, Queue(row.queue)): row.began_at for row in rows}


async def save_peak(connection: AsyncConnection, event: PeakEvent) -> None:
    await connection.execute(
        text(
            "INSERT INTO sla_timer.peaks (brand, queue, began_at, ended_at, expected_arrivals, seen_arrivals) "
            "VALUES (:brand, :queue, :began_at, :ended_at, :expected, :seen) "
            "ON CONFLICT (brand, queue, began_at) DO UPDATE SET ended_at = excluded.ended_at"
        ).bindparams(bindparam("ended_at", type_=_TIME)),
        {
            "brand": event.brand,
            "queue": event.queue.value,
            "began_at": event.began_at,
            "ended_at": event.at if event.kind is PeakKind.ENDED else None,
            "expected": event.expected_arrivals,
            "seen": event.seen_arrivals,
        },
    )


async def arrivals_by_hour(connection: AsyncConnection, since: datetime) -> list[dict[str, Any]]:
    rows = await connection.execute(
        text(
            "SELECT date_trunc('hour', at) AS hour, brand, queue, count(*) AS arrivals FROM sla_timer.arrivals "
            "WHERE at >= :since GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
        ),
        {"since": since},
    )
    return [dict(row._mapping) for row in rows]


async def first_responses_by_hour(connection: AsyncConnection, since: datetime) -> list[dict[str, Any]]:
    """Exact percentiles over the single answers, by the hour in which the ticket was opened."""
    rows = await connection.execute(
        text(
            "SELECT date_trunc('hour', started_at) AS hour, brand, queue, count(*) AS answered, "
            "percentile_disc(0.5) WITHIN GROUP (ORDER BY used_seconds) AS p50_seconds, "
            "percentile_disc(0.9) WITHIN GROUP (ORDER BY used_seconds) AS p90_seconds, "
            "count(*) FILTER (WHERE breached_at IS NULL) AS within_target "
            "FROM sla_timer.clocks WHERE target = 'first_response' AND state = 'met' AND started_at >= :since "
            "GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
        ),
        {"since": since},
    )
    return [dict(row._mapping) for row in rows]


# --- forgetting ------------------------------------------------------------------------------------------------------

FORGET_AT_ONCE: Final = 1000


async def forget_tickets(connection: AsyncConnection, before: datetime) -> int:
    """Delete up to `FORGET_AT_ONCE` tickets that ended and last changed before then, and all that belongs to them."""
    ids = list(
        (
            await connection.execute(
                text(
                    "DELETE FROM sla_timer.tickets WHERE ticket_id IN (SELECT ticket_id FROM sla_timer.tickets "
                    "WHERE NOT has_open AND changed_at < :before LIMIT :n FOR UPDATE SKIP LOCKED) "
                    "RETURNING ticket_id"
                ),
                {"before": before, "n": FORGET_AT_ONCE},
            )
        ).scalars()
    )
    for table in ("happenings", "clocks"):
        await connection.execute(text(f"DELETE FROM sla_timer.{table} WHERE ticket_id = ANY(:ids)"), {"ids": ids})  # noqa: S608
    return len(ids)


async def forget_arrivals(connection: AsyncConnection, before: datetime) -> None:
    await connection.execute(text("DELETE FROM sla_timer.arrivals WHERE at < :before"), {"before": before})
    await connection.execute(text("DELETE FROM sla_timer.peaks WHERE ended_at < :before"), {"before": before})
