"""From raw messages to stored ones, in one transaction: the same for Kafka and for HTTP."""

from __future__ import annotations

import uuid
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum

from sqlalchemy.ext.asyncio import AsyncConnection

from services.intake import storage
from services.intake.domain import (
    Placement,
    Ticket,
    Windows,
    Withheld,
    accepted,
    apply_activities,
    conversation_id_of,
    thread,
    ticket_of_mail,
    without_words,
)
from services.intake.domain_floods import FloodLimit, beyond, flood_of, may_flood
from services.intake.domain_people import RELATED_FOR, contacts_of, related
from services.intake.storage import NewMessage
from shared import metrics, topics, tracing
from shared.cloudevents import Origin, Outgoing, trace_of
from shared.database import Database
from shared.events import ChannelMessage, TicketActivity, TicketMessage
from shared.labels import brand_label
from shared.outbox import Outbox
from shared.taxonomy import Channel
from shared.trace_context import current
from shared.tracing import BRAND, CHANNEL, TICKET, Span

# A concurrent duplicate is seen by the second try, unless its transaction is rolled back and yet another one comes.
_TRIES = 5


@dataclass(frozen=True, slots=True)
class Incoming:
    """A message and the record that brought it (none: it came over HTTP)."""

    message: ChannelMessage
    origin: Origin | None
    traceparent: str


class Status(StrEnum):
    NEW = "new"  # stored just now
    REDELIVERED = "redelivered"  # this very record stored it, before a crash: what follows may not have happened
    DUPLICATE = "duplicate"  # the channel sent it again


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an incoming message.

    A duplicate has no event: nothing is to be published for it. Nor has a new one that waits to be told with its flood,
    or has nothing to tell (`withheld`). A message that was taken back before it came may have no ticket.
    """

    incoming: Incoming
    status: Status
    ticket_id: uuid.UUID | None
    event: TicketMessage | None
    withheld: Withheld | None = None

    def outgoing(self) -> Outgoing:
        assert self.event is not None
        return Outgoing(topics.TICKETS_MESSAGES.name, self.event, self.incoming.traceparent)


class ConcurrentDuplicate(Exception):
    """Another transaction stored one of the same messages, under another conversation, while this one was at it."""


Conversations = Mapping[uuid.UUID, Sequence[ChannelMessage]]


@dataclass(frozen=True, slots=True)
class Person:
    """Who sent a message: his verified contacts, and all conversations of theirs."""

    contacts: frozenset[uuid.UUID]
    conversations: frozenset[uuid.UUID]


@dataclass(frozen=True, slots=True)
class References:
    """What messages answer and change, as `thread` takes it, by conversation."""

    tickets: Sequence[Ticket]
    answered: Mapping[uuid.UUID, Mapping[str, uuid.UUID]]
    originals: storage.Named
    elsewhere: Mapping[uuid.UUID, Mapping[str, uuid.UUID]]


class Acceptance:
    """Threads messages into tickets and stores both, or neither."""

    def __init__(
        self, database: Database, windows: Windows, outbox: Outbox, flood_limit: FloodLimit | None = None
    ) -> None:
        self._database = database
        self._windows = windows
        self._outbox = outbox
        self._flood_limit = flood_limit or FloodLimit()

    async def accept(self, incoming: Sequence[Incoming], *, into_outbox: bool) -> list[Outcome]:
        """One outcome per incoming message, in their order. Committed when it returns.

        With `into_outbox` the events of new messages are stored along with them; else the caller publishes those of
        `publishable`.
        """
        if not tracing.is_on():
            return await self._accept_and_count(incoming, into_outbox)
        incoming, spans = begin_accepting(incoming) if into_outbox else (incoming, [])
        try:
            outcomes = await self._accept_and_count(incoming, into_outbox)
            tell_tickets(outcomes)
        except BaseException as error:
            for span in spans:
                span.fail(type(error).__name__)
            raise
        else:
            return outcomes
        finally:
            for span in spans:
                span.end()

    async def _accept_and_count(self, incoming: Sequence[Incoming], into_outbox: bool) -> list[Outcome]:
        for _ in range(_TRIES):
            try:
                async with self._database.transaction() as connection:
                    outcomes = await self._accept(connection, incoming)
                    if into_outbox:
                        await self._outbox.add(connection, [outcome.outgoing() for outcome in publishable(outcomes)])
                break
            except ConcurrentDuplicate:
                continue
        else:
            raise TimeoutError(f"messages were stored by others {_TRIES} times in a row; try again")
        _count(outcomes)
        return outcomes

    async def _accept(self, connection: AsyncConnection, incoming: Sequence[Incoming]) -> list[Outcome]:
        now = datetime.now(UTC)
        conversations: defaultdict[uuid.UUID, list[ChannelMessage]] = defaultdict(list)
        first: dict[storage.MessageKey, Incoming] = {}
        conversation_of: dict[storage.MessageKey, uuid.UUID] = {}
        for item in incoming:
            key = storage.key_of(item.message)
            if first.setdefault(key, item) is item:
                conversation_of[key] = conversation_id_of(item.message)
                conversations[conversation_of[key]].append(item.message)
        await storage.lock_conversations(
            connection, {conversation: messages[0] for conversation, messages in conversations.items()}, now
        )
        # After the lock: what another replica did to these conversations is committed, and seen.
        stored, changed = await storage.stored_messages(connection, conversation_of)
        new = {
            conversation: fresh
            for conversation, messages in conversations.items()
            if (fresh := [message for message in messages if storage.key_of(message) not in stored])
        }
        made = await self._thread(connection, new, changed, first, now) if new else {}
        return [self._outcome(item, first, stored, made) for item in incoming]

    async def _thread(
        self,
        connection: AsyncConnection,
        new: Conversations,
        changed: storage.Named,
        first: dict[storage.MessageKey, Incoming],
        now: datetime,
    ) -> dict[storage.MessageKey, NewMessage]:
        people = await _people(connection, new)
        earliest = {
            conversation: min(message.sent_at for message in messages) for conversation, messages in new.items()
        }
        tickets: defaultdict[uuid.UUID, dict[uuid.UUID, Ticket]] = defaultdict(dict)
        for ticket in await storage.tickets_near(connection, earliest, self._windows.longest):
            tickets[ticket.conversation_id][ticket.ticket_id] = ticket
        references = await _references(connection, new, changed, people)
        for ticket in references.tickets:
            tickets[ticket.conversation_id][ticket.ticket_id] = ticket
        threaded = {
            conversation: thread(
                messages,
                tickets[conversation].values(),
                self._windows,
                answered=references.answered.get(conversation, {}),
                originals=references.originals.get(conversation, {}),
                elsewhere=references.elsewhere.get(conversation, {}),
            )
            for conversation, messages in new.items()
        }
        await storage.save_tickets(connection, [ticket for item in threaded.values() for ticket in item.changed])
        originals = [(conversation, original) for conversation, item in threaded.items() for original in item.originals]
        if originals:
            await storage.save_originals(connection, originals)
        placements = [placement for item in threaded.values() for placement in item.placements]
        related_to = await _related(connection, people, placements)
        folded = await self._fold(connection, placements, now)
        gone = _gone(placements)
        if gone:
            ticket_ids, names = zip(*gone, strict=True)
            await storage.forget_words(connection, ticket_ids, names)
        made = {}
        for placement in placements:
            message = placement.message
            key = storage.key_of(message)
            event = accepted(placement, now, related_to.get(key, ()))
            withheld = Withheld.FOLDED if key in folded else None
            if not gone.isdisjoint((event.ticket_id, name) for name in (event.message_id, event.edits)):
                event, withheld = without_words(event), withheld and Withheld.TAKEN_BACK
            made[key] = NewMessage(message, first[key].origin, event.ticket_id, event, withheld, folded.get(key))
        for aside in (aside for item in threaded.values() for aside in item.set_aside):
            key = storage.key_of(aside.message)
            made[key] = NewMessage(aside.message, first[key].origin, aside.ticket_id, None, aside.why)
        if not await storage.add_messages(connection, made.values(), now):
            raise ConcurrentDuplicate
        return made

    async def _fold(
        self, connection: AsyncConnection, placements: Sequence[Placement], now: datetime
    ) -> dict[storage.MessageKey, uuid.UUID]:
        """Those of these that are not told one by one, and their floods. They are going to be, when their windows are
        over: that is arranged.
        """
        limit = self._flood_limit
        suspects = [placement for placement in placements if may_flood(placement, limit)]
        if not suspects:
            return {}
        floods = {flood_of(placement, limit) for placement in suspects}
        seen = await storage.count_floods(connection, floods, limit.window)
        tickets = {flood.ticket_id for flood in floods}
        # In full: those of its first messages that come with this batch count as well.
        folded = beyond((item for item in placements if item.ticket.ticket_id in tickets), seen, limit)
        if folded:
            due = {flood_of(item, limit): limit.due_at(flood_of(item, limit).starts_at, now) for item in folded}
            await storage.add_floods(connection, due)
        return {storage.key_of(item.message): flood_of(item, limit).flood_id for item in folded}

    @staticmethod
    def _outcome(
        item: Incoming,
        first: dict[storage.MessageKey, Incoming],
        stored: dict[storage.MessageKey, storage.StoredMessage],
        made: dict[storage.MessageKey, NewMessage],
    ) -> Outcome:
        key = storage.key_of(item.message)
        before = stored.get(key)
        if before is None:
            new = made[key]
            if first[key] is not item or new.withheld is Withheld.EDITED:
                return Outcome(item, Status.DUPLICATE, new.ticket_id, None)
            return Outcome(item, Status.NEW, new.ticket_id, new.event if new.withheld is None else None, new.withheld)
        event = before.event() if item.origin is not None and item.origin == before.origin else None
        return Outcome(item, Status.REDELIVERED if event else Status.DUPLICATE, before.ticket_id, event)

    async def apply(self, activities: Sequence[TicketActivity]) -> None:
        """Take agents' resolutions and reopenings into account; again does nothing."""
        ticket_ids = {activity.ticket_id for activity in activities}
        async with self._database.transaction() as connection:
            conversations = await storage.lock_conversations_of_tickets(connection, ticket_ids)
            if conversations:
                tickets = await storage.tickets_of_activities(connection, ticket_ids, conversations)
                await storage.save_tickets(connection, apply_activities(activities, tickets))


def arrived(messages: Sequence[ChannelMessage]) -> list[Incoming]:
    """Messages of one request or mail. One by itself goes on with the request's trace; of several, each has its own."""
    trace = current() if len(messages) == 1 else ""
    return [Incoming(message, None, trace or trace_of(message)) for message in messages]


def begin_accepting(incoming: Sequence[Incoming]) -> tuple[list[Incoming], list[Span]]:
    """The same messages, each with the context of its new span, linked to the request that brought it; these spans."""
    request = current()
    spans = [
        tracing.begin(
            "accept message",
            item.traceparent,
            attributes={
                BRAND: item.message.brand,
                CHANNEL: item.message.channel,
                "messaging.message.id": str(item.message.event_id),
            },
            links=[request] if request and request != item.traceparent else (),
        )
        for item in incoming
    ]
    return [replace(item, traceparent=span.traceparent) for item, span in zip(incoming, spans, strict=True)], spans


def tell_tickets(outcomes: Iterable[Outcome]) -> None:
    """Which ticket each message has come to, on the span that it was accepted in."""
    for outcome in outcomes:
        tracing.note(
            outcome.incoming.traceparent,
            {
                TICKET: str(outcome.ticket_id) if outcome.ticket_id else None,
                "switchyard.message.status": outcome.status,
            },
        )


async def _people(connection: AsyncConnection, new: Conversations) -> dict[storage.MessageKey, Person]:
    """Who sent the messages whose senders are verified. Their contacts are locked."""
    contacts = {message: contacts_of(message) for messages in new.values() for message in messages if message.verified}
    seen: dict[tuple[uuid.UUID, uuid.UUID], ChannelMessage] = {}
    for message in sorted(contacts, key=lambda message: message.sent_at):
        seen |= {(contact, conversation_id_of(message)): message for contact in contacts[message]}
    if not seen:
        return {}
    conversations = await storage.lock_people(connection, seen)
    return {
        storage.key_of(message): Person(
            of_message, frozenset(known for contact in of_message for known in conversations[contact])
        )
        for message, of_message in contacts.items()
        if of_message
    }


async def _references(
    connection: AsyncConnection,
    new: Conversations,
    changed: storage.Named,
    people: Mapping[storage.MessageKey, Person],
) -> References:
    """What new messages answer and change: only what is of their own conversation, or of the same person."""
    originals = {conversation: dict(named) for conversation, named in changed.items()}
    answers: dict[storage.Reference, None] = {}
    changes: dict[storage.Reference, None] = {}
    for conversation, messages in new.items():
        for message in messages:
            for name in message.in_reply_to:
                answers[message.brand, message.channel, name, conversation] = None
            if message.changes is not None:
                changes[message.brand, message.channel, message.changes, conversation] = None
    tickets_of: dict[tuple[uuid.UUID, str], uuid.UUID] = {}
    if answers:
        for _, channel, name, conversation in answers:
            if (ticket_id := ticket_of_mail(Channel(channel), name)) is not None:
                tickets_of[conversation, name] = ticket_id
        for find in (storage.tickets_of_replies, storage.tickets_of_messages):
            for conversation, name, ticket_id in await find(connection, answers.keys()):
                tickets_of[conversation, name] = ticket_id
    if changes:
        for conversation, named in (await storage.originals_of(connection, changes.keys())).items():
            originals.setdefault(conversation, {}).update(named)
    ticket_ids = set(tickets_of.values()) | {
        original.ticket_id for named in originals.values() for original in named.values() if original.ticket_id
    }
    found = {ticket.ticket_id: ticket for ticket in await storage.tickets(connection, ticket_ids)} if ticket_ids else {}
    answered: defaultdict[uuid.UUID, dict[str, uuid.UUID]] = defaultdict(dict)
    foreign: dict[tuple[uuid.UUID, str], Ticket] = {}
    for (conversation, name), ticket_id in tickets_of.items():
        if (ticket := found.get(ticket_id)) is None:
            continue
        if ticket.conversation_id == conversation:
            answered[conversation][name] = ticket_id
        else:
            foreign[conversation, name] = ticket
    own = {
        conversation: {
            name: original
            for name, original in named.items()
            if original.ticket_id is None
            or ((of := found.get(original.ticket_id)) is not None and of.conversation_id == conversation)
        }
        for conversation, named in originals.items()
    }
    elsewhere: defaultdict[uuid.UUID, dict[str, uuid.UUID]] = defaultdict(dict)
    for conversation, messages in new.items() if foreign else ():
        for message in messages:
            person = people.get(storage.key_of(message))
            for name in reversed(message.in_reply_to) if person else ():
                ticket = foreign.get((conversation, name))
                if person and ticket and ticket.conversation_id in person.conversations:
                    elsewhere[conversation][message.message_id] = ticket.ticket_id
    tickets = [ticket for ticket in found.values() if ticket.conversation_id in new]
    return References(tickets, answered, own, elsewhere)


async def _related(
    connection: AsyncConnection, people: Mapping[storage.MessageKey, Person], placements: Sequence[Placement]
) -> dict[storage.MessageKey, tuple[uuid.UUID, ...]]:
    """The other tickets of those who sent these messages, as they are after them."""
    verified = [placement for placement in placements if storage.key_of(placement.message) in people]
    if not verified:
        return {}
    contacts = frozenset(
        contact for placement in verified for contact in people[storage.key_of(placement.message)].contacts
    )
    since = min(placement.message.sent_at for placement in verified) - RELATED_FOR
    tickets = await storage.tickets_of_people(connection, contacts, since)
    return {
        key: related(
            placement.ticket.conversation_id,
            (ticket for contact in people[key].contacts for ticket in tickets.get(contact, ())),
            placement.message.sent_at,
        )
        for placement in verified
        for key in (storage.key_of(placement.message),)
    }


def _gone(placements: Sequence[Placement]) -> set[tuple[uuid.UUID, str | None]]:
    """Ticket and name of what these messages take back: of each message, and of what stands for it."""
    return {
        (placement.ticket.ticket_id, name)
        for placement in placements
        if placement.deletes is not None
        for name in (placement.deletes.message_id, placement.deletes.known_as)
    }


def publishable(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """What must be published, a ticket's messages in their order."""
    return sorted(
        (outcome for outcome in outcomes if outcome.event is not None),
        key=lambda outcome: outcome.event.sequence if outcome.event else 0,
    )


def _count(outcomes: Sequence[Outcome]) -> None:
    secrets: Counter[str] = Counter()
    for outcome in outcomes:
        message = outcome.incoming.message
        brand = brand_label(message.brand)
        if outcome.status is Status.DUPLICATE:
            metrics.MESSAGES_DUPLICATE.labels(brand, message.channel).inc()
        elif outcome.withheld is Withheld.FOLDED:
            metrics.MESSAGES_FOLDED.labels(brand, message.channel).inc()
        elif outcome.status is Status.NEW and outcome.event is not None:
            metrics.MESSAGES_ACCEPTED.labels(brand, message.channel, outcome.event.disposition).inc()
            for redaction in outcome.event.redactions:
                secrets[redaction.kind] += redaction.count
    for kind, count in secrets.items():
        metrics.SECRETS_CUT.labels(kind).inc(count)
