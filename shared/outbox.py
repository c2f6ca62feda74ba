"""The outbox: an event is stored in the transaction of the change it tells of, and a relay publishes it.

For changes that begin with an HTTP request or a timer: there is no record to take up again, so the event must not
depend on the broker being there. One relay per schema works at a time (a transaction-level advisory lock), so events
of a ticket leave in the order they were written.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import BigInteger, Column, DateTime, Identity, LargeBinary, MetaData, Table, Text, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from shared import metrics
from shared.broker import Publisher
from shared.cloudevents import Outgoing
from shared.database import Database, listen
from shared.events import REGISTRY
from shared.finishing import finished

logger = logging.getLogger(__name__)

RELAY_BATCH: Final = 500
_IDLE_SECONDS: Final = 5.0  # a safety net: NOTIFY wakes the relay
MEASURE_EVERY_SECONDS: Final = 5.0


def outbox_table(metadata: MetaData) -> Table:
    """The table `outbox` of a service's schema; put it into the service's `storage.py` so that migrations see it."""
    return Table(
        "outbox",
        metadata,
        Column("id", BigInteger, Identity(always=True), primary_key=True),
        Column("topic", Text, nullable=False),
        Column("type", Text, nullable=False),
        Column("body", LargeBinary, nullable=False),
        Column("traceparent", Text, nullable=False),
        Column("stored_at", DateTime(timezone=True), nullable=False),
    )


@dataclass(frozen=True, slots=True)
class Outbox:
    """Writes events into `<schema>.outbox`. Lock the ticket's row first: the order of writing is the order of
    publishing.
    """

    schema: str

    async def add(self, connection: AsyncConnection, outgoing: Sequence[Outgoing]) -> None:
        if not outgoing:
            return
        await connection.execute(
            text(
                f"INSERT INTO {self.schema}.outbox (topic, type, body, traceparent, stored_at) "  # noqa: S608 - schema is ours
                "SELECT topic, type, body, traceparent, :now "
                "FROM unnest(:topics, :types, :bodies, :traceparents) "
                "WITH ORDINALITY AS row (topic, type, body, traceparent, position) ORDER BY position"
            ).bindparams(
                bindparam("topics", type_=ARRAY(Text(), dimensions=1)),
                bindparam("types", type_=ARRAY(Text(), dimensions=1)),
                bindparam("bodies", type_=ARRAY(LargeBinary(), dimensions=1)),
                bindparam("traceparents", type_=ARRAY(Text(), dimensions=1)),
            ),
            {
                "now": datetime.now(UTC),
                "topics": [item.topic for item in outgoing],
                "types": [item.event.TYPE for item in outgoing],
                "bodies": [item.body() for item in outgoing],
                "traceparents": [item.traceparent for item in outgoing],
            },
        )
        await connection.execute(text("SELECT pg_notify(:channel, '')"), {"channel": self.channel})

    @property
    def channel(self) -> str:
        return f"{self.schema}_outbox"


class Relay:
    """Publishes what is in the outbox, in order, and deletes it once the broker has acknowledged it. At-least-once:
    the ids are derived.
    """

    def __init__(self, database: Database, outbox: Outbox, publisher: Publisher, *, service: str) -> None:
        self._database = database
        self._outbox = outbox
        self._publisher = publisher
        self._service = service
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled. Raises when the database or the broker fails: `shared.service` starts it again."""
        listener = await listen(self._database, self._outbox.channel, self._wake.set)
        try:
            while True:
                self._wake.clear()
                # Cut off between the acknowledgement and the commit, it would all be published once more.
                if await finished(self.publish_once()) == RELAY_BATCH:
                    continue
                try:
                    async with asyncio.timeout(_IDLE_SECONDS):
                        await self._wake.wait()
                except TimeoutError:
                    continue
        finally:
            await listener.close(timeout=1)

    async def publish_once(self) -> int:
        """Publish up to `RELAY_BATCH` events; returns how many. 0 when there are none or another replica is at it."""
        schema = self._outbox.schema
        async with self._database.transaction() as connection:
            # Released with the transaction, also when this process dies.
            locked = await connection.scalar(
                text("SELECT pg_try_advisory_xact_lock(hashtext(:name))"), {"name": self._outbox.channel}
            )
            if not locked:
                return 0
            rows = (
                await connection.execute(
                    text(f"SELECT id, topic, type, body, traceparent FROM {schema}.outbox ORDER BY id LIMIT :n"),  # noqa: S608
                    {"n": RELAY_BATCH},
                )
            ).all()
            if not rows:
                return 0
            await self._publisher.publish(
                [Outgoing(row.topic, REGISTRY[row.type].model_validate_json(row.body), row.traceparent) for row in rows]
            )
            await connection.execute(
                text(f"DELETE FROM {schema}.outbox WHERE id = ANY(:ids)"),  # noqa: S608
                {"ids": [row.id for row in rows]},
            )
        return len(rows)

    async def measure(self) -> None:
        """Set the gauges of what waits to be published; the broker is not needed for it."""
        async with self._database.transaction() as connection:
            depth, oldest_at = (
                await connection.execute(
                    # By id: the first that was written, and by the primary key.
                    text(
                        f"SELECT (SELECT count(*) FROM {self._outbox.schema}.outbox), "  # noqa: S608
                        f"(SELECT stored_at FROM {self._outbox.schema}.outbox ORDER BY id LIMIT 1)"
                    )
                )
            ).one()
        age_seconds = 0.0 if oldest_at is None else (datetime.now(UTC) - oldest_at).total_seconds()
        metrics.OUTBOX_DEPTH.labels(self._service).set(depth)
        metrics.OUTBOX_OLDEST_SECONDS.labels(self._service).set(max(0.0, age_seconds))
