"""`queues.<queue>`: this ticket belongs in this queue, and why."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Annotated, ClassVar, Final

from pydantic import Field

from shared.events.base import AwareDatetime, BrandCode, Contract, Event, Identifier, derive_id
from shared.events.channel import Customer, ShortText, Text
from shared.events.tickets import Disposition
from shared.taxonomy import Category, Channel, Fact, Language, Priority, Queue

Score = Annotated[float, Field(ge=0.0, le=1.0)]


class Alternative(Contract):
    category: Category
    score: Score


class Point(Contract):
    """One matter in a message. `start` and `end` are character offsets into `text` of the message (end exclusive)."""

    category: Category
    start: Annotated[int, Field(ge=0)]
    end: Annotated[int, Field(ge=0)]
    text: Text


class Reason(Contract):
    """Why the priority is what it is: one rule that applied, and its effect (e.g. `+1`, `-1`, `=P1`, `start P2`)."""

    rule: Identifier
    effect: Identifier
    detail: ShortText = ""


class Facts(Contract):
    """What the customer told, normalised. Never a secret. Amounts are decimal strings, so that no cent is lost."""

    amount: str | None = None
    currency: str | None = Field(default=None, description="ISO 4217")
    time: str | None = Field(default=None, description="as far as it is known: ISO date-time, ISO date, or the words")
    method: str | None = None
    order_no: str | None = None
    phone: str | None = None
    email: str | None = None
    device: str | None = None
    error_code: str | None = None
    app_version: str | None = None
    merchant: str | None = None
    campaign: str | None = None


class TraceStep(Contract):
    """One step of a decision: what decided (rule, model, agent), and what it said."""

    step: Identifier
    detail: ShortText


EDITS: Final = "edits"
DELETES: Final = "deletes"
"""Steps that name, in their detail, the message_id that the message edits or deletes."""


class DecisionTrace(Contract):
    """How the decision came about, for the agent and for the auditor."""

    decided_by: Identifier = Field(description="`rule:<name>`, `model`, or `agent:<id>`")
    model: Identifier
    steps: tuple[TraceStep, ...] = ()

    def detail_of(self, step: str) -> str | None:
        """What the first step of this name said. None if there is none."""
        return next((item.detail for item in self.steps if item.step == step), None)


class TicketRouted(Event):
    """The state of a ticket after one of its messages (or an agent) was taken into account.

    Every accepted message yields exactly one; `revision` counts them within the ticket. The latest revision is the
    truth.
    """

    TYPE: ClassVar[str] = "switchyard.ticket.routed.v1"

    ticket_id: uuid.UUID
    cause_id: uuid.UUID = Field(description="event id of the message or the activity that led to this")
    revision: Annotated[int, Field(ge=1)]
    queue: Queue
    previous_queue: Queue | None = Field(default=None, description="where it was, when this moves it")
    category: Category
    priority: Priority
    previous_priority: Priority | None = None
    reasons: tuple[Reason, ...] = ()
    confidence: Score
    alternatives: tuple[Alternative, ...] = ()
    points: tuple[Point, ...] = ()
    language: Language
    facts: Facts = Facts()
    missing: tuple[Fact, ...] = ()
    trace: DecisionTrace
    decided_at: AwareDatetime

    brand: BrandCode
    channel: Channel
    customer: Customer
    sequence: Annotated[int, Field(ge=1)] = Field(description="of the message that this takes into account")
    disposition: Disposition
    subject: ShortText | None = None
    text: Text = Field(description="of the message that this takes into account, secrets cut")
    sent_at: AwareDatetime
    opened_at: AwareDatetime
    reply_to: ShortText | None = None

    @property
    def edits(self) -> str | None:
        """message_id of the message whose words the one behind this replaces."""
        return self.trace.detail_of(EDITS)

    @property
    def deletes(self) -> str | None:
        """message_id of the message that the one behind this took back. Queue, priority and all else are as before."""
        return self.trace.detail_of(DELETES)

    @property
    def event_id(self) -> uuid.UUID:
        return derive_id("ticket.routed", self.ticket_id, self.cause_id)

    @property
    def key(self) -> str:
        return str(self.ticket_id)

    @property
    def occurred_at(self) -> datetime:
        return self.decided_at


class TicketLeft(Event):
    """Published to the queue that a ticket has left, so that its consumers let go of it."""

    TYPE: ClassVar[str] = "switchyard.ticket.left.v1"

    ticket_id: uuid.UUID
    cause_id: uuid.UUID
    queue: Queue = Field(description="the queue that the ticket has left")
    to_queue: Queue
    at: AwareDatetime

    @property
    def event_id(self) -> uuid.UUID:
        return derive_id("ticket.left", self.ticket_id, self.cause_id)

    @property
    def key(self) -> str:
        return str(self.ticket_id)

    @property
    def occurred_at(self) -> datetime:
        return self.at
