"""The table of rules, cell by cell: what each event does to a clock that runs, is paused, has ended."""

from __future__ import annotations

import uuid

import pytest

from services.sla_timer.domain.clocks import State
from services.sla_timer.domain.rules import AUTOMATIC, TABLE, Effect, What, table_text, what_of
from shared.events import ActivityKind, Target, TicketActivity
from shared.taxonomy import Priority, Queue
from tests.unit.sla_timer.support import NINE, Watch, happened

FIRST, NEXT, UPDATE, RESOLUTION = Target
RUNNING, PAUSED, MET, CANCELLED = State.RUNNING, State.PAUSED, State.MET, State.CANCELLED
WROTE, REPLIED, WAITING, RESOLVED, REOPENED = (
    What.CUSTOMER_WROTE,
    What.REPLIED,
    What.WAITING,
    What.RESOLVED,
    What.REOPENED,
)
THANKED, ACKNOWLEDGED, MERGED, TOOK_OVER = (
    What.CUSTOMER_THANKED,
    What.ACKNOWLEDGED,
    What.MERGED,
    What.TOOK_OVER,
)


@pytest.mark.parametrize(
    ("story", "states"),
    [
        # opened
        ([], {FIRST: [RUNNING], RESOLUTION: [RUNNING]}),
        # an automatic acknowledgement meets nothing
        ([ACKNOWLEDGED], {FIRST: [RUNNING], RESOLUTION: [RUNNING]}),
        ([REPLIED, WROTE, ACKNOWLEDGED], {FIRST: [MET], NEXT: [RUNNING], UPDATE: [RUNNING], RESOLUTION: [RUNNING]}),
        # a customer who writes again before the first answer is owed that answer, nothing more
        ([WROTE], {FIRST: [RUNNING], RESOLUTION: [RUNNING]}),
        ([THANKED], {FIRST: [RUNNING], RESOLUTION: [RUNNING]}),
        # the first answer meets the first response, starts no next one, and from it on the customer is kept up to date
        ([REPLIED], {FIRST: [MET], UPDATE: [RUNNING], RESOLUTION: [RUNNING]}),
        ([REPLIED, REPLIED], {FIRST: [MET], UPDATE: [MET, RUNNING], RESOLUTION: [RUNNING]}),
        # then each message of the customer is owed an answer; further ones do not start a second
        ([REPLIED, WROTE], {FIRST: [MET], NEXT: [RUNNING], UPDATE: [RUNNING], RESOLUTION: [RUNNING]}),
        ([REPLIED, WROTE, WROTE], {FIRST: [MET], NEXT: [RUNNING], UPDATE: [RUNNING], RESOLUTION: [RUNNING]}),
        ([REPLIED, WROTE, REPLIED], {FIRST: [MET], NEXT: [MET], UPDATE: [MET, RUNNING], RESOLUTION: [RUNNING]}),
        (
            [REPLIED, WROTE, REPLIED, WROTE],
            {FIRST: [MET], NEXT: [MET, RUNNING], UPDATE: [MET, RUNNING], RESOLUTION: [RUNNING]},
        ),
        # but not one that only thanks
        ([REPLIED, THANKED], {FIRST: [MET], UPDATE: [RUNNING], RESOLUTION: [RUNNING]}),
        # waiting pauses; without a reply it is no answer
        ([WAITING], {FIRST: [RUNNING], RESOLUTION: [PAUSED]}),
        ([REPLIED, WAITING], {FIRST: [MET], UPDATE: [PAUSED], RESOLUTION: [PAUSED]}),
        ([REPLIED, WROTE, WAITING], {FIRST: [MET], NEXT: [PAUSED], UPDATE: [PAUSED], RESOLUTION: [PAUSED]}),
        ([REPLIED, WAITING, WROTE], {FIRST: [MET], NEXT: [RUNNING], UPDATE: [RUNNING], RESOLUTION: [RUNNING]}),
        ([REPLIED, WROTE, WAITING, WROTE], {FIRST: [MET], NEXT: [RUNNING], UPDATE: [RUNNING], RESOLUTION: [RUNNING]}),
        ([REPLIED, WAITING, WAITING, WROTE], {FIRST: [MET], NEXT: [RUNNING], UPDATE: [RUNNING], RESOLUTION: [RUNNING]}),
        # what was waited for may be no more than a thank you: the agent goes on
        ([REPLIED, WAITING, THANKED], {FIRST: [MET], UPDATE: [RUNNING], RESOLUTION: [RUNNING]}),
        ([REPLIED, WROTE, WAITING, THANKED], {FIRST: [MET], NEXT: [RUNNING], UPDATE: [RUNNING], RESOLUTION: [RUNNING]}),
        # an answer while waiting keeps the resolution paused, and no update is owed meanwhile
        ([REPLIED, WAITING, REPLIED], {FIRST: [MET], UPDATE: [PAUSED], RESOLUTION: [PAUSED]}),
        ([WAITING, REPLIED], {FIRST: [MET], RESOLUTION: [PAUSED]}),
        # resolved: answers an unanswered ticket; what is still owed falls away
        ([RESOLVED], {FIRST: [MET], RESOLUTION: [MET]}),
        ([REPLIED, WROTE, RESOLVED], {FIRST: [MET], NEXT: [CANCELLED], UPDATE: [CANCELLED], RESOLUTION: [MET]}),
        ([REPLIED, WAITING, RESOLVED], {FIRST: [MET], UPDATE: [CANCELLED], RESOLUTION: [MET]}),
        ([RESOLVED, RESOLVED, REPLIED, WAITING], {FIRST: [MET], RESOLUTION: [MET]}),
        # a thank you after it changes nothing
        ([RESOLVED, THANKED], {FIRST: [MET], RESOLUTION: [MET]}),
        ([REPLIED, RESOLVED, THANKED, THANKED], {FIRST: [MET], UPDATE: [CANCELLED], RESOLUTION: [MET]}),
        # reopened by an agent: a new resolution, and the customer is kept up to date; by the customer: an answer, too
        ([RESOLVED, REOPENED], {FIRST: [MET], UPDATE: [RUNNING], RESOLUTION: [MET, RUNNING]}),
        ([RESOLVED, WROTE], {FIRST: [MET], NEXT: [RUNNING], RESOLUTION: [MET, RUNNING]}),
        ([RESOLVED, THANKED, WROTE], {FIRST: [MET], NEXT: [RUNNING], RESOLUTION: [MET, RUNNING]}),
        ([RESOLVED, WROTE, REOPENED], {FIRST: [MET], NEXT: [RUNNING], UPDATE: [RUNNING], RESOLUTION: [MET, RUNNING]}),
        ([WAITING, REOPENED], {FIRST: [RUNNING], UPDATE: [RUNNING], RESOLUTION: [RUNNING]}),
        ([RESOLVED, WROTE, RESOLVED], {FIRST: [MET], NEXT: [CANCELLED], RESOLUTION: [MET, MET]}),
        # merged into another ticket, nothing is owed here any more
        ([MERGED], {FIRST: [CANCELLED], RESOLUTION: [CANCELLED]}),
        ([REPLIED, WROTE, MERGED], {FIRST: [MET], NEXT: [CANCELLED], UPDATE: [CANCELLED], RESOLUTION: [CANCELLED]}),
        ([RESOLVED, MERGED], {FIRST: [MET], RESOLUTION: [MET]}),
        # whoever writes on a merged ticket is owed an answer there
        ([MERGED, WROTE], {FIRST: [CANCELLED], NEXT: [RUNNING], RESOLUTION: [CANCELLED, RUNNING]}),
        # the ticket that goes on owes what a message of the customer would
        ([TOOK_OVER], {FIRST: [RUNNING], RESOLUTION: [RUNNING]}),
        ([REPLIED, TOOK_OVER], {FIRST: [MET], NEXT: [RUNNING], UPDATE: [RUNNING], RESOLUTION: [RUNNING]}),
        ([REPLIED, WAITING, TOOK_OVER], {FIRST: [MET], NEXT: [RUNNING], UPDATE: [RUNNING], RESOLUTION: [RUNNING]}),
        ([RESOLVED, TOOK_OVER], {FIRST: [MET], NEXT: [RUNNING], RESOLUTION: [MET, RUNNING]}),
    ],
)
def test_the_table(story: list[What], states: dict[Target, list[State]]) -> None:
    watch = Watch()
    watch.take(4, *(happened(what, 0.1 * index + 0.1) for index, what in enumerate(story)))
    found: dict[Target, list[State]] = {}
    for clock in sorted(watch.stored.values(), key=lambda clock: clock.generation):
        found.setdefault(clock.target, []).append(clock.state)
    assert found == states


def test_the_table_speaks_of_every_event_and_every_target() -> None:
    assert set(TABLE) == set(What)
    assert all(set(row) == set(Target) for row in TABLE.values())
    table, meanings = table_text().split("\n\n")
    assert len(table.splitlines()) == 1 + len(What)
    # Every word of the table is explained, and nothing else.
    assert {line.split()[0] for line in meanings.splitlines()} == {
        effect for row in TABLE.values() for effect in row.values() if effect is not Effect.NOTHING
    }


def test_activities_without_a_row_do_nothing_to_a_clock() -> None:
    def act(kind: ActivityKind, agent: str = "li") -> TicketActivity:
        other = uuid.UUID(int=2) if kind is ActivityKind.MERGED else None
        return TicketActivity(
            ticket_id=uuid.UUID(int=1),
            activity_id="1",
            kind=kind,
            agent=agent,
            at=NINE,
            text="on it",
            priority=Priority.P1,
            rating=5,
            merged_into=other,
        )

    silent = {kind for kind in ActivityKind if what_of(act(kind)) is None}
    assert silent == {ActivityKind.CLAIMED, ActivityKind.RELEASED, ActivityKind.RATED}
    # What no person wrote is an acknowledgement, whatever it is called.
    assert what_of(act(ActivityKind.REPLIED, AUTOMATIC)) is What.ACKNOWLEDGED
    assert what_of(act(ActivityKind.REPLIED)) is What.REPLIED


@pytest.mark.parametrize("what", [What.ROUTED, What.CORRECTED])
def test_a_reroute_and_a_change_of_priority_replan_what_is_open(what: What) -> None:
    watch = Watch()
    watch.take(2, happened(What.REPLIED, 1))
    changed = happened(
        what, 1 if what is What.ROUTED else 2, Priority.P1, Queue.SECURITY, 1 if what is What.ROUTED else 0
    )
    watch.take(3, changed)
    found = {clock.target: (clock.state, clock.priority, clock.queue) for clock in watch.stored.values()}
    assert found[RESOLUTION] == (RUNNING, Priority.P1, Queue.SECURITY)
    # P1 promises no updates. One that was promised as P3 stands; but the first routing says what it was from the start.
    assert found[UPDATE][0] is (RUNNING if what is What.CORRECTED else CANCELLED)
    # What had been met before stays as it was promised.
    assert found[FIRST] == ((MET, Priority.P3, None) if what is What.CORRECTED else (MET, Priority.P1, Queue.SECURITY))
