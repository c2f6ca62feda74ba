"""Means by hour of the week, of hours that are known and of no others."""

from __future__ import annotations

from services.sla_timer.hours import WEEKS, means

WEEK = 7 * 24
MONDAY_9 = 4 * 24 + 9  # hours since 1970: the first Monday of it, a Thursday was the first day
HOUR_9 = 9


def test_an_hour_without_arrivals_is_a_zero_in_the_mean() -> None:
    now = MONDAY_9 + 4 * WEEK
    counted = {MONDAY_9: 8, MONDAY_9 + 2 * WEEK: 2, now: 1000}
    found = means(counted, first=MONDAY_9, now=now)
    assert found[HOUR_9] == (8 + 0 + 2 + 0) / 4  # the running hour, not over, is left out
    assert found[HOUR_9 + 1] == 0
    assert len(found) == WEEK


def test_only_the_last_weeks_count() -> None:
    now = MONDAY_9 + 9 * WEEK
    counted = {MONDAY_9 + week * WEEK: 100 if week < 9 - WEEKS else 3 for week in range(9)}
    assert means(counted, first=0, now=now)[HOUR_9] == 3


def test_what_was_before_the_first_arrival_is_not_known() -> None:
    now = MONDAY_9 + 3
    assert means({MONDAY_9: 6, MONDAY_9 + 2: 1}, first=MONDAY_9, now=now) == {
        HOUR_9: 6,
        HOUR_9 + 1: 0,
        HOUR_9 + 2: 1,
        HOUR_9 + 3: 0,
    }


def test_the_running_hour_counts_as_long_as_nothing_else_is_known_of_it() -> None:
    assert means({MONDAY_9: 5}, first=MONDAY_9, now=MONDAY_9) == {HOUR_9: 5}
