"""Between the events and the decisions: what of a TicketMessage is decided about, and what is told of the outcome."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from services.classifier.domain.decide import Decision, Message
from services.classifier.domain.tickets import Routed
from shared.events import DecisionTrace, TicketActivity, TicketLeft, TicketMessage, TicketRouted, TraceStep
from shared.events.queues import DELETES, EDITS
from shared.events.tickets import message_event_id_of


def message_of(event: TicketMessage) -> Message:
    return Message(
        text=event.text,
        subject=event.subject,
        channel=event.channel,
        brand=event.brand,
        sent_at=event.sent_at,
        vip=event.customer.vip,
        contact_known=contact_known(event),
        has_attachments=bool(event.attachments),
    )


def contact_known(event: TicketMessage | TicketRouted) -> bool:
    """Whether the channel gave what an identity check needs."""
    return bool(event.customer.phone or event.customer.email)


def routed_by_message(event: TicketMessage, decision: Decision, routed: Routed, decided_at: datetime) -> TicketRouted:
    state = routed.state
    trace = routed.trace
    if event.edits is not None:
        trace = trace.model_copy(update={"steps": (TraceStep(step=EDITS, detail=event.edits), *trace.steps)})
    return TicketRouted(
        ticket_id=event.ticket_id,
        cause_id=event.event_id,
        revision=state.revision,
        queue=state.queue,
        previous_queue=routed.previous_queue,
        category=state.category,
        priority=state.priority,
        previous_priority=routed.previous_priority,
        reasons=routed.reasons,
        confidence=state.confidence,
        alternatives=decision.alternatives,
        points=decision.points,
        language=decision.language,
        facts=state.facts,
        missing=routed.missing,
        trace=trace,
        decided_at=decided_at,
        brand=event.brand,
        channel=event.channel,
        customer=event.customer,
        sequence=event.sequence,
        disposition=event.disposition,
        subject=event.subject,
        text=event.text,
        sent_at=event.sent_at,
        opened_at=event.opened_at,
        reply_to=event.reply_to,
    )


def routed_by_agent(activity: TicketActivity, last: TicketRouted, routed: Routed, decided_at: datetime) -> TicketRouted:
    """`last`: what was told of the ticket before; the message it takes into account stays the same."""
    state = routed.state
    return last.model_copy(
        update={
            "cause_id": activity.event_id,
            "revision": state.revision,
            "queue": state.queue,
            "previous_queue": routed.previous_queue,
            "category": state.category,
            "priority": state.priority,
            "previous_priority": routed.previous_priority,
            "reasons": routed.reasons,
            "confidence": state.confidence,
            "missing": routed.missing,
            "trace": routed.trace,
            "decided_at": decided_at,
        }
    )


def routed_by_deletion(event: TicketMessage, last: TicketRouted, revision: int, decided_at: datetime) -> TicketRouted:
    """`last`: what was told of the ticket before, without the words that `event` takes back. Nothing changes."""
    assert event.deletes is not None
    return last.model_copy(
        update={
            "cause_id": event.event_id,
            "revision": revision,
            "previous_queue": None,
            "previous_priority": None,
            "reasons": (),
            "disposition": event.disposition,
            "trace": DecisionTrace(
                decided_by="rule:taken_back",
                model=last.trace.model,
                steps=(TraceStep(step=DELETES, detail=event.deletes),),
            ),
            "decided_at": decided_at,
        }
    )


def taken_back(event: TicketMessage, decisions: Iterable[TicketRouted]) -> set[int]:
    """Which messages of its ticket, by their sequence, said what `event` takes back: the message, and edits of it."""
    assert event.deletes is not None
    cause_id = message_event_id_of(event.brand, event.channel, event.deletes)
    return {told.sequence for told in decisions if told.cause_id == cause_id or told.edits == event.deletes}


def without_words(told: TicketRouted) -> TicketRouted:
    return told.model_copy(update={"text": "", "subject": None, "points": ()})


def left_by(event: TicketRouted) -> TicketLeft | None:
    """What the queue is told that this moved the ticket out of; derived, so that a repetition tells the same."""
    if event.previous_queue is None:
        return None
    return TicketLeft(
        ticket_id=event.ticket_id,
        cause_id=event.cause_id,
        queue=event.previous_queue,
        to_queue=event.queue,
        at=event.decided_at,
    )
