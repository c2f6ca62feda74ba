"""The matters of a message: sentences grouped into points, each with its own category."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from services.classifier.domain.lexicon import Hit
from services.classifier.domain.rulebook import NOTHING_SAID, ONLY_SMALL_TALK, Rulebook
from services.classifier.domain.scoring import Model, Passage, Scored
from services.classifier.domain.sentences import opens_another, sentences
from services.classifier.domain.text import Reading
from shared.taxonomy import Category

_GRAVE = frozenset({Category.ACCOUNT_SECURITY, Category.MISSING_FUNDS})
_ANGER_OR_PRAISE = frozenset({Category.COMPLAINT, Category.FEEDBACK})
_VAGUE = _ANGER_OR_PRAISE | {Category.OTHER, Category.HOW_TO}


@dataclass(frozen=True, slots=True)
class Stretch:
    """`text[start:end]`, what was found in it and what the model makes of it."""

    start: int
    end: int
    concepts: frozenset[str]
    scored: Scored


def stretches(reading: Reading, hits: Sequence[Hit], rulebook: Rulebook, model: Model) -> list[Stretch]:
    """The points of a message, in order, not overlapping; one for the whole where it has one matter (or none).

    A sentence opens a new point only when it says plainly what it is about, asks or complains of something, and is
    about something else than the point before it. Anything else belongs to the point at hand: people tell the
    background first. Each point is scored by itself, so that what settles one leaves the others as they are.
    """
    spans = sentences(reading.folded, reading.text)
    whole = _span_of_all(spans, reading)
    if len(spans) < 2:
        return _scored(reading, [whole], hits, rulebook, model)
    each = _scored(reading, spans, hits, rulebook, model)
    groups: list[list[Stretch]] = [[each[0]]]
    for stretch in each[1:]:
        current = groups[-1]
        if _is_another(stretch, current, reading, rulebook):
            groups.append([stretch])
        else:
            current.append(stretch)
    if len(groups) == 1:
        return _scored(reading, [whole], hits, rulebook, model)
    joined = [(group[0].start, group[-1].end) for group in groups]
    return _merge_same(_scored(reading, joined, hits, rulebook, model), reading, hits, rulebook, model)


def _is_another(stretch: Stretch, current: Sequence[Stretch], reading: Reading, rulebook: Rulebook) -> bool:
    if not _is_matter(stretch, rulebook):
        return False
    announced = opens_another(reading.folded, stretch.start)
    # Where the customer says himself that another matter begins, what stands before it was one, asked or only told.
    is_one = _is_plain if announced else _is_matter
    matters = {one.scored.best for one in current if is_one(one, rulebook)}
    if not matters or stretch.scored.best in matters:
        return False
    if announced:
        return True
    topics = matters - _ANGER_OR_PRAISE
    # Anger and "how do I ..." behind a matter are about that matter.
    if stretch.scored.best in _VAGUE or not topics or not topics.isdisjoint(_VAGUE):
        return False
    # Behind anger people mostly go on with the same; safety of account and money must not be lost in it.
    return topics == matters or not _GRAVE.isdisjoint(topics | {stretch.scored.best})


def _is_matter(stretch: Stretch, rulebook: Rulebook) -> bool:
    return _is_plain(stretch, rulebook) and not stretch.concepts.isdisjoint(rulebook.matters)


def _is_plain(stretch: Stretch, rulebook: Rulebook) -> bool:
    scored = stretch.scored
    return scored.best is not Category.OTHER and scored.logit(scored.best) >= rulebook.plain_enough


def _merge_same(
    points: list[Stretch], reading: Reading, hits: Sequence[Hit], rulebook: Rulebook, model: Model
) -> list[Stretch]:
    """Neighbours that turned out to be about the same become one."""
    spans: list[tuple[int, int]] = []
    for index, point in enumerate(points):
        if index and point.scored.best == points[index - 1].scored.best:
            spans[-1] = (spans[-1][0], point.end)
        else:
            spans.append((point.start, point.end))
    return points if len(spans) == len(points) else _scored(reading, spans, hits, rulebook, model)


def _span_of_all(spans: Sequence[tuple[int, int]], reading: Reading) -> tuple[int, int]:
    return (spans[0][0], spans[-1][1]) if spans else (0, len(reading.text))


def _scored(
    reading: Reading, spans: Sequence[tuple[int, int]], hits: Sequence[Hit], rulebook: Rulebook, model: Model
) -> list[Stretch]:
    passages = [
        Passage(reading.text[start:end], concepts_within(reading, hits, start, end, rulebook)) for start, end in spans
    ]
    return [
        Stretch(start, end, passage.concepts, scored)
        for (start, end), passage, scored in zip(spans, passages, model.score(passages), strict=True)
    ]


def concepts_within(reading: Reading, hits: Sequence[Hit], start: int, end: int, rulebook: Rulebook) -> frozenset[str]:
    first = bisect_left(hits, start, key=lambda hit: hit.start)
    behind = bisect_left(hits, end, lo=first, key=lambda hit: hit.start)
    found = frozenset(hit.concept for hit in hits[first:behind] if hit.end <= end)
    if not any(token[0].isalnum() for token in reading.tokens):
        return found | {NOTHING_SAID}
    if found and found <= rulebook.small_talk:
        return found | {ONLY_SMALL_TALK}
    return found
