"""Business time: when a brand's channel works, and how much working time lies between two instants. Pure arithmetic.

An instant is working time exactly when the clock on the wall of the calendar's zone shows a time within one of the
day's periods. Everything else follows from that sentence, daylight saving included: an hour that the clock skips is
not worked, an hour that it shows twice is worked twice.

A period over midnight (`22:00-06:00`) belongs to the day it starts on: it runs to its end into a holiday, and a
holiday takes away only what would start on it. Extra working days win over holidays of either kind.

Each UTC year is compiled once into sorted working intervals with running totals, so that every question is a binary
search. Instants are aware datetimes; results are in UTC. Exact to the microsecond, for the years 1970 to 2199.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import holidays as public_holidays
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from shared.yaml_files import load_yaml

WEEKDAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_SECONDS: Final = 86_400
FIRST_YEAR: Final = 1970
LAST_YEAR: Final = 2199

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()
_MICROSECOND: Final = timedelta(microseconds=1)
_PER_SECOND: Final = 1_000_000


class CalendarError(ValueError):
    """A calendar that cannot be, or an instant that it cannot answer for."""


@dataclass(frozen=True, slots=True, order=True)
class Period:
    """Local wall time, in seconds from the midnight that begins its day; an end above 86400 runs into the next day."""

    start_seconds: int
    end_seconds: int

    def __post_init__(self) -> None:
        if not 0 <= self.start_seconds < DAY_SECONDS or not 0 < self.end_seconds - self.start_seconds <= DAY_SECONDS:
            raise CalendarError(f"{self} is not a period: it starts within its day and lasts up to 24 hours")

    @classmethod
    def parse(cls, text: str) -> Period:
        """`09:00-18:00`, `22:00-06:00` (over midnight), `00:00-24:00`; seconds may follow. Raises CalendarError."""
        found = _PERIOD.fullmatch(text.strip())
        if not found:
            raise CalendarError(f"{text!r} is not a period like 09:00-18:00, or 22:00-06:00 over midnight")
        start, end = (_seconds_of_day(text, part) for part in found.groups())
        if start == end:
            raise CalendarError(f"{text!r} is empty; the whole day is 00:00-24:00")
        return cls(start, end if end > start else end + DAY_SECONDS)


_PERIOD: Final = re.compile(r"(\d{1,2}:\d{2}(?::\d{2})?)\s*-\s*(\d{1,2}:\d{2}(?::\d{2})?)")


def _seconds_of_day(text: str, part: str) -> int:
    hours, minutes, seconds = (*map(int, part.split(":")), 0)[:3]
    total = hours * 3600 + minutes * 60 + seconds
    if minutes > 59 or seconds > 59 or total > DAY_SECONDS:
        raise CalendarError(f"{text!r}: {part} is not a time between 00:00 and 24:00")
    return total


@dataclass(frozen=True, slots=True)
class _Year:
    """Working intervals of a UTC year, in microseconds since 1970. `before[i]` was worked before interval i begins."""

    starts: tuple[int, ...]
    ends: tuple[int, ...]
    before: tuple[int, ...]
    total: int

    def worked(self, instant: int) -> int:
        index = bisect_right(self.starts, instant) - 1
        return self.before[index] + min(instant, self.ends[index]) - self.starts[index] if index >= 0 else 0

    def is_open(self, instant: int) -> bool:
        index = bisect_right(self.starts, instant) - 1
        return index >= 0 and instant < self.ends[index]


@dataclass(frozen=True, slots=True)
class Calendar:
    """Working time in one zone.

    `week`: periods by weekday, Monday first. `holidays`: countries of the `holidays` library, with a subdivision
    where needed (`CN`, `US-NY`). `extra_working_days` work the hours of `extra_working_hours`, or, where that is
    empty, of the first weekday that has any. Raises CalendarError when it is not a calendar, or never works.
    """

    name: str
    zone: str
    week: tuple[tuple[Period, ...], ...]
    holidays: tuple[str, ...] = ()
    extra_holidays: frozenset[date] = frozenset()
    extra_working_days: frozenset[date] = frozenset()
    extra_working_hours: tuple[Period, ...] = ()
    _zone: ZoneInfo = field(init=False, repr=False, compare=False)
    _years: dict[int, _Year] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.week) != 7:
            raise CalendarError(f"calendar {self.name}: a week has 7 days, not {len(self.week)}")
        if not any(self.week):
            # Extra working days alone end some day, and a promise made after the last would never come due.
            raise CalendarError(f"calendar {self.name} has no working time: give at least one weekday a period")
        for country in self.holidays:
            _public_holidays(country, 2026)
        object.__setattr__(self, "_zone", _zone(self.zone))

    @property
    def day_seconds(self) -> int:
        """What a promise of `1d` means here: the working time of the longest weekday."""
        return max(
            sum(end - start for start, end in _merged((item.start_seconds, item.end_seconds) for item in periods))
            for periods in self.week
        )

    def business_time(self, start: datetime, end: datetime) -> timedelta:
        """Working time from `start` to `end`. Raises CalendarError when `end` is before `start`."""
        first, last = _instant(start), _instant(end)
        if last < first:
            raise CalendarError(f"the end {end.isoformat()} is before the start {start.isoformat()}")
        first_year, last_year = start.astimezone(UTC).year, end.astimezone(UTC).year
        worked = self._year(last_year).worked(last) - self._year(first_year).worked(first)
        worked += sum(self._year(year).total for year in range(first_year, last_year))
        return timedelta(microseconds=worked)

    def business_elapsed(self, start: datetime, end: datetime) -> int:
        """Whole seconds of `business_time`."""
        return self.business_time(start, end) // timedelta(seconds=1)

    def deadline(self, start: datetime, target: int | timedelta) -> datetime:
        """The first instant (UTC) by which `target` (seconds, or exact) of working time has gone by since `start`.

        A target used up at closing time is due at closing time, not when work begins again. Raises CalendarError for a
        negative target, or one that is not reached before 2200.
        """
        left = target // _MICROSECOND if isinstance(target, timedelta) else target * _PER_SECOND
        if left < 0:
            raise CalendarError(f"calendar {self.name}: a target must not be negative")
        if left == 0:
            return start.astimezone(UTC)
        instant, year = _instant(start), start.astimezone(UTC).year
        left += self._year(year).worked(instant)
        while left > self._year(year).total:
            left -= self._year(year).total
            year += 1
        compiled = self._year(year)
        index = bisect_left(compiled.before, left) - 1
        return _EPOCH + timedelta(microseconds=compiled.starts[index] + left - compiled.before[index])

    def is_open(self, at: datetime) -> bool:
        return self._year(at.astimezone(UTC).year).is_open(_instant(at))

    def next_open(self, at: datetime) -> datetime:
        """`at` itself when it is working time, otherwise when work begins next (UTC)."""
        instant, year = _instant(at), at.astimezone(UTC).year
        if self._year(year).is_open(instant):
            return at.astimezone(UTC)
        while True:
            starts = self._year(year).starts
            index = bisect_right(starts, instant)
            if index < len(starts):
                return _EPOCH + timedelta(microseconds=starts[index])
            year += 1

    def periods_of(self, day: date) -> tuple[Period, ...]:
        """The periods that start on this local day."""
        if day in self.extra_working_days:
            return self.extra_working_hours or next(periods for periods in self.week if periods)
        if day in self.extra_holidays or any(day in _public_holidays(code, day.year) for code in self.holidays):
            return ()
        return self.week[day.weekday()]

    # --- compiling a year ----------------------------------------------------------------------------------------

    def _year(self, year: int) -> _Year:
        compiled = self._years.get(year)
        if compiled is None:
            compiled = self._years[year] = self._compile(year)
        return compiled

    def _compile(self, year: int) -> _Year:
        if not FIRST_YEAR <= year <= LAST_YEAR:
            raise CalendarError(
                f"calendar {self.name} answers for the years {FIRST_YEAR} to {LAST_YEAR}, not for {year}"
            )
        # A zone is up to 14 hours ahead or 12 behind, and a period may have begun the day before.
        first = date(year, 1, 1).toordinal() - 2
        last = date(year, 12, 31).toordinal() + 2
        local = _merged(
            (
                (day - _EPOCH_DAY) * DAY_SECONDS + period.start_seconds,
                (day - _EPOCH_DAY) * DAY_SECONDS + period.end_seconds,
            )
            for day in range(first, last)
            for period in self.periods_of(date.fromordinal(day))
        )
        worked = _merged(
            (max(start - offset, since), min(end - offset, until))
            for since, until, offset in _offsets(self._zone, year)
            for start, end in local
            if start - offset < until and end - offset > since
        )
        lengths = [end - start for start, end in worked]
        *before, total = accumulate(lengths, initial=0)
        return _Year(
            starts=tuple(start * _PER_SECOND for start, _ in worked),
            ends=tuple(end * _PER_SECOND for _, end in worked),
            before=tuple(length * _PER_SECOND for length in before),
            total=total * _PER_SECOND,
        )


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise CalendarError(f"{name!r} is not an IANA time zone like Asia/Shanghai") from None


def _instant(at: datetime) -> int:
    if at.tzinfo is None:
        raise CalendarError(f"{at.isoformat()} has no time zone; give it an offset, e.g. +08:00")
    return (at - _EPOCH) // _MICROSECOND


def _merged(intervals: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same set of instants as sorted, disjoint intervals."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _offsets(zone: ZoneInfo, year: int) -> Iterator[tuple[int, int, int]]:
    """The spans of one UTC year with one offset each: (since, until, offset east of UTC), all in seconds."""

    def offset_at(instant: int) -> int:
        offset = datetime.fromtimestamp(instant, zone).utcoffset()
        assert offset is not None
        return int(offset.total_seconds())

    begin = (date(year, 1, 1).toordinal() - _EPOCH_DAY) * DAY_SECONDS
    end = (date(year + 1, 1, 1).toordinal() - _EPOCH_DAY) * DAY_SECONDS
    since, offset = begin, offset_at(begin)
    for midnight in range(begin + DAY_SECONDS, end + 1, DAY_SECONDS):
        if offset_at(midnight) == offset:
            continue
        # The change lies in the day before: find its second.
        change = bisect_left(range(midnight - DAY_SECONDS, midnight), True, key=lambda at: offset_at(at) != offset)
        change += midnight - DAY_SECONDS
        yield since, change, offset
        since, offset = change, offset_at(midnight)
    if since < end:
        yield since, end, offset


_PUBLIC: dict[tuple[str, int], frozenset[date]] = {}


def _public_holidays(code: str, year: int) -> frozenset[date]:
    """Public holidays of a country (`CN`) or a part of it (`US-NY`). Raises CalendarError for an unknown one."""
    known = _PUBLIC.get((code, year))
    if known is None:
        country, _, subdivision = code.partition("-")
        try:
            known = frozenset(public_holidays.country_holidays(country, subdiv=subdivision or None, years=year))
        except (NotImplementedError, AttributeError):
            raise CalendarError(
                f"{code!r} is not a country or subdivision of the holidays library, e.g. CN or US-NY"
            ) from None
        _PUBLIC[code, year] = known
    return known


# --- from YAML -------------------------------------------------------------------------------------------------------


def _period(value: object) -> object:
    return Period.parse(value) if isinstance(value, str) else value


def _periods(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _week(value: object) -> object:
    return {"mon-sun": ["00:00-24:00"]} if value == "24/7" else value


def _checked_zone(value: str) -> str:
    _zone(value)
    return value


def _checked_country(value: str) -> str:
    _public_holidays(value, 2026)
    return value


def _days(value: str) -> str:
    weekdays_of(value)
    return value


def weekdays_of(text: str) -> tuple[int, ...]:
    """`mon`, `mon-fri`, `sat,sun` as numbers, Monday 0. Raises CalendarError."""
    days: list[int] = []
    for part in text.split(","):
        first, _, last = (item.strip() for item in part.partition("-"))
        if first not in WEEKDAYS or (last and last not in WEEKDAYS):
            raise CalendarError(f"{text!r} does not name weekdays; write mon, mon-fri or sat,sun")
        begin, end = WEEKDAYS.index(first), WEEKDAYS.index(last or first)
        if end < begin:
            raise CalendarError(f"{text!r} runs backwards; write sat,sun,mon")
        days += range(begin, end + 1)
    return tuple(days)


_PeriodText = Annotated[Period, BeforeValidator(_period)]
_Periods = Annotated[tuple[_PeriodText, ...], BeforeValidator(_periods)]
_Weekdays = Annotated[str, AfterValidator(_days)]


class CalendarSpec(BaseModel):
    """One calendar of `calendars.yaml`; see docs/sla.md."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    zone: Annotated[str, AfterValidator(_checked_zone)]
    week: Annotated[dict[_Weekdays, _Periods], BeforeValidator(_week)]
    holidays: tuple[Annotated[str, AfterValidator(_checked_country)], ...] = ()
    extra_holidays: frozenset[date] = frozenset()
    extra_working_days: frozenset[date] = frozenset()
    extra_working_hours: _Periods = ()

    @model_validator(mode="after")
    def _is_a_calendar(self) -> CalendarSpec:
        self.calendar("it")
        return self

    def calendar(self, name: str) -> Calendar:
        """Raises CalendarError."""
        week: dict[int, tuple[Period, ...]] = {}
        for days, periods in self.week.items():
            for day in weekdays_of(days):
                if day in week:
                    raise CalendarError(f"{WEEKDAYS[day]} stands in `week` twice; write all its periods in one place")
                week[day] = periods
        return Calendar(
            name=name,
            zone=self.zone,
            week=tuple(week.get(day, ()) for day in range(7)),
            holidays=self.holidays,
            extra_holidays=self.extra_holidays,
            extra_working_days=self.extra_working_days,
            extra_working_hours=self.extra_working_hours,
        )


class CalendarFile(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    calendars: dict[str, CalendarSpec] = Field(min_length=1)


def load_calendars(path: Path) -> Mapping[str, Calendar]:
    """The calendars of a YAML file by name. Raises shared.yaml_files.ConfigError with file, line and field."""
    return {name: spec.calendar(name) for name, spec in load_yaml(path, CalendarFile).calendars.items()}
