"""Floods: what one customer writes faster than anyone could read is told together. Pure.

A window of a flood is a span of the messages' own `sent_at`, so what comes at once after an outage is no flood. In each
window a ticket's first messages are told one by one; those beyond are kept, and when the window is over, one message
stands for them.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from services.intake.domain import Placement, Ticket, make_current
from shared.courtesy import needs_no_answer
from shared.events import Disposition, Redaction, TicketMessage, derive_id
from shared.events.channel import MAX_TEXT_CHARACTERS

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MOST_ATTACHMENTS: Final = 50


@dataclass(frozen=True, slots=True)
class FloodLimit:
    """More than so many messages of a ticket within a window are a flood."""

    messages: int = 20
    window: timedelta = timedelta(seconds=60)

    def starts_at(self, sent_at: datetime) -> datetime:
        return _EPOCH + (sent_at - _EPOCH) // self.window * self.window

    def due_at(self, starts_at: datetime, now: datetime) -> datetime:
        """When the window is over; one that lies in the past, and comes only now, is given as long again."""
        over_at = starts_at + self.window
        return over_at if over_at > now else now + self.window


@dataclass(frozen=True, slots=True, order=True)
class Flood:
    """One window of a ticket."""

    ticket_id: uuid.UUID
    starts_at: datetime

    @property
    def flood_id(self) -> uuid.UUID:
        return derive_id("flood", self.ticket_id, self.starts_at.isoformat())

    def message_id(self, part: int) -> str:
        """Of what stands for its messages; those that come after that has been told have a further part."""
        name = f"flood/{self.ticket_id}/{self.starts_at.isoformat()}"
        return name if part == 1 else f"{name}/{part}"


def flood_of(placement: Placement, limit: FloodLimit) -> Flood:
    return Flood(placement.ticket.ticket_id, limit.starts_at(placement.message.sent_at))


def may_flood(placement: Placement, limit: FloodLimit) -> bool:
    """Whether it is worth counting: a ticket of few messages has no flood, and a deletion has nothing to be read."""
    return placement.deletes is None and placement.ticket.message_count > limit.messages


def beyond(placements: Iterable[Placement], seen: Mapping[Flood, int], limit: FloodLimit) -> list[Placement]:
    """Those of a ticket's new messages that are not told one by one.

    `seen`: how many of each flood were there before. What opens or reopens a ticket is always told at once.
    """
    counts = Counter(seen)
    folded = []
    for placement in placements:
        if placement.deletes is not None:
            continue
        flood = flood_of(placement, limit)
        counts[flood] += 1
        if counts[flood] > limit.messages and placement.disposition is Disposition.FOLLOWED_UP:
            folded.append(placement)
    return folded


def fold(
    flood: Flood, part: int, messages: Sequence[TicketMessage], tickets: Iterable[Ticket], now: datetime
) -> tuple[list[Ticket], TicketMessage]:
    """The message that stands for these, which are in the order of their sequence; and the tickets it changes.

    `tickets`: the flood's, and the open one of its conversation. Resolved meanwhile, the ticket is reopened: its agent
    has not seen them.
    """
    by_id = {ticket.ticket_id: ticket for ticket in tickets}
    ticket = by_id[flood.ticket_id]
    ticket = replace(ticket, message_count=ticket.message_count + 1)
    disposition = Disposition.FOLLOWED_UP
    changed = {ticket.ticket_id: ticket}
    only_thanks = all(needs_no_answer(item.text, item.subject, item.attachments) for item in messages)
    if ticket.resolved_at is not None and not only_thanks:
        disposition = Disposition.REOPENED
        changed = make_current(replace(ticket, resolved_at=None), messages[-1].sent_at, by_id)
    last = messages[-1]
    redactions: Counter[str] = Counter()
    for item in messages:
        redactions.update({redaction.kind: redaction.count for redaction in item.redactions})
    text = "\n".join(dict.fromkeys(item.text for item in messages if item.text))
    attachments = dict.fromkeys(attachment for item in messages for attachment in item.attachments)
    event = last.model_copy(
        update={
            "message_id": flood.message_id(part),
            "sequence": ticket.message_count,
            "disposition": disposition,
            "text": text if len(text) <= MAX_TEXT_CHARACTERS else f"{text[: MAX_TEXT_CHARACTERS - 1]}…",
            "accepted_at": now,
            "attachments": tuple(attachments)[:_MOST_ATTACHMENTS],
            "redactions": tuple(Redaction(kind=kind, count=count) for kind, count in sorted(redactions.items())),
            "edits": None,
            "deletes": None,
            "folded": len(messages),
        }
    )
    return list(changed.values()), event
