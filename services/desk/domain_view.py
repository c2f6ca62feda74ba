"""What the desk shows of a ticket, and how each event changes it, whichever topic is faster."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from services.desk.domain import Rules, State, Ticket, after_activity, after_customer_wrote, ranked
from services.desk.domain_changes import MESSAGE
from services.desk.domain_points import decided_by_agent, points_of
from shared.courtesy import needs_no_answer
from shared.events import (
    Disposition,
    NotificationOutcome,
    SlaEvent,
    SlaKind,
    Target,
    TicketActivity,
    TicketLeft,
    TicketMessage,
    TicketRouted,
)
from shared.events.base import AwareDatetime, Contract
from shared.taxonomy import Channel, Language

TicketEvent = TicketRouted | TicketLeft | TicketMessage | TicketActivity | SlaEvent | NotificationOutcome
"""All that the desk keeps in a ticket's history."""

ROUTED: Final = "routed"
"""How the history names a TicketRouted."""
_ENDED: Final = frozenset({SlaKind.MET, SlaKind.CANCELLED})


class Clock(Contract):
    """The latest of one target's clock; `due_at` is none while it is paused."""

    clock_id: uuid.UUID
    step: int
    kind: SlaKind
    started_at: AwareDatetime
    due_at: AwareDatetime | None = None
    breached: bool = False
    """Whether this promise, or an earlier one of the same target, was ever breached."""

    @property
    def running(self) -> bool:
        return self.kind not in _ENDED and self.due_at is not None


Clocks = Mapping[Target, Clock]


@dataclass(frozen=True, slots=True)
class View:
    """A ticket as the desk shows it. What is none has not been heard of yet: topics have no order among themselves."""

    ticket: Ticket
    brand: str | None = None
    channel: Channel | None = None
    language: Language | None = None
    subject: str | None = None
    text: str | None = None
    """Of the latest message, secrets cut."""
    text_sequence: int = 0
    opened_at: datetime | None = None
    clocks: Clocks = field(default_factory=dict)
    open_points: int = 0
    """Of its own messages, not ticked off; those of tickets merged into it are counted there."""
    has_changes: bool = False
    """Whether its customer has edited a message or taken one back: then the latest text is not simply the last."""
    decision: TicketRouted | None = None
    """The latest routing: facts, points, missing facts, reasons, trace. None when this view was loaded to be changed
    and no later one has come since."""
    traceparent: str | None = None
    """Of the latest message, if that was traced: what agents do with the ticket goes on with its trace."""


def after_event(view: View, event: TicketEvent, now: datetime, rules: Rules, *, here: bool = False) -> View:
    """The view after one event of a topic, heard of at `now`; `here`: an activity that came through this desk."""
    match event:
        case TicketRouted():
            ticket, latest = after_routed(view.ticket, event, rules)
            view = _told(replace(view, open_points=view.open_points + len(points_of(event))), event)
            if latest:
                view = replace(view, language=event.language, decision=event)
            view = replace(view, has_changes=view.has_changes or _is_change(event))
            return replace(view, ticket=ticket)
        case TicketMessage() if _is_change(event):
            return replace(_told(view, event), has_changes=True)
        case TicketMessage():
            ticket = after_customer_wrote(
                view.ticket,
                event.sequence,
                event.accepted_at,
                rules,
                courtesy=event.disposition is not Disposition.REOPENED
                and needs_no_answer(event.text, event.subject, event.attachments),
            )
            return replace(_told(view, event), ticket=ticket)
        case TicketActivity():
            ticket = after_activity(view.ticket, event, now, rules, here=here)
            return replace(view, ticket=ticket, brand=view.brand or event.brand)
        case TicketLeft():
            return replace(view, ticket=after_left(view.ticket, event))
        case SlaEvent():
            return replace(view, clocks=after_sla(view.clocks, event), brand=view.brand or event.brand)
        case NotificationOutcome():
            return view


def kind_of(event: TicketEvent) -> str:
    """How the history names an event: `routed`, `message`, `claimed`, `sla.warning`, `notification.delivered`, ..."""
    match event:
        case TicketRouted():
            return ROUTED
        case TicketMessage():
            return MESSAGE
        case TicketLeft():
            return "left"
        case TicketActivity():
            return event.kind.value
        case SlaEvent():
            return f"sla.{event.kind.value}"
        case NotificationOutcome():
            return f"notification.{event.status.value}"


def after_routed(ticket: Ticket, event: TicketRouted, rules: Rules) -> tuple[Ticket, bool]:
    """The ticket after a routing, and whether that is its latest (and so what the view shows).

    A routing that was decided before an agent's correction does not undo it: the classifier had not heard of it yet.
    The one that follows from a correction says so in its trace, and always counts.
    """
    if not _is_change(event) and not _may_be_courtesy(ticket, event):
        ticket = after_customer_wrote(ticket, event.sequence, event.decided_at, rules)
    if event.revision <= ticket.revision:
        return _waiting_since(ticket, event.decided_at, rules), False
    ticket = replace(ticket, revision=event.revision, routed_at=event.decided_at)
    corrected = ticket.corrected_at is not None and event.decided_at <= ticket.corrected_at
    if corrected and not decided_by_agent(event):
        ticket = replace(
            ticket,
            queue=ticket.queue or event.queue,
            category=ticket.category or event.category,
            priority=ticket.priority or event.priority,
        )
    else:
        ticket = replace(ticket, queue=event.queue, category=event.category, priority=event.priority)
    return ranked(_waiting_since(ticket, event.decided_at, rules), rules.patience), True


def _may_be_courtesy(ticket: Ticket, event: TicketRouted) -> bool:
    """Whether only the message itself can tell if a resolved ticket stays so: a routing does not name attachments."""
    return (
        ticket.state is State.RESOLVED
        and event.disposition is not Disposition.REOPENED
        and needs_no_answer(event.text, event.subject, ())
    )


def _is_change(event: TicketMessage | TicketRouted) -> bool:
    """Whether the customer changed what he wrote, and has not written anything further: it takes up no ticket."""
    return event.edits is not None or event.deletes is not None


def after_left(ticket: Ticket, event: TicketLeft) -> Ticket:
    """The ticket after it left a queue. Usually the routing to its new queue was faster, and there is nothing to do."""
    known_at = max((at for at in (ticket.routed_at, ticket.corrected_at) if at), default=None)
    if ticket.queue is not event.queue or (known_at is not None and event.at <= known_at):
        return ticket
    return replace(ticket, queue=event.to_queue)


def after_sla(clocks: Clocks, event: SlaEvent) -> Clocks:
    """The clocks after `event`: the latest step of the latest clock of each target; a breach is never forgotten."""
    known = clocks.get(event.target)
    if known and event.kind is SlaKind.ESCALATED and known.clock_id == event.clock_id and known.breached:
        return clocks  # whom it called stands in the history; the promise is as broken as before
    if known and (event.started_at, event.clock_id, event.step) <= (
        known.started_at,
        known.clock_id,
        known.step,
    ):
        if event.breached and not known.breached:
            return {**clocks, event.target: known.model_copy(update={"breached": True})}
        return clocks
    latest = Clock(
        clock_id=event.clock_id,
        step=event.step,
        kind=event.kind,
        started_at=event.started_at,
        due_at=event.due_at,
        breached=event.breached or (known is not None and known.breached),
    )
    return {**clocks, event.target: latest}


def next_due_at(clocks: Clocks) -> datetime | None:
    """When the next promise that can still be kept is due. None if no such clock runs."""
    return min(
        (clock.due_at for clock in clocks.values() if clock.due_at and clock.running and not clock.breached),
        default=None,
    )


def is_breached(clocks: Clocks) -> bool:
    return any(clock.breached for clock in clocks.values())


def _told(view: View, event: TicketMessage | TicketRouted) -> View:
    """The view with the message that `event` carries, unless a later one is known."""
    if event.sequence < view.text_sequence:
        return view
    return replace(
        view,
        brand=event.brand,
        channel=event.channel,
        opened_at=event.opened_at,
        subject=event.subject or view.subject,
        text=event.text,
        text_sequence=event.sequence,
    )


def _waiting_since(ticket: Ticket, at: datetime, rules: Rules) -> Ticket:
    """Routings of one ticket in several queues are not in order: the earliest of this wait says when it began."""
    if ticket.enqueued_at is not None and ticket.enqueued_at <= at:
        return ticket
    if ticket.enqueued_at is not None and ticket.resolved_at is not None and at <= ticket.resolved_at:
        return ticket  # of a wait that has ended
    return ranked(replace(ticket, enqueued_at=at), rules.patience)
