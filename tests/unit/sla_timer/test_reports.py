"""Reports without a database: the question, what is assembled, the backlog against a brute-force count, the texts."""

from __future__ import annotations

import csv
import io
import random
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from services.sla_timer.commands.report import lines, table, write_csv
from services.sla_timer.domain.reports import (
    MOST_DAYS,
    BacklogHour,
    By,
    Figures,
    Percentiles,
    Question,
    Report,
    ReportQuery,
    Row,
    TargetRange,
    WrongQuestion,
    assemble,
    by_hour_of_week,
    duration_text,
    full_hours,
    hour_label,
    microseconds,
    moment,
    nearest_rank,
    sweep,
)
from shared.events import Target
from shared.taxonomy import Queue

SHANGHAI = "Asia/Shanghai"
NOW = datetime(2026, 12, 1, tzinfo=UTC)
FIRST = Target.FIRST_RESPONSE


def asked(**changes: object) -> ReportQuery:
    return ReportQuery.model_validate({"from": "2026-11-01", "to": "2026-12-01"} | changes)


def question(by: By = By.HOUR, targets: tuple[Target, ...] = (FIRST,), **changes: object) -> Question:
    fields = {"since": datetime(2026, 11, 2, tzinfo=UTC), "until": datetime(2026, 11, 9, tzinfo=UTC), "zone": "UTC"}
    return Question(**{**fields, "by": by, "targets": targets, **changes})  # type: ignore[arg-type]


# --- the question ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "zone", "expected"),
    [
        ("2026-11-01", SHANGHAI, "2026-10-31T16:00:00+00:00"),  # its midnight
        ("2026-11-01T08:30", SHANGHAI, "2026-11-01T00:30:00+00:00"),  # without an offset: in the zone
        ("2026-11-01T08:30+01:00", SHANGHAI, "2026-11-01T07:30:00+00:00"),
        ("2026-11-01T08:30:15Z", "America/New_York", "2026-11-01T08:30:15+00:00"),
        ("2026-11-02", "America/New_York", "2026-11-02T05:00:00+00:00"),  # the day after the clock was put back
    ],
)
def test_a_date_is_its_midnight_and_a_bare_time_is_of_the_zone(text: str, zone: str, expected: str) -> None:
    assert moment("from", text, zone).isoformat() == expected


def test_a_question_takes_the_home_zone_unless_it_names_one() -> None:
    assert asked().question("America/New_York").zone == "America/New_York"
    found = asked(zone=SHANGHAI, target="resolution", queue="payments").question("America/New_York")
    assert (found.zone, found.targets, found.queue) == (SHANGHAI, (Target.RESOLUTION,), Queue.PAYMENTS)
    assert asked().question(SHANGHAI).targets == tuple(Target)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"from": "yesterday"}, "from"),
        ({"to": "2026-02-30"}, "to"),
        ({"to": "2026-11-01"}, "to"),  # nothing lies between
        ({"to": "0001-01-01"}, "to"),  # midnight in Shanghai lies before the first year
        ({"zone": "Mars/Olympus"}, "zone"),
        ({"zone": "../../etc/passwd"}, "zone"),
    ],
)
def test_what_cannot_be_asked_is_named(changes: dict[str, str], field: str) -> None:
    with pytest.raises(WrongQuestion) as refused:
        asked(**changes).question(SHANGHAI)
    assert refused.value.field == field


def test_a_period_may_be_as_long_as_arrivals_are_kept_and_no_longer() -> None:
    last = date(2026, 1, 1) + timedelta(days=MOST_DAYS)
    found = asked(**{"from": "2026-01-01", "to": last.isoformat()}).question("UTC")
    assert found.until - found.since == timedelta(days=MOST_DAYS)
    with pytest.raises(WrongQuestion, match=str(MOST_DAYS)):
        asked(**{"from": "2026-01-01", "to": f"{last.isoformat()}T00:00:01"}).question("UTC")


# --- assembling ------------------------------------------------------------------------------------------------------


def test_by_hour_there_are_168_rows_a_target_from_monday_00_to_sunday_23() -> None:
    some = Row(target=FIRST, group="Wed 05", hour_of_week=53, hour_of_day=5, overall=Figures(judged=3))
    report = assemble(question(targets=(FIRST, Target.RESOLUTION)), [], [some], [], now=NOW)
    first = report.rows[:168]
    assert [row.hour_of_week for row in first] == list(range(168))
    assert {row.target for row in first} == {FIRST}
    assert {row.target for row in report.rows[168:]} == {Target.RESOLUTION}
    assert (first[0].group, first[53], first[167].group) == ("Mon 00", some, "Sun 23")
    assert [row.group for row in report.hours_of_day[:3]] == ["00", "01", "02"]
    assert [row.target for row in report.totals] == [FIRST, Target.RESOLUTION]


def test_groups_come_in_the_order_of_the_taxonomy_and_the_unknown_one_last() -> None:
    rows = [Row(target=FIRST, group=group) for group in (None, "triage", "payments", "security")]
    report = assemble(question(By.QUEUE), [], rows, [], now=NOW)
    assert [row.group for row in report.rows] == ["security", "payments", "triage", None]
    groups = [Row(target=FIRST, group=group) for group in ("night", None, "day")]
    assert [row.group for row in assemble(question(By.AGENT_GROUP), [], groups, [], now=NOW).rows] == [
        "day",
        "night",
        None,
    ]


def test_times_are_shown_in_the_zone_under_the_names_they_were_asked_by() -> None:
    found = assemble(question(By.QUEUE, zone=SHANGHAI), [], [], [], now=NOW).model_dump(mode="json")
    assert found["from"] == "2026-11-02T08:00:00+08:00"
    assert found["to"] == "2026-11-09T08:00:00+08:00"
    assert Report.model_validate(found).since == datetime(2026, 11, 2, tzinfo=UTC)


# --- the backlog -----------------------------------------------------------------------------------------------------


def test_the_nearest_rank_is_a_value_that_is_there() -> None:
    # ceil(0.5 * 4) = 2nd, ceil(0.9 * 4) = 4th, ceil(0.9 * 10) = 9th, ceil(0.99 * 10) = 10th
    four, ten = [10, 20, 30, 40], list(range(1, 11))
    assert (nearest_rank(four, 0.5), nearest_rank(four, 0.9)) == (20, 40)
    assert (nearest_rank(ten, 0.9), nearest_rank(ten, 0.99), nearest_rank([7], 0.01)) == (9, 10, 7)


@pytest.mark.parametrize(
    ("zone", "since", "until", "expected"),
    [
        ("UTC", "2026-11-02T00:30+00:00", "2026-11-02T03:00+00:00", ["01:00", "02:00"]),
        ("Asia/Kolkata", "2026-11-02T00:00+00:00", "2026-11-02T02:00+00:00", ["06:00", "07:00"]),  # 05:30 ahead
        ("America/New_York", "2026-11-01T04:00+00:00", "2026-11-01T08:00+00:00", ["00:00", "01:00", "01:00", "02:00"]),
        ("America/New_York", "2026-03-08T06:00+00:00", "2026-03-08T09:00+00:00", ["01:00", "03:00", "04:00"]),
        ("Australia/Lord_Howe", "2026-04-04T14:00+00:00", "2026-04-04T17:00+00:00", ["01:00", "02:00", "03:00"]),
    ],
)  # fmt: skip
def test_hours_begin_on_the_clock_of_the_zone(zone: str, since: str, until: str, expected: list[str]) -> None:
    asked = question(zone=zone, since=datetime.fromisoformat(since), until=datetime.fromisoformat(until))
    assert [f"{at.astimezone(ZoneInfo(zone)):%H:%M}" for at in full_hours(asked, NOW)] == expected


def test_no_backlog_is_told_of_the_future() -> None:
    now = datetime(2026, 11, 2, 2, tzinfo=UTC)
    assert [at.hour for at in full_hours(question(), now)] == [0, 1, 2]
    assert full_hours(question(), datetime(2026, 11, 1, tzinfo=UTC)) == []


@pytest.mark.parametrize("seed", range(8))
def test_the_backlog_is_what_a_count_of_every_clock_at_every_hour_finds(seed: int) -> None:
    lots = random.Random(seed)
    asked = question(zone="Asia/Kathmandu")  # 05:45 ahead
    spans = []
    for _ in range(lots.choice([1, 40, 400])):
        start = asked.since + timedelta(seconds=lots.randrange(-300_000, 600_000), microseconds=lots.choice([0, 1]))
        if lots.random() < 0.2:  # on the hour, where the borders are; several at the same instant
            start = start.replace(minute=15, second=0, microsecond=0)
        length = timedelta(hours=lots.choice([0, 0, 1, 2, 24, 90]), seconds=lots.choice([0, 0, 17]))
        spans.append((start, None if lots.random() < 0.1 else start + length))
    hours = full_hours(asked, NOW)
    assert len(hours) == 168

    closed = sorted((microseconds(end), microseconds(start)) for start, end in spans if end is not None)
    found = sweep(
        sorted(microseconds(start) for start, _ in spans),
        [start for _, start in closed],
        [end for end, _ in closed],
        hours,
        asked.zone,
    )

    for at, sample in zip(hours, found, strict=True):
        ages = sorted(
            (at - start) // timedelta(seconds=1) for start, end in spans if start <= at and (end is None or end > at)
        )
        assert (sample.at, sample.open) == (at, len(ages))
        assert sample.at.minute == 0
        told = (sample.age_p50_seconds, sample.age_p90_seconds, sample.age_oldest_seconds)
        if ages:
            below = [sum(age <= value for age in ages) / len(ages) for value in told if value is not None]
            # The least age at or above which a share of them lies, and it is one of them.
            for value, share, wanted in zip(told, below, (0.5, 0.9, 1.0), strict=True):
                assert value in ages
                assert share >= wanted
                assert sum(age < (value or 0) for age in ages) / len(ages) < wanted
        else:
            assert told == (None, None, None)


def test_hours_of_the_week_say_the_median_and_the_most_of_their_samples() -> None:
    monday = datetime(2026, 11, 2, 9, tzinfo=ZoneInfo(SHANGHAI))
    sizes, oldest = [7, 3, 9, 5], [100, 400, 200, 300]
    hours = [
        BacklogHour(
            at=monday + timedelta(weeks=week), open=size, age_p50_seconds=size, age_p90_seconds=10 * size,
            age_oldest_seconds=age,
        )
        for week, (size, age) in enumerate(zip(sizes, oldest, strict=True))
    ]  # fmt: skip
    hours.append(BacklogHour(at=monday + timedelta(weeks=9), open=0))  # nothing open: no age, but a sample
    rows = by_hour_of_week(hours)
    assert len(rows) == 168
    row = rows[9]
    assert (row.group, row.samples, row.open_typical, row.open_worst) == ("Mon 09", 5, 5, 9)
    # Of 3, 5, 7, 9 the 2nd; of 30, 50, 70, 90 the 2nd and the last.
    assert (row.age_p50_seconds_typical, row.age_p90_seconds_typical, row.age_p90_seconds_worst) == (5, 50, 90)
    assert row.age_oldest_seconds_worst == 400
    assert (rows[8].samples, rows[8].open_typical) == (0, None)


# --- texts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"), (59, "59s"), (60, "1m 00s"), (245, "4m 05s"), (3599, "59m 59s"), (3600, "1h 00m"),
        (7999, "2h 13m"), (100 * 3600 - 1, "99h 59m"), (100 * 3600 + 1800, "100h"),
    ],
)  # fmt: skip
def test_durations_are_written_as_people_do(seconds: int, text: str) -> None:
    assert duration_text(seconds) == text


def test_a_table_is_aligned_under_the_names_of_its_groups() -> None:
    rows = [["payments", "1", "22"], ["all", "333", "4"]]
    assert list(table([("", ("queue",)), ("a long name", ("p50", "p90"))], rows)) == [
        "           a long name",
        "queue      p50     p90",
        "payments     1      22",
        "all        333       4",
    ]


def full_row(group: str | None) -> Row:
    figures = Figures(
        judged=1200,
        answered=1190,
        within_target=900,
        share_within_target=0.75,
        business_seconds=Percentiles(p50=42, p90=245, p99=7999),
        wall_seconds=Percentiles(p50=60, p90=3600, p99=400_000),
    )
    return Row(
        target=FIRST,
        group=group,
        overall=figures,
        in_peak=figures,
        target_seconds=TargetRange(least=120, most=14_400),
        cancelled=3,
        cancelled_after_breach=1,
    )


def test_the_table_says_what_was_counted_and_what_was_not() -> None:
    asked = question(By.QUEUE, targets=(FIRST, Target.PERIODIC_UPDATE), brand="upay", zone=SHANGHAI)
    text = "\n".join(lines(assemble(asked, [full_row(None)], [full_row("payments"), full_row(None)], [], now=NOW)))
    assert "from 2026-11-02 08:00 to 2026-11-09 08:00 (Asia/Shanghai), upay; by queue" in text
    assert "first response, target 2m to 4h (not judged: 3 cancelled, 1 of them after the breach)" in text
    payments, unknown, total = (line.split() for line in text.splitlines()[6:9])
    assert (payments[0], unknown[:2], total[0]) == ("payments", ["not", "known"], "all")
    assert " ".join(payments[1:]) == ("1,200 1,190 75.0% 42s 4m 05s 2h 13m 1m 00s 1h 00m 111h 1,200 4m 05s 75.0% - - -")
    assert "periodic update: no promises in this period" in text


def test_csv_has_one_header_for_all_its_sections() -> None:
    asked = question()
    report = assemble(asked, [full_row(None)], [], [], now=NOW)
    hour = BacklogHour(at=datetime(2026, 11, 2, tzinfo=UTC), open=4, age_p50_seconds=1, age_oldest_seconds=9)
    backlog = {"hours": [hour], "hours_of_week": by_hour_of_week([hour])}
    file = io.StringIO()
    write_csv(Report.model_validate(report.model_dump() | {"backlog": backlog}), file)
    rows = list(csv.DictReader(io.StringIO(file.getvalue())))
    sections = [row["section"] for row in rows]
    assert {name: sections.count(name) for name in sections} == {
        "promises": 168,
        "all": 1,
        "hour_of_day": 24,
        "backlog": 1,
    }
    total = rows[168]
    assert (total["judged"], total["business_p90_seconds"], total["in_peak_wall_p99_seconds"]) == (
        "1200",
        "245",
        "400000",
    )
    assert total["share_within_target"] == "0.75"
    assert (rows[-1]["open"], rows[-1]["age_oldest_seconds"], rows[-1]["judged"]) == ("4", "9", "")
    assert rows[53]["group"] == hour_label(53) == "Wed 05"
