"""The table of rules, cell by cell: what each event does to a clock that runs, is paused, has ended."""

from __future__ import annotations

import pytest

from services.sla_timer.domain.clocks import State
from services.sla_timer.domain.rules import OF_ACTIVITY, TABLE, What, table_text
from shared.events import ActivityKind, Target
from tests.unit.sla_timer.support import Watch, happened

FIRST, NEXT, RESOLUTION = Target.FIRST_RESPONSE, Target.NEXT_RESPONSE, Target.RESOLUTION
RUNNING, PAUSED, MET, CANCELLED = State.RUNNING, State.PAUSED, State.MET, State.CANCELLED
WROTE, REPLIED, WAITING, RESOLVED, REOPENED = (
    What.CUSTOMER_WROTE,
    What.REPLIED,
    What.WAITING,
    What.RESOLVED,
    What.REOPENED,
)


@pytest.mark.parametrize(
    ("story", "states"),
    [
        # opened
        ([], {FIRST: [RUNNING], RESOLUTION: [RUNNING]}),
        # a customer who writes again before the first answer is owed that answer, nothing more
        ([WROTE], {FIRST: [RUNNING], RESOLUTION: [RUNNING]}),
        # the first answer meets the first response, and starts no other promise
        ([REPLIED], {FIRST: [MET], RESOLUTION: [RUNNING]}),
        # then each message of the customer is owed one; further ones do not start a second
        ([REPLIED, WROTE], {FIRST: [MET], NEXT: [RUNNING], RESOLUTION: [RUNNING]}),
        ([REPLIED, WROTE, WROTE], {FIRST: [MET], NEXT: [RUNNING], RESOLUTION: [RUNNING]}),
        ([REPLIED, WROTE, REPLIED], {FIRST: [MET], NEXT: [MET], RESOLUTION: [RUNNING]}),
        ([REPLIED, WROTE, REPLIED, WROTE], {FIRST: [MET], NEXT: [MET, RUNNING], RESOLUTION: [RUNNING]}),
        # waiting pauses the resolution; without a reply it is no answer
        ([WAITING], {FIRST: [RUNNING], RESOLUTION: [PAUSED]}),
        ([REPLIED, WAITING], {FIRST: [MET], RESOLUTION: [PAUSED]}),
        ([REPLIED, WROTE, WAITING], {FIRST: [MET], NEXT: [PAUSED], RESOLUTION: [PAUSED]}),
        ([REPLIED, WAITING, WROTE], {FIRST: [MET], NEXT: [RUNNING], RESOLUTION: [RUNNING]}),
        ([REPLIED, WROTE, WAITING, WROTE], {FIRST: [MET], NEXT: [RUNNING], RESOLUTION: [RUNNING]}),
        ([REPLIED, WAITING, WAITING, WROTE], {FIRST: [MET], NEXT: [RUNNING], RESOLUTION: [RUNNING]}),
        # an answer while waiting keeps the resolution paused
        ([REPLIED, WAITING, REPLIED], {FIRST: [MET], RESOLUTION: [PAUSED]}),
        # resolved: answers an unanswered ticket; an answer still owed falls away
        ([RESOLVED], {FIRST: [MET], RESOLUTION: [MET]}),
        ([REPLIED, WROTE, RESOLVED], {FIRST: [MET], NEXT: [CANCELLED], RESOLUTION: [MET]}),
        ([REPLIED, WAITING, RESOLVED], {FIRST: [MET], RESOLUTION: [MET]}),
        ([RESOLVED, RESOLVED, REPLIED, WAITING], {FIRST: [MET], RESOLUTION: [MET]}),
        # reopened by an agent: a new resolution, no answer owed; by the customer: both
        ([RESOLVED, REOPENED], {FIRST: [MET], RESOLUTION: [MET, RUNNING]}),
        ([RESOLVED, WROTE], {FIRST: [MET], NEXT: [RUNNING], RESOLUTION: [MET, RUNNING]}),
        ([RESOLVED, WROTE, REOPENED], {FIRST: [MET], NEXT: [RUNNING], RESOLUTION: [MET, RUNNING]}),
        ([REOPENED], {FIRST: [RUNNING], RESOLUTION: [RUNNING]}),
        ([WAITING, REOPENED], {FIRST: [RUNNING], RESOLUTION: [RUNNING]}),
        ([RESOLVED, WROTE, RESOLVED], {FIRST: [MET], NEXT: [CANCELLED], RESOLUTION: [MET, MET]}),
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
    assert len(table_text().splitlines()) == 1 + len(What)


def test_activities_without_a_row_do_nothing_to_a_clock() -> None:
    assert set(ActivityKind) - set(OF_ACTIVITY) == {ActivityKind.CLAIMED, ActivityKind.RELEASED, ActivityKind.RATED}
