"""What a model is to the classifier; and rules over concepts, each adding a weight to a category.

The rules know concepts, not words, so one set of them serves every language and mixed messages too.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from services.classifier.domain.text import Token
from shared.taxonomy import Category

_CATEGORIES: Final = tuple(Category)
_PLACES: Final = {category: place for place, category in enumerate(_CATEGORIES)}
_TERM: Final = re.compile(r"(!?)([a-z0-9_]+(?:\|[a-z0-9_]+)*)")


class BadRule(ValueError):
    """A rule of the model that cannot be read; the message names it."""


@dataclass(frozen=True, slots=True)
class Passage:
    """`text[start:end]` of a message, as it was written; its tokens, and the concepts found in it."""

    start: int
    end: int
    text: str
    tokens: Sequence[Token]
    concepts: frozenset[str]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What spoke for a category, or with a negative weight against it: a rule (`name` is its expression or, for a
    settled case, its name) or a term that was learnt. Weights of one decision are in one unit.
    """

    name: str
    category: Category
    weight: float
    settled: bool = False


@dataclass(frozen=True, slots=True)
class Scored:
    """What a model makes of a passage. `probabilities` are in the order of `Category`. `best` is the likeliest, unless
    the model prefers another: a theft must not be missed for being the second guess.
    """

    best: Category
    probabilities: tuple[float, ...]
    evidence: tuple[Evidence, ...]

    def probability(self, category: Category) -> float:
        return self.probabilities[_PLACES[category]]

    @property
    def confidence(self) -> float:
        return self.probability(self.best)


class Model(Protocol):
    """What gives a passage its scores. A model behind this interface calibrates itself: a probability of 0.8 should be
    right in eight of ten cases.
    """

    @property
    def name(self) -> str:
        """Name and version; stored with every decision."""

    @property
    def thresholds(self) -> Mapping[Category, float]:
        """For each category the confidence below which a person should decide."""

    def score(self, passages: Sequence[Passage]) -> list[Scored]:
        """One result for each passage, in order."""


@dataclass(frozen=True, slots=True)
class Condition:
    """`a b|c !d`: a, and one of b or c, and not d."""

    all_of: tuple[frozenset[str], ...]
    none_of: frozenset[str]

    def holds(self, concepts: frozenset[str]) -> bool:
        return self.none_of.isdisjoint(concepts) and not any(map(concepts.isdisjoint, self.all_of))


def condition(expression: str, known: Collection[str]) -> Condition:
    """Raises BadRule when the expression does not parse or names an unknown concept."""
    all_of: list[frozenset[str]] = []
    none_of: set[str] = set()
    for term in str(expression).split():
        parsed = _TERM.fullmatch(term)
        if parsed is None:
            raise BadRule(f"rule {expression!r}: cannot read {term!r}; write concept, concept|concept or !concept")
        names = frozenset(parsed[2].split("|"))
        if unknown := names - frozenset(known):
            raise BadRule(f"rule {expression!r}: no concept named {', '.join(sorted(unknown))}")
        if parsed[1]:
            none_of |= names
        else:
            all_of.append(names)
    return Condition(tuple(all_of), frozenset(none_of))


@dataclass(frozen=True, slots=True)
class _Rule:
    evidence: Evidence
    condition: Condition


@dataclass(frozen=True, slots=True)
class Weighed:
    """What the rules make of a passage: sums of weights in the order of `Category`, and the rules that spoke."""

    sums: tuple[float, ...]
    evidence: tuple[Evidence, ...]

    @property
    def best(self) -> Category:
        return _CATEGORIES[max(range(len(_CATEGORIES)), key=self.sums.__getitem__)]

    def weight(self, category: Category) -> float:
        return self.sums[_PLACES[category]]


class RuleModel:
    """Weights of rules, summed. `settled` cases come after the rules and weigh enough to decide among them."""

    def __init__(self, data: Mapping[str, Any], known: Collection[str]) -> None:
        self._bias = [float(data["bias"].get(category.value, 0.0)) for category in _CATEGORIES]
        self._by_first: dict[str, list[_Rule]] = {}
        for code, rules in data["rules"].items():
            for expression, weight in rules.items():
                evidence = Evidence(expression, Category(code), float(weight))
                self._add(_Rule(evidence, condition(expression, known)))
        for name, case in data["settled"].items():
            evidence = Evidence(name, Category(case["category"]), float(case["weight"]), settled=True)
            self._add(_Rule(evidence, condition(case["when"], known)))

    def weigh(self, concepts: frozenset[str]) -> Weighed:
        sums = list(self._bias)
        spoken: dict[Evidence, None] = {}
        for concept in concepts:
            for rule in self._by_first.get(concept, ()):
                if rule.condition.holds(concepts):
                    spoken[rule.evidence] = None
        # Sets have no order, a trace has: the heaviest first. Sums of floats depend on it too: added up as the set
        # happens to be ordered, two even categories would change places from one process to the next.
        ranked = sorted(spoken, key=lambda one: (-abs(one.weight), one.name, one.category))
        for evidence in ranked:
            sums[_PLACES[evidence.category]] += evidence.weight
        return Weighed(tuple(sums), tuple(ranked))

    def _add(self, rule: _Rule) -> None:
        # A rule is looked at only when one of the concepts of its first term was found.
        if not rule.condition.all_of:
            raise BadRule(f"rule {rule.evidence.name!r} needs a concept that must be there")
        for concept in rule.condition.all_of[0]:
            self._by_first.setdefault(concept, []).append(rule)
