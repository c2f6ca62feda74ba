"""Which ticket a customer's message belongs to, and what of it may be kept. Pure: no clock, no database, no broker.

A conversation is what one customer writes on one channel of one brand (in one of the channel's threads, where it has
several). Its tickets are spans of time on the line of the messages' own `sent_at`; a message belongs to the span that
it falls into or comes near to. So a burst makes one ticket in whatever order and in however many batches it arrives,
also when it arrives after a later burst. At most one ticket of a conversation is open: the one the next message joins.

    near an unresolved ticket (follow-up window, either direction)      -> followed up, the open one first
    since a ticket began, until it was resolved + reopen window         -> reopened; followed up by a mere courtesy
    else                                                                -> opened, linked to the ticket before it

A message that answers an earlier one (`in_reply_to`), the customer's or ours, prefers the ticket of that one, however
long ago: unresolved, it is followed up; within the reopen window, reopened; later, the message joins or opens a ticket
that is linked to it. Only a ticket of the same conversation is joined: what a message answers is easily forged.

A message can change an earlier one of its conversation. An edit joins that one's ticket and reopens nothing; one that
comes long after the resolution is a message like any other. A deletion joins too, and the words are forgotten. Changes
come out of order as well: an edit of a message that has not come is the message, and the message, when it comes, is a
duplicate; a deletion of one that has not come opens nothing, and the message is taken back as soon as it comes.

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

import re
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Final
from urllib.parse import quote, unquote

from services.intake.attachments import safe
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
from shared.taxonomy import Channel

_SHORT_TEXT_CHARACTERS = 500
_ADDRESS_CHARACTERS = ":/?#[]@!$&'()*+,;=%"  # what an address may hold, unquoted
_ENDINGS = frozenset({ActivityKind.RESOLVED, ActivityKind.MERGED})
# A time at the end of the calendar cannot be reckoned with: a window after it is none, for every later message too.
_EARLIEST_SENT_AT = datetime(1980, 1, 1, tzinfo=UTC)
_LATEST_SENT_AT = datetime(2200, 1, 1, tzinfo=UTC)
_MAIL_OF_OURS: Final = re.compile(r"<?([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.[0-9a-f-]{36}@", re.IGNORECASE)
_NONE: Final[Mapping[str, uuid.UUID]] = MappingProxyType({})


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


class Withheld(StrEnum):
    """Why an accepted message is not published, or not by itself."""

    FOLDED = "folded"  # part of a flood, for which one message will stand
    EDITED = "edited"  # its words had been replaced when it came
    TAKEN_BACK = "taken_back"  # it had been deleted when it came, or it deletes what is not there


@dataclass(frozen=True, slots=True)
class Original:
    """A message that others may change, and what they have made of it.

    `known_as`: the id under which its words were published: its own, or that of an edit that came before it, at
    `sent_at`. `ticket_id` is none when it was taken back before it came. `changed_at`: `sent_at` of the latest change.
    """

    message_id: str
    known_as: str
    ticket_id: uuid.UUID | None
    sent_at: datetime
    changed_at: datetime | None = None
    taken_back: bool = False


@dataclass(frozen=True, slots=True)
class Placement:
    """The ticket that a message joins, as it was after the message, and what the message did to it.

    `edits`, `deletes`: the original, where it changes one and is no message of its own.
    """

    message: ChannelMessage
    ticket: Ticket
    disposition: Disposition
    edits: Original | None = None
    deletes: Original | None = None


@dataclass(frozen=True, slots=True)
class SetAside:
    """A message of which nothing is told, and the ticket it would have belonged to, if any."""

    message: ChannelMessage
    why: Withheld
    ticket_id: uuid.UUID | None


@dataclass(frozen=True, slots=True)
class Threaded:
    """What became of a conversation: placements in the order the messages were sent, and what changed."""

    placements: tuple[Placement, ...]
    changed: tuple[Ticket, ...]
    set_aside: tuple[SetAside, ...] = ()
    originals: tuple[Original, ...] = ()


def conversation_id_of(message: ChannelMessage) -> uuid.UUID:
    return derive_id("conversation", message.brand, message.channel, message.customer.id, message.conversation_id or "")


def ticket_of_mail(channel: Channel, message_id: str) -> uuid.UUID | None:
    """The ticket that a mail of ours was about: its id is `<ticket>.<notification>@<domain>`."""
    found = _MAIL_OF_OURS.match(message_id) if channel is Channel.EMAIL else None
    return uuid.UUID(found[1]) if found else None


def thread(
    messages: Iterable[ChannelMessage],
    tickets: Iterable[Ticket],
    windows: Windows,
    *,
    answered: Mapping[str, uuid.UUID] = _NONE,
    originals: Mapping[str, Original] = MappingProxyType({}),
    elsewhere: Mapping[str, uuid.UUID] = _NONE,
) -> Threaded:
    """Place new messages of one conversation among its tickets.

    `tickets` must hold the open one, those within the longest window of a message, the last one before them, and those
    of `answered` and `originals`. `answered`: ids that messages answer -> the ticket of this conversation they are of.
    `originals`: ids that messages change, or bear although they were changed before they came. `elsewhere`: ids of
    messages -> a ticket of the same person in another conversation that they answer.
    """
    conversation = _Conversation(tickets, windows, answered, originals, elsewhere)
    # A change in the same instant as its original follows it.
    for message in sorted(messages, key=lambda item: (item.sent_at, item.changes is not None, item.message_id)):
        conversation.take(message)
    return conversation.threaded()


class _Conversation:
    """The state while messages are placed one by one."""

    def __init__(
        self,
        tickets: Iterable[Ticket],
        windows: Windows,
        answered: Mapping[str, uuid.UUID],
        originals: Mapping[str, Original],
        elsewhere: Mapping[str, uuid.UUID],
    ) -> None:
        self._before = {ticket.ticket_id: ticket for ticket in tickets}
        self._tickets = dict(self._before)
        self._windows = windows
        self._answered = dict(answered)
        self._originals = dict(originals)
        self._elsewhere = elsewhere
        self._placements: list[Placement] = []
        self._set_aside: list[SetAside] = []
        self._changed: dict[str, Original] = {}

    def threaded(self) -> Threaded:
        return Threaded(
            tuple(self._placements),
            _changed(self._before, self._tickets),
            tuple(self._set_aside),
            tuple(self._changed.values()),
        )

    def take(self, message: ChannelMessage) -> None:
        if message.changes is not None:
            self._change(message, message.changes)
        elif (original := self._originals.get(message.message_id)) is not None:
            why = Withheld.TAKEN_BACK if original.taken_back else Withheld.EDITED
            self._put_aside(message, why, original.ticket_id)
        else:
            self._place(message)

    def _place(self, message: ChannelMessage, answered: Ticket | None = None) -> Ticket:
        answered = answered or next(
            (self._tickets[self._answered[name]] for name in message.in_reply_to if name in self._answered), None
        )
        ticket, disposition = _place(
            message, self._tickets.values(), self._windows, answered, self._elsewhere.get(message.message_id)
        )
        self._tickets |= make_current(ticket, message.sent_at, self._tickets)
        self._placements.append(Placement(message, self._tickets[ticket.ticket_id], disposition))
        self._answered[message.message_id] = ticket.ticket_id
        return ticket

    def _change(self, message: ChannelMessage, name: str) -> None:
        original = self._original(name)
        if original is None:
            self._change_unknown(message, name)
        elif original.taken_back:
            self._put_aside(message, Withheld.TAKEN_BACK, original.ticket_id)
        elif message.deletes is not None:
            self._join(message, original, changed=replace(original, changed_at=message.sent_at, taken_back=True))
        elif original.changed_at is not None and message.sent_at < original.changed_at:
            self._put_aside(message, Withheld.EDITED, original.ticket_id)
        else:
            self._edit(message, original)

    def _original(self, name: str) -> Original | None:
        if (known := self._originals.get(name)) is not None:
            return known
        here = next((placed for placed in self._placements if placed.message.message_id == name), None)
        return None if here is None else Original(name, name, here.ticket.ticket_id, here.message.sent_at)

    def _change_unknown(self, message: ChannelMessage, name: str) -> None:
        if message.deletes is not None:
            self._put_aside(message, Withheld.TAKEN_BACK, None)
            gone = Original(name, name, None, message.sent_at, changed_at=message.sent_at, taken_back=True)
            self._remember(gone, name)
            return
        ticket = self._place(message)
        known_as = message.message_id
        stands_for = Original(name, known_as, ticket.ticket_id, message.sent_at, changed_at=message.sent_at)
        self._remember(stands_for, name, known_as)

    def _edit(self, message: ChannelMessage, original: Original) -> None:
        ticket = self._ticket_of(original)
        changed = replace(original, changed_at=message.sent_at)
        if ticket.resolved_at is None or message.sent_at <= original.sent_at + self._windows.follow_up:
            self._join(message, original, changed=changed)
            self._remember(changed, message.message_id)
        else:
            self._place(message, ticket)
            self._remember(changed)

    def _join(self, message: ChannelMessage, original: Original, *, changed: Original) -> None:
        """The change goes to its original's ticket. An edit is a sign of life; a deletion asks for nothing."""
        ticket = self._ticket_of(original)
        if message.edits is not None and ticket.resolved_at is None:
            ticket = _with_message(ticket, message.sent_at)
        else:
            ticket = replace(ticket, message_count=ticket.message_count + 1)
        self._tickets[ticket.ticket_id] = ticket
        edits, deletes = (original, None) if message.edits is not None else (None, original)
        self._placements.append(Placement(message, ticket, Disposition.FOLLOWED_UP, edits, deletes))
        self._answered[message.message_id] = ticket.ticket_id
        self._remember(changed)

    def _ticket_of(self, original: Original) -> Ticket:
        assert original.ticket_id is not None, "only what was taken back has no ticket"
        return self._tickets[original.ticket_id]

    def _remember(self, original: Original, *names: str) -> None:
        self._changed[original.message_id] = original
        others = [name for name, known in self._originals.items() if known.message_id == original.message_id]
        self._originals |= dict.fromkeys((original.message_id, *names, *others), original)

    def _put_aside(self, message: ChannelMessage, why: Withheld, ticket_id: uuid.UUID | None) -> None:
        self._set_aside.append(SetAside(message, why, ticket_id))


def _place(
    message: ChannelMessage,
    tickets: Iterable[Ticket],
    windows: Windows,
    answered: Ticket | None,
    elsewhere: uuid.UUID | None,
) -> tuple[Ticket, Disposition]:
    sent_at = message.sent_at
    if answered is not None:
        if answered.resolved_at is None:
            return _with_message(answered, sent_at), Disposition.FOLLOWED_UP
        # What else answers it after the reopen window is one ticket, which may have come before this message.
        tickets = [ticket for ticket in tickets if ticket.linked_ticket_id == answered.ticket_id]
    near = [ticket for ticket in tickets if ticket.may_be_followed_up(sent_at, windows)]
    if near:
        nearest = max(near, key=lambda ticket: (ticket.is_open, ticket.last_message_at, ticket.ticket_id))
        return _with_message(nearest, sent_at), Disposition.FOLLOWED_UP
    if answered is not None and answered.may_be_reopened(sent_at, windows):
        return _taken_up(answered, message)
    resolved = [ticket for ticket in tickets if ticket.may_be_reopened(sent_at, windows)]
    if resolved:
        return _taken_up(max(resolved, key=lambda ticket: (ticket.resolved_at, ticket.ticket_id)), message)
    earlier = answered or max(
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
        linked_ticket_id=elsewhere or (earlier.ticket_id if earlier else None),
    )
    return opened, Disposition.OPENED


def _taken_up(ticket: Ticket, message: ChannelMessage) -> tuple[Ticket, Disposition]:
    """A resolved ticket after its customer wrote on: reopened, unless he only thanks."""
    joined = _with_message(ticket, message.sent_at)
    if needs_no_answer(message.text, message.subject, message.attachments):
        return joined, Disposition.FOLLOWED_UP
    return replace(joined, resolved_at=None), Disposition.REOPENED


def _with_message(ticket: Ticket, sent_at: datetime) -> Ticket:
    return replace(
        ticket,
        first_message_at=min(ticket.first_message_at, sent_at),
        last_message_at=max(ticket.last_message_at, sent_at),
        message_count=ticket.message_count + 1,
    )


def make_current(ticket: Ticket, at: datetime, tickets: Mapping[uuid.UUID, Ticket]) -> dict[uuid.UUID, Ticket]:
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


def accepted(placement: Placement, accepted_at: datetime, related: Sequence[uuid.UUID] = ()) -> TicketMessage:
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
        for attachment in map(safe, message.attachments)
    )
    ticket = placement.ticket
    event = TicketMessage(
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
        related_ticket_ids=tuple(related),
        edits=placement.edits and placement.edits.known_as,
        deletes=placement.deletes and placement.deletes.known_as,
    )
    return event if event.deletes is None else without_words(event)


def without_words(event: TicketMessage) -> TicketMessage:
    """The message after its customer took it back: that it was there, and nothing of what it said."""
    return event.model_copy(update={"text": "", "subject": None, "attachments": (), "redactions": ()})
