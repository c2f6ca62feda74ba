"""Replies that are longer than a provider takes: in pieces, one after the other."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Final
from uuid import UUID

from services.intake.channels.base import Sent

Length = Callable[[str], int]
"""What a provider counts as the length of a text: at least its characters, and the more the longer it is."""

_MOST_REMEMBERED: Final = 1000
# Where a text may be parted, the best first: between lines, after a sentence, after a clause, between words.
_BREAKS: Final = tuple(map(re.compile, (r"\n+", r"[。！？!?…]+[”’」』）)]*\s*|\.\s+", r"[，；、,;：:]\s*", r"\s+")))


def split(text: str, limit: int, length: Length = len) -> list[str]:
    """The text in pieces of at most `limit`, parted at the end of a line or a sentence where there is one.

    A piece is at least half full, or it would be parted at the next lesser kind of place.
    """
    pieces = []
    rest = text.strip()
    while len(rest) > limit or length(rest) > limit:
        end = _last_break(rest, _fitting(rest, limit, length))
        pieces.append(rest[:end].rstrip())
        rest = rest[end:].lstrip()
    return [*pieces, rest] if rest else pieces


def _fitting(text: str, limit: int, length: Length) -> int:
    """How many characters of a text that is too long fit; at least one."""
    low, high = 1, min(limit, len(text) - 1)
    while low < high:
        middle = (low + high + 1) // 2
        if length(text[:middle]) <= limit:
            low = middle
        else:
            high = middle - 1
    return low


def _last_break(text: str, most: int) -> int:
    for kind in _BREAKS:
        # A break may reach beyond the piece with its blanks, which are dropped.
        ends = [
            min(found.end(), most)
            for found in kind.finditer(text, 0, most + 1)
            if found.start() < most or text[most].isspace()
        ]
        if ends and ends[-1] >= most / 2:
            return ends[-1]
    return most


def utf16_units(text: str) -> int:
    """The length as JavaScript, Java and Telegram count it: characters beyond the basic plane are two."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


class Progress:
    """Which pieces of a reply the provider has. A try after a failed one goes on there, as far as this process knows:
    another process begins anew, so that a customer may read a piece twice, but never misses one.
    """

    def __init__(self) -> None:
        self._taken: OrderedDict[UUID, list[str]] = OrderedDict()

    async def send(
        self, notification_id: UUID, pieces: Sequence[str], send: Callable[[str, str | None], Awaitable[str]]
    ) -> Sent:
        """`send` is given a piece and the provider's id of the piece before it; it returns the id, "" where it was told
        none. Raises NotSent.
        """
        taken = self._taken.setdefault(notification_id, [])
        self._taken.move_to_end(notification_id)
        while len(self._taken) > _MOST_REMEMBERED:
            self._taken.popitem(last=False)
        for piece in pieces[len(taken) :]:
            taken.append(await send(piece, taken[-1] if taken else None))
        self._taken.pop(notification_id, None)
        return Sent(tuple(filter(None, taken)))
