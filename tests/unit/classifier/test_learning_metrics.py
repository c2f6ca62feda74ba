"""Figures against values worked out by hand."""

from __future__ import annotations

import pytest

from services.classifier.learning.metrics import (
    Confusion,
    Judged,
    LabelFigures,
    calibration,
    ece,
    matrix,
    measure,
    risk_coverage,
    threshold_for,
)

# truth, predicted, confidence; of the last, `c` would be right too.
SIX = [
    Judged("a", "a", 0.95),
    Judged("a", "a", 0.90),
    Judged("a", "b", 0.55),
    Judged("b", "b", 0.85),
    Judged("c", "a", 0.50),
    Judged("b", "c", 0.15, frozenset({"b", "c"})),
]


def test_figures_by_hand() -> None:
    figures = measure(SIX)
    assert figures.examples == 6
    assert figures.accuracy == 3 / 6
    # a: 2 of 3 predicted right, 2 of 3 found, F1 2*2/(3+3); b: 1 of 2, 1 of 2; c: never right.
    assert figures.labels == (
        LabelFigures("a", 2 / 3, 2 / 3, 2 / 3, support=3, predicted=3),
        LabelFigures("b", 0.5, 0.5, 0.5, support=2, predicted=2),
        LabelFigures("c", 0.0, 0.0, 0.0, support=1, predicted=1),
    )
    assert figures.macro_f1 == pytest.approx((2 / 3 + 0.5 + 0) / 3)
    assert figures.confusions == (Confusion("a", "b", 1), Confusion("b", "c", 1), Confusion("c", "a", 1))
    assert matrix(SIX) == {"a": {"a": 2, "b": 1}, "b": {"b": 1, "c": 1}, "c": {"a": 1}}


def test_what_is_accepted_counts_as_the_truth() -> None:
    figures = measure([one.lenient for one in SIX])
    assert figures.accuracy == 4 / 6
    # The last is a `c` now: c is found in 1 of 2, and 1 of 1 predicted is right.
    assert figures.labels[2] == LabelFigures("c", 1.0, 0.5, 2 / 3, support=2, predicted=1)


def test_a_label_never_predicted_and_one_that_never_occurs_count_as_0() -> None:
    figures = measure([Judged("a", "a", 0.9), Judged("b", "x", 0.9)])
    assert [(one.label, one.precision, one.recall, one.f1) for one in figures.labels] == [
        ("a", 1, 1, 1),
        ("b", 0, 0, 0),
        ("x", 0, 0, 0),
    ]
    assert figures.macro_f1 == pytest.approx(1 / 3)
    assert figures.macro_f1_occurring == pytest.approx(1 / 2)


def test_calibration_error_by_hand() -> None:
    # One of four at 0.95 in the last bin (14/15, 1], wrong: |0 - 0.95| = 0.95. Three at 0.61, 0.63 and 0.65 in
    # (9/15, 10/15], all right: |1 - 0.63| = 0.37.
    judged = [Judged("a", "b", 0.95), *(Judged("a", "a", confidence) for confidence in (0.61, 0.63, 0.65))]
    bins = calibration(judged)
    assert [(round(one.low * 15), round(one.high * 15), one.count) for one in bins] == [(9, 10, 3), (14, 15, 1)]
    assert ece(bins) == pytest.approx(0.25 * 0.95 + 0.75 * 0.37)


@pytest.mark.parametrize(
    ("confidence", "place"), [(0.0, 0), (1 / 15, 0), (0.0667, 1), (0.2, 2), (0.2001, 3), (1.0, 14)]
)
def test_the_upper_edge_belongs_to_a_bin(confidence: float, place: int) -> None:
    (only,) = calibration([Judged("a", "a", confidence)])
    assert round(only.low * 15) == place


def test_certain_and_right_is_perfectly_calibrated() -> None:
    assert ece(calibration([Judged("a", "a", 1.0)] * 3)) == 0


def test_what_a_threshold_keeps() -> None:
    kept = {each.threshold: (each.coverage, each.accuracy) for each in measure(SIX).kept}
    assert kept[0.0] == (1, 0.5)
    assert kept[0.5] == (5 / 6, 3 / 5)
    assert kept[0.9] == (2 / 6, 1)
    assert kept[0.99] == (0, None)


def test_the_risk_among_the_surest() -> None:
    judged = [Judged("a", "a" if index < 15 else "b", 1 - index / 100) for index in range(20)]
    curve = risk_coverage(judged)
    assert len(curve) == 20
    assert curve[0] == (0.05, 0)
    assert curve[15] == pytest.approx((0.8, 1 / 16))
    assert curve[-1] == pytest.approx((1, 5 / 20))


def test_the_lowest_confidence_that_keeps_the_precision() -> None:
    judged = [Judged("a", truth, sure) for truth, sure in (("a", 0.9), ("b", 0.8), ("a", 0.7), ("a", 0.6), ("b", 0.5))]
    assert threshold_for(judged, 0.75) == 0.6  # 3 of 4
    assert threshold_for(judged, 0.6) == 0.5  # 3 of 5
    assert threshold_for(judged, 0.9) == 0.9  # 1 of 1
    assert threshold_for([Judged("a", "b", 0.9)], 0.5) is None
    assert threshold_for([], 0.5) is None


def test_decisions_of_one_confidence_are_kept_together() -> None:
    assert threshold_for([Judged("a", "a", 0.9), Judged("a", "b", 0.9)], 0.9) is None


def test_nothing_is_not_measured() -> None:
    with pytest.raises(ValueError, match="nothing to measure"):
        measure([])
