"""The rules, read once from YAML and checked: concepts, weights, values, languages, priorities."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Self

import yaml
from pydantic import model_validator

from services.classifier.domain.lexicon import BadTerm, Lexicon
from services.classifier.domain.priority import BrandPolicy, ClassifierBrand, PriorityPolicy, PriorityRules
from services.classifier.domain.scoring import BadRule, RuleModel
from shared.brands import BRANDS_DIRECTORY, load_brands
from shared.yaml_files import ConfigError, load_yaml, refused

RULES: Final = Path(__file__).resolve().parents[1] / "rules"
PRIORITIES: Final = RULES / "priorities.yaml"
_DECIDE_CATEGORIES: Final = ("concepts_zh.yaml", "concepts_en.yaml", "model.yaml")
_VERSION_CHARACTERS: Final = 8

# Concepts that stand for the shape of a message, not for words in it.
NOTHING_SAID: Final = "nothing_said"
ONLY_SMALL_TALK: Final = "only_small_talk"
# How urgent it is said to be, whatever it is about: "向央行投诉" is a threat, and still a complaint.
_URGENCY: Final = frozenset({"self_harm", "threat", "repeat_contact", "anger", "no_urgency"})


@dataclass(frozen=True, slots=True)
class Rulebook:
    """Everything that is data. `matters` makes a sentence a point; `own_case` tells a case from a question.

    `version`: names the concepts and the rules that speak for categories; change either, and it is another.
    """

    version: str
    lexicon: Lexicon
    rules: RuleModel
    priorities: PriorityRules
    english: frozenset[str]
    other_latin: frozenset[str]
    matters: frozenset[str]
    own_case: frozenset[str]
    small_talk: frozenset[str]
    plain_enough: float


def _load(path: Path) -> Mapping[str, Any]:
    # Our own files, too large for `load_yaml`: the C loader takes 15 ms for what the Python one reads in half a second.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)  # noqa: S506 - both loaders are the safe one
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: must be a mapping, is {type(data).__name__}")
    return data


@lru_cache(maxsize=4)
def load_rulebook(priorities: Path = PRIORITIES, brands: Path = BRANDS_DIRECTORY) -> Rulebook:
    """The shipped rules, with `priorities` in place of the shipped priorities, and what the files in `brands` say of
    priorities. Raises ConfigError.
    """
    terms: dict[str, list[str]] = {}
    for language in ("zh", "en"):
        for concept, spoken in _load(RULES / f"concepts_{language}.yaml").items():
            terms.setdefault(concept, []).extend(spoken)
    concepts = frozenset(terms) | {NOTHING_SAID, ONLY_SMALL_TALK}
    values = {
        (fact, str(value)): spoken
        for fact, named in _load(RULES / "values.yaml").items()
        for value, spoken in named.items()
    }
    model = _load(RULES / "model.yaml")
    languages = _load(RULES / "languages.yaml")
    policy = load_yaml(priorities, PriorityPolicy)
    of_brands = _load_brands(brands, policy)
    try:
        return Rulebook(
            version=_version(),
            lexicon=Lexicon(terms, values, _URGENCY),
            rules=RuleModel(model, concepts),
            priorities=PriorityRules(policy, concepts, of_brands),
            english=frozenset(languages["english"]),
            other_latin=frozenset(languages["other"]),
            matters=_known(model["matters"], concepts),
            own_case=_known(model["own_case"], concepts),
            small_talk=_known(model["small_talk"], concepts),
            plain_enough=float(model["plain_enough"]),
        )
    except (BadTerm, BadRule) as error:
        raise ConfigError(f"{priorities}, {RULES}: {error}") from error


def _load_brands(directory: Path, policy: PriorityPolicy) -> Mapping[str, BrandPolicy]:
    class Checked(ClassifierBrand):
        @model_validator(mode="after")
        def _names_what_is_there(self) -> Self:
            if faults := policy.faults_of(self.priorities):
                raise refused([(("priorities", *field), why) for field, why in faults])
            return self

    return {code: brand.priorities for code, brand in load_brands(directory, Checked).items()}


def _version() -> str:
    digest = hashlib.sha256()
    for name in _DECIDE_CATEGORIES:
        # What git makes of the ends of lines on another system is no other rule.
        digest.update((RULES / name).read_text(encoding="utf-8").encode())
    return digest.hexdigest()[:_VERSION_CHARACTERS]


def _known(names: list[str], concepts: frozenset[str]) -> frozenset[str]:
    if unknown := frozenset(names) - concepts:
        raise BadRule(f"model.yaml: no concept named {', '.join(sorted(unknown))}")
    return frozenset(names)
