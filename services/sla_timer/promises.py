"""Brings the clocks of locked tickets up to date in the caller's transaction: play, compare, store, schedule, tell.

`settle` is the way by which a clock changes when something has happened, whoever asks: a handler with new events, the
re-planner after an edit of the policies. `ring` is the short way for the deadline runner, when only time has run.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from services.sla_timer import storage
from services.sla_timer.domain import clocks as clockwork
from services.sla_timer.domain.clocks import Clock, Ticket, fold, reconcile
from services.sla_timer.domain.policies import Policies
from services.sla_timer.storage import DEADLINES, OUTBOX, Kept
from shared import topics, tracing
from shared.cloudevents import Outgoing, trace_of
from shared.deadlines import Deadline
from shared.events import SlaEvent
from shared.trace_context import is_sampled

CLOCKS_DEADLINE: Final = "clocks"
"""Kind of the deadline that a ticket has: the next moment at which time alone changes one of its clocks."""


async def settle(
    connection: AsyncConnection,
    policies: Policies,
    tickets: Collection[Kept],
    now: datetime,
    *,
    traces: Mapping[uuid.UUID, str] | None = None,
) -> list[SlaEvent]:
    """Settle these tickets, which the caller has locked; what is not known yet stays as it is.

    `traces`: the trace context of what caused it, by ticket. Returns the events that were put into the outbox.
    """
    known = {item.ticket_id: (item, item.ticket) for item in tickets if item.ticket is not None}
    ids = sorted(known)
    if not ids:
        return []
    happenings = await storage.happenings_of(connection, ids)
    clocks = await storage.clocks_of(connection, ids)
    await _learn_calendars(connection, policies, clocks)
    events: list[SlaEvent] = []
    changed: list[tuple[Ticket, Clock]] = []
    settled: list[Kept] = []
    started: dict[uuid.UUID, str] = {}
    for ticket_id in ids:
        kept, ticket = known[ticket_id]
        before = clocks.get(ticket_id, {})
        folded = fold(ticket, happenings.get(ticket_id, ()), policies, now, before)
        told = reconcile(ticket, before, folded, now)
        events += told.events
        changed += [(ticket, clock) for clock in told.changed]
        if tracing.is_on() and traces is not None and is_sampled(traces[ticket_id]):
            started |= {clock.id: traces[ticket_id] for clock in told.changed if clock.id not in before}
        after = replace(
            kept,
            version=policies.version,
            has_open=any(clock.is_open for clock in folded),
            alarm_at=told.next_alarm_at,
        )
        if after != kept:
            settled.append(after)
    await storage.save_clocks(connection, changed)
    await storage.save_traces(connection, started)
    await storage.save_tickets(connection, settled, policies.version, now)
    moved = [item for item in settled if item.alarm_at != known[item.ticket_id][0].alarm_at]
    await _schedule(connection, moved)
    await DEADLINES.cancel(connection, [item.ticket_id for item in moved if item.alarm_at is None])
    by_ticket = traces or {}
    await _tell(connection, events, [by_ticket.get(event.ticket_id) or trace_of(event) for event in events])
    return events


async def ring(
    connection: AsyncConnection, policies: Policies, tickets: Collection[Kept], now: datetime
) -> list[SlaEvent]:
    """What time has done to these tickets, which the caller has locked and whose deadlines it has taken.

    Returns the events that were put into the outbox.
    """
    # Stored alarms are those of the policies they were planned under; whoever finds others plans anew first.
    outdated = [item for item in tickets if item.version != policies.version]
    events = await settle(connection, policies, outdated, now) if outdated else []
    current = {item.ticket_id: item for item in tickets if item.version == policies.version}
    ids = sorted(current)
    clocks = await storage.ringing_clocks(connection, ids, now)
    later = await storage.next_alarms(connection, ids, now)
    changed: list[Clock] = []
    rung: list[Kept] = []
    for ticket_id, kept in current.items():
        assert kept.ticket is not None, "a ticket that has been planned is known"
        told = clockwork.ring(kept.ticket, clocks.get(ticket_id, ()), now)
        changed += told.changed
        events += told.events
        alarms = (told.next_alarm_at, later.get(ticket_id))
        rung.append(replace(kept, alarm_at=min((at for at in alarms if at is not None), default=None)))
    await storage.save_rung(connection, changed)
    await storage.save_tickets(connection, rung, policies.version, now)
    await _schedule(connection, rung)
    # The deadline of one that was planned anew has been taken too, and may not have moved.
    await _reschedule(connection, [item.ticket_id for item in outdated])
    rung_events = [event for event in events if event.ticket_id in current]
    if tracing.is_on():
        clock_traces = await storage.traces_of(connection, {event.clock_id for event in rung_events})
        await _tell(connection, rung_events, [_fired(event, clock_traces.get(event.clock_id)) for event in rung_events])
    else:
        await _tell(connection, rung_events, [trace_of(event) for event in rung_events])
    return events


def _fired(event: SlaEvent, trace: str | None) -> str:
    """The span of an alarm, in the trace of the message that started its clock. Returns its context."""
    span = tracing.begin(
        f"fire {event.kind}",
        trace or trace_of(event),
        attributes={
            tracing.TICKET: str(event.ticket_id),
            tracing.BRAND: event.brand,
            tracing.CHANNEL: event.channel,
            "switchyard.clock.target": event.target,
            "switchyard.clock.lateness_ms": event.lateness_ms,
        },
    )
    span.end()
    return span.traceparent


async def _learn_calendars(
    connection: AsyncConnection, policies: Policies, clocks: Mapping[uuid.UUID, Mapping[uuid.UUID, Clock]]
) -> None:
    """Another replica may have made promises on a calendar that this one has not read yet."""
    versions = {clock.terms.calendar_version for known in clocks.values() for clock in known.values()}
    if not all(policies.knows(version) for version in versions if version):
        policies.learn(await storage.archived_calendars(connection))


async def _schedule(connection: AsyncConnection, tickets: Collection[Kept]) -> None:
    await DEADLINES.schedule(
        connection,
        [
            Deadline(item.ticket_id, CLOCKS_DEADLINE, item.ticket_id, item.alarm_at)
            for item in tickets
            if item.alarm_at is not None
        ],
    )


async def _reschedule(connection: AsyncConnection, ids: Collection[uuid.UUID]) -> None:
    if ids:
        await _schedule(connection, (await storage.lock_free(connection, ids)).values())


async def _tell(connection: AsyncConnection, events: Sequence[SlaEvent], traceparents: Sequence[str]) -> None:
    await OUTBOX.add(
        connection,
        [
            Outgoing(topics.SLA_EVENTS.name, event, traceparent)
            for event, traceparent in zip(events, traceparents, strict=True)
        ],
    )
