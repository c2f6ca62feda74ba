"""Cutting a message into sentences: at sentence ends, list numbers, and the words that begin another matter; into
clauses, where the customer announces that he has several.
"""

from __future__ import annotations

import re
from itertools import islice, pairwise
from typing import Final

_ZH_LINKS: Final = "另外|还有(?:就是|一个|个|一件)?|再有|其次|顺便|同时|以及我|对了|并且我|然后还有"
_EN_LINKS: Final = (
    "also|another (?:thing|question|issue|problem)|besides|secondly|second|additionally|furthermore|moreover|plus"
    "|by the way|on top of that"
)
_CUT: Final = re.compile(
    r"[。！!？?；;\n…]+|(?<=[a-z)\]])\.(?=\s|$)"  # behind a sentence end
    r"|(?=(?<![\d.])\d{1,2}[.、)](?!\d))|(?=[①-⑩])|(?=第[一二三四五]个?(?:[，,是：:]|问题))"  # before a list number
    rf"|(?=(?<=[，,、\s])(?:{_ZH_LINKS}))|(?=(?<=[\s,])(?:{_EN_LINKS})\b)"  # before a word that opens another matter
)
_SEVERAL: Final = re.compile(
    r"(?:两|二|三|四|五|几|好几|多)(?:个|件|点)(?:不同的|)(?:问题|事|事情|疑问|要求|诉求)(?!了)"
    r"|\b(?:two|three|four|five|[2-5]|a few|several|couple of|both) (?:different |separate |other |quick )?"
    r"(?:things|questions|issues|problems|matters|points|requests)\b|\ball (?:three|four|five|[3-5])\b"
)
_NUMBERED: Final = re.compile(r"(?<![\d.])\d{1,2}[.、)](?!\d)|[①-⑩]|第[一二三四五]")
_CLAUSE: Final = re.compile(rf"{_CUT.pattern}|[，,、：:]|(?=\s(?:and|but)\s(?!\d))|(?=以及|并且|而且)")
_MOST_SENTENCES: Final = 100
_BLANK: Final = re.compile(r"[\s\W_]*")
_OPENS_ANOTHER: Final = re.compile(
    rf"[\s，,、]*(?:\d{{1,2}}[.、)]|[①-⑩]|第[一二三四五]个?|{_ZH_LINKS}|(?:{_EN_LINKS})\b)"
)


def sentences(folded: str, text: str) -> list[tuple[int, int]]:
    """(start, end) of every sentence that holds a letter or a digit, in order, without surrounding blanks; of every
    clause where several matters are announced ("two things: ...").

    Beyond the first hundred, the rest is one sentence: nobody raises more matters, and a page of full stops must not
    cost a second.
    """
    cut = _CLAUSE if announces_several(folded) else _CUT
    cuts = [match.end() for match in islice(cut.finditer(folded), _MOST_SENTENCES - 1)]
    bounds = [0, *cuts, len(folded)]
    spans = []
    for start, end in pairwise(bounds):
        piece = text[start:end]
        if not _BLANK.fullmatch(folded, start, end):
            spans.append((start + len(piece) - len(piece.lstrip()), end - len(piece) + len(piece.rstrip())))
    return spans


def opens_another(folded: str, start: int) -> bool:
    """Whether the sentence at `start` says of itself that it is another matter ("also", "2.")."""
    return _OPENS_ANOTHER.match(folded, start) is not None


def announces_several(folded: str) -> bool:
    """Whether the customer says himself that he has more than one matter, and does not number them: then the numbers
    tell where each begins.
    """
    return _SEVERAL.search(folded) is not None and _NUMBERED.search(folded) is None
