"""`evaluate`: how good the shipped classifier, or a learned model, is on labelled messages."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from services.classifier.commands import finish
from services.classifier.domain.decide import Classifier, Message
from services.classifier.domain.rulebook import load_rulebook
from services.classifier.learning.card import report
from services.classifier.learning.examples import Example, read_examples
from services.classifier.learning.metrics import BINS, Figures, Judged, matrix, measure, risk_coverage
from services.classifier.learning.model import load
from services.classifier.learning.shipped import DECISION_FILE, SHIPPED, shipped_model
from shared.taxonomy import Category

_DESCRIPTION: Final = """\
Reads one example a line (UTF-8): text, tab, label, and if there a third column `alternatives` (other labels that are
right too, separated by commas); a header is recognised. Without --model, labels are the categories of the taxonomy."""


def main(arguments: Sequence[str]) -> int:
    """The exit status: 0, or 2 for a file or a model that cannot be used."""
    parser = argparse.ArgumentParser(
        prog="python -m services.classifier evaluate",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, metavar="FILE.tsv")
    parser.add_argument(
        "--model", type=Path, metavar="DIR", help="what `train` or `rebuild` wrote; default: the shipped classifier"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object, with the full confusion matrix")
    options = parser.parse_args(arguments)
    return finish("evaluate", lambda: _evaluate(options))


def _evaluate(options: argparse.Namespace) -> None:
    """Raises BadFile, ConfigError, OSError and ImportError."""
    name, judged = _judged(options.data, options.model)
    figures = measure(judged)
    with_alternatives = any(one.accepted - {one.truth} for one in judged)
    lenient = measure([one.lenient for one in judged]) if with_alternatives else None
    if options.json:
        print(json.dumps(as_object(name, options.data.name, judged, figures, lenient), ensure_ascii=False, indent=2))
    else:
        print(f"{name} on {options.data.name}: {len(judged):,} examples\n")
        print("\n".join(report(figures, lenient)))


def _judged(data: Path, model: Path | None) -> tuple[str, list[Judged]]:
    """Raises BadFile, ConfigError and ImportError."""
    if model is None or (model / DECISION_FILE).exists():
        rulebook = load_rulebook()
        classifier = Classifier(rulebook, shipped_model(rulebook, model or SHIPPED))
        examples = read_examples(data, list(Category))
        decisions = classifier.classify_all([Message(text=example.text) for example in examples])
        guesses = [(decision.category.value, decision.confidence) for decision in decisions]
        return classifier.model.name, _beside(examples, guesses)
    learned = load(model)
    examples = read_examples(data, learned.labels)
    found = learned.guesses([example.text for example in examples])
    return learned.name, _beside(examples, [(guess.label, guess.confidence) for guess in found])


def _beside(examples: Sequence[Example], guesses: Sequence[tuple[str, float]]) -> list[Judged]:
    return [
        Judged(example.label, label, confidence, example.accepted)
        for example, (label, confidence) in zip(examples, guesses, strict=True)
    ]


def as_object(
    name: str, data: str, judged: Sequence[Judged], figures: Figures, lenient: Figures | None
) -> dict[str, Any]:
    """What `--json` prints. `with_alternatives` is null where the file has none."""
    return {
        "model": name,
        "data": data,
        "ece_bins": BINS,
        "ece_binning": "equal width",
        "strict": asdict(figures),
        "with_alternatives": asdict(lenient) if lenient else None,
        "confusion_matrix": matrix(judged),
        "risk_coverage": [{"coverage": coverage, "risk": risk} for coverage, risk in risk_coverage(judged)],
    }
