"""Forecasts of made-up traffic, whose truth is known."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from statistics import fmean

import pytest

from services.sla_timer.domain.arrivals import DayKind, day_kind
from services.sla_timer.domain.forecast import (
    KNOWN_DAYS_BEFORE,
    POISSON,
    Backtest,
    Band,
    HeldOut,
    History,
    backtest,
    forecast,
    half_hours_of,
)
from shared.calendars import Calendar, Period
from tests.unit.sla_timer.traffic import Spike, Traffic, changed

FIRST, DAYS, HELD_OUT = date(2026, 3, 2), 140, 35
LAST = FIRST + timedelta(days=DAYS - 1)
WEEK = ((Period.parse("09:00-18:00"),),) * 5 + ((), ())
HOLIDAYS = frozenset(FIRST + timedelta(days=number) for number in (30, 33, 60, 61, 62, 95, 120))
MAKE_UP = FIRST + timedelta(days=103)  # a Saturday
CHINA = Calendar("china", "Asia/Shanghai", WEEK, extra_holidays=HOLIDAYS)
NEW_YORK = Calendar("new_york", "America/New_York", WEEK)
SPIKES = {FIRST + timedelta(days=90): Spike(4, 20, 40), FIRST + timedelta(days=100): Spike(3)}


def total(values: tuple[float, ...] | tuple[int, ...]) -> float:
    return sum(values)


# --- days and half-hours ---------------------------------------------------------------------------------------------


def test_a_day_has_48_half_hours_but_for_those_on_which_the_clock_is_changed() -> None:
    assert len(half_hours_of(date(2026, 3, 2), NEW_YORK)) == 48
    assert len(half_hours_of(date(2026, 3, 8), NEW_YORK)) == 46
    assert len(half_hours_of(date(2026, 11, 1), NEW_YORK)) == 50
    assert half_hours_of(date(2026, 3, 2), CHINA)[0] == datetime(2026, 3, 1, 16, tzinfo=UTC)


def test_counts_come_to_the_day_and_the_time_on_the_wall() -> None:
    noon = datetime(2026, 11, 1, 17, tzinfo=UTC)  # in New York, five hours behind again
    first, second = (datetime(2026, 11, 1, hour, tzinfo=UTC) for hour in (5, 6))  # 01:00, twice
    counts = {noon: 7, first: 4, second: 6, datetime(2026, 11, 2, 5, tzinfo=UTC): 9}
    history = History.of(counts, date(2026, 11, 1), date(2026, 11, 1), NEW_YORK)
    (day,) = history.days.values()
    assert (day.total, len(day.counts)) == (17, 50)
    assert (day.on_the_wall[24], day.on_the_wall[2], day.on_the_wall[3]) == (7, 5, 0)
    skipped = History.of({}, date(2026, 3, 8), date(2026, 3, 8), NEW_YORK).days[date(2026, 3, 8)].on_the_wall
    assert [slot for slot, count in enumerate(skipped) if count is None] == [4, 5]  # 02:00 to 03:00


# --- against what comes ----------------------------------------------------------------------------------------------

# Columns: the traffic; how far the error by half-hour may lie above that of whoever knows all but chance; how far the
# error by day must lie below that of the naive forecast; the bias that is borne with.
SCENARIOS = {
    "plain": (Traffic(), 1.12, 0.65, 0.03),
    "fast growth": (Traffic(growth=0.03), 1.15, 0.65, 0.03),
    "large": (Traffic(daily=6000), 1.4, 0.65, 0.03),
    "small": (Traffic(daily=40), 1.06, 0.8, 0.04),
    "spikes": (Traffic(spikes=SPIKES), 1.12, 0.5, 0.03),
    "a jump": (Traffic(growth=0, jump=(FIRST + timedelta(days=105), 1.4)), 1.4, 0.95, 0.07),
}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_forecasts_are_nearer_than_the_week_before(scenario: str) -> None:
    traffic, above_chance, of_naive, most_bias = SCENARIOS[scenario]
    tested = backtest([traffic.history(1, FIRST, DAYS, CHINA)], HELD_OUT)
    assert [each.day for each in tested.days] == [LAST - timedelta(days=back) for back in reversed(range(HELD_OUT))]
    means = traffic.means(1, FIRST, DAYS, CHINA)
    known = (replace(each, forecast=tuple(means[at] for at in half_hours_of(each.day, CHINA))) for each in tested.days)
    chance = Backtest(tuple(known)).half_hour_error
    figures = (tested.half_hour_error, tested.naive_half_hour_error, tested.day_error, tested.naive_day_error, chance)
    half_hour, naive_half_hour, day, naive_day, by_chance = (figure or 0.0 for figure in figures)
    assert by_chance < half_hour < above_chance * by_chance
    assert half_hour < 0.85 * naive_half_hour
    assert day < of_naive * naive_day
    assert tested.bias == pytest.approx(0, abs=most_bias)
    assert tested.coverage == pytest.approx(0.8, abs=0.02)


def test_growth_is_kept_up_with() -> None:
    traffic = Traffic(growth=0.03, luck=0.0, daily=6000)
    history = traffic.history(1, FIRST, DAYS, CHINA)
    tested = backtest([history], HELD_OUT)
    assert tested.bias == pytest.approx(0, abs=0.02)
    naive = sum(total(each.naive) for each in tested.days) / sum(total(each.actual) for each in tested.days)
    assert naive < 0.98


def test_a_spike_of_one_day_moves_no_forecast() -> None:
    plain, spiky = (Traffic(spikes=spikes) for spikes in (None, SPIKES))
    without, with_spikes = (traffic.history(1, FIRST, DAYS, CHINA) for traffic in (plain, spiky))
    for spike in SPIKES:
        assert total(with_spikes.days[spike].counts) > 1.5 * total(without.days[spike].counts)
        for later in (2, 7, 14):
            day = spike + timedelta(days=later)
            known_until = day - KNOWN_DAYS_BEFORE
            usual, found = (forecast(history, day, known_until) for history in (without, with_spikes))
            assert total(found) == pytest.approx(total(usual), rel=0.03)
            off = sum(abs(one - other) for one, other in zip(usual, found, strict=True))
            assert off < 0.05 * total(usual)


def test_a_holiday_is_forecast_like_holidays() -> None:
    history = Traffic(daily=6000, luck=0).history(1, FIRST, DAYS, CHINA)
    holiday = max(HOLIDAYS)
    weekday = holiday - timedelta(days=7)
    assert (day_kind(holiday, CHINA), day_kind(weekday, CHINA)) == (DayKind.HOLIDAY, DayKind.PLAIN)
    found = total(forecast(history, holiday, holiday - KNOWN_DAYS_BEFORE))
    assert found == pytest.approx(total(history.days[holiday].counts), rel=0.05)
    assert found < 0.65 * total(history.days[weekday].counts)
    # The first of all is taken for a Sunday.
    first = min(HOLIDAYS)
    taken = total(forecast(history, first, first - KNOWN_DAYS_BEFORE))
    sunday = first - timedelta(days=first.weekday() + 1)
    assert taken == pytest.approx(total(history.days[sunday].counts), rel=0.1)


def test_a_make_up_day_is_forecast_like_a_working_day() -> None:
    calendar = replace(CHINA, extra_working_days=frozenset({MAKE_UP}))
    history = Traffic(daily=6000, luck=0).history(1, FIRST, DAYS, calendar)
    found = forecast(history, MAKE_UP, MAKE_UP - KNOWN_DAYS_BEFORE)
    friday, saturday = MAKE_UP - timedelta(days=1), MAKE_UP - timedelta(days=7)
    morning = slice(20, 24)  # 10:00 to 12:00, when a weekend is quiet
    assert total(found[morning]) == pytest.approx(total(history.days[friday].counts[morning]), rel=0.25)
    assert total(found[morning]) > 1.5 * total(history.days[saturday].counts[morning])


def test_a_day_of_46_or_50_half_hours_is_forecast_as_such() -> None:
    first = date(2026, 8, 3)
    history = Traffic(daily=6000).history(1, first, 89, NEW_YORK)  # until 30 October
    short, plain, long = (
        forecast(history, day, date(2026, 10, 30)) for day in (date(2027, 3, 14), date(2026, 11, 8), date(2026, 11, 1))
    )
    assert (len(short), len(plain), len(long)) == (46, 48, 50)
    assert long[:4] == pytest.approx(long[:2] + long[2:4])
    assert long[2:4] == pytest.approx(long[4:6])  # 01:00 and 01:30, twice
    assert long[6:] == pytest.approx([value * long[6] / plain[4] for value in plain[4:]])
    # And the days on which it was changed teach as others do.
    whole = Traffic(daily=6000, luck=0).history(1, first, 140, NEW_YORK)
    sunday = date(2026, 11, 22)
    assert total(forecast(whole, sunday, date(2026, 11, 20))) == pytest.approx(
        total(whole.days[sunday].counts), rel=0.05
    )


def test_a_forecast_knows_nothing_of_the_eve_and_the_day() -> None:
    history = Traffic().history(1, FIRST, DAYS, CHINA)
    upset = changed(
        history,
        {start: 999 for day in (LAST, LAST - timedelta(days=1)) for start in half_hours_of(day, CHINA)},
        (LAST, LAST - timedelta(days=1)),
    )
    (usual,), (found,) = (backtest([each], 1).days for each in (history, upset))
    assert found.forecast == usual.forecast
    assert found.actual != usual.actual
    assert found.naive == usual.naive


def test_where_little_comes_the_forecast_is_smooth() -> None:
    history = Traffic(daily=20).history(1, FIRST, DAYS, CHINA)
    found = forecast(history, LAST + timedelta(days=3), LAST)
    weekdays = [day.counts for each, day in history.days.items() if each.weekday() == 2]
    means = [fmean(counts[slot] for counts in weekdays[-8:]) for slot in range(48)]

    def roughness(values: tuple[float, ...] | list[float]) -> float:
        return sum(abs(one - other) for one, other in pairwise(values)) / sum(values)

    assert roughness(found) < 0.5 * roughness(means)
    assert total(found) == pytest.approx(sum(means), rel=0.3)


def test_histories_that_say_little() -> None:
    nothing = History.of({}, FIRST, FIRST + timedelta(days=20), CHINA)
    assert forecast(nothing, FIRST + timedelta(days=22), FIRST + timedelta(days=20)) == (0.0,) * 48
    assert backtest([nothing], 3).half_hour_error is None
    # One day only, a Monday: what came on it is all there is to go by.
    once = Traffic(daily=600).history(1, FIRST, 1, CHINA)
    assert total(forecast(once, FIRST + timedelta(days=7), FIRST)) == pytest.approx(once.days[FIRST].total, rel=0.02)
    assert backtest([once], 10).days == ()
    # A channel that is closed at weekends stays so, and its closed days do not hide that it grows.
    grows = Traffic(daily=6000, growth=0.05, luck=0).history(1, FIRST, 70, CHINA)
    closed = {start: 0 for day in grows.days for start in half_hours_of(day, CHINA) if day.weekday() >= 5}
    office = changed(grows, closed, [day for day in grows.days if day.weekday() >= 5])
    saturday, monday = FIRST + timedelta(days=75), FIRST + timedelta(days=77)
    until = FIRST + timedelta(days=69)
    assert total(forecast(office, saturday, until)) < 20
    assert total(forecast(office, monday, until)) == pytest.approx(total(forecast(grows, monday, until)), rel=0.05)


def test_channels_are_forecast_one_by_one_and_added_up() -> None:
    chat, mail = Traffic(daily=400).history(1, FIRST, DAYS, CHINA), Traffic(daily=100).history(2, FIRST, DAYS, CHINA)
    late = Traffic(daily=50).history(3, LAST - timedelta(days=9), 10, CHINA)
    (held,) = backtest([chat, mail, late], 1).days
    parts = [forecast(each, LAST, LAST - KNOWN_DAYS_BEFORE) for each in (chat, mail, late)]
    assert held.forecast == pytest.approx([sum(each) for each in zip(*parts, strict=True)])
    assert total(held.actual) == sum(each.days[LAST].total for each in (chat, mail, late))
    a_week_before = [each.days[LAST - timedelta(days=7)].counts for each in (chat, mail, late)]
    assert held.naive == tuple(sum(counts) for counts in zip(*a_week_before, strict=True))


# --- the arithmetic of errors ----------------------------------------------------------------------------------------


def test_errors_by_hand() -> None:
    days = (
        HeldOut(date(2026, 3, 2), actual=(4, 0), forecast=(3.0, 2.0), naive=(4.0, 4.0)),
        HeldOut(date(2026, 3, 3), actual=(1, 5), forecast=(1.0, 3.0), naive=(0.0, 4.0)),
    )
    tested = Backtest(days)
    assert tested.half_hour_error == (1 + 2 + 0 + 2) / 10
    assert tested.day_error == (1 + 2) / 10
    assert tested.naive_half_hour_error == (0 + 4 + 1 + 1) / 10
    assert tested.naive_day_error == (4 + 2) / 10
    assert tested.bias == pytest.approx((5 + 4) / 10 - 1)
    assert tested.band == POISSON  # two days are too few to measure one by
    # Around 3.0: 3 -+ 1.2816 * sqrt(3.5), so 1 to 5; around 2.0: 0 to 4; around 1.0: 0 to 2. All four came within.
    assert [POISSON.around(each) for each in (3.0, 2.0, 1.0)] == [(1, 5), (0, 4), (0, 2)]
    assert tested.coverage == 1.0
    assert Backtest(()).coverage is None


def test_a_band_holds_at_least_the_forecast() -> None:
    assert Band(-0.1, 0.1).around(4.5) == (4, 5)  # no whole number lies between 4.28 and 4.72
    assert Band(-2.0, -1.0).around(0.2) == (0, 0)


def test_the_band_is_that_in_which_eight_of_ten_came() -> None:
    # On each of ten days ten half-hours of which 99.5 were expected came from 5 below to 4 above, in tens.
    days = tuple(
        HeldOut(FIRST + timedelta(days=number), tuple(range(50, 150, 10)), (99.5,) * 10, (0.0,) * 10)
        for number in range(10)
    )
    tested = Backtest(days)
    assert tested.band == pytest.approx((-4.05, 3.15))
    assert tested.coverage == 0.8
