"""Clocks: one row a promise."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import Integer, Text, text
from sqlalchemy import Uuid as UuidType
from sqlalchemy.ext.asyncio import AsyncConnection

from services.sla_timer.domain.clocks import Alarm, Clock, State, Step, Ticket, in_order
from services.sla_timer.domain.policies import Mark, Terms
from services.sla_timer.storage.tables import TIME, unnest
from shared.events import EscalationLevel, SlaKind, Target
from shared.taxonomy import Category, Priority, Queue

_CLOCK_COLUMNS: Final = (
    "clock_id, ticket_id, target, generation, state, brand, channel, queue, category, priority, agent_group, policy, "
    "calendar, policy_version, calendar_version, target_seconds, marks, started_at, due_at, ended_at, breached_at, "
    "used_seconds, course, alarms, next_alarm_at, told"
)
_CLOCKS_OF: Final = text(f"SELECT {_CLOCK_COLUMNS} FROM sla_timer.clocks WHERE ticket_id = ANY(:ids)")  # noqa: S608
# All that ringing needs of a clock: its marks and its course stay where they are.
_RINGING: Final = text(
    "SELECT clock_id, ticket_id, target, generation, queue, category, priority, policy, calendar, policy_version, "
    "calendar_version, target_seconds, started_at, due_at, breached_at, alarms, told FROM sla_timer.clocks "
    "WHERE ticket_id = ANY(:ids) AND ended_at IS NULL AND next_alarm_at <= :now"
)
_NEXT_ALARMS: Final = text(
    "SELECT ticket_id, min(next_alarm_at) AS next_alarm_at FROM sla_timer.clocks "
    "WHERE ticket_id = ANY(:ids) AND ended_at IS NULL AND next_alarm_at > :now GROUP BY ticket_id"
)
# An array of arrays must be rectangular and courses are not: what is a list travels as JSON text.
_SAVE_CLOCKS: Final = unnest(
    f"INSERT INTO sla_timer.clocks ({_CLOCK_COLUMNS}) "  # noqa: S608 - names of our own
    "SELECT clock_id, ticket_id, target, generation, state, brand, channel, queue, category, priority, agent_group, "
    "policy, calendar, policy_version, calendar_version, target_seconds, marks::jsonb, started_at, due_at, ended_at, "
    "breached_at, used_seconds, course::jsonb, alarms::jsonb, next_alarm_at, told "
    "FROM unnest(:ids, :tickets, :targets, :generations, :states, :brands, :channels, :queues, :categories, "
    ":priorities, :groups, :policies, :calendars, :versions, "
    ":calendar_versions, :seconds, :marks, :starts, :dues, :ends, :breaches, :used, :courses, :alarms, "
    ":next_alarms, :told) "
    f"AS row ({_CLOCK_COLUMNS}) "
    "ON CONFLICT (clock_id) DO UPDATE SET state = excluded.state, queue = excluded.queue, "
    "category = excluded.category, priority = excluded.priority, agent_group = excluded.agent_group, "
    "policy = excluded.policy, calendar = excluded.calendar, policy_version = excluded.policy_version, "
    "calendar_version = excluded.calendar_version, target_seconds = excluded.target_seconds, marks = excluded.marks, "
    "started_at = excluded.started_at, due_at = excluded.due_at, ended_at = excluded.ended_at, "
    "breached_at = excluded.breached_at, used_seconds = excluded.used_seconds, course = excluded.course, "
    "alarms = excluded.alarms, next_alarm_at = excluded.next_alarm_at, told = excluded.told",
    ids=UuidType(),
    tickets=UuidType(),
    targets=Text(),
    generations=Integer(),
    states=Text(),
    brands=Text(),
    channels=Text(),
    queues=Text(),
    categories=Text(),
    priorities=Text(),
    groups=Text(),
    policies=Text(),
    calendars=Text(),
    versions=Text(),
    calendar_versions=Text(),
    seconds=Integer(),
    marks=Text(),
    starts=TIME,
    dues=TIME,
    ends=TIME,
    breaches=TIME,
    used=Integer(),
    courses=Text(),
    alarms=Text(),
    next_alarms=TIME,
    told=Integer(),
)
_SAVE_RUNG: Final = unnest(
    "UPDATE sla_timer.clocks AS clock SET breached_at = row.breached_at, course = clock.course || row.steps::jsonb, "
    "alarms = row.alarms::jsonb, next_alarm_at = row.next_alarm_at, told = row.told "
    "FROM unnest(:ids, :breaches, :steps, :alarms, :next_alarms, :told) "
    "AS row (clock_id, breached_at, steps, alarms, next_alarm_at, told) WHERE clock.clock_id = row.clock_id",
    ids=UuidType(),
    breaches=TIME,
    steps=Text(),
    alarms=Text(),
    next_alarms=TIME,
    told=Integer(),
)


async def clocks_of(connection: AsyncConnection, ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, dict[uuid.UUID, Clock]]:
    """Clocks by ticket and id."""
    found: dict[uuid.UUID, dict[uuid.UUID, Clock]] = {}
    for row in await connection.execute(_CLOCKS_OF, {"ids": ids}):
        found.setdefault(row.ticket_id, {})[row.clock_id] = _clock(row)
    return found


async def ringing_clocks(
    connection: AsyncConnection, ids: Sequence[uuid.UUID], now: datetime
) -> dict[uuid.UUID, list[Clock]]:
    """By ticket: the running clocks with an alarm that is due, as `ring` needs them: without marks and course."""
    found: dict[uuid.UUID, list[Clock]] = {}
    for row in await connection.execute(_RINGING, {"ids": ids, "now": now}):
        found.setdefault(row.ticket_id, []).append(
            Clock(
                id=row.clock_id,
                target=Target(row.target),
                generation=row.generation,
                state=State.RUNNING,
                terms=Terms(
                    row.policy,
                    row.calendar,
                    row.target_seconds,
                    policy_version=row.policy_version,
                    calendar_version=row.calendar_version,
                ),
                started_at=row.started_at,
                priority=Priority(row.priority),
                queue=Queue(row.queue) if row.queue else None,
                category=Category(row.category) if row.category else None,
                due_at=row.due_at,
                breached_at=row.breached_at,
                alarms=_alarms(row.alarms),
                told=row.told,
            )
        )
    return found


async def next_alarms(
    connection: AsyncConnection, ids: Sequence[uuid.UUID], now: datetime
) -> dict[uuid.UUID, datetime]:
    """By ticket: the first alarm after now, where there is one."""
    rows = await connection.execute(_NEXT_ALARMS, {"ids": ids, "now": now})
    return {row.ticket_id: row.next_alarm_at for row in rows}


async def save_clocks(connection: AsyncConnection, clocks: Sequence[tuple[Ticket, Clock]]) -> None:
    """Write these clocks, whose tickets the caller has locked."""
    if not clocks:
        return
    await connection.execute(
        _SAVE_CLOCKS,
        {
            "ids": [clock.id for _, clock in clocks],
            "tickets": [ticket.id for ticket, _ in clocks],
            "targets": [clock.target for _, clock in clocks],
            "generations": [clock.generation for _, clock in clocks],
            "states": [clock.state for _, clock in clocks],
            "brands": [ticket.brand for ticket, _ in clocks],
            "channels": [ticket.channel for ticket, _ in clocks],
            "queues": [clock.queue for _, clock in clocks],
            "categories": [clock.category for _, clock in clocks],
            "priorities": [clock.priority for _, clock in clocks],
            "groups": [clock.agent_group for _, clock in clocks],
            "policies": [clock.terms.policy for _, clock in clocks],
            "calendars": [clock.terms.calendar for _, clock in clocks],
            "seconds": [clock.terms.target_seconds for _, clock in clocks],
            "versions": [clock.terms.policy_version for _, clock in clocks],
            "calendar_versions": [clock.terms.calendar_version for _, clock in clocks],
            "marks": [json.dumps([_mark_json(mark) for mark in clock.terms.marks]) for _, clock in clocks],
            "starts": [clock.started_at for _, clock in clocks],
            "dues": [clock.due_at for _, clock in clocks],
            "ends": [clock.ended_at for _, clock in clocks],
            "breaches": [clock.breached_at for _, clock in clocks],
            "used": [clock.used_seconds for _, clock in clocks],
            "courses": [_course_json(clock) for _, clock in clocks],
            "alarms": [_alarms_json(clock) for _, clock in clocks],
            "next_alarms": [clock.next_alarm_at for _, clock in clocks],
            "told": [clock.told for _, clock in clocks],
        },
    )


async def save_rung(connection: AsyncConnection, clocks: Sequence[Clock]) -> None:
    """Write what time alone has done to clocks, whose tickets the caller has locked. Their course holds what is new."""
    if not clocks:
        return
    await connection.execute(
        _SAVE_RUNG,
        {
            "ids": [clock.id for clock in clocks],
            "breaches": [clock.breached_at for clock in clocks],
            "steps": [_course_json(clock) for clock in clocks],
            "alarms": [_alarms_json(clock) for clock in clocks],
            "next_alarms": [clock.next_alarm_at for clock in clocks],
            "told": [clock.told for clock in clocks],
        },
    )


def _clock(row: Any) -> Clock:
    return Clock(
        id=row.clock_id,
        target=Target(row.target),
        generation=row.generation,
        state=State(row.state),
        terms=Terms(
            row.policy,
            row.calendar,
            row.target_seconds,
            tuple(_mark(item) for item in _from_json(row.marks)),
            row.policy_version,
            row.calendar_version,
        ),
        started_at=row.started_at,
        priority=Priority(row.priority),
        queue=Queue(row.queue) if row.queue else None,
        category=Category(row.category) if row.category else None,
        agent_group=row.agent_group,
        due_at=row.due_at,
        ended_at=row.ended_at,
        breached_at=row.breached_at,
        course=in_order(_step(item) for item in _from_json(row.course)),
        alarms=_alarms(row.alarms),
        told=row.told,
    )


def _alarms(value: Any) -> tuple[Alarm, ...]:
    return tuple(Alarm(datetime.fromisoformat(item["at"]), _mark(item["mark"])) for item in _from_json(value))


def _course_json(clock: Clock) -> str:
    return json.dumps([_step_json(step) for step in clock.course])


def _alarms_json(clock: Clock) -> str:
    return json.dumps([{"at": alarm.at.isoformat(), "mark": _mark_json(alarm.mark)} for alarm in clock.alarms])


def _step_json(step: Step) -> dict[str, Any]:
    told = {
        "kind": step.kind.value,
        "at": step.at.isoformat(),
        "due_at": step.due_at.isoformat() if step.due_at else None,
        "used_seconds": step.used_seconds,
        "mark": _mark_json(step.mark) if step.mark else None,
    }
    return {name: value for name, value in told.items() if value is not None}


def _step(item: Mapping[str, Any]) -> Step:
    due_at, mark = item.get("due_at"), item.get("mark")
    return Step(
        kind=SlaKind(item["kind"]),
        at=datetime.fromisoformat(item["at"]),
        due_at=datetime.fromisoformat(due_at) if due_at else None,
        used_seconds=item.get("used_seconds"),
        mark=_mark(mark) if mark else None,
    )


def _mark_json(mark: Mark) -> dict[str, Any]:
    said = {
        "kind": mark.kind.value,
        "used_seconds": mark.used_seconds,
        "share": mark.share,
        "before_seconds": mark.before_seconds,
        "level": mark.level,
    }
    return {name: value for name, value in said.items() if value is not None}


def _mark(item: Mapping[str, Any]) -> Mark:
    level = item.get("level")
    return Mark(
        SlaKind(item["kind"]),
        item["used_seconds"],
        item.get("share"),
        item.get("before_seconds"),
        EscalationLevel(level) if level else None,
    )


def _from_json(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


async def count_open(connection: AsyncConnection) -> dict[Target, int]:
    rows = await connection.execute(
        text("SELECT target, count(*) AS open FROM sla_timer.clocks WHERE ended_at IS NULL GROUP BY target")
    )
    return dict.fromkeys(Target, 0) | {Target(row.target): row.open for row in rows}


class OpenClocks(NamedTuple):
    """Promises that are not over. `state`: `running`, `paused`, or `overdue` for those that are broken, paused or
    not.
    """

    target: Target
    brand: str
    queue: Queue | None
    priority: Priority
    state: str
    clocks: int


async def open_clocks(connection: AsyncConnection) -> list[OpenClocks]:
    rows = await connection.execute(
        text(
            "SELECT target, brand, queue, priority, CASE WHEN breached_at IS NULL THEN state ELSE 'overdue' END, "
            "count(*) FROM sla_timer.clocks WHERE ended_at IS NULL GROUP BY 1, 2, 3, 4, 5"
        )
    )
    return [
        OpenClocks(Target(row[0]), row[1], Queue(row[2]) if row[2] else None, Priority(row[3]), row[4], row[5])
        for row in rows
    ]


async def next_due(connection: AsyncConnection, limit: int) -> list[tuple[uuid.UUID, Clock]]:
    """The running clocks that are due first, breached ones included, with their tickets' ids."""
    rows = await connection.execute(
        text(
            f"SELECT {_CLOCK_COLUMNS} FROM sla_timer.clocks "  # noqa: S608 - names of our own
            "WHERE ended_at IS NULL AND due_at IS NOT NULL ORDER BY due_at, clock_id LIMIT :n"
        ),
        {"n": limit},
    )
    return [(row.ticket_id, _clock(row)) for row in rows]
