"""What the desk's API takes and answers. All times carry an offset."""

from __future__ import annotations

import base64
import binascii
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StringConstraints, model_validator

from services.desk.agents import Agent, Role
from services.desk.domain import RankKey, State
from services.desk.domain_changes import Mark, marks_of
from services.desk.domain_points import TicketPoint
from services.desk.domain_view import Clock, View, is_breached, next_due_at
from services.desk.storage import HistoryEntry
from shared.events import TicketRouted
from shared.events.channel import MAX_TEXT_CHARACTERS
from shared.taxonomy import Category, Channel, Language, Priority, Queue


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class Me(_Answer):
    """Who the token belongs to."""

    id: str
    name: str
    role: Role
    group: str | None = Field(description="the team that reports count their work under")
    queues: list[Queue] | None = Field(description="none: all")
    brands: list[str] | None = Field(description="none: all")

    @classmethod
    def of(cls, agent: Agent) -> Self:
        return cls(
            id=agent.id,
            name=agent.name or agent.id,
            role=agent.role,
            group=agent.group,
            queues=None if agent.queues == "all" else sorted(agent.queues),
            brands=None if agent.brands == "all" else sorted(agent.brands),
        )


class PeakNow(_Answer):
    brand: str
    channel: Channel | None = Field(description="none: of all channels together")
    began_at: datetime
    staff_needed: int | None


class QueueNow(_Answer):
    queue: Queue
    name_zh: str
    name_en: str
    waiting: int = Field(description="tickets that nobody holds")
    claimed: int
    waiting_on_customer: int
    by_priority: dict[Priority, int] = Field(description="of the waiting ones")
    oldest_enqueued_at: datetime | None = Field(description="since when the longest waiting one waits")
    next_due_at: datetime | None = Field(description="when the next promise that can still be kept is due")
    breached: int = Field(description="open tickets with a broken promise")
    open_points: int = Field(description="points of open tickets, and of those merged into them, not ticked off")
    peaks: list[PeakNow]


class QueuesNow(_Answer):
    queues: list[QueueNow]


class TicketSummary(_Answer):
    ticket_id: uuid.UUID
    state: State
    queue: Queue | None
    category: Category | None
    priority: Priority | None
    brand: str | None
    channel: Channel | None
    language: Language | None
    subject: str | None
    text: str | None = Field(description="of the customer's latest message, secrets cut")
    opened_at: datetime | None
    enqueued_at: datetime | None = Field(description="when this wait began")
    rank_at: datetime | None = Field(description="its place in the queue order: smaller is sooner")
    claimed_by: str | None = Field(description="who holds it; while waiting or resolved, who held it last")
    claim_expires_at: datetime | None = Field(description="when it returns to its queue if its agent stays silent")
    resolved_at: datetime | None
    merged_into: uuid.UUID | None = Field(description="the ticket that goes on for this one too")
    clocks: dict[str, Clock] = Field(description="the latest clock of each target")
    next_due_at: datetime | None
    breached: bool
    open_points: int = Field(description="points of it, and of tickets merged into it, not ticked off")

    @classmethod
    def of(cls, view: View, open_points: int) -> Self:
        return cls(**_summary(view, open_points))


class PointItem(_Answer):
    """One matter that the customer raised: `text[start:end]` of one of his messages."""

    point_id: uuid.UUID
    ticket_id: uuid.UUID = Field(description="this ticket, or one that was merged into it")
    message_event_id: uuid.UUID = Field(description="of the message it stands in, as in its ticket's history")
    sequence: int = Field(description="of that message within its ticket")
    start: int
    end: int = Field(description="exclusive")
    text: str = Field(description="secrets cut")
    category: Category
    done_at: datetime | None = Field(description="when it was ticked off; none: it is open")
    done_by: str | None = Field(description="who ticked it off")


class HistoryItem(_Answer):
    event_id: uuid.UUID
    at: datetime
    kind: str
    payload: dict[str, Any] = Field(description="the event itself; without its words once the customer took them back")
    changed: Mark | None = Field(description="whether the customer has edited this message or taken it back since")


class RelatedTicket(_Answer):
    """A ticket of the same person on another channel, known by a verified phone number or address."""

    ticket_id: uuid.UUID
    brand: str | None
    channel: Channel | None
    state: State
    queue: Queue | None
    subject: str | None = Field(description="none, too, where your token may not see that ticket")
    opened_at: datetime | None
    resolved_at: datetime | None

    @classmethod
    def of(cls, view: View, *, visible: bool) -> Self:
        ticket = view.ticket
        return cls(
            ticket_id=ticket.ticket_id,
            brand=view.brand,
            channel=view.channel,
            state=ticket.state,
            queue=ticket.queue,
            subject=view.subject if visible else None,
            opened_at=view.opened_at,
            resolved_at=ticket.resolved_at,
        )


class TicketDetail(TicketSummary):
    decision: TicketRouted | None = Field(
        description="the latest routing: reasons, facts, missing facts, points of its message, trace"
    )
    points: list[PointItem] = Field(description="of all its messages, in order, then of the tickets merged into it")
    merged_here: list[uuid.UUID] = Field(description="the tickets that this one goes on for")
    related: list[RelatedTicket] = Field(description="of the same person on other channels, the latest first")
    history: list[HistoryItem] = Field(description="oldest first")

    @classmethod
    def whole(
        cls,
        view: View,
        points: Sequence[TicketPoint],
        merged_here: Sequence[uuid.UUID],
        related: Sequence[RelatedTicket],
        history: Sequence[HistoryEntry],
    ) -> Self:
        marks = marks_of((entry.event_id, entry.kind, entry.payload) for entry in history)
        return cls(
            **_summary(view, sum(point.done_at is None for point in points)),
            decision=view.decision,
            points=[PointItem(**asdict(point)) for point in points],
            merged_here=list(merged_here),
            related=list(related),
            history=[HistoryItem(**entry._asdict(), changed=marks.get(entry.event_id)) for entry in history],
        )


class TicketPage(_Answer):
    tickets: list[TicketSummary]
    cursor: str | None = Field(description="send it to get what follows; none at the end")


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


_Words = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_TEXT_CHARACTERS)]


class ReplyBody(_Body):
    text: _Words = Field(description="what the customer is sent")


class NoteBody(_Body):
    note: _Words | None = Field(default=None, description="for the history; the customer does not see it")


class MergeBody(NoteBody):
    into: uuid.UUID = Field(description="the ticket that goes on for both")


class RerouteBody(NoteBody):
    """Where the ticket belongs. A category without a queue moves it to that category's queue."""

    queue: Queue | None = None
    category: Category | None = None
    priority: Priority | None = None

    @model_validator(mode="after")
    def _moves_something(self) -> Self:
        if not (self.queue or self.category or self.priority):
            raise ValueError("give `queue`, `category` or `priority`")
        return self


class PointBody(_Body):
    done: StrictBool = Field(description="true ticks the point off, false opens it again")


def cursor_of(rank: RankKey) -> str:
    rank_at, enqueued_at, ticket_id = rank
    return base64.urlsafe_b64encode(f"{rank_at.isoformat()}|{enqueued_at.isoformat()}|{ticket_id}".encode()).decode()


def rank_of(cursor: str) -> RankKey:
    """The rank that a cursor stands for. Raises ValueError for anything that `cursor_of` did not make."""
    try:
        rank_at, enqueued_at, ticket_id = base64.b64decode(cursor, altchars=b"-_", validate=True).decode().split("|")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise ValueError("not a cursor") from error
    rank = (datetime.fromisoformat(rank_at), datetime.fromisoformat(enqueued_at), uuid.UUID(ticket_id))
    if rank[0].tzinfo is None or rank[1].tzinfo is None:
        raise ValueError("not a cursor")
    return rank


def _summary(view: View, open_points: int) -> dict[str, Any]:
    ticket = view.ticket
    return {
        "ticket_id": ticket.ticket_id,
        "state": ticket.state,
        "queue": ticket.queue,
        "category": ticket.category,
        "priority": ticket.priority,
        "brand": view.brand,
        "channel": view.channel,
        "language": view.language,
        "subject": view.subject,
        "text": view.text,
        "opened_at": view.opened_at,
        "enqueued_at": ticket.enqueued_at,
        "rank_at": ticket.rank_at,
        "claimed_by": ticket.claimed_by,
        "claim_expires_at": ticket.claim_expires_at,
        "resolved_at": ticket.resolved_at,
        "merged_into": ticket.merged_into,
        "clocks": {target.value: clock for target, clock in view.clocks.items()},
        "next_due_at": next_due_at(view.clocks),
        "breached": is_breached(view.clocks),
        "open_points": open_points,
    }
