"""The queues as they are now: one query a second at most, however many look, each of them seeing what is theirs."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from services.desk import storage
from services.desk.agents import Agent
from services.desk.domain import State
from services.desk.models import PeakNow, QueueNow, QueuesNow
from services.desk.storage import Peak, QueueCount
from shared import metrics
from shared.database import Database
from shared.delivery import is_passing
from shared.labels import brand_label
from shared.measuring import Gone, Reading
from shared.taxonomy import QUEUE_NAMES, Priority, Queue

_STILL_THERE_SECONDS: Final = 10.0
_AT_WORK: Final = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class Snapshot:
    counts: tuple[QueueCount, ...]
    peaks: tuple[Peak, ...]


class LiveQueues:
    """`refresh_seconds`: how old an answer may be. `stopping`: no stream goes on once it is set."""

    def __init__(self, database: Database, refresh_seconds: float, stopping: asyncio.Event) -> None:
        self._database = database
        self._stopping = stopping
        self._refresh_seconds = refresh_seconds
        self._reading = asyncio.Lock()
        self._read_at = float("-inf")
        self._latest = Snapshot((), ())
        self._gauges = _Gauges()

    async def now(self, agent: Agent) -> QueuesNow:
        """All queues that the agent may see, empty ones too, in the order of the taxonomy."""
        return of_agent(await self._snapshot(), agent)

    async def changes(self, agent: Agent) -> AsyncIterator[str]:
        """Server-sent events: `queues` with a QueuesNow at once and on every change, and a comment now and then, so
        that the reader knows that the connection lives. Ends when the database does not answer, and when the desk
        stops: the reader comes again, and is told by the status, or by another replica.
        """
        sent = ""
        sent_at = float("-inf")
        while not self._stopping.is_set():
            try:
                body = (await self.now(agent)).model_dump_json()
            except Exception as error:
                if not is_passing(error):
                    raise
                return
            if body != sent:
                yield f"event: queues\ndata: {body}\n\n"
                sent, sent_at = body, time.monotonic()
            elif time.monotonic() - sent_at > _STILL_THERE_SECONDS:
                yield ": still there\n\n"
                sent_at = time.monotonic()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._refresh_seconds):
                    await self._stopping.wait()

    async def measure(self) -> None:
        """Set the gauges of what waits and who works."""
        snapshot = await self._snapshot()
        now = datetime.now(UTC)
        async with self._database.transaction() as connection:
            working = await storage.count_working(connection, now - _AT_WORK)
        self._gauges.show(snapshot.counts, now)
        metrics.AGENTS_WORKING.labels(storage.SCHEMA).set(working)

    async def _snapshot(self) -> Snapshot:
        async with self._reading:  # who comes while it is being read waits for it, instead of reading again
            if time.monotonic() - self._read_at >= self._refresh_seconds / 2:
                async with self._database.transaction() as connection:
                    self._latest = Snapshot(
                        tuple(await storage.queue_counts(connection)), tuple(await storage.peaks(connection))
                    )
                self._read_at = time.monotonic()
            return self._latest


class _Gauges:
    """What Prometheus is told of the queues. A queue that once held tickets of a kind keeps its zero."""

    def __init__(self) -> None:
        self._waiting = Reading(metrics.QUEUE_WAITING, Gone.ZERO)
        self._oldest = Reading(metrics.QUEUE_OLDEST_SECONDS, Gone.ZERO)
        self._claimed = Reading(metrics.TICKETS_CLAIMED, Gone.ZERO)

    def show(self, counts: Iterable[QueueCount], now: datetime) -> None:
        waiting: Counter[tuple[str, ...]] = Counter()
        claimed: Counter[tuple[str, ...]] = Counter()
        oldest: defaultdict[tuple[str, ...], float] = defaultdict(float)
        for count in counts:
            brand = brand_label(count.brand)
            place = (brand, count.queue, count.priority)
            is_waiting = count.state is State.QUEUED
            waiting[place] += count.tickets if is_waiting else 0
            claimed[brand, count.queue] += count.tickets if count.state is State.CLAIMED else 0
            since = count.oldest_enqueued_at if is_waiting else None
            oldest[place] = max(oldest[place], (now - (since or now)).total_seconds())
        self._waiting.show(waiting)
        self._claimed.show(claimed)
        self._oldest.show(oldest)


def of_agent(snapshot: Snapshot, agent: Agent) -> QueuesNow:
    """What of the snapshot the agent may see."""
    by_queue: Mapping[Queue, list[QueueCount]] = defaultdict(list)
    for count in snapshot.counts:
        if agent.may_see_brand(count.brand):
            by_queue[count.queue].append(count)
    peaks = [peak for peak in snapshot.peaks if agent.may_see_brand(peak.brand)]
    return QueuesNow(
        queues=[
            _queue_now(queue, by_queue[queue], [peak for peak in peaks if peak.queue is queue])
            for queue in Queue
            if agent.may_see_queue(queue)
        ]
    )


def _queue_now(queue: Queue, counts: list[QueueCount], peaks: list[Peak]) -> QueueNow:
    waiting = [count for count in counts if count.state is State.QUEUED]
    name_zh, name_en = QUEUE_NAMES[queue]
    return QueueNow(
        queue=queue,
        name_zh=name_zh,
        name_en=name_en,
        waiting=_tickets(waiting),
        claimed=_tickets(count for count in counts if count.state is State.CLAIMED),
        waiting_on_customer=_tickets(count for count in counts if count.state is State.WAITING_ON_CUSTOMER),
        by_priority={
            priority: _tickets(count for count in waiting if count.priority is priority) for priority in Priority
        },
        oldest_enqueued_at=min(
            (count.oldest_enqueued_at for count in waiting if count.oldest_enqueued_at), default=None
        ),
        next_due_at=min((count.next_due_at for count in counts if count.next_due_at), default=None),
        breached=sum(count.breached for count in counts),
        open_points=sum(count.open_points for count in counts),
        peaks=[
            PeakNow(brand=peak.brand, channel=peak.channel, began_at=peak.began_at, staff_needed=peak.staff_needed)
            for peak in sorted(peaks, key=lambda peak: (peak.brand, peak.channel or ""))  # all channels first
        ],
    )


def _tickets(counts: Iterable[QueueCount]) -> int:
    return sum(count.tickets for count in counts)
