"""Training: one linear support vector machine against all others for each label, judged by cross-validation.

What each example is judged by was never trained on it: not the weights, not the terms that are known, not the
calibration. scikit-learn and scipy come with the extra `training` and are needed here only, not to decide.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import sparse
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import LinearSVC

from services.classifier.domain.text import read
from services.classifier.learning.examples import Example
from services.classifier.learning.features import Feature, Terms, encode, terms
from services.classifier.learning.metrics import Judged, threshold_for
from services.classifier.learning.model import FORMAT, Floats, Parts, Settings, TextModel, probabilities

_VERSION_CHARACTERS: Final = 12
_MOST_ROUNDS: Final = 5_000
_TOLERANCE: Final = 0.1  # of liblinear itself; a finer one takes longer and decides the same
_COLDEST: Final = math.log(0.01)
_HOTTEST: Final = math.log(10.0)
_TEMPERATURE_STEPS: Final = 40
_GOLDEN: Final = (math.sqrt(5) - 1) / 2
Rows = npt.NDArray[np.intp]


class CannotTrain(ValueError):
    """The examples do not suffice to train and to judge; the message says which."""


@dataclass(frozen=True, slots=True)
class Trained:
    """`judged`: every example, in order, as a model saw it that was trained without it; `scores` (examples, labels):
    what that model made of it, not yet probabilities; `fold_of`: which of them that was.
    """

    model: TextModel
    judged: tuple[Judged, ...]
    scores: npt.NDArray[np.float64]
    fold_of: npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class _Found:
    """Of all examples: which terms each holds (examples, terms; ones), and their names."""

    matrix: Any  # scipy.sparse.csr_array of float32
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a classifier sees of all examples, read once."""

    found: Mapping[Feature, _Found]
    meaning: Floats | None


@dataclass(frozen=True, slots=True)
class _Fitted:
    parts: Parts
    columns: Mapping[Feature, Rows]  # of the terms found, those that are known


def version_of(examples: Sequence[Example], settings: Settings) -> str:
    """Names the data and the settings: change either, and it is another model."""
    digest = hashlib.sha256(json.dumps([FORMAT, settings.model_dump(mode="json")], sort_keys=True).encode())
    for example in examples:
        digest.update(json.dumps([example.text, example.label], ensure_ascii=False).encode())
    return digest.hexdigest()[:_VERSION_CHARACTERS]


def train(examples: Sequence[Example], settings: Settings, tell: Callable[[str], None]) -> Trained:
    """Cross-validate, then train on all. `tell` is given a line at each step. Raises CannotTrain and NoEncoder."""
    labels = tuple(sorted({example.label for example in examples}))
    if len(labels) < 2:
        raise CannotTrain(
            f"all examples have the label {labels[0]!r}; two labels are the least" if labels else "no data"
        )
    truth = np.array([labels.index(example.label) for example in examples], np.intp)
    if (fewest := int(np.bincount(truth).min())) < settings.folds:
        raise CannotTrain(f"a label has {fewest} examples; each of the {settings.folds} folds needs one")
    seen = _see([example.text for example in examples], settings)
    tell(f"read {len(examples):,} examples of {len(labels)} labels")
    scores = np.zeros((len(examples), len(labels)), np.float64)
    fold_of = np.zeros(len(examples), np.intp)
    split = StratifiedKFold(settings.folds, shuffle=True, random_state=settings.seed).split(truth, truth)
    for fold, (learnt, held_out) in enumerate(split):
        fitted = _fit(seen, learnt, truth, len(labels), settings)
        scores[held_out] = _scores(seen, held_out, fitted, settings)
        fold_of[held_out] = fold
        right = float((scores[held_out].argmax(axis=1) == truth[held_out]).mean())
        tell(f"fold {fold + 1} of {settings.folds}: accuracy {right:.4f}")
    judged = _judge(examples, scores, truth, fold_of, labels)
    everything = np.arange(len(examples), dtype=np.intp)
    model = TextModel(
        version=version_of(examples, settings),
        settings=settings,
        labels=labels,
        parts=_fit(seen, everything, truth, len(labels), settings).parts,
        temperature=temperature_of(scores, truth),
        thresholds={
            label: threshold_for([one for one in judged if one.predicted == label], settings.precision)
            for label in labels
        },
    )
    return Trained(model, tuple(judged), scores, fold_of)


def _see(texts: Sequence[str], settings: Settings) -> _Seen:
    found: dict[Feature, _Found] = {
        feature: _find(texts, feature) for feature in settings.features if feature is not Feature.ENCODER
    }
    return _Seen(found, encode(texts) if Feature.ENCODER in settings.features else None)


def _find(texts: Sequence[str], feature: Feature) -> _Found:
    places: dict[str, int] = {}
    columns: list[int] = []
    ends = [0]
    for text in texts:
        columns += [places.setdefault(term, len(places)) for term in dict.fromkeys(terms(read(text).tokens, feature))]
        ends.append(len(columns))
    ones = np.ones(len(columns), np.float32)
    return _Found(sparse.csr_array((ones, columns, ends), shape=(len(texts), len(places))), tuple(places))


def _fit(seen: _Seen, rows: Rows, truth: npt.NDArray[np.intp], labels: int, settings: Settings) -> _Fitted:
    """A classifier trained on these rows; what else there is stays unknown to it."""
    known_terms: dict[Feature, Terms] = {}
    columns: dict[Feature, Rows] = {}
    for feature, found in seen.found.items():
        texts_with = np.bincount(found.matrix[rows].indices, minlength=len(found.names))
        known = np.flatnonzero(texts_with >= settings.fewest_texts)
        rarity = np.log((1 + len(rows)) / (1 + texts_with[known])) + 1
        columns[feature] = known
        known_terms[feature] = Terms(
            {found.names[column]: place for place, column in enumerate(known)}, rarity.astype(np.float32)
        )
    matrix = _matrix(seen, rows, known_terms, columns, settings)
    machine = LinearSVC(C=settings.regularisation, tol=_TOLERANCE, max_iter=_MOST_ROUNDS, random_state=settings.seed)
    machine.fit(matrix, truth[rows])
    weights, constants = machine.coef_.T, machine.intercept_
    if labels == 2:
        weights, constants = np.hstack([-weights, weights]), np.concatenate([-constants, constants])
    weights_of: dict[Feature, Floats] = {}
    begin = 0
    for feature, known in columns.items():
        weights_of[feature] = _half(weights[begin : begin + len(known)])
        begin += len(known)
    encoder_weights = _half(weights[begin:]) if seen.meaning is not None else None
    return _Fitted(Parts(known_terms, weights_of, encoder_weights, constants.astype(np.float32)), columns)


def _half(weights: npt.NDArray[np.float64]) -> Floats:
    """As exact as they are stored: a model decides the same before it is saved and after."""
    return np.ascontiguousarray(weights).astype(np.float16).astype(np.float32)


def _matrix(
    seen: _Seen, rows: Rows, known: Mapping[Feature, Terms], columns: Mapping[Feature, Rows], settings: Settings
) -> Any:
    """(rows, features), each kind of term of length 1: what `Terms.place` says, of many texts at once."""
    matrix = sparse.hstack(list(_blocks(seen, rows, known, columns, settings)), format="csr")
    # The machine reads no wider ones, and scipy makes them when it likes.
    matrix.indices, matrix.indptr = matrix.indices.astype(np.int32), matrix.indptr.astype(np.int32)
    return matrix


def _blocks(
    seen: _Seen, rows: Rows, known: Mapping[Feature, Terms], columns: Mapping[Feature, Rows], settings: Settings
) -> Iterator[Any]:
    for feature, found in seen.found.items():
        block = found.matrix[rows][:, columns[feature]].tocsr()
        block.data = known[feature].rarity[block.indices]
        lengths = np.sqrt(np.asarray(block.multiply(block).sum(axis=1)).ravel())
        yield sparse.diags_array(1 / np.where(lengths > 0, lengths, 1)) @ block
    if seen.meaning is not None:
        yield sparse.csr_array(settings.encoder_weight * seen.meaning[rows])


def _scores(seen: _Seen, rows: Rows, fitted: _Fitted, settings: Settings) -> npt.NDArray[np.float64]:
    parts = fitted.parts
    matrix = _matrix(seen, rows, parts.terms, fitted.columns, settings)
    weights = [parts.weights[feature] for feature in seen.found]
    if parts.encoder_weights is not None:
        weights.append(parts.encoder_weights)
    result: npt.NDArray[np.float64] = np.asarray(matrix @ np.vstack(weights) + parts.constants, np.float64)
    return result


def _judge(
    examples: Sequence[Example],
    scores: npt.NDArray[np.float64],
    truth: npt.NDArray[np.intp],
    fold_of: npt.NDArray[np.intp],
    labels: Sequence[str],
) -> list[Judged]:
    confidence = np.zeros(len(examples))
    for fold in range(int(fold_of.max()) + 1):
        inside = fold_of == fold
        temperature = temperature_of(scores[~inside], truth[~inside])
        confidence[inside] = probabilities(scores[inside], temperature).max(axis=1)
    return [
        Judged(example.label, labels[int(best)], float(sure), example.accepted)
        for example, best, sure in zip(examples, scores.argmax(axis=1), confidence, strict=True)
    ]


def temperature_of(scores: npt.NDArray[np.float64], truth: npt.NDArray[np.intp]) -> float:
    """The temperature under which the truth is likeliest (Guo et al., "On calibration of modern neural networks",
    2017), found by golden-section search.
    """

    def unlikelihood(logarithm: float) -> float:
        scaled = scores / math.exp(logarithm)
        top = scaled.max(axis=1)
        normaliser = top + np.log(np.exp(scaled - top[:, None]).sum(axis=1))
        return float((normaliser - scaled[np.arange(len(truth)), truth]).mean())

    low, high = _COLDEST, _HOTTEST
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = unlikelihood(left), unlikelihood(right)
    for _ in range(_TEMPERATURE_STEPS):
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = unlikelihood(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = unlikelihood(right)
    return math.exp((low + high) / 2)
