"""Which messages of a flood are folded, and what stands for them."""

from __future__ import annotations

import uuid
from collections import Counter
from dataclasses import replace
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from services.intake.domain import Placement, Ticket, accepted, thread
from services.intake.domain_floods import Flood, FloodLimit, beyond, flood_of, fold
from shared.events import Attachment, Disposition, TicketMessage
from shared.events.channel import MAX_TEXT_CHARACTERS
from tests.unit.intake.samples import T0, WINDOWS, at, message

LIMIT = FloodLimit(messages=3, window=timedelta(seconds=60))


@given(seconds=st.lists(st.integers(0, 200), max_size=40), size=st.integers(1, 40))
def test_in_each_window_so_many_are_told_one_by_one_whatever_the_batches(seconds: list[int], size: int) -> None:
    sent = [message(f"m-{number}", second / 3600) for number, second in enumerate(seconds)]
    tickets: dict[uuid.UUID, Ticket] = {}
    seen: Counter[Flood] = Counter()
    folded: Counter[Flood] = Counter()
    for start in range(0, len(sent), size):
        threaded = thread(sent[start : start + size], tickets.values(), WINDOWS)
        tickets |= {ticket.ticket_id: ticket for ticket in threaded.changed}
        folded.update(flood_of(item, LIMIT) for item in beyond(threaded.placements, seen, LIMIT))
        seen.update(flood_of(item, LIMIT) for item in threaded.placements)
    expected = Counter(second // 60 for second in seconds)
    assert {flood.starts_at: count for flood, count in folded.items()} == {
        T0 + timedelta(minutes=minute): count - 3 for minute, count in expected.items() if count > 3
    }


def placement(disposition: Disposition) -> Placement:
    return replace(thread([message()], [], WINDOWS).placements[0], disposition=disposition)


def test_what_opens_or_reopens_a_ticket_is_told_at_once() -> None:
    kinds = (Disposition.OPENED, Disposition.REOPENED, Disposition.FOLLOWED_UP)
    placements = [placement(kind) for kind in kinds]
    seen = {flood_of(placements[0], LIMIT): 100}
    assert [item.disposition for item in beyond(placements, seen, LIMIT)] == [Disposition.FOLLOWED_UP]


def test_a_flood_is_due_at_the_end_of_its_window_and_one_of_long_ago_a_window_later() -> None:
    assert LIMIT.due_at(T0, T0 + timedelta(seconds=10)) == T0 + timedelta(seconds=60)
    assert LIMIT.due_at(T0, at(5)) == at(5) + timedelta(seconds=60)


def folded_of(*texts: str, resolved: bool = False) -> tuple[list[Ticket], TicketMessage]:
    threaded = thread(
        [
            message(f"m-{number}", number / 3600, text=words, attachments=(Attachment(name=words[:9] or "-"),))
            for number, words in enumerate(("第一条", *texts))
        ],
        [],
        WINDOWS,
    )
    (ticket,) = threaded.changed
    if resolved:
        ticket = replace(ticket, is_open=False, resolved_at=at(1))
    events = [accepted(item, at(0)) for item in threaded.placements[1:]]
    return fold(Flood(ticket.ticket_id, T0), 2, events, [ticket], at(2))


def test_one_message_stands_for_all_of_them() -> None:
    (ticket,), event = folded_of("在吗", "密码是abc123", "在吗", "回我")
    assert event.message_id == f"flood/{ticket.ticket_id}/{T0.isoformat()}/2"
    assert event.text == "在吗\n密码是[password]\n回我"
    assert (event.folded, event.sequence, ticket.message_count) == (4, 6, 6)
    assert [item.name for item in event.attachments] == ["在吗", "密码是[password]", "回我"]
    assert [(item.kind, item.count) for item in event.redactions] == [("password", 2)]
    assert (event.disposition, event.accepted_at, event.sent_at) == (Disposition.FOLLOWED_UP, at(2), at(4 / 3600))


def test_a_text_too_long_is_cut_and_says_so() -> None:
    _, event = folded_of("a" * 15_000, "b" * 15_000)
    assert (len(event.text), event.text[-2:]) == (MAX_TEXT_CHARACTERS, "b…")


def test_a_flood_reopens_a_ticket_that_was_resolved_meanwhile_unless_it_only_thanks() -> None:
    (ticket,), event = folded_of("在吗", resolved=True)
    assert (event.disposition, ticket.resolved_at, ticket.is_open) == (Disposition.REOPENED, None, True)
    threaded = thread([message("m-1"), message("m-2", text="谢谢")], [], WINDOWS)
    (ticket,) = threaded.changed
    ticket = replace(ticket, is_open=False, resolved_at=at(1))
    thanks = accepted(threaded.placements[1], at(0))
    (after,), event = fold(Flood(ticket.ticket_id, T0), 1, [thanks], [ticket], at(2))
    assert (event.disposition, after.resolved_at) == (Disposition.FOLLOWED_UP, at(1))
