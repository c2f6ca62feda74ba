"""What the desk hears of: every event about a ticket goes into its history and view, once, in any order of topics."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from services.desk import storage
from services.desk.actions import take_back_deadlines
from services.desk.domain import Rules, after_took_over
from services.desk.domain_changes import words_of
from services.desk.domain_points import points_of
from services.desk.domain_view import TicketEvent, View, after_event
from shared import metrics, tracing
from shared.cloudevents import Received
from shared.database import Database
from shared.events import ActivityKind, PeakEvent, SlaEvent, TicketActivity, TicketMessage, TicketRouted
from shared.trace_context import is_sampled


class Handlers:
    """Batch handlers. Each stores in one transaction; a redelivered or doubled event is found in the history."""

    def __init__(self, database: Database, rules: Rules) -> None:
        self._database = database
        self._rules = rules

    async def on_routed(self, batch: Sequence[Received[Any]]) -> None:
        """`queues.*`: where tickets belong, and where they belong no longer."""
        await self._take_in("desk.queues", batch)

    async def on_message(self, batch: Sequence[Received[Any]]) -> None:
        """`tickets.messages`: what customers wrote."""
        await self._take_in("desk.tickets.messages", batch)

    async def on_activity(self, batch: Sequence[Received[Any]]) -> None:
        """`tickets.activity`: what agents did by other tools. The desk's own is in the history already."""
        await self._take_in("desk.tickets.activity", batch)

    async def on_sla(self, batch: Sequence[Received[Any]]) -> None:
        """`sla.events`: what was promised until when, and which promises were broken.

        That the policies changed is of no ticket: those whose promises moved for it have events of their own.
        """
        of_tickets = [received for received in batch if isinstance(received.event, SlaEvent)]
        if of_tickets:
            await self._take_in("desk.sla.events", of_tickets)

    async def on_outcome(self, batch: Sequence[Received[Any]]) -> None:
        """`notifications.outcomes`: whether the customer got the answer."""
        await self._take_in("desk.notifications.outcomes", batch)

    async def on_peak(self, batch: Sequence[Received[PeakEvent]]) -> None:
        """`peaks.events`: which queues are in a peak."""
        async with self._database.transaction() as connection:
            await storage.save_peaks(connection, [received.event for received in batch])

    async def _take_in(self, group: str, batch: Sequence[Received[Any]]) -> None:
        events: dict[uuid.UUID, TicketEvent] = {}
        for received in batch:
            events.setdefault(received.event.event_id, received.event)
        heard = Heard(datetime.now(UTC))
        async with self._database.transaction() as connection:
            new = await take_in(connection, events, self._rules, lambda _: heard, traces_of(batch))
        if duplicates := len(batch) - len(new):
            metrics.RECORDS_DUPLICATE.labels(group).inc(duplicates)


@dataclass(frozen=True, slots=True)
class Heard:
    """When the desk heard of an event, and whether it is an act through the desk itself: then it knew what was there.

    What handlers hear is never the desk's own: that is in the history already. Only a rebuild hears it.
    """

    at: datetime
    here: bool = False


async def take_in(
    connection: AsyncConnection,
    events: Mapping[uuid.UUID, TicketEvent],
    rules: Rules,
    heard: Callable[[TicketEvent], Heard],
    traces: Mapping[uuid.UUID, str] | None = None,
) -> set[uuid.UUID]:
    """Have these events (by id, in order) make their effects; returns the ids of those that were new. `traces`: see
    `traces_of`.
    """
    views = await storage.lock_or_create(
        connection, [ticket_id for event in events.values() for ticket_id in _tickets_of(event)]
    )
    before = dict(views)
    new = await storage.record(connection, events)
    for event_id, event in events.items():
        if event_id in new:
            now, here = heard(event).at, heard(event).here
            view = after_event(views[event.ticket_id], event, now, rules, here=here)
            views[event.ticket_id] = _after_trace(view, event, (traces or {}).get(event_id))
            if (into := _merged_into(event)) is not None:
                at = min(event.occurred_at, now)
                took_over = after_took_over(views[into].ticket, at, rules, here=here)
                views[into] = replace(views[into], ticket=took_over)
    routed = [event for event_id, event in events.items() if event_id in new and isinstance(event, TicketRouted)]
    await storage.add_points(connection, [point for event in routed for point in points_of(event)])
    written = {
        event.ticket_id
        for event_id, event in events.items()
        if event_id in new and isinstance(event, TicketMessage | TicketRouted)
    }
    gone = await _settle_words(connection, views, written)
    await storage.add_links(
        connection,
        [
            (event.ticket_id, related)
            for event in events.values()
            if isinstance(event, TicketMessage)
            for related in event.related_ticket_ids
        ],
    )
    changed = [ticket_id for ticket_id, view in views.items() if view != before[ticket_id]]
    await storage.save(connection, (views[ticket_id] for ticket_id in changed))
    await storage.forget_words(connection, gone)
    await storage.DEADLINES.schedule(
        connection,
        take_back_deadlines((before[ticket_id] for ticket_id in changed), (views[ticket_id] for ticket_id in changed)),
    )
    return new


async def _settle_words(
    connection: AsyncConnection, views: dict[uuid.UUID, View], written: Collection[uuid.UUID]
) -> dict[uuid.UUID, frozenset[int]]:
    """Bring the views of those of these tickets whose customers changed what they had written up to date, and drop the
    points that count no more. Returns the messages whose words are gone: ticket -> sequences.

    From the whole history: the two topics that tell of a message are in no order.
    """
    with_changes = [ticket_id for ticket_id in written if views[ticket_id].has_changes]
    if not with_changes:
        return {}
    words = {ticket_id: words_of(told) for ticket_id, told in (await storage.told(connection, with_changes)).items()}
    dropped = await storage.drop_points(connection, {one for each in words.values() for one in each.outdated})
    for ticket_id, each in words.items():
        view = views[ticket_id]
        views[ticket_id] = replace(
            view,
            text=each.text,
            subject=each.subject or (view.subject if each.sequence else None),
            text_sequence=each.sequence,
            open_points=view.open_points - dropped[ticket_id],
        )
    return {ticket_id: each.gone for ticket_id, each in words.items()}


def traces_of(batch: Sequence[Received[Any]]) -> dict[uuid.UUID, str]:
    """The traces, of those that are recorded, of what tells of customers' messages: event -> context."""
    if not tracing.is_on():
        return {}
    return {
        received.event.event_id: received.traceparent
        for received in batch
        if isinstance(received.event, TicketMessage | TicketRouted) and is_sampled(received.traceparent)
    }


def _after_trace(view: View, event: TicketEvent, traceparent: str | None) -> View:
    """The trace of the latest message; of what it was routed to, if that is heard of sooner."""
    if traceparent is None or (view.traceparent is not None and not isinstance(event, TicketMessage)):
        return view
    return replace(view, traceparent=traceparent)


def _merged_into(event: TicketEvent) -> uuid.UUID | None:
    return event.merged_into if isinstance(event, TicketActivity) and event.kind is ActivityKind.MERGED else None


def _tickets_of(event: TicketEvent) -> list[uuid.UUID]:
    into = _merged_into(event)
    return [event.ticket_id] if into is None else [event.ticket_id, into]
