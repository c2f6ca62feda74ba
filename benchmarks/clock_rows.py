"""Open clocks by the hundred thousand: one ticket goes through the real handlers, its rows are copied.

A copy has ids of its own (a clock's is derived from its ticket's, as the service derives it), and every time in it, in
columns and in JSON, is moved by the same span. On a calendar that never closes that is what the handlers would have
written for a ticket opened so much earlier or later.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final

import asyncpg

from services.sla_timer.domain.clocks import clock_id_of
from services.sla_timer.handlers import Handlers
from services.sla_timer.storage import DEADLINES
from shared import topics
from shared.cloudevents import Origin, Received, trace_of
from shared.events import (
    Customer,
    DecisionTrace,
    Disposition,
    SlaKind,
    Target,
    TicketMessage,
    TicketRouted,
    derive_id,
)
from shared.taxonomy import Category, Channel, Language, Priority, Queue

_SCHEMA: Final = "sla_timer"
_INSTANT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?\+\d\d:\d\d")

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Template:
    """The rows of one ticket, by table. `due_at`: of its first response."""

    ticket_id: uuid.UUID
    due_at: datetime
    columns: Mapping[str, Sequence[str]]
    rows: Mapping[str, Sequence[Row]]

    @property
    def clocks(self) -> int:
        return len(self.rows["clocks"])


@dataclass(frozen=True, slots=True)
class Copy:
    """Which clock of a copied ticket is due, and when."""

    clock_id: uuid.UUID
    due_at: datetime


async def make_template(
    connection: asyncpg.Connection, handlers: Handlers, opened_at: datetime, priority: Priority
) -> Template:
    """Have the real handlers open a ticket, read what they have written, and take it out again."""
    ticket_id = uuid.uuid4()
    await handlers.on_tickets(_opening(ticket_id, opened_at, priority))
    columns: dict[str, Sequence[str]] = {}
    rows: dict[str, Sequence[Row]] = {}
    for table, key in await _tables_of_tickets(connection):
        found = await connection.fetch(f"SELECT * FROM {_SCHEMA}.{table} WHERE {key} = $1", ticket_id)
        columns[table] = list(found[0].keys()) if found else []
        rows[table] = [tuple(row) for row in found]
        await connection.execute(f"DELETE FROM {_SCHEMA}.{table} WHERE {key} = $1", ticket_id)
    await connection.execute(f"TRUNCATE {_SCHEMA}.outbox")
    due_at = next(
        row[columns["clocks"].index("due_at")]
        for row in rows["clocks"]
        if row[columns["clocks"].index("target")] == Target.FIRST_RESPONSE
    )
    return Template(ticket_id, due_at, columns, rows)


async def copy_tickets(connection: asyncpg.Connection, template: Template, due_times: Sequence[datetime]) -> list[Copy]:
    """Write one copy of the ticket per due time of its first response. The runner is told, as it always is."""
    copier = _Copier(template)
    made: list[Copy] = []
    records: dict[str, list[Row]] = {table: [] for table in template.rows}
    for due_at in due_times:
        ticket_id = uuid.uuid4()
        made.append(Copy(clock_id_of(ticket_id, Target.FIRST_RESPONSE, 1), due_at))
        for table, rows in copier.copy(ticket_id, due_at - template.due_at):
            records[table] += rows
    async with connection.transaction():
        for table, copied in records.items():
            if copied:
                await connection.copy_records_to_table(
                    table, schema_name=_SCHEMA, columns=template.columns[table], records=copied
                )
        await connection.execute("SELECT pg_notify($1, '')", DEADLINES.channel)
    return made


_Make = Callable[[uuid.UUID, timedelta], Any]
"""A value of a copy, from the copy's ticket id and the span by which its times are moved."""


class _Copier:
    """What differs from copy to copy is settled once for each column, not for each of a million rows."""

    def __init__(self, template: Template) -> None:
        self._tables: list[tuple[str, list[tuple[Row, list[tuple[int, _Make]]]]]] = []
        for table, rows in template.rows.items():
            names = template.columns[table]
            self._tables.append((table, [(row, _changes(template.ticket_id, names, row)) for row in rows]))

    def copy(self, ticket_id: uuid.UUID, moved: timedelta) -> Iterator[tuple[str, list[Row]]]:
        for table, rows in self._tables:
            copied = []
            for row, changes in rows:
                values = list(row)
                for index, make in changes:
                    values[index] = make(ticket_id, moved)
                copied.append(tuple(values))
            yield table, copied


def _changes(original: uuid.UUID, names: Sequence[str], row: Row) -> list[tuple[int, _Make]]:
    named = dict(zip(names, row, strict=True))
    made = ((index, _value(original, named, name)) for index, name in enumerate(names))
    return [(index, make) for index, make in made if make is not None]


def _value(original: uuid.UUID, row: Mapping[str, Any], name: str) -> _Make | None:
    """How a copy's value of this column is made; none when it stays."""
    value = row[name]
    match value:
        case uuid.UUID() if value == original:
            return lambda ticket_id, _: ticket_id
        case uuid.UUID() if name == "clock_id":
            target, generation = Target(row["target"]), row["generation"]
            return lambda ticket_id, _: clock_id_of(ticket_id, target, generation)
        case uuid.UUID():
            return lambda *_: uuid.uuid4()
        case datetime():
            return lambda _, moved: value + moved
        case str() if _INSTANT.search(value):
            instants = [datetime.fromisoformat(found) for found in _INSTANT.findall(value)]
            between = _INSTANT.split(value)
            return lambda _, moved: "".join(
                [
                    *(part for text, at in zip(between, instants, strict=False) for part in (text, _moved(at, moved))),
                    between[-1],
                ]
            )
        case _:
            return None


@lru_cache(maxsize=64)
def _moved(at: datetime, span: timedelta) -> str:
    """Cached: a ticket's rows name the same few times again and again."""
    return (at + span).isoformat()


async def _tables_of_tickets(connection: asyncpg.Connection) -> list[tuple[str, str]]:
    """Every table that has rows of a ticket, and the column that names it."""
    found = await connection.fetch(
        "SELECT table_name FROM information_schema.columns WHERE table_schema = $1 AND column_name = 'ticket_id'",
        _SCHEMA,
    )
    return [*((row["table_name"], "ticket_id") for row in found), ("deadlines", "subject")]


def _opening(ticket_id: uuid.UUID, opened_at: datetime, priority: Priority) -> list[Received[Any]]:
    """A ticket's first message and its routing, as the service receives them."""
    said: dict[str, Any] = {
        "ticket_id": ticket_id,
        "brand": "upay",
        "channel": Channel.APP_CHAT,
        "customer": Customer(id="customer-1"),
        "sequence": 1,
        "disposition": Disposition.OPENED,
        "text": "充值两百块一直没到账",
        "sent_at": opened_at,
        "opened_at": opened_at,
    }
    message = TicketMessage(**said, message_id=uuid.uuid4().hex, accepted_at=opened_at)
    routed = TicketRouted(
        **said,
        cause_id=derive_id("ticket.message", ticket_id),
        revision=1,
        queue=Queue.PAYMENTS,
        category=Category.TOP_UP,
        priority=priority,
        confidence=0.9,
        language=Language.ZH,
        trace=DecisionTrace(decided_by="model", model="bench"),
        decided_at=opened_at,
    )
    received_at = datetime.now(UTC)
    return [
        Received(event, Origin(topic, 0, offset), received_at, trace_of(event))
        for offset, (event, topic) in enumerate(
            ((message, topics.TICKETS_MESSAGES.name), (routed, topics.queue_topic_name(routed.queue)))
        )
    ]


# --- what was told, and when it was committed -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Outcome:
    """`lateness_ms`: sorted; from due to committed, by PostgreSQL's time stamp of the commit. `last_at`: the last."""

    lateness_ms: Sequence[float]
    last_at: datetime


async def outcome_of(connection: asyncpg.Connection, expected: Sequence[Copy]) -> Outcome:
    """Read the breaches in the outbox. Raises RuntimeError unless each of the clocks was told of exactly once, and
    nobody else's.
    """
    told: dict[uuid.UUID, list[datetime]] = {}
    rows = await connection.fetch(
        f"SELECT body, pg_xact_commit_timestamp(xmin) AS committed_at FROM {_SCHEMA}.outbox "
        "WHERE type LIKE 'switchyard.sla.event.%'"
    )
    for row in rows:
        event = json.loads(row["body"])
        if event["kind"] == SlaKind.BREACHED:
            told.setdefault(uuid.UUID(event["clock_id"]), []).append(row["committed_at"])
    due = {copy.clock_id: copy.due_at for copy in expected}
    missing, doubled = due.keys() - told.keys(), [key for key, times in told.items() if len(times) > 1]
    strangers = told.keys() - due.keys()
    if missing or doubled or strangers:
        raise RuntimeError(
            f"not exactly once: of {len(due)} breaches {len(missing)} are missing, {len(doubled)} are doubled, "
            f"{len(strangers)} are of clocks that were not due"
        )
    lateness = sorted((told[key][0] - due_at) / timedelta(milliseconds=1) for key, due_at in due.items())
    if lateness[0] < 0:
        raise RuntimeError(f"a breach was told {-lateness[0]:.1f} ms before its due time")
    return Outcome(lateness, max(times[0] for times in told.values()))
