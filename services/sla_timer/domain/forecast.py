"""Arrivals of a day to come by half-hour, from those of the days before; and how far such forecasts were off.

The method, in words that a lead can check. A half-hour's forecast is a **level** times a **rate**.

- The **level** of a day is its total, with the habit of its weekday taken out. That habit is a factor by weekday, from
  the last ten weeks by median polish (J. Tukey, "Exploratory data analysis", 1977). The level to come goes on as the
  last six weeks went: a line through their logarithms whose slope is the median of the slopes between all pairs of
  days (Theil and Sen). Medians, so that no single day moves it; a day that stands out from those round it is left out.
- The **rate** of a half-hour is what share of the level comes in it on such a day (`comparable_days`: the same weekday;
  for a holiday the last holidays), over the last eight. Counts that are out of line with the others are left out. Where
  few have come, the rate leans towards that of like days (the other working days, or the other day of the weekend),
  then towards the half-hours beside it.

Half-hours are those of the clock on the wall, in the calendar's zone. A day on which the clock is changed has 46 or 50
of them; one that is shown twice is expected twice, one that is skipped not at all.

A forecast of a day is made the evening before: the last day that it knows in full is the one before that. A day held
out is forecast in just this way, and compared with what came.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from itertools import combinations
from statistics import fmean, median, quantiles
from typing import Final, NamedTuple, TypeVar

from services.sla_timer.domain.arrivals import DayKind, comparable_days, day_kind
from services.sla_timer.domain.staffing import HALF_HOUR
from shared.calendars import Calendar

KNOWN_DAYS_BEFORE: Final = timedelta(days=2)  # made the evening before, when that day is not over
LEAST_DAYS: Final = 14
MOST_DAYS: Final = 400

_LEARNED_WEEKS: Final = 8
_WEEKDAY_DAYS: Final = 70
_TREND_DAYS: Final = 42
_TREND_AHEAD_DAYS: Final = 14  # no trend goes on for ever
_NEAR_DAYS: Final = 7
_POLISHES: Final = 4
_OUT_OF_LINE: Final = 3.0  # standard deviations
_OF_MAD: Final = 1.4826  # makes a median deviation a standard deviation, of normal values
_LIKE_DAYS_WEIGHT: Final = 100  # arrivals: as many seen on the weekday itself count as much as the like days
_BESIDE_WEIGHT: Final = 100
_BESIDE: Final = (1, 2, 3, 2, 1)
_SLOTS: Final = 48
_DAY: Final = timedelta(days=1)


@lru_cache(maxsize=2 * MOST_DAYS)
def half_hours_of(day: date, calendar: Calendar) -> tuple[datetime, ...]:
    """When the half-hours of a local day begin (UTC)."""
    zone = calendar.local(datetime.combine(day, time(12), UTC)).tzinfo
    begin, end = (datetime.combine(each, time(), zone).astimezone(UTC) for each in (day, day + _DAY))
    return tuple(begin + HALF_HOUR * number for number in range((end - begin) // HALF_HOUR))


@lru_cache(maxsize=2 * MOST_DAYS)
def _wall_slots(day: date, calendar: Calendar) -> tuple[int, ...]:
    """Which half-hour of the clock on the wall (0 to 47) each of the day's half-hours is."""
    local = (calendar.local(start) for start in half_hours_of(day, calendar))
    return tuple(at.hour * 2 + at.minute // 30 for at in local)


@dataclass(frozen=True, slots=True)
class Day:
    """A day that is over. `counts`: arrivals by half-hour. `on_the_wall`: by half-hour of the clock on the wall, the
    mean where it was shown twice, none where it was skipped.
    """

    counts: tuple[int, ...]
    on_the_wall: tuple[float | None, ...]

    @classmethod
    def of(cls, counts: tuple[int, ...], slots: tuple[int, ...]) -> Day:
        shown: list[list[int]] = [[] for _ in range(_SLOTS)]
        for slot, count in zip(slots, counts, strict=True):
            shown[slot].append(count)
        return cls(counts, tuple(fmean(each) if each else None for each in shown))

    @property
    def total(self) -> int:
        return sum(self.counts)


@dataclass(frozen=True, slots=True)
class History:
    """Arrivals of one series (a brand's channel, say) on complete days, one after the other."""

    calendar: Calendar
    days: Mapping[date, Day]

    @classmethod
    def of(cls, counts: Mapping[datetime, int], first: date, last: date, calendar: Calendar) -> History:
        """`counts`: by the beginning of the half-hour (UTC); one that is missing saw no arrivals."""
        days = {}
        for back in range((last - first).days + 1):
            day = first + back * _DAY
            arrived = tuple(counts.get(start, 0) for start in half_hours_of(day, calendar))
            days[day] = Day.of(arrived, _wall_slots(day, calendar))
        return cls(calendar, days)


def forecast(history: History, day: date, known_until: date) -> tuple[float, ...]:
    """Expected arrivals in each of `half_hours_of` the day, from the days until `known_until` (included)."""
    level = _Level.learned(history, known_until)
    rates = _rates(history, day, known_until, level)
    expected = level.ahead((day - known_until).days)
    return tuple(expected * rates[slot] for slot in _wall_slots(day, history.calendar))


# --- the level -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Level:
    """`logs`: by the ordinal of each day it was learned from, the logarithm of the level (counted from one, so that
    none is zero). `last` and `slope`: of the line through the latest, at the last day known, and by day.
    """

    factors: tuple[float, ...]
    logs: Mapping[int, float]
    last: float
    slope: float

    @classmethod
    def learned(cls, history: History, known_until: date) -> _Level:
        recent = (known_until - back * _DAY for back in range(_WEEKDAY_DAYS))
        totals = {
            day: math.log1p(history.days[day].total)
            for day in recent
            if day in history.days and day_kind(day, history.calendar) is DayKind.PLAIN
        }
        factors = _weekday_factors(totals)
        logs = _in_line_with_near({day.toordinal(): log - factors[day.weekday()] for day, log in totals.items()})
        end = known_until.toordinal()
        latest = [(day - end, log) for day, log in logs.items() if end - day < _TREND_DAYS]
        if not latest:
            return cls(factors, logs, 0.0, 0.0)
        slope = 0.0
        if len(latest) >= LEAST_DAYS:
            slope = median([(one[1] - other[1]) / (one[0] - other[0]) for one, other in combinations(latest, 2)])
        return cls(factors, logs, median(log - slope * at for at, log in latest), slope)

    def ahead(self, days: int) -> float:
        return math.exp(self.last + self.slope * min(days, _TREND_AHEAD_DAYS))

    def on(self, day: date) -> float:
        """Of a day that is over: the median of the days round it."""
        near = _near(self.logs, day.toordinal())
        return math.exp(median(near)) if near else self.ahead(0)


def _near(logs: Mapping[int, float], day: int) -> list[float]:
    return [logs[other] for other in range(day - _NEAR_DAYS, day + _NEAR_DAYS + 1) if other in logs]


def _in_line_with_near(logs: Mapping[int, float]) -> Mapping[int, float]:
    """Without the days that stand out from those round them (F. Hampel's filter)."""
    if not logs:
        return logs
    off = {day: abs(log - median(_near(logs, day))) for day, log in logs.items()}
    spread = _OF_MAD * median(off.values())
    # Of the logarithm of a day, chance alone makes one over the root of its arrivals.
    return {day: log for day, log in logs.items() if off[day] <= _OUT_OF_LINE * max(spread, math.exp(-log / 2))}


def _weekday_factors(totals: Mapping[date, float]) -> tuple[float, ...]:
    """What each weekday adds to the logarithm of a day's total; 0 on average. A weekday never seen adds nothing."""
    factors = [0.0] * 7
    for _ in range(_POLISHES):
        weeks: dict[int, list[float]] = defaultdict(list)
        for day, log in totals.items():
            weeks[day.toordinal() // 7].append(log - factors[day.weekday()])
        week_level = {week: median(logs) for week, logs in weeks.items()}
        rest = {day: log - week_level[day.toordinal() // 7] for day, log in totals.items()}
        found = {weekday: median(logs) for weekday, logs in _by_weekday(rest).items()}
        middle = fmean(found.values()) if found else 0.0
        factors = [found.get(weekday, middle) - middle for weekday in range(7)]
    return tuple(factors)


def _by_weekday(logs: Mapping[date, float]) -> dict[int, list[float]]:
    found: dict[int, list[float]] = defaultdict(list)
    for day, log in logs.items():
        found[day.weekday()].append(log)
    return found


# --- the rates -------------------------------------------------------------------------------------------------------


class _Rate(NamedTuple):
    """Of one half-hour: arrivals per unit of level, and how many arrivals say so."""

    rate: float
    seen: float


def _rates(history: History, day: date, known_until: date, level: _Level) -> list[float]:
    calendar = history.calendar
    first = min(history.days)
    days = comparable_days(day, calendar, _LEARNED_WEEKS, before=known_until + _DAY, since=first)
    own = _learned_rates(history, [(each, level.on(each)) for each in days])
    if day_kind(day, calendar) is DayKind.PLAIN:
        weekday = day.weekday()
        like = [
            (other, level.on(other) * math.exp(level.factors[other.weekday()] - level.factors[weekday]))
            for back in range(_LEARNED_WEEKS * 7)
            if (other := known_until - back * _DAY) in history.days
            and day_kind(other, calendar) is DayKind.PLAIN
            and _is_like(other.weekday(), weekday, calendar)
        ]
        pooled = _learned_rates(history, like)
        own = [
            _Rate(_leaning(mine, others.rate, _LIKE_DAYS_WEIGHT), mine.seen)
            for mine, others in zip(own, pooled, strict=True)
        ]
    return [_leaning(own[slot], _beside(own, slot), _BESIDE_WEIGHT) for slot in range(_SLOTS)]


def _is_like(weekday: int, other: int, calendar: Calendar) -> bool:
    return (weekday >= 5) == (other >= 5) and calendar.week[weekday] == calendar.week[other]


def _learned_rates(history: History, days: Sequence[tuple[date, float]]) -> list[_Rate]:
    """From days, each with its level."""
    known = [(history.days[day].on_the_wall, level) for day, level in days]
    rates = []
    for slot in range(_SLOTS):
        seen = [(count, level) for counts, level in known if (count := counts[slot]) is not None]
        kept = _in_line(seen) if any(count for count, _ in seen) else seen
        arrived = sum(count for count, _ in kept)
        rates.append(_Rate(arrived / sum(level for _, level in kept) if kept else 0.0, arrived))
    return rates


def _in_line(seen: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """Counts with their levels, those left out that are too far from the rest."""
    if len(seen) < 3:
        return seen
    ratios = [count / level for count, level in seen]
    middle = median(ratios)
    spread = _OF_MAD * median([abs(ratio - middle) for ratio in ratios])
    level = fmean([level for _, level in seen])
    # A count is never surer than chance lets it be, and one arrival where none is usual is nothing out of line.
    limit = _OUT_OF_LINE * max(spread, math.sqrt(max(middle * level, 1.0)) / level)
    return [pair for pair, ratio in zip(seen, ratios, strict=True) if abs(ratio - middle) <= limit]


def _leaning(own: _Rate, towards: float, weight: float) -> float:
    return (own.seen * own.rate + weight * towards) / (own.seen + weight)


def _beside(rates: Sequence[_Rate], slot: int) -> float:
    half = len(_BESIDE) // 2
    near = [
        (weight, rates[other].rate)
        for weight, other in zip(_BESIDE, range(slot - half, slot + half + 1), strict=True)
        if 0 <= other < _SLOTS
    ]
    return sum(weight * rate for weight, rate in near) / sum(weight for weight, _ in near)


# --- how far off -----------------------------------------------------------------------------------------------------


class Band(NamedTuple):
    """How far below and above its forecast a half-hour's count comes, in square roots of the forecast."""

    low: float
    high: float

    def around(self, expected: float) -> tuple[int, int]:
        """The whole arrivals within it, the first and the last."""
        root = math.sqrt(expected + 0.5)
        low, high = math.ceil(expected + self.low * root), math.floor(expected + self.high * root)
        if low > high:  # none: the two beside the forecast
            low, high = math.floor(expected), math.ceil(expected)
        return max(0, low), max(0, high)


POISSON: Final = Band(-1.2816, 1.2816)
"""The 10th to the 90th percentile of pure chance, for want of days to measure it by."""
_FEWEST_FOR_A_BAND: Final = 3


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A day that is over, as it was forecast, and as it was a week before (the seasonal naive forecast)."""

    day: date
    actual: tuple[int, ...]
    forecast: tuple[float, ...]
    naive: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Backtest:
    """Errors are WAPE: the sum of the absolute errors, as a share of all that came. None when nothing came."""

    days: tuple[HeldOut, ...]

    @property
    def half_hour_error(self) -> float | None:
        return _wape((each.forecast, each.actual) for each in self.days)

    @property
    def day_error(self) -> float | None:
        return _wape(([sum(each.forecast)], [sum(each.actual)]) for each in self.days)

    @property
    def naive_half_hour_error(self) -> float | None:
        return _wape((each.naive, each.actual) for each in self.days)

    @property
    def naive_day_error(self) -> float | None:
        return _wape(([sum(each.naive)], [sum(each.actual)]) for each in self.days)

    @property
    def bias(self) -> float | None:
        """Forecast more than came (positive), as a share of all that came."""
        came = sum(sum(each.actual) for each in self.days)
        return sum(sum(each.forecast) for each in self.days) / came - 1 if came else None

    @property
    def band(self) -> Band:
        """In which 8 of 10 counts came."""
        return _band(self.days)

    @property
    def coverage(self) -> float | None:
        """The share of half-hours that came within the band, each day's band measured by the other days."""
        inside = [
            low <= actual <= high
            for each in self.days
            for band in [_band([other for other in self.days if other is not each])]
            for actual, expected in zip(each.actual, each.forecast, strict=True)
            for low, high in [band.around(expected)]
        ]
        return fmean(inside) if inside else None


N = TypeVar("N", int, float)


def backtest(histories: Sequence[History], days: int) -> Backtest:
    """Forecast each of the last `days` days, as long as `LEAST_DAYS` were known before it. Each of the histories (of
    one calendar, over the same time at least at its end) is forecast by itself, and they are added up.
    """
    last = max(max(history.days) for history in histories)
    first = min(min(history.days) for history in histories)
    held = []
    for back in reversed(range(days)):
        day = last - back * _DAY
        known_until = day - KNOWN_DAYS_BEFORE
        if (known_until - first).days + 1 >= LEAST_DAYS:
            known = [history for history in histories if min(history.days) <= known_until]
            held.append(
                HeldOut(
                    day,
                    added_up([history.days[day].counts for history in histories if day in history.days]),
                    added_up([forecast(history, day, known_until) for history in known]),
                    added_up([_week_before(history, day) for history in known]),
                )
            )
    return Backtest(tuple(held))


def added_up(series: Sequence[Sequence[N]]) -> tuple[N, ...]:
    return tuple(sum(each) for each in zip(*series, strict=True))


def _week_before(history: History, day: date) -> tuple[float, ...]:
    before = history.days.get(day - 7 * _DAY)
    slots = _wall_slots(day, history.calendar)
    return tuple((before.on_the_wall[slot] or 0.0) if before else 0.0 for slot in slots)


def _wape(pairs: Iterable[tuple[Sequence[float], Sequence[float]]]) -> float | None:
    off = came = 0.0
    for forecast_, actual in pairs:
        off += sum(abs(one - other) for one, other in zip(forecast_, actual, strict=True))
        came += sum(actual)
    return off / came if came else None


def _band(days: Sequence[HeldOut]) -> Band:
    if len(days) < _FEWEST_FOR_A_BAND:
        return POISSON
    off = [
        (actual - expected) / math.sqrt(expected + 0.5)
        for each in days
        for actual, expected in zip(each.actual, each.forecast, strict=True)
    ]
    low, *_, high = quantiles(off, n=10, method="inclusive")
    return Band(low, high)
