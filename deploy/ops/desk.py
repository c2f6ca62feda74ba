# ruff: noqa: S608 - names in statements are constants of ours, every value is a bound parameter
"""`desk rebuild`: the desk's read models anew, from the topics.

Each event makes its effect as when the desk heard of it first: in the order of the records' time stamps, the desk's own
acts (`desk:` activities) at the time of the act and as done here. What no topic tells is carried over: which points
were ticked off, signs of life that no event tells of, tickets with anything that the topics do not hold any more.
Idempotency keys and the outbox are not touched.
"""

from __future__ import annotations

import argparse
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from sqlalchemy import Uuid, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from deploy.ops import groups as kafka
from deploy.ops import postgres
from deploy.ops.console import Refused, add_changing, add_command, add_verbs, confirm, say
from services.desk import storage
from services.desk.actions import take_back_deadlines
from services.desk.domain import Rules
from services.desk.handlers import Heard, take_in
from services.desk.settings import Settings
from shared import topics
from shared.admin import partitions
from shared.cloudevents import InvalidRecord, decode
from shared.events import PeakEvent, PolicyChanged, TicketActivity

_DESK: Final = "desk"
_BEFORE: Final = "desk_rebuild"
_DERIVED: Final = ("tickets", "history", "points", "links", "peaks")
_AT_ONCE: Final = 500
_BUFFERED: Final = 200
_OWN: Final = "desk:"


def register(nouns: argparse._SubParsersAction[Any]) -> None:
    verbs = add_verbs(nouns, "desk", help="look after the desk's read models")
    parser = add_command(
        verbs,
        "rebuild",
        help="build the read models anew from the topics",
        says="Empty the desk's tickets, histories, points, links and peaks, and fill them again from the topics. "
        "The desk must be stopped (all replicas); everything else goes on. Its groups go on where the "
        "rebuild ended.\n\n"
        "Kept: tickets of which the topics do not hold everything any more, ticked points, claims, "
        "idempotency keys, the outbox. Broken off, it is simply run again: it begins with what was there "
        "before.",
        examples="desk rebuild --dry-run\ndesk rebuild --yes",
    )
    add_changing(parser)
    parser.set_defaults(run=_run)


@dataclass(frozen=True, slots=True)
class Plan:
    """`kept`: tickets that stay as they are, with what is new of them; the others are built anew."""

    events: int
    tickets: int
    kept: frozenset[uuid.UUID]


async def _run(chosen: argparse.Namespace) -> int:
    settings = Settings()
    await kafka.refuse_if_running(settings, (_DESK,), "it would write into the tables that are built anew")
    reader = kafka.consumer(settings)
    await reader.start()
    try:
        ranges = await _ranges(settings, reader)
        async with postgres.engine(settings) as engine, engine.connect() as connection:
            await _refuse_if_connected(connection)
            if await _was_broken_off(connection):
                say("an earlier rebuild was broken off: it begins again with what was there before")
                if not chosen.dry_run:
                    await _put_back(connection)
                    await connection.commit()
            plan = await _plan(connection, reader, ranges)
            say(
                f"{plan.events} events of {len(ranges)} partitions; {plan.tickets - len(plan.kept)} tickets are built "
                f"anew, {len(plan.kept)} stay, because the topics do not hold all of them any more"
            )
            if not confirm(chosen, "rebuild the desk's read models"):
                return 0
            await _set_aside(connection, plan)
            taken = await _fill(engine, reader, ranges, settings.rules)
            different = await _carry_over(connection)
            await kafka.refuse_if_running(settings, (_DESK,), "it was started during the rebuild: run it again")
            await kafka.move(settings, _offsets(ranges))
            await connection.execute(text(f"DROP SCHEMA {_BEFORE} CASCADE"))
            await connection.commit()
    finally:
        await reader.stop()
    say(f"{taken} events taken in; {different} tickets look otherwise than before. Start the desk")
    return 0


Ranges = dict[TopicPartition, tuple[int, int]]


async def _ranges(settings: Settings, reader: AIOKafkaConsumer) -> Ranges:
    counts = await partitions(settings)
    names = {topic.name for read in kafka.GROUPS[_DESK].values() for topic in read}
    missing = sorted(names - set(counts))
    if missing:
        raise Refused(f"missing topics: {', '.join(missing)}: topics create")
    places = [TopicPartition(name, part) for name in sorted(names) for part in range(counts[name])]
    begins = await reader.beginning_offsets(places)
    ends = await reader.end_offsets(places)
    return {place: (begins[place], ends[place]) for place in places}


def _offsets(ranges: Ranges) -> dict[str, dict[TopicPartition, int]]:
    """Each group goes on behind what was read here."""
    return {
        group: {place: end for place, (_, end) in ranges.items() if place.topic in {topic.name for topic in read}}
        for group, read in kafka.GROUPS[_DESK].items()
    }


async def _refuse_if_connected(connection: AsyncConnection) -> None:
    busy = await connection.scalar(
        text(
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE datname = current_database() AND application_name = 'switchyard-desk'"
        )
    )
    if busy:
        raise Refused("stop the desk first, all its replicas: it is still connected to the database")


# --- reading ---------------------------------------------------------------------------------------------------------


async def _events(reader: AIOKafkaConsumer, ranges: Ranges) -> AsyncIterator[tuple[Any, Heard]]:
    """All events, in the order in which the desk heard of them; what cannot be read was a dead letter."""
    waiting: dict[TopicPartition, list[tuple[Any, Heard]]] = {}
    left = {place: begin for place, (begin, end) in ranges.items() if end > begin}
    reader.assign(sorted(left))
    for place, begin in left.items():
        reader.seek(place, begin)
    while left or waiting:
        for place in [place for place in left if place not in waiting]:
            found = await _next(reader, place, ranges[place][1])
            if found is None:
                del left[place]
            elif found:
                waiting[place] = found[::-1]
        if any(place not in waiting for place in left) or not waiting:
            continue
        first = min(waiting, key=lambda place: (waiting[place][-1][1].at, place))
        yield waiting[first].pop()
        if not waiting[first]:
            del waiting[first]


async def _next(reader: AIOKafkaConsumer, place: TopicPartition, end: int) -> list[tuple[Any, Heard]] | None:
    """Some more events of a partition, in order; none at its end."""
    if await reader.position(place) >= end:
        return None
    records = (await reader.getmany(place, timeout_ms=200, max_records=_BUFFERED)).get(place, ())
    return [read for record in records if record.offset < end and (read := _read(record)) is not None]


def _read(record: ConsumerRecord[bytes, bytes]) -> tuple[Any, Heard] | None:
    try:
        event = decode(record, topics.BY_NAME[record.topic].carries).event
    except InvalidRecord:
        return None
    if isinstance(event, PolicyChanged):
        return None  # of no ticket
    if isinstance(event, TicketActivity) and event.activity_id.startswith(_OWN):
        return event, Heard(event.at, here=True)
    return event, Heard(datetime.fromtimestamp(record.timestamp / 1000, UTC))


# --- planning --------------------------------------------------------------------------------------------------------


async def _plan(connection: AsyncConnection, reader: AIOKafkaConsumer, ranges: Ranges) -> Plan:
    await connection.execute(text("CREATE TEMPORARY TABLE seen (event_id uuid PRIMARY KEY, ticket_id uuid)"))
    count = 0
    batch: dict[uuid.UUID, uuid.UUID] = {}
    async for event, _ in _events(reader, ranges):
        count += 1
        if not isinstance(event, PeakEvent):
            batch[event.event_id] = event.ticket_id
        if len(batch) >= _AT_ONCE:
            await _see(connection, batch)
            batch = {}
    await _see(connection, batch)
    # A merge has an effect on the other ticket too: both stay, or both are built anew.
    kept = await connection.execute(
        text(
            "WITH RECURSIVE merged AS (SELECT ticket_id, (payload ->> 'merged_into')::uuid AS into_id "
            "FROM desk.history WHERE kind = 'merged' AND payload ->> 'merged_into' IS NOT NULL), kept (ticket_id) AS ("
            "SELECT ticket_id FROM desk.history "
            "WHERE NOT EXISTS (SELECT FROM seen WHERE seen.event_id = history.event_id) "
            "UNION SELECT CASE WHEN merged.ticket_id = kept.ticket_id THEN into_id ELSE merged.ticket_id END "
            "FROM kept JOIN merged ON kept.ticket_id IN (merged.ticket_id, into_id)) "
            "SELECT ticket_id FROM kept UNION SELECT ticket_id FROM desk.tickets AS known "
            "WHERE NOT EXISTS (SELECT FROM desk.history WHERE history.ticket_id = known.ticket_id) "
            "AND NOT EXISTS (SELECT FROM merged WHERE into_id = known.ticket_id)"
        )
    )
    tickets = await connection.scalar(
        text("SELECT count(*) FROM (SELECT ticket_id FROM desk.tickets UNION SELECT ticket_id FROM seen) AS known")
    )
    return Plan(count, int(tickets or 0), frozenset(kept.scalars()))


async def _see(connection: AsyncConnection, batch: Mapping[uuid.UUID, uuid.UUID]) -> None:
    await connection.execute(
        text("INSERT INTO seen SELECT * FROM unnest(:ids, :tickets) ON CONFLICT DO NOTHING").bindparams(
            bindparam("ids", type_=ARRAY(Uuid())), bindparam("tickets", type_=ARRAY(Uuid()))
        ),
        {"ids": list(batch), "tickets": list(batch.values())},
    )


# --- changing --------------------------------------------------------------------------------------------------------


async def _was_broken_off(connection: AsyncConnection) -> bool:
    return await connection.scalar(text("SELECT to_regclass(:name)"), {"name": f"{_BEFORE}.tickets"}) is not None


async def _put_back(connection: AsyncConnection) -> None:
    for table in _DERIVED:
        await connection.execute(text(f"TRUNCATE desk.{table}"))
        await connection.execute(text(f"INSERT INTO desk.{table} SELECT * FROM {_BEFORE}.{table}"))
    await connection.execute(text(f"DROP SCHEMA {_BEFORE} CASCADE"))


async def _set_aside(connection: AsyncConnection, plan: Plan) -> None:
    """Copy what is there and take away what is built anew, in one transaction."""
    await connection.execute(text(f"CREATE SCHEMA {_BEFORE}"))
    for table in _DERIVED:
        await connection.execute(text(f"CREATE TABLE {_BEFORE}.{table} AS TABLE desk.{table}"))
    if not plan.kept:
        await connection.execute(text("TRUNCATE desk.tickets, desk.history, desk.points, desk.links, desk.peaks"))
    else:
        for table in ("tickets", "history", "points", "links"):
            gone = text(f"DELETE FROM desk.{table} WHERE NOT ticket_id = ANY(:kept)").bindparams(
                bindparam("kept", type_=ARRAY(Uuid()))
            )
            await connection.execute(gone, {"kept": sorted(plan.kept)})
        await connection.execute(text("TRUNCATE desk.peaks"))
    await connection.commit()


async def _fill(engine: AsyncEngine, reader: AIOKafkaConsumer, ranges: Ranges, rules: Rules) -> int:
    count = 0
    batch: dict[uuid.UUID, tuple[Any, Heard]] = {}
    async for event, heard in _events(reader, ranges):
        count += 1
        batch.setdefault(event.event_id, (event, heard))
        if len(batch) >= _AT_ONCE:
            await _store(engine, batch, rules)
            batch = {}
    await _store(engine, batch, rules)
    return count


async def _store(engine: AsyncEngine, batch: Mapping[uuid.UUID, tuple[Any, Heard]], rules: Rules) -> None:
    peaks = [event for event, _ in batch.values() if isinstance(event, PeakEvent)]
    of_tickets = {key: event for key, (event, _) in batch.items() if not isinstance(event, PeakEvent)}
    async with engine.begin() as connection:
        if of_tickets:
            await take_in(connection, of_tickets, rules, lambda event: batch[event.event_id][1])
        if peaks:
            await storage.save_peaks(connection, peaks)


async def _carry_over(connection: AsyncConnection) -> int:
    """What no topic tells. Returns how many tickets look otherwise than before."""
    for statement in (
        # One that nothing told of: only a merge into it, say.
        f"INSERT INTO desk.tickets SELECT * FROM {_BEFORE}.tickets ON CONFLICT DO NOTHING",
        f"INSERT INTO desk.peaks SELECT * FROM {_BEFORE}.peaks ON CONFLICT DO NOTHING",
        f"INSERT INTO desk.links SELECT * FROM {_BEFORE}.links ON CONFLICT DO NOTHING",
        # A ticked point outlives the edit that took it out of the message.
        f"INSERT INTO desk.points SELECT * FROM {_BEFORE}.points WHERE done_at IS NOT NULL "
        "ON CONFLICT (point_id) DO UPDATE SET done_at = excluded.done_at, done_by = excluded.done_by",
        "UPDATE desk.tickets SET open_points = (SELECT count(*) FROM desk.points "
        "WHERE points.ticket_id = tickets.ticket_id AND done_at IS NULL) "
        f"WHERE ticket_id IN (SELECT ticket_id FROM {_BEFORE}.points WHERE done_at IS NOT NULL)",
    ):
        await connection.execute(text(statement))
    await _keep_claims(connection)
    # Of claims that have ended since: they would find nothing to do.
    await connection.execute(
        text(
            "DELETE FROM desk.deadlines AS due WHERE due.kind = 'take_back' AND NOT EXISTS (SELECT FROM desk.tickets "
            "WHERE ticket_id = due.subject AND claim_expires_at = due.due_at)"
        )
    )
    different = await connection.scalar(
        text(
            f"SELECT count(*) FROM desk.tickets AS now FULL JOIN {_BEFORE}.tickets AS old USING (ticket_id) "
            "WHERE to_jsonb(now) IS DISTINCT FROM to_jsonb(old)"
        )
    )
    await connection.commit()
    return int(different or 0)


async def _keep_claims(connection: AsyncConnection) -> None:
    """Ticking a point off is a sign of life that no event tells of: the later end of the same claim counts."""
    rows = await connection.execute(
        text(
            f"SELECT now.ticket_id, old.claim_expires_at FROM desk.tickets AS now JOIN {_BEFORE}.tickets AS old "
            "USING (ticket_id) WHERE now.state = 'claimed' AND old.state = 'claimed' "
            "AND now.claimed_by = old.claimed_by AND now.claimed_at = old.claimed_at "
            "AND old.claim_expires_at > now.claim_expires_at"
        )
    )
    ends = {row.ticket_id: row.claim_expires_at for row in rows}
    if not ends:
        return
    before = await storage.lock(connection, ends)
    after = {
        key: replace(view, ticket=replace(view.ticket, claim_expires_at=ends[key])) for key, view in before.items()
    }
    await storage.save(connection, after.values())
    await storage.DEADLINES.schedule(connection, take_back_deadlines(before.values(), after.values()))
