"""From a ticket that an agent put into another category to an example: which of its messages to learn from.

A correction names the ticket and not a message. The message to learn from is the one that brought the ticket to the
category that was wrong: what came after ("still there?") did not move it. Where that was `other`, nothing had been
understood, and the longest message says most.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from services.classifier.learning.examples import Example
from shared.events import TicketRouted
from shared.redaction import redact
from shared.taxonomy import Category


@dataclass(frozen=True, slots=True)
class CorrectedTicket:
    """`activity_id`, `sequence` and `wrong` are of the first correction of its category: the message that it was last
    routed by then, and the category that it had. `right` is the category it has now: only agents have moved it since.
    """

    ticket_id: uuid.UUID
    activity_id: uuid.UUID
    sequence: int
    wrong: Category
    right: Category


def example_of(ticket: CorrectedTicket, kept: Iterable[TicketRouted]) -> Example | None:
    """What to learn from a ticket; None when its message is not kept any more, or has no text.

    `kept`: decisions on it that are still there, in any order. Text on one line, secrets cut by the rules of today.
    """
    source = _source(ticket, sorted(kept, key=lambda event: event.revision))
    if source is None:
        return None
    text = " ".join(redact(source.text).text.split())
    return Example(text, ticket.right.value, source.language.value) if text else None


def _source(ticket: CorrectedTicket, events: Sequence[TicketRouted]) -> TicketRouted | None:
    corrected_at = next((event.revision for event in events if event.cause_id == ticket.activity_id), None)
    run: list[TicketRouted] = []
    if corrected_at is not None:
        by_revision = {event.revision: event for event in events}
        revision = corrected_at - 1
        while (event := by_revision.get(revision)) is not None and event.category is ticket.wrong:
            run.append(event)
            revision -= 1
        # Without the decision before it nobody knows whether the category was set here or earlier.
        if run and (revision == 0 or revision in by_revision):
            return max(run, key=lambda event: len(event.text)) if ticket.wrong is Category.OTHER else run[-1]
    if ticket.sequence == 1:  # its only message then; every later decision without a message tells its text too
        return next((event for event in events if event.sequence == 1), None)
    return None
