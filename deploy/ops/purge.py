"""`purge`: what has been kept long enough, and what a customer asks to have forgotten.

Services forget by themselves what is only theirs: the notifier texts and contacts, the sla_timer ended promises, the
classifier decisions, intake replies. Nobody else forgets tickets: that is one decision for all schemas, made here.
"""

from __future__ import annotations

import argparse
import asyncio
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import Uuid, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from deploy.ops import postgres
from deploy.ops.console import Refused, Unusable, add_changing, add_command, add_json, confirm, duration, say, tell
from shared import topics
from shared.settings import CommonSettings

_AT_ONCE: Final = 500
_PAUSE_SECONDS: Final = 0.02
_FIRST: Final = uuid.UUID(int=0)
SHORTEST: Final = max(
    topic.retention for topic in (topics.TICKETS_MESSAGES, topics.TICKETS_ACTIVITY, topics.SLA_EVENTS, *topics.QUEUES)
) + timedelta(days=5)
"""As long as a topic holds a ticket's events they may be taken again, and would bring half of it back."""


@dataclass(frozen=True, slots=True)
class Schema:
    """How the tickets of one schema are found and deleted. `old`: SQL of which are; `of_ticket`: tables with what
    belongs to them, in the order of locks.
    """

    name: str
    old: str
    of_ticket: tuple[str, ...]


SCHEMAS: Final = (
    Schema(
        "desk",
        # A ticket whose points are still shown with another one stays with it.
        "state = 'resolved' AND resolved_at < :before AND coalesce(state_at, resolved_at) < :before AND NOT EXISTS ("
        "SELECT FROM desk.tickets AS into_one WHERE into_one.ticket_id = tickets.merged_into "
        "AND NOT (into_one.state = 'resolved' AND into_one.resolved_at < :before))",
        ("history", "points", "links"),
    ),
    Schema(
        "intake",
        "resolved_at < :before AND NOT is_open AND last_message_at < :before "
        "AND coalesce(activity_at, resolved_at) < :before",
        ("messages", "changes", "floods"),
    ),
    Schema("classifier", "resolved_at < :before", ("decisions",)),
)


def register(nouns: argparse._SubParsersAction[Any]) -> None:
    parser = add_command(
        nouns,
        "purge",
        help="delete resolved tickets past their retention, or all of one customer",
        says="Delete tickets that were resolved, and last heard of, longer ago than --older-than: from desk, "
        "intake and classifier, with histories, messages, decisions. In short transactions, beside running "
        "services; a customer who writes afterwards opens a new ticket. Unresolved tickets stay, whatever "
        "their age. Everything else is forgotten by the services themselves (docs/operations.md lists it).\n\n"
        "--customer deletes all tickets of one customer now, in every schema, with contacts and "
        "notifications. They must be resolved. Topics keep what was written until their retention; backups "
        "until they are deleted.",
        examples="purge --dry-run\npurge --older-than 730d --yes\npurge --customer upay_wallet/app_chat/u-1",
    )
    parser.add_argument(
        "--older-than", type=duration, default=timedelta(days=365), metavar="TIME", help="retention of tickets (365d)"
    )
    parser.add_argument("--customer", metavar="BRAND/CHANNEL/ID", help="forget this customer instead")
    add_changing(parser)
    add_json(parser)
    parser.set_defaults(run=_run)


async def _run(chosen: argparse.Namespace) -> int:
    settings = CommonSettings()
    async with postgres.engine(settings) as engine:
        if chosen.customer is not None:
            return await _forget(chosen, engine)
        if chosen.older_than < SHORTEST:
            raise Unusable(f"--older-than: at least {SHORTEST.days}d, as long as topics may bring events again")
        before = datetime.now(UTC) - chosen.older_than
        async with engine.connect() as connection:
            counts = {schema.name: await _count_old(connection, schema, before) for schema in SCHEMAS}
        _say_counts(counts, chosen.json, f"resolved and silent since before {before:%Y-%m-%d}")
        if not any(counts.values()):
            return 0
        if not confirm(chosen, f"delete {max(counts.values())} tickets and all that belongs to them"):
            return 0
        for schema in SCHEMAS:
            deleted = await _purge(engine, schema, before)
            say(f"{schema.name}: deleted {deleted} tickets")
        await _purge_conversations(engine, before)
    return 0


def _say_counts(counts: Mapping[str, int], as_json: bool, what: str) -> None:
    if as_json:
        tell({"tickets": dict(counts)})
    say(f"tickets {what}: " + ", ".join(f"{count} in {schema}" for schema, count in counts.items()))


async def _count_old(connection: AsyncConnection, schema: Schema, before: datetime) -> int:
    statement = text(f"SELECT count(*) FROM {schema.name}.tickets WHERE {schema.old}")  # noqa: S608 - ours
    return int(await connection.scalar(statement, {"before": before}) or 0)


async def _purge(engine: AsyncEngine, schema: Schema, before: datetime) -> int:
    """One walk along the ids, a short transaction for each step. What somebody holds right now stays for next time."""
    deleted = 0
    last = _FIRST
    while True:
        async with engine.begin() as connection:
            rows = await connection.execute(
                text(
                    f"SELECT ticket_id FROM {schema.name}.tickets WHERE ticket_id > :last AND {schema.old} "  # noqa: S608
                    "ORDER BY ticket_id LIMIT :n"
                ),
                {"last": last, "before": before, "n": _AT_ONCE},
            )
            ids = list(rows.scalars())
            if not ids:
                return deleted
            last = ids[-1]
            deleted += await _delete(connection, schema, await _held(connection, schema, ids), before)
        await asyncio.sleep(_PAUSE_SECONDS)


async def _held(connection: AsyncConnection, schema: Schema, ids: Sequence[uuid.UUID]) -> list[uuid.UUID]:
    """Those of these tickets that are ours alone now: in intake, whoever holds the conversation decides."""
    if schema.name == "intake":
        await connection.execute(text("SET LOCAL lock_timeout = '1s'"))
        rows = await connection.execute(
            text(
                "WITH free AS MATERIALIZED (SELECT conversation_id FROM intake.conversations WHERE conversation_id IN "
                "(SELECT conversation_id FROM intake.tickets WHERE ticket_id = ANY(:ids)) "
                "ORDER BY conversation_id FOR UPDATE SKIP LOCKED) "
                "SELECT ticket_id FROM intake.tickets JOIN free USING (conversation_id) WHERE ticket_id = ANY(:ids)"
            ).bindparams(_ids()),
            {"ids": list(ids)},
        )
    else:
        rows = await connection.execute(
            text(
                f"SELECT ticket_id FROM {schema.name}.tickets WHERE ticket_id = ANY(:ids) "  # noqa: S608 - ours
                "ORDER BY ticket_id FOR UPDATE SKIP LOCKED"
            ).bindparams(_ids()),
            {"ids": list(ids)},
        )
    return list(rows.scalars())


async def _delete(
    connection: AsyncConnection, schema: Schema, ids: Sequence[uuid.UUID], before: datetime | None
) -> int:
    """Delete these tickets with what belongs to them; `before`: only those that are still old."""
    still = f" AND {schema.old}" if before else ""
    gone = await connection.execute(
        text(
            f"DELETE FROM {schema.name}.tickets WHERE ticket_id = ANY(:ids){still} RETURNING ticket_id"  # noqa: S608
        ).bindparams(_ids()),
        {"ids": list(ids), **({"before": before} if before else {})},
    )
    deleted = list(gone.scalars())
    for table in schema.of_ticket:
        await connection.execute(
            text(f"DELETE FROM {schema.name}.{table} WHERE ticket_id = ANY(:ids)").bindparams(_ids()),  # noqa: S608
            {"ids": deleted},
        )
    if schema.name == "desk":
        await connection.execute(
            text("DELETE FROM desk.links WHERE related_ticket_id = ANY(:ids)").bindparams(_ids()), {"ids": deleted}
        )
    return len(deleted)


def _ids() -> Any:
    return bindparam("ids", type_=ARRAY(Uuid()))


async def _purge_conversations(engine: AsyncEngine, before: datetime) -> None:
    """Conversations without a ticket, and what was said in them that never had one."""
    for statement in (
        "DELETE FROM intake.messages WHERE ticket_id IS NULL AND accepted_at < :before",
        "DELETE FROM intake.changes WHERE ticket_id IS NULL AND changed_at < :before",
        "DELETE FROM intake.conversations WHERE conversation_id IN (SELECT conversation_id FROM intake.conversations "
        "WHERE last_seen_at < :before AND NOT EXISTS (SELECT FROM intake.tickets "
        "WHERE tickets.conversation_id = conversations.conversation_id) FOR UPDATE SKIP LOCKED)",
        "DELETE FROM intake.people WHERE NOT EXISTS (SELECT FROM intake.conversations "
        "WHERE conversations.conversation_id = people.conversation_id) AND seen_at < :before",
    ):
        async with engine.begin() as connection:
            await connection.execute(text(statement), {"before": before})


# --- one customer ----------------------------------------------------------------------------------------------------


async def _forget(chosen: argparse.Namespace, engine: AsyncEngine) -> int:
    brand, channel, customer = _customer(chosen.customer)
    who = {"brand": brand, "channel": channel, "customer": customer}
    async with engine.connect() as connection:
        conversations = await _conversations(connection, who)
        ids = await _tickets_of(connection, conversations)
        unresolved = await connection.scalar(
            text(
                "SELECT count(*) FROM (SELECT ticket_id FROM intake.tickets WHERE resolved_at IS NULL "
                "UNION SELECT ticket_id FROM desk.tickets WHERE state <> 'resolved') AS unresolved "
                "WHERE ticket_id = ANY(:ids)"
            ).bindparams(_ids()),
            {"ids": ids},
        )
    if not conversations:
        raise Refused("nothing is known of this customer: write brand/channel/id as the channel sends them")
    if unresolved:
        raise Refused(
            f"{unresolved} of his {len(ids)} tickets are not resolved: resolve them first, events are on their way"
        )
    _say_counts({"all schemas": len(ids)}, chosen.json, "of this customer")
    if not confirm(chosen, f"forget this customer: {len(ids)} tickets"):
        return 0
    async with engine.begin() as connection:
        for schema in SCHEMAS:
            await _delete(connection, schema, ids, None)
        for statement in (
            "DELETE FROM notifier.contacts WHERE ticket_id = ANY(:ids)",
            "UPDATE notifier.notifications SET subject = '', body = '', data = '{}', recipient = NULL, erased = true "
            "WHERE ticket_id = ANY(:ids) AND finished_at IS NOT NULL",
            "UPDATE intake.replies SET message_ids = '{}' WHERE ticket_id = ANY(:ids)",
        ):
            await connection.execute(text(statement).bindparams(_ids()), {"ids": ids})
        await connection.execute(
            text(
                "DELETE FROM intake.chat_replies "
                "WHERE brand = :brand AND customer_id = :customer AND :channel = 'app_chat'"
            ),
            who,
        )
        await connection.execute(
            text("DELETE FROM notifier.allowances WHERE scope = :scope"),
            {"scope": f"acknowledgement/{brand}/{channel}/{customer}"},
        )
        for table in ("changes", "people", "conversations"):
            await connection.execute(
                text(f"DELETE FROM intake.{table} WHERE conversation_id = ANY(:ids)").bindparams(_ids()),  # noqa: S608
                {"ids": conversations},
            )
    latest = max(topic.retention for topic in topics.ALL if topic.name != topics.PEAKS_EVENTS.name)
    say(f"forgotten. Topics hold what he wrote for up to {latest.days} more days, backups until they are deleted")
    return 0


def _customer(given: str) -> tuple[str, str, str]:
    parts = given.split("/", 2)
    if len(parts) != 3 or not all(parts):
        raise Unusable(f"--customer {given}: write brand/channel/id, e.g. upay_wallet/app_chat/u-1")
    return parts[0], parts[1], parts[2]


async def _conversations(connection: AsyncConnection, who: Mapping[str, str]) -> list[uuid.UUID]:
    rows = await connection.execute(
        text(
            "SELECT conversation_id FROM intake.conversations "
            "WHERE brand = :brand AND channel = :channel AND customer_id = :customer"
        ),
        who,
    )
    return list(rows.scalars())


async def _tickets_of(connection: AsyncConnection, conversations: Sequence[uuid.UUID]) -> list[uuid.UUID]:
    rows = await connection.execute(
        text("SELECT ticket_id FROM intake.tickets WHERE conversation_id = ANY(:ids)").bindparams(_ids()),
        {"ids": list(conversations)},
    )
    return list(rows.scalars())
