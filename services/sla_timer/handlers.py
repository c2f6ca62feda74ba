"""What comes in, as happenings of tickets: stored once each, then the tickets' clocks are settled, all in one
transaction per batch. The topics are not ordered among themselves: an event of a ticket that nobody has introduced yet
is kept for it.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from services.sla_timer import storage
from services.sla_timer.domain.clocks import Happening
from services.sla_timer.domain.rules import What, what_of
from services.sla_timer.in_force import PoliciesInForce
from services.sla_timer.measures import Measures
from services.sla_timer.promises import settle
from services.sla_timer.storage import Arrival, Facts
from shared import metrics
from shared.cloudevents import Received
from shared.courtesy import needs_no_answer
from shared.database import Database
from shared.events import TicketActivity, TicketLeft, TicketMessage, TicketRouted
from shared.events.tickets import Disposition


class Handlers:
    def __init__(self, database: Database, in_force: PoliciesInForce, measures: Measures, *, group: str) -> None:
        self._database = database
        self._in_force = in_force
        self._measures = measures
        self._group = group

    async def on_tickets(self, batch: Sequence[Received[Any]]) -> None:
        """Every topic that tells of tickets: `tickets.messages`, `tickets.activity`, `queues.*`."""
        now = datetime.now(UTC)
        facts = [fact for received in batch for fact in facts_of(received.event, now)]
        if not facts:
            return
        happenings = [item for received in batch for item in happening_of(received.event, now)]
        arrivals = [item for received in batch for item in arrival_of(received.event, now)]
        traces = {received.event.ticket_id: received.traceparent for received in batch}
        async with self._database.transaction() as connection:
            kept = await storage.lock(connection, facts, now)
            new = await storage.add_happenings(connection, happenings)
            # Nothing new about a ticket that has been settled: a repetition.
            touched = [item for item in kept.values() if item.ticket_id in new or item.version is None]
            events = await settle(connection, self._in_force.policies, touched, now, traces=traces)
            counted = await storage.add_arrivals(connection, arrivals)
        metrics.RECORDS_DUPLICATE.labels(self._group).inc(len(happenings) - sum(new.values()))
        self._measures.told(events)
        self._measures.arrived(counted)


def facts_of(event: object, now: datetime) -> list[Facts]:
    """What an event tells of tickets; nothing when clocks do not care. No ticket has been opened in the future."""
    match event:
        case TicketMessage():
            opened_at = min(event.opened_at, event.accepted_at, now)
            return [Facts(event.ticket_id, event.brand, event.channel, opened_at)]
        case TicketRouted():
            opened_at = min(event.opened_at, event.decided_at, now)
            return [Facts(event.ticket_id, event.brand, event.channel, opened_at)]
        case TicketActivity():
            return [Facts(ticket_id) for ticket_id, _ in happening_of(event, now)]
        case _:
            assert isinstance(event, TicketLeft), f"no topic of ours carries {type(event).__name__}"
            return []


def happening_of(event: object, now: datetime) -> list[tuple[uuid.UUID, Happening]]:
    """The happenings in an event, with their tickets; none in one that only introduces its ticket.

    Nothing has happened in the future: the clock of whoever wrote it is ahead of ours.
    """
    match event:
        case TicketMessage(disposition=Disposition.OPENED):
            return []
        case TicketMessage() if event.changes is not None:
            return []  # other words for what is owed an answer already, or none
        case TicketMessage():
            only_thanks = needs_no_answer(event.text, event.subject, event.attachments)
            what = What.CUSTOMER_THANKED if only_thanks else What.CUSTOMER_WROTE
            at = min(event.sent_at, event.accepted_at, now)
            if event.disposition is Disposition.REOPENED:
                # By the time at which intake reopened it: it may have been sent before the ticket was resolved, and
                # arrived after; counted at its own time it would be owed nothing. Whatever it says, the ticket is open.
                what, at = What.CUSTOMER_WROTE, min(event.accepted_at, now)
            return [(event.ticket_id, Happening(event.event_id, what, at))]
        case TicketRouted():
            at = min(event.decided_at, now)
            routed = Happening(
                event.event_id, What.ROUTED, at, event.queue, event.priority, event.revision, event.category
            )
            return [(event.ticket_id, routed)]
        case TicketActivity():
            return _acts(event, min(event.at, now))
        case _:
            return []


def _acts(event: TicketActivity, at: datetime) -> list[tuple[uuid.UUID, Happening]]:
    what = what_of(event)
    if what is None:
        return []
    corrected = what is What.CORRECTED
    act = Happening(
        event.event_id,
        what,
        at,
        queue=event.queue if corrected else None,
        priority=event.priority if corrected else None,
        category=event.category if corrected else None,
        agent_group=event.agent_group,
    )
    acts = [(event.ticket_id, act)]
    if event.merged_into is not None and what is What.MERGED:
        acts.append((event.merged_into, Happening(event.event_id, What.TOOK_OVER, at)))
    return acts


def arrival_of(event: object, now: datetime) -> list[Arrival]:
    """A ticket counts where its first message was routed to, at the time it was opened; a backlog that is worked off
    late is not a peak of now.
    """
    if isinstance(event, TicketRouted) and event.revision == 1:
        at = min(event.opened_at, event.decided_at, now)
        return [Arrival(event.ticket_id, event.brand, event.queue, event.channel, at)]
    return []
