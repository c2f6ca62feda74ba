"""The shipped model: that it belongs to the corpus and the rules here, and how it decides."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from services.classifier.commands import evaluate, rebuild
from services.classifier.domain.decide import Classifier, Message
from services.classifier.domain.rulebook import load_rulebook
from services.classifier.learning.corpus import CORPUS, read_corpus, with_own
from services.classifier.learning.examples import BadFile, Example
from services.classifier.learning.model import BadModel, load
from services.classifier.learning.shipped import SHIPPED, Mix, read_decision, shipped_model
from services.classifier.learning.training import version_of
from shared.taxonomy import Category, Queue

CLASSIFIER = Classifier()
COUNT = len(Category)
SECURITY = list(Category).index(Category.ACCOUNT_SECURITY)


@pytest.fixture(scope="module")
def corpus() -> list[Example]:
    return read_corpus()


def test_the_model_is_that_of_this_corpus_and_these_rules(corpus: list[Example]) -> None:
    decision = read_decision(SHIPPED)
    made_of = {"rules": decision.rules, "words": decision.words}
    here = {"rules": load_rulebook().version, "words": version_of(corpus, load(SHIPPED).settings)}
    assert made_of == here, "corpus or rules have changed since: run `make train`"
    assert decision.mix == Mix(), "the mix has changed since: run `make train`"


def test_the_corpus_has_every_category_in_both_languages(corpus: list[Example]) -> None:
    counts = Counter((example.language, example.label) for example in corpus)
    assert min(counts[language, category] for language in ("zh", "en") for category in Category) >= 100
    assert min(Counter(example.language for example in corpus).values()) >= 5_000


def test_a_message_stands_in_the_file_of_its_category(corpus: list[Example]) -> None:
    by_file = {path: path.stem for path in CORPUS.glob("*/*.tsv")}
    for path, category in by_file.items():
        lines = path.read_text(encoding="utf-8").splitlines()
        assert lines[0] == "text\tlabel"
        assert {line.split("\t")[1] for line in lines[1:]} == {category}, path


def test_a_message_that_comes_twice_is_named(tmp_path: Path) -> None:
    for language in ("en", "zh"):
        (tmp_path / language).mkdir()
        (tmp_path / language / "other.tsv").write_text("text\tlabel\nok\tother\n", encoding="utf-8")
    with pytest.raises(BadFile, match=r"zh.other\.tsv:2: stands in .*en.other\.tsv too"):
        read_corpus(tmp_path)


def test_a_theft_is_not_missed_for_being_the_second_guess() -> None:
    enough = Mix().prefer[Category.ACCOUNT_SECURITY]
    chances = np.zeros((3, COUNT))
    chances[:, 5] = [1 - enough, 1 - enough + 0.01, 0.0]
    chances[:, SECURITY] = [enough, enough - 0.01, 1.0]
    assert Mix().choose(chances) == [Category.ACCOUNT_SECURITY, list(Category)[5], Category.ACCOUNT_SECURITY]


TEXTS = [
    "付款失败",
    "",
    "我的卡被盗刷了，另外怎么提现",
    "How do I link my card?",
    "asdf",
    "充值没到账" * 30,
    "謝謝",
    "？",
]


def test_many_at_once_are_decided_as_one_by_one() -> None:
    messages = [Message(text, subject=subject) for text in TEXTS for subject in (None, "Refund")]
    together = CLASSIFIER.classify_all(messages)
    for message, decision in zip(messages, together, strict=True):
        alone = CLASSIFIER.classify(message)
        assert decision == alone
    assert CLASSIFIER.classify_all([]) == []


def test_the_trace_shows_what_spoke_rules_and_terms_and_names_the_model() -> None:
    decision = CLASSIFIER.classify(Message("话费充值一直没到账"))
    evidence = decision.trace.steps[0].detail
    assert "not_arrived" in evidence  # a rule
    assert "“没到”" in evidence  # what was learnt
    assert decision.trace.model == CLASSIFIER.model.name
    assert decision.alternatives == tuple(sorted(decision.alternatives, key=lambda one: -one.score))


def test_each_category_has_a_threshold_of_its_own() -> None:
    assert set(CLASSIFIER.model.thresholds) == set(Category)
    for text in ("付款失败", "I want a refund", "怎么提现", "你好"):
        decision = CLASSIFIER.classify(Message(text))
        below = decision.confidence < CLASSIFIER.model.thresholds[decision.category]
        assert (decision.queue is Queue.TRIAGE) == below


def test_a_model_that_cannot_be_used_says_why(tmp_path: Path) -> None:
    rulebook = load_rulebook()
    with pytest.raises(BadModel, match=r"decision\.json: cannot be read: .*; `make train` writes it"):
        shipped_model(rulebook, tmp_path / "nowhere")
    mixed_up, foreign = tmp_path / "mixed_up", tmp_path / "foreign"
    for directory in (mixed_up, foreign):
        shutil.copytree(SHIPPED, directory)
    path = mixed_up / "decision.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"words": "', '"words": "0'), encoding="utf-8")
    with pytest.raises(BadModel, match=r"the words are version [0-9a-f]+, decision\.json names 0"):
        shipped_model(rulebook, mixed_up)
    path = foreign / "decision.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(data | {"precision": 2}), encoding="utf-8")
    with pytest.raises(BadModel, match=r"decision\.json: precision: Input should be less than 1"):
        shipped_model(rulebook, foreign)


def test_own_messages_are_learnt_from_beside_the_corpus_and_are_right(tmp_path: Path, corpus: list[Example]) -> None:
    told = corpus[0]
    other = Category.OTHER if told.label != Category.OTHER else Category.REFUND
    own = [Example("花开两朵各表一枝", "feedback"), Example(told.text, other)]
    both = with_own(corpus, own)
    assert len(both) == len(corpus) + 1
    assert {example.text: example.label for example in both}[told.text] == other


def test_a_model_of_ones_own_takes_the_place_of_the_shipped_one(
    tmp_path: Path, corpus: list[Example], capsys: pytest.CaptureFixture[str]
) -> None:
    own, out = tmp_path / "own.tsv", tmp_path / "model"
    own.write_text("".join(f"芝麻开门{word}\tfeedback\n" for word in "一二三四五六七八九十"), encoding="utf-8")
    with pytest.raises(SystemExit):
        rebuild.main(["--data", str(own)])
    assert "--data needs --out" in capsys.readouterr().err
    assert rebuild.main(["--data", str(own), "--out", str(out)]) == 0
    assert capsys.readouterr().out.startswith(f"{len(corpus) + 10:,} examples")
    model = shipped_model(load_rulebook(), out)
    assert Classifier(model=model).classify(Message("芝麻开门")).category is Category.FEEDBACK
    assert CLASSIFIER.classify(Message("芝麻开门")).category is not Category.FEEDBACK
    assert model.name != CLASSIFIER.model.name
    assert evaluate.main(["--data", str(own), "--model", str(out)]) == 0
    assert capsys.readouterr().out.startswith(f"{model.name} on own.tsv: 10 examples")
