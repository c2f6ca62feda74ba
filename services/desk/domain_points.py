"""The points of a ticket: every matter that its customer raised, listed so that none is left without an answer."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from shared.courtesy import names_no_matter
from shared.events import TicketRouted, derive_id
from shared.taxonomy import Category

_BY_AGENT: Final = "agent:"


@dataclass(frozen=True, slots=True)
class TicketPoint:
    """One matter, `text[start:end]` of the message that it stands in. `done_at` and `done_by` are none while open."""

    point_id: uuid.UUID
    ticket_id: uuid.UUID
    message_event_id: uuid.UUID
    sequence: int
    """Of the message."""
    start: int
    end: int
    text: str
    category: Category
    done_at: datetime | None = None
    done_by: str | None = None


def decided_by_agent(event: TicketRouted) -> bool:
    """Whether it stems from an agent's correction and not from a message."""
    return event.trace.decided_by.startswith(_BY_AGENT)


def points_of(event: TicketRouted) -> list[TicketPoint]:
    """The points that the message behind `event` raised, in its order.

    None for an agent's correction or a customer's deletion: their routings tell again what the ticket's latest message
    said. None either for a message that only greets or thanks: the classifier makes one point of it, but nobody wants
    to tick off "hello".
    """
    if (
        decided_by_agent(event)
        or event.deletes is not None
        or (len(event.points) == 1 and names_no_matter(event.text, event.subject))
    ):
        return []
    return [
        TicketPoint(
            point_id=derive_id("desk.point", event.ticket_id, event.cause_id, number),
            ticket_id=event.ticket_id,
            message_event_id=event.cause_id,
            sequence=event.sequence,
            start=point.start,
            end=point.end,
            text=point.text,
            category=point.category,
        )
        for number, point in enumerate(event.points, 1)
    ]
