"""A ticket over its messages: a further message can raise it, can move it when its matter weighs more, and adds facts;
an agent's correction stays.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Final

from services.classifier.domain.decide import Decision, Message, rank_of
from services.classifier.domain.facts import accumulate, missing
from services.classifier.domain.priority import PriorityRules, Situation
from shared.events import DecisionTrace, Facts, Reason, TicketActivity, TraceStep
from shared.taxonomy import CATEGORIES, Category, Fact, Priority, Queue

_MOST_CONTACTS: Final = 10_000


@dataclass(frozen=True, slots=True)
class TicketState:
    """What is kept of a ticket between its messages.

    `applied`: names of the priority rules in effect; none counts twice within a ticket. `base`: the priority that an
    agent set, from which later rules raise. Pinned: an agent said so, and no message moves it.
    """

    queue: Queue
    category: Category
    priority: Priority
    confidence: float
    revision: int
    contacts: int
    last_message_at: datetime
    facts: Facts
    applied: frozenset[str] = frozenset()
    base: Priority | None = None
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class Routed:
    """The ticket after a message or a correction, and how it came there."""

    state: TicketState
    previous_queue: Queue | None
    previous_priority: Priority | None
    reasons: tuple[Reason, ...]
    missing: tuple[Fact, ...]
    trace: DecisionTrace


def merge(
    before: TicketState | None,
    decision: Decision,
    message: Message,
    sent_at: datetime,
    rules: PriorityRules,
    *,
    is_edit: bool = False,
) -> Routed:
    """The ticket after `message`. Pure; `before` is None for a ticket's first message.

    An edit is decided on its new words. It is no further contact.
    """
    if before is None:
        return _opened(decision, sent_at)
    moves, why = _moves(before, decision)
    category = decision.category if moves else before.category
    queue = decision.queue if moves else before.queue
    # Lines typed one after another are one contact; messages may arrive out of order.
    new_contact = not is_edit and sent_at - before.last_message_at >= rules.contact_gap
    contacts = min(_MOST_CONTACTS, before.contacts + new_contact)
    priority, reasons = rules.raise_further(
        _situation(before, decision, category, contacts),
        same_matter=decision.category is category,
        before=before.priority,
        base=before.base,
        applied=before.applied,
    )
    if before.pinned and rank_of(decision.category) < rank_of(category) and decision.priority < priority:
        # The ticket stays where an agent put it, but what is urgent must not wait for his next look.
        priority = decision.priority
        reasons = (*reasons, Reason(rule="other_matter", effect=f"={priority}", detail=decision.category.value))
    facts = accumulate(before.facts, decision.facts)
    in_effect = frozenset(reason.rule for reason in reasons)
    state = TicketState(
        queue=queue,
        category=category,
        priority=priority,
        confidence=decision.confidence if moves else before.confidence,
        revision=before.revision + 1,
        contacts=contacts,
        last_message_at=max(before.last_message_at, sent_at),
        facts=facts,
        applied=in_effect if before.base is None else before.applied | in_effect,
        base=before.base,
        pinned=before.pinned,
    )
    step = TraceStep(step="ticket", detail=why)
    return Routed(
        state=state,
        previous_queue=before.queue if queue is not before.queue else None,
        previous_priority=before.priority if priority is not before.priority else None,
        reasons=reasons,
        missing=missing(category, facts, contact_known=message.contact_known, has_attachments=message.has_attachments),
        trace=decision.trace.model_copy(update={"steps": (*decision.trace.steps, step)}),
    )


def correct(before: TicketState, activity: TicketActivity, *, contact_known: bool, model: str) -> Routed:
    """The ticket after an agent's correction: what he named is set and pinned, what follows from it follows."""
    category = activity.category or before.category
    queue = activity.queue or (CATEGORIES[category].queue if activity.category else before.queue)
    priority = activity.priority or before.priority
    named = [
        f"{name} {value}"
        for name, value in (("queue", activity.queue), ("category", activity.category), ("priority", activity.priority))
        if value is not None
    ]
    state = replace(
        before,
        queue=queue,
        category=category,
        priority=priority,
        revision=before.revision + 1,
        confidence=1.0 if activity.category else before.confidence,
        base=activity.priority or before.base,
        pinned=before.pinned or activity.queue is not None or activity.category is not None,
    )
    reason = Reason(rule="agent", effect=f"={priority}" if activity.priority else "+0", detail=activity.agent)
    return Routed(
        state=state,
        previous_queue=before.queue if queue is not before.queue else None,
        previous_priority=before.priority if priority is not before.priority else None,
        reasons=(reason,),
        missing=missing(category, before.facts, contact_known=contact_known, has_attachments=False),
        trace=DecisionTrace(
            decided_by=f"agent:{activity.agent}"[:200],
            model=model,
            steps=(TraceStep(step="corrected", detail=", ".join(named)),),
        ),
    )


def _opened(decision: Decision, sent_at: datetime) -> Routed:
    state = TicketState(
        queue=decision.queue,
        category=decision.category,
        priority=decision.priority,
        confidence=decision.confidence,
        revision=1,
        contacts=1,
        last_message_at=sent_at,
        facts=decision.facts,
        applied=frozenset(reason.rule for reason in decision.reasons),
    )
    return Routed(state, None, None, decision.reasons, decision.missing, decision.trace)


def _situation(before: TicketState, decision: Decision, category: Category, contacts: int) -> Situation:
    """The ticket's: what this message says, and what it leaves unsaid and earlier ones told."""
    situation = replace(decision.situation, category=category, contacts=contacts)
    if situation.amount is None and before.facts.amount is not None:
        situation = replace(situation, amount=Decimal(before.facts.amount), currency=before.facts.currency)
    return situation


def _moves(before: TicketState, decision: Decision) -> tuple[bool, str]:
    """Whether the message changes what the ticket is about, and why (or why not)."""
    here = f"{before.category} in {before.queue}"
    if before.pinned:
        return False, f"stays {here}: an agent put it there"
    if decision.category is Category.OTHER or decision.queue is Queue.TRIAGE:
        return False, f"stays {here}: the message tells no matter of its own"
    if decision.category is before.category:
        return before.queue is Queue.TRIAGE, f"stays {here}" if before.queue is not Queue.TRIAGE else "now sure enough"
    if before.queue is Queue.TRIAGE:
        return True, f"leaves triage: {decision.category} is plain now"
    if rank_of(decision.category) < rank_of(before.category):
        return True, f"moves from {before.category} to {decision.category}: it weighs more"
    return False, f"stays {here}: {decision.category} does not weigh more"
