"""One ticket per burst, in whatever order, batches and repetitions the messages come."""

from __future__ import annotations

import uuid
from collections import defaultdict
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from services.intake.domain import Ticket, Windows, apply_activities, thread
from shared.events import ActivityKind, ChannelMessage, Customer, Disposition, TicketActivity
from shared.taxonomy import Channel
from tests.unit.intake.samples import T0, WINDOWS


def message(number: int, seconds: float, text: str = "充值没到账") -> ChannelMessage:
    return ChannelMessage(
        brand="upay",
        channel=Channel.WECHAT,
        message_id=f"m-{number}",
        customer=Customer(id="c-1"),
        text=text,
        sent_at=T0 + timedelta(seconds=seconds),
    )


class Store:
    """Keeps tickets and messages as the database does, and hands back only the tickets that the rules ask for."""

    def __init__(self, windows: Windows = WINDOWS) -> None:
        self.windows = windows
        self.tickets: dict[uuid.UUID, Ticket] = {}
        self.ticket_of: dict[str, uuid.UUID] = {}
        self.sequences: defaultdict[uuid.UUID, list[int]] = defaultdict(list)

    def deliver(self, batch: list[ChannelMessage]) -> None:
        new = {item.message_id: item for item in batch if item.message_id not in self.ticket_of}
        if not new:
            return
        threaded = thread(new.values(), self._near(min(item.sent_at for item in new.values())), self.windows)
        self.tickets |= {ticket.ticket_id: ticket for ticket in threaded.changed}
        for placed in threaded.placements:
            self.ticket_of[placed.message.message_id] = placed.ticket.ticket_id
            self.sequences[placed.ticket.ticket_id].append(placed.ticket.message_count)
            opens = placed.disposition is Disposition.OPENED
            assert opens == (placed.ticket.message_count == 1)
            assert not opens or placed.ticket.opened_at == placed.message.sent_at

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
