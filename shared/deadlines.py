"""Durable deadlines in PostgreSQL: what is due fires at its time, once, on any replica, also after kill -9.

A deadline is a row. A runner sleeps until the earliest due time (NOTIFY wakes it when an earlier one is written),
claims what is due with SKIP LOCKED and fires it. Two kinds of effect, two ways to claim:

- **State** (an SLA breach, a take-back): `fire` runs in the transaction that deletes the row. Either both happen or
  neither: exactly once.
- **The outside world** (a webhook, a mail): the row's due time is moved into the future and committed (a lease), the
  caller delivers outside any transaction, then deletes or moves the row. A process that dies leaves a lease that runs
  out: at least once. Who may take how many leases is the deliverer's affair: `services/notifier/storage.py`.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Column, DateTime, Index, Integer, MetaData, Table, Text, bindparam, text
from sqlalchemy import Uuid as UuidType
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from shared import metrics
from shared.database import Database, listen

logger = logging.getLogger(__name__)

FIRE_BATCH: Final = 500
_LONGEST_SLEEP_SECONDS: Final = 5.0  # a safety net: NOTIFY wakes the runner
_SHORTEST_SLEEP_SECONDS: Final = 0.005  # what is due but locked by another replica must not make a busy loop


def deadlines_table(metadata: MetaData, name: str = "deadlines") -> Table:
    """The table of a service's deadlines; put it into the service's `storage.py` so that migrations see it."""
    return Table(
        name,
        metadata,
        Column("id", UuidType, primary_key=True),  # derived: scheduling again moves it, never doubles it
        Column("kind", Text, nullable=False),
        Column("subject", UuidType, nullable=False),  # what it is about, e.g. the clock or the notification
        Column("due_at", DateTime(timezone=True), nullable=False),
        # The earliest time it could fire: a promise that was due before it was written is not the engine's lateness.
        # A lease leaves it alone.
        Column("planned_at", DateTime(timezone=True), nullable=False),
        Column("attempt", Integer, nullable=False, server_default="0"),
        Index(None, "due_at"),
    )


@dataclass(frozen=True, slots=True)
class Deadline:
    """`due_at`: when it is to fire; of a claimed one: when it could first have fired, i.e. not before it was written,
    so that `lateness_seconds` is this engine's own. `attempt`: leases taken so far.
    """

    id: uuid.UUID
    kind: str
    subject: uuid.UUID
    due_at: datetime
    attempt: int = 0

    def lateness_seconds(self, now: datetime) -> float:
        return max(0.0, (now - self.due_at).total_seconds())


class Deadlines:
    """All SQL of one deadline table. Every method works in the caller's transaction."""

    def __init__(self, schema: str, table: str = "deadlines") -> None:
        self.name = f"{schema}.{table}"
        self.channel = f"{schema}_{table}"

    async def schedule(self, connection: AsyncConnection, deadlines: Sequence[Deadline]) -> None:
        """Write them; one that is there already (same id) is moved to its new due time."""
        if not deadlines:
            return
        ordered = sorted(deadlines, key=lambda item: item.id)  # one lock order for all: no deadlocks
        await connection.execute(
            text(
                f"INSERT INTO {self.name} (id, kind, subject, due_at, planned_at) "  # noqa: S608 - the name is ours
                "SELECT id, kind, subject, due_at, greatest(due_at, clock_timestamp()) "
                "FROM unnest(:ids, :kinds, :subjects, :due) AS row (id, kind, subject, due_at) "
                "ON CONFLICT (id) DO UPDATE SET due_at = excluded.due_at, planned_at = excluded.planned_at, attempt = 0"
            ).bindparams(
                bindparam("ids", type_=ARRAY(UuidType(), dimensions=1)),
                bindparam("kinds", type_=ARRAY(Text(), dimensions=1)),
                bindparam("subjects", type_=ARRAY(UuidType(), dimensions=1)),
                bindparam("due", type_=ARRAY(DateTime(timezone=True), dimensions=1)),
            ),
            {
                "ids": [item.id for item in ordered],
                "kinds": [item.kind for item in ordered],
                "subjects": [item.subject for item in ordered],
                "due": [item.due_at for item in ordered],
            },
        )
        await connection.execute(text("SELECT pg_notify(:channel, '')"), {"channel": self.channel})

    async def cancel(self, connection: AsyncConnection, ids: Sequence[uuid.UUID]) -> None:
        """Delete them; one that is not there is no error."""
        if ids:
            await connection.execute(text(f"DELETE FROM {self.name} WHERE id = ANY(:ids)"), {"ids": sorted(ids)})  # noqa: S608

    async def take_due(self, connection: AsyncConnection, now: datetime, limit: int = FIRE_BATCH) -> list[Deadline]:
        """Delete and return what is due, earliest first. Undone when the caller's transaction is rolled back."""
        rows = await connection.execute(
            text(
                f"DELETE FROM {self.name} WHERE id IN (SELECT id FROM {self.name} WHERE due_at <= :now "  # noqa: S608
                "ORDER BY due_at LIMIT :n FOR UPDATE SKIP LOCKED) RETURNING id, kind, subject, planned_at, attempt"
            ),
            {"now": now, "n": limit},
        )
        return _sorted(rows)

    async def next_due(self, connection: AsyncConnection) -> datetime | None:
        due: datetime | None = await connection.scalar(text(f"SELECT min(due_at) FROM {self.name}"))  # noqa: S608
        return due


def _sorted(rows: Any) -> list[Deadline]:
    return sorted(
        (Deadline(row.id, row.kind, row.subject, row.planned_at, row.attempt) for row in rows),
        key=lambda item: (item.due_at, item.id),
    )


AfterCommit = Callable[[], None]
Fire = Callable[[AsyncConnection, Sequence[Deadline], datetime], Awaitable[AfterCommit | None]]
"""Makes the effects of due deadlines in the given transaction. Third argument: now (UTC). Returns what is to be done
once that is committed, e.g. to count it: what was rolled back has not happened.
"""


class Runner:
    """Wakes at each due time. `on_due()` does one batch and returns how many it found; see `fire_in_transaction` for
    the usual one. While there is more than a batch, `at_once` of them are under way, so that this process and the
    database work at the same time; SKIP LOCKED keeps them apart.
    """

    def __init__(
        self, database: Database, deadlines: Deadlines, on_due: Callable[[], Awaitable[int]], *, at_once: int = 1
    ) -> None:
        self._database = database
        self._deadlines = deadlines
        self._on_due = on_due
        self._at_once = at_once
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled. Raises when the database fails: `shared.service` starts it again."""
        listener = await listen(self._database, self._deadlines.channel, self._wake.set)
        try:
            while True:
                self._wake.clear()
                if await self._drain():
                    continue  # firing takes time, in which more comes due
                async with self._database.transaction() as connection:
                    due = await self._deadlines.next_due(connection)
                now = datetime.now(UTC)
                sleep = _LONGEST_SLEEP_SECONDS if due is None else (due - now).total_seconds()
                try:
                    async with asyncio.timeout(max(_SHORTEST_SLEEP_SECONDS, min(_LONGEST_SLEEP_SECONDS, sleep))):
                        await self._wake.wait()
                except TimeoutError:
                    continue
        finally:
            await listener.close(timeout=1)

    async def _drain(self) -> bool:
        """Fire what is due; whether anything was."""
        if await self._on_due() == 0:
            return False

        async def more() -> None:
            while await self._on_due():
                pass

        # A surge: one after the other until none of them finds any more.
        async with asyncio.TaskGroup() as group:
            for _ in range(self._at_once):
                group.create_task(more())
        return True


def fire_in_transaction(
    database: Database, deadlines: Deadlines, fire: Fire, *, service: str, limit: int = FIRE_BATCH
) -> Callable[[], Awaitable[int]]:
    """An `on_due` for effects on state: deletes the due rows and calls `fire` in one transaction, and measures
    lateness: until the effect was committed, because nobody can see it sooner.
    """

    async def on_due() -> int:
        async with database.transaction() as connection:
            now = datetime.now(UTC)
            due = await deadlines.take_due(connection, now, limit)
            after = await fire(connection, due, now) if due else None
        if after is not None:
            after()
        committed_at = datetime.now(UTC)
        for item in due:
            metrics.DEADLINES_FIRED.labels(service, item.kind).inc()
            metrics.DEADLINE_LATENESS_SECONDS.labels(service, item.kind).observe(item.lateness_seconds(committed_at))
        return len(due)

    return on_due
