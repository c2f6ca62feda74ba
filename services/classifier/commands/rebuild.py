"""`rebuild`: the shipped model anew, from the corpus and the rules in this repository. `make train` calls it."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from services.classifier.commands import finish
from services.classifier.domain.points import ReadText, whole
from services.classifier.domain.rulebook import Rulebook, load_rulebook
from services.classifier.domain.text import read
from services.classifier.learning.card import CARD_FILE, PICTURE_FILE, risk_coverage_svg, shipped_card
from services.classifier.learning.corpus import CORPUS, read_corpus, with_own
from services.classifier.learning.examples import BadFile, Example, read_examples
from services.classifier.learning.metrics import Judged, measure, threshold_for
from services.classifier.learning.model import WEIGHTS_FILE, Settings, save
from services.classifier.learning.shipped import SHIPPED, Decision, Mix, Numbers, by_category, save_decision
from shared.taxonomy import Category

_PRECISION: Final = 0.85
_DESCRIPTION: Final = """\
Trains on corpus/LANGUAGE/CATEGORY.tsv, judges by cross-validation, chooses a threshold for each category, and writes
the model and its card. The same corpus, rules and libraries give the same model."""


def main(arguments: Sequence[str]) -> int:
    """The exit status: 0, or 2 for a corpus that cannot be used or an extra that is not installed."""
    parser = argparse.ArgumentParser(
        prog="python -m services.classifier rebuild",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--data",
        type=Path,
        action="append",
        default=[],
        metavar="FILE.tsv",
        help="messages of your own (text, category), learnt from beside the corpus; may be given more than once",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: in the place of the shipped one")
    options = parser.parse_args(arguments)
    if options.data and options.out is None:
        parser.error("--data needs --out: the shipped model is made of the corpus alone")
    return finish("rebuild", lambda: _rebuild(options.data, options.out or SHIPPED))


def _rebuild(own: Sequence[Path], directory: Path) -> None:
    """Raises BadFile, ConfigError, OSError and ImportError."""
    # Imported here: a server that only decides has not what it takes to train, and is told so.
    from services.classifier.learning.training import CannotTrain, train

    examples = with_own(read_corpus(), [one for path in own for one in read_examples(path, list(Category))])
    rulebook = load_rulebook()
    begun = time.monotonic()
    try:
        words = train(examples, Settings(), lambda line: print(line, file=sys.stderr))
    except CannotTrain as error:
        raise BadFile(f"{CORPUS}: {error}") from None
    mix = Mix()
    judged = _judged(examples, _rule_sums(examples, rulebook), words.scores[:, by_category(words.model)], mix)
    thresholds = {
        category: threshold_for([one for one in judged if one.predicted == category], _PRECISION)
        for category in Category
    }
    decision = Decision(
        mix=mix,
        precision=_PRECISION,
        thresholds={category: 1.0 if least is None else least for category, least in thresholds.items()},
        rules=rulebook.version,
        words=words.model.version,
    )
    save(words.model, directory)
    save_decision(decision, directory)
    (directory / CARD_FILE).write_text(shipped_card(decision, examples, judged), encoding="utf-8")
    (directory / PICTURE_FILE).write_text(risk_coverage_svg(judged), encoding="utf-8")
    figures = measure(judged)
    size = (directory / WEIGHTS_FILE).stat().st_size / 1e6
    print(f"{len(examples):,} examples, {time.monotonic() - begun:.0f} s")
    print(
        f"cross-validated: accuracy {figures.accuracy:.4f}, macro-F1 {figures.macro_f1:.4f}, ECE {figures.ece:.4f} "
        "(15 bins)"
    )
    print(f"{directory}: {size:.1f} MB; {CARD_FILE} says more")


def _rule_sums(examples: Sequence[Example], rulebook: Rulebook) -> Numbers:
    """(examples, categories): what the rules say of each message as a whole."""
    sums = []
    for example in examples:
        reading = read(example.text)
        hits, _ = rulebook.lexicon.find(reading)
        sums.append(rulebook.rules.weigh(whole(ReadText(reading, hits), rulebook).concepts).sums)
    return np.array(sums)


def _judged(examples: Sequence[Example], rules: Numbers, words: Numbers, mix: Mix) -> list[Judged]:
    """Every message as it would have been decided, had the words not been trained on it."""
    chances = mix.probabilities(rules, words)
    categories = list(Category)
    return [
        Judged(example.label, category.value, float(row[categories.index(category)]), example.accepted)
        for example, category, row in zip(examples, mix.choose(chances), chances, strict=True)
    ]
