"""Invariant 8: the queue order is total, nobody waits for ever, and a raised priority never moves a ticket back."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from services.desk.domain import Patience, Rules, State, Ticket, after_activity, ranked
from shared.events import ActivityKind, TicketActivity
from shared.taxonomy import Priority, Queue

T0 = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)

priorities = st.sampled_from(list(Priority))
patiences = (
    st.lists(st.integers(0, 600), min_size=4, max_size=4)
    .map(sorted)
    .map(lambda parts: Patience(*(timedelta(minutes=part) for part in parts)))
)


def ticket(number: int, minute: int, priority: Priority, patience: Patience) -> Ticket:
    enqueued_at = T0 + timedelta(minutes=minute)
    return ranked(
        Ticket(uuid.UUID(int=number), queue=Queue.PAYMENTS, priority=priority, enqueued_at=enqueued_at), patience
    )


@given(
    st.lists(st.tuples(st.integers(0, 300), priorities), min_size=2, max_size=40),
    patiences,
    st.randoms(use_true_random=False),
)
def test_the_order_is_total_and_first_in_first_out_within_a_priority(
    arrivals: list[tuple[int, Priority]], patience: Patience, random: object
) -> None:
    tickets = [ticket(number, minute, priority, patience) for number, (minute, priority) in enumerate(arrivals)]
    shuffled = list(tickets)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    order = sorted(shuffled, key=lambda item: item.rank)
    assert order == sorted(tickets, key=lambda item: item.rank)
    assert len({item.rank for item in tickets}) == len(tickets)
    for priority in Priority:
        came = [item.enqueued_at for item in order if item.priority is priority]
        assert came == sorted(came)  # type: ignore[type-var]


@given(st.integers(0, 300), priorities, priorities, patiences)
def test_raising_a_priority_never_moves_a_ticket_back(
    minute: int, one: Priority, other: Priority, patience: Patience
) -> None:
    lower, higher = max(one, other), min(one, other)
    before = ticket(1, minute, lower, patience)
    correction = TicketActivity(
        ticket_id=before.ticket_id,
        activity_id="raise",
        kind=ActivityKind.CORRECTED,
        agent="lead",
        at=T0 + timedelta(days=30),
        priority=higher,
    )
    after = after_activity(before, correction, correction.at, Rules(patience), here=True)
    assert after.priority is higher
    assert after.rank <= before.rank
    assert after.enqueued_at == before.enqueued_at
    assert after.rank == ticket(1, minute, higher, patience).rank  # as if it had come with that priority


# One step of the adversary: minutes that pass, who arrives, what the one agent does with the ticket he claims, and a
# waiting ticket (by position) that is raised to P1.
steps = st.lists(
    st.tuples(
        st.integers(0, 90),
        st.lists(priorities, max_size=2),
        st.sampled_from(["resolve", "resolve", "give back", "rest"]),
        st.one_of(st.none(), st.integers(0, 50)),
    ),
    min_size=5,
    max_size=40,
)


@given(steps, st.integers(1, 4), patiences)
def test_nobody_is_overtaken_by_who_came_after_his_patience(
    adversary: list[tuple[int, list[Priority], str, int | None]], stream: int, patience: Patience
) -> None:
    """A stream of P1 that never ends, faster than the agent works, on top of what the adversary sends.

    The oracle knows nothing of ranks: whoever is claimed while x waits must have been enqueued before x's patience
    ran out; and once it has, no more tickets are resolved before x than there were then.
    """
    rules = Rules(patience)
    waiting: dict[uuid.UUID, Ticket] = {}
    limit: dict[uuid.UUID, int] = {}  # x -> how many may still be resolved before it
    minute = number = 0
    for passed, arrivals, deed, raised in adversary:
        minute += passed
        now = T0 + timedelta(minutes=minute)
        for priority in [*arrivals, *[Priority.P1] * stream]:
            number += 1
            waiting[uuid.UUID(int=number)] = ticket(number, minute, priority, patience)
        if raised is not None:
            chosen = list(waiting.values())[raised % len(waiting)]
            waiting[chosen.ticket_id] = ranked(replace(chosen, priority=Priority.P1), patience)
        patient = {key: _patience_ends(item, patience) for key, item in waiting.items()}
        for key, ends in patient.items():
            if now > ends:
                members = sum(_began(item) <= ends for other, item in waiting.items() if other != key)
                limit[key] = min(limit.get(key, members), members)
        if deed == "rest":
            continue
        claimed = min(waiting.values(), key=lambda item: item.rank)
        for key, ends in patient.items():
            if key != claimed.ticket_id:
                assert _began(claimed) <= ends, "claimed before one whose patience had run out when it came"
        if deed == "give back":
            waiting[claimed.ticket_id] = _claimed_and_given_back(claimed, now, rules)
            assert waiting[claimed.ticket_id].rank == claimed.rank
            continue
        del waiting[claimed.ticket_id]
        limit.pop(claimed.ticket_id, None)
        for key in limit:
            limit[key] -= 1
            assert limit[key] >= 0, "more were resolved before it than were there when its patience ran out"


def _began(item: Ticket) -> datetime:
    assert item.enqueued_at is not None
    return item.enqueued_at


def _patience_ends(item: Ticket, patience: Patience) -> datetime:
    """t + w, written out: no use of `rank_at`."""
    assert item.priority is not None
    minutes = {Priority.P1: patience.p1, Priority.P2: patience.p2, Priority.P3: patience.p3, Priority.P4: patience.p4}
    return _began(item) + minutes[item.priority]


def _claimed_and_given_back(item: Ticket, now: datetime, rules: Rules) -> Ticket:
    for kind in (ActivityKind.CLAIMED, ActivityKind.RELEASED):
        activity = TicketActivity(ticket_id=item.ticket_id, activity_id=f"{kind}-{now}", kind=kind, agent="mei", at=now)
        item = after_activity(item, activity, now, rules, here=True)
        assert item.state is (State.CLAIMED if kind is ActivityKind.CLAIMED else State.QUEUED)
    return item
