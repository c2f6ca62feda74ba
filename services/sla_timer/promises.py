"""Brings the clocks of locked tickets up to date in the caller's transaction: play, compare, store, schedule, tell.

The one way by which a clock changes, whoever asks: a handler with new events, the deadline runner when time has run,
the re-planner after an edit of the policies.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from services.sla_timer import storage
from services.sla_timer.domain.clocks import Clock, Ticket, fold, reconcile
from services.sla_timer.domain.policies import Policies
from services.sla_timer.storage import DEADLINES, OUTBOX, Kept
from shared import topics
from shared.cloudevents import Outgoing, trace_of
from shared.deadlines import Deadline
from shared.events import SlaEvent

CLOCKS_DEADLINE: Final = "clocks"
"""Kind of the deadline that a ticket has: the next moment at which time alone changes one of its clocks."""


async def settle(
    connection: AsyncConnection,
    policies: Policies,
    tickets: Collection[Kept],
    now: datetime,
    *,
    traces: Mapping[uuid.UUID, str] | None = None,
    fired: bool = False,
) -> list[SlaEvent]:
    """Settle these tickets, which the caller has locked; what is not known yet stays as it is.

    `traces`: the trace context of what caused it, by ticket. `fired`: their deadlines have been taken, so that each is
    written anew. Returns the events that were put into the outbox.
    """
    known = {item.ticket_id: (item, item.ticket) for item in tickets if item.ticket is not None}
    ids = sorted(known)
    if not ids:
        return []
    happenings = await storage.happenings_of(connection, ids)
    clocks = await storage.clocks_of(connection, ids)
    events: list[SlaEvent] = []
    changed: list[tuple[Ticket, Clock]] = []
    settled: list[Kept] = []
    for ticket_id in ids:
        kept, ticket = known[ticket_id]
        before = clocks.get(ticket_id, {})
        folded = fold(ticket, happenings.get(ticket_id, ()), policies, now, before)
        told = reconcile(ticket, before, folded, now)
        events += told.events
        changed += [(ticket, clock) for clock in told.changed]
        after = replace(
            kept,
            version=policies.version,
            has_open=any(clock.is_open for clock in folded),
            alarm_at=told.next_alarm_at,
        )
        if fired or after != kept:
            settled.append(after)
    await storage.save_clocks(connection, changed)
    await storage.save_tickets(connection, settled, policies.version, now)
    await _schedule(connection, {ticket_id: known[ticket_id][0] for ticket_id in ids}, settled, fired=fired)
    await OUTBOX.add(
        connection,
        [
            Outgoing(topics.SLA_EVENTS.name, event, (traces or {}).get(event.ticket_id) or trace_of(event))
            for event in events
        ],
    )
    return events


async def _schedule(
    connection: AsyncConnection, before: Mapping[uuid.UUID, Kept], settled: Collection[Kept], *, fired: bool
) -> None:
    moved = [item for item in settled if fired or item.alarm_at != before[item.ticket_id].alarm_at]
    await DEADLINES.schedule(
        connection,
        [
            Deadline(item.ticket_id, CLOCKS_DEADLINE, item.ticket_id, item.alarm_at)
            for item in moved
            if item.alarm_at is not None
        ],
    )
    await DEADLINES.cancel(connection, [item.ticket_id for item in moved if item.alarm_at is None and not fired])
