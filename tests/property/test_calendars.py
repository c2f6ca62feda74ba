"""Business time against an oracle that looks at the clock on the wall, minute by minute."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from shared.calendars import Calendar, Period

MINUTE = timedelta(minutes=1)
# Both hemispheres, half-hour offsets and a half-hour change (Lord Howe), no change at all, a change at midnight.
ZONES = (
    "Asia/Shanghai",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Kolkata",
    "America/Santiago",
    "UTC",
)
# Around changes of the clock, and around a year's end.
AROUND = (
    datetime(2026, 3, 8, tzinfo=UTC),
    datetime(2026, 3, 29, tzinfo=UTC),
    datetime(2026, 4, 4, tzinfo=UTC),
    datetime(2026, 10, 3, tzinfo=UTC),
    datetime(2026, 10, 25, tzinfo=UTC),
    datetime(2026, 11, 1, tzinfo=UTC),
    datetime(2026, 12, 31, tzinfo=UTC),
    datetime(2027, 2, 6, tzinfo=UTC),
)

minutes_of_day = st.integers(0, 1439)


@st.composite
def periods(draw: st.DrawFn) -> Period:
    start = draw(minutes_of_day)
    length = draw(st.sampled_from((1, 30, 60, 90, 240, 480, 540, 720, 1439, 1440)))
    return Period(start * 60, (start + length) * 60)


weeks = st.tuples(*[st.lists(periods(), max_size=3).map(tuple)] * 7).filter(any)
near_days = st.frozensets(
    st.builds(lambda at, days: (at + timedelta(days=days)).date(), st.sampled_from(AROUND), st.integers(-2, 2)),
    max_size=3,
)


@st.composite
def calendars(draw: st.DrawFn) -> Calendar:
    return Calendar(
        name="drawn",
        zone=draw(st.sampled_from(ZONES)),
        week=draw(weeks),
        extra_holidays=draw(near_days),
        extra_working_days=draw(near_days),
        extra_working_hours=tuple(draw(st.lists(periods(), max_size=2))),
    )


instants = st.builds(lambda at, minutes: at + minutes * MINUTE, st.sampled_from(AROUND), st.integers(-36 * 60, 36 * 60))


def wall_clock_open(calendar: Calendar, at: datetime) -> bool:
    """The definition, read literally: is this minute's wall time within a period of its day, or of the day before?"""
    wall = at.astimezone(ZoneInfo(calendar.zone)).replace(tzinfo=None)
    return any(
        midnight + timedelta(seconds=period.start_seconds) <= wall < midnight + timedelta(seconds=period.end_seconds)
        for days_back in (0, 1)
        for midnight in [datetime.combine(wall.date() - timedelta(days=days_back), datetime.min.time())]
        for period in oracle_periods(calendar, midnight.date())
    )


def oracle_periods(calendar: Calendar, day: date) -> tuple[Period, ...]:
    if day in calendar.extra_working_days:
        if calendar.extra_working_hours:
            return calendar.extra_working_hours
        return next(hours for hours in calendar.week if hours)
    return () if day in calendar.extra_holidays else calendar.week[day.weekday()]


@settings(max_examples=100, deadline=None)
@given(calendars(), instants, st.integers(0, 36 * 60))
def test_elapsed_is_the_number_of_open_minutes(calendar: Calendar, start: datetime, minutes: int) -> None:
    expected = sum(wall_clock_open(calendar, start + index * MINUTE) for index in range(minutes))
    assert calendar.business_elapsed(start, start + minutes * MINUTE) == expected * 60


@settings(max_examples=100, deadline=None)
@given(calendars(), instants, st.integers(1, 600))
def test_the_deadline_is_the_end_of_the_nth_open_minute(calendar: Calendar, start: datetime, minutes: int) -> None:
    at, left = start, minutes
    for _ in range(3 * 24 * 60):
        left -= wall_clock_open(calendar, at)
        at += MINUTE
        if left == 0:
            break
    assume(left == 0)  # a calendar that works less than that within three days
    assert calendar.deadline(start, minutes * 60) == at


@settings(max_examples=100, deadline=None)
@given(calendars(), instants)
def test_open_now_and_open_next(calendar: Calendar, at: datetime) -> None:
    assert calendar.is_open(at) == wall_clock_open(calendar, at)
    following = calendar.next_open(at)
    assert following >= at
    assert wall_clock_open(calendar, following)
    steps = min((following - at) // MINUTE, 24 * 60)
    assert not any(wall_clock_open(calendar, at + index * MINUTE) for index in range(steps))


exact_instants = st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - naive by its contract


@settings(max_examples=100, deadline=None)
@given(calendars(), exact_instants, st.integers(1, 40 * 86_400))
def test_a_deadline_is_its_target_away_and_no_earlier_instant_is(
    calendar: Calendar, start: datetime, target_seconds: int
) -> None:
    due = calendar.deadline(start, target_seconds)
    assert calendar.business_time(start, due) == timedelta(seconds=target_seconds)
    assert calendar.business_time(start, due - timedelta(microseconds=1)) < timedelta(seconds=target_seconds)


@settings(max_examples=100, deadline=None)
@given(calendars(), st.lists(exact_instants, min_size=3, max_size=3))
def test_business_time_adds_up(calendar: Calendar, chosen: list[datetime]) -> None:
    first, middle, last = sorted(chosen)
    whole = calendar.business_time(first, last)
    assert whole == calendar.business_time(first, middle) + calendar.business_time(middle, last)
    assert timedelta(0) <= whole <= last - first
