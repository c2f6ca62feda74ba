"""The shipped model: two opinions on a passage, added up.

The rules know what concepts mean together and keep the law of the taxonomy; the words are a learned model that knows
how customers write. In a directory: the learned model's files, and `decision.json`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.classifier.domain.rulebook import Rulebook
from services.classifier.domain.scoring import Evidence, Passage, Scored, Weighed
from services.classifier.learning.features import Feature, Placed
from services.classifier.learning.model import BadModel, TextModel, load, probabilities
from shared.taxonomy import Category

SHIPPED: Final = Path(__file__).resolve().parents[1] / "model"
DECISION_FILE: Final = "decision.json"
_CATEGORIES: Final = tuple(Category)
_VERSION_CHARACTERS: Final = 8
_MOST_TERMS_SHOWN: Final = 3
_LEAST_SHOWN: Final = 0.05
Numbers = npt.NDArray[np.float64]


class Mix(BaseModel):
    """How the two are added up; the words count once.

    These few numbers were fitted on real messages of both languages, which are not in the repository: ADR 11 tells how.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rules_weight: float = Field(default=0.2, ge=0)
    temperature: float = Field(default=0.4, gt=0, description="of the softmax over the sums")
    doubt: float = Field(
        default=0.03,
        ge=0,
        lt=1,
        description="share of the messages whose words, however plain, do not tell what they are about: any category",
    )
    prefer: dict[Category, float] = Field(
        default={Category.ACCOUNT_SECURITY: 0.15},
        description="taken from this probability on, whatever is likelier: to miss it is the worse mistake",
    )

    def probabilities(self, rules: Numbers, words: Numbers) -> Numbers:
        """Of each passage for each category, given their sums: (passages, categories) all."""
        chances = probabilities(words + self.rules_weight * rules, self.temperature)
        return (1 - self.doubt) * chances + self.doubt / len(_CATEGORIES)

    def choose(self, chances: Numbers) -> list[Category]:
        """The category of each passage, given its probabilities in the order of `Category`."""
        chosen = [_CATEGORIES[place] for place in chances.argmax(axis=1)]
        for category, enough in self.prefer.items():
            for row in np.flatnonzero(chances[:, _CATEGORIES.index(category)] >= enough):
                chosen[row] = category
        return chosen


class Decision(BaseModel):
    """decision.json. `thresholds`: confidence below which a person should decide; chosen so that, from it on, a share
    of `precision` is right. `rules` and `words`: versions of what they were chosen with.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mix: Mix
    precision: float = Field(gt=0, lt=1)
    thresholds: dict[Category, float]
    rules: str
    words: str


def by_category(words: TextModel) -> list[int]:
    """For each category the column that a learned model has it in: its labels are in the order of the alphabet."""
    return [words.labels.index(category) for category in _CATEGORIES]


class ShippedModel:
    """Rules and words. Implements `domain.scoring.Model`."""

    def __init__(self, rulebook: Rulebook, words: TextModel, decision: Decision) -> None:
        self._rules = rulebook.rules
        self._words = words
        self._columns = by_category(words)
        self._mix = decision.mix
        self.thresholds: Mapping[Category, float] = decision.thresholds
        made_of = json.dumps([decision.model_dump(mode="json"), rulebook.version], sort_keys=True)
        self.name = f"switchyard-{hashlib.sha256(made_of.encode()).hexdigest()[:_VERSION_CHARACTERS]}"

    def score(self, passages: Sequence[Passage]) -> list[Scored]:
        if not passages:
            return []
        weighed = [self._rules.weigh(passage.concepts) for passage in passages]
        placed = self._words.place([passage.tokens for passage in passages])
        words = self._words.weigh(placed, len(passages))[:, self._columns].astype(np.float64)
        chances = self._mix.probabilities(np.array([one.sums for one in weighed]), words)
        best = self._mix.choose(chances)
        return [
            Scored(category, tuple(row), self._evidence(category, weighed[place], placed, place))
            for place, (category, row) in enumerate(zip(best, chances.tolist(), strict=True))
        ]

    def _evidence(
        self, category: Category, weighed: Weighed, placed: Mapping[Feature, Placed], passage: int
    ) -> tuple[Evidence, ...]:
        """What spoke for the category, the heaviest first: its rules, and the terms that weighed most."""
        found = [
            Evidence(one.name, category, self._mix.rules_weight * one.weight, one.settled)
            for one in weighed.evidence
            if one.category is category
        ]
        column = self._columns[_CATEGORIES.index(category)]
        for feature, each in placed.items():
            inside = slice(each.starts[passage], each.starts[passage + 1])
            places = each.places[inside]
            weights = self._words.parts.weights[feature][places, column] * each.weights[inside]
            names = self._words.parts.terms[feature].names
            found += [
                Evidence(f"“{_shown(names[places[at]])}”", category, float(weights[at]))
                for at in weights.argsort(kind="stable")[::-1][:_MOST_TERMS_SHOWN]
                if weights[at] >= _LEAST_SHOWN
            ]
        return tuple(sorted(found, key=lambda one: -one.weight))


def _shown(term: str) -> str:
    """A run of Chinese characters as it was written, one of words with the blanks between them."""
    return term if term.isascii() else term.replace(" ", "")


def save_decision(decision: Decision, directory: Path) -> None:
    text = json.dumps(decision.model_dump(mode="json"), indent=2)
    (directory / DECISION_FILE).write_text(f"{text}\n", encoding="utf-8")


def read_decision(directory: Path) -> Decision:
    """Raises BadModel."""
    path = directory / DECISION_FILE
    try:
        return Decision.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BadModel(f"{path}: cannot be read: {error.strerror}; `make train` writes it") from None
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise BadModel(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}; `make train` writes it") from None


@lru_cache(maxsize=2)
def _loaded(directory: Path) -> tuple[TextModel, Decision]:
    decision, words = read_decision(directory), load(directory)
    if words.version != decision.words:
        raise BadModel(f"{directory}: the words are version {words.version}, {DECISION_FILE} names {decision.words}")
    if set(words.labels) != set(_CATEGORIES):
        raise BadModel(f"{directory}: the labels are not the categories of the taxonomy")
    return words, decision


def shipped_model(rulebook: Rulebook, directory: Path = SHIPPED) -> ShippedModel:
    """The model of a directory, read once a process. Raises BadModel."""
    return ShippedModel(rulebook, *_loaded(directory))
