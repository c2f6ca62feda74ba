"""The model card: what a learned model was made of and how good it is, for people (Mitchell et al., "Model cards for
model reporting", 2019); and tables of figures.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any, Final

from services.classifier.learning.examples import Example
from services.classifier.learning.features import LONGEST_PIECE, LONGEST_RUN, SHORTEST_PIECE, Feature
from services.classifier.learning.metrics import BINS, Figures, Judged, LabelFigures, measure, risk_coverage
from services.classifier.learning.model import TextModel
from services.classifier.learning.shipped import Decision

CARD_FILE: Final = "card.md"
PICTURE_FILE: Final = "risk_coverage.svg"
_MOST_CONFUSIONS: Final = 15
_READ_AS: Final = {
    Feature.TOKENS: f"runs of 1 to {LONGEST_RUN} tokens: Chinese characters, stems of words, numbers",
    Feature.PIECES: f"pieces of stems, {SHORTEST_PIECE} to {LONGEST_PIECE} letters",
    Feature.ENCODER: "sentence encoder (512 numbers)",
}


def card(
    model: TextModel,
    examples: Sequence[Example],
    judged: Sequence[Judged],
    *,
    source: str,
    made_on: date,
    seconds: float,
) -> str:
    """Of a model that a company trained: Markdown. `source`: the name of the file of examples. `seconds`: that training
    and judging took.
    """
    settings = model.settings
    return _document(
        f"# {model.name}",
        "",
        f"Sorts a customer's message into one of {len(model.labels)} labels. Made on {made_on} from `{source}`: "
        f"{len(examples):,} examples{_languages(examples)}, in {seconds:.0f} s with the cross-validation.",
        "",
        f"## Judged by cross-validation ({settings.folds} folds, stratified, seed {settings.seed})",
        "",
        "Each example was judged by a model that was not trained on it, nor calibrated with it.",
        "",
        *_judgement(judged, model.thresholds, settings.precision, "label"),
        "## Made with",
        "",
        *(f"- {_READ_AS[feature]}{_weight(model, feature)}" for feature in settings.features),
        f"- terms of {settings.fewest_texts} or more examples, weighed by their inverse document frequency: "
        f"{sum(len(terms.places) for terms in model.parts.terms.values()):,} of them",
        f"- a linear support vector machine for each label against the others, C = {settings.regularisation:g}; "
        f"softmax of the scores at temperature {model.temperature:.3f}",
        f"- version {model.version}: the hash of the examples and these settings; the same give the same model",
        "",
        "## Use",
        "",
        "    python -m services.classifier evaluate --data FILE.tsv --model DIR",
        "",
        "or in Python: `load(Path(DIR)).guesses([text])` of `services.classifier.learning.model`: label, "
        "confidence, and whether it reaches the label's threshold. `model.json` and `weights.npz` hold data only; "
        "loading runs no code.",
        "",
        "It knows the labels above and no others, and takes any message for one of them: what is of another kind "
        "shows, if at all, by a low confidence. Its terms are pieces of the examples: keep it as safe as those.",
        "",
    )


def shipped_card(decision: Decision, examples: Sequence[Example], judged: Sequence[Judged]) -> str:
    """Of the shipped model: Markdown, the same for the same corpus and rules."""
    mix = decision.mix
    preferred = ", ".join(f"`{category}` from {least:g} on" for category, least in mix.prefer.items())
    return _document(
        "# The shipped model",
        "",
        f"Sorts what a wallet's customer writes into the {len(decision.thresholds)} categories of the taxonomy. Made "
        f"by `make train` from the corpus in this repository, {len(examples):,} messages{_languages(examples)} which "
        "we wrote ourselves, and from the rules.",
        "",
        "## Judged by cross-validation on that corpus (5 folds)",
        "",
        "Each message was judged by words that were not trained on it. The corpus seeks the borders between "
        "categories, where customers rarely write. What was measured on their messages stands in "
        "`docs/adr/0011-rules-and-words-decide.md`.",
        "",
        *_judgement(judged, decision.thresholds, decision.precision, "category"),
        "## Made with",
        "",
        f"- rules {decision.rules} (`rules/`), weight {mix.rules_weight:g}",
        f"- words {decision.words}: {_READ_AS[Feature.TOKENS]}; {_READ_AS[Feature.PIECES]}; weight 1",
        f"- softmax of the sum at temperature {mix.temperature:g}; {mix.doubt:g} of each probability spread over all",
        f"- {preferred}, whatever is likelier: to miss it is the worse mistake",
        "",
        "## Limits",
        "",
        "Chinese and English; a message in another language is taken for something, mostly with little confidence. "
        "Voice comes as a transcript, with the transcript's errors. It does not know what the customer wrote before: "
        "the ticket does (`docs/classifier.md`).",
        "",
    )


def _document(*lines: str) -> str:
    return "\n".join(lines)


def _judgement(
    judged: Sequence[Judged], thresholds: Mapping[Any, float | None], precision: float, label: str
) -> Iterator[str]:
    """Figures, picture, thresholds and confusions. `label`: what a label is called."""
    figures = measure(judged)
    yield from _markdown(
        ("", "accuracy", "macro-F1", f"ECE ({BINS} bins)"),
        [("all", f"{figures.accuracy:.4f}", f"{figures.macro_f1:.4f}", f"{figures.ece:.4f}")],
    )
    yield from ("", f"![Share of errors among the messages that are kept, the surest first]({PICTURE_FILE})", "")
    yield from ("### What a confidence is worth", "")
    yield from _markdown(("confidence from", "messages kept", "of these right"), _kept_rows(figures))
    yield from ("", f"### By {label}", "")
    yield (
        f"From its threshold on, a {label} was right in {precision:.0%} of the cases; below it a person should decide. "
        "`never`: no confidence is enough."
    )
    yield ""
    yield from _markdown(
        (label, "precision", "recall", "F1", "examples", "threshold", "kept", "right of these"),
        _label_rows(thresholds, figures, judged),
    )
    yield from ("", "### Taken for one another most often", "")
    yield from _markdown(("is", "taken for", "times"), _confusion_rows(figures, _MOST_CONFUSIONS))
    yield ""


def _languages(examples: Sequence[Example]) -> str:
    counts = Counter(example.language for example in examples if example.language)
    return f" ({', '.join(f'{language} {count:,}' for language, count in counts.most_common())})" if counts else ""


def _weight(model: TextModel, feature: Feature) -> str:
    return f", weight {model.settings.encoder_weight:g}" if feature is Feature.ENCODER else ""


def _label_rows(
    thresholds: Mapping[Any, float | None], figures: Figures, judged: Sequence[Judged]
) -> Iterator[Sequence[str]]:
    for one in figures.labels:
        threshold = thresholds[one.label]
        inside = [each for each in judged if each.predicted == one.label]
        kept = [each for each in inside if threshold is not None and each.confidence >= threshold]
        yield (
            one.label,
            *(f"{value:.3f}" for value in (one.precision, one.recall, one.f1)),
            f"{one.support:,}",
            "never" if threshold is None else f"{threshold:.3f}",
            f"{len(kept) / len(inside):.1%}" if inside else "-",
            f"{sum(each.right for each in kept) / len(kept):.1%}" if kept else "-",
        )


def _kept_rows(figures: Figures) -> Iterator[Sequence[str]]:
    for kept in figures.kept:
        yield f"{kept.threshold:.2f}", f"{kept.coverage:.1%}", "-" if kept.accuracy is None else f"{kept.accuracy:.1%}"


def _confusion_rows(figures: Figures, most: int) -> Iterator[Sequence[str]]:
    for one in figures.confusions[:most]:
        yield one.truth, one.predicted, str(one.count)


def _markdown(headings: Sequence[str], rows: Iterator[Sequence[str]] | Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(headings)} |"
    yield f"|{'---|' + '---:|' * (len(headings) - 1)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"


# --- a report on the terminal -----------------------------------------------------------------------------------------


def report(figures: Figures, lenient: Figures | None) -> Iterator[str]:
    """Lines. `lenient`: the same counted with the alternatives, where the file has any."""
    rows = [("strict" if lenient else "all", figures)] + ([("with alternatives", lenient)] if lenient else [])
    yield from table(
        ("", "accuracy", "macro-F1", "of labels that occur", "ECE"),
        [
            (name, *(f"{value:.4f}" for value in (one.accuracy, one.macro_f1, one.macro_f1_occurring, one.ece)))
            for name, one in rows
        ],
    )
    yield f"ECE: {BINS} bins of equal width; macro-F1: mean over the labels that occur or were predicted"
    if lenient:
        yield "below: strict, but for the columns that say otherwise"
    yield ""
    others = {one.label: one for one in lenient.labels} if lenient else {}
    headings = ("label", "precision", "recall", "F1", "support", "predicted")
    yield from table(
        (*headings, *(("recall with alternatives",) if lenient else ())),
        [
            (
                one.label,
                _known(one.precision, one.predicted),
                _known(one.recall, one.support),
                f"{one.f1:.3f}",
                f"{one.support:,}",
                f"{one.predicted:,}",
                *((_recall(others.get(one.label)),) if lenient else ()),
            )
            for one in figures.labels
        ],
    )
    yield ""
    yield from table(
        ("confidence from", "kept", "right", *(("right with alternatives",) if lenient else ())),
        [
            (*row, *((_share(lenient.kept[index].accuracy),) if lenient else ()))
            for index, row in enumerate(_kept_rows(figures))
        ],
    )
    if figures.confusions:
        yield ""
        yield from table(("is", "taken for", "times"), list(_confusion_rows(figures, _MOST_CONFUSIONS)), left=2)


def _known(value: float, of: int) -> str:
    return f"{value:.3f}" if of else "-"


def _recall(figures: LabelFigures | None) -> str:
    return "-" if figures is None else _known(figures.recall, figures.support)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> Iterator[str]:
    """Aligned text: the first `left` columns to the left, the others to the right."""
    widths = [max(map(len, cells)) for cells in zip(headings, *rows, strict=True)]
    for row in (headings, *rows):
        yield "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()


# --- the picture ------------------------------------------------------------------------------------------------------

_WIDTH: Final = 640
_HEIGHT: Final = 360
_MARGIN: Final = 56
_RISK_STEPS: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
_MOST_LINES: Final = 6


def risk_coverage_svg(judged: Sequence[Judged]) -> str:
    """The risk-coverage curve: how many errors are among the messages kept, when the least sure go to a person."""
    curve = risk_coverage(judged)
    step = next(step for step in _RISK_STEPS if step * _MOST_LINES >= max(risk for _, risk in curve))
    lines_up = max(2, math.ceil(max(risk for _, risk in curve) / step))
    top = step * lines_up
    right, bottom = _WIDTH - _MARGIN // 2, _HEIGHT - _MARGIN

    def x(coverage: float) -> float:
        return _MARGIN + coverage * (right - _MARGIN)

    def y(risk: float) -> float:
        return bottom - risk / top * (bottom - _MARGIN // 2)

    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}"'
        ' font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
    ]
    for risk in (number * step for number in range(lines_up + 1)):
        lines += [
            f'<line x1="{_MARGIN}" x2="{right}" y1="{y(risk):.1f}" y2="{y(risk):.1f}" stroke="#e6e8eb"/>',
            f'<text x="{_MARGIN - 6}" y="{y(risk) + 4:.1f}" text-anchor="end">{risk:.1%}</text>',
        ]
    for fifths in range(6):
        share = fifths / 5
        lines.append(f'<text x="{x(share):.1f}" y="{bottom + 18}" text-anchor="middle">{share:.0%}</text>')
    points = " ".join(f"{x(coverage):.1f},{y(risk):.1f}" for coverage, risk in curve)
    lines += [
        f'<polyline points="{points}" fill="none" stroke="#1b3a6b" stroke-width="2"/>',
        f'<text x="{x(0.5):.1f}" y="{_HEIGHT - 14}" text-anchor="middle">messages kept, the surest first</text>',
        f'<text x="{_MARGIN}" y="16">errors among them</text>',
        "</svg>",
        "",
    ]
    return "\n".join(lines)
