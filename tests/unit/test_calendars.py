"""Cases that a person can check with a wall calendar in hand."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

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


def test_what_cannot_be_answered_is_refused() -> None:
    with pytest.raises(CalendarError, match="no working time"):
        Calendar("none", "UTC", ((),) * 7, extra_working_days=frozenset({date(2026, 6, 6)}))
    with pytest.raises(CalendarError, match="no time zone"):
        office().is_open(datetime(2026, 6, 5, 10))  # noqa: DTZ001 - the point
    with pytest.raises(CalendarError, match="before the start"):
        office().business_elapsed(datetime(2026, 6, 5, tzinfo=UTC), datetime(2026, 6, 4, tzinfo=UTC))
    with pytest.raises(CalendarError, match="negative"):
        office().deadline(datetime(2026, 6, 5, tzinfo=UTC), -1)
    with pytest.raises(CalendarError, match="1970 to 2199"):
        office().deadline(datetime(2199, 12, 1, tzinfo=UTC), 10**9)
    with pytest.raises(CalendarError, match="IANA"):
        office(zone="Asia/Atlantis")
    with pytest.raises(CalendarError, match="holidays library"):
        office(holidays=("ZZ",))


@pytest.mark.parametrize("text", ["9-18", "09:00-09:00", "25:00-26:00", "09:60-10:00", "18:00", "", "24:00-02:00"])
def test_a_period_that_is_none(text: str) -> None:
    with pytest.raises(CalendarError):
        Period.parse(text)


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
