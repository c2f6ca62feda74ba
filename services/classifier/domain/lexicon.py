"""Finding concepts: every term of every language is a path of one trie, so a text is scanned once, whatever the number
of terms.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Final

from services.classifier.domain.text import Reading, Token, ends_sentence, tokens_of

_GAP_TOKENS: Final = 6
_ANY_NUMBER: Final = "\\d"
_GROUP: Final = re.compile(r"\(([^()]*)\)")


class BadTerm(ValueError):
    """A term of the rules that cannot be read; the message names the file's concept and the term."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A concept found at `start` to `end` of the text."""

    concept: str
    start: int
    end: int
    gapped: bool = False


@dataclass(frozen=True, slots=True)
class ValueHit:
    """A value of a fact (e.g. `method`, `alipay`) found at `start` to `end` of the text."""

    fact: str
    value: str
    start: int
    end: int


_Label = str | tuple[str, str]  # a concept, or a fact and its value
_Reached = tuple[_Label, int, bool]  # a label, the index of its last token, and whether there was a gap before it


@dataclass(slots=True, eq=False)
class _Node:
    children: dict[Token, _Node] = field(default_factory=dict)
    labels: tuple[_Label, ...] = ()
    after_gap: _Node | None = None


class Lexicon:
    """Concepts by name and values by fact and name, each with its terms.

    A term is a sequence of words or characters. `(a|b)` are alternatives (an empty one makes the group optional), `~`
    stands for up to six tokens within the sentence, `\\d` for any number.
    """

    def __init__(
        self,
        concepts: Mapping[str, Sequence[str]],
        values: Mapping[tuple[str, str], Sequence[str]] | None = None,
        apart: frozenset[str] = frozenset(),
    ) -> None:
        """`apart`: concepts that neither hide the others nor are hidden by them, only among themselves."""
        self._root = _Node()
        self._apart = apart
        self.concepts = frozenset(concepts)
        labelled: list[tuple[_Label, Sequence[str]]] = [*concepts.items(), *(values or {}).items()]
        for label, terms in labelled:
            for term in terms:
                self._add(label, term)

    def find(self, reading: Reading) -> tuple[list[Hit], list[ValueHit]]:
        """Every concept and every value found, in the order of where they begin.

        Of two terms without a gap, one inside the other, only the longer counts: "可不可以" asks, and the "不可以" in
        it refuses nothing. Values do not hide concepts: "微信支付" is a method, and still speaks of paying.
        """
        found: list[Hit] = []
        values: list[ValueHit] = []
        root = self._root.children
        tokens, starts, ends = reading.tokens, reading.starts, reading.ends
        for first, token in enumerate(tokens):
            node = root.get(token)
            if node is None and token[0].isdigit():
                node = root.get(_ANY_NUMBER)
            if node is None:
                continue
            start = starts[first]
            reached: list[_Reached] = []
            self._walk(node, tokens, first, reached, gapped=False)
            for label, last, gapped in reached:
                if isinstance(label, str):
                    found.append(Hit(label, start, ends[last], gapped))
                else:
                    values.append(ValueHit(*label, start, ends[last]))
        return list(_longest(found, self._apart)), values

    def _walk(self, node: _Node, tokens: Sequence[Token], at: int, reached: list[_Reached], *, gapped: bool) -> None:
        """Adds what ends at `at` (where `node` was reached) or behind it."""
        while True:
            if node.labels:
                reached.extend([(label, at, gapped) for label in node.labels])
            if node.after_gap is not None:
                self._walk_beyond_gap(node.after_gap, tokens, at, reached)
            at += 1
            if at >= len(tokens) or not node.children:
                return
            token = tokens[at]
            following = node.children.get(token)
            if following is None and token[0].isdigit():
                following = node.children.get(_ANY_NUMBER)
            if following is None:
                return
            node = following

    def _walk_beyond_gap(self, node: _Node, tokens: Sequence[Token], at: int, reached: list[_Reached]) -> None:
        # A term that ends in a gap asks for nothing more.
        reached.extend([(label, at, True) for label in node.labels])
        children = node.children
        for position in range(at + 1, min(at + 2 + _GAP_TOKENS, len(tokens))):
            token = tokens[position]
            if ends_sentence(token):
                return
            following = children.get(token)
            if following is None and token[0].isdigit():
                following = children.get(_ANY_NUMBER)
            if following is not None:
                self._walk(following, tokens, position, reached, gapped=True)

    def _add(self, label: _Label, term: str) -> None:
        heads = [self._root]
        if not isinstance(term, str):
            raise BadTerm(f"{label!r}: term {term!r} must be text; put it in quotation marks")
        parts = term.split("~") if "~" in _GROUP.sub("", term) else [term]
        for index, part in enumerate(parts):
            heads = [reached for head in heads for reached in _grow(head, part)]
            if any(head is self._root for head in heads):
                raise BadTerm(f"{label!r}: term {term!r} must begin with a word")
            if index < len(parts) - 1:
                for head in heads:
                    head.after_gap = head.after_gap or _Node()
                heads = [head.after_gap for head in heads if head.after_gap is not None]
        for head in heads:
            if label not in head.labels:
                head.labels = (*head.labels, label)


def _longest(found: list[Hit], apart: frozenset[str]) -> Iterator[Hit]:
    covers = [(-1, -1), (-1, -1)]  # the last term without a gap, of those apart and of the others
    for hit in sorted(found, key=lambda hit: (hit.start, -hit.end, hit.gapped)):
        if not hit.gapped:
            layer = hit.concept in apart
            if hit.end <= covers[layer][1] and (hit.start, hit.end) != covers[layer]:
                continue
            covers[layer] = (hit.start, hit.end)
        yield hit


def _grow(head: _Node, part: str) -> list[_Node]:
    """The nodes at the end of `part`, one for each way to choose among its alternatives."""
    reached: dict[_Node, None] = {}
    for spelling in _spellings(part):
        node = head
        for token in _tokens(spelling):
            node = node.children.setdefault(token, _Node())
        reached[node] = None
    return list(reached)


def _spellings(part: str) -> list[str]:
    pieces = _GROUP.split(part)  # text, alternatives, text, alternatives, ..., text
    choices = [piece.split("|") if index % 2 else [piece] for index, piece in enumerate(pieces)]
    # A "~" as an alternative ("(~|)") is a gap that the caller cannot see; none of our terms needs it.
    return ["".join(chosen) for chosen in product(*choices)]


def _tokens(spelling: str) -> list[Token]:
    tokens: list[Token] = []
    for index, piece in enumerate(spelling.split(_ANY_NUMBER)):
        tokens += ([_ANY_NUMBER] if index else []) + tokens_of(piece)
    return tokens
