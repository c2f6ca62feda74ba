"""The made-up operation: what arrives, who works, what the command prints."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from services.sla_timer.__main__ import main
from services.sla_timer.domain.policies import Policies
from services.sla_timer.simulation.desk import GROUPS, at_work, pooled_need, roster
from services.sla_timer.simulation.traffic import Incident, Traffic, brands_of, synthetic_arrivals
from shared.events import Target
from shared.taxonomy import Category, Channel, Queue
from tests.unit.sla_timer.worlds import small_world

WORLD = small_world()
POLICIES = Policies(WORLD.file, WORLD.calendars)
TRAFFIC = Traffic(("upay", "topay"), 2000.0)
MONDAY = date(2026, 10, 12)


def test_the_brands_are_those_of_the_policies() -> None:
    assert brands_of(WORLD.file) == ("topay", "tp_wallet", "u_wallet", "u_wallet_app", "upay", "upay_wallet")


def test_a_week_has_about_as_many_tickets_as_were_asked_for() -> None:
    arrivals = synthetic_arrivals(TRAFFIC, POLICIES, MONDAY, 14, seed=3)
    assert len(arrivals) == pytest.approx(4000, rel=0.06)
    assert [arrival.at for arrival in arrivals] == sorted(arrival.at for arrival in arrivals)
    by_brand = Counter(arrival.brand for arrival in arrivals)
    assert by_brand["upay"] > by_brand["topay"] > 1000
    assert set(Queue) - {arrival.queue for arrival in arrivals} == {Queue.TRIAGE}


def test_a_day_has_its_shape_and_a_weekend_another() -> None:
    calendar = POLICIES.zone_calendar("upay")
    hours: Counter[tuple[bool, int]] = Counter()
    for arrival in synthetic_arrivals(Traffic(("upay",), 5000.0), POLICIES, MONDAY, 7, seed=3):
        local = calendar.local(arrival.at)
        hours[local.weekday() >= 5, local.hour] += 1
    assert hours[False, 10] > 3 * hours[False, 5]
    assert hours[False, 10] / hours[False, 20] > hours[True, 10] / hours[True, 20]


def test_a_holiday_is_quieter_and_a_make_up_day_is_a_working_day() -> None:
    counts = Counter(
        POLICIES.zone_calendar("upay").local(arrival.at).date()
        for arrival in synthetic_arrivals(Traffic(("upay",), 7000.0), POLICIES, date(2026, 10, 5), 14, seed=3)
    )
    holiday, plain, make_up, saturday = (counts[date(2026, 10, day)] for day in (5, 12, 10, 17))
    assert holiday < 0.6 * plain
    assert make_up > 1.1 * saturday


def test_nobody_calls_a_closed_hotline() -> None:
    calls = [
        arrival
        for arrival in synthetic_arrivals(TRAFFIC, POLICIES, MONDAY, 7, seed=3)
        if arrival.channel is Channel.PHONE and arrival.brand == "upay"
    ]
    assert calls
    assert all(WORLD.calendars["upay_hotline"].is_open(call.at) for call in calls)


def test_an_incident_changes_nothing_but_its_hours() -> None:
    usual = synthetic_arrivals(TRAFFIC, POLICIES, MONDAY, 7, seed=3)
    spiked = Traffic(TRAFFIC.brands, 2000.0, Incident(2, "upay", 300))
    arrivals = synthetic_arrivals(spiked, POLICIES, MONDAY, 7, seed=3)
    more = set(arrivals) - set(usual)
    assert set(usual) < set(arrivals)
    assert len(more) == pytest.approx(300, abs=60)
    assert {arrival.category for arrival in more} == {Category.PAYMENT_FAILED}
    begin = datetime(2026, 10, 14, 6, tzinfo=UTC)  # 14:00 in Shanghai
    assert all(begin <= arrival.at <= begin + timedelta(hours=2) for arrival in more)


def test_agents_are_planned_by_what_is_expected() -> None:
    shifts = roster(TRAFFIC, POLICIES, MONDAY, 7, 1.0)
    noon, night = (datetime(2026, 10, 13, hour, tzinfo=UTC) for hour in (3, 19))  # 11:00 and 03:00 in Shanghai
    assert at_work(shifts, noon) > at_work(shifts, night) >= 1
    assert {shift.group for shift in shifts} == set(GROUPS)
    hours = {
        factor: sum(
            shift.agents * ((shift.end - shift.start) / timedelta(hours=1))
            for shift in roster(TRAFFIC, POLICIES, MONDAY, 28, factor)
        )
        for factor in (0.5, 1.0, 2.0)
    }
    assert hours[0.5] == pytest.approx(hours[1.0] / 2, rel=0.1)
    assert hours[2.0] == pytest.approx(hours[1.0] * 2, rel=0.1)


def test_the_need_of_one_channel_is_that_of_its_staffing() -> None:
    rules = POLICIES.staffing_of(Channel.WHATSAPP)  # nobody gives up there: Erlang C
    assert pooled_need({Channel.WHATSAPP: 60.0}, POLICIES) == rules.agents_needed(60.0)
    assert pooled_need({}, POLICIES) == 0
    alone = sum(pooled_need({channel: 20.0}, POLICIES) for channel in (Channel.WHATSAPP, Channel.EMAIL))
    assert pooled_need({Channel.WHATSAPP: 20.0, Channel.EMAIL: 20.0}, POLICIES) <= alone


SMALL = ["simulate", "--weeks", "1", "--tickets-per-week", "25", "--seed", "2"]


def test_the_command_prints_the_same_figures_twice(capsys: pytest.CaptureFixture[str]) -> None:
    printed = []
    for _ in range(2):
        assert main([*SMALL, "--json"]) == 0
        out, err = capsys.readouterr()
        assert "virtual seconds" in err
        printed.append(out)
    assert printed[0] == printed[1]
    figures = json.loads(printed[0])
    assert figures["tickets"] == figures["checks"]["every ticket is open or ended"] > 15
    assert [row["target"] for row in figures["targets"]] == list(Target)
    first = figures["targets"][0]
    assert first["met_in_time"] + first["met_late"] == first["overall"]["answered"]
    assert first["in_peak"]["judged"] + first["out_of_peak"]["judged"] == first["overall"]["judged"]


def test_the_command_prints_a_table_and_draws_a_picture(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    picture = tmp_path / "simulation.png"
    assert main([*SMALL, "--png", str(picture)]) == 0
    out = capsys.readouterr().out
    for words in ("first response", "out of peak", "alarms rung", "no alarm is lost", "fingerprint", "a second"):
        assert words in out
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--weeks", "0"], "0 is not between 1 and 52"),
        (["--agents-factor", "0"], "0 is not above 0"),
        (["--from", "monday"], "'monday' is not a day like 2026-10-05"),
    ],
)
def test_a_wrong_question_is_refused(wrong: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["simulate", *wrong])
    assert said in capsys.readouterr().err


def test_policies_that_cannot_be_used_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = tmp_path / "sla.yaml"
    wrong.write_text("rules: {}\n", encoding="utf-8")
    assert main(["simulate", "--sla", str(wrong)]) == 1
    assert str(wrong) in capsys.readouterr().err
