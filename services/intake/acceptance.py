"""From raw messages to stored ones, in one transaction: the same for Kafka and for HTTP."""

from __future__ import annotations

import uuid
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from sqlalchemy.ext.asyncio import AsyncConnection

from services.intake import storage
from services.intake.domain import Windows, accepted, apply_activities, conversation_id_of, thread
from shared import metrics, topics
from shared.cloudevents import Origin, Outgoing
from shared.database import Database
from shared.events import ChannelMessage, TicketActivity, TicketMessage
from shared.outbox import Outbox

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
    """What became of an incoming message. A duplicate has no event: nothing is to be published for it."""

    incoming: Incoming
    status: Status
    ticket_id: uuid.UUID
    event: TicketMessage | None

    def outgoing(self) -> Outgoing:
        assert self.event is not None
        return Outgoing(topics.TICKETS_MESSAGES.name, self.event, self.incoming.traceparent)


class ConcurrentDuplicate(Exception):
    """Another transaction stored one of the same messages, under another conversation, while this one was at it."""


class Acceptance:
    """Threads messages into tickets and stores both, or neither."""

    def __init__(self, database: Database, windows: Windows, outbox: Outbox) -> None:
        self._database = database
        self._windows = windows
        self._outbox = outbox

    async def accept(self, incoming: Sequence[Incoming], *, into_outbox: bool) -> list[Outcome]:
        """One outcome per incoming message, in their order. Committed when it returns.

        With `into_outbox` the events of new messages are stored along with them; else the caller publishes those of
        `publishable`.
        """
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
        for item in incoming:
            if first.setdefault(storage.key_of(item.message), item) is item:
                conversations[conversation_id_of(item.message)].append(item.message)
        await storage.lock_conversations(
            connection, {conversation: messages[0] for conversation, messages in conversations.items()}, now
        )
        # After the lock: what another replica did to these conversations is committed, and seen.
        stored = await storage.stored_messages(connection, first)
        new = {
            conversation: fresh
            for conversation, messages in conversations.items()
            if (fresh := [message for message in messages if storage.key_of(message) not in stored])
        }
        events = await self._thread(connection, new, first, now) if new else {}
        return [self._outcome(item, first, stored, events) for item in incoming]

    async def _thread(
        self,
        connection: AsyncConnection,
        new: dict[uuid.UUID, list[ChannelMessage]],
        first: dict[storage.MessageKey, Incoming],
        now: datetime,
    ) -> dict[storage.MessageKey, TicketMessage]:
        tickets = defaultdict(list)
        earliest = {
            conversation: min(message.sent_at for message in messages) for conversation, messages in new.items()
        }
        for ticket in await storage.tickets_near(connection, earliest, self._windows.longest):
            tickets[ticket.conversation_id].append(ticket)
        threaded = [thread(messages, tickets[conversation], self._windows) for conversation, messages in new.items()]
        await storage.save_tickets(connection, [ticket for item in threaded for ticket in item.changed])
        events = {
            storage.key_of(placement.message): accepted(placement, now)
            for item in threaded
            for placement in item.placements
        }
        if not await storage.add_messages(connection, [(event, first[key].origin) for key, event in events.items()]):
            raise ConcurrentDuplicate
        return events

    @staticmethod
    def _outcome(
        item: Incoming,
        first: dict[storage.MessageKey, Incoming],
        stored: dict[storage.MessageKey, storage.StoredMessage],
        events: dict[storage.MessageKey, TicketMessage],
    ) -> Outcome:
        key = storage.key_of(item.message)
        before = stored.get(key)
        if before is None:
            event = events[key]
            if first[key] is item:
                return Outcome(item, Status.NEW, event.ticket_id, event)
            return Outcome(item, Status.DUPLICATE, event.ticket_id, None)
        if item.origin is not None and item.origin == before.origin:
            return Outcome(item, Status.REDELIVERED, before.ticket_id, before.event())
        return Outcome(item, Status.DUPLICATE, before.ticket_id, None)

    async def apply(self, activities: Sequence[TicketActivity]) -> None:
        """Take agents' resolutions and reopenings into account; again does nothing."""
        ticket_ids = {activity.ticket_id for activity in activities}
        async with self._database.transaction() as connection:
            conversations = await storage.lock_conversations_of_tickets(connection, ticket_ids)
            if conversations:
                tickets = await storage.tickets_of_activities(connection, ticket_ids, conversations)
                await storage.save_tickets(connection, apply_activities(activities, tickets))


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
        if outcome.status is Status.NEW and outcome.event is not None:
            metrics.MESSAGES_ACCEPTED.labels(message.brand, message.channel, outcome.event.disposition).inc()
            for redaction in outcome.event.redactions:
                secrets[redaction.kind] += redaction.count
        elif outcome.status is Status.DUPLICATE:
            metrics.MESSAGES_DUPLICATE.labels(message.brand, message.channel).inc()
    for kind, count in secrets.items():
        metrics.SECRETS_CUT.labels(kind).inc(count)
