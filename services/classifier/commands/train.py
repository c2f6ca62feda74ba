"""`train`: a model from a company's own labelled messages, judged by cross-validation, with its card."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from services.classifier.commands import finish
from services.classifier.learning.examples import BadFile, Example, rare_labels, read_examples, without_repetitions

_WITHOUT_OUT: Final = Path("models")
_DESCRIPTION: Final = """\
Reads one example a line (UTF-8): text, tab, label, and if there a third column `language` (zh, en, other); a header is
recognised. Any set of labels will do. Judges by cross-validation, trains on all, and writes a model and its card."""


def main(arguments: Sequence[str]) -> int:
    """The exit status: 0, or 2 for a file that cannot be used or an extra that is not installed."""
    parser = argparse.ArgumentParser(
        prog="python -m services.classifier train",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, metavar="FILE.tsv")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: models/VERSION; a model there is replaced")
    parser.add_argument("--encoder", action=argparse.BooleanOptionalAction, default=True, help=_ENCODER_HELP)
    parser.add_argument("--folds", type=_folds, default=5, metavar="N", help="of the cross-validation; default 5")
    parser.add_argument("--seed", type=int, default=20, metavar="N", help="of the cross-validation; default 20")
    parser.add_argument(
        "--precision", type=_share, default=0.9, metavar="SHARE", help="that thresholds are chosen for; default 0.9"
    )
    parser.add_argument("--skip-rare", action="store_true", help="leave out labels with fewer examples than folds")
    options = parser.parse_args(arguments)
    return finish("train", lambda: _train(options))


_ENCODER_HELP: Final = "with the sentence encoder (the default) or without: less accurate, many times faster"


def _folds(value: str) -> int:
    folds = int(value)
    if folds < 2:
        raise argparse.ArgumentTypeError("at least 2")
    return folds


def _share(value: str) -> float:
    share = float(value)
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError("between 0 and 1")
    return share


def _train(options: argparse.Namespace) -> None:
    """Raises BadFile, OSError and ImportError."""
    examples = _examples(options.data, options.folds, skip_rare=options.skip_rare)
    # Imported here: what the file lacks is said without the libraries, and in a moment.
    from services.classifier.learning.card import CARD_FILE, PICTURE_FILE, card, risk_coverage_svg
    from services.classifier.learning.features import Feature
    from services.classifier.learning.metrics import measure
    from services.classifier.learning.model import WEIGHTS_FILE, Settings, save
    from services.classifier.learning.training import CannotTrain, train

    features = (Feature.TOKENS, Feature.PIECES, *([Feature.ENCODER] if options.encoder else []))
    settings = Settings(features=features, folds=options.folds, seed=options.seed, precision=options.precision)
    begun = time.monotonic()
    try:
        trained = train(examples, settings, _tell)
    except CannotTrain as error:
        raise BadFile(f"{options.data}: {error}") from None
    seconds = time.monotonic() - begun
    model = trained.model
    directory = options.out or _WITHOUT_OUT / model.version
    save(model, directory)
    (directory / CARD_FILE).write_text(
        card(
            model,
            examples,
            trained.judged,
            source=options.data.name,
            made_on=datetime.now(UTC).date(),
            seconds=seconds,
        ),
        encoding="utf-8",
    )
    (directory / PICTURE_FILE).write_text(risk_coverage_svg(trained.judged), encoding="utf-8")
    figures = measure(trained.judged)
    print(f"{model.name}: {len(examples):,} examples, {len(model.labels)} labels, {seconds:.1f} s")
    print(
        f"cross-validated: accuracy {figures.accuracy:.4f}, macro-F1 {figures.macro_f1:.4f}, ECE {figures.ece:.4f} "
        "(15 bins)"
    )
    size = (directory / WEIGHTS_FILE).stat().st_size / 1e6
    print(f"{directory}: {size:.1f} MB; {CARD_FILE} says more")


def _examples(path: Path, folds: int, *, skip_rare: bool) -> list[Example]:
    """Raises BadFile."""
    everything = read_examples(path)
    examples = without_repetitions(everything)
    if repeated := len(everything) - len(examples):
        _tell(f"{repeated:,} repeated examples count once")
    rare = rare_labels(examples, folds)
    if rare and not skip_rare:
        named = ", ".join(f"{label} ({count})" for label, count in rare.items())
        raise BadFile(
            f"{path}: too few examples (each label needs {folds}, one for each fold): {named}; add examples, join "
            "labels, or leave them out with --skip-rare"
        )
    if rare:
        _tell(f"left out, too few examples: {', '.join(rare)}")
    kept = [example for example in examples if example.label not in rare]
    if len({example.label for example in kept}) < 2:
        raise BadFile(f"{path}: fewer than two labels with enough examples; there is nothing to tell apart")
    return kept


def _tell(line: str) -> None:
    print(line, file=sys.stderr)
