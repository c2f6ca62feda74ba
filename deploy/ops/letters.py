"""Dead letters as the topic has them: which are open, and reading their values, never all at once.

A letter is known by its event id. It is open until a `DeadLetterHandled` names it; a letter that comes once more with
the same id (its consumer was killed before it could commit) is the same letter.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from pydantic import ValidationError

from deploy.ops.groups import consumer
from shared.admin import partitions
from shared.delivery import VALUE_MOST_CHARACTERS
from shared.events import DeadLetter, DeadLetterAction, DeadLetterHandled, DeadLetterReason
from shared.redaction import KINDS
from shared.settings import CommonSettings
from shared.topics import DEAD_LETTERS

REPLAY_OF: Final = "switchyard_replay_of"
"""Header of a replayed record: id of the dead letter it comes from."""
_DETAIL_KEPT: Final = 160
_CUT: Final = re.compile(rf"\[({'|'.join(KINDS)})\]")
_NOT_UTF8: Final = re.compile(r"\\x[0-9a-f]{2}")
_POLL_MS: Final = 500


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter without its value: small, for there may be a hundred thousand. `place`: where it lies on
    dead.letters. `size`: characters of its value.
    """

    letter_id: uuid.UUID
    key: str
    service: str
    group: str
    reason: DeadLetterReason
    detail: str
    topic: str
    partition: int
    offset: int
    record_key: str | None
    failed_at: datetime
    size: int
    flaws: tuple[str, ...]
    place: tuple[int, int]
    handled: DeadLetterAction | None = None
    replay_of: str | None = None

    @property
    def record(self) -> str:
        return f"{self.topic}[{self.partition}]@{self.offset}"


@dataclass(frozen=True, slots=True)
class Filter:
    """Which letters: all that are given must fit. `ids`: whole ids, or beginnings of them."""

    reasons: frozenset[str] = frozenset()
    services: frozenset[str] = frozenset()
    topics: frozenset[str] = frozenset()
    ids: tuple[str, ...] = ()
    key: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def fits(self, letter: DeadLetter) -> bool:
        return (
            (not self.reasons or letter.reason.value in self.reasons)
            and (not self.services or letter.service in self.services)
            and (not self.topics or letter.topic in self.topics)
            and (not self.ids or str(letter.event_id).startswith(self.ids))
            and (self.key is None or (letter.record_key or "").startswith(self.key))
            and (self.since is None or letter.failed_at >= self.since)
            and (self.until is None or letter.failed_at < self.until)
        )

    @property
    def is_empty(self) -> bool:
        return self == Filter()


@dataclass(slots=True)
class Found:
    """What one reading of the topic found. `unread`: records that are no dead letters."""

    letters: list[Letter] = field(default_factory=list)
    unread: int = 0


def flaws_of(letter: DeadLetter) -> tuple[str, ...]:
    """Why its record cannot be published again as it was; empty when it can."""
    flaws = []
    if len(letter.value) >= VALUE_MOST_CHARACTERS:
        flaws.append(f"the value was cut at {VALUE_MOST_CHARACTERS} characters")
    if _CUT.search(letter.value):
        flaws.append("secrets were cut from the value")
    if _CUT.search(letter.record_key or ""):
        flaws.append("secrets were cut from the key")
    if any(_CUT.search(f"{name} {value}") for name, value in letter.headers.items()):
        flaws.append("secrets were cut from the headers")
    if _NOT_UTF8.search(letter.value) and not _is_json(letter.value):
        flaws.append("the value held bytes that are not UTF-8")
    return tuple(flaws)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


async def find(settings: CommonSettings, wanted: Filter, *, handled: bool = False) -> Found:
    """The letters that fit, the oldest first, up to the topic's end as of now; `handled`: also those that are."""
    result = Found()
    letters: dict[uuid.UUID, Letter] = {}
    actions: dict[uuid.UUID, DeadLetterAction] = {}
    async for record in _records(settings):
        kind = dict(record.headers).get("ce_type", b"")
        try:
            if kind == DeadLetterHandled.TYPE.encode():
                done = DeadLetterHandled.model_validate_json(record.value or b"")
                actions[done.letter_id] = done.action
            else:
                letter = DeadLetter.model_validate_json(record.value or b"")
                if wanted.fits(letter):
                    letters.setdefault(letter.event_id, _without_value(letter, record))
        except ValidationError:
            result.unread += 1
    for letter_id, kept in letters.items():
        action = actions.get(letter_id)
        if action is None:
            result.letters.append(kept)
        elif handled:
            result.letters.append(replace(kept, handled=action))
    result.letters.sort(key=lambda item: (item.failed_at, item.place))
    return result


async def with_values(settings: CommonSettings, letters: Sequence[Letter]) -> AsyncIterator[tuple[Letter, DeadLetter]]:
    """Each of these with all of it, by their places on the topic: a hundred thousand do not fit into memory."""
    wanted = {letter.place: letter for letter in letters}
    places = wanted.keys()

    def needed(partition: int) -> tuple[int, int] | None:
        offsets = [offset for where, offset in places if where == partition]
        return (min(offsets), max(offsets) + 1) if offsets else None

    async for record in _records(settings, needed):
        letter = wanted.get((record.partition, record.offset))
        if letter is not None:
            yield letter, DeadLetter.model_validate_json(record.value or b"")


async def _records(
    settings: CommonSettings, needed: Callable[[int], tuple[int, int] | None] = lambda _: None
) -> AsyncIterator[ConsumerRecord[bytes, bytes]]:
    """The topic's records up to its end as of now, or, per partition, those between two offsets."""
    count = (await partitions(settings)).get(DEAD_LETTERS.name, 0)
    reader = consumer(settings)
    await reader.start()
    try:
        places = [TopicPartition(DEAD_LETTERS.name, part) for part in range(count)]
        begins = await reader.beginning_offsets(places)
        ends = await reader.end_offsets(places)
        ranges = {place: needed(place.partition) or (begins[place], ends[place]) for place in places}
        if any(needed(place.partition) for place in places):
            ranges = {place: asked for place in places if (asked := needed(place.partition))}
        async for record in read_ranges(reader, ranges):
            yield record
    finally:
        await reader.stop()


async def read_ranges(
    reader: AIOKafkaConsumer, ranges: dict[TopicPartition, tuple[int, int]]
) -> AsyncIterator[ConsumerRecord[bytes, bytes]]:
    """The records of these partitions from the first offset up to, not including, the second."""
    open_ones = {place for place, (begin, end) in ranges.items() if end > begin}
    reader.assign(sorted(open_ones))
    for place in open_ones:
        reader.seek(place, ranges[place][0])
    while open_ones:
        for place, records in (await reader.getmany(timeout_ms=_POLL_MS, max_records=500)).items():
            for record in records:
                if record.offset < ranges[place][1]:
                    yield record
        for place in list(open_ones):
            if await reader.position(place) >= ranges[place][1]:
                open_ones.discard(place)
                reader.pause(place)


def _without_value(letter: DeadLetter, record: ConsumerRecord[bytes, bytes]) -> Letter:
    return Letter(
        letter_id=letter.event_id,
        key=letter.key,
        service=letter.service,
        group=letter.group,
        reason=letter.reason,
        detail=letter.detail[:_DETAIL_KEPT],
        topic=letter.topic,
        partition=letter.partition,
        offset=letter.offset,
        record_key=letter.record_key,
        failed_at=letter.failed_at,
        size=len(letter.value),
        flaws=flaws_of(letter),
        place=(record.partition, record.offset),
        replay_of=letter.headers.get(REPLAY_OF),
    )
