"""What arrives: made-up tickets of the brands that the policies name, with the shape of a day and of a week.

Arrivals come by chance (Poisson) at a rate that is constant within each half-hour of a brand's own zone. A holiday has
the hours of a Sunday, a make-up day those of a working day. On one day something breaks (`Incident`).
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final, TypeVar

from services.sla_timer.domain.arrivals import DayKind, day_kind
from services.sla_timer.domain.forecast import half_hours_of
from services.sla_timer.domain.policies import ANY, Policies, PolicyFile
from services.sla_timer.domain.staffing import HALF_HOUR
from shared.calendars import Calendar
from shared.events import Target
from shared.taxonomy import CATEGORIES, Category, Channel, Priority, Queue

_DAY: Final = timedelta(days=1)
_SUNDAY: Final = 6
_WEEKDAYS: Final = (1.25, 1.1, 1.0, 1.0, 1.05, 0.85, 0.75)
_HOLIDAY: Final = 0.7  # of a Sunday
_QUIET: Final = 0.05  # of the busiest hour, in the middle of the night
CHANNELS: Final[Mapping[Channel, float]] = {
    Channel.APP_CHAT: 0.38,
    Channel.PHONE: 0.16,
    Channel.EMAIL: 0.13,
    Channel.WEB_FORM: 0.10,
    Channel.WECHAT: 0.08,
    Channel.WHATSAPP: 0.04,
    Channel.WEIBO: 0.03,
    Channel.TELEGRAM: 0.03,
    Channel.FACEBOOK: 0.03,
    Channel.X: 0.02,
}
_CATEGORIES: Final[Mapping[Category, float]] = {
    Category.ACCOUNT_SECURITY: 6,
    Category.ACCOUNT_ACCESS: 12,
    Category.PAYMENT_FAILED: 14,
    Category.MISSING_FUNDS: 7,
    Category.TOP_UP: 8,
    Category.WITHDRAWAL: 6,
    Category.REFUND: 8,
    Category.DISPUTE: 3,
    Category.BALANCE_STATEMENT: 4,
    Category.FEES_LIMITS: 3,
    Category.PROMOTIONS: 6,
    Category.CARD_BINDING: 4,
    Category.REGISTRATION_IDENTITY: 4,
    Category.APP_TECHNICAL: 6,
    Category.CREDIT_WEALTH: 2,
    Category.COMPLAINT: 3,
    Category.FEEDBACK: 1,
    Category.HOW_TO: 4,
    Category.OTHER: 2,
}
_MORE_URGENT: Final = 0.08
_LESS_URGENT: Final = 0.08


@dataclass(frozen=True, slots=True)
class Arrival:
    """A new ticket, as it truly is: the classifier mostly sees it so."""

    at: datetime
    brand: str
    channel: Channel
    category: Category
    queue: Queue
    priority: Priority


@dataclass(frozen=True, slots=True)
class Incident:
    """Payments of one brand fail: so many tickets more within a few hours. `day`: of the run, from 0."""

    day: int
    brand: str
    tickets: int
    begins: timedelta = timedelta(hours=14)
    lasts: timedelta = timedelta(hours=2)


@dataclass(frozen=True, slots=True)
class Traffic:
    """`brands`: the first has the most tickets. `tickets_per_week`: of a plain week, all brands, no incident."""

    brands: Sequence[str]
    tickets_per_week: float
    incident: Incident | None = None


def brands_of(file: PolicyFile) -> tuple[str, ...]:
    """The brands that the policies name, one of our own where they name none."""
    named = {brand for rule in file.rules.values() for brand in rule.brand}
    named |= {*file.peaks.calendars, *(window.brand for window in file.peaks.windows)}
    return tuple(sorted(named - {ANY})) or ("wallet",)


def synthetic_arrivals(traffic: Traffic, policies: Policies, first: date, days: int, seed: int) -> list[Arrival]:
    """New tickets from the local midnight of `first`, in order of time. Each brand has days and chance of its own, so
    that another number of days, or another incident, changes nothing else.
    """
    found: list[Arrival] = []
    for brand in traffic.brands:
        calendar = policies.zone_calendar(brand)
        for start, mean in expected_arrivals(traffic, policies, brand, first, days).items():
            chance = seeded("arrivals", seed, brand, start.isoformat())
            found += (_arrival(at, brand, chance, policies) for at in _at_times(start, HALF_HOUR, mean, chance))
        incident = traffic.incident
        if incident is not None and incident.brand == brand and incident.day < days:
            chance = seeded("incident", seed, brand)
            begin = half_hours_of(first + incident.day * _DAY, calendar)[0] + incident.begins
            for at in _at_times(begin, incident.lasts, incident.tickets, chance):
                usual = _arrival(at, brand, chance, policies)
                failed = CATEGORIES[Category.PAYMENT_FAILED]
                found.append(Arrival(at, brand, usual.channel, Category.PAYMENT_FAILED, failed.queue, failed.priority))
    return sorted(found, key=lambda arrival: (arrival.at, arrival.brand))


def expected_arrivals(
    traffic: Traffic, policies: Policies, brand: str, first: date, days: int
) -> Mapping[datetime, float]:
    """What a lead can know beforehand: the mean of each half-hour of a brand (its beginning, UTC), no incident."""
    weights = [1 / (1 + 0.35 * place) for place in range(len(traffic.brands))]
    share = weights[list(traffic.brands).index(brand)] / sum(weights)
    daily = traffic.tickets_per_week * share / sum(_WEEKDAYS)
    calendar = policies.zone_calendar(brand)
    means: dict[datetime, float] = {}
    for number in range(days):
        day = first + number * _DAY
        weekday, factor = _like(day, calendar)
        for start in half_hours_of(day, calendar):
            means[start] = daily * factor * _SHAPES[weekday >= 5][_slot(calendar.local(start))]
    return means


def _like(day: date, calendar: Calendar) -> tuple[int, float]:
    """The weekday whose shape a day has, and its size in days of average traffic."""
    kind = day_kind(day, calendar)
    if kind is DayKind.HOLIDAY:
        return _SUNDAY, _WEEKDAYS[_SUNDAY] * _HOLIDAY
    if kind is DayKind.MAKE_UP:
        return 0, 1.0
    return day.weekday(), _WEEKDAYS[day.weekday()]


def _slot(local: datetime) -> int:
    return local.hour * 2 + local.minute // 30


def _hump(hour: float, middle: float, width: float) -> float:
    away = min(abs(hour - middle), 24 - abs(hour - middle))
    return math.exp(-(away**2) / (2 * width**2))


def _shape(*, rests: bool) -> tuple[float, ...]:
    """Of a day, by half-hour of the clock on the wall; sums up to 1."""
    hours = [slot / 2 + 0.25 for slot in range(48)]
    if rests:
        heights = [_QUIET + 0.7 * _hump(hour, 13, 2.8) + 0.8 * _hump(hour, 20.5, 2) for hour in hours]
    else:
        heights = [
            _QUIET + _hump(hour, 10.5, 1.7) + 0.6 * _hump(hour, 15, 2) + 0.8 * _hump(hour, 20, 1.6) for hour in hours
        ]
    return tuple(height / sum(heights) for height in heights)


_SHAPES: Final = {False: _shape(rests=False), True: _shape(rests=True)}


def _at_times(start: datetime, length: timedelta, mean: float, chance: random.Random) -> Iterator[datetime]:
    """The times of a Poisson process: gaps are exponential."""
    if mean <= 0:
        return
    at = chance.expovariate(mean)
    while at < 1:
        yield start + length * at
        at += chance.expovariate(mean)


def _arrival(at: datetime, brand: str, chance: random.Random, policies: Policies) -> Arrival:
    channel = drawn(CHANNELS, chance)
    if channel is Channel.PHONE and not _takes_calls(at, brand, policies):
        channel = Channel.WEB_FORM  # whoever finds the hotline closed writes
    category = drawn(_CATEGORIES, chance)
    usual = CATEGORIES[category]
    luck = chance.random()
    steps = 1 if luck < _MORE_URGENT else -1 if luck > 1 - _LESS_URGENT else 0
    return Arrival(at, brand, channel, category, usual.queue, usual.priority.raised(steps))


def _takes_calls(at: datetime, brand: str, policies: Policies) -> bool:
    terms = policies.terms(brand, Channel.PHONE, None, policies.provisional_priority, Target.FIRST_RESPONSE)
    return terms is None or policies.calendar(terms).is_open(at)


def seeded(*words: object) -> random.Random:
    """Chance of its own for one purpose: the same words, the same chance, in every process."""
    return random.Random(" ".join(map(str, words)))  # noqa: S311 - no secret is made of it


T = TypeVar("T")


def drawn(weights: Mapping[T, float], chance: random.Random) -> T:
    """One of them, each as often as its weight says."""
    (one,) = chance.choices(list(weights), list(weights.values()))
    return one


def share_of_tickets(queues: Collection[Queue]) -> float:
    """How much of all traffic goes to these queues, the incident left out."""
    inside = sum(weight for category, weight in _CATEGORIES.items() if CATEGORIES[category].queue in queues)
    return inside / sum(_CATEGORIES.values())
