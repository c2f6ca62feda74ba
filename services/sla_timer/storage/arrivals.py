"""Arrivals and peaks."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Text, bindparam, text
from sqlalchemy import Uuid as UuidType
from sqlalchemy.ext.asyncio import AsyncConnection

from services.sla_timer.domain.peaks import Active, Place
from services.sla_timer.storage.tables import TIME, unnest
from shared.events import PeakCause, PeakEvent, PeakKind
from shared.taxonomy import Channel, Queue


@dataclass(frozen=True, slots=True)
class Arrival:
    ticket_id: uuid.UUID
    brand: str
    queue: Queue
    channel: Channel
    at: datetime


_ADD_ARRIVALS: Final = unnest(
    "INSERT INTO sla_timer.arrivals (ticket_id, brand, queue, channel, at) "
    "SELECT * FROM unnest(:ids, :brands, :queues, :channels, :ats) "
    "ON CONFLICT (ticket_id) DO NOTHING RETURNING ticket_id",
    ids=UuidType(),
    brands=Text(),
    queues=Text(),
    channels=Text(),
    ats=TIME,
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
    "SELECT brand, queue, channel, count(*) AS arrived FROM sla_timer.arrivals WHERE at >= :since AND at < :until "
    "AND (CAST(:brand AS text) IS NULL OR brand = :brand) GROUP BY brand, queue, channel"
)


# From brand to brand along the index: a GROUP BY would read every arrival of a year, each minute.
_FIRST: Final = text(
    "WITH RECURSIVE known AS ((SELECT brand FROM sla_timer.arrivals ORDER BY brand LIMIT 1) "
    "UNION ALL SELECT (SELECT brand FROM sla_timer.arrivals WHERE brand > known.brand ORDER BY brand LIMIT 1) "
    "FROM known WHERE known.brand IS NOT NULL) "
    "SELECT brand, (SELECT min(at) FROM sla_timer.arrivals WHERE arrivals.brand = known.brand) AS first "
    "FROM known WHERE brand IS NOT NULL"
)


async def count_arrivals(
    connection: AsyncConnection, since: datetime, until: datetime, brand: str | None = None
) -> list[tuple[Place, int]]:
    """By place, of one brand or of all; `since` included, `until` not."""
    rows = await connection.execute(_COUNT, {"since": since, "until": until, "brand": brand})
    return [(Place(row.brand, Queue(row.queue), Channel(row.channel)), row.arrived) for row in rows]


async def first_arrivals(connection: AsyncConnection) -> dict[str, datetime]:
    """By brand: when the first ticket that is still counted was opened."""
    return {row.brand: row.first for row in await connection.execute(_FIRST)}


# --- peaks -----------------------------------------------------------------------------------------------------------

_ALL_CHANNELS: Final = "*"


async def active_peaks(connection: AsyncConnection) -> dict[Place, Active]:
    """Peaks going on."""
    rows = await connection.execute(
        text("SELECT brand, queue, channel, began_at, cause FROM sla_timer.peaks WHERE ended_at IS NULL")
    )
    return {
        Place(row.brand, Queue(row.queue), None if row.channel == _ALL_CHANNELS else Channel(row.channel)): Active(
            row.began_at, PeakCause(row.cause) if row.cause else None
        )
        for row in rows
    }


async def save_peak(connection: AsyncConnection, event: PeakEvent) -> None:
    await connection.execute(
        text(
            "INSERT INTO sla_timer.peaks (brand, queue, channel, began_at, ended_at, cause, expected_arrivals, "
            "seen_arrivals, staff_needed) "
            "VALUES (:brand, :queue, :channel, :began_at, :ended_at, :cause, :expected, :seen, :staff) "
            "ON CONFLICT (brand, queue, channel, began_at) DO UPDATE SET ended_at = excluded.ended_at"
        ).bindparams(bindparam("ended_at", type_=TIME)),
        {
            "brand": event.brand,
            "queue": event.queue.value,
            "channel": event.channel.value if event.channel else _ALL_CHANNELS,
            "began_at": event.began_at,
            "ended_at": event.at if event.kind is PeakKind.ENDED else None,
            "cause": event.cause.value if event.cause else None,
            "expected": event.expected_arrivals,
            "seen": event.seen_arrivals,
            "staff": event.staff_needed,
        },
    )


# --- what the API shows ----------------------------------------------------------------------------------------------


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


async def forget_arrivals(connection: AsyncConnection, before: datetime) -> None:
    await connection.execute(text("DELETE FROM sla_timer.arrivals WHERE at < :before"), {"before": before})
    await connection.execute(text("DELETE FROM sla_timer.peaks WHERE ended_at < :before"), {"before": before})
