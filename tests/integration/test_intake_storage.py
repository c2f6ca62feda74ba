"""Threading on PostgreSQL: several replicas at once, redeliveries, duplicates; and what the tables refuse."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from services.intake import storage
from services.intake.acceptance import Acceptance, Incoming, Outcome, Status, publishable
from services.intake.domain import Ticket
from services.intake.settings import Settings
from shared.cloudevents import Origin, trace_of
from shared.database import Database
from shared.events import ActivityKind, ChannelMessage, Customer, Disposition, TicketActivity
from shared.outbox import Outbox
from tests.unit.intake.samples import WINDOWS, at, message

REPLICAS = 4


@asynccontextmanager
async def replica_of(database_url: str) -> AsyncIterator[Acceptance]:
    """Intake's storing half, with connections of its own as in a process of its own."""
    database = Database(Settings(database_url=database_url), service="intake")
    try:
        yield Acceptance(database, WINDOWS, Outbox("intake"))
    finally:
        await database.close()


@pytest.fixture
async def acceptance(database: str) -> AsyncIterator[Acceptance]:
    async with replica_of(database) as replica:
        yield replica


@pytest.fixture
def brand() -> str:
    """A brand of this test's own: the database is shared within the module."""
    return f"b_{uuid.uuid4().hex[:12]}"


def incoming(given: ChannelMessage, offset: int | None = None) -> Incoming:
    return Incoming(given, None if offset is None else Origin("channel.messages", 0, offset), trace_of(given))


async def query(acceptance: Acceptance, statement: str, **parameters: Any) -> Sequence[Any]:
    async with acceptance._database.transaction() as connection:
        return (await connection.execute(text(statement), parameters)).all()


def statuses(outcomes: Sequence[Outcome]) -> list[Status]:
    return [outcome.status for outcome in outcomes]


async def test_messages_and_their_ticket_are_stored_together(acceptance: Acceptance, brand: str) -> None:
    outcomes = await acceptance.accept(
        [incoming(message(f"m-{n}", n / 100, brand=brand, text="密码是abc123"), n) for n in range(3)], into_outbox=False
    )
    assert statuses(outcomes) == [Status.NEW] * 3
    assert [outcome.event and outcome.event.disposition for outcome in outcomes] == [
        Disposition.OPENED,
        Disposition.FOLLOWED_UP,
        Disposition.FOLLOWED_UP,
    ]
    (ticket,) = await query(
        acceptance,
        "SELECT t.*, c.customer_id FROM intake.tickets t JOIN intake.conversations c USING (conversation_id) "
        "WHERE c.brand = :brand",
        brand=brand,
    )
    assert (ticket.customer_id, ticket.message_count, ticket.is_open) == ("c-1", 3, True)
    assert (ticket.opened_at, ticket.last_message_at) == (at(0), at(0.02))
    rows = await query(acceptance, "SELECT * FROM intake.messages WHERE brand = :brand ORDER BY sequence", brand=brand)
    assert [(row.sequence, row.record_offset, row.ticket_id) for row in rows] == [
        (1, 0, ticket.ticket_id),
        (2, 1, ticket.ticket_id),
        (3, 2, ticket.ticket_id),
    ]
    assert all("abc123" not in str(tuple(row)) for row in rows)


async def test_a_redelivered_record_gives_the_same_event_and_a_duplicate_gives_none(
    acceptance: Acceptance, brand: str
) -> None:
    first = message("m-1", brand=brand, text="你好", customer=Customer(id="c-1", name="李"))
    (stored,) = await acceptance.accept([incoming(first, 7)], into_outbox=False)
    again, published_twice, by_http = await acceptance.accept(
        [incoming(first, 7), incoming(first, 8), incoming(first)], into_outbox=False
    )
    assert statuses([again, published_twice, by_http]) == [Status.REDELIVERED, Status.DUPLICATE, Status.DUPLICATE]
    assert again.event is not None
    assert stored.event is not None
    assert again.event.model_dump_json() == stored.event.model_dump_json()
    assert again.outgoing().headers("intake") == stored.outgoing().headers("intake")
    assert published_twice.event is None
    assert {outcome.ticket_id for outcome in (again, published_twice, by_http)} == {stored.ticket_id}


async def test_a_message_that_stands_twice_in_a_batch_is_stored_once_and_by_the_first(
    acceptance: Acceptance, brand: str
) -> None:
    twice = message("m-1", brand=brand)
    batch = [incoming(twice, 1), incoming(message("m-2", brand=brand), 2), incoming(twice, 3)]
    assert statuses(await acceptance.accept(batch, into_outbox=False)) == [Status.NEW, Status.NEW, Status.DUPLICATE]
    assert statuses(await acceptance.accept(batch, into_outbox=False)) == [
        Status.REDELIVERED,
        Status.REDELIVERED,
        Status.DUPLICATE,
    ]


async def test_events_leave_in_the_order_of_their_ticket(acceptance: Acceptance, brand: str) -> None:
    backwards = [incoming(message(f"m-{n}", n / 100, brand=brand), 10 - n) for n in (2, 1, 0)]
    outcomes = await acceptance.accept(backwards, into_outbox=False)
    sequences = [outcome.event.sequence for outcome in publishable(outcomes) if outcome.event]
    assert sequences == [1, 2, 3]
    assert [outcome.incoming.message.message_id for outcome in outcomes] == ["m-2", "m-1", "m-0"]


async def test_resolution_ends_a_ticket_and_the_next_message_reopens_it(acceptance: Acceptance, brand: str) -> None:
    (opened,) = await acceptance.accept([incoming(message("m-1", brand=brand))], into_outbox=False)
    resolved = TicketActivity(
        ticket_id=opened.ticket_id, activity_id="a-1", kind=ActivityKind.RESOLVED, agent="mei", at=at(1)
    )
    unknown = resolved.model_copy(update={"ticket_id": uuid.uuid4()})
    await acceptance.apply([resolved, unknown])
    (row,) = await query(
        acceptance, "SELECT is_open, resolved_at FROM intake.tickets WHERE ticket_id = :id", id=opened.ticket_id
    )
    assert (row.is_open, row.resolved_at) == (False, at(1))
    (reopened,) = await acceptance.accept([incoming(message("m-2", 2, brand=brand))], into_outbox=False)
    assert reopened.event is not None
    assert (reopened.ticket_id, reopened.event.disposition) == (opened.ticket_id, Disposition.REOPENED)
    await acceptance.apply([resolved])  # once more: the customer has written since
    (row,) = await query(
        acceptance, "SELECT is_open, resolved_at FROM intake.tickets WHERE ticket_id = :id", id=opened.ticket_id
    )
    assert (row.is_open, row.resolved_at) == (True, None)


async def test_only_tickets_that_can_matter_are_read(acceptance: Acceptance, brand: str) -> None:
    """A customer of many years: twenty tickets, a hundred hours apart."""
    outcomes = await acceptance.accept(
        [incoming(message(f"m-{n}", n * 100, brand=brand)) for n in range(20)], into_outbox=False
    )
    ids = [outcome.ticket_id for outcome in outcomes]
    conversation = (
        await query(acceptance, "SELECT conversation_id FROM intake.tickets WHERE ticket_id = :id", id=ids[0])
    )[0].conversation_id
    async with acceptance._database.transaction() as connection:
        near = await storage.tickets_near(connection, {conversation: at(1750)}, WINDOWS.longest)
        far = await storage.tickets_near(connection, {conversation: at(9999)}, WINDOWS.longest)
    # since hour 1750 - 72: the tickets of hours 1700, 1800 and 1900 (open); the last before is 1700 again
    assert {ticket.ticket_id for ticket in near} == set(ids[17:])
    assert {ticket.ticket_id for ticket in far} == {ids[19]}
    (late,) = await acceptance.accept([incoming(message("late", 1730, brand=brand))], into_outbox=False)
    assert late.event is not None
    assert late.event.linked_ticket_id == ids[17]


async def test_racing_replicas_make_exactly_one_ticket_of_each_burst(database: str, brand: str) -> None:
    """40 customers with two bursts of three messages, five days apart; four replicas are each given all of it, in
    batches and orders of their own: 960 deliveries of 240 messages at once.
    """
    chosen = random.Random(20260302)
    everything = [
        message(
            f"{customer}-{burst}-{n}",
            burst * 120 + n / 3_600_000,
            brand=brand,
            customer=Customer(id=f"c-{customer}"),
        )
        for customer in range(40)
        for burst in range(2)
        for n in range(3)
    ]
    async with AsyncExitStack() as stack:
        replicas = [await stack.enter_async_context(replica_of(database)) for _ in range(REPLICAS)]
        deliveries = []
        for number, replica in enumerate(replicas):
            order = chosen.sample(everything, len(everything))
            for start in range(0, len(order), 30):
                batch = [
                    incoming(item, number * 10_000 + start + n) for n, item in enumerate(order[start : start + 30])
                ]
                deliveries.append(replica.accept(batch, into_outbox=False))
        chosen.shuffle(deliveries)
        outcomes = [outcome for batch in await asyncio.gather(*deliveries) for outcome in batch]
        rows = await query(
            replicas[0],
            "SELECT message_id, ticket_id, sequence FROM intake.messages WHERE brand = :brand",
            brand=brand,
        )
    assert Counter(statuses(outcomes)) == {Status.NEW: 240, Status.DUPLICATE: 720}
    assert len(rows) == 240
    tickets_of_burst: dict[str, set[uuid.UUID]] = {}
    sequences: dict[uuid.UUID, list[int]] = {}
    for row in rows:
        tickets_of_burst.setdefault(row.message_id.rsplit("-", 1)[0], set()).add(row.ticket_id)
        sequences.setdefault(row.ticket_id, []).append(row.sequence)
    assert [len(tickets) for tickets in tickets_of_burst.values()] == [1] * 80
    assert len(sequences) == 80
    assert all(sorted(numbers) == [1, 2, 3] for numbers in sequences.values())


async def test_the_same_message_under_two_conversations_at_once_is_stored_once(
    database: str, brand: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A confused channel sends one message id for two customers: no lock of a conversation sees the other."""
    both_have_looked = asyncio.Barrier(2)
    really_stored_messages = storage.stored_messages

    async def look_together(*arguments: Any) -> Any:
        found = await really_stored_messages(*arguments)
        if not found:
            await both_have_looked.wait()
        return found

    monkeypatch.setattr(storage, "stored_messages", look_together)
    async with replica_of(database) as one, replica_of(database) as other:
        results = await asyncio.gather(
            one.accept([incoming(message(brand=brand, customer=Customer(id="c-1")), 1)], into_outbox=True),
            other.accept([incoming(message(brand=brand, customer=Customer(id="c-2")), 2)], into_outbox=True),
        )
        tickets = await query(
            one,
            "SELECT 1 FROM intake.tickets JOIN intake.conversations USING (conversation_id) WHERE brand = :brand",
            brand=brand,
        )
        events = await query(one, "SELECT body FROM intake.outbox")
    assert sorted(statuses([*results[0], *results[1]])) == [Status.DUPLICATE, Status.NEW]
    assert len(tickets) == 1
    assert sum(brand.encode() in row.body for row in events) == 1


async def test_the_index_refuses_a_second_open_ticket_of_a_conversation(acceptance: Acceptance) -> None:
    conversation = uuid.uuid4()
    now = datetime.now(UTC)

    def ticket(*, is_open: bool) -> Ticket:
        return Ticket(uuid.uuid4(), conversation, now, now, now, 1, is_open)

    first = ticket(is_open=True)
    async with acceptance._database.transaction() as connection:
        await storage.save_tickets(connection, [first, ticket(is_open=False)])
    with pytest.raises(IntegrityError, match="uq_tickets_open_conversation"):
        async with acceptance._database.transaction() as connection:
            await storage.save_tickets(connection, [ticket(is_open=True)])


@contextmanager
def failing(monkeypatch: pytest.MonkeyPatch, name: str) -> Iterator[None]:
    async def fail(*_: object) -> None:
        raise ConnectionResetError

    with monkeypatch.context() as patched:
        patched.setattr(storage, name, fail)
        yield


async def test_when_a_step_fails_nothing_is_stored(
    acceptance: Acceptance, brand: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = [incoming(message(brand=brand), 1)]
    for step in ("save_tickets", "add_messages"):
        with failing(monkeypatch, step), pytest.raises(ConnectionResetError):
            await acceptance.accept(batch, into_outbox=True)
    assert not await query(acceptance, "SELECT 1 FROM intake.conversations WHERE brand = :brand", brand=brand)
    assert statuses(await acceptance.accept(batch, into_outbox=False)) == [Status.NEW]


async def test_windows_come_from_the_settings() -> None:
    windows = Settings(intake_follow_up_window_hours=1.5, intake_reopen_window_hours=2).windows
    assert (windows.follow_up, windows.reopen) == (timedelta(minutes=90), timedelta(hours=2))
