"""One ticket per burst, in whatever order, batches and repetitions the messages come."""

from __future__ import annotations

import uuid
from collections import defaultdict
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from services.intake.domain import Original, Placement, Ticket, Windows, apply_activities, thread
from shared.events import ActivityKind, ChannelMessage, Customer, Disposition, TicketActivity
from shared.taxonomy import Channel
from tests.unit.intake.samples import T0, WINDOWS


def message(number: int, seconds: float, text: str = "充值没到账", **fields: Any) -> ChannelMessage:
    given = {
        "brand": "upay",
        "channel": Channel.WECHAT,
        "message_id": f"m-{number}",
        "customer": Customer(id="c-1"),
        "text": text,
        "sent_at": T0 + timedelta(seconds=seconds),
    }
    return ChannelMessage(**(given | fields))


@dataclass
class Told:
    """What was published of a message, as it is stored: a deletion rubs out its text."""

    placed: Placement
    text: str


class Store:
    """Keeps tickets and messages as the database does, and hands back only what the rules ask for."""

    def __init__(self, windows: Windows = WINDOWS) -> None:
        self.windows = windows
        self.tickets: dict[uuid.UUID, Ticket] = {}
        self.ticket_of: dict[str, uuid.UUID | None] = {}
        self.sequences: defaultdict[uuid.UUID, list[int]] = defaultdict(list)
        self.told: dict[str, Told] = {}
        self.originals: dict[str, Original] = {}

    def deliver(self, batch: list[ChannelMessage]) -> None:
        new = {item.message_id: item for item in batch if item.message_id not in self.ticket_of}
        if not new:
            return
        answered = {
            name: ticket_id
            for item in new.values()
            for name in item.in_reply_to
            if (ticket_id := self.ticket_of.get(name)) is not None
        }
        originals = {name: self.originals[name] for name in new if name in self.originals}
        for item in new.values():
            if item.changes is not None and (original := self._original(item.changes)) is not None:
                originals[item.changes] = original
        near = {ticket.ticket_id: ticket for ticket in self._near(min(item.sent_at for item in new.values()))}
        for ticket_id in (*answered.values(), *(original.ticket_id for original in originals.values())):
            if ticket_id is not None:
                near[ticket_id] = self.tickets[ticket_id]
        threaded = thread(new.values(), near.values(), self.windows, answered=answered, originals=originals)
        self.tickets |= {ticket.ticket_id: ticket for ticket in threaded.changed}
        self.originals |= {original.message_id: original for original in threaded.originals}
        for placed in threaded.placements:
            self.ticket_of[placed.message.message_id] = placed.ticket.ticket_id
            self.sequences[placed.ticket.ticket_id].append(placed.ticket.message_count)
            opens = placed.disposition is Disposition.OPENED
            assert opens == (placed.ticket.message_count == 1)
            assert not opens or placed.ticket.opened_at == placed.message.sent_at
            self.told[placed.message.message_id] = Told(placed, placed.message.text)
        for aside in threaded.set_aside:
            self.ticket_of[aside.message.message_id] = aside.ticket_id
        for placed in threaded.placements:
            if placed.deletes is not None:
                self._forget_words(placed.deletes)

    def _original(self, name: str) -> Original | None:
        told = self.told.get(name)
        if told is not None:
            changes = told.placed.edits or told.placed.deletes
            name = changes.known_as if changes else name
        known = (item for item in self.originals.values() if name in (item.message_id, item.known_as))
        if (original := next(known, None)) is not None or told is None:
            return original
        return Original(name, name, told.placed.ticket.ticket_id, told.placed.message.sent_at)

    def _forget_words(self, gone: Original) -> None:
        for message_id, told in self.told.items():
            edits = told.placed.edits.known_as if told.placed.edits else None
            if {message_id, edits} & {gone.message_id, gone.known_as}:
                told.text = ""

    def apply(self, kind: ActivityKind, ticket_id: uuid.UUID, hours: float, repetitions: int = 1) -> TicketActivity:
        activity = TicketActivity(
            ticket_id=ticket_id,
            activity_id=f"{kind}-{hours}",
            kind=kind,
            agent="mei",
            at=T0 + timedelta(hours=hours),
            merged_into=uuid.UUID(int=1) if kind is ActivityKind.MERGED else None,
        )
        changed = apply_activities([activity] * repetitions, self.tickets.values())
        self.tickets |= {ticket.ticket_id: ticket for ticket in changed}
        return activity

    def _near(self, earliest: object) -> list[Ticket]:
        tickets = sorted(self.tickets.values(), key=lambda ticket: ticket.opened_at)
        near = {
            ticket.ticket_id: ticket
            for ticket in tickets
            if ticket.is_open
            or max(ticket.last_message_at, ticket.activity_at or ticket.last_message_at)
            >= earliest - self.windows.longest  # type: ignore[operator]
        }
        before = [ticket for ticket in tickets if ticket.opened_at <= earliest]  # type: ignore[operator]
        return [*near.values(), *(ticket for ticket in before[-1:] if ticket.ticket_id not in near)]

    def check(self) -> None:
        assert sum(ticket.is_open for ticket in self.tickets.values()) <= 1
        for ticket_id, sequences in self.sequences.items():
            assert sequences == list(range(1, len(sequences) + 1))
            assert self.tickets[ticket_id].message_count == len(sequences)
        for ticket in self.tickets.values():
            assert not (ticket.is_open and ticket.resolved_at)
            linked = ticket.linked_ticket_id
            assert linked is None or self.tickets[linked].opened_at <= ticket.opened_at


@st.composite
def bursts_as_delivered(draw: st.DrawFn) -> tuple[list[list[ChannelMessage]], list[list[ChannelMessage]]]:
    """Bursts of one customer, each within a minute, more than a window apart; and batches that deliver all of them,
    some several times, in any order.
    """
    bursts = []
    number = 0
    for burst in range(draw(st.integers(1, 5))):
        offsets = draw(st.lists(st.floats(0, 60), min_size=1, max_size=5))
        bursts.append([message(number + index, burst * 100_000 + offset) for index, offset in enumerate(offsets)])
        number += len(offsets)
    everything = [item for burst in bursts for item in burst]
    again = draw(st.lists(st.sampled_from(everything), max_size=10))
    order = draw(st.permutations([*everything, *again]))
    size = draw(st.integers(1, len(order)))
    return bursts, [order[start : start + size] for start in range(0, len(order), size)]


@given(bursts_as_delivered())
def test_each_burst_is_exactly_one_ticket(
    delivery: tuple[list[list[ChannelMessage]], list[list[ChannelMessage]]],
) -> None:
    bursts, batches = delivery
    store = Store()
    for batch in batches:
        store.deliver(batch)
        store.check()
    tickets = [{store.ticket_of[item.message_id] for item in burst} for burst in bursts]
    assert all(len(of_burst) == 1 for of_burst in tickets)
    assert len(set.union(*tickets)) == len(bursts) == len(store.tickets)


@st.composite
def bursts_after_a_resolution(draw: st.DrawFn) -> tuple[list[ChannelMessage], list[list[ChannelMessage]]]:
    """A burst of courtesies and others within a minute, at any time after a resolution at hour 10, often around the end
    of the reopen window (hour 82); and batches that deliver it, repetitions included, in any order.
    """
    begins = draw(st.one_of(st.floats(10 * 3600, 200 * 3600), st.just(82 * 3600 - 30.0)))
    said = draw(
        st.lists(st.tuples(st.floats(0, 60), st.sampled_from(["谢谢", "但是还没到账"])), min_size=1, max_size=5)
    )
    burst = [message(1 + number, begins + offset, text) for number, (offset, text) in enumerate(said)]
    order = draw(st.permutations([*burst, *draw(st.lists(st.sampled_from(burst), max_size=5))]))
    size = draw(st.integers(1, len(order)))
    return burst, [order[start : start + size] for start in range(0, len(order), size)]


@given(bursts_after_a_resolution(), st.sampled_from([ActivityKind.RESOLVED, ActivityKind.MERGED]))
def test_a_burst_after_a_resolution_is_one_ticket_and_open_unless_it_only_thanks(
    delivery: tuple[list[ChannelMessage], list[list[ChannelMessage]]], ending: ActivityKind
) -> None:
    burst, batches = delivery
    store = Store()
    store.deliver([message(0, 0)])
    (first,) = store.tickets
    store.apply(ending, first, 10)
    for batch in batches:
        store.deliver(batch)
        store.check()
    (joined,) = {store.ticket_of[item.message_id] for item in burst}
    assert joined is not None
    only_thanks = all(item.text == "谢谢" for item in burst)
    assert store.tickets[joined].is_open == (not only_thanks or joined != first)
    assert (store.tickets[first].resolved_at is None) == (joined == first and not only_thanks)


_HOURS = st.floats(0, 400).map(lambda hours: round(hours, 3))
_STEPS = st.lists(
    st.one_of(
        st.lists(st.tuples(_HOURS, st.sampled_from(["谢谢", "但是还没到账"])), min_size=1, max_size=4),
        st.tuples(
            st.sampled_from([ActivityKind.RESOLVED, ActivityKind.MERGED, ActivityKind.REOPENED]),
            st.integers(0, 20),
            _HOURS,
        ),
    ),
    max_size=15,
)


@given(steps=_STEPS, repetitions=st.integers(1, 3))
def test_whatever_happens_the_books_stay_in_order(
    steps: list[list[tuple[float, str]] | tuple[ActivityKind, int, float]], repetitions: int
) -> None:
    store = Store()
    number = 0
    for step in steps:
        if isinstance(step, list):
            batch = [message(number + index, hours * 3600, text) for index, (hours, text) in enumerate(step)]
            number += len(batch)
            for _ in range(repetitions):
                store.deliver(batch)
        elif store.tickets:
            kind, index, hours = step
            ticket_id = list(store.tickets)[index % len(store.tickets)]
            activity = store.apply(kind, ticket_id, hours, repetitions)
            assert apply_activities([activity], store.tickets.values()) == ()
        store.check()
    assert len(store.ticket_of) == number


@st.composite
def answers_to_an_old_ticket(draw: st.DrawFn) -> tuple[float | None, list[ChannelMessage], list[list[ChannelMessage]]]:
    """When the old ticket of hour 0 is resolved (hours), if at all; a burst within a minute whose messages all answer
    its first message, at any time after, often around the end of the reopen window; and batches that deliver it,
    repetitions included, in any order. Perhaps the customer opened other tickets in between.
    """
    resolved_at = draw(st.none() | st.floats(1, 50))
    at_the_end = ((resolved_at or 50) + 72) * 3600 - 30
    begins = draw(st.floats(60 * 3600, 500 * 3600) | st.just(at_the_end))
    offsets = draw(st.lists(st.floats(0, 60), min_size=1, max_size=5))
    names = [("m-0",), ("of-nobody", "m-0"), ("m-0", "of-nobody")]
    burst = [
        message(100 + number, begins + offset, in_reply_to=draw(st.sampled_from(names)))
        for number, offset in enumerate(offsets)
    ]
    others = [
        message(10 + number, hours * 3600)
        for number, hours in enumerate(draw(st.lists(st.floats(26, 600), max_size=3)))
        if (resolved_at or 0) + 73 < hours < begins / 3600
    ]
    order = draw(st.permutations([*burst, *draw(st.lists(st.sampled_from(burst), max_size=5))]))
    size = draw(st.integers(1, len(order)))
    return resolved_at, burst, [others, *(order[start : start + size] for start in range(0, len(order), size))]


@given(answers_to_an_old_ticket())
def test_a_burst_that_answers_an_old_ticket_is_one_ticket_and_that_one_or_linked_to_it(
    delivery: tuple[float | None, list[ChannelMessage], list[list[ChannelMessage]]],
) -> None:
    resolved_at, burst, batches = delivery
    store = Store()
    store.deliver([message(0, 0)])
    (old,) = store.tickets
    if resolved_at is not None:
        store.apply(ActivityKind.RESOLVED, old, resolved_at)
    for batch in batches:
        store.deliver(batch)
        store.check()
    (joined,) = {store.ticket_of[item.message_id] for item in burst}
    assert joined is not None
    sent = [item.sent_at for item in burst]
    until = None if resolved_at is None else T0 + timedelta(hours=resolved_at) + WINDOWS.reopen
    if until is None or max(sent) <= until:
        assert joined == old
    if until is not None and min(sent) > until:
        assert joined != old
    if joined == old:  # also one whose burst is cut by the end of the window may be
        assert store.tickets[old].resolved_at is None
    else:
        assert store.tickets[joined].linked_ticket_id == old
        assert store.tickets[old].resolved_at is not None


@st.composite
def changed_messages(draw: st.DrawFn) -> tuple[dict[str, str | None], list[list[ChannelMessage]]]:
    """Messages of one minute, each edited up to three times and perhaps taken back at last, within an hour: which words
    stand in the end (None: taken back), and batches that deliver it all, repetitions included, in any order.
    """
    standing: dict[str, str | None] = {}
    everything: list[ChannelMessage] = []
    for number in range(draw(st.integers(1, 3))):
        original = message(number, draw(st.floats(0, 60)), text=f"{number}: 0")
        name = original.message_id
        standing[name] = original.text
        everything.append(original)
        for version in range(1, draw(st.integers(1, 4))):
            words = f"{number}: {version}"
            everything.append(
                message(0, 60 + version * 600, text=words, message_id=f"{name}/edited/{version}", edits=name)
            )
            standing[name] = words
        if draw(st.booleans()):
            everything.append(message(0, 3600, text="", message_id=f"{name}/deleted", deletes=name))
            standing[name] = None
    order = draw(st.permutations([*everything, *draw(st.lists(st.sampled_from(everything), max_size=5))]))
    size = draw(st.integers(1, len(order)))
    return standing, [order[start : start + size] for start in range(0, len(order), size)]


@given(changed_messages())
def test_whatever_the_order_the_last_words_stand_and_what_was_taken_back_is_gone(
    delivery: tuple[dict[str, str | None], list[list[ChannelMessage]]],
) -> None:
    standing, batches = delivery
    store = Store()
    for batch in batches:
        store.deliver(batch)
        store.check()
    assert len(store.tickets) <= 1
    assert store.tickets or all(words is None for words in standing.values())
    for name, words in standing.items():
        of_message = [told for key, told in store.told.items() if key.split("/")[0] == name and not told.placed.deletes]
        if words is None:
            assert all(told.text == "" for told in of_message)
        else:
            # Whoever reads what is published takes the last for what counts.
            latest = max(of_message, key=lambda told: told.placed.ticket.message_count)
            assert latest.text == words
