"""The traces of the messages that started clocks. Asked for, and written, only while traces are recorded."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping
from typing import Final

from sqlalchemy import Text, bindparam, text
from sqlalchemy import Uuid as UuidType
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from services.sla_timer.storage.tables import unnest

_SAVE: Final = unnest(
    "UPDATE sla_timer.clocks AS clock SET traceparent = row.traceparent FROM unnest(:ids, :traceparents) "
    "AS row (clock_id, traceparent) WHERE clock.clock_id = row.clock_id",
    ids=UuidType(),
    traceparents=Text(),
)
_OF: Final = text(
    "SELECT clock_id, traceparent FROM sla_timer.clocks WHERE clock_id = ANY(:ids) AND traceparent IS NOT NULL"
).bindparams(bindparam("ids", type_=ARRAY(UuidType(), dimensions=1)))


async def save_traces(connection: AsyncConnection, traces: Mapping[uuid.UUID, str]) -> None:
    """By clock. The caller has locked their tickets."""
    if traces:
        await connection.execute(_SAVE, {"ids": list(traces), "traceparents": list(traces.values())})


async def traces_of(connection: AsyncConnection, clock_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, str]:
    """By clock, of those that have one."""
    if not clock_ids:
        return {}
    rows = await connection.execute(_OF, {"ids": sorted(clock_ids)})
    return {row.clock_id: row.traceparent for row in rows}
