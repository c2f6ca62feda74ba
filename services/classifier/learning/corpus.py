"""What the shipped model learns from: corpus/LANGUAGE/CATEGORY.tsv, written for this project."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from services.classifier.learning.examples import BadFile, Example, read_examples
from shared.taxonomy import Category

CORPUS: Final = Path(__file__).resolve().parents[1] / "corpus"


def read_corpus(directory: Path = CORPUS) -> list[Example]:
    """Every message of the corpus, in the order of the files' names. Raises BadFile, also for a message that comes
    twice: it would be learnt from and judged by.
    """
    found: dict[str, Path] = {}
    examples: list[Example] = []
    for path in sorted(directory.glob("*/*.tsv")):
        for example in read_examples(path, list(Category)):
            if example.text in found:
                raise BadFile(f"{path}:{example.line}: stands in {found[example.text]} too; take one of them out")
            found[example.text] = path
            examples.append(replace(example, language=path.parent.name))
    if not examples:
        raise BadFile(f"{directory}: holds no LANGUAGE/CATEGORY.tsv")
    return examples


def with_own(corpus: Sequence[Example], own: Sequence[Example]) -> list[Example]:
    """Both, each text once: where a company's own file says otherwise of a text than the corpus, it is right."""
    return list({example.text: example for example in (*corpus, *own)}.values())
