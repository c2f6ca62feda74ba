"""What the customer told, as normalised facts with the place where he said it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final

from services.classifier.domain.facts import identifiers
from services.classifier.domain.facts.moments import moment
from services.classifier.domain.facts.money import Amount, amounts, written_out
from services.classifier.domain.lexicon import ValueHit
from services.classifier.domain.text import Reading
from shared.events import Facts
from shared.taxonomy import CATEGORIES, Category, Fact, Language

# How much a coin is worth only matters for choosing among several amounts; unknown currencies count one to one.
_ROUGH_CNY_WORTH: Final = {
    currency: Decimal(worth)
    for currency, worth in (
        *(
            ("USD", "7"),
            ("EUR", "8"),
            ("GBP", "9"),
            ("CHF", "8"),
            ("SGD", "5"),
            ("AUD", "5"),
            ("CAD", "5"),
            ("NZD", "4"),
        ),
        *(
            ("USDT", "7"),
            ("TWD", "0.2"),
            ("THB", "0.2"),
            ("PHP", "0.1"),
            ("INR", "0.1"),
            ("RUB", "0.1"),
            ("JPY", "0.05"),
        ),
        *(("KRW", "0.005"), ("IDR", "0.0005"), ("VND", "0.0003")),
    )
}
_DIGIT: Final = re.compile(r"\d")
_TAKE_THEIR_PLACE: Final = frozenset({"phone", "order_no", "error_code", "app_version"})


@dataclass(frozen=True, slots=True)
class FoundFact:
    """One fact of the message: `value` is normalised, `text[start:end]` is what the customer wrote."""

    field: str
    value: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Told:
    """The facts of one message. `happened_at`: the latest instant that its time can mean, if that could be resolved."""

    found: tuple[FoundFact, ...]
    facts: Facts
    amount: Decimal | None
    currency: str | None
    happened_at: datetime | None


def extract(reading: Reading, values: Iterable[ValueHit], language: Language, sent_at: datetime | None) -> Told:
    """`values`: what the lexicon found, in order; the first of a fact counts."""
    text, folded = reading.text, reading.folded
    found: dict[str, FoundFact] = {}

    def keep(field: str, hit: identifiers.Found | None) -> None:
        if hit is not None and field not in found:
            found[field] = FoundFact(field, hit[0][:200], hit[1], hit[2])

    keep("email", identifiers.email(folded, text))
    keep("device", identifiers.device(folded, text))
    keep("campaign", identifiers.campaign(folded, text))
    keep("merchant", identifiers.merchant(folded, text))
    digits = _DIGIT.search(folded) is not None
    keep("error_code", identifiers.error_code(folded, text) if digits or "_" in folded else None)
    if digits:
        keep("phone", identifiers.phone(folded))
        keep("order_no", identifiers.order_no(folded, text))
        keep("app_version", identifiers.app_version(folded, text))
    for value in values:
        keep(value.fact, (value.value, value.start, value.end))
    taken = [(fact.start, fact.end) for fact in found.values() if fact.field in _TAKE_THEIR_PLACE]
    when = moment(reading, sent_at, digits=digits, taken=taken)
    if when is not None:
        keep("time", (when.value, when.start, when.end))
        taken.append((when.start, when.end))
    sum_told = _at_stake(amounts(reading, language), taken)
    if sum_told is not None:
        keep("amount", (written_out(sum_told.value), sum_told.start, sum_told.end))
        if sum_told.currency:
            keep("currency", (sum_told.currency, sum_told.start, sum_told.end))
    return Told(
        found=tuple(sorted(found.values(), key=lambda fact: (fact.start, fact.field))),
        facts=Facts(**{fact.field: fact.value for fact in found.values()}),
        amount=sum_told.value if sum_told else None,
        currency=sum_told.currency if sum_told else None,
        happened_at=when.latest if when else None,
    )


def _at_stake(told: Sequence[Amount], taken: Sequence[tuple[int, int]]) -> Amount | None:
    """Of several amounts the largest: fees and change are told beside the sum they belong to."""
    free = [amount for amount in told if not any(start < amount.end and amount.start < end for start, end in taken)]
    return max(free, key=lambda amount: amount.value * _ROUGH_CNY_WORTH.get(amount.currency or "", 1), default=None)


def missing(category: Category, facts: Facts, *, contact_known: bool, has_attachments: bool) -> tuple[Fact, ...]:
    """What an agent needs for this category and was not told. A picture stands for evidence and for an error code."""
    given = {
        Fact.TIME: facts.time is not None,
        Fact.AMOUNT: facts.amount is not None,
        Fact.METHOD: facts.method is not None,
        Fact.ORDER_NO: facts.order_no is not None,
        Fact.MERCHANT: facts.merchant is not None,
        Fact.EVIDENCE: has_attachments,
        Fact.CONTACT: contact_known or facts.phone is not None or facts.email is not None,
        Fact.TRANSACTIONS: facts.order_no is not None or facts.amount is not None,
        Fact.DEVICE: facts.device is not None,
        Fact.APP_VERSION: facts.app_version is not None,
        Fact.ERROR_CODE: facts.error_code is not None or has_attachments,
        Fact.CAMPAIGN: facts.campaign is not None,
    }
    return tuple(fact for fact in CATEGORIES[category].facts if not given[fact])


def accumulate(before: Facts, told: Facts) -> Facts:
    """What is known after a further message: the latest word on a matter counts, nothing known is forgotten."""
    latest = {name: value for name, value in told if value is not None}
    if told.amount is not None and told.currency is None and before.currency is not None:
        latest["currency"] = before.currency
    return before.model_copy(update=latest)
