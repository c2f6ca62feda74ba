"""Which ticket a customer's message belongs to, and what of it may be kept. Pure: no clock, no database, no broker.

A conversation is what one customer writes on one channel of one brand (in one of the channel's threads, where it has
several). Its tickets are spans of time on the line of the messages' own `sent_at`; a message belongs to the span that
it falls into or comes near to. So a burst makes one ticket in whatever order and in however many batches it arrives,
also when it arrives after a later burst. At most one ticket of a conversation is open: the one the next message joins.

    near an unresolved ticket (follow-up window, either direction)      -> followed up, the open one first
    since a ticket began, until it was resolved + reopen window         -> reopened; followed up by a mere courtesy
    else                                                                -> opened, linked to the ticket before it

A message that only thanks or says goodbye (`shared.courtesy`) joins a resolved ticket and leaves it resolved. What the
customer says within the follow-up window of it goes to the same ticket, so that "thanks" and "but the money is not
here" are one ticket, reopened, whichever arrives first. After the reopen window a courtesy opens a ticket like any
other message: there is none left that an agent would look for it in.

A ticket that was merged into another is resolved like any other: what its customer writes later joins an unresolved
ticket near by (the surviving one, where it is of this conversation and not silent for longer than the window), else it
reopens the merged ticket. It is never sent to a ticket of another conversation: the answer would go out where the
customer did not write, and two conversations' locks and orders of messages would have to be one.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, unquote

from shared.courtesy import needs_no_answer
from shared.events import (
    ActivityKind,
    ChannelMessage,
    Disposition,
    Redaction,
    TicketActivity,
    TicketMessage,
    derive_id,
)
from shared.events.channel import MAX_TEXT_CHARACTERS
from shared.events.tickets import ticket_id_of
from shared.redaction import redact

_SHORT_TEXT_CHARACTERS = 500
_ADDRESS_CHARACTERS = ":/?#[]@!$&'()*+,;=%"  # what an address may hold, unquoted
_ENDINGS = frozenset({ActivityKind.RESOLVED, ActivityKind.MERGED})
# A time at the end of the calendar cannot be reckoned with: a window after it is none, for every later message too.
_EARLIEST_SENT_AT = datetime(1980, 1, 1, tzinfo=UTC)
_LATEST_SENT_AT = datetime(2200, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Windows:
    """How long a conversation's ticket waits for more: since its last message, and since it was resolved."""

    follow_up: timedelta
    reopen: timedelta

    @property
    def longest(self) -> timedelta:
        return max(self.follow_up, self.reopen)


@dataclass(frozen=True, slots=True)
class Ticket:
    """What intake knows of a ticket. `first_message_at` and `last_message_at` are its span, by the messages' `sent_at`.

    `activity_at` is the `at` of the last resolution, merge or reopening by an agent that was taken into account.
    """

    ticket_id: uuid.UUID
    conversation_id: uuid.UUID
    opened_at: datetime
    first_message_at: datetime
    last_message_at: datetime
    message_count: int
    is_open: bool
    resolved_at: datetime | None = None
    activity_at: datetime | None = None
    linked_ticket_id: uuid.UUID | None = None

    @property
    def quiet_since(self) -> datetime:
        """An agent who reopens a ticket revives it as a message does."""
        return max(self.last_message_at, self.activity_at or self.last_message_at)

    def may_be_followed_up(self, sent_at: datetime, windows: Windows) -> bool:
        return self.resolved_at is None and (
            self.first_message_at - windows.follow_up <= sent_at <= self.quiet_since + windows.follow_up
        )

    def may_be_reopened(self, sent_at: datetime, windows: Windows) -> bool:
        # Sent before the resolution, but late: the agent has not seen it, so it reopens too.
        return self.resolved_at is not None and (
            self.first_message_at - windows.follow_up <= sent_at <= self._reopens_until(self.resolved_at, windows)
        )

    def _reopens_until(self, resolved_at: datetime, windows: Windows) -> datetime:
        until = resolved_at + windows.reopen
        if self.last_message_at > resolved_at:  # a courtesy, whose burst may go on beyond the window
            until = max(until, self.last_message_at + windows.follow_up)
        return until


@dataclass(frozen=True, slots=True)
class Placement:
    """The ticket that a message joins, as it was after the message, and what the message did to it."""

    message: ChannelMessage
    ticket: Ticket
    disposition: Disposition


@dataclass(frozen=True, slots=True)
class Threaded:
    """What became of a conversation: a placement per message in the order they were sent, and the changed tickets."""

    placements: tuple[Placement, ...]
    changed: tuple[Ticket, ...]


def conversation_id_of(message: ChannelMessage) -> uuid.UUID:
    return derive_id("conversation", message.brand, message.channel, message.customer.id, message.conversation_id or "")


def thread(messages: Iterable[ChannelMessage], tickets: Iterable[Ticket], windows: Windows) -> Threaded:
    """Place new messages of one conversation among its tickets.

    `tickets` must hold the open one, those within the longest window of a message, and the last one before them.
    """
    before = {ticket.ticket_id: ticket for ticket in tickets}
    after = dict(before)
    placements = []
    for message in sorted(messages, key=lambda message: (message.sent_at, message.message_id)):
        ticket, disposition = _place(message, after.values(), windows)
        after |= _make_current(ticket, message.sent_at, after)
        placements.append(Placement(message, after[ticket.ticket_id], disposition))
    return Threaded(tuple(placements), _changed(before, after))


def _place(message: ChannelMessage, tickets: Iterable[Ticket], windows: Windows) -> tuple[Ticket, Disposition]:
    sent_at = message.sent_at
    near = [ticket for ticket in tickets if ticket.may_be_followed_up(sent_at, windows)]
    if near:
        nearest = max(near, key=lambda ticket: (ticket.is_open, ticket.last_message_at, ticket.ticket_id))
        return _with_message(nearest, sent_at), Disposition.FOLLOWED_UP
    resolved = [ticket for ticket in tickets if ticket.may_be_reopened(sent_at, windows)]
    if resolved:
        latest = max(resolved, key=lambda ticket: (ticket.resolved_at, ticket.ticket_id))
        joined = _with_message(latest, sent_at)
        if needs_no_answer(message.text, message.subject, message.attachments):
            return joined, Disposition.FOLLOWED_UP
        return replace(joined, resolved_at=None), Disposition.REOPENED
    earlier = max(
        (ticket for ticket in tickets if ticket.opened_at <= sent_at),
        key=lambda ticket: (ticket.opened_at, ticket.ticket_id),
        default=None,
    )
    opened = Ticket(
        ticket_id=ticket_id_of(message.brand, message.channel, message.message_id),
        conversation_id=conversation_id_of(message),
        opened_at=sent_at,
        first_message_at=sent_at,
        last_message_at=sent_at,
        message_count=1,
        is_open=False,
        linked_ticket_id=earlier.ticket_id if earlier else None,
    )
    return opened, Disposition.OPENED


def _with_message(ticket: Ticket, sent_at: datetime) -> Ticket:
    return replace(
        ticket,
        first_message_at=min(ticket.first_message_at, sent_at),
        last_message_at=max(ticket.last_message_at, sent_at),
        message_count=ticket.message_count + 1,
    )


def _make_current(ticket: Ticket, at: datetime, tickets: Mapping[uuid.UUID, Ticket]) -> dict[uuid.UUID, Ticket]:
    """`ticket` becomes the open one, unless another is open and has a later message: then `ticket` is of the past.

    A ticket that is still resolved after its message changes nothing about which one is open.
    """
    if ticket.resolved_at is not None:
        return {ticket.ticket_id: ticket}
    current = next((other for other in tickets.values() if other.is_open and other.ticket_id != ticket.ticket_id), None)
    if current is None:
        return {ticket.ticket_id: replace(ticket, is_open=True)}
    if at <= current.last_message_at:
        return {ticket.ticket_id: ticket}
    return {
        current.ticket_id: replace(current, is_open=False),
        ticket.ticket_id: replace(ticket, is_open=True),
    }


def _changed(before: Mapping[uuid.UUID, Ticket], after: Mapping[uuid.UUID, Ticket]) -> tuple[Ticket, ...]:
    return tuple(ticket for ticket_id, ticket in after.items() if before.get(ticket_id) != ticket)


def apply_activities(activities: Iterable[TicketActivity], tickets: Iterable[Ticket]) -> tuple[Ticket, ...]:
    """The tickets that agents' resolutions, merges and reopenings change.

    `tickets` are those the activities name and the open ones of their conversations. An activity that is not later than
    what was taken into account is a repetition, or was overtaken, and changes nothing.
    """
    before = {ticket.ticket_id: ticket for ticket in tickets}
    after = dict(before)
    for activity in sorted(activities, key=lambda activity: activity.at):
        ticket = after.get(activity.ticket_id)
        if ticket is None or (ticket.activity_at is not None and activity.at <= ticket.activity_at):
            continue
        if activity.kind in _ENDINGS:
            after[ticket.ticket_id] = replace(ticket, is_open=False, resolved_at=activity.at, activity_at=activity.at)
        elif activity.kind is ActivityKind.REOPENED:
            others_open = any(
                other.is_open and other.conversation_id == ticket.conversation_id
                for other in after.values()
                if other.ticket_id != ticket.ticket_id
            )
            after[ticket.ticket_id] = replace(
                ticket, is_open=not others_open, resolved_at=None, activity_at=activity.at
            )
    return _changed(before, after)


def wrong_sent_at(sent_at: datetime, now: datetime, oldest: timedelta | None) -> str | None:
    """Why a message of that time cannot be accepted, or None. Does not quote it."""
    if not _EARLIEST_SENT_AT <= sent_at <= _LATEST_SENT_AT:
        return f"must lie between {_EARLIEST_SENT_AT.year} and {_LATEST_SENT_AT.year}; check the channel's clock"
    if oldest is not None and sent_at < now - oldest:
        return f"is more than {oldest.days} days ago; check the channel's clock, or raise INTAKE_MESSAGE_OLDEST_DAYS"
    return None


def accepted(placement: Placement, accepted_at: datetime) -> TicketMessage:
    """The message as it may be stored and published: secrets cut out of everything that the customer wrote.

    `reply_to`, phone number and mail address stay as they are, they are where the answer goes; and so do the ids, by
    which a message is known. A file's address that holds a secret leads nowhere afterwards: better than to tell it.
    """
    message = placement.message
    counts: Counter[str] = Counter()

    def cut(text: str, most_characters: int = _SHORT_TEXT_CHARACTERS) -> str:
        redacted = redact(text)
        if not redacted.counts:
            return text
        counts.update(dict(redacted.counts))
        return redacted.text[:most_characters]  # a token may be longer than the secret

    def cut_address(url: str) -> str:
        readable = unquote(url)
        # Part by part first: "https://..." is no password, and what follows it would pass as part of it.
        without = cut("/".join(cut(part) for part in readable.split("/")))
        return url if without == readable else quote(without, safe=_ADDRESS_CHARACTERS)[:_SHORT_TEXT_CHARACTERS]

    customer = message.customer
    if customer.name:
        customer = customer.model_copy(update={"name": cut(customer.name)})
    text = cut(message.text, MAX_TEXT_CHARACTERS)
    subject = cut(message.subject) if message.subject else message.subject
    attachments = tuple(
        attachment.model_copy(
            update={
                "name": cut(attachment.name),
                "media_type": cut(attachment.media_type),
                "url": cut_address(attachment.url) if attachment.url else attachment.url,
            }
        )
        for attachment in message.attachments
    )
    ticket = placement.ticket
    return TicketMessage(
        ticket_id=ticket.ticket_id,
        brand=message.brand,
        channel=message.channel,
        message_id=message.message_id,
        sequence=ticket.message_count,
        disposition=placement.disposition,
        customer=customer,
        text=text,
        subject=subject,
        sent_at=message.sent_at,
        accepted_at=accepted_at,
        opened_at=ticket.opened_at,
        reply_to=message.reply_to,
        attachments=attachments,
        redactions=tuple(Redaction(kind=kind, count=count) for kind, count in sorted(counts.items())),
        linked_ticket_id=ticket.linked_ticket_id,
    )
