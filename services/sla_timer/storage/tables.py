"""The tables of schema `sla_timer`."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any, Final

from sqlalchemy import BigInteger, Column, DateTime, Float, Identity, Index, Text, TextClause, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlmodel import Field, SQLModel

from shared.database import service_metadata
from shared.deadlines import Deadlines, deadlines_table
from shared.outbox import Outbox, outbox_table

SCHEMA: Final = "sla_timer"
METADATA: Final = service_metadata(SCHEMA)
DEADLINES_TABLE: Final = deadlines_table(METADATA)
OUTBOX_TABLE: Final = outbox_table(METADATA)
DEADLINES: Final = Deadlines(SCHEMA)
OUTBOX: Final = Outbox(SCHEMA)

TIME: Final = DateTime(timezone=True)


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
    opened_at: datetime | None = Field(default=None, sa_type=TIME)
    version: str | None = Field(default=None, sa_type=Text)
    has_open: bool = False
    alarm_at: datetime | None = Field(default=None, sa_type=TIME)
    changed_at: datetime = Field(sa_type=TIME)


class HappeningRow(_Base, table=True):
    """What happened to a ticket, once per event: history, and the guard against repeated events."""

    __tablename__ = "happenings"

    ticket_id: uuid.UUID = Field(primary_key=True)
    event_id: uuid.UUID = Field(primary_key=True)
    what: str = Field(sa_type=Text)
    at: datetime = Field(sa_type=TIME)
    queue: str | None = Field(default=None, sa_type=Text)
    priority: str | None = Field(default=None, sa_type=Text)
    revision: int
    category: str | None = Field(default=None, sa_type=Text)
    agent_group: str | None = Field(default=None, sa_type=Text)


class ClockRow(_Base, table=True):
    """One promise, and after its end the record of how it was kept.

    `marks`: what is told on the way; `course`: its life, in any order; `alarms`: what time will still do to it, from
    `next_alarm_at` on, while it runs. The versions say what
    it was computed from (`policies`, `calendars`).
    """

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
    marks: list[Any] = Field(sa_type=JSONB)
    started_at: datetime = Field(sa_type=TIME)
    due_at: datetime | None = Field(default=None, sa_type=TIME)
    ended_at: datetime | None = Field(default=None, sa_type=TIME)
    breached_at: datetime | None = Field(default=None, sa_type=TIME)
    used_seconds: int | None = None
    course: list[Any] = Field(sa_type=JSONB)
    alarms: list[Any] = Field(sa_type=JSONB)
    next_alarm_at: datetime | None = Field(default=None, sa_type=TIME)
    told: int
    category: str | None = Field(default=None, sa_type=Text)
    agent_group: str | None = Field(default=None, sa_type=Text)
    policy_version: str = Field(sa_type=Text)
    calendar_version: str = Field(sa_type=Text)
    # Of the message that started it, if that was traced: see `traces.py`.
    traceparent: str | None = Field(default=None, sa_type=Text)


class ArrivalRow(_Base, table=True):
    """A ticket that was opened, counted once: in the queue that it was first routed to, at the time it was opened."""

    __tablename__ = "arrivals"

    ticket_id: uuid.UUID = Field(primary_key=True)
    brand: str = Field(sa_type=Text)
    queue: str = Field(sa_type=Text)
    channel: str = Field(sa_type=Text)
    at: datetime = Field(sa_type=TIME)


class PeakRow(_Base, table=True):
    """A peak; it goes on as long as it has no end. `channel`: `*` for all channels together."""

    __tablename__ = "peaks"

    brand: str = Field(primary_key=True, sa_type=Text)
    queue: str = Field(primary_key=True, sa_type=Text)
    channel: str = Field(primary_key=True, sa_type=Text)
    began_at: datetime = Field(primary_key=True, sa_type=TIME)
    ended_at: datetime | None = Field(default=None, sa_type=TIME)
    cause: str | None = Field(default=None, sa_type=Text)
    expected_arrivals: float = Field(sa_type=Float)
    seen_arrivals: int
    staff_needed: int | None = None


class PolicyRow(_Base, table=True):
    """The policies that came into force, in order. `rules` and `calendars` (versions by name) as they were then."""

    __tablename__ = "policies"

    number: int | None = Field(default=None, sa_column=Column(BigInteger, Identity(always=True), primary_key=True))
    version: str = Field(sa_type=Text)
    at: datetime = Field(sa_type=TIME)
    rules: dict[str, Any] = Field(sa_type=JSONB)
    calendars: dict[str, str] = Field(sa_type=JSONB)


class CalendarRow(_Base, table=True):
    """Every version of a calendar that a promise was counted on."""

    __tablename__ = "calendars"

    version: str = Field(primary_key=True, sa_type=Text)
    name: str = Field(sa_type=Text)
    spec: dict[str, Any] = Field(sa_type=JSONB)


_TICKETS: Final = METADATA.tables[f"{SCHEMA}.tickets"]
_CLOCKS: Final = METADATA.tables[f"{SCHEMA}.clocks"]
_ARRIVALS: Final = METADATA.tables[f"{SCHEMA}.arrivals"]
_PEAKS: Final = METADATA.tables[f"{SCHEMA}.peaks"]
Index("ix_tickets_open_by_version", _TICKETS.c.version, postgresql_where=_TICKETS.c.has_open)
Index("ix_clocks_ticket_id", _CLOCKS.c.ticket_id)
Index("ix_clocks_started_at", _CLOCKS.c.started_at)
Index("ix_clocks_open", _CLOCKS.c.target, _CLOCKS.c.due_at, postgresql_where=_CLOCKS.c.ended_at.is_(None))
Index("ix_arrivals_at", _ARRIVALS.c.at)
Index("ix_arrivals_brand_at", _ARRIVALS.c.brand, _ARRIVALS.c.at)
Index(
    "ix_peaks_active",
    _PEAKS.c.brand,
    _PEAKS.c.queue,
    _PEAKS.c.channel,
    unique=True,
    postgresql_where=_PEAKS.c.ended_at.is_(None),
)


def unnest(statement: str, **columns: Any) -> TextClause:
    """A statement over arrays, one parameter per column."""
    # One dimension, said so: SQLAlchemy would look into every value for a further one.
    return text(statement).bindparams(
        *(bindparam(name, type_=ARRAY(kind, dimensions=1)) for name, kind in columns.items())
    )
