"""One message in, one decision out: language, points, category, priority, facts, what is missing, queue, and why."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from services.classifier.domain.facts import FoundFact, Told, extract, missing
from services.classifier.domain.language import language_of
from services.classifier.domain.points import Stretch, stretches
from services.classifier.domain.priority import Situation
from services.classifier.domain.rulebook import Rulebook, load_rulebook
from services.classifier.domain.scoring import Model
from services.classifier.domain.text import read
from shared.events import Alternative, DecisionTrace, Facts, Point, Reason, TraceStep
from shared.taxonomy import CATEGORIES, Category, Channel, Fact, Language, Priority, Queue

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


class Classifier:
    """Rules and a model. `classify` has no effect but its result, and the same message gives the same result."""

    def __init__(self, rulebook: Rulebook | None = None, model: Model | None = None) -> None:
        self.rulebook = rulebook or load_rulebook()
        self.model: Model = model or self.rulebook.model

    def classify(self, message: Message) -> Decision:
        rulebook = self.rulebook
        reading = read(message.text)
        hits, values = rulebook.lexicon.find(reading)
        language = language_of(message.text, english=rulebook.english, other=rulebook.other_latin)
        told = extract(reading, values, language, message.sent_at)
        points = stretches(reading, hits, rulebook, self.model)
        chosen, by_subject = self._chosen(points, message)
        category = chosen.scored.best
        confidence = _reported(chosen.scored.probability(category))
        concepts = frozenset(hit.concept for hit in hits) | chosen.concepts
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
        queue = CATEGORIES[category].queue if confidence >= rulebook.triage_below else Queue.TRIAGE
        return Decision(
            language=language,
            category=category,
            confidence=confidence,
            alternatives=_alternatives(points if not by_subject else [chosen], category),
            points=tuple(_point(point, message.text) for point in points if message.text),
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
            trace=self._trace(chosen, len(points), by_subject=by_subject, triage=queue is Queue.TRIAGE),
            situation=situation,
        )

    def _chosen(self, points: Sequence[Stretch], message: Message) -> tuple[Stretch, bool]:
        """The point that gives the message its category. The subject helps where the text alone leaves it open."""
        likely = [point for point in points if point.scored.probability(point.scored.best) >= _LEAST_SURE]
        best = min(
            likely or points,
            key=lambda point: (rank_of(point.scored.best), -point.scored.probability(point.scored.best)),
        )
        if not message.subject or best.scored.probability(best.scored.best) >= _LEAST_SURE:
            return best, False
        together = read(f"{message.subject}\n{message.text}")
        hits, _ = self.rulebook.lexicon.find(together)
        helped = stretches(together, hits, self.rulebook, self.model)
        candidate = min(
            helped, key=lambda point: (rank_of(point.scored.best), -point.scored.probability(point.scored.best))
        )
        better = candidate.scored.probability(candidate.scored.best) > best.scored.probability(best.scored.best)
        return (candidate, True) if better else (best, False)

    def _trace(self, chosen: Stretch, points: int, *, by_subject: bool, triage: bool) -> DecisionTrace:
        category = chosen.scored.best
        evidence = [one for one in chosen.scored.evidence if one.category is category]
        settled = next((one.name for one in evidence if one.settled), None)
        shown = ", ".join(f"{one.name} {one.weight:+g}" for one in evidence[:_MOST_EVIDENCE_SHOWN])
        steps = [TraceStep(step="evidence", detail=(shown or "nothing spoke for any category")[:_DETAIL_CHARACTERS])]
        if points > 1:
            steps.append(TraceStep(step="points", detail=f"{points} points; safety of account and money first"))
        if by_subject:
            steps.append(TraceStep(step="subject", detail="the text alone left it open; the subject was read with it"))
        if triage:
            steps.append(
                TraceStep(step="triage", detail=f"confidence below {self.rulebook.triage_below:g}: a person decides")
            )
        return DecisionTrace(
            decided_by=f"rule:{settled}" if settled else "model", model=self.model.name, steps=tuple(steps)
        )


def rank_of(category: Category) -> int:
    """Place in the tie-break of the taxonomy: the lower wins, equals do not displace each other."""
    return _RANK.get(category, _USUAL_RANK)


def _asks_only(concepts: frozenset[str], told: Told, rulebook: Rulebook) -> bool:
    """A question, and nothing of a case of the customer's own; what would happen "if" is no case."""
    asks = not concepts.isdisjoint({"question", "question_mark", "how", "what_is", "when_arrive", "conditional"})
    if not asks:
        return False
    if "conditional" in concepts:
        return told.facts.order_no is None
    return told.happened_at is None and told.facts.order_no is None and concepts.isdisjoint(rulebook.own_case)


def _reported(probability: float) -> float:
    """Four digits, rounded down: never more than the model said, and 1 only of what a person has decided."""
    return min(_MOST_CONFIDENT, math.floor(round(probability * _CONFIDENCE_UNITS, 6)) / _CONFIDENCE_UNITS)


def _alternatives(points: Sequence[Stretch], category: Category) -> tuple[Alternative, ...]:
    scores: dict[Category, float] = {}
    for point in points:
        for one, probability in zip(Category, point.scored.probabilities, strict=True):
            scores[one] = max(probability, scores.get(one, 0.0))
    ranked = sorted(scores.items(), key=lambda item: -item[1])
    return tuple(
        Alternative(category=one, score=_reported(score))
        for one, score in ranked
        if one is not category and score >= _LEAST_ALTERNATIVE_SCORE
    )[:_MOST_ALTERNATIVES]


def _point(point: Stretch, text: str) -> Point:
    return Point(category=point.scored.best, start=point.start, end=point.end, text=text[point.start : point.end])
