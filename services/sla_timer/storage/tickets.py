"""Tickets, what happened to them, and forgetting them."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Boolean, Integer, Text, text
from sqlalchemy import Uuid as UuidType
from sqlalchemy.ext.asyncio import AsyncConnection

from services.sla_timer.domain.clocks import Happening, Ticket
from services.sla_timer.domain.rules import What
from services.sla_timer.storage.tables import TIME, unnest
from shared.taxonomy import Category, Channel, Priority, Queue


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


_LOCK: Final = unnest(
    "INSERT INTO sla_timer.tickets AS kept (ticket_id, brand, channel, opened_at, has_open, changed_at) "
    "SELECT ticket_id, brand, channel, opened_at, false, :now "
    "FROM unnest(:ids, :brands, :channels, :openings) AS row (ticket_id, brand, channel, opened_at) ORDER BY ticket_id "
    "ON CONFLICT (ticket_id) DO UPDATE SET brand = coalesce(kept.brand, excluded.brand), "
    "channel = coalesce(kept.channel, excluded.channel), opened_at = least(kept.opened_at, excluded.opened_at) "
    "RETURNING ticket_id, brand, channel, opened_at, version, has_open, alarm_at",
    ids=UuidType(),
    brands=Text(),
    channels=Text(),
    openings=TIME,
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


_SAVE_TICKETS: Final = unnest(
    "UPDATE sla_timer.tickets AS kept SET version = :version, has_open = row.has_open, alarm_at = row.alarm_at, "
    "changed_at = :now FROM unnest(:ids, :open, :alarms) AS row (ticket_id, has_open, alarm_at) "
    "WHERE kept.ticket_id = row.ticket_id",
    ids=UuidType(),
    open=Boolean(),
    alarms=TIME,
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

_ADD_HAPPENINGS: Final = unnest(
    "INSERT INTO sla_timer.happenings "
    "(ticket_id, event_id, what, at, queue, priority, revision, category, agent_group) "
    "SELECT * FROM unnest(:tickets, :ids, :whats, :ats, :queues, :priorities, :revisions, :categories, :groups) "
    "ON CONFLICT (ticket_id, event_id) DO NOTHING RETURNING ticket_id, event_id",
    tickets=UuidType(),
    ids=UuidType(),
    whats=Text(),
    ats=TIME,
    queues=Text(),
    priorities=Text(),
    revisions=Integer(),
    categories=Text(),
    groups=Text(),
)
_HAPPENINGS: Final = text(
    "SELECT ticket_id, event_id, what, at, queue, priority, revision, category, agent_group FROM sla_timer.happenings "
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
            "categories": [item.category for _, item in happenings],
            "groups": [item.agent_group for _, item in happenings],
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
                Category(row.category) if row.category else None,
                row.agent_group,
            )
        )
    return found


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
