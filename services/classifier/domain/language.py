"""Which language a text is written in, by its letters and, among Latin letters, by its function words."""

from __future__ import annotations

import re
from typing import Final

from services.classifier.domain.text import fold
from shared.taxonomy import Language

# A Chinese character says about as much as a word: one in ten letters is enough to call a mixed text Chinese, and one
# Japanese particle in a Chinese sentence does not make it Japanese.
_LEAST_CHINESE_SHARE: Final = 0.1
_LEAST_JAPANESE_SHARE: Final = 0.25
_LEAST_ENGLISH_SHARE: Final = 0.5
_FEWEST_WORDS_TO_DOUBT: Final = 3

_LETTERS: Final = re.compile(r"[^\W\d_]")
_CHINESE: Final = re.compile(r"[㐀-䶿一-鿿豈-﫿]")
_KANA_OR_HANGUL: Final = re.compile(r"[぀-ヿ가-힯]")
_LATIN: Final = re.compile(r"[a-z]")
_WORDS: Final = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")


def language_of(text: str, *, english: frozenset[str], other: frozenset[str]) -> Language:
    """`english` and `other`: function words of English, and of other languages in Latin script."""
    folded = fold(text)
    if folded.isascii():
        return _of_latin(folded, english, other) if _LATIN.search(folded) else Language.OTHER
    letters = len(_LETTERS.findall(folded))
    if not letters:
        return Language.OTHER
    if len(_KANA_OR_HANGUL.findall(folded)) >= _LEAST_JAPANESE_SHARE * letters:
        return Language.OTHER
    if len(_CHINESE.findall(folded)) >= _LEAST_CHINESE_SHARE * letters:
        return Language.ZH
    if len(_LATIN.findall(folded)) >= _LEAST_ENGLISH_SHARE * letters:
        return _of_latin(folded, english, other)
    return Language.OTHER


def _of_latin(folded: str, english: frozenset[str], other: frozenset[str]) -> Language:
    words = [word.replace("'", "") for word in _WORDS.findall(folded)]
    foreign = sum(word in other for word in words)
    if not foreign:
        return Language.EN
    ours = sum(word in english for word in words)
    doubtful = len(words) >= _FEWEST_WORDS_TO_DOUBT or not ours
    return Language.OTHER if doubtful and foreign > ours else Language.EN
