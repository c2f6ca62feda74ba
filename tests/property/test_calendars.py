"""Business time against an oracle that looks at the clock on the wall, minute by minute."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from shared.calendars import Calendar, CalendarSpec, Period

MINUTE = timedelta(minutes=1)


def moments(*dates: str) -> tuple[datetime, ...]:
    return tuple(datetime.fromisoformat(day).replace(tzinfo=UTC) for day in dates)


# Zones, and where something happens to their clocks: changes by an hour, by half an hour (Lord_Howe), by two (Troll),
# at midnight (Sao_Paulo, Tehran, Santiago), at a minute past it (St_Johns), a day that never was (Apia, Kwajalein),
# a month apart (Casablanca's Ramadan), a quarter of an hour once (Kathmandu), and none at all.
AROUND = {
    "Asia/Shanghai": moments("2026-02-16", "1986-05-04", "1991-09-14"),
    "Europe/Berlin": moments("2026-03-29", "2026-10-25", "2026-12-31"),
    "America/New_York": moments("2026-03-08", "2026-11-01", "2027-12-31"),
    "Australia/Lord_Howe": moments("2026-04-04", "2026-10-03"),
    "Antarctica/Troll": moments("2026-03-29", "2026-10-25"),
    "Asia/Kolkata": moments("2026-02-28", "2028-02-28"),
    "Asia/Kathmandu": moments("1985-12-31"),
    "Asia/Tehran": moments("2022-03-21", "2022-09-21"),
    "America/Santiago": moments("2026-04-05", "2026-09-06"),
    "America/Sao_Paulo": moments("2018-02-18", "2018-11-04"),
    "America/St_Johns": moments("2010-03-14", "1988-04-03", "1988-10-30"),
    "Africa/Casablanca": moments("2026-02-15", "2026-03-22"),
    "Pacific/Apia": moments("2011-12-30", "2011-12-31"),
    "Pacific/Kwajalein": moments("1993-08-21"),
    "UTC": moments("2026-12-31", "1970-01-03"),
}
PLACES = tuple((zone, at) for zone, chosen in AROUND.items() for at in chosen)

# Clocks change at night: half of the periods begin or end there.
minutes_of_day = st.one_of(st.sampled_from((0, 1, 30, 60, 90, 120, 150, 180, 1380, 1410)), st.integers(0, 1439))


@st.composite
def periods(draw: st.DrawFn) -> Period:
    start = draw(minutes_of_day)
    length = draw(st.sampled_from((1, 30, 60, 90, 240, 480, 540, 720, 1439, 1440)))
    # Only the whole day lasts 24 hours.
    return Period(start * 60, (start + min(length, 1440 if start == 0 else 1439)) * 60)


weeks = st.tuples(*[st.lists(periods(), max_size=3).map(tuple)] * 7).filter(any)


def near(at: datetime) -> st.SearchStrategy[frozenset[date]]:
    return st.frozensets(st.integers(-2, 2).map(lambda days: (at + timedelta(days=days)).date()), max_size=3)


@st.composite
def places(draw: st.DrawFn) -> tuple[Calendar, datetime]:
    """A calendar, and an instant near which its clock changes."""
    zone, at = draw(st.sampled_from(PLACES))
    calendar = Calendar(
        name="drawn",
        zone=zone,
        week=draw(weeks),
        extra_holidays=draw(near(at)),
        extra_working_days=draw(near(at)),
        extra_working_hours=tuple(draw(st.lists(periods(), max_size=2))),
    )
    return calendar, at + draw(st.integers(-36 * 60, 36 * 60)) * MINUTE


calendars = places().map(lambda place: place[0])


def wall_clock_open(calendar: Calendar, at: datetime) -> bool:
    """The definition, read literally: is this minute's wall time within a period of its day, or of the day before?"""
    wall = calendar.local(at).replace(tzinfo=None)
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
@given(places(), st.integers(0, 36 * 60))
def test_elapsed_is_the_number_of_open_minutes(place: tuple[Calendar, datetime], minutes: int) -> None:
    calendar, start = place
    expected = sum(wall_clock_open(calendar, start + index * MINUTE) for index in range(minutes))
    assert calendar.business_elapsed(start, start + minutes * MINUTE) == expected * 60


@settings(max_examples=100, deadline=None)
@given(places(), st.integers(1, 600))
def test_the_deadline_is_the_end_of_the_nth_open_minute(place: tuple[Calendar, datetime], minutes: int) -> None:
    calendar, start = place
    at, left = start, minutes
    for _ in range(3 * 24 * 60):
        left -= wall_clock_open(calendar, at)
        at += MINUTE
        if left == 0:
            break
    assume(left == 0)  # a calendar that works less than that within three days
    assert calendar.deadline(start, minutes * 60) == at


@settings(max_examples=100, deadline=None)
@given(places())
def test_open_now_and_open_next(place: tuple[Calendar, datetime]) -> None:
    calendar, at = place
    assert calendar.is_open(at) == wall_clock_open(calendar, at)
    following = calendar.next_open(at)
    assert following >= at
    assert wall_clock_open(calendar, following)
    steps = min((following - at) // MINUTE, 24 * 60)
    assert not any(wall_clock_open(calendar, at + index * MINUTE) for index in range(steps))


exact_instants = st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - naive by its contract


@settings(max_examples=100, deadline=None)
@given(calendars, exact_instants, st.integers(1, 40 * 86_400))
def test_a_deadline_is_its_target_away_and_no_earlier_instant_is(
    calendar: Calendar, start: datetime, target_seconds: int
) -> None:
    due = calendar.deadline(start, target_seconds)
    assert calendar.business_time(start, due) == timedelta(seconds=target_seconds)
    assert calendar.business_time(start, due - timedelta(microseconds=1)) < timedelta(seconds=target_seconds)


@settings(max_examples=100, deadline=None)
@given(calendars, st.lists(exact_instants, min_size=3, max_size=3))
def test_business_time_adds_up(calendar: Calendar, chosen: list[datetime]) -> None:
    first, middle, last = sorted(chosen)
    whole = calendar.business_time(first, last)
    assert whole == calendar.business_time(first, middle) + calendar.business_time(middle, last)
    assert timedelta(0) <= whole <= last - first


# --- to the second ---------------------------------------------------------------------------------------------------


@st.composite
def odd_periods(draw: st.DrawFn) -> Period:
    start = draw(st.one_of(st.integers(0, 3 * 3600), st.integers(0, 86_399)))
    return Period(start, start + draw(st.integers(1, 86_399)))


def change_near(calendar: Calendar, at: datetime) -> datetime:
    """When the clock on the wall jumps, to the minute; `at` itself where it does not."""
    minutes = (at + minute * MINUTE for minute in range(-36 * 60, 36 * 60))
    return next(
        (
            minute
            for minute in minutes
            if calendar.local(minute).utcoffset() != calendar.local(minute - MINUTE).utcoffset()
        ),
        at,
    )


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(PLACES),
    st.tuples(*[st.lists(odd_periods(), min_size=1, max_size=2).map(tuple)] * 7),
    st.integers(0, 900),
    st.integers(1, 1800),
)
def test_to_the_second(
    place: tuple[str, datetime], week: tuple[tuple[Period, ...], ...], before_seconds: int, seconds: int
) -> None:
    zone, at = place
    calendar = Calendar("seconds", zone, week)
    start = change_near(calendar, at) - timedelta(seconds=before_seconds)
    ticks = [start + timedelta(seconds=second) for second in range(seconds)]
    worked = [tick for tick in ticks if wall_clock_open(calendar, tick)]
    assert calendar.business_elapsed(start, start + timedelta(seconds=seconds)) == len(worked)
    if worked:
        assert calendar.deadline(start, len(worked)) == worked[-1] + timedelta(seconds=1)


# --- over decades ----------------------------------------------------------------------------------------------------


def worked_in_utc_day(calendar: Calendar, midnight: datetime) -> int:
    """Seconds. On a day without a change of the clock, wall time is UTC shifted: overlaps of periods with the day.
    On a day with one, the minutes are looked at one by one.
    """
    following = midnight + timedelta(days=1)
    if calendar.local(midnight).utcoffset() != calendar.local(following).utcoffset():
        return 60 * sum(wall_clock_open(calendar, midnight + minute * MINUTE) for minute in range(1440))
    begin = calendar.local(midnight).replace(tzinfo=None)
    minutes_open = bytearray(1440)
    for days in (-1, 0, 1):
        day = begin.date() + timedelta(days=days)
        shift = (datetime.combine(day, datetime.min.time()) - begin) // MINUTE
        for period in oracle_periods(calendar, day):
            first, last = (max(0, min(1440, at // 60 + shift)) for at in (period.start_seconds, period.end_seconds))
            minutes_open[first:last] = b"\1" * (last - first)
    return 60 * sum(minutes_open)


MORNINGS = ((Period(9 * 3600, 12 * 3600), Period(13 * 3600, 18 * 3600)),) * 5 + ((), ())
NIGHTS = ((Period(22 * 3600, 30 * 3600),),) * 7


@settings(max_examples=8, deadline=None)
@given(calendars, st.integers(1970, 2060), st.integers(0, 30 * 366))
@example(Calendar("office", "Europe/Berlin", MORNINGS), 1971, 55 * 365)
@example(Calendar("nights", "America/New_York", NIGHTS, extra_holidays=frozenset({date(2000, 2, 29)})), 1999, 40 * 365)
@example(Calendar("islands", "Pacific/Apia", NIGHTS), 2000, 25 * 365)
def test_exact_over_decades(calendar: Calendar, year: int, days: int) -> None:
    start = datetime(year, 1, 2, tzinfo=UTC)
    end = start + timedelta(days=days)
    expected = sum(worked_in_utc_day(calendar, start + timedelta(days=day)) for day in range(days))
    assert calendar.business_elapsed(start, end) == expected
    if expected:
        due = calendar.deadline(start, expected)
        assert due <= end
        assert calendar.business_elapsed(due, end) == 0
        assert not calendar.is_open(due) or due == end
        assert calendar.is_open(due - timedelta(seconds=1))


# --- as it is written ------------------------------------------------------------------------------------------------

written_periods = st.one_of(periods(), odd_periods())


@settings(max_examples=100, deadline=None)
@given(written_periods)
def test_a_period_reads_back_as_it_is_written(period: Period) -> None:
    assert Period.parse(str(period)) == period


@settings(max_examples=50, deadline=None)
@given(calendars, st.sampled_from(((), ("CN",), ("US-NY", "DE-BY"))))
def test_a_calendar_reads_back_as_it_is_written(drawn: Calendar, countries: tuple[str, ...]) -> None:
    calendar = Calendar(
        drawn.name,
        drawn.zone,
        drawn.week,
        countries,
        drawn.extra_holidays,
        drawn.extra_working_days,
        drawn.extra_working_hours,
    )
    kept = json.dumps(calendar.to_spec().model_dump(mode="json"))
    for spec in (CalendarSpec.model_validate(json.loads(kept)), CalendarSpec.model_validate_json(kept)):
        again = spec.calendar("drawn")
        assert again == calendar
        assert again.version == calendar.version
