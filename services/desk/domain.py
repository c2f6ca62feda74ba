"""Who is next, and what may be done with a ticket: the desk's decisions, without I/O.

Queue order (invariant 8)
-------------------------
A waiting ticket has `rank_at = enqueued_at + patience(priority)`; the next ticket of a queue is the one with the
smallest `(rank_at, enqueued_at, ticket_id)`. Ids are unique, so the order is total; within a priority it is first in,
first out.

No ticket waits for ever. Let x be enqueued at t with patience w, and y be ahead of x. Patience is never negative, so
`y.enqueued_at <= y.rank_at <= x.rank_at = t + w`: only tickets enqueued before t + w can ever be served before x (of
those enqueued at that very moment only for w = 0, by id), whatever arrives later and however urgent it is. That set is
closed at t + w. Afterwards
- resolving one of its members removes it for good: a reopened ticket begins a new wait, with a new `enqueued_at`;
- one that is taken back, released or answered by its customer keeps its `enqueued_at`: it was a member already;
- raising a priority may put a member ahead of x, and makes no member: `enqueued_at` stays.
So from t + w on the number of its unresolved members, which bounds how many are served before x, only falls; unless
priorities are raised, so does the number ahead. With P1's patience of zero, a P1 ticket waits only for tickets enqueued
before it. Patience rises from P1 to P4, so raising a priority never moves a ticket back.

State machine
-------------
    queued --claim--> claimed --wait--> waiting_on_customer --(customer writes)--> queued
       ^                |  ^                  |
       |  release,      |  reopen          resolve
       |  take-back,    |                     v
       +- reroute ------+--resolve-------> resolved --(customer writes)--> queued
                              or merge

What only thanks (`shared.courtesy`) leaves a resolved ticket resolved. A merged ticket is a resolved one that says
which ticket goes on for both: the surviving one hears of it as if its customer had written there. Whatever takes a
merged ticket up again (its customer, another tool) ends the merge; an agent at the desk is sent to the surviving one.

An agent's request is checked by `refusal`. What an activity does to a ticket is `after_activity`, for the desk's own
activities and for those of other tools alike. The latter have already happened when the desk hears of them: they are
never refused, and of two the later wins.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from shared.events import ActivityKind, TicketActivity
from shared.taxonomy import Category, Priority, Queue

RankKey = tuple[datetime, datetime, uuid.UUID]


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a ticket of each priority lets later, more urgent ones pass."""

    p1: timedelta = timedelta(0)
    p2: timedelta = timedelta(minutes=15)
    p3: timedelta = timedelta(hours=2)
    p4: timedelta = timedelta(hours=8)

    def __post_init__(self) -> None:
        if not timedelta(0) <= self.p1 <= self.p2 <= self.p3 <= self.p4:
            # Otherwise raising a priority could move a ticket back, or a ticket rank before it came.
            raise ValueError(
                "patience must rise from P1 to P4 and start at zero or more, but is "
                f"P1 {self.p1}, P2 {self.p2}, P3 {self.p3}, P4 {self.p4}: set desk patience in that order"
            )

    def of(self, priority: Priority) -> timedelta:
        return (self.p1, self.p2, self.p3, self.p4)[priority.level - 1]

    def rank_at(self, enqueued_at: datetime, priority: Priority) -> datetime:
        """Until when a more urgent newcomer may still pass a ticket."""
        return enqueued_at + self.of(priority)


class State(StrEnum):
    QUEUED = "queued"
    CLAIMED = "claimed"
    WAITING_ON_CUSTOMER = "waiting_on_customer"
    RESOLVED = "resolved"


@dataclass(frozen=True, slots=True)
class Rules:
    """What an installation may set."""

    patience: Patience = Patience()
    take_back_after: timedelta = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class Ticket:
    """Where a ticket stands: all that order, permission and the effect of an activity depend on.

    `queue`, `priority` and the times of waiting are none until the classifier's decision has been seen.
    """

    ticket_id: uuid.UUID
    state: State = State.QUEUED
    queue: Queue | None = None
    category: Category | None = None
    priority: Priority | None = None
    enqueued_at: datetime | None = None
    """When this wait began; kept through claims, take-backs and moves; new when a resolved ticket is reopened."""
    rank_at: datetime | None = None
    claimed_by: str | None = None
    """Who holds it; while waiting or resolved, who held it last."""
    claimed_at: datetime | None = None
    claim_expires_at: datetime | None = None
    state_at: datetime | None = None
    """When the activity happened that made the state what it is."""
    acted_here: bool = False
    """Whether that activity came through this desk, i.e. was done in view of what the desk had seen."""
    resolved_at: datetime | None = None
    merged_into: uuid.UUID | None = None
    """The ticket that goes on for both. Only of a resolved ticket: none as soon as it is taken up again."""
    corrected_at: datetime | None = None
    sequence: int = 0
    """Of the latest message seen."""
    revision: int = 0
    """Of the latest routing seen."""
    routed_at: datetime | None = None

    @property
    def rank(self) -> RankKey:
        """Its place in the queue order. Raises ValueError for a ticket that has not been routed."""
        if self.rank_at is None or self.enqueued_at is None:
            raise ValueError(f"ticket {self.ticket_id} has no rank yet: it has not been routed to a queue")
        return (self.rank_at, self.enqueued_at, self.ticket_id)


def ranked(ticket: Ticket, patience: Patience) -> Ticket:
    """The ticket with the rank that follows from its priority and the beginning of its wait."""
    if ticket.enqueued_at is None or ticket.priority is None:
        return ticket
    return replace(ticket, rank_at=patience.rank_at(ticket.enqueued_at, ticket.priority))


class Action(StrEnum):
    """What can be asked of the desk about one ticket (claiming asks for the next one instead)."""

    REPLY = "reply"
    WAIT = "wait"
    RESOLVE = "resolve"
    MERGE = "merge"
    REOPEN = "reopen"
    RELEASE = "release"
    REROUTE = "reroute"


@dataclass(frozen=True, slots=True)
class ActionRule:
    """The activity that an action is, and the states it starts from."""

    kind: ActivityKind
    states: frozenset[State]


_OPEN_TO_HOLDER: Final = frozenset({State.CLAIMED, State.WAITING_ON_CUSTOMER})

ACTIONS: Final[Mapping[Action, ActionRule]] = MappingProxyType(
    {
        Action.REPLY: ActionRule(ActivityKind.REPLIED, _OPEN_TO_HOLDER),
        Action.WAIT: ActionRule(ActivityKind.WAITING_ON_CUSTOMER, frozenset({State.CLAIMED})),
        Action.RESOLVE: ActionRule(ActivityKind.RESOLVED, _OPEN_TO_HOLDER),
        Action.MERGE: ActionRule(ActivityKind.MERGED, _OPEN_TO_HOLDER),
        Action.REOPEN: ActionRule(ActivityKind.REOPENED, frozenset({State.RESOLVED})),
        Action.RELEASE: ActionRule(ActivityKind.RELEASED, frozenset({State.CLAIMED})),
        Action.REROUTE: ActionRule(ActivityKind.CORRECTED, _OPEN_TO_HOLDER | {State.QUEUED}),
    }
)


class RefusalCode(StrEnum):
    WRONG_STATE = "wrong_state"
    CLAIMED_BY_ANOTHER = "claimed_by_another"
    NOT_CLAIMED = "not_claimed"
    MERGED = "merged"
    SAME_TICKET = "same_ticket"
    NO_SUCH_TICKET = "no_such_ticket"
    OTHER_BRAND = "other_brand"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an action is not possible now, and what would make it so."""

    code: RefusalCode
    detail: str


def refusal(ticket: Ticket, action: Action, agent: str, *, is_lead: bool) -> Refusal | None:
    """None if `agent` may do `action` now. A lead may act on tickets that others hold, and move waiting ones."""
    return _refusal(ticket, f"{action.value} it", ACTIONS[action].states, agent, is_lead=is_lead)


def tick_refusal(ticket: Ticket, agent: str, *, is_lead: bool) -> Refusal | None:
    """None if `agent` may tick off the ticket's points now: its holder, a lead, and who resolved it, who may have
    forgotten one.
    """
    return _refusal(ticket, "tick off its points", _OPEN_TO_HOLDER | {State.RESOLVED}, agent, is_lead=is_lead)


def _refusal(ticket: Ticket, what: str, allowed: frozenset[State], agent: str, *, is_lead: bool) -> Refusal | None:
    """`what` an agent wants to do, behind "to"; `allowed` are the states in which its holder may."""
    if ticket.merged_into is not None:
        return Refusal(
            RefusalCode.MERGED,
            f"ticket {ticket.ticket_id} was merged into {ticket.merged_into}: work on that one instead",
        )
    if ticket.state not in allowed:
        if ticket.state is State.QUEUED:
            return Refusal(
                RefusalCode.NOT_CLAIMED,
                f"ticket {ticket.ticket_id} is queued: claim it before you {what}",
            )
        return Refusal(
            RefusalCode.WRONG_STATE,
            f"ticket {ticket.ticket_id} is {ticket.state.value}: to {what}, it must be "
            + " or ".join(sorted(state.value for state in allowed)),
        )
    if is_lead or ticket.claimed_by == agent:
        return None
    if ticket.state is State.QUEUED:
        return Refusal(
            RefusalCode.NOT_CLAIMED,
            f"ticket {ticket.ticket_id} is queued: claim it first, or ask a lead to {what}",
        )
    return Refusal(
        RefusalCode.CLAIMED_BY_ANOTHER,
        f"ticket {ticket.ticket_id} is held by {ticket.claimed_by}: ask them or a lead to {what}",
    )


def merge_refusal(ticket: Ticket, brand: str | None, into: Ticket, into_brand: str | None) -> Refusal | None:
    """None if `ticket`, which `refusal` allows to be merged, may be merged into `into`.

    A ticket is only ever merged into one that is not merged itself. So no chain of merges can lead back to its
    beginning: the last ticket of a chain leads nowhere, and every new link begins at such a ticket.
    """
    if ticket.ticket_id == into.ticket_id:
        return Refusal(
            RefusalCode.SAME_TICKET, f"ticket {ticket.ticket_id} cannot be merged into itself: name another in `into`"
        )
    if brand != into_brand:
        return Refusal(
            RefusalCode.OTHER_BRAND,
            f"ticket {into.ticket_id} is of brand {into_brand}, {ticket.ticket_id} of {brand}: merge within a brand",
        )
    if into.merged_into == ticket.ticket_id:
        return Refusal(
            RefusalCode.MERGED,
            f"ticket {into.ticket_id} was merged into this one: the two would only name each other",
        )
    if into.merged_into is not None:
        return Refusal(
            RefusalCode.MERGED,
            f"ticket {into.ticket_id} was merged into {into.merged_into}: merge into the one that goes on",
        )
    return None


def after_activity(ticket: Ticket, activity: TicketActivity, now: datetime, rules: Rules, *, here: bool) -> Ticket:
    """The ticket after `activity`; `here` says that it came through this desk. Never refuses.

    Last writer wins by `at`: what happened before the activity that set the present state no longer matters to it,
    whichever topic or partition was faster. A time in the future counts as `now`, or one wrong clock could deafen the
    ticket for days. A claim's silence is counted from `now`: after an outage of the desk, what its agent did meanwhile
    is still on its way.
    """
    at = min(activity.at, now)
    if activity.kind is ActivityKind.CORRECTED:
        return _corrected(ticket, activity, at, now, rules, here=here)
    if activity.kind is ActivityKind.RATED or (ticket.state_at is not None and at < ticket.state_at):
        return ticket
    if activity.kind is ActivityKind.REPLIED:
        return _replied(ticket, activity.agent, at, now, rules, here=here)
    changed = replace(ticket, state_at=at, acted_here=here)
    match activity.kind:
        case ActivityKind.CLAIMED:
            return _held(changed, activity.agent, at, now, rules)
        case ActivityKind.RELEASED:
            return _returned(changed)
        case ActivityKind.WAITING_ON_CUSTOMER:
            return _set_down(changed, State.WAITING_ON_CUSTOMER, activity.agent)
        case ActivityKind.RESOLVED:
            resolved = _set_down(changed, State.RESOLVED, activity.agent)
            return replace(resolved, resolved_at=at, merged_into=ticket.merged_into)
        case ActivityKind.MERGED:
            resolved = _set_down(changed, State.RESOLVED, activity.agent)
            return replace(resolved, resolved_at=at, merged_into=activity.merged_into)
        case ActivityKind.REOPENED:
            return _held(_new_wait(changed, at, rules.patience), activity.agent, at, now, rules)


def after_customer_wrote(
    ticket: Ticket, sequence: int, at: datetime, rules: Rules, *, courtesy: bool = False
) -> Ticket:
    """The ticket after its message number `sequence`, which the desk hears of by two topics: the first to come counts.

    `at` is when the message could be seen: when it was accepted, or routed. Something new from the customer puts a
    waiting or resolved ticket back into the queue, at its original rank; if it was resolved, a new wait begins. But
    another tool may have been faster than our topics: what was there before its agent acted is answered by that. What
    an agent did through THIS desk, he did without knowing of a message that comes only now, however old it is.

    A `courtesy` needs no answer: a resolved ticket stays so. One that waits on the customer goes back even then, for
    its agent knows what he was waiting for.
    """
    if sequence <= ticket.sequence:
        return ticket
    seen = replace(ticket, sequence=sequence)
    if sequence == 1 or _answered(ticket, at) or (courtesy and ticket.state is State.RESOLVED):
        return seen
    return _taken_up(seen, at, rules)


def after_took_over(ticket: Ticket, at: datetime, rules: Rules, *, here: bool) -> Ticket:
    """The ticket after another was merged into it at `at`, by this desk (`here`) or another tool.

    It goes on for both: as if the other's customer had written here, it is put back into its queue if it waited on the
    customer or was resolved.
    """
    if not here and _answered(ticket, at):
        return ticket
    return _taken_up(ticket, at, rules)


def after_sign_of_life(ticket: Ticket, agent: str, now: datetime, rules: Rules) -> Ticket:
    """The ticket after `agent` did something to it that leaves its state: if he holds it, his silence begins anew."""
    if ticket.state is State.CLAIMED and ticket.claimed_by == agent:
        return replace(ticket, claim_expires_at=now + rules.take_back_after)
    return ticket


def claim_expired(ticket: Ticket, now: datetime) -> bool:
    """Whether its agent has been silent for so long that the ticket goes back to its queue."""
    return ticket.state is State.CLAIMED and ticket.claim_expires_at is not None and ticket.claim_expires_at <= now


def _held(ticket: Ticket, agent: str, at: datetime, now: datetime, rules: Rules) -> Ticket:
    return replace(
        ticket,
        state=State.CLAIMED,
        claimed_by=agent,
        claimed_at=at,
        claim_expires_at=now + rules.take_back_after,
        merged_into=None,
    )


def _returned(ticket: Ticket) -> Ticket:
    return replace(
        ticket, state=State.QUEUED, claimed_by=None, claimed_at=None, claim_expires_at=None, merged_into=None
    )


def _set_down(ticket: Ticket, state: State, agent: str) -> Ticket:
    return replace(ticket, state=state, claimed_by=agent, claim_expires_at=None, merged_into=None)


def _answered(ticket: Ticket, at: datetime) -> bool:
    """Whether what was there at `at` was seen by who made the ticket's state what it is."""
    return ticket.state_at is not None and at <= ticket.state_at and not ticket.acted_here


def _taken_up(ticket: Ticket, at: datetime, rules: Rules) -> Ticket:
    """The ticket after something new for its agents came at `at`: one that lies idle goes back into its queue."""
    if ticket.state not in (State.WAITING_ON_CUSTOMER, State.RESOLVED):
        return ticket
    # What is older than the state still waits from now on only: the time before was answered.
    began_at = max(at, ticket.state_at) if ticket.state_at else at
    waiting = _new_wait(ticket, began_at, rules.patience) if ticket.state is State.RESOLVED else ticket
    return replace(_returned(waiting), state_at=began_at)


def _new_wait(ticket: Ticket, at: datetime, patience: Patience) -> Ticket:
    return ranked(replace(ticket, enqueued_at=at), patience)


def _replied(ticket: Ticket, agent: str, at: datetime, now: datetime, rules: Rules, *, here: bool) -> Ticket:
    """Who answers a queued ticket holds it, so that no second agent answers too; the holder's silence ends."""
    if ticket.state is State.QUEUED:
        return _held(replace(ticket, state_at=at, acted_here=here), agent, at, now, rules)
    return after_sign_of_life(ticket, agent, now, rules)


def _corrected(
    ticket: Ticket, activity: TicketActivity, at: datetime, now: datetime, rules: Rules, *, here: bool
) -> Ticket:
    """A correction moves the view at once; a claimed ticket that goes to another queue waits there for its people."""
    if ticket.corrected_at is not None and at < ticket.corrected_at:
        return ticket
    moved = activity.queue is not None and ticket.queue is not None and activity.queue is not ticket.queue
    corrected = ranked(
        replace(
            ticket,
            corrected_at=at,
            queue=activity.queue or ticket.queue,
            category=activity.category or ticket.category,
            priority=activity.priority or ticket.priority,
        ),
        rules.patience,
    )
    current = ticket.state_at is None or at >= ticket.state_at
    if ticket.state is not State.CLAIMED or not current:
        return corrected
    if moved:
        return replace(_returned(corrected), state_at=at, acted_here=here)
    return after_sign_of_life(corrected, activity.agent, now, rules)
