"""Made-up arrivals of a brand, seeded: days with two humps and weekends with others, growth, holidays, days of all
kinds of luck, and spikes.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from services.sla_timer.domain.forecast import History, half_hours_of
from shared.calendars import Calendar

_WEEKDAYS = (1.25, 1.05, 1.0, 0.98, 1.05, 0.7, 0.6)
_HOLIDAY, _MAKE_UP = 0.5, 1.0


@dataclass(frozen=True, slots=True)
class Spike:
    """Arrivals so many times as many, in the half-hours from `first` to `last` (not included)."""

    factor: float
    first: int = 0
    last: int = 50


@dataclass(frozen=True, slots=True)
class Traffic:
    """`daily`: arrivals of an average day at the start. `growth`: by week, as a share. `luck`: how much one day differs
    from another for no reason, as a share. `jump`: from a day on, times so much.
    """

    daily: float = 600.0
    growth: float = 0.01
    luck: float = 0.05
    spikes: Mapping[date, Spike] | None = None
    jump: tuple[date, float] | None = None

    def means(self, seed: int, first: date, days: int, calendar: Calendar) -> dict[datetime, float]:
        """What is to be expected in each half-hour by whoever knows all but chance."""
        chance = random.Random(seed)
        means = {}
        for number in range(days):
            day = first + timedelta(days=number)
            level = self.daily * math.exp(self.growth * number / 7) * chance.lognormvariate(0, self.luck)
            if self.jump is not None and day >= self.jump[0]:
                level *= self.jump[1]
            weekday = day.weekday()
            works, usually = bool(calendar.periods_of(day)), bool(calendar.week[weekday])
            shape = [_shape(at, rests=not works, weekday=weekday) for at in range(48)]
            level *= (_WEEKDAYS[weekday] if works == usually else _MAKE_UP if works else _HOLIDAY) / sum(shape)
            spike = (self.spikes or {}).get(day)
            for at, start in enumerate(half_hours_of(day, calendar)):
                local = calendar.local(start)
                raised = spike.factor if spike is not None and spike.first <= at < spike.last else 1.0
                means[start] = level * shape[local.hour * 2 + local.minute // 30] * raised
        return means

    def counts(self, seed: int, first: date, days: int, calendar: Calendar) -> dict[datetime, int]:
        """A spike changes nothing but its own half-hours."""
        return {
            start: _poisson(random.Random(f"{seed} {start}"), mean)
            for start, mean in self.means(seed, first, days, calendar).items()
        }

    def history(self, seed: int, first: date, days: int, calendar: Calendar) -> History:
        return History.of(self.counts(seed, first, days, calendar), first, first + timedelta(days=days - 1), calendar)


def changed(history: History, counts: Mapping[datetime, int], days: Collection[date]) -> History:
    """The same history, with these counts on these days."""
    first, last = min(history.days), max(history.days)
    known = {
        start: count
        for day, each in history.days.items()
        for start, count in zip(half_hours_of(day, history.calendar), each.counts, strict=True)
    }
    new = {start: counts[start] for day in days for start in half_hours_of(day, history.calendar)}
    return History.of({**known, **new}, first, last, history.calendar)


def _shape(at: int, *, rests: bool, weekday: int) -> float:
    hour = at / 2 + 0.25
    if rests:
        return 0.08 + 0.7 * _hump(hour, 13, 2.5) + 0.9 * _hump(hour, 20.5, 2)
    monday_morning, friday_evening = 0.5 * (weekday == 0), 0.3 * (weekday == 4)
    return (
        0.06
        + _hump(hour, 10.5, 1.6)
        + 0.55 * _hump(hour, 15, 2)
        + 0.6 * _hump(hour, 20, 1.8)
        + monday_morning * _hump(hour, 9.5, 1)
        + friday_evening * _hump(hour, 17, 1.2)
    )


def _hump(hour: float, middle: float, width: float) -> float:
    away = min(abs(hour - middle), 24 - abs(hour - middle))
    return math.exp(-(away**2) / (2 * width**2))


def _poisson(chance: random.Random, mean: float) -> int:
    """Knuth's method, in parts that exp() can take."""
    count = 0
    while mean > 0:
        part = min(mean, 50.0)
        mean -= part
        product, limit = chance.random(), math.exp(-part)
        while product > limit:
            count += 1
            product *= chance.random()
    return count
