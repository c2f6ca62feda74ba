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

import hashlib
import json
import re
import warnings
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cache
from importlib.metadata import version as installed_version
from importlib.resources import files
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Final
from zoneinfo import ZoneInfo

import holidays as public_holidays
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, model_validator

from shared.yaml_files import load_yaml

WEEKDAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_SECONDS: Final = 86_400
FIRST_YEAR: Final = 1970
LAST_YEAR: Final = 2199

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()
_MICROSECOND: Final = timedelta(microseconds=1)
_PER_SECOND: Final = 1_000_000
# Years of which the library knows every country's holidays, enough of them to meet every weekday in every week.
_SAMPLE_YEARS: Final = range(2023, 2027)
_LONGEST_YEAR: Final = 366 * DAY_SECONDS * _PER_SECOND
# Days since 1970 on which each UTC year begins, the first one out of range included.
_YEARS_BEGIN: Final = tuple(date(year, 1, 1).toordinal() - _EPOCH_DAY for year in range(FIRST_YEAR, LAST_YEAR + 2))


class CalendarError(ValueError):
    """A calendar that cannot be, or an instant that it cannot answer for."""


@dataclass(frozen=True, slots=True, order=True)
class Period:
    """Local wall time, in seconds from the midnight that begins its day; an end above 86400 runs into the next day."""

    start_seconds: int
    end_seconds: int

    def __post_init__(self) -> None:
        if not 0 <= self.start_seconds < DAY_SECONDS or not 0 < self.end_seconds - self.start_seconds <= DAY_SECONDS:
            raise CalendarError(f"{self!r} is not a period: it starts within its day and lasts up to 24 hours")
        if self.start_seconds and self.end_seconds - self.start_seconds == DAY_SECONDS:
            # It could not be written: 09:00-09:00 reads as empty.
            raise CalendarError(f"{self!r} is not a period: only 00:00-24:00 lasts 24 hours")

    def __str__(self) -> str:
        """As it is written; `parse` reads it back."""
        end = self.end_seconds if self.end_seconds <= DAY_SECONDS else self.end_seconds - DAY_SECONDS
        return f"{_time_of_day(self.start_seconds)}-{_time_of_day(end)}"

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


def _time_of_day(seconds: int) -> str:
    text = f"{seconds // 3600:02}:{seconds // 60 % 60:02}"
    return f"{text}:{seconds % 60:02}" if seconds % 60 else text


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
    _version: str | None = field(init=False, repr=False, compare=False, default=None)
    _years: dict[int, _Year] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.week) != 7:
            raise CalendarError(f"calendar {self.name}: a week has 7 days, not {len(self.week)}")
        if not any(self.week):
            # Extra working days alone end some day, and a promise made after the last would never come due.
            raise CalendarError(f"calendar {self.name} has no working time: give at least one weekday a period")
        if not any(self._regular(day) for year in _SAMPLE_YEARS for day in _days_of(year)):
            raise CalendarError(
                f"calendar {self.name} has no working time: every day of its week is a holiday of "
                f"{', '.join(self.holidays)}; give another weekday a period"
            )
        object.__setattr__(self, "_zone", _zone(self.zone))

    @property
    def day_seconds(self) -> int:
        """What a promise of `1d` means here: the working time of the longest weekday."""
        return max(
            sum(end - start for start, end in _merged((item.start_seconds, item.end_seconds) for item in periods))
            for periods in self.week
        )

    @property
    def version(self) -> str:
        """12 hex digits that change with whatever decides the answers: what the calendar says, the time zones' rules,
        and, where it keeps public holidays, the library that knows them. Its name is no part of it.
        """
        version = self._version
        if version is None:
            content = [self.to_spec().model_dump(mode="json"), "tzdata", installed_version("tzdata")]
            if self.holidays:
                content += ["holidays", installed_version("holidays")]
            version = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
            object.__setattr__(self, "_version", version)
        return version

    def to_spec(self) -> CalendarSpec:
        """The calendar as it is written. `to_spec().model_dump(mode="json")` is plain JSON; `CalendarSpec` reads it
        back, and its `calendar(name)` is equal to this one.
        """
        return CalendarSpec(
            zone=self.zone,
            week={WEEKDAYS[day]: periods for day, periods in enumerate(self.week) if periods},
            holidays=self.holidays,
            extra_holidays=self.extra_holidays,
            extra_working_days=self.extra_working_days,
            extra_working_hours=self.extra_working_hours,
        )

    def business_time(self, start: datetime, end: datetime) -> timedelta:
        """Working time from `start` to `end`. Raises CalendarError when `end` is before `start`."""
        return timedelta(0, 0, self._worked(start, end))

    def business_elapsed(self, start: datetime, end: datetime) -> int:
        """Whole seconds of `business_time`."""
        return self._worked(start, end) // _PER_SECOND

    def _worked(self, start: datetime, end: datetime) -> int:
        (first, first_year), (last, last_year) = _instant(start), _instant(end)
        if last < first:
            raise CalendarError(f"the end {end.isoformat()} is before the start {start.isoformat()}")
        worked = self._year(last_year).worked(last) - self._year(first_year).worked(first)
        for year in range(first_year, last_year):
            worked += self._year(year).total
        return worked

    def deadline(self, start: datetime, target: int | timedelta) -> datetime:
        """The first instant (UTC) by which `target` (seconds, or exact) of working time has gone by since `start`.

        A target used up at closing time is due at closing time, not when work begins again. Raises CalendarError for a
        negative target, or one that is not reached before 2200.
        """
        left = target // _MICROSECOND if isinstance(target, timedelta) else target * _PER_SECOND
        instant, year = _instant(start)
        compiled = self._year(year)
        if left <= 0:
            if left < 0:
                raise CalendarError(f"calendar {self.name}: a target must not be negative")
            return start.astimezone(UTC)
        left += compiled.worked(instant)
        while left > compiled.total:
            left -= compiled.total
            year += 1
            # No year works more than all of it: what cannot be reached is refused before 200 years are compiled.
            if left > (LAST_YEAR - year + 1) * _LONGEST_YEAR:
                raise CalendarError(f"calendar {self.name}: the target is not reached before {LAST_YEAR + 1}")
            compiled = self._year(year)
        index = bisect_left(compiled.before, left) - 1
        return _EPOCH + timedelta(0, 0, compiled.starts[index] + left - compiled.before[index])

    def is_open(self, at: datetime) -> bool:
        instant, year = _instant(at)
        return self._year(year).is_open(instant)

    def next_open(self, at: datetime) -> datetime:
        """`at` itself when it is working time, otherwise when work begins next (UTC)."""
        instant, year = _instant(at)
        if self._year(year).is_open(instant):
            return at.astimezone(UTC)
        for later in range(year, LAST_YEAR + 1):
            starts = self._year(later).starts
            index = bisect_right(starts, instant)
            if index < len(starts):
                return _EPOCH + timedelta(0, 0, starts[index])
        raise CalendarError(f"calendar {self.name} does not open again before {LAST_YEAR + 1}")

    def working_periods(self, start: datetime, end: datetime) -> Iterator[tuple[datetime, datetime]]:
        """The working time from `start` to `end`, piece by piece (UTC)."""
        (first, first_year), (last, last_year) = _instant(start), _instant(end)
        for year in range(first_year, last_year + 1):
            compiled = self._year(year)
            for begin, finish in zip(compiled.starts, compiled.ends, strict=True):
                if begin < last and finish > first:
                    yield (
                        _EPOCH + timedelta(0, 0, max(begin, first)),
                        _EPOCH + timedelta(0, 0, min(finish, last)),
                    )

    def periods_of(self, day: date) -> tuple[Period, ...]:
        """The periods that start on this local day."""
        if day in self.extra_working_days:
            return self.extra_working_hours or next(periods for periods in self.week if periods)
        return () if day in self.extra_holidays else self._regular(day)

    def _regular(self, day: date) -> tuple[Period, ...]:
        periods = self.week[day.weekday()]
        return () if any(day in _public_holidays(code, day.year).days for code in self.holidays) else periods

    def holidays_unknown(self, since: datetime, until: datetime) -> tuple[str, ...]:
        """Which of its countries' holidays the library does not know, wholly or in part, in some year of that time.

        Such years are counted without what is not known: `extra_holidays` can name it.
        """
        first, last = (at.astimezone(self._zone).year for at in (since, until))
        return tuple(
            code
            for code in self.holidays
            if any(not _public_holidays(code, year).known for year in range(first, last + 1))
        )

    # --- the clock on the wall -----------------------------------------------------------------------------------

    def local(self, at: datetime) -> datetime:
        """The same instant in the calendar's zone."""
        return at.astimezone(self._zone)

    def at_wall(self, wall: datetime) -> datetime:
        """The instant at which the clock on the wall shows `wall`, a time without offset.

        Raises CalendarError for a time that it skips or shows twice, and names the two offsets it could have.
        """
        before, after = (wall.replace(tzinfo=self._zone, fold=fold) for fold in (0, 1))
        if before.utcoffset() == after.utcoffset():
            return before
        first, second = (at.isoformat().removeprefix(wall.isoformat()) for at in (before, after))
        skipped = _offset(before) < _offset(after)
        raise CalendarError(
            f"{wall.isoformat()} {'does not exist' if skipped else 'exists twice'} in {self.zone}: the clock "
            f"{'skips' if skipped else 'repeats'} it; give it an offset, {first} or {second}"
        )

    # --- compiling a year ----------------------------------------------------------------------------------------

    def _year(self, year: int) -> _Year:
        compiled = self._years.get(year)
        if compiled is None:
            compiled = self._years[year] = self._compile(year)
        return compiled

    def _compile(self, year: int) -> _Year:
        if not FIRST_YEAR <= year <= LAST_YEAR:
            raise CalendarError(f"calendar {self.name} answers only for the years {FIRST_YEAR} to {LAST_YEAR} (UTC)")
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


@cache
def _zone(name: str) -> ZoneInfo:
    """From the tzdata package, never from the machine: all replicas count alike, and `version` can say by what."""
    try:
        if name not in _zone_names():
            raise CalendarError(f"{name!r} is not an IANA time zone like Asia/Shanghai")
        with files("tzdata").joinpath("zoneinfo", *name.split("/")).open("rb") as rules:
            return ZoneInfo.from_file(rules, key=name)
    except OSError as error:
        raise CalendarError(f"the rules of {name} cannot be read from the tzdata package: {error}") from None


@cache
def _zone_names() -> frozenset[str]:
    return frozenset(files("tzdata").joinpath("zones").read_text(encoding="utf-8").split())


def _days_of(year: int) -> Iterator[date]:
    return map(date.fromordinal, range(date(year, 1, 1).toordinal(), date(year + 1, 1, 1).toordinal()))


def _instant(at: datetime) -> tuple[int, int]:
    """Microseconds since 1970, and the UTC year. The fields of a difference cost half of what dividing it would."""
    if at.tzinfo is None:
        raise CalendarError(f"{at.isoformat()} has no time zone; give it an offset, e.g. +08:00")
    since = at - _EPOCH
    return (
        (since.days * DAY_SECONDS + since.seconds) * _PER_SECOND + since.microseconds,
        FIRST_YEAR - 1 + bisect_right(_YEARS_BEGIN, since.days),
    )


def _merged(intervals: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same set of instants as sorted, disjoint intervals."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _offset(at: datetime) -> int:
    """Seconds east of UTC."""
    offset = at.utcoffset()
    assert offset is not None
    return offset // timedelta(seconds=1)


def _offsets(zone: ZoneInfo, year: int) -> Iterator[tuple[int, int, int]]:
    """The spans of one UTC year with one offset each: (since, until, offset east of UTC), all in seconds."""

    def offset_at(instant: int) -> int:
        return _offset(datetime.fromtimestamp(instant, zone))

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


@dataclass(frozen=True, slots=True)
class _PublicHolidays:
    days: frozenset[date]
    known: bool  # False: the library says that it does not know this year, or not all of it


@cache
def _public_holidays(code: str, year: int) -> _PublicHolidays:
    """Public holidays of a country (`CN`) or a part of it (`US-NY`). Raises CalendarError for an unknown one."""
    country, _, subdivision = code.partition("-")
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always", UserWarning)
            found = public_holidays.country_holidays(country, subdiv=subdivision or None, years=year)
    except (NotImplementedError, AttributeError):
        raise CalendarError(
            f"{code!r} is not a country or subdivision of the holidays library, e.g. CN or US-NY"
        ) from None
    # Of years before its first and after its last the library silently says that they have none. Of years that it
    # knows in part it warns: lunar and religious ones are tables that end.
    partly = any(item.category is UserWarning for item in told)
    return _PublicHolidays(frozenset(found), found.start_year <= year <= found.end_year and not partly)


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
    _public_holidays(value, _SAMPLE_YEARS[0])
    return value


def _sorted_dates(value: frozenset[date]) -> list[str]:
    # A set has no order of its own, and every process must come to the same JSON.
    return [day.isoformat() for day in sorted(value)]


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


_PeriodText = Annotated[Period, BeforeValidator(_period), PlainSerializer(str, when_used="json")]
_Periods = Annotated[tuple[_PeriodText, ...], BeforeValidator(_periods)]
_Dates = Annotated[frozenset[date], PlainSerializer(_sorted_dates, when_used="json")]
_Weekdays = Annotated[str, AfterValidator(_days)]


class CalendarSpec(BaseModel):
    """One calendar of `calendars.yaml`; see docs/sla.md."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    zone: Annotated[str, AfterValidator(_checked_zone)]
    week: Annotated[dict[_Weekdays, _Periods], BeforeValidator(_week)]
    holidays: tuple[Annotated[str, AfterValidator(_checked_country)], ...] = ()
    extra_holidays: _Dates = frozenset()
    extra_working_days: _Dates = frozenset()
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
