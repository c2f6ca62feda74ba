"""Labelled messages in a file: one a line, columns separated by tabs, `text`, `label` and, if there, `language` and
`alternatives`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shared.events.channel import MAX_TEXT_CHARACTERS
from shared.redaction import redact
from shared.taxonomy import Language

HEADER: Final = ("text", "label", "language")
_NAMES_OF_LABEL: Final = ("label", "category", "intent")
_MOST_ERRORS_SHOWN: Final = 10
_MOST_LABEL_CHARACTERS: Final = 200
_LANGUAGES: Final = frozenset(language.value for language in Language)


class BadFile(ValueError):
    """A file of examples that cannot be used; the message names the file, and each line that is wrong, and why."""


@dataclass(frozen=True, slots=True)
class Example:
    """A message and what it is about. `alternatives`: other labels that a reasonable colleague could have chosen.

    `text` holds no secrets: they were cut as they are cut from a message that comes in.
    """

    text: str
    label: str
    language: str | None = None
    alternatives: frozenset[str] = frozenset()
    line: int = 0

    @property
    def accepted(self) -> frozenset[str]:
        return self.alternatives | {self.label}


def read_examples(path: Path, labels: Collection[str] | None = None) -> list[Example]:
    """The examples of a file (UTF-8), in order. Quotation marks are text; empty lines are passed over.

    `labels`: the only ones that may stand there. Raises BadFile.
    """
    try:
        content = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise BadFile(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise BadFile(f"{path}:{line}: is not UTF-8; save the file as UTF-8") from None
    lines = [line.removesuffix("\r") for line in content.split("\n")]
    rows = [(number, line.split("\t")) for number, line in enumerate(lines, start=1) if line.strip()]
    columns = _columns_by_name(rows[0][1]) if rows else None
    if columns is not None:
        rows = rows[1:]
    columns = columns or _columns_by_place(rows)
    examples: list[Example] = []
    errors: list[str] = []
    for number, cells in rows:
        try:
            examples.append(_example(number, cells, columns, labels))
        except BadFile as error:
            errors.append(f"{path}:{number}: {error}")
    if errors:
        more = len(errors) - _MOST_ERRORS_SHOWN
        raise BadFile("\n".join([*errors[:_MOST_ERRORS_SHOWN], *([f"and {more:,} more"] if more > 0 else [])]))
    if not examples:
        raise BadFile(f"{path}: holds no example; write one a line: text, tab, label")
    return examples


def _columns_by_name(cells: Sequence[str]) -> Mapping[str, int] | None:
    """Column -> place, where the first line is a header; columns of other names are passed over."""
    names = [cell.strip().lower() for cell in cells]
    label = next((name for name in _NAMES_OF_LABEL if name in names), None)
    if "text" not in names or label is None:
        return None
    places: dict[str, int] = {name: names.index(name) for name in ("text", "language", "alternatives") if name in names}
    return {**places, "label": names.index(label)}


def _columns_by_place(rows: Iterable[tuple[int, Sequence[str]]]) -> Mapping[str, int]:
    """Without a header: a third column that holds nothing but languages is that, any other one alternatives."""
    third = {cells[2].strip() for _, cells in rows if len(cells) > 2}
    return {"text": 0, "label": 1, "language" if third - {""} <= _LANGUAGES else "alternatives": 2}


def _example(number: int, cells: Sequence[str], columns: Mapping[str, int], labels: Collection[str] | None) -> Example:
    def cell(name: str) -> str:
        place = columns.get(name)
        return cells[place].strip() if place is not None and place < len(cells) else ""

    if len(cells) <= max(columns["text"], columns["label"]):
        raise BadFile(f"has {_columns(len(cells))}; text and label must be there, separated by a tab")
    text, label, language = cell("text"), cell("label"), cell("language")
    if not text:
        raise BadFile("has no text; fill it in or take the line out")
    if len(text) > MAX_TEXT_CHARACTERS:
        raise BadFile(f"the text has {len(text):,} characters, at most {MAX_TEXT_CHARACTERS:,} are read")
    if not label:
        raise BadFile("has no label; fill it in or take the line out")
    if len(label) > _MOST_LABEL_CHARACTERS:
        raise BadFile(
            f"the label has {len(label):,} characters, at most {_MOST_LABEL_CHARACTERS}: are columns swapped?"
        )
    if language and language not in _LANGUAGES:
        raise BadFile(f"language {language!r} is none of {', '.join(sorted(_LANGUAGES))}")
    alternatives = frozenset(one.strip() for one in cell("alternatives").split(",") if one.strip()) - {label}
    if labels is not None and (unknown := sorted(({label} | alternatives) - set(labels))):
        raise BadFile(f"label {unknown[0]!r} is none of the {len(labels)} that the classifier knows")
    return Example(redact(text).text, label, language or None, alternatives, number)


def _columns(count: int) -> str:
    return "1 column" if count == 1 else f"{count} columns"


def without_repetitions(examples: Iterable[Example]) -> list[Example]:
    """The same text with the same label counts once, else it would be learnt from and tested on."""
    return list({(example.text, example.label): example for example in reversed(list(examples))}.values())[::-1]


def rare_labels(examples: Iterable[Example], least: int) -> dict[str, int]:
    """Label -> how many examples, of those with fewer than `least`; in order of the label."""
    counts = Counter(example.label for example in examples)
    return {label: count for label, count in sorted(counts.items()) if count < least}
