"""The matters of a message: sentences grouped into points, each a passage with a category of its own."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from services.classifier.domain.lexicon import Hit
from services.classifier.domain.rulebook import NOTHING_SAID, ONLY_SMALL_TALK, Rulebook
from services.classifier.domain.scoring import Passage, Weighed
from services.classifier.domain.sentences import announces_several, opens_another, sentences
from services.classifier.domain.text import Reading
from shared.taxonomy import Category

_GRAVE = frozenset({Category.ACCOUNT_SECURITY, Category.MISSING_FUNDS})
_ANGER_OR_PRAISE = frozenset({Category.COMPLAINT, Category.FEEDBACK})
_VAGUE = _ANGER_OR_PRAISE | {Category.OTHER, Category.HOW_TO}


@dataclass(frozen=True, slots=True)
class ReadText:
    """A text, read: its tokens and the concepts found in them."""

    reading: Reading
    hits: Sequence[Hit]


@dataclass(frozen=True, slots=True)
class _Sentence:
    passage: Passage
    weighed: Weighed


def passages(text: ReadText, rulebook: Rulebook) -> list[Passage]:
    """The points of a message, in order, not overlapping; one for the whole where it has one matter (or none).

    A sentence opens a new point only when it says plainly what it is about, asks or complains of something, and is
    about something else than the point before it. Anything else belongs to the point at hand: people tell the
    background first. The rules cut; what a point is about is for the model to say, which sees each by itself, so that
    what settles one leaves the others as they are.
    """
    spans = sentences(text.reading.folded, text.reading.text)
    whole = (spans[0][0], spans[-1][1]) if spans else (0, len(text.reading.text))
    if len(spans) < 2:
        return [_passage(text, *whole, rulebook)]
    several = announces_several(text.reading.folded)
    groups: list[list[_Sentence]] = []
    for start, end in spans:
        passage = _passage(text, start, end, rulebook)
        sentence = _Sentence(passage, rulebook.rules.weigh(passage.concepts))
        if not groups or _is_another(sentence, groups[-1], text.reading, rulebook, several=several):
            groups.append([sentence])
        else:
            groups[-1].append(sentence)
    return [_passage(text, group[0].passage.start, group[-1].passage.end, rulebook) for group in groups]


def whole(text: ReadText, rulebook: Rulebook) -> Passage:
    """All of a message as one passage, however many matters it has."""
    return _passage(text, 0, len(text.reading.text), rulebook)


def joined(
    text: ReadText, points: Sequence[Passage], categories: Sequence[Category], rulebook: Rulebook
) -> Sequence[Passage]:
    """Neighbours that turned out to be about the same become one; `points` itself where there are none."""
    spans: list[tuple[int, int]] = []
    for index, point in enumerate(points):
        if index and categories[index] is categories[index - 1]:
            spans[-1] = (spans[-1][0], point.end)
        else:
            spans.append((point.start, point.end))
    return points if len(spans) == len(points) else [_passage(text, start, end, rulebook) for start, end in spans]


def _is_another(
    sentence: _Sentence, current: Sequence[_Sentence], reading: Reading, rulebook: Rulebook, *, several: bool
) -> bool:
    if not _is_matter(sentence, rulebook):
        return False
    announced = several or opens_another(reading.folded, sentence.passage.start)
    # Where the customer says himself that another matter begins, what stands before it was one, asked or only told.
    is_one = _is_plain if announced else _is_matter
    matters = {one.weighed.best for one in current if is_one(one, rulebook)}
    best = sentence.weighed.best
    if not matters or best in matters:
        return False
    if announced:
        return True
    topics = matters - _ANGER_OR_PRAISE
    # Anger and "how do I ..." behind a matter are about that matter.
    if best in _VAGUE or not topics or not topics.isdisjoint(_VAGUE):
        return False
    # Behind anger people mostly go on with the same; safety of account and money must not be lost in it.
    return topics == matters or not _GRAVE.isdisjoint(topics | {best})


def _is_matter(sentence: _Sentence, rulebook: Rulebook) -> bool:
    return _is_plain(sentence, rulebook) and not sentence.passage.concepts.isdisjoint(rulebook.matters)


def _is_plain(sentence: _Sentence, rulebook: Rulebook) -> bool:
    weighed = sentence.weighed
    best = weighed.best
    return best is not Category.OTHER and weighed.weight(best) >= rulebook.plain_enough


def _passage(text: ReadText, start: int, end: int, rulebook: Rulebook) -> Passage:
    reading = text.reading
    tokens = reading.tokens[bisect_left(reading.starts, start) : bisect_left(reading.starts, end)]
    return Passage(start, end, reading.text[start:end], tokens, _concepts(text, start, end, rulebook))


def _concepts(text: ReadText, start: int, end: int, rulebook: Rulebook) -> frozenset[str]:
    hits = text.hits
    first = bisect_left(hits, start, key=lambda hit: hit.start)
    behind = bisect_left(hits, end, lo=first, key=lambda hit: hit.start)
    found = frozenset(hit.concept for hit in hits[first:behind] if hit.end <= end)
    if not any(token[0].isalnum() for token in text.reading.tokens):
        return found | {NOTHING_SAID}
    if found and found <= rulebook.small_talk:
        return found | {ONLY_SMALL_TALK}
    return found
