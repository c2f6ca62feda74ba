"""What became of messages that their customer edited or took back: the words of now, and those that are gone."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from services.desk.domain_points import decided_by_agent
from shared.events import TicketMessage, TicketRouted
from shared.events.tickets import message_event_id_of

MESSAGE: Final = "message"
"""How the history names a TicketMessage."""


class Mark(StrEnum):
    """What the customer did to a message later."""

    EDITED = "edited"
    TAKEN_BACK = "taken_back"


@dataclass(frozen=True, slots=True)
class Told:
    """A message as an event tells of it. `edits`, `deletes`: the event id of the message that it changes."""

    event_id: uuid.UUID
    sequence: int
    text: str
    subject: str | None
    edits: uuid.UUID | None
    deletes: uuid.UUID | None

    @classmethod
    def by(cls, event: TicketMessage | TicketRouted) -> Told | None:
        """None for an agent's correction: it tells of a message that was told of before."""
        if isinstance(event, TicketRouted) and decided_by_agent(event):
            return None

        def named(message_id: str | None) -> uuid.UUID | None:
            return None if message_id is None else message_event_id_of(event.brand, event.channel, message_id)

        return cls(
            event.event_id if isinstance(event, TicketMessage) else event.cause_id,
            event.sequence,
            event.text,
            event.subject,
            named(event.edits),
            named(event.deletes),
        )


@dataclass(frozen=True, slots=True)
class Words:
    """Of a ticket: the latest message that stands, with its words of now (sequence 0: none stands).

    `outdated`: the messages (event ids) whose points count no more. `gone`: the sequences of those whose words the
    customer took back.
    """

    text: str
    subject: str | None
    sequence: int
    outdated: frozenset[uuid.UUID]
    gone: frozenset[int]


def words_of(told: Iterable[Told]) -> Words:
    """`told`: all messages of a ticket, in any order and however often."""
    messages: dict[uuid.UUID, Told] = {}
    for item in told:
        messages.setdefault(item.event_id, item)
    edits: dict[uuid.UUID, list[Told]] = {}
    for item in sorted(messages.values(), key=lambda item: item.sequence):
        if item.edits is not None:
            edits.setdefault(item.edits, []).append(item)
    taken_back = {item.deletes for item in messages.values() if item.deletes is not None}
    outdated: set[uuid.UUID] = set()
    for original, later in edits.items():
        outdated |= {original, *(item.event_id for item in later[:-1])}
    gone_ids = taken_back | {item.event_id for original in taken_back for item in edits.get(original, ())}
    standing = [
        item
        for item in messages.values()
        if item.edits is None and item.deletes is None and item.event_id not in taken_back
    ]
    gone = frozenset(messages[event_id].sequence for event_id in gone_ids if event_id in messages)
    outdated |= gone_ids
    if not standing:
        return Words("", None, 0, frozenset(outdated), gone)
    latest = max(standing, key=lambda item: item.sequence)
    now = edits.get(latest.event_id, [latest])[-1]
    return Words(now.text, now.subject or latest.subject, latest.sequence, frozenset(outdated), gone)


def marks_of(history: Iterable[tuple[uuid.UUID, str, Mapping[str, Any]]]) -> dict[uuid.UUID, Mark]:
    """Event id of a message -> what was done to it. `history`: event id, kind and payload of each of its events."""
    marks: dict[uuid.UUID, Mark] = {}
    for _, kind, payload in history:
        for field, mark in (("edits", Mark.EDITED), ("deletes", Mark.TAKEN_BACK)):
            if kind == MESSAGE and (message_id := payload.get(field)) is not None:
                changed = message_event_id_of(payload["brand"], payload["channel"], message_id)
                if marks.get(changed) is not Mark.TAKEN_BACK:
                    marks[changed] = mark
    return marks
