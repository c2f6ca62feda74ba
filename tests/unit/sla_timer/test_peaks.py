"""When a peak begins and ends."""

from __future__ import annotations

from datetime import timedelta

import pytest

from services.sla_timer.domain.peaks import (
    Active,
    Arrivals,
    PeakRules,
    PeakWindow,
    Place,
    arrivals_of,
    evaluate,
    is_peak,
    next_evaluation,
    with_totals,
)
from shared.events import PeakCause, PeakKind
from shared.taxonomy import Channel, Queue
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
    active = {PAYMENTS: Active(NINE, PeakCause.ARRIVALS)}
    assert evaluate(at(1), {PAYMENTS: Arrivals(40, 10)}, active, RULES, CALENDARS) == []
    (ended,) = evaluate(at(2), {}, active, RULES, CALENDARS)
    assert (ended.kind, ended.began_at, ended.at) == (PeakKind.ENDED, NINE, at(2))
    assert began.event_id != ended.event_id
    assert (began.cause, ended.cause) == (PeakCause.ARRIVALS, PeakCause.ARRIVALS)


def test_a_configured_window_is_a_peak_whatever_arrives() -> None:
    rules = RULES.model_copy(update={"windows": (PeakWindow(brand="upay", calendar="office"),)})
    quiet = {PAYMENTS: Arrivals(1, 5), Place("topay", Queue.PAYMENTS): Arrivals(1, 5)}
    (began,) = evaluate(NINE, quiet, {}, rules, CALENDARS)
    assert (began.brand, began.kind) == ("upay", PeakKind.BEGAN)
    (ended,) = evaluate(at(8 * 60), quiet, {PAYMENTS: Active(NINE)}, rules, CALENDARS)  # 17:00: the office closes
    assert ended.kind is PeakKind.ENDED


def test_a_channel_has_peaks_of_its_own() -> None:
    phone = Place("upay", Queue.PAYMENTS, Channel.PHONE)
    counted = {PAYMENTS: Arrivals(60, 50), phone: Arrivals(30, 10)}
    (began,) = evaluate(NINE, counted, {}, RULES, CALENDARS, lambda place: 7 if place == phone else None)
    assert (began.channel, began.staff_needed) == (Channel.PHONE, 7)
    # While the whole queue is in a peak, none of its channels begins one.
    both = {PAYMENTS: Arrivals(120, 50), phone: Arrivals(30, 10)}
    assert [event.channel for event in evaluate(NINE, both, {}, RULES, CALENDARS)] == [None]
    # The end of one is not the end of the other.
    active = {PAYMENTS: Active(NINE), phone: Active(NINE)}
    (ended,) = evaluate(at(1), {PAYMENTS: Arrivals(90, 50), phone: Arrivals(10, 10)}, active, RULES, CALENDARS)
    assert (ended.channel, ended.kind) == (Channel.PHONE, PeakKind.ENDED)


def test_a_window_for_one_channel_is_a_peak_of_that_channel() -> None:
    window = PeakWindow(queue=Queue.PAYMENTS, channel=Channel.PHONE, calendar="office")
    rules = RULES.model_copy(update={"windows": (window,)})
    quiet = with_totals(
        [(Place("upay", Queue.PAYMENTS, Channel.PHONE), 1), (Place("upay", Queue.PAYMENTS, Channel.X), 1)]
    )
    (began,) = evaluate(NINE, {place: Arrivals(seen) for place, seen in quiet.items()}, {}, rules, CALENDARS)
    assert (began.channel, began.cause) == (Channel.PHONE, PeakCause.CONFIGURED)


def test_arrivals_are_compared_with_the_middle_of_the_brands_own_windows() -> None:
    phone, mail = (Place("upay", Queue.PAYMENTS, channel) for channel in (Channel.PHONE, Channel.EMAIL))
    seen = with_totals([(phone, 20), (mail, 10)])
    usual = {"upay": [with_totals([(phone, 10)]), with_totals([(phone, 12), (mail, 1)]), with_totals([(phone, 900)])]}
    counted = arrivals_of(seen, usual)
    assert counted[phone] == Arrivals(20, 12.0)  # the spike of one day moves nothing
    assert counted[mail] == Arrivals(10, 0.0)
    assert counted[PAYMENTS] == Arrivals(30, 13.0)
    new = Place("topay", Queue.PAYMENTS, Channel.PHONE)
    assert arrivals_of(with_totals([(new, 3)]), usual)[new] == Arrivals(3, 0.0)


def test_evaluations_are_on_the_minute() -> None:
    assert next_evaluation(NINE) == at(1)
    assert next_evaluation(NINE + timedelta(seconds=59.9)) == at(1)
