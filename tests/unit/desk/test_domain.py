"""What may be done with a ticket, by whom, and what each activity does to it."""

from __future__ import annotations

import uuid
from dataclasses import replace
from itertools import permutations

import pytest

from services.desk.domain import (
    ACTIONS,
    Action,
    Patience,
    RefusalCode,
    Rules,
    State,
    Ticket,
    after_activity,
    after_customer_wrote,
    after_took_over,
    claim_expired,
    merge_refusal,
    ranked,
    refusal,
)
from shared.events import ActivityKind, ReleaseReason
from shared.taxonomy import Category, Priority, Queue
from tests.unit.desk.samples import T0, activity, at, minutes

ID = uuid.UUID(int=7)
RULES = Rules()
WAITING = ranked(
    Ticket(ID, queue=Queue.PAYMENTS, priority=Priority.P3, category=Category.TOP_UP, enqueued_at=T0, sequence=1),
    RULES.patience,
)


def done(ticket: Ticket, kind: ActivityKind, minute: float, agent: str = "mei", **changes: object) -> Ticket:
    """After an activity that came through the desk."""
    return after_activity(ticket, activity(ID, kind, at(minute), agent, **changes), at(minute), RULES, here=True)


def told(ticket: Ticket, kind: ActivityKind, minute: float, agent: str = "kafka", heard: float = 60.0) -> Ticket:
    """After an activity of another tool, heard of at minute `heard`."""
    return after_activity(ticket, activity(ID, kind, at(minute), agent), at(heard), RULES, here=False)


CLAIMED = done(WAITING, ActivityKind.CLAIMED, 1)
ON_CUSTOMER = done(CLAIMED, ActivityKind.WAITING_ON_CUSTOMER, 2)
RESOLVED = done(CLAIMED, ActivityKind.RESOLVED, 3)
OTHER = uuid.UUID(int=8)
MERGED = done(CLAIMED, ActivityKind.MERGED, 3, merged_into=OTHER)
BY_STATE = {
    State.QUEUED: WAITING,
    State.CLAIMED: CLAIMED,
    State.WAITING_ON_CUSTOMER: ON_CUSTOMER,
    State.RESOLVED: RESOLVED,
}


def test_a_claim_is_held_until_its_agent_has_been_silent_for_too_long() -> None:
    assert (CLAIMED.state, CLAIMED.claimed_by, CLAIMED.claim_expires_at) == (State.CLAIMED, "mei", at(16))
    assert not claim_expired(CLAIMED, at(15.99))
    assert claim_expired(CLAIMED, at(16))
    replied = done(CLAIMED, ActivityKind.REPLIED, 10)
    assert replied.claim_expires_at == at(25)
    assert not claim_expired(replied, at(16))


@pytest.mark.parametrize("ticket", [ON_CUSTOMER, RESOLVED, WAITING])
def test_only_a_claimed_ticket_is_taken_back(ticket: Ticket) -> None:
    assert not claim_expired(ticket, at(10_000))


def test_a_ticket_that_comes_back_keeps_its_place() -> None:
    back = done(CLAIMED, ActivityKind.RELEASED, 16, "switchyard", release_reason=ReleaseReason.TAKE_BACK)
    assert back.state is State.QUEUED
    assert back.claimed_by is None
    assert back.rank == WAITING.rank


@pytest.mark.parametrize("action", list(Action))
@pytest.mark.parametrize("state", list(State))
def test_an_action_needs_its_state_and_its_holder(action: Action, state: State) -> None:
    ticket = BY_STATE[state]
    allowed = state in ACTIONS[action].states
    mine = refusal(ticket, action, "mei", is_lead=False)
    lead = refusal(ticket, action, "boss", is_lead=True)
    other = refusal(ticket, action, "tom", is_lead=False)
    assert (lead is None) == allowed
    assert (mine is None) == (allowed and state is not State.QUEUED)
    assert other is not None
    if not allowed and state is not State.QUEUED:
        assert other.code is RefusalCode.WRONG_STATE
        assert state.value in other.detail
    elif state is State.QUEUED:
        assert other.code is RefusalCode.NOT_CLAIMED
    else:
        assert other.code is RefusalCode.CLAIMED_BY_ANOTHER
        assert "mei" in other.detail


def test_states_of_actions_are_the_ones_documented() -> None:
    assert {action: sorted(rule.states) for action, rule in ACTIONS.items()} == {
        Action.REPLY: ["claimed", "waiting_on_customer"],
        Action.WAIT: ["claimed"],
        Action.RESOLVE: ["claimed", "waiting_on_customer"],
        Action.MERGE: ["claimed", "waiting_on_customer"],
        Action.REOPEN: ["resolved"],
        Action.RELEASE: ["claimed"],
        Action.REROUTE: ["claimed", "queued", "waiting_on_customer"],
    }


def test_reopening_claims_and_begins_a_new_wait() -> None:
    reopened = done(RESOLVED, ActivityKind.REOPENED, 30)
    assert (reopened.state, reopened.claimed_by, reopened.enqueued_at) == (State.CLAIMED, "mei", at(30))
    assert reopened.rank_at == at(30) + minutes(120)


def test_a_correction_to_another_queue_puts_a_claimed_ticket_there() -> None:
    moved = done(CLAIMED, ActivityKind.CORRECTED, 5, queue=Queue.SECURITY, priority=Priority.P1)
    assert (moved.state, moved.queue, moved.claimed_by) == (State.QUEUED, Queue.SECURITY, None)
    assert moved.rank_at == T0  # from the original beginning of the wait, P1 has no patience
    raised = done(CLAIMED, ActivityKind.CORRECTED, 5, priority=Priority.P1)
    assert (raised.state, raised.claimed_by, raised.claim_expires_at) == (State.CLAIMED, "mei", at(20))
    waiting = done(ON_CUSTOMER, ActivityKind.CORRECTED, 5, queue=Queue.SECURITY)
    assert (waiting.state, waiting.queue) == (State.WAITING_ON_CUSTOMER, Queue.SECURITY)


def test_who_answers_a_waiting_ticket_by_another_tool_holds_it() -> None:
    answered = told(WAITING, ActivityKind.REPLIED, 4)
    assert (answered.state, answered.claimed_by) == (State.CLAIMED, "kafka")
    assert answered.claim_expires_at == at(75)  # 15 minutes from minute 60, when the desk heard of it
    assert told(RESOLVED, ActivityKind.REPLIED, 9) == RESOLVED
    assert told(CLAIMED, ActivityKind.REPLIED, 9) == CLAIMED  # another's word is not the holder's


def test_of_other_tools_activities_the_later_wins_in_whatever_order_they_come() -> None:
    kinds = (
        ActivityKind.CLAIMED,
        ActivityKind.WAITING_ON_CUSTOMER,
        ActivityKind.RELEASED,
        ActivityKind.RESOLVED,
    )
    events = [activity(ID, kind, at(10 + minute), f"agent-{minute}") for minute, kind in enumerate(kinds)]
    for order in permutations(events):
        ticket = WAITING
        for event in order:
            ticket = after_activity(ticket, event, at(60), RULES, here=False)
        assert (ticket.state, ticket.claimed_by, ticket.claim_expires_at) == (State.RESOLVED, "agent-3", None)


def test_a_clock_in_the_future_does_not_deafen_a_ticket() -> None:
    ahead = told(WAITING, ActivityKind.CLAIMED, 100_000, heard=20)
    assert ahead.state_at == at(20)
    assert told(ahead, ActivityKind.RESOLVED, 21, heard=21).state is State.RESOLVED


@pytest.mark.parametrize("ticket", [ON_CUSTOMER, RESOLVED])
def test_what_a_customer_writes_puts_his_ticket_back(ticket: Ticket) -> None:
    back = after_customer_wrote(ticket, 2, at(40), RULES)
    assert (back.state, back.claimed_by, back.sequence) == (State.QUEUED, None, 2)
    began = at(40) if ticket is RESOLVED else T0
    assert back.enqueued_at == began
    assert after_customer_wrote(back, 2, at(41), RULES) == back  # the other topic tells of the same message


@pytest.mark.parametrize("ticket", [WAITING, CLAIMED])
def test_a_message_leaves_a_queued_or_claimed_ticket_where_it_is(ticket: Ticket) -> None:
    assert after_customer_wrote(ticket, 2, at(40), RULES) == replace(ticket, sequence=2)


def test_a_message_the_agent_could_not_have_seen_is_not_answered_by_what_he_did() -> None:
    late = after_customer_wrote(RESOLVED, 2, at(2.5), RULES)  # accepted before, heard of after he resolved it here
    assert (late.state, late.enqueued_at) == (State.QUEUED, at(3))
    elsewhere = told(WAITING, ActivityKind.RESOLVED, 3)  # another tool may have been faster than our topics
    assert after_customer_wrote(elsewhere, 2, at(2.5), RULES).state is State.RESOLVED
    assert after_customer_wrote(elsewhere, 2, at(3.5), RULES).state is State.QUEUED


def test_the_opening_message_does_not_reopen_what_was_resolved_before_the_desk_heard_of_it() -> None:
    unseen = told(Ticket(ID), ActivityKind.RESOLVED, 3)
    assert after_customer_wrote(unseen, 1, at(4), RULES).state is State.RESOLVED


@pytest.mark.parametrize("ticket", [RESOLVED, MERGED])
def test_a_courtesy_leaves_a_resolved_ticket_resolved_and_is_counted(ticket: Ticket) -> None:
    thanked = after_customer_wrote(ticket, 2, at(40), RULES, courtesy=True)
    assert thanked == replace(ticket, sequence=2)
    back = after_customer_wrote(thanked, 3, at(41), RULES)  # "but it is not there"
    assert (back.state, back.enqueued_at, back.merged_into) == (State.QUEUED, at(41), None)


def test_a_courtesy_to_a_ticket_that_waits_on_its_customer_puts_it_back() -> None:
    back = after_customer_wrote(ON_CUSTOMER, 2, at(40), RULES, courtesy=True)
    assert (back.state, back.enqueued_at) == (State.QUEUED, T0)


def test_a_merged_ticket_is_resolved_and_says_where_it_went() -> None:
    assert (MERGED.state, MERGED.merged_into, MERGED.resolved_at) == (State.RESOLVED, OTHER, at(3))
    assert (MERGED.claimed_by, MERGED.claim_expires_at) == ("mei", None)
    again = told(MERGED, ActivityKind.RESOLVED, 9)
    assert (again.merged_into, again.resolved_at) == (OTHER, at(9))  # resolving a resolved ticket takes nothing up
    assert told(MERGED, ActivityKind.REOPENED, 2) == MERGED  # late, and overtaken


@pytest.mark.parametrize("action", list(Action))
@pytest.mark.parametrize("is_lead", [False, True])
def test_nothing_is_done_with_a_merged_ticket_and_the_refusal_names_the_other(action: Action, is_lead: bool) -> None:
    refused = refusal(MERGED, action, "mei", is_lead=is_lead)
    assert refused is not None
    assert refused.code is RefusalCode.MERGED
    assert str(OTHER) in refused.detail


@pytest.mark.parametrize(
    "kind",
    [ActivityKind.REOPENED, ActivityKind.CLAIMED, ActivityKind.RELEASED, ActivityKind.WAITING_ON_CUSTOMER],
)
def test_another_tool_that_takes_a_merged_ticket_up_again_ends_the_merge(kind: ActivityKind) -> None:
    assert told(MERGED, kind, 9).merged_into is None
    assert told(MERGED, kind, 9).state is not State.RESOLVED


@pytest.mark.parametrize(
    ("into", "brand", "code", "named"),
    [
        (replace(WAITING, ticket_id=OTHER), "upay", None, ""),
        (replace(ON_CUSTOMER, ticket_id=OTHER), "upay", None, ""),
        (replace(RESOLVED, ticket_id=OTHER), "upay", None, ""),  # it is taken up again: see `after_took_over`
        (CLAIMED, "upay", RefusalCode.SAME_TICKET, "itself"),
        (replace(WAITING, ticket_id=OTHER), "topay", RefusalCode.OTHER_BRAND, "brand topay"),
        (replace(WAITING, ticket_id=OTHER), None, RefusalCode.OTHER_BRAND, "brand None"),
        (replace(MERGED, ticket_id=OTHER, merged_into=ID), "upay", RefusalCode.MERGED, "into this one"),
        (replace(MERGED, ticket_id=OTHER, merged_into=uuid.UUID(int=5)), "upay", RefusalCode.MERGED, "-000000000005"),
    ],
)
def test_into_which_ticket_another_may_be_merged(
    into: Ticket, brand: str | None, code: RefusalCode | None, named: str
) -> None:
    refused = merge_refusal(CLAIMED, "upay", into, brand)
    assert (refused.code if refused else None) is code
    assert refused is None or named in refused.detail


def test_merges_made_one_by_one_never_run_in_a_circle() -> None:
    """Every order of all merges among three tickets: what is allowed leads somewhere, and ends there."""
    ids = [uuid.UUID(int=number) for number in (1, 2, 3)]
    for order in permutations(list(permutations(ids, 2))):
        tickets = {ticket_id: replace(CLAIMED, ticket_id=ticket_id) for ticket_id in ids}
        for one, other in order:
            if refusal(tickets[one], Action.MERGE, "mei", is_lead=False) is None and (
                merge_refusal(tickets[one], "upay", tickets[other], "upay") is None
            ):
                tickets[one] = replace(tickets[one], state=State.RESOLVED, merged_into=other)
        (end,) = (ticket for ticket in tickets.values() if ticket.merged_into is None)
        for ticket in tickets.values():
            first = ticket.merged_into
            second = first and tickets[first].merged_into
            assert end.ticket_id in (ticket.ticket_id, first, second)


def test_the_ticket_that_goes_on_is_taken_up_as_if_its_customer_had_written() -> None:
    back = after_took_over(ON_CUSTOMER, at(40), RULES, here=True)
    assert (back.state, back.enqueued_at, back.claimed_by) == (State.QUEUED, T0, None)
    reopened = after_took_over(RESOLVED, at(40), RULES, here=True)
    assert (reopened.state, reopened.enqueued_at) == (State.QUEUED, at(40))
    assert after_took_over(WAITING, at(40), RULES, here=True) == WAITING
    assert after_took_over(CLAIMED, at(40), RULES, here=True) == CLAIMED
    ended = after_took_over(MERGED, at(40), RULES, here=False)  # two tools that merge a pair into each other
    assert (ended.state, ended.merged_into) == (State.QUEUED, None)


def test_a_merge_by_another_tool_that_the_agent_had_seen_takes_nothing_up() -> None:
    elsewhere = told(WAITING, ActivityKind.RESOLVED, 3)
    assert after_took_over(elsewhere, at(2.5), RULES, here=False) == elsewhere
    assert after_took_over(elsewhere, at(3.5), RULES, here=False).state is State.QUEUED
    assert after_took_over(RESOLVED, at(2.5), RULES, here=False).state is State.QUEUED  # resolved here, not knowing


def test_rating_changes_nothing() -> None:
    assert told(RESOLVED, ActivityKind.RATED, 50) == RESOLVED


def test_of_two_with_the_same_rank_time_the_one_who_has_waited_longer_is_next() -> None:
    patient = ranked(replace(WAITING, ticket_id=uuid.UUID(int=99)), RULES.patience)
    urgent = ranked(replace(WAITING, priority=Priority.P1, enqueued_at=at(120)), RULES.patience)
    assert patient.rank_at == urgent.rank_at
    assert patient.rank < urgent.rank


def test_patience_must_rise_from_p1_to_p4() -> None:
    with pytest.raises(ValueError, match="rise from P1 to P4"):
        Patience(p2=minutes(200))
    with pytest.raises(ValueError, match="zero or more"):
        Patience(p1=minutes(-1))


def test_a_ticket_that_was_not_routed_has_no_rank() -> None:
    with pytest.raises(ValueError, match="not been routed"):
        _ = Ticket(ID).rank
