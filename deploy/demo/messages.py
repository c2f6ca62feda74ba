"""Reads a file of `ChannelMessage` lines and moves its times to now, so that promises are about the present."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

LONGEST_GAP: Final = timedelta(milliseconds=20)
"""Quiet time between two messages of the file is cut to this: a week of examples becomes the last few seconds."""

KEPT_GAP: Final = timedelta(hours=12)
"""A pause of one customer longer than this is kept as it is: whether a message joins his ticket hangs on it."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the file as it is sent: `key` is empty where the line does not tell whose it is."""

    key: bytes | None
    value: bytes


def load(path: Path, now: datetime) -> list[Line]:
    """All lines of the file, good and bad, in their order, re-timed so that the newest was sent `now`.

    Lines that are no messages are sent as they are: they are there to be refused. Raises ValueError for an empty file.
    """
    raw = [line for line in path.read_bytes().splitlines() if line.strip()]
    if not raw:
        raise ValueError(f"{path} has no lines: write one ChannelMessage as a JSON object a line")
    bodies = [_body(line) for line in raw]
    times = retime([_sent(body) for body in bodies], [_conversation(body) for body in bodies], now)
    lines = []
    for original, body, sent_at in zip(raw, bodies, times, strict=True):
        if body is None or sent_at is None:
            lines.append(Line(_key(body), original))
        else:
            moved = {**body, "sent_at": sent_at.isoformat()}
            lines.append(Line(_key(body), json.dumps(moved, ensure_ascii=False).encode()))
    return lines


def retime(
    sent: Sequence[datetime | None], conversations: Sequence[str | None], now: datetime
) -> list[datetime | None]:
    """Times moved so that the newest is `now`, quiet times cut, the order and one customer's long pauses kept.

    `sent` and `conversations` have one entry a line; None where the line has no readable time.
    """
    order = sorted((time, index) for index, time in enumerate(sent) if time is not None)
    # Walk back from the newest: each step goes back by the gap, or by as much of it as is kept.
    moved: dict[int, datetime] = {}
    later_in: dict[str | None, int] = {}
    moment, last = now, order[-1][0] if order else now
    for time, index in reversed(order):
        moment -= min(LONGEST_GAP, last - time)
        last = time
        conversation = conversations[index]
        placed = moment
        following = later_in.get(conversation)
        if following is not None:
            pause = sent[following] - time  # type: ignore[operator]  # only lines with a time are in `later_in`
            if pause > KEPT_GAP:
                placed = min(placed, moved[following] - pause)
            elif moved[following] < moment:
                # The next message of this conversation was set far back: this one stays as close to it as it was.
                placed = moved[following] - min(LONGEST_GAP, pause)
        moved[index] = placed
        later_in[conversation] = index
    return [moved.get(index) for index in range(len(sent))]


def _body(line: bytes) -> dict[str, Any] | None:
    try:
        body = json.loads(line)
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


def _sent(body: dict[str, Any] | None) -> datetime | None:
    """The time of a message, if it is one that the contract allows: with an offset."""
    try:
        time = datetime.fromisoformat((body or {})["sent_at"])
    except (KeyError, TypeError, ValueError):
        return None
    return time if time.tzinfo else None


def _customer(body: dict[str, Any] | None) -> str | None:
    customer = (body or {}).get("customer")
    return str(customer["id"]) if isinstance(customer, dict) and "id" in customer else None


def _key(body: dict[str, Any] | None) -> bytes | None:
    customer = _customer(body)
    return f"{body.get('brand')}/{body.get('channel')}/{customer}".encode() if body and customer else None


def _conversation(body: dict[str, Any] | None) -> str | None:
    key = _key(body)
    return f"{key.decode()}/{(body or {}).get('conversation_id')}" if key else None
