"""The first model: rules over concepts, each adding a weight to a category, and a softmax over the sums.

It knows concepts, not words, so one set of rules serves every language and mixed messages too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from shared.taxonomy import Category

_CATEGORIES: Final = tuple(Category)
_TERM: Final = re.compile(r"(!?)([a-z0-9_]+(?:\|[a-z0-9_]+)*)")


class BadRule(ValueError):
    """A rule of the model that cannot be read; the message names it."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """One rule that spoke: `name` is its expression or, for a settled case, its name."""

    name: str
    category: Category
    weight: float
    settled: bool = False


@dataclass(frozen=True, slots=True)
class Scored:
    """What a model makes of a passage. `logits` and `probabilities` are in the order of `Category`."""

    logits: tuple[float, ...]
    probabilities: tuple[float, ...]
    evidence: tuple[Evidence, ...]

    @property
    def best(self) -> Category:
        return _CATEGORIES[max(range(len(_CATEGORIES)), key=self.logits.__getitem__)]

    def logit(self, category: Category) -> float:
        return self.logits[_CATEGORIES.index(category)]

    def probability(self, category: Category) -> float:
        return self.probabilities[_CATEGORIES.index(category)]


class Model(Protocol):
    """What gives a passage its scores. A model behind this interface calibrates itself: a probability of 0.8 should be
    right in eight of ten cases.
    """

    @property
    def name(self) -> str:
        """Name and version; stored with every decision."""

    def score(self, passages: Sequence[Passage]) -> list[Scored]:
        """One result for each passage, in order."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A stretch of a message, as written, and the concepts found in it."""

    text: str
    concepts: frozenset[str]


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


class RuleModel:
    """Weights of rules, summed. `settled` cases come after the rules and weigh enough to decide."""

    def __init__(self, data: Mapping[str, Any], known: Collection[str]) -> None:
        self._name = f"{data['name']}-{data['version']}"
        self._temperature = float(data["temperature"])
        self._bias = [float(data["bias"].get(category.value, 0.0)) for category in _CATEGORIES]
        self._by_first: dict[str, list[_Rule]] = {}
        self._order = {category: index for index, category in enumerate(_CATEGORIES)}
        for code, rules in data["rules"].items():
            for expression, weight in rules.items():
                evidence = Evidence(expression, Category(code), float(weight))
                self._add(_Rule(evidence, condition(expression, known)))
        for name, case in data["settled"].items():
            evidence = Evidence(name, Category(case["category"]), float(case["weight"]), settled=True)
            self._add(_Rule(evidence, condition(case["when"], known)))

    @property
    def name(self) -> str:
        return self._name

    def score(self, passages: Sequence[Passage]) -> list[Scored]:
        return [self._score(passage.concepts) for passage in passages]

    def _add(self, rule: _Rule) -> None:
        # A rule is looked at only when one of the concepts of its first term was found.
        if not rule.condition.all_of:
            raise BadRule(f"rule {rule.evidence.name!r} needs a concept that must be there")
        for concept in rule.condition.all_of[0]:
            self._by_first.setdefault(concept, []).append(rule)

    def _score(self, concepts: frozenset[str]) -> Scored:
        logits = list(self._bias)
        spoken: dict[Evidence, None] = {}
        for concept in concepts:
            for rule in self._by_first.get(concept, ()):
                if rule.condition.holds(concepts):
                    spoken[rule.evidence] = None
        # Sets have no order, a trace has: the heaviest first. Sums of floats depend on it too: added up as the set
        # happens to be ordered, two even categories would change places from one process to the next.
        ranked = sorted(spoken, key=lambda one: (-abs(one.weight), one.name, one.category))
        for evidence in ranked:
            logits[self._order[evidence.category]] += evidence.weight
        return Scored(tuple(logits), softmax(logits, self._temperature), tuple(ranked))


def softmax(logits: Sequence[float], temperature: float) -> tuple[float, ...]:
    top = max(logits)
    exponentials = [math.exp((logit - top) / temperature) for logit in logits]
    total = sum(exponentials)
    return tuple(value / total for value in exponentials)
