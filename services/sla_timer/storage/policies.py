"""The policies that were in force, and every calendar that a promise was counted on: history can be computed again."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.calendars import Calendar, CalendarSpec


@dataclass(frozen=True, slots=True)
class InForce:
    """Policies as they were when they came into force. `calendars`: versions by name."""

    version: str
    at: datetime
    rules: Mapping[str, Any]
    calendars: Mapping[str, str]


async def lock_history(connection: AsyncConnection) -> None:
    """Until the transaction ends, no other replica adds to the history of policies."""
    await connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('sla_timer policies'))"))


async def latest_policies(connection: AsyncConnection) -> InForce | None:
    """Those that came into force last; none on a new installation."""
    row = (
        await connection.execute(
            text("SELECT version, at, rules, calendars FROM sla_timer.policies ORDER BY number DESC LIMIT 1")
        )
    ).first()
    return None if row is None else InForce(row.version, row.at, row.rules, row.calendars)


async def add_policies(connection: AsyncConnection, policies: InForce) -> None:
    await connection.execute(
        text(
            "INSERT INTO sla_timer.policies (version, at, rules, calendars) VALUES (:version, :at, :rules, :calendars)"
        ).bindparams(bindparam("rules", type_=JSONB), bindparam("calendars", type_=JSONB)),
        {
            "version": policies.version,
            "at": policies.at,
            "rules": dict(policies.rules),
            "calendars": dict(policies.calendars),
        },
    )


async def add_calendars(connection: AsyncConnection, calendars: Collection[Calendar]) -> None:
    """Keep these; a version that is there already stays."""
    for calendar in sorted(calendars, key=lambda item: item.version):
        await connection.execute(
            text(
                "INSERT INTO sla_timer.calendars (version, name, spec) VALUES (:version, :name, :spec) "
                "ON CONFLICT (version) DO NOTHING"
            ).bindparams(bindparam("spec", type_=JSONB)),
            {
                "version": calendar.version,
                "name": calendar.name,
                "spec": calendar.to_spec().model_dump(mode="json"),
            },
        )


async def archived_calendars(connection: AsyncConnection) -> dict[str, Calendar]:
    """Every calendar that was ever in force, by its version."""
    rows = await connection.execute(text("SELECT version, name, spec FROM sla_timer.calendars"))
    return {row.version: CalendarSpec.model_validate(row.spec).calendar(row.name) for row in rows}
