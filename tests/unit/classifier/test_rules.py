"""The rules as data: they load, name what is there, and hide nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pydantic import RootModel

from services.classifier.domain.lexicon import BadTerm, Lexicon
from services.classifier.domain.rulebook import RULES, load_rulebook
from services.classifier.domain.scoring import BadRule, RuleModel, condition
from services.classifier.domain.text import fold, read
from shared.yaml_files import load_yaml

FILES = ("concepts_zh.yaml", "concepts_en.yaml")


class Concepts(RootModel[dict[str, tuple[str, ...]]]):
    """A file of concepts."""


def concepts_of(file: str) -> dict[str, tuple[str, ...]]:
    return load_yaml(RULES / file, Concepts).root


@pytest.mark.parametrize("file", FILES)
def test_no_concept_stands_twice(file: str) -> None:
    # `load_yaml` refuses a key that stands twice; the faster loader of the service would keep the last.
    assert concepts_of(file)


def _spellings(term: str) -> Iterator[str]:
    if "(" not in term and "~" not in term:
        yield term


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("grave", ["stolen", "scam", "report_loss", "self_harm", "threat", "anger"])
def test_no_longer_term_hides_what_is_grave(file: str, grave: str) -> None:
    """The longer term wins: a harmless one must not swallow "was robbed". A bare doubt ("is it a scam") may, and so
    may what is there to hide a word that is not meant ("垃圾短信").
    """
    lexicon = load_rulebook().lexicon
    concepts = concepts_of(file)
    grave_terms = [read(term).tokens for term in concepts[grave] if "~" not in term and "(" not in term]
    for concept, terms in concepts.items():
        if concept in {grave, "suspicion", "safety_topic", "no_urgency"}:
            continue
        for spelling in (spelling for term in terms for spelling in _spellings(term)):
            tokens = read(spelling).tokens
            holds = any(
                tokens[at : at + len(one)] == one for one in grave_terms for at in range(len(tokens) - len(one) + 1)
            )
            if holds:
                assert grave in {hit.concept for hit in lexicon.find(read(spelling))[0]}, f"{concept}: {spelling}"


def found(lexicon: Lexicon, text: str) -> list[tuple[str, str]]:
    return [(hit.concept, text[hit.start : hit.end]) for hit in lexicon.find(read(text))[0]]


def test_terms_alternatives_gaps_and_numbers() -> None:
    lexicon = Lexicon(
        {"late": ["(not|never) ~ (arrive|come)"], "again": ["第\\d次"], "no": ["不可以"], "may": ["可不可以"]}
    )
    assert found(lexicon, "it did not really arrive") == [("late", "not really arrive")]
    assert found(lexicon, "It NEVER arrived") == [("late", "NEVER arrived")]
    assert found(lexicon, "not here. Arrive") == [("late", "not here. Arrive")]
    assert found(lexicon, "not here! Arrive") == []  # a gap does not reach over the end of a sentence
    assert found(lexicon, "第12次") == [("again", "第12次")]
    assert found(lexicon, "可不可以") == [("may", "可不可以")]
    assert found(lexicon, "不可以") == [("no", "不可以")]


def test_concepts_apart_hide_only_each_other() -> None:
    lexicon = Lexicon(
        {"complaint": ["投诉"], "angry": ["垃圾"], "threat": ["向央行投诉"], "meant_otherwise": ["垃圾短信"]},
        apart=frozenset({"angry", "threat", "meant_otherwise"}),
    )
    assert found(lexicon, "向央行投诉") == [("threat", "向央行投诉"), ("complaint", "投诉")]
    assert found(lexicon, "垃圾短信") == [("meant_otherwise", "垃圾短信")]


@pytest.mark.parametrize("term", ["~ arrive", "", "(|a)"])
def test_a_term_must_begin_with_a_word(term: str) -> None:
    with pytest.raises(BadTerm, match="begin with a word"):
        Lexicon({"concept": [term]})


def test_a_condition_reads_and_or_not() -> None:
    holds = condition("a b|c !d", {"a", "b", "c", "d"}).holds
    assert holds(frozenset("ab"))
    assert holds(frozenset("ac"))
    assert not holds(frozenset("a"))
    assert not holds(frozenset("abd"))


@pytest.mark.parametrize(("expression", "said"), [("a & b", "cannot read '&'"), ("a x", "no concept named x")])
def test_a_condition_that_cannot_be_read_says_why(expression: str, said: str) -> None:
    with pytest.raises(BadRule, match=said):
        condition(expression, {"a", "b"})


class Ordered(frozenset[str]):
    """A set that is gone through in the order of its letters, or against it."""

    backwards = False

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(frozenset.__iter__(self), reverse=self.backwards))


class Backwards(Ordered):
    backwards = True


def test_the_order_of_a_set_of_concepts_has_no_say() -> None:
    """Python orders a set anew in every process; 0.1 + 0.2 + 0.3 and 0.3 + 0.2 + 0.1 differ in the last digit."""
    rules = {"refund": {"a": 0.1, "b": 0.2, "c": 0.3}, "top_up": {"a": 0.1}}
    model = RuleModel({"bias": {}, "rules": rules, "settled": {}}, {"a", "b", "c"})
    assert model.weigh(Ordered("abc")) == model.weigh(Backwards("abc"))


def test_folding_keeps_every_offset() -> None:
    text = "ＡＰＰ帳戶被盜，Password [card] 李's"
    assert len(fold(text)) == len(text)
    assert fold(text) == "app账户被盗,password        李's"
