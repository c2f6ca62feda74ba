"""What is usual at a time of the week."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from services.sla_timer.domain.arrivals import DayKind, comparable_days, comparable_windows, day_kind, expected
from shared.calendars import Calendar, Period

OFFICE_WEEK = ((Period.parse("09:00-18:00"),),) * 5 + ((), ())
CHINA = Calendar("china", "Asia/Shanghai", OFFICE_WEEK, ("CN",), extra_working_days=frozenset({date(2026, 10, 10)}))
NEW_YORK = Calendar("new_york", "America/New_York", OFFICE_WEEK, ("US",))
ALWAYS = Calendar("always", "Asia/Shanghai", ((Period(0, 86_400),),) * 7)
QUARTER = timedelta(minutes=15)


def days(*texts: str) -> tuple[date, ...]:
    return tuple(date.fromisoformat(text) for text in texts)


@pytest.mark.parametrize(
    ("day", "kind"),
    [
        ("2026-09-30", DayKind.PLAIN),
        ("2026-10-01", DayKind.HOLIDAY),  # National Day, a Thursday
        ("2026-10-04", DayKind.PLAIN),  # closed on Sundays anyway
        ("2026-10-10", DayKind.MAKE_UP),  # a Saturday worked for it
        ("2026-10-17", DayKind.PLAIN),  # a Saturday like others
    ],
)
def test_kinds_of_days(day: str, kind: DayKind) -> None:
    assert day_kind(date.fromisoformat(day), CHINA) is kind
    assert day_kind(date.fromisoformat(day), ALWAYS) is DayKind.PLAIN


def test_a_plain_day_is_like_the_same_weekday_of_the_last_weeks_but_no_holiday() -> None:
    # 1 October 2026 is a Thursday and a holiday.
    assert comparable_days(date(2026, 10, 22), CHINA, 4) == days("2026-10-15", "2026-10-08", "2026-09-24")
    assert comparable_days(date(2026, 10, 22), ALWAYS, 4) == days(
        "2026-10-15", "2026-10-08", "2026-10-01", "2026-09-24"
    )


def test_a_holiday_is_like_the_last_holidays() -> None:
    assert comparable_days(date(2026, 11, 26), NEW_YORK, 3) == days("2026-11-11", "2026-10-12", "2026-09-07")
    # Where they are not known yet, like a Sunday.
    assert comparable_days(date(2026, 11, 26), NEW_YORK, 3, since=date(2026, 11, 1)) == days(
        "2026-11-22", "2026-11-15", "2026-11-08"
    )
    # Of the last 400 days only: with one holiday a year, there is but one.
    once = Calendar(
        "once", "UTC", OFFICE_WEEK, extra_holidays=frozenset(days("2024-06-04", "2025-06-04", "2026-06-04"))
    )
    assert comparable_days(date(2026, 6, 4), once, 2) == days("2026-05-31", "2026-05-24")


def test_a_make_up_day_is_like_the_last_working_days() -> None:
    # Saturday, 10 October: the week before it was a holiday until Wednesday, the 7th.
    found = comparable_days(date(2026, 10, 10), CHINA, 4)
    assert found == days("2026-10-09", "2026-10-08", "2026-09-30", "2026-09-29")
    # And no Saturday is like it.
    assert date(2026, 10, 10) not in comparable_days(date(2026, 10, 17), CHINA, 4)


def test_only_days_before_the_last_one_known() -> None:
    assert comparable_days(date(2026, 10, 22), ALWAYS, 2, before=date(2026, 10, 12)) == days("2026-10-08", "2026-10-01")


def test_windows_are_at_the_same_time_on_the_wall_when_the_clock_was_changed() -> None:
    # New York went back an hour on 1 November 2026: 09:30 was at 13:30 UTC before, and is at 14:30 after.
    at = datetime(2026, 11, 9, 14, 30, tzinfo=UTC)
    assert comparable_windows(at, QUARTER, NEW_YORK, 2) == (
        (datetime(2026, 11, 2, 14, 15, tzinfo=UTC), datetime(2026, 11, 2, 14, 30, tzinfo=UTC)),
        (datetime(2026, 10, 26, 13, 15, tzinfo=UTC), datetime(2026, 10, 26, 13, 30, tzinfo=UTC)),
    )
    # 02:30 did not exist on Sunday, 8 March 2026; it would have been 07:30 UTC.
    at = datetime(2026, 3, 15, 6, 45, tzinfo=UTC)
    ((start, end),) = comparable_windows(at, QUARTER, NEW_YORK, 1)
    assert (start, end) == (datetime(2026, 3, 8, 7, 30, tzinfo=UTC), datetime(2026, 3, 8, 7, 45, tzinfo=UTC))


def test_a_window_belongs_to_the_day_on_which_it_begins() -> None:
    # From 23:55 on Wednesday to 00:10 on Thursday, 1 October, a holiday: of a plain Wednesday.
    at = datetime(2026, 9, 30, 16, 10, tzinfo=UTC)
    ((start, end),) = comparable_windows(at, QUARTER, CHINA, 1)
    assert CHINA.local(start).isoformat() == "2026-09-23T23:55:00+08:00"
    assert end - start == QUARTER
    # Five minutes later it begins on the holiday.
    last, *_ = comparable_windows(at + timedelta(minutes=5), QUARTER, CHINA, 8)
    assert day_kind(CHINA.local(last[0]).date(), CHINA) is DayKind.HOLIDAY


def test_nothing_is_compared_with_a_time_when_nothing_was_counted() -> None:
    at = datetime(2026, 10, 22, 2, tzinfo=UTC)
    windows = comparable_windows(at, QUARTER, ALWAYS, 4)
    assert len(windows) == 4
    since = windows[1][0]
    assert comparable_windows(at, QUARTER, ALWAYS, 4, since) == windows[:2]
    assert comparable_windows(at, QUARTER, ALWAYS, 4, since + timedelta(seconds=1)) == windows[:1]


@pytest.mark.parametrize(
    ("counts", "usual"),
    [
        ([], 0.0),
        ([7], 7.0),
        ([4, 9], 6.5),
        ([5, 4, 90], 5.0),  # one day's spike
        ([3, 900, 5, 4, 6, 5, 4, 6], 5.0),
        ([3, 5, 5, 4, 6, 5, 4, 6], 5.0),  # the same without it
    ],
)
def test_what_is_usual_is_not_moved_by_a_spike(counts: list[int], usual: float) -> None:
    assert expected(counts) == usual
