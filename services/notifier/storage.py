# ruff: noqa: S608 - names in statements are constants of ours, every value is a bound parameter
"""The notifier's tables and all SQL on them. Every function works in the caller's transaction.

Locks are taken in one order everywhere (contacts, notifications, allowances, deadlines; each by its key), so that
batches of several replicas do not deadlock.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Column, DateTime, Index, Integer, Row, Text, bindparam, text
from sqlalchemy import Uuid as UuidType
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import Field, SQLModel

from services.notifier.domain.notifications import Contact, Kind, Notification
from services.notifier.domain.outputs import Route
from shared.database import service_metadata
from shared.deadlines import Deadlines, deadlines_table
from shared.events import Output
from shared.outbox import outbox_table
from shared.taxonomy import Channel, Language

SCHEMA: Final = "notifier"
METADATA: Final = service_metadata(SCHEMA)
OUTBOX_TABLE: Final = outbox_table(METADATA)
DEADLINES_TABLE: Final = deadlines_table(METADATA)
DEADLINES: Final = Deadlines(SCHEMA)
"""`kind` of a deadline is the endpoint, its id the notification's."""
Index("ix_deadlines_kind_due_at", DEADLINES_TABLE.c.kind, DEADLINES_TABLE.c.due_at)

PURGE_BATCH: Final = 1000


class State(StrEnum):
    PENDING = "pending"  # has a deadline: its next try
    WAITING_CONTACT = "waiting_contact"  # a reply that came before we knew its customer
    FOLDED = "folded"  # goes out with the digest `digest_id`
    DELIVERED = "delivered"
    GIVEN_UP = "given_up"


OPEN_STATES: Final = (State.PENDING, State.WAITING_CONTACT, State.FOLDED)


class _Base(SQLModel):
    metadata = METADATA


def _timestamp(*, nullable: bool = False) -> Any:
    return Field(default=None, sa_column=Column(DateTime(timezone=True), nullable=nullable))


def _text(*, nullable: bool = True) -> Any:
    return Field(default=None, sa_column=Column(Text, nullable=nullable))


class ContactRow(_Base, table=True):
    """How a ticket's customer is reached. Sequence 0: a reply waits for it, nothing is known yet."""

    __tablename__ = "contacts"
    __table_args__ = (Index(None, "updated_at"),)

    ticket_id: uuid.UUID = Field(primary_key=True)
    sequence: int
    brand: str | None = _text()
    channel: str | None = _text()
    customer_id: str | None = _text()
    email: str | None = _text()
    reply_to: str | None = _text()
    language: str | None = _text()
    message_id: str | None = _text()
    subject: str | None = _text()
    updated_at: datetime = _timestamp()


class NotificationRow(_Base, table=True):
    __tablename__ = "notifications"
    __table_args__ = (
        Index("ix_notifications_waiting", "ticket_id", postgresql_where=text("state = 'waiting_contact'")),
        Index("ix_notifications_digest", "digest_id", postgresql_where=text("digest_id IS NOT NULL")),
        Index(
            "ix_notifications_open",
            "output",
            postgresql_where=text("state IN ('pending', 'waiting_contact', 'folded')"),
        ),
        Index("ix_notifications_unerased", "finished_at", postgresql_where=text("NOT erased")),
        Index(None, "finished_at"),
    )

    notification_id: uuid.UUID = Field(primary_key=True)
    kind: str = _text(nullable=False)
    state: str = _text(nullable=False)
    ticket_id: uuid.UUID | None = None
    brand: str | None = _text()
    output: str | None = _text()
    endpoint: str | None = _text()
    recipient: str | None = _text()
    language: str = _text(nullable=False)
    subject: str = _text(nullable=False)
    body: str = _text(nullable=False)
    data: dict[str, Any] = Field(sa_column=Column(JSONB, nullable=False))
    caused_at: datetime = _timestamp()
    traceparent: str = _text(nullable=False)
    attempt: int = Field(default=0)
    next_try_at: datetime | None = _timestamp(nullable=True)
    digest_id: uuid.UUID | None = None
    detail: str = _text(nullable=False)
    created_at: datetime = _timestamp()
    finished_at: datetime | None = _timestamp(nullable=True)
    erased: bool = Field(default=False)


class AllowanceRow(_Base, table=True):
    """How many of a kind one recipient has had within a window; its row lock is what makes the limit exact."""

    __tablename__ = "allowances"
    __table_args__ = (Index(None, "window_start"),)

    scope: str = Field(sa_column=Column(Text, primary_key=True))
    window_start: datetime = Field(sa_column=Column(DateTime(timezone=True), primary_key=True))
    used: int


class EndpointRow(_Base, table=True):
    """An endpoint that answered 410 Gone. A new URL in `notifications.yaml` lets it work again by itself."""

    __tablename__ = "disabled_endpoints"

    name: str = Field(sa_column=Column(Text, primary_key=True))
    url_digest: str = _text(nullable=False)
    disabled_at: datetime = _timestamp()


# --- contacts --------------------------------------------------------------------------------------------------------

_CONTACT_COLUMNS: Final = (
    "ticket_id, sequence, brand, channel, customer_id, email, reply_to, language, message_id, subject"
)


async def remember_contacts(connection: AsyncConnection, contacts: Iterable[Contact]) -> None:
    """Store what the latest message of each ticket says of its customer; an older one changes nothing.

    Locks every ticket's row, changed or not: see `contacts_for_replies`.
    """
    rows = [
        {
            "ticket_id": str(contact.ticket_id),
            "sequence": contact.sequence,
            "brand": contact.brand,
            "channel": contact.channel,
            "customer_id": contact.customer_id,
            "email": contact.email,
            "reply_to": contact.reply_to,
            "language": contact.language,
            "message_id": contact.message_id,
            "subject": contact.subject,
        }
        for contact in sorted(contacts, key=lambda contact: contact.ticket_id)
    ]
    await connection.execute(
        text(
            f"INSERT INTO notifier.contacts AS known ({_CONTACT_COLUMNS}, updated_at) "
            f"SELECT {_CONTACT_COLUMNS}, :now "
            "FROM jsonb_populate_recordset(NULL::notifier.contacts, CAST(:rows AS jsonb)) "
            "ON CONFLICT (ticket_id) DO UPDATE SET sequence = excluded.sequence, brand = excluded.brand, "
            "channel = excluded.channel, customer_id = excluded.customer_id, email = excluded.email, "
            "reply_to = excluded.reply_to, language = coalesce(excluded.language, known.language), "
            "message_id = coalesce(excluded.message_id, known.message_id), "
            "subject = CASE WHEN excluded.message_id IS NULL THEN known.subject ELSE excluded.subject END, "
            "updated_at = excluded.updated_at "
            "WHERE excluded.sequence > known.sequence OR (excluded.sequence = known.sequence AND ("
            "(excluded.language IS DISTINCT FROM known.language AND excluded.language IS NOT NULL) "
            "OR (excluded.message_id IS DISTINCT FROM known.message_id AND excluded.message_id IS NOT NULL)))"
        ),
        {"rows": json.dumps(rows), "now": datetime.now(UTC)},
    )


async def contacts_for_replies(
    connection: AsyncConnection, ticket_ids: Iterable[uuid.UUID]
) -> dict[uuid.UUID, Contact]:
    """The contacts that are known. The row of each ticket is made if need be, and locked.

    So either the reply sees its contact, or whoever brings the contact waits for this transaction and then sees the
    reply: there is no moment at which both miss each other.
    """
    ordered = sorted(ticket_ids)
    await connection.execute(
        text(
            "INSERT INTO notifier.contacts (ticket_id, sequence, updated_at) "
            "SELECT ticket_id, 0, :now FROM unnest(:ids) AS row (ticket_id) ON CONFLICT DO NOTHING"
        ).bindparams(_uuids("ids")),
        {"ids": ordered, "now": datetime.now(UTC)},
    )
    rows = await connection.execute(
        text(
            f"SELECT {_CONTACT_COLUMNS} FROM notifier.contacts "
            "WHERE ticket_id = ANY(:ids) ORDER BY ticket_id FOR UPDATE"
        ).bindparams(_uuids("ids")),
        {"ids": ordered},
    )
    return {
        row.ticket_id: Contact(
            ticket_id=row.ticket_id,
            sequence=row.sequence,
            brand=row.brand,
            channel=Channel(row.channel),
            customer_id=row.customer_id,
            email=row.email,
            reply_to=row.reply_to,
            language=Language(row.language) if row.language else None,
            message_id=row.message_id,
            subject=row.subject,
        )
        for row in rows
        if row.sequence > 0
    }


# --- notifications ---------------------------------------------------------------------------------------------------

_NOTIFICATION_COLUMNS: Final = (
    "notification_id, kind, ticket_id, brand, output, endpoint, recipient, language, subject, body, data, caused_at, "
    "traceparent"
)


async def add_notifications(
    connection: AsyncConnection, notifications: Sequence[Notification], state: State = State.PENDING
) -> set[uuid.UUID]:
    """Store those that are not there yet and return their ids. Nothing is scheduled."""
    if not notifications:
        return set()
    rows = [_as_row(notification) for notification in sorted(notifications, key=lambda item: item.notification_id)]
    added = await connection.execute(
        text(
            f"INSERT INTO notifier.notifications ({_NOTIFICATION_COLUMNS}, state, attempt, detail, created_at, erased) "
            f"SELECT {_NOTIFICATION_COLUMNS}, :state, 0, '', :now, false "
            "FROM jsonb_populate_recordset(NULL::notifier.notifications, CAST(:rows AS jsonb)) "
            "ON CONFLICT (notification_id) DO NOTHING RETURNING notification_id"
        ),
        {"rows": json.dumps(rows), "state": state, "now": datetime.now(UTC)},
    )
    return set(added.scalars())


async def schedule(connection: AsyncConnection, notifications: Iterable[Notification], at: datetime) -> None:
    """Have them tried at `at`. For notifications that are in state `pending` and have no deadline yet."""
    ordered = sorted(notifications, key=lambda item: item.notification_id)
    if not ordered:
        return
    await connection.execute(
        text(
            f"INSERT INTO {DEADLINES.name} (id, kind, subject, due_at, planned_at, attempt) "
            "SELECT id, endpoint, id, :at, greatest(:at, clock_timestamp()), 0 "
            "FROM unnest(:ids, :endpoints) AS row (id, endpoint)"
        ).bindparams(_uuids("ids"), _texts("endpoints"), bindparam("at", type_=DateTime(timezone=True))),
        {
            "ids": [item.notification_id for item in ordered],
            "endpoints": [_route_of(item).endpoint for item in ordered],
            "at": at,
        },
    )
    await connection.execute(text("SELECT pg_notify(:channel, '')"), {"channel": DEADLINES.channel})


async def waiting_replies(connection: AsyncConnection, ticket_ids: Iterable[uuid.UUID]) -> list[Notification]:
    """Replies of these tickets that wait for their contact, locked."""
    rows = await connection.execute(
        text(
            f"SELECT {_NOTIFICATION_COLUMNS} FROM notifier.notifications "
            "WHERE state = 'waiting_contact' AND ticket_id = ANY(:ids) ORDER BY notification_id FOR UPDATE"
        ).bindparams(_uuids("ids")),
        {"ids": sorted(ticket_ids)},
    )
    return [_from_row(row) for row in rows]


async def address_replies(connection: AsyncConnection, replies: Sequence[Notification]) -> None:
    """Store the route that waiting replies have got; they are pending from now on."""
    await connection.execute(
        text(
            "UPDATE notifier.notifications AS waiting SET state = 'pending', brand = reply.brand, "
            "output = reply.output, endpoint = reply.endpoint, recipient = reply.recipient, "
            "language = reply.language, subject = reply.subject, data = reply.data "
            "FROM jsonb_populate_recordset(NULL::notifier.notifications, CAST(:rows AS jsonb)) AS reply "
            "WHERE waiting.notification_id = reply.notification_id"
        ),
        {"rows": json.dumps([_as_row(reply) for reply in replies])},
    )


async def fold(connection: AsyncConnection, digests: Mapping[uuid.UUID, uuid.UUID]) -> None:
    """Have notifications (keys) go out with digests (values)."""
    await connection.execute(
        text(
            "UPDATE notifier.notifications AS folded SET state = 'folded', digest_id = row.digest_id "
            "FROM unnest(:ids, :digests) AS row (id, digest_id) WHERE folded.notification_id = row.id"
        ).bindparams(_uuids("ids"), _uuids("digests")),
        {"ids": list(digests), "digests": list(digests.values())},
    )


async def lock_open_digests(connection: AsyncConnection, ids: Iterable[uuid.UUID]) -> set[uuid.UUID]:
    """Those of the digests that nobody has begun to deliver. Until this transaction ends nobody will."""
    rows = await connection.execute(
        text(f"SELECT id FROM {DEADLINES.name} WHERE id = ANY(:ids) AND attempt = 0 ORDER BY id FOR UPDATE").bindparams(
            _uuids("ids")
        ),
        {"ids": sorted(ids)},
    )
    return set(rows.scalars())


async def members_of(
    connection: AsyncConnection, digest_ids: Iterable[uuid.UUID]
) -> dict[uuid.UUID, list[Notification]]:
    """The notifications folded into each digest."""
    rows = await connection.execute(
        text(
            f"SELECT digest_id, {_NOTIFICATION_COLUMNS} FROM notifier.notifications "
            "WHERE digest_id = ANY(:ids) ORDER BY notification_id"
        ).bindparams(_uuids("ids")),
        {"ids": sorted(digest_ids)},
    )
    members: dict[uuid.UUID, list[Notification]] = {}
    for row in rows:
        members.setdefault(row.digest_id, []).append(_from_row(row))
    return members


async def load_notifications(connection: AsyncConnection, ids: Iterable[uuid.UUID]) -> dict[uuid.UUID, Notification]:
    rows = await connection.execute(
        text(
            f"SELECT {_NOTIFICATION_COLUMNS} FROM notifier.notifications WHERE notification_id = ANY(:ids)"
        ).bindparams(_uuids("ids")),
        {"ids": list(ids)},
    )
    return {row.notification_id: _from_row(row) for row in rows}


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a notification at try number `attempt`; `next_try_at` is set while it stays pending."""

    notification_id: uuid.UUID
    state: State
    attempt: int
    detail: str
    next_try_at: datetime | None = None


async def record_results(connection: AsyncConnection, results: Sequence[Result], now: datetime) -> None:
    ordered = sorted(results, key=lambda result: result.notification_id)
    await connection.execute(
        text(
            "UPDATE notifier.notifications AS tried SET state = row.state, attempt = row.attempt, detail = row.detail, "
            "next_try_at = row.next_try_at, finished_at = CASE WHEN row.state = 'pending' THEN NULL ELSE :now END "
            "FROM unnest(:ids, :states, :attempts, :details, :next) AS row (id, state, attempt, detail, next_try_at) "
            "WHERE tried.notification_id = row.id"
        ).bindparams(
            _uuids("ids"),
            _texts("states"),
            _integers("attempts"),
            _texts("details"),
            bindparam("next", type_=ARRAY(DateTime(timezone=True))),
            bindparam("now", type_=DateTime(timezone=True)),
        ),
        {
            "ids": [result.notification_id for result in ordered],
            "states": [result.state.value for result in ordered],
            "attempts": [result.attempt for result in ordered],
            "details": [result.detail for result in ordered],
            "next": [result.next_try_at for result in ordered],
            "now": now,
        },
    )


Window = tuple[str, datetime]
"""A scope (whom, and for what) and the beginning of its window."""


async def use_allowances(connection: AsyncConnection, counts: Mapping[Window, int]) -> dict[Window, int]:
    """Count so many more in each window and return how many that makes. Holds the rows until the transaction ends."""
    ordered = sorted(counts)
    rows = await connection.execute(
        text(
            "INSERT INTO notifier.allowances AS known (scope, window_start, used) "
            "SELECT scope, window_start, used "
            "FROM unnest(:scopes, :starts, :counts) AS row (scope, window_start, used) "
            "ON CONFLICT (scope, window_start) DO UPDATE SET used = known.used + excluded.used "
            "RETURNING scope, window_start, used"
        ).bindparams(_texts("scopes"), bindparam("starts", type_=ARRAY(DateTime(timezone=True))), _integers("counts")),
        {
            "scopes": [scope for scope, _ in ordered],
            "starts": [start for _, start in ordered],
            "counts": [counts[window] for window in ordered],
        },
    )
    return {(row.scope, row.window_start): row.used for row in rows}


async def count_open(connection: AsyncConnection) -> dict[str, int]:
    """Notifications that are not finished, by output; replies that wait for their contact count as `none`."""
    rows = await connection.execute(
        text(
            "SELECT coalesce(output, 'none') AS output, count(*) AS open FROM notifier.notifications "
            "WHERE state IN ('pending', 'waiting_contact', 'folded') GROUP BY 1"
        )
    )
    return {row.output: row.open for row in rows}


async def oldest_due(connection: AsyncConnection, now: datetime) -> dict[str, float]:
    """By output: the age in seconds of the oldest notification that was to be delivered by now. One that has been tried
    in vain counts from when it was stored, however far off its next try is.
    """
    rows = await connection.execute(
        text(
            "SELECT output, extract(epoch FROM :now - min(CASE WHEN notifications.attempt > 0 THEN created_at "
            "ELSE planned_at END))::float8 AS age FROM notifier.notifications "
            f"JOIN {DEADLINES.name} AS deadline ON deadline.id = notification_id "
            "WHERE state = 'pending' AND (notifications.attempt > 0 OR planned_at <= :now) GROUP BY output"
        ).bindparams(bindparam("now", type_=DateTime(timezone=True))),
        {"now": now},
    )
    return {row.output: max(0.0, row.age) for row in rows}


async def waiting_for_unknown_endpoints(connection: AsyncConnection, known: Iterable[str]) -> dict[str, int]:
    """Endpoints that notifications wait for and `notifications.yaml` does not name, with how many wait."""
    rows = await connection.execute(
        text(
            f"SELECT kind, count(*) AS waiting FROM {DEADLINES.name} WHERE kind <> ALL(:known) GROUP BY kind"
        ).bindparams(_texts("known")),
        {"known": list(known)},
    )
    return {row.kind: row.waiting for row in rows}


# --- endpoints -------------------------------------------------------------------------------------------------------


async def disabled_endpoints(connection: AsyncConnection) -> dict[str, tuple[str, datetime]]:
    """Name to digest of the URL that is gone and since when."""
    rows = await connection.execute(text("SELECT name, url_digest, disabled_at FROM notifier.disabled_endpoints"))
    return {row.name: (row.url_digest, row.disabled_at) for row in rows}


async def disable_endpoint(connection: AsyncConnection, name: str, url_digest: str, now: datetime) -> None:
    await connection.execute(
        text(
            "INSERT INTO notifier.disabled_endpoints (name, url_digest, disabled_at) VALUES (:name, :digest, :now) "
            "ON CONFLICT (name) DO UPDATE SET url_digest = excluded.url_digest, disabled_at = excluded.disabled_at "
            "WHERE disabled_endpoints.url_digest <> excluded.url_digest"
        ),
        {"name": name, "digest": url_digest, "now": now},
    )


async def enable_endpoint(connection: AsyncConnection, name: str, now: datetime) -> int:
    """Let an endpoint work again, and try once more what was given up because it was gone. Returns how many."""
    await connection.execute(text("DELETE FROM notifier.disabled_endpoints WHERE name = :name"), {"name": name})
    again = await connection.execute(
        text(
            "WITH again AS (UPDATE notifier.notifications "
            "SET state = 'pending', finished_at = NULL, next_try_at = :now "
            "WHERE endpoint = :name AND state = 'given_up' AND digest_id IS NULL AND NOT erased "
            "AND (detail = 'HTTP 410' OR detail LIKE 'endpoint disabled%') RETURNING notification_id, attempt) "
            f"INSERT INTO {DEADLINES.name} (id, kind, subject, due_at, planned_at, attempt) "
            "SELECT notification_id, :name, notification_id, :now, :now, attempt FROM again ORDER BY notification_id"
        ).bindparams(bindparam("now", type_=DateTime(timezone=True)), bindparam("name", type_=Text())),
        {"name": name, "now": now},
    )
    await connection.execute(text("SELECT pg_notify(:channel, '')"), {"channel": DEADLINES.channel})
    return again.rowcount


# --- deadlines: one lease query for all endpoints --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Lease:
    """A notification that this replica may try now. `attempt` numbers the try, and fences off who had it before."""

    notification_id: uuid.UUID
    endpoint: str
    attempt: int
    due_at: datetime


async def lease_due(
    connection: AsyncConnection, now: datetime, lease_seconds: float, free: Mapping[str, int]
) -> list[Lease]:
    """Claim what is due for `lease_seconds`; of each endpoint no more than is `free`: a slow one starves no other."""
    # Materialized: inlined, the locking subquery could run again for each row and lease more than there is room for.
    rows = await connection.execute(
        text(
            "WITH due AS MATERIALIZED (SELECT found.id FROM unnest(:endpoints, :free) AS endpoint (name, free) "
            f"CROSS JOIN LATERAL (SELECT id FROM {DEADLINES.name} WHERE kind = endpoint.name AND due_at <= :now "
            "ORDER BY due_at LIMIT endpoint.free FOR UPDATE SKIP LOCKED) AS found) "
            f"UPDATE {DEADLINES.name} AS leased SET due_at = :until, attempt = leased.attempt + 1 FROM due "
            "WHERE leased.id = due.id RETURNING leased.id, leased.kind, leased.attempt, leased.planned_at"
        ).bindparams(
            _texts("endpoints"),
            _integers("free"),
            bindparam("now", type_=DateTime(timezone=True)),
            bindparam("until", type_=DateTime(timezone=True)),
        ),
        {
            "endpoints": list(free),
            "free": list(free.values()),
            "now": now,
            "until": now + timedelta(seconds=lease_seconds),
        },
    )
    leases = [Lease(row.id, row.kind, row.attempt, row.planned_at) for row in rows]
    return sorted(leases, key=lambda lease: (lease.due_at, lease.notification_id))


async def next_due(connection: AsyncConnection, endpoints: Iterable[str]) -> datetime | None:
    """When the next of these endpoints' notifications is due."""
    due: datetime | None = await connection.scalar(
        text(f"SELECT min(due_at) FROM {DEADLINES.name} WHERE kind = ANY(:endpoints)").bindparams(_texts("endpoints")),
        {"endpoints": list(endpoints)},
    )
    return due


async def end_leases(connection: AsyncConnection, again: Mapping[Lease, datetime | None]) -> set[uuid.UUID]:
    """Delete the deadlines of finished leases, move those that are tried again to their next time.

    Returns the ids whose lease was still ours. The others' leases ran out and somebody else tries them: what we know of
    them is void.
    """
    ordered = sorted(again, key=lambda lease: lease.notification_id)
    rows = await connection.execute(
        text(
            "WITH ours AS (SELECT deadline.id, row.due_at "
            "FROM unnest(:ids, :attempts, :due) AS row (id, attempt, due_at) "
            f"JOIN {DEADLINES.name} AS deadline ON deadline.id = row.id AND deadline.attempt = row.attempt "
            "ORDER BY deadline.id FOR UPDATE OF deadline), "
            f"gone AS (DELETE FROM {DEADLINES.name} WHERE id IN (SELECT id FROM ours WHERE due_at IS NULL)), "
            f"moved AS (UPDATE {DEADLINES.name} AS deadline SET due_at = ours.due_at, planned_at = ours.due_at "
            "FROM ours WHERE deadline.id = ours.id AND ours.due_at IS NOT NULL) SELECT id FROM ours"
        ).bindparams(
            _uuids("ids"),
            _integers("attempts"),
            bindparam("due", type_=ARRAY(DateTime(timezone=True))),
        ),
        {
            "ids": [lease.notification_id for lease in ordered],
            "attempts": [lease.attempt for lease in ordered],
            "due": [again[lease] for lease in ordered],
        },
    )
    return set(rows.scalars())


# --- retention -------------------------------------------------------------------------------------------------------


async def purge(connection: AsyncConnection, *, texts: datetime, records: datetime, contacts: datetime) -> int:
    """Erase texts and delete records and contacts that are older than these times; returns how many rows it changed.

    At most `PURGE_BATCH` of each: call it until it returns 0, so that no transaction is long.
    """
    changed = 0
    limits = {
        "texts": texts,
        "records": records,
        "contacts": contacts,
        "windows": datetime.now(UTC) - timedelta(days=2),
    }
    for statement, name in (
        (
            "UPDATE notifier.notifications SET subject = '', body = '', data = '{}', recipient = NULL, erased = true "
            "WHERE notification_id IN (SELECT notification_id FROM notifier.notifications "
            "WHERE finished_at < :limit AND NOT erased LIMIT :n FOR UPDATE SKIP LOCKED)",
            "texts",
        ),
        (
            "DELETE FROM notifier.notifications WHERE notification_id IN (SELECT notification_id "
            "FROM notifier.notifications WHERE finished_at < :limit LIMIT :n FOR UPDATE SKIP LOCKED)",
            "records",
        ),
        (  # replies to tickets that nobody ever heard of
            "DELETE FROM notifier.notifications WHERE notification_id IN (SELECT notification_id "
            "FROM notifier.notifications WHERE state = 'waiting_contact' AND created_at < :limit "
            "LIMIT :n FOR UPDATE SKIP LOCKED)",
            "records",
        ),
        (
            "DELETE FROM notifier.contacts WHERE ticket_id IN (SELECT ticket_id FROM notifier.contacts "
            "WHERE updated_at < :limit LIMIT :n FOR UPDATE SKIP LOCKED)",
            "contacts",
        ),
        (
            "DELETE FROM notifier.allowances WHERE (scope, window_start) IN (SELECT scope, window_start "
            "FROM notifier.allowances WHERE window_start < :limit LIMIT :n FOR UPDATE SKIP LOCKED)",
            "windows",
        ),
    ):
        done = await connection.execute(text(statement), {"limit": limits[name], "n": PURGE_BATCH})
        changed += done.rowcount
    return changed


# --- rows ------------------------------------------------------------------------------------------------------------


def _route_of(notification: Notification) -> Route:
    if notification.route is None:
        raise ValueError(f"notification {notification.notification_id} has no route: it waits for its contact")
    return notification.route


def _as_row(notification: Notification) -> dict[str, Any]:
    route = notification.route
    return {
        "notification_id": str(notification.notification_id),
        "kind": notification.kind,
        "ticket_id": notification.ticket_id and str(notification.ticket_id),
        "brand": notification.brand,
        "output": route and route.output,
        "endpoint": route and route.endpoint,
        "recipient": route and route.recipient,
        "language": notification.language,
        "subject": notification.subject,
        "body": notification.text,
        "data": notification.data,
        "caused_at": notification.caused_at.isoformat(),
        "traceparent": notification.traceparent,
    }


def _from_row(row: Row[Any]) -> Notification:
    data = row.data if isinstance(row.data, dict) else json.loads(row.data)
    return Notification(
        notification_id=row.notification_id,
        kind=Kind(row.kind),
        ticket_id=row.ticket_id,
        brand=row.brand,
        route=Route(Output(row.output), row.endpoint, row.recipient) if row.output else None,
        language=Language(row.language),
        subject=row.subject,
        text=row.body,
        data=data,
        caused_at=row.caused_at,
        traceparent=row.traceparent,
    )


def _uuids(name: str) -> Any:
    return bindparam(name, type_=ARRAY(UuidType()))


def _texts(name: str) -> Any:
    return bindparam(name, type_=ARRAY(Text()))


def _integers(name: str) -> Any:
    return bindparam(name, type_=ARRAY(Integer()))
