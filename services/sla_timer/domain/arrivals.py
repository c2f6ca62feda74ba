"""What is usual at a time of the week: which earlier windows, and which earlier days, one is compared with.

Days are of three kinds, told apart by the calendar alone. A **plain** day has the hours of its weekday. A **holiday**
has none, though its weekday has; a public holiday on a day that is closed anyway is a plain day. A **make-up day** has
hours that its weekday has not: people work as on a working day. A calendar without holidays has only plain days.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from itertools import islice
from statistics import median
from typing import Final

from shared.calendars import Calendar

_HOLIDAYS_WITHIN_DAYS: Final = 400  # a year and the weeks by which a moon's calendar shifts
_FEWEST_HOLIDAYS: Final = 2
_SUNDAY: Final = 6
_DAY: Final = timedelta(days=1)


class DayKind(StrEnum):
    PLAIN = "plain"
    HOLIDAY = "holiday"
    MAKE_UP = "make_up"


def day_kind(day: date, calendar: Calendar) -> DayKind:
    """What kind a local day of the calendar is."""
    periods = calendar.periods_of(day)
    if periods == calendar.week[day.weekday()]:
        return DayKind.PLAIN
    return DayKind.MAKE_UP if periods else DayKind.HOLIDAY


def comparable_days(
    day: date, calendar: Calendar, weeks: int, *, before: date | None = None, since: date | None = None
) -> tuple[date, ...]:
    """Earlier days that are like this one, the latest first; at most `weeks` of them.

    A plain day: the same weekday of the `weeks` weeks before, holidays and make-up days left out. A holiday: the last
    holidays of 400 days; where there are fewer than two, the plain Sundays of the weeks before. A make-up day: the last
    plain working days of those weeks. Only days from `since` (none: any) to the day before `before` (none: `day`).
    """
    before = day if before is None else before
    recent = _back_from(before, weeks * 7, since)
    kind = day_kind(day, calendar)
    if kind is DayKind.HOLIDAY:
        holidays = _of_kind(DayKind.HOLIDAY, _back_from(before, _HOLIDAYS_WITHIN_DAYS, since), calendar)
        last = tuple(islice(holidays, weeks))
        if len(last) >= _FEWEST_HOLIDAYS:
            return last
    weekday = _SUNDAY if kind is DayKind.HOLIDAY else day.weekday()
    plain = _of_kind(DayKind.PLAIN, recent, calendar)
    if kind is DayKind.MAKE_UP:
        return tuple(islice((other for other in plain if calendar.week[other.weekday()]), weeks))
    return tuple(other for other in plain if other.weekday() == weekday)


def comparable_windows(
    at: datetime, window: timedelta, calendar: Calendar, weeks: int, since: datetime | None = None
) -> tuple[tuple[datetime, datetime], ...]:
    """The windows (start included, end not; UTC) that the one which ends at `at` is compared with, the latest first.

    They begin at the same time on the wall, in the calendar's zone, on the `comparable_days` of the day on which this
    one begins, and are as long. A time that the clock skips on such a day is the instant at which it would have been;
    of one that it shows twice, the first. Windows that begin before `since`, when nothing was counted, are left out.
    """
    begin = calendar.local(at - window)
    windows = []
    known = calendar.local(since).date() if since is not None else None
    for day in comparable_days(begin.date(), calendar, weeks, since=known):
        start = datetime.combine(day, begin.time(), begin.tzinfo).astimezone(UTC)
        if since is None or start >= since:
            windows.append((start, start + window))
    return tuple(windows)


def expected(counts: Sequence[int]) -> float:
    """What is usual, from the arrivals in the comparable windows: their median, so that one day's spike moves nothing.

    One count is taken as it is, of two the mean: neither can tell a spike from what is usual. None at all: 0.
    """
    return float(median(counts)) if counts else 0.0


def _back_from(before: date, days: int, since: date | None) -> Iterator[date]:
    for back in range(1, days + 1):
        day = before - back * _DAY
        if since is not None and day < since:
            return
        yield day


def _of_kind(kind: DayKind, days: Iterator[date], calendar: Calendar) -> Iterator[date]:
    return (day for day in days if day_kind(day, calendar) is kind)
