"""Which contacts make two customers one person, and which tickets of a person are told of."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import pytest

from services.intake.domain import Ticket
from services.intake.domain_people import contacts_of, normalised_email, normalised_phone, related
from shared.events import Contact, Customer
from tests.unit.intake.samples import at, message

BOTH = (Contact.PHONE, Contact.EMAIL)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("+8613800138000", "+8613800138000"),
        ("+86 138-0013-8000", "+8613800138000"),
        ("+86 (138) 0013 8000", "+8613800138000"),
        ("＋８６１３８００１３８０００", "+8613800138000"),
        ("+44 20 7946 0018", "+442079460018"),
        ("13800138000", None),  # of which country?
        ("+86 12", None),
        ("+999 1234567890", None),
        ("unknown", None),
        ("", None),
    ],
)
def test_a_phone_number_is_known_in_every_way_of_writing(given: str, expected: str | None) -> None:
    assert normalised_phone(given) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [(" Li.Lei@Example.COM ", "li.lei@example.com"), ("li@", None), ("@example.com", None), ("li", None), ("", None)],
)
def test_an_address_is_known_in_small_letters(given: str, expected: str | None) -> None:
    assert normalised_email(given) == expected


def test_only_what_the_channel_has_verified_counts_and_only_within_a_brand() -> None:
    def contacts(**fields: Any) -> frozenset[uuid.UUID]:
        customer = Customer(id="c-1", phone="+8613800138000", email="li@example.com")
        given: dict[str, Any] = {"customer": customer, "verified": BOTH}
        return contacts_of(message(**(given | fields)))

    phone, email = contacts(verified=(Contact.PHONE,)), contacts(verified=(Contact.EMAIL,))
    assert (len(phone), len(email)) == (1, 1)
    assert contacts() == phone | email
    assert contacts(verified=()) == frozenset()
    assert not contacts(brand="topay") & contacts()
    assert contacts(customer=Customer(id="c-1")) == frozenset()


def ticket(number: int, hours: float, *, own: bool = False, resolved: bool = True) -> Ticket:
    last = at(hours)
    conversation = uuid.UUID(int=0 if own else 1000 + number)
    return Ticket(uuid.UUID(int=number), conversation, last, last, last, 1, False, last if resolved else None)


def test_a_persons_other_tickets_are_told_the_latest_first() -> None:
    tickets = [
        ticket(1, 0, own=True),
        ticket(2, -1),
        ticket(3, -2000, resolved=False),
        ticket(4, -31 * 24),
        ticket(5, -29 * 24),
        ticket(2, -1),
    ]
    assert related(uuid.UUID(int=0), tickets, at(0)) == tuple(uuid.UUID(int=number) for number in (2, 5, 3))


def test_no_more_than_twenty_are_told() -> None:
    told = related(uuid.UUID(int=0), [ticket(number, -number) for number in range(1, 40)], at(0) + timedelta(1))
    assert told == tuple(uuid.UUID(int=number) for number in range(1, 21))
