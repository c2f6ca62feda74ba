"""What the desk makes of edits, deletions and links of tickets, in whatever order its topics bring them."""

from __future__ import annotations

import random
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from services.classifier.domain.routing import routed_by_deletion
from services.desk import storage
from services.desk.domain import Rules, State
from services.desk.domain_changes import Mark, marks_of
from services.desk.domain_points import TicketPoint
from services.desk.domain_view import View
from services.desk.handlers import Handlers
from services.desk.settings import Settings
from shared.cloudevents import Origin, Received, trace_of
from shared.database import Database
from shared.events import ActivityKind, DecisionTrace, Event, TicketMessage, TicketRouted, TraceStep
from shared.events.queues import EDITS
from tests.unit.desk.samples import activity, at, message, points_in, routed


class Desk:
    """The handlers on a real database, fed by hand."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._handlers = Handlers(database, Rules())
        self._offset = 0

    async def take(self, *events: Event) -> None:
        batch = []
        for event in events:
            self._offset += 1
            batch.append(Received(event, Origin("any", 0, self._offset), datetime.now(UTC), trace_of(event)))
        await self._handlers._take_in("desk.test", batch)

    async def view(self, ticket_id: uuid.UUID) -> View:
        async with self.database.transaction() as connection:
            view = await storage.find(connection, ticket_id)
        assert view is not None
        return view

    async def points(self, ticket_id: uuid.UUID) -> list[TicketPoint]:
        async with self.database.transaction() as connection:
            return await storage.points(connection, ticket_id)

    async def history(self, ticket_id: uuid.UUID) -> list[storage.HistoryEntry]:
        async with self.database.transaction() as connection:
            return await storage.history(connection, ticket_id, 500)

    async def related(self, ticket_id: uuid.UUID) -> list[uuid.UUID]:
        async with self.database.transaction() as connection:
            return [view.ticket.ticket_id for view in await storage.related(connection, ticket_id)]


@pytest.fixture
async def desk(database: str) -> AsyncIterator[Desk]:
    connected = Database(Settings(database_url=database), service="desk")
    try:
        yield Desk(connected)
    finally:
        await connected.close()


def routing_of(event: TicketMessage, revision: int, **changes: Any) -> TicketRouted:
    steps = (TraceStep(step=EDITS, detail=event.edits),) if event.edits else ()
    told = {
        "cause_id": event.event_id,
        "revision": revision,
        "sequence": event.sequence,
        "disposition": event.disposition,
        "text": event.text,
        "decided_at": at(revision),
        "trace": DecisionTrace(decided_by="model", model="test", steps=steps),
    }
    return routed(event.ticket_id, **(told | changes))


async def test_edits_and_deletions_in_any_order_of_the_topics_end_alike(desk: Desk) -> None:
    """Two messages; the first is edited twice, the second taken back; and each order is a ticket of its own."""
    chosen = random.Random(20260302)
    for _ in range(12):
        ticket_id = uuid.uuid4()
        first = message(ticket_id, 1, text="充值没到账", accepted_at=at(1))
        edit = message(ticket_id, 2, text="提现没到账", edits=first.message_id, accepted_at=at(2))
        second = message(ticket_id, 3, text="住在南京路1号", accepted_at=at(3))
        again = message(ticket_id, 4, text="提现失败", edits=first.message_id, accepted_at=at(4))
        deletion = message(ticket_id, 5, text="", deletes=second.message_id, accepted_at=at(5))
        told = [
            routing_of(first, 1, **points_in("充值没到账", top_up="充值没到账")),
            routing_of(edit, 2, **points_in("提现没到账", withdrawal="提现没到账")),
            routing_of(second, 3, **points_in("住在南京路1号", other="住在南京路1号")),
            routing_of(again, 4, **points_in("提现失败", withdrawal="提现失败")),
        ]
        told.append(routed_by_deletion(deletion, told[3], 5, at(5)))
        # After the fourth message an agent resolved it; changes do not take it up again.
        resolved = activity(ticket_id, ActivityKind.RESOLVED, at(6))
        events: list[Event] = [first, edit, second, again, deletion, *told, resolved]
        chosen.shuffle(events)
        while events:
            size = chosen.randint(1, 4)
            await desk.take(*events[:size])
            events = events[size:]
        view = await desk.view(ticket_id)
        assert (view.text, view.text_sequence) == ("提现失败", 1)
        assert view.ticket.state is State.RESOLVED
        assert [point.text for point in await desk.points(ticket_id)] == ["提现失败"]
        assert view.open_points == 1
        history = await desk.history(ticket_id)
        assert all("南京路" not in str(entry.payload) for entry in history)
        assert view.decision is not None
        assert (view.decision.revision, view.decision.text) == (5, "提现失败")
        marks = marks_of((entry.event_id, entry.kind, entry.payload) for entry in history)
        assert marks == {first.event_id: Mark.EDITED, second.event_id: Mark.TAKEN_BACK}


async def test_a_point_that_is_ticked_off_stays_when_its_message_changes(desk: Desk) -> None:
    ticket_id = uuid.uuid4()
    first = message(ticket_id, 1, text="充值没到账")
    await desk.take(first, routing_of(first, 1, **points_in("充值没到账", top_up="充值没到账")))
    (point,) = await desk.points(ticket_id)
    async with desk.database.transaction() as connection:
        await storage.tick(connection, point.point_id, ("mei", at(1)))
    await desk.take(message(ticket_id, 2, text="提现没到账", edits=first.message_id))
    assert [point.done_by for point in await desk.points(ticket_id)] == ["mei"]


async def test_an_edit_leaves_a_ticket_that_waits_on_its_customer_waiting(desk: Desk) -> None:
    ticket_id = uuid.uuid4()
    first = message(ticket_id, 1)
    await desk.take(first, routing_of(first, 1), activity(ticket_id, ActivityKind.WAITING_ON_CUSTOMER, at(2)))
    edit = message(ticket_id, 2, edits=first.message_id, accepted_at=at(3))
    await desk.take(edit, routing_of(edit, 2, decided_at=at(3)))
    assert (await desk.view(ticket_id)).ticket.state is State.WAITING_ON_CUSTOMER


async def test_related_tickets_are_shown_from_both_ends(desk: Desk) -> None:
    one, other, unknown = uuid.uuid4(), uuid.uuid4(), uuid.uuid4()
    first = message(one, 1)
    second = message(other, 1, related_ticket_ids=(one, unknown))
    await desk.take(second)
    await desk.take(first, second)
    assert await desk.related(other) == [one]
    assert await desk.related(one) == [other]
