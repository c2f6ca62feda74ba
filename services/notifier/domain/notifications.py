"""What notifications follow from which event. Ids are derived: the same event makes the same notification."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from math import floor
from typing import Any, Final
from zoneinfo import ZoneInfo

from services.notifier.domain.outputs import (
    Outputs,
    Person,
    Route,
    customer_route,
    escalation_routes,
    is_automatic_sender,
    lead_routes,
)
from services.notifier.domain.texts import Texts, acknowledgement_text, duration_text, reference_of
from shared.events import (
    ActivityKind,
    Disposition,
    EscalationLevel,
    NotificationKind,
    Output,
    SlaEvent,
    SlaKind,
    TicketActivity,
    TicketMessage,
    TicketRouted,
    derive_id,
)
from shared.taxonomy import QUEUE_NAMES, Category, Channel, Language, Queue

DIGEST_LINES_MOST: Final = 100
"""Reminders spelled out in one digest; the rest are counted. All of them are in the desk."""

LEFT_HOLDS_MS: Final = 60_000
"""A warning that fired later than this, as after a stop, tells the due time and no longer how much is left."""

Data = Mapping[str, Any]
"""What a webhook carries beside the text: JSON values only."""


class Kind(StrEnum):
    """`NotificationKind`, and the digest that several reminders to one person are folded into."""

    ACKNOWLEDGEMENT = NotificationKind.ACKNOWLEDGEMENT.value
    REPLY = NotificationKind.REPLY.value
    WARNING = NotificationKind.WARNING.value
    BREACH = NotificationKind.BREACH.value
    DIGEST = "digest"


@dataclass(frozen=True, slots=True)
class Contact:
    """How the customer of a ticket is reached, as of message number `sequence`; `language` is none until classified.

    `message_id` and `subject` are those of his latest mail, so that an answer stands below it in his mail program.
    """

    ticket_id: uuid.UUID
    sequence: int
    brand: str
    channel: Channel
    customer_id: str
    email: str | None
    reply_to: str | None
    language: Language | None
    message_id: str | None = None
    subject: str | None = None

    def route(self, outputs: Outputs) -> Route:
        return customer_route(
            outputs,
            brand=self.brand,
            channel=self.channel,
            customer_id=self.customer_id,
            email=self.email,
            reply_to=self.reply_to,
        )

    @property
    def conversation(self) -> str:
        """Brand, channel and customer: whom the loop guard counts."""
        return f"{self.brand}/{self.channel}/{self.customer_id}"


@dataclass(frozen=True, slots=True)
class Notification:
    """One text to one recipient. `route` and `brand` are none while the contact of a reply's ticket is not known."""

    notification_id: uuid.UUID
    kind: Kind
    ticket_id: uuid.UUID | None  # none for a digest: it is about several
    brand: str | None
    route: Route | None
    language: Language
    subject: str
    text: str
    data: Data
    caused_at: datetime
    traceparent: str


_MESSAGE_ID: Final = re.compile(r"[!-;=?A-~]{1,100}@[!-;=?A-~]{1,100}")
"""What may stand between the brackets of a Message-ID (RFC 5322, 3.6.4). The ids of mails that had none do not fit."""


def contact_of(event: TicketMessage | TicketRouted) -> Contact:
    # A routed ticket tells what is in the message, not which one it is.
    is_mail = (
        isinstance(event, TicketMessage)
        and event.channel is Channel.EMAIL
        and _MESSAGE_ID.fullmatch(event.message_id) is not None
    )
    return Contact(
        ticket_id=event.ticket_id,
        sequence=event.sequence,
        brand=event.brand,
        channel=event.channel,
        customer_id=event.customer.id,
        email=event.customer.email,
        reply_to=event.reply_to,
        language=event.language if isinstance(event, TicketRouted) else event.customer.language,
        message_id=event.message_id if isinstance(event, TicketMessage) and is_mail else None,
        subject=event.subject if is_mail else None,
    )


def latest_contacts(events: Sequence[TicketMessage | TicketRouted]) -> dict[uuid.UUID, Contact]:
    """One contact per ticket, of the latest message; its language from whichever event knows one."""
    latest: dict[uuid.UUID, Contact] = {}
    for contact in map(contact_of, events):
        known = latest.get(contact.ticket_id)
        if known is None:
            latest[contact.ticket_id] = contact
            continue
        newer, older = (contact, known) if contact.sequence >= known.sequence else (known, contact)
        mail = newer if newer.message_id is not None else older
        latest[contact.ticket_id] = replace(
            newer, language=newer.language or older.language, message_id=mail.message_id, subject=mail.subject
        )
    return latest


def acknowledgement(routed: TicketRouted, texts: Texts, outputs: Outputs, traceparent: str) -> Notification | None:
    """The one acknowledgement of a ticket, to the message that opened it. Follow-ups get none."""
    if routed.disposition is not Disposition.OPENED:
        return None
    contact = contact_of(routed)
    points = acknowledged_points(routed)
    # In triage the category is a guess: its next steps could mislead, so a person is announced in general terms.
    category = Category.OTHER if routed.queue is Queue.TRIAGE else routed.category
    brand = outputs.brand(routed.brand)
    subject, text = acknowledgement_text(
        texts.in_words_of(brand.texts),
        ticket_id=routed.ticket_id,
        brand_names=brand.name.by_language,
        language=routed.language,
        category=category,
        points=points,
        missing=routed.missing,
    )
    return Notification(
        notification_id=derive_id("notification", "acknowledgement", routed.ticket_id),
        kind=Kind.ACKNOWLEDGEMENT,
        ticket_id=routed.ticket_id,
        brand=routed.brand,
        route=contact.route(outputs),
        language=routed.language,
        subject=subject,
        text=text,
        data={
            **_customer_data(contact),
            "points": [point.value for point in points],
            "missing": [fact.value for fact in routed.missing],
        },
        caused_at=routed.decided_at,
        traceparent=traceparent,
    )


def answering(acknowledged: Notification, contact: Contact | None) -> Notification:
    """An acknowledgement that names the mail which it answers, where that is known."""
    if contact is None or contact.message_id is None:
        return acknowledged
    return replace(acknowledged, data={**acknowledged.data, "in_reply_to": contact.message_id})


def acknowledged_points(routed: TicketRouted) -> tuple[Category, ...]:
    """The distinct matters that the customer raised, in his order; a greeting is no matter of its own."""
    named = dict.fromkeys(
        point.category
        for point in sorted(routed.points, key=lambda point: point.start)
        if point.category is not Category.OTHER
    )
    if routed.category is not Category.OTHER and routed.category not in named:
        named = dict.fromkeys((routed.category, *named))
    return tuple(named)


def held_back(notification: Notification, acknowledged: int, limit: int) -> str | None:
    """Why an acknowledgement is not sent, or none. `acknowledged`: of this customer within the hour, this one included.

    A machine that answers every mail with a mail would otherwise be answered for ever.
    """
    route = notification.route
    if route is not None and route.output is Output.MAIL and is_automatic_sender(route.recipient):
        return "loop guard: nobody reads this mailbox"
    if acknowledged > limit:
        return f"loop guard: more than {limit} acknowledgements to this customer within an hour"
    return None


def reply(activity: TicketActivity, text: str, traceparent: str) -> Notification | None:
    """An agent's reply, still without its route: see `addressed`. `text` is the activity's, secrets cut."""
    if activity.kind is not ActivityKind.REPLIED:
        return None
    return Notification(
        notification_id=derive_id("notification", "reply", activity.event_id),
        kind=Kind.REPLY,
        ticket_id=activity.ticket_id,
        brand=None,
        route=None,
        language=Language.OTHER,
        subject="",
        text=text,
        data={"agent": activity.agent},
        caused_at=activity.at,
        traceparent=traceparent,
    )


def addressed(waiting: Notification, contact: Contact, texts: Texts, outputs: Outputs) -> Notification:
    """A reply with its contact: the route, and the subject: that of his mail, else ours in his language."""
    language = contact.language or Language.OTHER
    names = outputs.brand(contact.brand).name.by_language
    subject = (
        f"Re: {contact.subject}"
        if contact.subject
        else " / ".join(
            book.reply_subject.format(
                brand=names[Language.ZH if book is texts.zh else Language.EN], reference=reference_of(contact.ticket_id)
            )
            for book in texts.of(language)
        )
    )
    return replace(
        waiting,
        brand=contact.brand,
        route=contact.route(outputs),
        language=language,
        subject=subject,
        data={**_customer_data(contact), **waiting.data},
    )


def _customer_data(contact: Contact) -> dict[str, Any]:
    return {
        "channel": contact.channel.value,
        "customer_id": contact.customer_id,
        "reply_to": contact.reply_to,
        **({} if contact.message_id is None else {"in_reply_to": contact.message_id}),
    }


_REMINDERS: Final = {SlaKind.WARNING: Kind.WARNING, SlaKind.BREACHED: Kind.BREACH, SlaKind.ESCALATED: Kind.BREACH}
"""An escalation is told as a breach: `NotificationOutcome` knows no other kind. Its level stands in text and data."""


def uncallable(event: SlaEvent) -> str | None:
    """Why an escalation cannot be told to anybody, or none."""
    if event.kind is SlaKind.ESCALATED and event.escalation is None:
        return f"escalation: missing in an event of kind {event.kind}; say lead, head or on_call"
    return None


def reminders_of(event: SlaEvent, texts: Texts, outputs: Outputs, traceparent: str) -> list[Notification]:
    """One notification per way to each lead of the queue, for warnings and breaches, or to each of those whom an
    escalation calls. None for other events, nor for what is `uncallable`.
    """
    kind = _REMINDERS.get(event.kind)
    if kind is None or uncallable(event):
        return []
    level = event.escalation if event.kind is SlaKind.ESCALATED else None
    called: EscalationLevel | None = None
    if level is None:
        ways = lead_routes(outputs, brand=event.brand, queue=event.queue)
    else:
        called, ways = escalation_routes(outputs, brand=event.brand, queue=event.queue, level=level)
    made = []
    for person, route in ways:
        subject, text = _reminder_words(event, person, texts, outputs, level=level, called=called)
        made.append(
            Notification(
                notification_id=derive_id("notification", kind, event.event_id, route.output, route.recipient),
                kind=kind,
                ticket_id=event.ticket_id,
                brand=event.brand,
                route=route,
                language=person.language,
                subject=subject,
                text=text,
                data={
                    "person": route.recipient,
                    "channel": event.channel.value,
                    "queue": event.queue and event.queue.value,
                    "priority": event.priority and event.priority.value,
                    "target": event.target.value,
                    "due_at": (event.due_at or event.at).isoformat(),
                    "fired_at": event.fired_at and event.fired_at.isoformat(),
                    **_alarm_data(event, level),
                },
                caused_at=event.at,
                traceparent=traceparent,
            )
        )
    return made


def _alarm_data(event: SlaEvent, level: EscalationLevel | None) -> dict[str, Any]:
    """What only an escalation, or only a warning by time left, carries. Lengths are business time."""
    if level is not None:
        return {
            "escalation": level.value,
            "business_seconds": event.business_seconds,
            "late_by_seconds": _late_by_seconds(event),
        }
    if event.kind is SlaKind.WARNING and event.warning_before_seconds is not None:
        return {"left_seconds": event.warning_before_seconds}
    return {}


def _late_by_seconds(event: SlaEvent) -> int | None:
    """Business time since the due time; none where the event does not say how much was used."""
    return None if event.business_seconds is None else max(0, event.business_seconds - event.target_seconds)


def _reminder_words(
    event: SlaEvent,
    person: Person,
    texts: Texts,
    outputs: Outputs,
    *,
    level: EscalationLevel | None,
    called: EscalationLevel | None,
) -> tuple[str, str]:
    """Subject and text as `person` reads them. `level`: whom the escalation is for; `called`: whom it reaches."""
    (book,) = texts.of(person.language)
    said = book.reminders
    names = 0 if person.language is Language.ZH else 1
    fields = {
        "brand": outputs.brand(event.brand).name.by_language[person.language],
        "queue": QUEUE_NAMES[event.queue][names] if event.queue else said.no_queue,
        "priority": event.priority.value if event.priority else "-",
        "reference": reference_of(event.ticket_id),
        "target": book.targets[event.target],
        "due": (event.due_at or event.at).astimezone(ZoneInfo(person.timezone)).strftime("%Y-%m-%d %H:%M:%S %Z"),
    }
    if level is not None:
        step = book.escalations[level]
        sentences = [step.text.format(**fields)]
        late_by_seconds = _late_by_seconds(event)
        if late_by_seconds is not None:
            sentences.append(said.late.format(late=duration_text(book.units, late_by_seconds)))
        if called is not level:
            sentences.append(said.stand_in.format(level=step.name))
        return step.subject.format(**fields), "\n".join(sentences)
    if event.kind is SlaKind.BREACHED:
        return said.breach_subject.format(**fields), said.breach.format(**fields)
    if event.warning_before_seconds is None or (event.lateness_ms or 0) > LEFT_HOLDS_MS:
        return said.warning_subject.format(**fields), said.warning.format(**fields)
    fields["left"] = duration_text(book.units, event.warning_before_seconds)
    return said.warning_left_subject.format(**fields), said.warning_left.format(**fields)


def bypasses_limits(reminder: Notification) -> bool:
    """Whether it goes out at once however many came before: who is on call is woken, or nobody is."""
    return reminder.data.get("escalation") == EscalationLevel.ON_CALL


def window_start(at: datetime, window_seconds: int) -> datetime:
    """The beginning of the window that `at` lies in; windows are counted from the epoch, the same on every replica."""
    epoch_seconds = floor(at.timestamp())
    return datetime.fromtimestamp(epoch_seconds - epoch_seconds % window_seconds, UTC)


def digest_of(reminder: Notification, start: datetime) -> Notification:
    """The digest that a reminder beyond its recipient's limit is folded into; its text is made when it is due."""
    if reminder.route is None:
        raise ValueError(f"reminder {reminder.notification_id} has no route: only a reply can be without one")
    route = reminder.route
    return Notification(
        notification_id=derive_id("notification", "digest", route.endpoint, route.recipient, start.isoformat()),
        kind=Kind.DIGEST,
        ticket_id=None,
        brand=reminder.brand,
        route=route,
        language=reminder.language,
        subject="",
        text="",
        data={},
        caused_at=start,
        traceparent=reminder.traceparent,
    )


def written_digest(digest: Notification, reminders: Sequence[Notification], texts: Texts) -> Notification:
    """The digest with its text: the reminders' subjects, escalations first, then breaches, then warnings; each in the
    order of what caused them.
    """
    ordered = sorted(
        reminders,
        key=lambda item: (
            item.kind is Kind.WARNING,
            "escalation" not in item.data,
            item.caused_at,
            item.notification_id,
        ),
    )
    (book,) = texts.of(digest.language)
    count = len(ordered)
    lines = [f"- {item.subject}" for item in ordered[:DIGEST_LINES_MOST]]
    if count > DIGEST_LINES_MOST:
        lines.append(f"… +{count - DIGEST_LINES_MOST}")
    return replace(
        digest,
        subject=book.reminders.digest_subject.format(count=count),
        text="\n".join((book.reminders.digest.format(count=count), *lines)),
        data={
            "count": count,
            "reminders": [
                {"kind": item.kind.value, "ticket_id": str(item.ticket_id), "brand": item.brand, **item.data}
                for item in ordered[:DIGEST_LINES_MOST]
            ],
        },
    )


def digest_due_at(start: datetime, window_seconds: int) -> datetime:
    return start + timedelta(seconds=window_seconds)


def payload(notification: Notification) -> dict[str, Any]:
    """A webhook's body (Standard Webhooks 1.0, "payload structure"): type, timestamp, data. The same at every try."""
    data: dict[str, Any] = {
        "notification_id": str(notification.notification_id),
        "brand": notification.brand,
        "language": notification.language.value,
        "subject": notification.subject,
        "text": notification.text,
        **notification.data,
    }
    if notification.ticket_id is not None:
        data |= {"ticket_id": str(notification.ticket_id), "reference": reference_of(notification.ticket_id)}
    return {
        "type": f"notification.{notification.kind}",
        "timestamp": notification.caused_at.astimezone(UTC).isoformat(),
        "data": data,
    }
