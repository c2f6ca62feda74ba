"""How good decisions are: accuracy, precision and recall by label, calibration, and what a threshold would keep.

Pure, and plain Python: measuring what ships needs nothing but what ships.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

BINS: Final = 15
THRESHOLDS: Final = (0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
_COVERAGE_STEPS: Final = 20


@dataclass(frozen=True, slots=True)
class Judged:
    """One decision beside the truth. `accepted`: every label that would be right, `truth` among them."""

    truth: str
    predicted: str
    confidence: float
    accepted: frozenset[str] = frozenset()

    @property
    def right(self) -> bool:
        return self.predicted == self.truth

    @property
    def lenient(self) -> Judged:
        """The same, the truth being what was predicted where that is accepted too."""
        truth = self.predicted if self.predicted in self.accepted else self.truth
        return Judged(truth, self.predicted, self.confidence, self.accepted)


@dataclass(frozen=True, slots=True)
class LabelFigures:
    """`precision` is 0 of a label that was never predicted, `recall` 0 of one that never occurs."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int
    predicted: int


@dataclass(frozen=True, slots=True)
class Bin:
    """Decisions with `low` < confidence <= `high` (the first bin holds 0 too)."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Kept:
    """What of all decisions has at least this confidence (`coverage`), and how many of those are right.

    `accuracy` is None where nothing is kept.
    """

    threshold: float
    coverage: float
    accuracy: float | None


@dataclass(frozen=True, slots=True)
class Confusion:
    truth: str
    predicted: str
    count: int


@dataclass(frozen=True, slots=True)
class Figures:
    """`macro_f1` is the mean over the labels that occur or were predicted, `macro_f1_occurring` over those that occur:
    a file that holds some of the labels only is judged fairly by the second. `confusions`: the commonest first.
    """

    examples: int
    accuracy: float
    macro_f1: float
    macro_f1_occurring: float
    ece: float
    labels: tuple[LabelFigures, ...]
    bins: tuple[Bin, ...]
    kept: tuple[Kept, ...]
    confusions: tuple[Confusion, ...]


def measure(judged: Sequence[Judged]) -> Figures:
    """Raises ValueError when there is nothing to measure."""
    if not judged:
        raise ValueError("nothing to measure")
    labels = label_figures(judged)
    bins = calibration(judged)
    return Figures(
        examples=len(judged),
        accuracy=fmean(one.right for one in judged),
        macro_f1=fmean(label.f1 for label in labels),
        macro_f1_occurring=fmean(label.f1 for label in labels if label.support),
        ece=ece(bins),
        labels=labels,
        bins=bins,
        kept=tuple(kept(judged, threshold) for threshold in THRESHOLDS),
        confusions=confusions(judged),
    )


def label_figures(judged: Sequence[Judged]) -> tuple[LabelFigures, ...]:
    """One for each label that occurs or was predicted, in alphabetical order."""
    support = Counter(one.truth for one in judged)
    predicted = Counter(one.predicted for one in judged)
    right = Counter(one.truth for one in judged if one.right)
    figures = []
    for label in sorted(support | predicted):
        precision = right[label] / predicted[label] if predicted[label] else 0.0
        recall = right[label] / support[label] if support[label] else 0.0
        f1 = 2 * right[label] / (support[label] + predicted[label])
        figures.append(LabelFigures(label, precision, recall, f1, support[label], predicted[label]))
    return tuple(figures)


def calibration(judged: Sequence[Judged]) -> tuple[Bin, ...]:
    """The decisions by confidence, in `BINS` bins of equal width; empty bins are left out."""
    members: dict[int, list[Judged]] = {}
    for one in judged:
        # The upper edge belongs to a bin. Rounded, for 0.2 * 15 is a little more than 3.
        place = max(0, -int(-round(one.confidence * BINS, 9) // 1) - 1)
        members.setdefault(min(place, BINS - 1), []).append(one)
    return tuple(
        Bin(
            low=place / BINS,
            high=(place + 1) / BINS,
            count=len(inside),
            confidence=fmean(one.confidence for one in inside),
            accuracy=fmean(one.right for one in inside),
        )
        for place, inside in sorted(members.items())
    )


def ece(bins: Sequence[Bin]) -> float:
    """Expected calibration error: how far confidence and accuracy lie apart, bin by bin, weighted by the bins' counts
    (Naeini, Cooper and Hauskrecht, "Obtaining well calibrated probabilities using Bayesian binning", 2015).
    """
    total = sum(each.count for each in bins)
    return sum(each.count * abs(each.accuracy - each.confidence) for each in bins) / total


def kept(judged: Sequence[Judged], threshold: float) -> Kept:
    inside = [one.right for one in judged if one.confidence >= threshold]
    return Kept(threshold, len(inside) / len(judged), fmean(inside) if inside else None)


def confusions(judged: Sequence[Judged]) -> tuple[Confusion, ...]:
    """What was taken for what, the commonest first, then by name."""
    counts = Counter((one.truth, one.predicted) for one in judged if not one.right)
    return tuple(
        Confusion(truth, predicted, count)
        for (truth, predicted), count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    )


def matrix(judged: Sequence[Judged]) -> dict[str, dict[str, int]]:
    """Truth -> predicted -> how often; pairs that never came are left out."""
    counts: dict[str, dict[str, int]] = {}
    for (truth, predicted), count in sorted(Counter((one.truth, one.predicted) for one in judged).items()):
        counts.setdefault(truth, {})[predicted] = count
    return counts


def risk_coverage(judged: Sequence[Judged]) -> list[tuple[float, float]]:
    """(share of decisions kept, share of errors among them), the surest first, in steps of a twentieth."""
    surest = sorted(judged, key=lambda one: -one.confidence)
    curve = []
    for step in range(1, _COVERAGE_STEPS + 1):
        count = max(1, round(step * len(surest) / _COVERAGE_STEPS))
        curve.append((count / len(surest), 1 - fmean(one.right for one in surest[:count])))
    return curve


def threshold_for(judged: Sequence[Judged], precision: float) -> float | None:
    """The lowest confidence from which on as large a share of decisions as `precision` is right; None when there is no
    such confidence. Decisions that share a confidence are kept or left together.
    """
    surest = sorted(judged, key=lambda one: -one.confidence)
    right = 0
    lowest = None
    for count, one in enumerate(surest, start=1):
        right += one.right
        last_of_equals = count == len(surest) or surest[count].confidence < one.confidence
        if last_of_equals and right >= precision * count:
            lowest = one.confidence
    return lowest
