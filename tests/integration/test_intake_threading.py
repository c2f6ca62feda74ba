"""Replies to old threads, edits and deletions, people on several channels, and floods, on PostgreSQL."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from services.intake import storage
from services.intake.acceptance import Acceptance, Incoming, Outcome, Status, publishable
from services.intake.domain_floods import FloodLimit
from services.intake.floods import Floods
from services.intake.settings import Settings
from shared.cloudevents import Origin, trace_of
from shared.database import Database
from shared.deadlines import fire_in_transaction
from shared.events import (
    ActivityKind,
    Attachment,
    ChannelMessage,
    Contact,
    Customer,
    Disposition,
    TicketActivity,
    TicketMessage,
)
from shared.outbox import Outbox
from shared.taxonomy import Channel
from tests.unit.intake.samples import WINDOWS, at, message

LIMIT = FloodLimit(messages=5, window=timedelta(seconds=60))
PHONE = "+8613800138000"


class Replica:
    """Intake's storing half, with connections of its own as in a process of its own."""

    def __init__(self, database_url: str, brand: str) -> None:
        self.database = Database(Settings(database_url=database_url), service="intake")
        self.acceptance = Acceptance(self.database, WINDOWS, Outbox("intake"), LIMIT)
        self.tell_floods = fire_in_transaction(
            self.database, storage.DEADLINES, Floods(Outbox("intake")).tell, service="intake"
        )
        self.brand = brand
        self._offset = 0

    def message(self, message_id: str, hours: float = 0, **fields: Any) -> ChannelMessage:
        return message(message_id, hours, **({"brand": self.brand} | fields))

    async def take(self, *messages: ChannelMessage) -> list[Outcome]:
        """As from Kafka: each from a record of its own."""
        incoming = []
        for item in messages:
            self._offset += 1
            incoming.append(Incoming(item, Origin("channel.messages", 0, self._offset), trace_of(item)))
        return await self.acceptance.accept(incoming, into_outbox=False)

    async def take_again(self, given: ChannelMessage, outcome: Outcome) -> Outcome:
        """The record of `outcome` once more."""
        (again,) = await self.acceptance.accept(
            [Incoming(given, outcome.incoming.origin, trace_of(given))], into_outbox=False
        )
        return again

    async def told(self, *messages: ChannelMessage) -> TicketMessage:
        """The event of the last of these, which are taken one by one."""
        for item in messages:
            (outcome,) = await self.take(item)
        assert outcome.event is not None
        return outcome.event

    async def resolve(self, ticket_id: uuid.UUID, hours: float) -> None:
        await self.acceptance.apply(
            [
                TicketActivity(
                    ticket_id=ticket_id, activity_id=f"a-{hours}", kind=ActivityKind.RESOLVED, agent="mei", at=at(hours)
                )
            ]
        )

    async def query(self, statement: str, **parameters: Any) -> Sequence[Any]:
        async with self.database.transaction() as connection:
            return (await connection.execute(text(statement), {"brand": self.brand, **parameters})).all()

    async def outbox(self) -> list[TicketMessage]:
        rows = await self.query("SELECT body FROM intake.outbox ORDER BY id")
        events = [TicketMessage.model_validate_json(row.body) for row in rows]
        return [event for event in events if event.brand == self.brand]

    async def make_floods_due(self) -> None:
        await self.query(
            "UPDATE intake.deadlines SET due_at = now() WHERE subject IN (SELECT flood_id FROM intake.floods "
            "JOIN intake.messages USING (flood_id) WHERE brand = :brand) RETURNING 1"
        )


@asynccontextmanager
async def replica_of(database_url: str, brand: str) -> AsyncIterator[Replica]:
    replica = Replica(database_url, brand)
    try:
        yield replica
    finally:
        await replica.database.close()


@pytest.fixture
async def replica(database: str) -> AsyncIterator[Replica]:
    async with replica_of(database, f"b_{uuid.uuid4().hex[:12]}") as replica:
        yield replica


# --- replies to old threads ------------------------------------------------------------------------------------------


async def test_an_answer_finds_its_ticket_however_long_ago(replica: Replica) -> None:
    old = await replica.told(replica.message("m-1"))
    recent = await replica.told(replica.message("m-2", 200))
    assert recent.ticket_id != old.ticket_id
    answer = await replica.told(replica.message("m-3", 201, in_reply_to=("unknown", "m-1", "m-2")))
    assert (answer.ticket_id, answer.disposition) == (old.ticket_id, Disposition.FOLLOWED_UP)
    # The nearest comes first, and what answers nothing goes on where the customer wrote last.
    assert (await replica.told(replica.message("m-4", 202, in_reply_to=("m-2", "m-1")))).ticket_id == recent.ticket_id
    assert (await replica.told(replica.message("m-5", 203))).ticket_id == recent.ticket_id


async def test_an_answer_reopens_a_resolved_ticket_or_opens_one_that_is_linked_to_it(replica: Replica) -> None:
    old = await replica.told(replica.message("m-1"))
    await replica.resolve(old.ticket_id, 1)
    other = await replica.told(replica.message("m-2", 100))
    late = await replica.told(replica.message("m-3", 101, in_reply_to=("m-1",)))
    assert (late.disposition, late.linked_ticket_id) == (Disposition.FOLLOWED_UP, old.ticket_id)
    assert late.ticket_id == other.ticket_id  # it follows on the old one, and is being talked about
    much_later = await replica.told(replica.message("m-4", 300, in_reply_to=("m-1",)))
    assert (much_later.disposition, much_later.linked_ticket_id) == (Disposition.OPENED, old.ticket_id)
    await replica.resolve(other.ticket_id, 301)
    again = await replica.told(replica.message("m-5", 302, in_reply_to=("m-2",)))
    assert (again.ticket_id, again.disposition) == (other.ticket_id, Disposition.REOPENED)


async def test_an_answer_to_a_mail_or_a_sent_reply_of_ours_finds_its_ticket(replica: Replica) -> None:
    fields: dict[str, Any] = {"channel": Channel.EMAIL}
    old = await replica.told(replica.message("m-1", **fields))
    ours = f"<{old.ticket_id}.{uuid.uuid4()}@mail.example.com>"
    answer = await replica.told(replica.message("m-2", 500, in_reply_to=(ours,), **fields))
    assert answer.ticket_id == old.ticket_id
    # Such an id means something in mails only.
    elsewhere = await replica.told(replica.message("m-3", 500, in_reply_to=(ours,)))
    assert elsewhere.linked_ticket_id is None
    await replica.query(
        "INSERT INTO intake.replies (notification_id, brand, channel, ticket_id, leased_until, message_ids) "
        "VALUES (:id, :brand, 'email', :ticket_id, now(), '{a, sent-1}') RETURNING 1",
        id=uuid.uuid4(),
        ticket_id=old.ticket_id,
    )
    answer = await replica.told(replica.message("m-4", 1000, in_reply_to=("sent-1",), **fields))
    assert answer.ticket_id == old.ticket_id


async def test_an_answer_to_another_customers_ticket_is_a_conversation_of_its_own(replica: Replica) -> None:
    theirs = await replica.told(replica.message("m-1"))
    forged = await replica.told(replica.message("m-2", 1, in_reply_to=("m-1",), customer=Customer(id="c-2")))
    assert (forged.ticket_id != theirs.ticket_id, forged.linked_ticket_id) == (True, None)


async def test_an_answer_by_another_address_is_linked_when_it_is_verified_to_be_the_same_person(
    replica: Replica,
) -> None:
    def by(customer_id: str, message_id: str, hours: float, **fields: Any) -> ChannelMessage:
        customer = Customer(id=customer_id, phone=PHONE)
        return replica.message(message_id, hours, customer=customer, verified=(Contact.PHONE,), **fields)

    first = await replica.told(by("c-1", "m-1", 0))
    second = await replica.told(by("c-2", "m-2", 1, in_reply_to=("m-1",)))
    assert second.ticket_id != first.ticket_id
    assert (second.linked_ticket_id, second.related_ticket_ids) == (first.ticket_id, (first.ticket_id,))


# --- edits and deletions ---------------------------------------------------------------------------------------------


async def test_an_edit_joins_the_ticket_of_its_original(replica: Replica) -> None:
    original = await replica.told(replica.message("m-1"))
    await replica.told(replica.message("m-2", 100))
    edit = await replica.told(replica.message("e-1", 101, edits="m-1", text="提现没到账"))
    assert (edit.ticket_id, edit.edits, edit.disposition) == (original.ticket_id, "m-1", Disposition.FOLLOWED_UP)
    # Who edits an edit, edits the original.
    again = await replica.told(replica.message("e-2", 102, edits="e-1", text="提现失败"))
    assert (again.ticket_id, again.edits, again.text) == (original.ticket_id, "m-1", "提现失败")
    (late,) = await replica.take(replica.message("e-0", 100.5, edits="m-1", text="老的"))
    assert (late.status, late.event, late.ticket_id) == (Status.DUPLICATE, None, original.ticket_id)


async def test_an_edit_before_its_original_is_the_message(replica: Replica) -> None:
    edit = await replica.told(replica.message("e-1", 0.1, edits="m-1", text="提现没到账"))
    assert (edit.disposition, edit.edits, edit.text) == (Disposition.OPENED, None, "提现没到账")
    (original,) = await replica.take(replica.message("m-1"))
    assert (original.status, original.event, original.ticket_id) == (Status.DUPLICATE, None, edit.ticket_id)
    again = await replica.told(replica.message("e-2", 0.2, edits="m-1", text="提现失败"))
    assert (again.ticket_id, again.edits) == (edit.ticket_id, "e-1")
    # By the name of what stands for it, too, it is that message which changes.
    assert (await replica.told(replica.message("e-4", 0.4, edits="e-1", text="提现又失败"))).edits == "e-1"
    (overtaken,) = await replica.take(replica.message("e-3", 0.3, edits="m-1", text="提现还是失败"))
    assert overtaken.event is None


async def test_an_edit_in_a_resolved_ticket_reopens_it_only_long_after(replica: Replica) -> None:
    original = await replica.told(replica.message("m-1"))
    await replica.resolve(original.ticket_id, 1)
    soon = await replica.told(replica.message("e-1", 23, edits="m-1", text="提现没到账"))
    assert (soon.ticket_id, soon.disposition) == (original.ticket_id, Disposition.FOLLOWED_UP)
    (row,) = await replica.query(
        "SELECT resolved_at, last_message_at FROM intake.tickets WHERE ticket_id = :id", id=original.ticket_id
    )
    assert (row.resolved_at, row.last_message_at) == (at(1), at(0))
    late = await replica.told(replica.message("e-2", 25, edits="m-1", text="还是没到账"))
    assert (late.ticket_id, late.disposition, late.edits) == (original.ticket_id, Disposition.REOPENED, None)


async def test_what_is_taken_back_is_rubbed_out(replica: Replica) -> None:
    given = replica.message(
        "m-1", text="我的地址是南京路1号", subject="地址", attachments=(Attachment(name="身份证.jpg"),)
    )
    (original,) = await replica.take(given)
    edit = replica.message("e-1", 0.1, edits="m-1", text="我的地址是南京路2号")
    (edited,) = await replica.take(edit)
    await replica.resolve(original.ticket_id, 0.5)  # type: ignore[arg-type]
    gone = await replica.told(replica.message("d-1", 1, deletes="m-1", text="不要看"))
    assert (gone.ticket_id, gone.deletes, gone.text) == (original.ticket_id, "m-1", "")
    assert (gone.disposition, gone.sequence) == (Disposition.FOLLOWED_UP, 3)
    rows = await replica.query("SELECT event FROM intake.messages WHERE brand = :brand")
    assert all("南京路" not in row.event and "身份证" not in row.event for row in rows)
    for taken, outcome in ((given, original), (edit, edited)):
        again = await replica.take_again(taken, outcome)
        assert again.status is Status.REDELIVERED
        assert again.event is not None
        assert (again.event.text, again.event.subject, again.event.attachments) == ("", None, ())
        assert outcome.event is not None
        assert again.event.event_id == outcome.event.event_id
    (row,) = await replica.query(
        "SELECT resolved_at, last_message_at FROM intake.tickets WHERE ticket_id = :id", id=original.ticket_id
    )
    assert (row.resolved_at, row.last_message_at) == (at(0.5), at(0.1))
    (twice, too_late) = await replica.take(
        replica.message("d-2", 2, deletes="m-1"), replica.message("e-2", 3, edits="m-1", text="南京路3号")
    )
    assert (twice.event, too_late.event) == (None, None)


async def test_taken_back_in_the_same_batch_it_is_not_told_what_it_said(replica: Replica) -> None:
    original, gone = await replica.take(
        replica.message("m-1", text="南京路1号"), replica.message("d-1", 1, deletes="m-1")
    )
    assert original.event is not None
    assert gone.event is not None
    assert (original.event.text, gone.event.deletes) == ("", "m-1")
    (row,) = await replica.query("SELECT event FROM intake.messages WHERE brand = :brand AND message_id = 'm-1'")
    assert "南京路" not in row.event


async def test_what_was_taken_back_before_it_came_opens_nothing(replica: Replica) -> None:
    (gone,) = await replica.take(replica.message("d-1", 1, deletes="m-1"))
    given = replica.message("m-1", text="南京路1号")
    (original,) = await replica.take(given)
    again = await replica.take_again(given, original)
    for outcome in (gone, original, again):
        assert (outcome.event, outcome.ticket_id) == (None, None)
    assert again.status is Status.DUPLICATE
    assert not await replica.query(
        "SELECT 1 FROM intake.tickets JOIN intake.conversations USING (conversation_id) WHERE brand = :brand"
    )
    rows = await replica.query("SELECT withheld, event FROM intake.messages WHERE brand = :brand")
    assert [tuple(row) for row in rows] == [("taken_back", None)] * 2


async def test_nobody_changes_what_another_wrote(replica: Replica) -> None:
    theirs = replica.message("m-1", text="南京路1号")
    (original,) = await replica.take(theirs)
    stranger = Customer(id="c-2")
    await replica.take(
        replica.message("d-1", 1, deletes="m-1", customer=stranger),
        replica.message("d-2", 1, deletes="m-9", customer=stranger),
    )
    edit = await replica.told(replica.message("e-1", 1, edits="m-1", customer=Customer(id="c-3")))
    assert edit.ticket_id != original.ticket_id
    again = await replica.take_again(theirs, original)
    assert again.event == original.event
    assert (await replica.told(replica.message("m-9", 2, text="在吗"))).text == "在吗"


# --- people ----------------------------------------------------------------------------------------------------------


async def test_tickets_of_one_person_on_two_channels_are_told(replica: Replica) -> None:
    def by(channel: Channel, message_id: str, hours: float, phone: str, **fields: Any) -> ChannelMessage:
        return replica.message(
            message_id,
            hours,
            channel=channel,
            customer=Customer(id=f"{channel}-1", phone=phone),
            **({"verified": (Contact.PHONE,)} | fields),
        )

    chat = await replica.told(by(Channel.APP_CHAT, "m-1", 0, "+86 138 0013 8000"))
    await replica.resolve(chat.ticket_id, 1)
    whatsapp = await replica.told(by(Channel.WHATSAPP, "m-2", 2, PHONE))
    assert (whatsapp.disposition, whatsapp.linked_ticket_id) == (Disposition.OPENED, None)
    assert (chat.related_ticket_ids, whatsapp.related_ticket_ids) == ((), (chat.ticket_id,))
    assert (await replica.told(by(Channel.TELEGRAM, "m-3", 3, PHONE, verified=()))).related_ticket_ids == ()
    other_brand = f"{replica.brand}_2"
    assert (await replica.told(by(Channel.WHATSAPP, "m-4", 3, PHONE, brand=other_brand))).related_ticket_ids == ()
    # A resolved ticket is of no interest a month later, an unresolved one is.
    later = await replica.told(by(Channel.EMAIL, "m-5", 31 * 24, PHONE))
    assert later.related_ticket_ids == (whatsapp.ticket_id,)
    assert not [row for row in await replica.query("SELECT * FROM intake.people") if "13800138000" in str(tuple(row))]


async def test_who_writes_first_on_two_channels_at_once_is_linked(database: str) -> None:
    """Whichever commits first, the other one sees it; also when the two are in one batch, or come in any order."""
    brand = f"b_{uuid.uuid4().hex[:12]}"

    def first_messages(number: int) -> tuple[ChannelMessage, ChannelMessage]:
        one, other = (
            message(
                f"{channel}-{number}",
                brand=brand,
                channel=channel,
                customer=Customer(id=f"{channel}-{number}", phone=f"+86138{number:08}", email=f"P{number}@Example.com"),
                verified=(Contact.PHONE, Contact.EMAIL),
            )
            for channel in (Channel.APP_CHAT, Channel.WHATSAPP)
        )
        return one, other

    pairs = [first_messages(number) for number in range(40)]
    async with replica_of(database, brand) as one, replica_of(database, brand) as other:
        results = await asyncio.gather(
            *(one.take(*(pair[0] for pair in pairs[start : start + 5])) for start in range(0, 40, 5)),
            *(other.take(*(pair[1] for pair in reversed(pairs[start : start + 5]))) for start in range(0, 40, 5)),
        )
    events = {outcome.event.message_id: outcome.event for batch in results for outcome in batch if outcome.event}
    for app_chat, whatsapp in pairs:
        ends = events[app_chat.message_id], events[whatsapp.message_id]
        links = [(event.ticket_id, related) for event in ends for related in event.related_ticket_ids]
        assert links
        assert all({one, other} == {event.ticket_id for event in ends} for one, other in links)


# --- floods ----------------------------------------------------------------------------------------------------------


def flood(replica: Replica, count: int, *, seconds: float = 0, start: int = 0) -> list[ChannelMessage]:
    return [
        replica.message(f"f-{number}", (seconds + number / 1000) / 3600, text=f"在吗 {number % 7}")
        for number in range(start, start + count)
    ]


async def test_a_flood_is_told_once_with_a_count(replica: Replica) -> None:
    sent = flood(replica, 30)
    outcomes = [outcome for start in range(0, 30, 4) for outcome in await replica.take(*sent[start : start + 4])]
    assert [outcome.status for outcome in outcomes] == [Status.NEW] * 30
    assert [outcome.event is not None for outcome in outcomes] == [True] * 5 + [False] * 25
    ticket_id = outcomes[0].ticket_id
    assert {outcome.ticket_id for outcome in outcomes} == {ticket_id}
    again = await replica.take(*sent)
    assert (publishable(again), {outcome.status for outcome in again}) == ([], {Status.DUPLICATE})
    again = [await replica.take_again(sent[number], outcomes[number]) for number in (0, 29)]
    assert [outcome.event for outcome in again] == [outcomes[0].event, None]
    await replica.make_floods_due()
    assert await replica.tell_floods() == 1
    assert await replica.tell_floods() == 0
    (told,) = await replica.outbox()
    assert told.message_id == f"flood/{ticket_id}/{at(0).isoformat()}"
    assert (told.ticket_id, told.folded, told.sequence) == (ticket_id, 25, 31)
    assert told.text == "\n".join(f"在吗 {number % 7}" for number in range(5, 12))
    assert (told.disposition, told.sent_at) == (Disposition.FOLLOWED_UP, sent[-1].sent_at)
    # What comes yet of the same window is told as a further part, and what was told is not told again.
    late = flood(replica, 2, start=30)
    assert publishable(await replica.take(*late)) == []
    await replica.make_floods_due()
    assert await replica.tell_floods() == 1
    assert [(event.message_id, event.folded) for event in (await replica.outbox())[1:]] == [(f"{told.message_id}/2", 2)]


async def test_a_replay_after_an_outage_is_no_flood(replica: Replica) -> None:
    sent = [replica.message(f"m-{number}", number / 60, text=str(number)) for number in range(30)]
    outcomes = await replica.take(*sent)
    assert len(publishable(outcomes)) == 30


async def test_a_flood_is_due_when_its_window_is_over(replica: Replica) -> None:
    now = datetime.now(UTC)
    sent = [replica.message(f"m-{number}", sent_at=now) for number in range(10)]
    await replica.take(*sent[:8])
    await replica.take(*sent[8:])
    (row,) = await replica.query(
        "SELECT deadlines.due_at FROM intake.deadlines JOIN intake.floods ON flood_id = subject WHERE ticket_id IN "
        "(SELECT ticket_id FROM intake.messages WHERE brand = :brand)"
    )
    assert row.due_at == LIMIT.starts_at(now) + LIMIT.window
    assert row.due_at > now
    await replica.tell_floods()
    assert await replica.outbox() == []


async def test_a_flood_after_which_the_ticket_was_resolved_reopens_it(replica: Replica) -> None:
    outcomes = await replica.take(*flood(replica, 8))
    ticket_id = outcomes[0].ticket_id
    assert ticket_id is not None
    await replica.resolve(ticket_id, 1)
    await replica.make_floods_due()
    await replica.tell_floods()
    (told,) = await replica.outbox()
    assert (told.disposition, told.folded) == (Disposition.REOPENED, 3)
    (row,) = await replica.query("SELECT is_open, resolved_at FROM intake.tickets WHERE ticket_id = :id", id=ticket_id)
    assert tuple(row) == (True, None)


async def test_what_is_taken_back_of_a_flood_is_not_told(replica: Replica) -> None:
    await replica.take(*flood(replica, 7), replica.message("f-8", text="南京路1号", sent_at=at(0.001)))
    await replica.take(replica.message("d-1", 0.01, deletes="f-8"))
    await replica.make_floods_due()
    await replica.tell_floods()
    (told,) = await replica.outbox()
    assert (told.folded, told.text) == (2, "在吗 5\n在吗 6")


async def test_a_flood_whose_conversation_is_being_written_to_is_told_a_moment_later(replica: Replica) -> None:
    outcomes = await replica.take(*flood(replica, 8))
    await replica.make_floods_due()
    async with replica.database.transaction() as connection:
        await storage.lock_conversations_of_tickets(connection, [outcomes[0].ticket_id or uuid.UUID(int=0)])
        assert await replica.tell_floods() == 1
        assert await replica.outbox() == []
    await replica.make_floods_due()
    await replica.tell_floods()
    assert [event.folded for event in await replica.outbox()] == [3]
