"""Who is the same person on several channels of a brand: linked by verified contacts, never merged. Pure."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

import phonenumbers

from services.intake.domain import Ticket
from shared.events import ChannelMessage, Contact, derive_id

RELATED_FOR: Final = timedelta(days=30)
"""How long after its last message a resolved ticket is still shown beside the person's others."""
_MOST_RELATED: Final = 20


def contacts_of(message: ChannelMessage) -> frozenset[uuid.UUID]:
    """An id for each contact that the channel has verified: of the brand, and by no way back to number or address."""
    given = {Contact.PHONE: message.customer.phone, Contact.EMAIL: message.customer.email}
    normalised = {
        Contact.PHONE: normalised_phone(given[Contact.PHONE] or ""),
        Contact.EMAIL: normalised_email(given[Contact.EMAIL] or ""),
    }
    return frozenset(
        derive_id("contact", message.brand, kind, value)
        for kind in message.verified
        if (value := normalised[kind]) is not None
    )


def normalised_phone(number: str) -> str | None:
    """E.164. None for what is no number that can be called from abroad: "138..." is somebody in every country."""
    try:
        parsed = phonenumbers.parse(number, None)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_possible_number(parsed):
        return None
    return phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)


def normalised_email(address: str) -> str | None:
    """Small letters. Strictly, a provider may tell capitals apart before the @; none does."""
    local, at, domain = address.strip().lower().rpartition("@")
    return f"{local}@{domain}" if local and at and domain else None


def related(conversation_id: uuid.UUID, tickets: Iterable[Ticket], at: datetime) -> tuple[uuid.UUID, ...]:
    """Of a person's tickets those that matter to who reads his message of `at` in this conversation: of his other
    conversations, unresolved or active lately; the latest first.
    """
    others = {
        ticket.ticket_id: ticket
        for ticket in tickets
        if ticket.conversation_id != conversation_id
        and (ticket.resolved_at is None or ticket.quiet_since >= at - RELATED_FOR)
    }
    latest = sorted(others.values(), key=lambda ticket: (ticket.quiet_since, ticket.ticket_id), reverse=True)
    return tuple(ticket.ticket_id for ticket in latest[:_MOST_RELATED])
