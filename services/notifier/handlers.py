"""What comes in: contacts, routed tickets, agents' activity, clocks. Each batch is one short transaction."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from services.notifier import storage
from services.notifier.domain.notifications import (
    Notification,
    acknowledgement,
    addressed,
    answering,
    bypasses_limits,
    contact_of,
    digest_due_at,
    digest_of,
    held_back,
    latest_contacts,
    reminders_of,
    reply,
    uncallable,
    window_start,
)
from services.notifier.domain.outputs import Outputs
from services.notifier.domain.texts import Texts
from services.notifier.settings import Settings
from services.notifier.storage import Result, State, Window
from shared import metrics, topics
from shared.cloudevents import Outgoing, Received
from shared.database import Database
from shared.delivery import Refusal
from shared.events import (
    NotificationKind,
    NotificationOutcome,
    NotificationStatus,
    Output,
    PolicyChanged,
    SlaEvent,
    TicketActivity,
    TicketLeft,
    TicketMessage,
    TicketRouted,
)
from shared.outbox import Outbox
from shared.redaction import redact
from shared.taxonomy import Channel

_HOUR_SECONDS: Final = 3600


class Handlers:
    def __init__(self, database: Database, settings: Settings, texts: Texts, outputs: Outputs) -> None:
        self._database = database
        self._settings = settings
        self._texts = texts
        self._outputs = outputs
        self._outbox = Outbox(storage.SCHEMA)

    async def on_messages(self, batch: Sequence[Received[TicketMessage]]) -> None:
        """Remember how each customer is reached; replies that waited for it go out."""
        async with self._database.transaction() as connection:
            await self._remember(connection, [received.event for received in batch])

    async def on_routed(self, batch: Sequence[Received[TicketRouted | TicketLeft]]) -> None:
        """Acknowledge tickets that were opened, each once."""
        routed = [(item, item.event) for item in batch if isinstance(item.event, TicketRouted)]
        made = [
            (notification, contact_of(event).conversation)
            for received, event in routed
            if (notification := acknowledgement(event, self._texts, self._outputs, received.traceparent))
        ]
        async with self._database.transaction() as connection:
            await self._remember(connection, [event for _, event in routed])
            # Which mail it was comes by another topic, mostly before; if not, our Message-ID still names the ticket.
            by_mail = {event.ticket_id for _, event in routed if event.channel is Channel.EMAIL}
            contacts = await storage.contacts_for_replies(connection, by_mail) if by_mail else {}
            made = [(answering(item, contacts.get(item.ticket_id)), who) for item, who in made if item.ticket_id]
            added = await storage.add_notifications(connection, [notification for notification, _ in made])
            fresh = {item.notification_id: (item, who) for item, who in made if item.notification_id in added}
            await self._acknowledge(connection, list(fresh.values()))
        self._count_duplicates("queues", len(made) - len(fresh))

    async def on_activity(self, batch: Sequence[Received[TicketActivity]]) -> None:
        """Pass agents' replies on; one whose ticket's contact is not known yet waits for it."""
        replies = [
            notification
            for received in batch
            if (notification := reply(received.event, redact(received.event.text or "").text, received.traceparent))
        ]
        if not replies:
            return
        async with self._database.transaction() as connection:
            tickets = {item.ticket_id for item in replies if item.ticket_id is not None}
            contacts = await storage.contacts_for_replies(connection, tickets)
            reachable, waiting = [], []
            for item in replies:
                contact = contacts.get(item.ticket_id) if item.ticket_id is not None else None
                if contact is None:
                    waiting.append(item)
                else:
                    reachable.append(addressed(item, contact, self._texts, self._outputs))
            added = await storage.add_notifications(connection, reachable)
            await storage.schedule(connection, _those(reachable, added), datetime.now(UTC))
            added |= await storage.add_notifications(connection, waiting, State.WAITING_CONTACT)
        self._count_duplicates("tickets.activity", len(replies) - len(added))

    async def on_sla_events(self, batch: Sequence[Received[SlaEvent | PolicyChanged]]) -> list[Refusal]:
        """Tell leads of what is or will be late, and call whom an escalation calls. A change of the policies is told to
        nobody.
        """
        alarms = [(item, item.event) for item in batch if isinstance(item.event, SlaEvent)]
        refusals = [Refusal(received, why_not) for received, event in alarms if (why_not := uncallable(event))]
        made = [
            notification
            for received, event in alarms
            for notification in reminders_of(event, self._texts, self._outputs, received.traceparent)
        ]
        if not made:
            return refusals
        async with self._database.transaction() as connection:
            added = await storage.add_notifications(connection, made)
            await self._remind(connection, _those(made, added))
        self._count_duplicates("sla.events", len(made) - len(added))
        return refusals

    async def _remember(self, connection: AsyncConnection, events: Sequence[TicketMessage | TicketRouted]) -> None:
        contacts = latest_contacts(events)
        if not contacts:
            return
        await storage.remember_contacts(connection, contacts.values())
        waiting = await storage.waiting_replies(connection, contacts)
        if not waiting:
            return
        tickets = {item.ticket_id for item in waiting if item.ticket_id is not None}
        known = await storage.contacts_for_replies(connection, tickets)  # not `contacts`: an older event may bring them
        replies = [
            addressed(item, known[item.ticket_id], self._texts, self._outputs)
            for item in waiting
            if item.ticket_id is not None
        ]
        await storage.address_replies(connection, replies)
        await storage.schedule(connection, replies, datetime.now(UTC))

    async def _acknowledge(self, connection: AsyncConnection, fresh: Sequence[tuple[Notification, str]]) -> None:
        """Schedule new acknowledgements, within what each customer may get in the hour of its cause."""
        if not fresh:
            return
        limit = self._settings.notifier_acknowledgements_per_hour
        windows: dict[Window, list[Notification]] = defaultdict(list)
        for item, conversation in fresh:
            windows[f"acknowledgement/{conversation}", window_start(item.caused_at, _HOUR_SECONDS)].append(item)
        used = await storage.use_allowances(connection, {window: len(group) for window, group in windows.items()})
        send: list[Notification] = []
        held: list[tuple[Notification, str]] = []
        for window, group in windows.items():
            for number, item in enumerate(group, start=used[window] - len(group) + 1):
                reason = held_back(item, number, limit)
                if reason is None:
                    send.append(item)
                else:
                    held.append((item, reason))
        now = datetime.now(UTC)
        await storage.schedule(connection, send, now)
        if held:
            await storage.record_results(
                connection, [Result(item.notification_id, State.GIVEN_UP, 1, reason) for item, reason in held], now
            )
            outcomes = [
                Outgoing(
                    topics.NOTIFICATIONS_OUTCOMES.name,
                    outcome(item, NotificationStatus.GIVEN_UP, attempt=1, at=now, detail=reason),
                    item.traceparent,
                )
                for item, reason in held
            ]
            await self._outbox.add(connection, outcomes)

    async def _remind(self, connection: AsyncConnection, fresh: Sequence[Notification]) -> None:
        """Schedule new reminders: at once within the limit of each recipient's window, with its digest beyond.

        Calls of those on call go out at once and use nothing of the limit.
        """
        if not fresh:
            return
        now = datetime.now(UTC)
        window_seconds = self._settings.notifier_reminder_window_seconds
        start = window_start(now, window_seconds)
        limit = self._settings.notifier_reminders_per_window
        windows: dict[Window, list[Notification]] = defaultdict(list)
        at_once = [item for item in fresh if bypasses_limits(item)]
        limited = [item for item in fresh if not bypasses_limits(item)]
        for item in sorted(limited, key=lambda item: item.caused_at):
            windows[f"reminder/{_recipient(item)}", start].append(item)
        used = await storage.use_allowances(connection, {window: len(group) for window, group in windows.items()})
        beyond: list[tuple[Notification, Notification]] = []  # reminder, its digest
        for window, group in windows.items():
            room = max(0, limit - (used[window] - len(group)))
            at_once += group[:room]
            beyond += [(item, digest_of(item, start)) for item in group[room:]]
        if beyond:
            digests = list({digest.notification_id: digest for _, digest in beyond}.values())
            added = await storage.add_notifications(connection, digests)
            due_at = digest_due_at(start, window_seconds)
            await storage.schedule(connection, _those(digests, added), due_at)
            # A digest that is already on its way (this transaction took longer than its window) takes no more in.
            is_open = await storage.lock_open_digests(connection, [digest.notification_id for digest in digests])
            at_once += [item for item, digest in beyond if digest.notification_id not in is_open]
            folded = {
                item.notification_id: digest.notification_id
                for item, digest in beyond
                if digest.notification_id in is_open
            }
            await storage.fold(connection, folded)
        await storage.schedule(connection, at_once, now)

    def _count_duplicates(self, family: str, count: int) -> None:
        if count:
            metrics.RECORDS_DUPLICATE.labels(f"{storage.SCHEMA}.{family}").inc(count)


def outcome(
    notification: Notification,
    status: NotificationStatus,
    *,
    attempt: int,
    at: datetime,
    detail: str,
    next_try_at: datetime | None = None,
) -> NotificationOutcome:
    """The event of one try. Not for a digest: what is in it has outcomes of its own."""
    if notification.ticket_id is None or notification.brand is None or notification.route is None:
        raise ValueError(f"notification {notification.notification_id} has no ticket, brand or route to report on")
    return NotificationOutcome(
        notification_id=notification.notification_id,
        ticket_id=notification.ticket_id,
        brand=notification.brand,
        kind=NotificationKind(notification.kind),
        output=Output(notification.route.output),
        status=status,
        attempt=attempt,
        at=at,
        next_try_at=next_try_at,
        detail=detail,
    )


def retention_limits(settings: Settings, now: datetime) -> dict[str, datetime]:
    """The times before which texts are erased, records and contacts deleted; as `storage.purge` takes them."""
    return {
        "texts": now - timedelta(days=settings.notifier_text_retention_days),
        "records": now - timedelta(days=settings.notifier_record_retention_days),
        "contacts": now - timedelta(days=settings.notifier_contact_retention_days),
    }


def _those(notifications: Sequence[Notification], ids: set[uuid.UUID]) -> list[Notification]:
    """The notifications with these ids, each once: a batch may hold an event twice."""
    return list({item.notification_id: item for item in notifications if item.notification_id in ids}.values())


def _recipient(notification: Notification) -> str:
    route = notification.route
    return f"{route.endpoint}/{route.recipient}" if route else ""
