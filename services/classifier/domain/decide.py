"""One message in, one decision out: language, points, category, priority, facts, what is missing, queue, and why."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from services.classifier.domain.facts import FoundFact, Told, extract, missing
from services.classifier.domain.language import language_of
from services.classifier.domain.lexicon import ValueHit
from services.classifier.domain.points import ReadText, joined, passages
from services.classifier.domain.priority import Situation
from services.classifier.domain.rulebook import Rulebook, load_rulebook
from services.classifier.domain.scoring import Model, Passage, Scored
from services.classifier.domain.text import read
from services.classifier.learning.shipped import shipped_model
from shared.events import Alternative, DecisionTrace, Facts, Point, Reason, TraceStep
from shared.taxonomy import CATEGORIES, Category, Channel, Fact, Language, Priority, Queue

_CATEGORIES: Final = tuple(Category)
_MOST_ALTERNATIVES: Final = 3
_LEAST_ALTERNATIVE_SCORE: Final = 0.05
_MOST_EVIDENCE_SHOWN: Final = 6
_DETAIL_CHARACTERS: Final = 500
# Tie-break of the taxonomy: safety of the account, then of money; the general rows last.
_RANK: Final = {Category.ACCOUNT_SECURITY: 0, Category.MISSING_FUNDS: 1} | {
    Category.COMPLAINT: 3, Category.FEEDBACK: 4, Category.HOW_TO: 5, Category.OTHER: 6,
}  # fmt: skip
_USUAL_RANK: Final = 2
_CONFIDENCE_UNITS: Final = 10_000
_MOST_CONFIDENT: Final = 0.9999
_LEAST_SURE: Final = 0.5  # a point must be so probable before its category outranks a likelier one


@dataclass(frozen=True, slots=True)
class Message:
    """What is decided about. `text` and `subject` hold no secrets: they were cut before."""

    text: str
    subject: str | None = None
    channel: Channel | None = None
    brand: str | None = None
    sent_at: datetime | None = None
    vip: bool = False
    contact_known: bool = False
    has_attachments: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """All that is decided from one message alone.

    `situation` is what the priority was decided on: a ticket's history is added to it (see `tickets.merge`). Offsets of
    points and facts are characters of `Message.text`.
    """

    language: Language
    category: Category
    confidence: float
    alternatives: tuple[Alternative, ...]
    points: tuple[Point, ...]
    priority: Priority
    reasons: tuple[Reason, ...]
    facts: Facts
    found_facts: tuple[FoundFact, ...]
    missing: tuple[Fact, ...]
    queue: Queue
    trace: DecisionTrace
    situation: Situation

    @property
    def model(self) -> str:
        return self.trace.model


@dataclass(frozen=True, slots=True)
class _Point:
    """One matter, and what the model makes of it."""

    passage: Passage
    scored: Scored


@dataclass(frozen=True, slots=True)
class _Read:
    """A message, read and not yet decided."""

    message: Message
    text: ReadText
    values: Sequence[ValueHit]


class Classifier:
    """Rules and a model. `classify` has no effect but its result, and the same message gives the same result."""

    def __init__(self, rulebook: Rulebook | None = None, model: Model | None = None) -> None:
        """Raises BadModel when the shipped model cannot be loaded."""
        self.rulebook = rulebook or load_rulebook()
        self.model: Model = model or shipped_model(self.rulebook)

    def classify(self, message: Message) -> Decision:
        return self.classify_all([message])[0]

    def classify_all(self, messages: Sequence[Message]) -> list[Decision]:
        """One decision for each, in order. The model sees the points of all of them at once: that is much cheaper."""
        read_messages = [self._read(message, message.text) for message in messages]
        points = self._points([each.text for each in read_messages])
        chosen = [_gravest(each) for each in points]
        # The subject helps where the text alone leaves it open.
        open_ones = [
            place for place, message in enumerate(messages) if message.subject and _leaves_open(chosen[place].scored)
        ]
        together = [self._read(messages[place], _with_subject(messages[place])).text for place in open_ones]
        by_subject: dict[int, _Point] = {}
        for place, helped in zip(open_ones, self._points(together), strict=True):
            candidate = _gravest(helped)
            if candidate.scored.confidence > chosen[place].scored.confidence:
                by_subject[place] = candidate
        return [
            self._decide(each, points[place], by_subject.get(place, chosen[place]), by_subject=place in by_subject)
            for place, each in enumerate(read_messages)
        ]

    def _read(self, message: Message, text: str) -> _Read:
        reading = read(text)
        hits, values = self.rulebook.lexicon.find(reading)
        return _Read(message, ReadText(reading, hits), values)

    def _points(self, texts: Sequence[ReadText]) -> list[list[_Point]]:
        cut = [passages(text, self.rulebook) for text in texts]
        scored = self._scored(cut)
        for place, text in enumerate(texts):
            fewer = joined(text, cut[place], [point.scored.best for point in scored[place]], self.rulebook)
            if fewer is not cut[place]:
                scored[place] = self._scored([fewer])[0]
        return scored

    def _scored(self, cut: Sequence[Sequence[Passage]]) -> list[list[_Point]]:
        scores = iter(self.model.score([passage for each in cut for passage in each]))
        return [[_Point(passage, next(scores)) for passage in each] for each in cut]

    def _decide(self, each: _Read, points: Sequence[_Point], chosen: _Point, *, by_subject: bool) -> Decision:
        message, reading, rulebook = each.message, each.text.reading, self.rulebook
        language = language_of(message.text, english=rulebook.english, other=rulebook.other_latin)
        told = extract(reading, each.values, language, message.sent_at)
        category = chosen.scored.best
        confidence = _reported(chosen.scored.confidence)
        concepts = frozenset(hit.concept for hit in each.text.hits) | chosen.passage.concepts
        situation = Situation(
            category=category,
            concepts=concepts,
            channel=message.channel,
            brand=message.brand,
            vip=message.vip,
            question_only=_asks_only(concepts, told, rulebook),
            amount=told.amount,
            currency=told.currency,
            happened_at=told.happened_at,
            sent_at=message.sent_at,
        )
        priority, reasons = rulebook.priorities.decide(situation)
        # Where nothing spoke for it, a category is only the commonest guess about nothing.
        sure = confidence >= self.model.thresholds[category] and bool(chosen.scored.evidence)
        queue = CATEGORIES[category].queue if sure else Queue.TRIAGE
        return Decision(
            language=language,
            category=category,
            confidence=confidence,
            alternatives=_alternatives([chosen] if by_subject else points, category),
            points=tuple(_point(point) for point in points if message.text),
            priority=priority,
            reasons=reasons,
            facts=told.facts,
            found_facts=told.found,
            missing=missing(
                category,
                told.facts,
                contact_known=message.contact_known,
                has_attachments=message.has_attachments,
            ),
            queue=queue,
            trace=self._trace(chosen, len(points), told, by_subject=by_subject, triage=queue is Queue.TRIAGE),
            situation=situation,
        )

    def _trace(self, chosen: _Point, points: int, told: Told, *, by_subject: bool, triage: bool) -> DecisionTrace:
        category = chosen.scored.best
        evidence = [one for one in chosen.scored.evidence if one.category is category]
        settled = next((one.name for one in evidence if one.settled), None)
        shown = ", ".join(f"{one.name} {one.weight:+.2f}" for one in evidence[:_MOST_EVIDENCE_SHOWN])
        steps = [TraceStep(step="evidence", detail=(shown or "nothing spoke for any category")[:_DETAIL_CHARACTERS])]
        if points > 1:
            steps.append(TraceStep(step="points", detail=f"{points} points; safety of account and money first"))
        if told.found:
            places = ", ".join(f"{one.field} {one.value} at {one.start}-{one.end}" for one in told.found)
            steps.append(TraceStep(step="facts", detail=places[:_DETAIL_CHARACTERS]))
        if by_subject:
            steps.append(TraceStep(step="subject", detail="the text alone left it open; the subject was read with it"))
        if triage:
            enough = f"confidence below the {self.model.thresholds[category]:.4f} that {category} needs"
            steps.append(
                TraceStep(step="triage", detail=f"{enough if evidence else 'not understood'}: a person decides")
            )
        return DecisionTrace(
            decided_by=f"rule:{settled}" if settled else "model", model=self.model.name, steps=tuple(steps)
        )


def _leaves_open(scored: Scored) -> bool:
    return scored.confidence < _LEAST_SURE or scored.best is Category.OTHER


def _with_subject(message: Message) -> str:
    return f"{message.subject}\n{message.text}"


def _gravest(points: Sequence[_Point]) -> _Point:
    """The point that gives the message its category: of those that are likely, the gravest, then the most urgent by
    its category, then the surest.
    """
    likely = [point for point in points if point.scored.confidence >= _LEAST_SURE]

    def weight(point: _Point) -> tuple[int, Priority, float]:
        best = point.scored.best
        return rank_of(best), CATEGORIES[best].priority, -point.scored.confidence

    return min(likely or points, key=weight)


def rank_of(category: Category) -> int:
    """Place in the tie-break of the taxonomy: the lower wins, equals do not displace each other."""
    return _RANK.get(category, _USUAL_RANK)


def _asks_only(concepts: frozenset[str], told: Told, rulebook: Rulebook) -> bool:
    """A question, and nothing of a case of the customer's own; what would happen "if" is no case, unless it is a threat
    of what the customer will do.
    """
    asks = not concepts.isdisjoint({"question", "question_mark", "how", "what_is", "when_arrive", "conditional"})
    if not asks:
        return False
    if "conditional" in concepts:
        return told.facts.order_no is None and "threat" not in concepts
    return told.happened_at is None and told.facts.order_no is None and concepts.isdisjoint(rulebook.own_case)


def _reported(probability: float) -> float:
    """Four digits, rounded down: never more than the model said, and 1 only of what a person has decided."""
    return min(_MOST_CONFIDENT, math.floor(round(probability * _CONFIDENCE_UNITS, 6)) / _CONFIDENCE_UNITS)


def _alternatives(points: Sequence[_Point], category: Category) -> tuple[Alternative, ...]:
    """What else it could be, of all points, the likeliest first."""
    scores: Iterable[float] = points[0].scored.probabilities
    if len(points) > 1:
        scores = map(max, zip(*(point.scored.probabilities for point in points), strict=True))
    likely = [(-score, place) for place, score in enumerate(scores) if score >= _LEAST_ALTERNATIVE_SCORE]
    ranked = [(_CATEGORIES[place], -score) for score, place in sorted(likely)]
    others = [(one, score) for one, score in ranked if one is not category][:_MOST_ALTERNATIVES]
    return tuple(Alternative(category=one, score=_reported(score)) for one, score in others)


def _point(point: _Point) -> Point:
    passage = point.passage
    return Point(category=point.scored.best, start=passage.start, end=passage.end, text=passage.text)
