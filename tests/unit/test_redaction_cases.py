"""How much of what is secret is cut, and how much of what is cut is secret, over `redaction_cases.tsv`.

`pytest tests/unit/test_redaction_cases.py -s` prints both, by kind.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

from shared.redaction import KINDS, redact

_CASES = Path(__file__).with_name("redaction_cases.tsv")
_MARK = re.compile(rf"⟦({'|'.join(KINDS)}):([^⟧]+)⟧")
_FEWEST_CASES = 300
_LEAST_PRECISION = 0.99  # measured: 1.000
_LEAST_RECALL = 0.98  # measured: 0.991

Span = tuple[int, int, str]


class Case(NamedTuple):
    """A message of a customer, and where in it which kind of secret stands: (start, end, kind)."""

    language: str
    text: str
    secrets: frozenset[Span]


def read(line: str) -> Case:
    language, marked = line.split("\t")
    text, secrets, end = "", set(), 0
    for mark in _MARK.finditer(marked):
        text += marked[end : mark.start()]
        secrets.add((len(text), len(text) + len(mark[2]), mark[1]))
        text += mark[2]
        end = mark.end()
    return Case(language, text + marked[end:], frozenset(secrets))


def cases() -> list[Case]:
    lines = _CASES.read_text(encoding="utf-8").splitlines()
    return [read(line) for line in lines if not line.startswith("#")]


def cut_from(text: str) -> frozenset[Span]:
    """What `redact` cuts out of `text`, seen from outside: what stands where its tokens are."""
    pieces = re.split(rf"\[({'|'.join(KINDS)})\]", redact(text).text)
    kinds = pieces[1::2]
    match = re.fullmatch("(.+?)".join(map(re.escape, pieces[::2])), text)
    assert match, "what is not cut stays as it was"
    return frozenset((*match.span(group), kind) for group, kind in enumerate(kinds, start=1))


def test_the_cases_are_many_of_both_languages_kinds_and_near_misses() -> None:
    read_cases = cases()
    languages = Counter(case.language for case in read_cases)
    near_misses = Counter(case.language for case in read_cases if not case.secrets)
    kinds = Counter((case.language, kind) for case in read_cases for _, _, kind in case.secrets)
    assert len({case.text for case in read_cases}) == len(read_cases) >= _FEWEST_CASES
    assert languages.keys() == {"en", "zh"}
    assert all("⟦" not in case.text for case in read_cases), "a mark of no known kind"
    assert min(languages.values()) >= _FEWEST_CASES // 2
    assert min(near_misses.values()) >= 50
    assert all(kinds[language, kind] >= 8 for language in languages for kind in KINDS)


def test_precision_and_recall() -> None:
    """A hit is a secret cut to the character and by its kind; anything else is a miss, a false alarm, or both."""
    hits: Counter[str] = Counter()
    secrets: Counter[str] = Counter()
    cuts: Counter[str] = Counter()
    wrong = []
    for case in cases():
        cut = cut_from(case.text)
        hits.update(kind for *_, kind in cut & case.secrets)
        secrets.update(kind for *_, kind in case.secrets)
        cuts.update(kind for *_, kind in cut)
        if cut != case.secrets:
            wrong.append(f"{case.text}  ->  {redact(case.text).text}")
    print(f"\n{'kind':10} secrets  cut  precision  recall")
    for kind in (*KINDS, "all"):
        hit, secret, found = (counter.total() if kind == "all" else counter[kind] for counter in (hits, secrets, cuts))
        print(f"{kind:10} {secret:7} {found:4} {hit / found:10.3f} {hit / secret:7.3f}")
    print(*wrong, sep="\n")
    assert hits.total() / cuts.total() >= _LEAST_PRECISION
    assert hits.total() / secrets.total() >= _LEAST_RECALL


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("en\tno secret", Case("en", "no secret", frozenset())),
        (
            "en\tpin ⟦pin:1234⟧, cvv ⟦cvv:567⟧.",
            Case("en", "pin 1234, cvv 567.", frozenset({(4, 8, "pin"), (14, 17, "cvv")})),
        ),
    ],
)
def test_marks_are_read(line: str, expected: Case) -> None:
    assert read(line) == expected
