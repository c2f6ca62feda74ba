"""Cases that a person can check with a wall calendar in hand."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from shared import calendars
from shared.calendars import Calendar, CalendarError, Period, load_calendars, weekdays_of
from shared.yaml_files import ConfigError

OFFICE = tuple(Period.parse(text) for text in ("09:00-12:00", "13:00-18:00"))
SHANGHAI = ZoneInfo("Asia/Shanghai")
BERLIN = ZoneInfo("Europe/Berlin")


def office(zone: str = "Asia/Shanghai", **more: object) -> Calendar:
    return Calendar("office", zone, (OFFICE,) * 5 + ((), ()), **more)  # type: ignore[arg-type]


def nights(zone: str) -> Calendar:
    return Calendar("nights", zone, ((Period.parse("22:00-06:00"),),) * 7)


def test_a_target_runs_over_lunch_night_and_weekend() -> None:
    # Friday 17:00: one hour on Friday, three before lunch on Monday, one after it.
    friday = datetime(2026, 6, 5, 17, tzinfo=SHANGHAI)
    assert office().deadline(friday, 5 * 3600) == datetime(2026, 6, 8, 14, tzinfo=SHANGHAI)
    assert office().business_elapsed(friday, datetime(2026, 6, 8, 14, tzinfo=SHANGHAI)) == 5 * 3600


def test_a_target_used_up_at_closing_time_is_due_then() -> None:
    friday = datetime(2026, 6, 5, 17, tzinfo=SHANGHAI)
    assert office().deadline(friday, 3600) == datetime(2026, 6, 5, 18, tzinfo=SHANGHAI)
    assert office().deadline(friday, 3601) == datetime(2026, 6, 8, 9, 0, 1, tzinfo=SHANGHAI)


def test_chinese_make_up_day_and_holiday() -> None:
    # 2026: 20 September (a Sunday) is worked for 6 October.
    calendar = office(holidays=("CN",), extra_working_days=frozenset({date(2026, 9, 20)}))
    assert calendar.is_open(datetime(2026, 9, 20, 10, tzinfo=SHANGHAI))
    assert not calendar.is_open(datetime(2026, 10, 6, 10, tzinfo=SHANGHAI))
    assert not office(holidays=("CN",)).is_open(datetime(2026, 9, 20, 10, tzinfo=SHANGHAI))
    # National Day: from the evening of 30 September to the morning of 8 October.
    assert calendar.next_open(datetime(2026, 9, 30, 18, tzinfo=SHANGHAI)) == datetime(2026, 10, 8, 9, tzinfo=SHANGHAI)


def test_extra_working_day_keeps_its_own_hours_and_beats_an_extra_holiday() -> None:
    day = date(2026, 6, 6)
    calendar = office(
        extra_holidays=frozenset({day}),
        extra_working_days=frozenset({day}),
        extra_working_hours=(Period.parse("10:00-11:00"),),
    )
    begin = datetime(2026, 6, 6, tzinfo=SHANGHAI)
    assert calendar.business_elapsed(begin, begin + timedelta(days=1)) == 3600


def test_a_night_shift_runs_into_a_holiday_and_none_begins_on_it() -> None:
    calendar = Calendar(
        "nights", "UTC", ((Period.parse("22:00-06:00"),),) * 7, extra_holidays=frozenset({date(2026, 6, 10)})
    )
    assert calendar.is_open(datetime(2026, 6, 10, 5, 59, tzinfo=UTC))
    assert not calendar.is_open(datetime(2026, 6, 10, 23, tzinfo=UTC))
    assert calendar.next_open(datetime(2026, 6, 10, 6, tzinfo=UTC)) == datetime(2026, 6, 11, 22, tzinfo=UTC)


@pytest.mark.parametrize(("day", "hours"), [(28, 7), (27, 8)])  # in the night to 29 March 2026 the clock skips an hour
def test_the_night_of_the_skipped_hour_is_shorter(day: int, hours: int) -> None:
    evening = datetime(2026, 3, day, 12, tzinfo=BERLIN)
    assert nights("Europe/Berlin").business_elapsed(evening, evening + timedelta(days=1)) == hours * 3600


def test_the_night_of_the_repeated_hour_is_longer() -> None:
    evening = datetime(2026, 10, 24, 22, tzinfo=BERLIN)
    assert nights("Europe/Berlin").deadline(evening, 9 * 3600) == datetime(2026, 10, 25, 6, tzinfo=BERLIN)


def test_a_period_within_the_skipped_hour_is_not_worked_that_day() -> None:
    calendar = Calendar("early", "Europe/Berlin", ((Period.parse("02:00-03:00"),),) * 7)
    begin = datetime(2026, 3, 28, 12, tzinfo=UTC)
    assert calendar.business_elapsed(begin, begin + timedelta(days=1)) == 0
    assert calendar.business_elapsed(begin - timedelta(days=1), begin) == 3600


def test_around_the_clock_is_plain_time_over_decades() -> None:
    calendar = Calendar("always", "America/New_York", ((Period.parse("00:00-24:00"),),) * 7)
    begin, end = datetime(1999, 7, 1, 3, tzinfo=UTC), datetime(2042, 2, 3, 4, 5, 6, tzinfo=UTC)
    assert calendar.business_time(begin, end) == end - begin
    assert calendar.deadline(begin, end - begin) == end


def test_microseconds_are_kept_in_a_deadline_and_whole_seconds_counted() -> None:
    start = datetime(2026, 6, 5, 10, 0, 0, 400_000, tzinfo=SHANGHAI)
    assert office().deadline(start, 60) == start + timedelta(seconds=60)
    assert office().business_elapsed(start, start + timedelta(seconds=1.9)) == 1


def test_a_day_is_the_longest_working_day() -> None:
    assert office().day_seconds == 8 * 3600
    assert nights("UTC").day_seconds == 8 * 3600
    overlapping = Calendar("o", "UTC", ((Period.parse("09:00-12:00"), Period.parse("11:00-13:00")),) * 7)
    assert overlapping.day_seconds == 4 * 3600


# --- odd clocks ------------------------------------------------------------------------------------------------------


def always(zone: str) -> Calendar:
    return Calendar("always", zone, ((Period.parse("00:00-24:00"),),) * 7)


def day_shift(zone: str) -> Calendar:
    return Calendar("days", zone, ((Period.parse("08:00-16:00"),),) * 7)


def test_a_day_that_never_was_is_not_worked() -> None:
    # Samoa went from the end of 29 December 2011 straight to 31 December.
    apia = day_shift("Pacific/Apia")
    assert apia.deadline(datetime.fromisoformat("2011-12-29T12:00-10:00"), 5 * 3600) == datetime.fromisoformat(
        "2011-12-31T09:00+14:00"
    )
    # At midnight the clock shows the 31st, on which the night shift of the 30th ends, though it never began.
    evening = datetime.fromisoformat("2011-12-29T20:00-10:00")
    assert nights("Pacific/Apia").business_elapsed(evening, evening + timedelta(hours=10)) == 8 * 3600
    assert always("Pacific/Apia").deadline(evening, 86_400) == evening + timedelta(days=1)


def test_half_an_hour_more_and_less() -> None:
    # Lord Howe, night to 5 April 2026: 01:30 to 02:00 twice. Night to 4 October: 02:00 to 02:30 never.
    howe = nights("Australia/Lord_Howe")
    for day, seconds in (("2026-04-04T12:00+11:00", 8.5 * 3600), ("2026-10-03T12:00+10:30", 7.5 * 3600)):
        noon = datetime.fromisoformat(day)
        assert howe.business_elapsed(noon, noon + timedelta(days=1)) == seconds


def test_a_change_at_midnight() -> None:
    # Sao Paulo, 4 November 2018: 00:00 became 01:00. 18 February 2018: 00:00 became 23:00 of the day before.
    early = Calendar("early", "America/Sao_Paulo", ((Period.parse("00:00-02:00"),),) * 7)
    evening = datetime.fromisoformat("2018-11-03T20:00-03:00")
    assert early.business_elapsed(evening, evening + timedelta(hours=12)) == 3600
    late = Calendar("late", "America/Sao_Paulo", ((Period.parse("22:00-24:00"),),) * 7)
    evening = datetime.fromisoformat("2018-02-17T20:00-02:00")
    assert late.business_elapsed(evening, evening + timedelta(hours=12)) == 3 * 3600
    assert late.deadline(evening, 3 * 3600) == datetime.fromisoformat("2018-02-18T00:00-03:00")


def test_an_offset_with_seconds() -> None:
    # Monrovia was 44 minutes and 30 seconds behind until 7 January 1972, 00:00, which became 00:44:30.
    monrovia = day_shift("Africa/Monrovia")
    assert monrovia.next_open(datetime(1972, 1, 6, tzinfo=UTC)) == datetime(1972, 1, 6, 8, 44, 30, tzinfo=UTC)
    early = Calendar("early", "Africa/Monrovia", ((Period.parse("00:00-01:00"),),) * 7)
    assert early.business_elapsed(datetime(1972, 1, 6, 12, tzinfo=UTC), datetime(1972, 1, 7, 12, tzinfo=UTC)) == 930


def test_a_week_whose_only_hour_is_skipped_is_due_a_week_later() -> None:
    calendar = Calendar("sundays", "Europe/Berlin", ((),) * 6 + ((Period.parse("02:00-03:00"),),))
    assert calendar.deadline(datetime(2026, 3, 23, tzinfo=BERLIN), 1) == datetime(2026, 4, 5, 2, 0, 1, tzinfo=BERLIN)


def test_the_first_and_the_last_hours_that_can_be_asked_for() -> None:
    begin = datetime(1970, 1, 1, tzinfo=UTC)
    # Still New Year's Eve in New York, within its night shift.
    assert nights("America/New_York").next_open(begin) == datetime(1970, 1, 1, 3, tzinfo=UTC)
    end = datetime(2199, 12, 31, 23, 59, 59, tzinfo=UTC)
    assert always("UTC").business_elapsed(begin, end) == (end - begin) // timedelta(seconds=1)
    assert always("UTC").deadline(end, 1) == datetime(2200, 1, 1, tzinfo=UTC)


def test_a_leap_day_is_a_day() -> None:
    # 29 February 2028 is a Tuesday.
    friday = datetime(2028, 2, 25, 17, tzinfo=SHANGHAI)
    assert office().deadline(friday, 25 * 3600) == datetime(2028, 3, 1, 18, tzinfo=SHANGHAI)


def test_a_target_of_nothing_is_due_at_once_and_in_utc() -> None:
    sunday = datetime(2026, 6, 7, 3, tzinfo=SHANGHAI)
    assert office().deadline(sunday, 0) == sunday
    assert office().deadline(sunday, 0).tzinfo is UTC


def test_a_make_up_day_of_its_own_hours_may_be_a_night() -> None:
    # The make-up night of Saturday the 6th runs into Sunday; the holiday on Friday takes that day's office hours.
    calendar = office(
        extra_holidays=frozenset({date(2026, 6, 5)}),
        extra_working_days=frozenset({date(2026, 6, 6)}),
        extra_working_hours=(Period.parse("22:00-24:00"), Period.parse("23:00-02:00")),
    )
    assert calendar.deadline(datetime(2026, 6, 4, 17, tzinfo=SHANGHAI), 5 * 3600) == datetime(
        2026, 6, 7, 2, tzinfo=SHANGHAI
    )


# --- the clock on the wall -------------------------------------------------------------------------------------------


def test_a_time_on_the_wall_that_is_one_instant() -> None:
    assert office().at_wall(datetime(2026, 6, 5, 17)) == datetime(2026, 6, 5, 9, tzinfo=UTC)  # noqa: DTZ001 - the point
    assert office().local(datetime(2026, 6, 5, 9, tzinfo=UTC)).isoformat() == "2026-06-05T17:00:00+08:00"


@pytest.mark.parametrize(
    ("wall", "says"),
    [
        ("2026-03-29T02:30", "does not exist in Europe/Berlin: .* skips it; give it an offset, [+]01:00 or [+]02:00"),
        ("2026-10-25T02:30", "exists twice in Europe/Berlin: .* repeats it; give it an offset, [+]02:00 or [+]01:00"),
    ],
)
def test_a_time_on_the_wall_that_is_none_or_two(wall: str, says: str) -> None:
    with pytest.raises(CalendarError, match=says):
        office("Europe/Berlin").at_wall(datetime.fromisoformat(wall))


# --- public holidays -------------------------------------------------------------------------------------------------


def test_holidays_that_leave_no_working_time_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def every_friday(_: str, year: int) -> calendars._PublicHolidays:
        days = (date(year, 1, 1) + timedelta(days=day) for day in range(366))
        return calendars._PublicHolidays(frozenset(day for day in days if day.weekday() == 4), known=True)

    monkeypatch.setattr(calendars, "_public_holidays", every_friday)
    fridays = ((),) * 4 + (OFFICE,) + ((),) * 2
    with pytest.raises(CalendarError, match=r"calendar fridays has no working time: every day .* holiday of XX"):
        Calendar("fridays", "UTC", fridays, holidays=("XX",))
    assert Calendar("thursdays", "UTC", ((),) * 3 + (OFFICE,) * 2 + ((),) * 2, holidays=("XX",)).day_seconds == 8 * 3600


def test_years_that_the_library_does_not_know_are_counted_without_and_said() -> None:
    def asked(code: str, first: str, last: str) -> tuple[str, ...]:
        return office(holidays=(code,)).holidays_unknown(
            *(datetime.fromisoformat(day).replace(tzinfo=SHANGHAI) for day in (first, last))
        )

    assert asked("CN", "1970-01-02", "2100-12-31T23:59") == ()
    assert asked("CN", "2100-12-31", "2101-01-01") == ("CN",)
    # India's lunar holidays are a table; the library warns outside of it, and knows the others all the same.
    assert asked("IN", "2026-01-01", "2035-12-31") == ()
    assert asked("IN", "2026-01-01", "2036-01-01") == ("IN",)
    india = office("Asia/Kolkata", holidays=("IN",))
    assert not india.is_open(datetime(2040, 10, 2, 10, tzinfo=ZoneInfo("Asia/Kolkata")))  # a Tuesday, Gandhi's birthday
    china = office(holidays=("CN",), extra_holidays=frozenset({date(2101, 10, 3)}))
    assert china.is_open(datetime(2101, 10, 4, 10, tzinfo=SHANGHAI))  # a Tuesday in the week of National Day
    assert not china.is_open(datetime(2101, 10, 3, 10, tzinfo=SHANGHAI))


# --- versions --------------------------------------------------------------------------------------------------------


def test_the_version_changes_with_whatever_decides_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    day = frozenset({date(2026, 6, 5)})
    installed = {"tzdata": "2026.1", "holidays": "0.90"}
    monkeypatch.setattr(calendars, "installed_version", installed.__getitem__)

    def versions() -> list[str]:
        return [
            office().version,
            office("Asia/Taipei").version,
            Calendar("office", "Asia/Shanghai", (OFFICE,) * 6 + ((),)).version,
            office(extra_holidays=day).version,
            office(extra_working_days=day).version,
            office(extra_working_days=day, extra_working_hours=OFFICE[:1]).version,
            office(holidays=("CN",)).version,
        ]

    before = versions()
    assert len(set(before)) == len(before)
    assert before == versions()
    assert Calendar("another name", "Asia/Shanghai", office().week).version == before[0]
    assert re.fullmatch("[0-9a-f]{12}", before[0])
    installed["holidays"] = "0.91"
    after = versions()
    assert after[:-1] == before[:-1]
    assert after[-1] != before[-1]
    installed["tzdata"] = "2026.2"
    assert not set(versions()) & set(before + after)


def test_a_calendar_is_kept_as_plain_json_in_an_order_of_its_own() -> None:
    days = frozenset(date(2026, 6, day) for day in range(1, 8))  # a set has another order in each process
    calendar = office(holidays=("CN",), extra_holidays=days, extra_working_hours=(Period.parse("22:00:30-06:00"),))
    assert calendar.to_spec().model_dump(mode="json") == {
        "zone": "Asia/Shanghai",
        "week": {day: ["09:00-12:00", "13:00-18:00"] for day in ("mon", "tue", "wed", "thu", "fri")},
        "holidays": ["CN"],
        "extra_holidays": [f"2026-06-0{day}" for day in range(1, 8)],
        "extra_working_days": [],
        "extra_working_hours": ["22:00:30-06:00"],
    }


def test_the_zones_are_those_of_the_package() -> None:
    # The machine's own files are not asked: versions would lie, and replicas differ.
    assert calendars._zone_names() >= {"Asia/Shanghai", "Europe/Berlin", "UTC"}
    for zone in ("../zones", "Europe", "Europe/../UTC", "posixrules", "", "/UTC"):
        with pytest.raises(CalendarError, match="IANA"):
            office(zone)


# --- what is refused -------------------------------------------------------------------------------------------------


def test_what_cannot_be_answered_is_refused() -> None:
    with pytest.raises(CalendarError, match="no working time"):
        Calendar("none", "UTC", ((),) * 7, extra_working_days=frozenset({date(2026, 6, 6)}))
    with pytest.raises(CalendarError, match="no time zone"):
        office().is_open(datetime(2026, 6, 5, 10))  # noqa: DTZ001 - the point
    with pytest.raises(CalendarError, match="before the start"):
        office().business_elapsed(datetime(2026, 6, 5, tzinfo=UTC), datetime(2026, 6, 4, tzinfo=UTC))
    with pytest.raises(CalendarError, match="negative"):
        office().deadline(datetime(2026, 6, 5, tzinfo=UTC), -1)
    for target in (10**9, 10**30, timedelta.max):
        with pytest.raises(CalendarError, match="calendar office: the target is not reached before 2200"):
            office().deadline(datetime(2199, 12, 1, tzinfo=UTC), target)
    with pytest.raises(CalendarError, match="calendar office does not open again before 2200"):
        office().next_open(datetime(2199, 12, 31, 18, tzinfo=SHANGHAI))
    for at in (datetime(1969, 12, 31, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC), *far_ends()):
        with pytest.raises(CalendarError, match="calendar office answers only for the years 1970 to 2199"):
            office().deadline(at, 0)
    with pytest.raises(CalendarError, match="IANA"):
        office(zone="Asia/Atlantis")
    with pytest.raises(CalendarError, match="holidays library"):
        office(holidays=("ZZ",))


def far_ends() -> tuple[datetime, datetime]:
    """Instants that cannot even be written in UTC."""
    return (
        datetime.min.replace(tzinfo=timezone(timedelta(hours=14))),
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-12))),
    )


@pytest.mark.parametrize("text", ["9-18", "09:00-09:00", "25:00-26:00", "09:60-10:00", "18:00", "", "24:00-02:00"])
def test_a_period_that_is_none(text: str) -> None:
    with pytest.raises(CalendarError):
        Period.parse(text)


@pytest.mark.parametrize(("start", "end"), [(-1, 5), (86_400, 86_401), (5, 5), (0, 86_401), (3600, 90_000)])
def test_seconds_that_are_no_period(start: int, end: int) -> None:
    with pytest.raises(CalendarError, match="is not a period"):
        Period(start, end)


@pytest.mark.parametrize("text", ["monday", "fri-mon", "mon-", "", "mon,,tue"])
def test_weekdays_that_are_none(text: str) -> None:
    if text == "mon-":
        assert weekdays_of(text) == (0,)
        return
    with pytest.raises(CalendarError):
        weekdays_of(text)


GOOD = """\
calendars:
  hotline:
    zone: Asia/Shanghai
    holidays: [CN]
    extra_working_days: [2026-09-20]
    week:
      mon-fri: [09:00-12:00, 13:00-18:00]
      sat,sun: 10:00-16:00
  always:
    zone: UTC
    week: 24/7
"""


def test_calendars_are_read_from_yaml(tmp_path: Path) -> None:
    path = tmp_path / "calendars.yaml"
    path.write_text(GOOD, encoding="utf-8")
    read = load_calendars(path)
    assert read["hotline"] == Calendar(
        "hotline",
        "Asia/Shanghai",
        (OFFICE,) * 5 + ((Period.parse("10:00-16:00"),),) * 2,
        holidays=("CN",),
        extra_working_days=frozenset({date(2026, 9, 20)}),
    )
    assert read["always"].day_seconds == 86_400


@pytest.mark.parametrize(
    ("old", "new", "line", "field", "says"),
    [
        ("13:00-18:00", "13:00-25:00", 7, "calendars.hotline.week", "13:00-25:00"),
        ("mon-fri", "mo-fr", 7, "calendars.hotline.week", "does not name weekdays"),
        ("sat,sun", "fri,sat,sun", 2, "calendars.hotline", "fri stands in `week` twice"),
        ("Asia/Shanghai", "Asia/Atlantis", 3, "calendars.hotline.zone", "IANA"),
        ("[CN]", "[ZZ]", 4, "calendars.hotline.holidays.0", "ZZ"),
        ("2026-09-20", "2026-13-20", 5, "calendars.hotline.extra_working_days", "date"),
        ("24/7", "{mon: []}", 9, "calendars.always", "no working time"),
        ("zone: UTC", "zone: UTC\n    hours: 9", 11, "calendars.always.hours", "not permitted"),
        ("zone: UTC", "zone: UTC\n    zone: UTC", 11, "not valid YAML", "stands twice"),
    ],
)
def test_what_is_wrong_in_yaml_is_told_with_file_line_and_field(
    tmp_path: Path, old: str, new: str, line: int, field: str, says: str
) -> None:
    path = tmp_path / "calendars.yaml"
    path.write_text(GOOD.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_calendars(path)
    (told,) = str(caught.value).splitlines()
    assert told.startswith(f"{path}:{line}: {field}")
    assert says in told


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_calendars(tmp_path / "none.yaml")
