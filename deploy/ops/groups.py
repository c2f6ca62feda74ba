"""Consumer groups: which there are, how far they are, who is in them, and moving them."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final, TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import GroupCoordinatorNotAvailableError, GroupLoadInProgressError, NotCoordinatorForGroupError
from aiokafka.structs import OffsetAndMetadata

from deploy.ops.console import Refused
from shared import topics
from shared.admin import Admin, connection_options
from shared.settings import CommonSettings
from shared.topics import Topic

GROUPS: Final[Mapping[str, Mapping[str, tuple[Topic, ...]]]] = MappingProxyType(
    {
        "intake": {
            "intake.channel.messages": (topics.CHANNEL_MESSAGES,),
            "intake.tickets.activity": (topics.TICKETS_ACTIVITY,),
        },
        "classifier": {
            "classifier.tickets.messages": (topics.TICKETS_MESSAGES,),
            "classifier.tickets.activity": (topics.TICKETS_ACTIVITY,),
        },
        "sla_timer": {
            "sla_timer.tickets": (topics.TICKETS_MESSAGES, topics.TICKETS_ACTIVITY, *topics.QUEUES),
        },
        "notifier": {
            "notifier.tickets.messages": (topics.TICKETS_MESSAGES,),
            "notifier.queues": topics.QUEUES,
            "notifier.tickets.activity": (topics.TICKETS_ACTIVITY,),
            "notifier.sla.events": (topics.SLA_EVENTS,),
        },
        "desk": {
            "desk.queues": topics.QUEUES,
            "desk.tickets.messages": (topics.TICKETS_MESSAGES,),
            "desk.tickets.activity": (topics.TICKETS_ACTIVITY,),
            "desk.sla.events": (topics.SLA_EVENTS,),
            "desk.notifications.outcomes": (topics.NOTIFICATIONS_OUTCOMES,),
            "desk.peaks.events": (topics.PEAKS_EVENTS,),
        },
    }
)
"""Each service's groups and what they read. Known without asking the broker: a group that has never run lags too."""

_OLDEST_WAIT_SECONDS: Final = 10.0
_COORDINATOR_SECONDS: Final = 30.0
T = TypeVar("T")


def groups_of(services: Collection[str]) -> dict[str, tuple[Topic, ...]]:
    return {group: read for service in services for group, read in GROUPS[service].items()}


@dataclass(frozen=True, slots=True)
class Member:
    client: str
    host: str


@dataclass(frozen=True, slots=True)
class PartitionLag:
    """How far a group is in one partition. `committed`: the next record that it has not taken; none before its first
    commit, when it begins at `begin`. `expired`: records that were deleted before it took them. `oldest_at`: time stamp
    of the oldest that it has not taken.
    """

    group: str
    topic: str
    partition: int
    begin: int
    end: int
    committed: int | None
    oldest_at: datetime | None = None

    @property
    def position(self) -> int:
        return self.begin if self.committed is None else max(self.begin, min(self.committed, self.end))

    @property
    def lag(self) -> int:
        return self.end - self.position

    @property
    def expired(self) -> int:
        return 0 if self.committed is None else max(0, self.begin - self.committed)

    def age_seconds(self, now: datetime) -> float | None:
        return None if self.oldest_at is None else max(0.0, (now - self.oldest_at).total_seconds())


def consumer(settings: CommonSettings, **options: Any) -> AIOKafkaConsumer:
    """Reads without a group, from the beginning, and commits nothing by itself."""
    return AIOKafkaConsumer(
        **{
            **connection_options(settings),
            "client_id": "switchyard-ops",
            "enable_auto_commit": False,
            "auto_offset_reset": "earliest",
            **options,
        }
    )


async def lags(
    settings: CommonSettings, groups: Mapping[str, Iterable[Topic]], *, with_age: bool = False
) -> list[PartitionLag]:
    """Every partition of what these groups read. A topic that is not there is left out."""
    async with Admin(settings) as admin:
        described = await admin.client.describe_topics()
        parts = {item["topic"]: len(item["partitions"]) for item in described if not item["error_code"]}
        committed = {
            group: {
                place: known.offset
                for place, known in (
                    await _of_coordinator(functools.partial(admin.client.list_consumer_group_offsets, group))
                ).items()
                if known.offset >= 0
            }
            for group in groups
        }
    reader = consumer(settings)
    await reader.start()
    try:
        names = {topic.name for read in groups.values() for topic in read}
        places = [TopicPartition(name, part) for name in sorted(names) for part in range(parts.get(name, 0))]
        begins = await reader.beginning_offsets(places)
        ends = await reader.end_offsets(places)
        found = [
            PartitionLag(group, place.topic, place.partition, begins[place], ends[place], committed[group].get(place))
            for group, read in groups.items()
            for topic in read
            for place in places
            if place.topic == topic.name
        ]
        if not with_age:
            return found
        oldest = await _oldest(
            reader, {(TopicPartition(item.topic, item.partition), item.position) for item in found if item.lag}
        )
    finally:
        await reader.stop()
    return [
        PartitionLag(
            item.group,
            item.topic,
            item.partition,
            item.begin,
            item.end,
            item.committed,
            oldest.get((TopicPartition(item.topic, item.partition), item.position)) if item.lag else None,
        )
        for item in found
    ]


async def _oldest(
    reader: AIOKafkaConsumer, wanted: set[tuple[TopicPartition, int]]
) -> dict[tuple[TopicPartition, int], datetime]:
    """Time stamps of the records at, or next behind, these offsets. Several groups may ask for one partition."""
    found: dict[tuple[TopicPartition, int], datetime] = {}
    deadline = asyncio.get_running_loop().time() + _OLDEST_WAIT_SECONDS
    waiting = set(wanted)
    while waiting and asyncio.get_running_loop().time() < deadline:
        # One offset of each partition at a time: a consumer has one position in each.
        by_place = dict(sorted(waiting, reverse=True))
        reader.assign(list(by_place))
        for place, offset in by_place.items():
            reader.seek(place, offset)
        pending = set(by_place)
        while pending and asyncio.get_running_loop().time() < deadline:
            for place, records in (await reader.getmany(timeout_ms=500, max_records=50)).items():
                if place in pending:
                    pending.discard(place)
                    reader.pause(place)
                    found[place, by_place[place]] = datetime.fromtimestamp(records[0].timestamp / 1000, UTC)
        waiting -= set(by_place.items())
    return found


async def members(settings: CommonSettings, groups: Collection[str]) -> dict[str, list[Member]]:
    """Who consumes in these groups now."""
    found: dict[str, list[Member]] = {group: [] for group in groups}
    async with Admin(settings) as admin:
        for group in sorted(groups):
            # One at a time: aiokafka 0.14 reads the third version of the answer by the second's layout, which goes
            # wrong from the second group on.
            (answer,) = await _of_coordinator(functools.partial(admin.client.describe_consumer_groups, [group]))
            for described in answer.groups:
                found[group] += [Member(client=one[1], host=one[2].lstrip("/")) for one in described[5]]
    return found


async def _of_coordinator(ask: Callable[[], Awaitable[T]]) -> T:
    """What a group's coordinator answers; for a while it is not there on a new cluster, and while it moves."""
    deadline = time.monotonic() + _COORDINATOR_SECONDS
    while True:
        try:
            return await ask()
        except (GroupCoordinatorNotAvailableError, NotCoordinatorForGroupError, GroupLoadInProgressError):
            if time.monotonic() >= deadline:
                raise
            await asyncio.sleep(0.3)


async def refuse_if_running(settings: CommonSettings, services: Collection[str], why: str) -> None:
    """Raise Refused unless nobody consumes in the groups of these services."""
    busy = {group: who for group, who in (await members(settings, list(groups_of(services)))).items() if who}
    if busy:
        named = "; ".join(f"{group}: {', '.join(sorted({one.client for one in who}))}" for group, who in busy.items())
        raise Refused(f"stop {', '.join(services)} first, {why}. Still consuming: {named}")


async def move(settings: CommonSettings, offsets: Mapping[str, Mapping[TopicPartition, int]]) -> None:
    """Have these groups go on at these offsets. Nobody may consume in them: see `refuse_if_running`."""
    for group, places in offsets.items():
        if not places:
            continue
        mover = consumer(settings, group_id=group)
        await mover.start()
        try:
            mover.assign(list(places))
            await mover.commit({place: OffsetAndMetadata(offset, "") for place, offset in places.items()})
        finally:
            await mover.stop()
