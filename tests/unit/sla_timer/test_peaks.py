"""When a peak begins and ends."""

from __future__ import annotations

from datetime import timedelta

import pytest

from services.sla_timer.domain.peaks import (
    Arrivals,
    PeakRules,
    PeakWindow,
    Place,
    arrivals_of,
    evaluate,
    is_peak,
    learned_windows,
    next_evaluation,
)
from shared.events import PeakKind
from shared.taxonomy import Queue
from tests.unit.sla_timer.support import CALENDARS, NINE, at

PAYMENTS = Place("upay", Queue.PAYMENTS)
RULES = PeakRules(window_minutes=15, factor=2.0, ends_below_factor=1.5, least_arrivals=10)


@pytest.mark.parametrize(
    ("seen", "expected", "already", "peak"),
    [
        (20, 10, False, True),
        (19, 10, False, False),  # under twice the expected
        (15, 10, True, True),  # goes on until under one and a half times
        (14, 10, True, False),
        (9, 0, False, False),  # too few to speak of a peak
        (10, 0, False, True),
        (9, 1, True, False),
    ],
)
def test_arrivals_make_a_peak(seen: int, expected: float, already: bool, peak: bool) -> None:
    assert is_peak(Arrivals(seen, expected), RULES, already=already) is peak


def test_a_peak_begins_once_and_ends_once() -> None:
    (began,) = evaluate(NINE, {PAYMENTS: Arrivals(40, 10)}, {}, RULES, CALENDARS)
    assert (began.kind, began.began_at, began.seen_arrivals, began.expected_arrivals) == (PeakKind.BEGAN, NINE, 40, 10)
    active = {PAYMENTS: NINE}
    assert evaluate(at(1), {PAYMENTS: Arrivals(40, 10)}, active, RULES, CALENDARS) == []
    (ended,) = evaluate(at(2), {}, active, RULES, CALENDARS)
    assert (ended.kind, ended.began_at, ended.at) == (PeakKind.ENDED, NINE, at(2))
    assert began.event_id != ended.event_id


def test_a_configured_window_is_a_peak_whatever_arrives() -> None:
    rules = RULES.model_copy(update={"windows": (PeakWindow(brand="upay", calendar="office"),)})
    quiet = {PAYMENTS: Arrivals(1, 5), Place("topay", Queue.PAYMENTS): Arrivals(1, 5)}
    (began,) = evaluate(NINE, quiet, {}, rules, CALENDARS)
    assert (began.brand, began.kind) == ("upay", PeakKind.BEGAN)
    (ended,) = evaluate(at(8 * 60), quiet, {PAYMENTS: NINE}, rules, CALENDARS)  # 17:00: the office closes
    assert ended.kind is PeakKind.ENDED


def test_expected_is_the_mean_of_the_weeks_there_are() -> None:
    counted = arrivals_of([(PAYMENTS, 30)], [(PAYMENTS, 10), (PAYMENTS, 20)], weeks=2)
    assert counted == {PAYMENTS: Arrivals(30, 15.0)}
    assert arrivals_of([], [(PAYMENTS, 8)], weeks=0) == {PAYMENTS: Arrivals(0, 8.0)}


def test_learned_windows_are_the_same_time_of_week() -> None:
    windows = learned_windows(NINE, timedelta(minutes=15))
    assert len(windows) == 4
    assert all(end.weekday() == NINE.weekday() and end.time() == NINE.time() for _, end in windows)
    assert all(end - start == timedelta(minutes=15) for start, end in windows)


def test_evaluations_are_on_the_minute() -> None:
    assert next_evaluation(NINE) == at(1)
    assert next_evaluation(NINE + timedelta(seconds=59.9)) == at(1)
