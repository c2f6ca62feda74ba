"""How a batch of records becomes effects: the one delivery policy of all services.

    decode all -> bad ones to dead.letters -> handler(good ones) -> its effects are stored and published -> commit

What can go wrong, and what happens then:

| fault | effect |
|---|---|
| the record breaks its contract, or is refused | dead letter at once; the rest of the batch goes on |
| a dependency is away (database, broker) | retried with back-off and jitter, bounded; then the consumer pauses |
| the handler fails on one record alone | found by halving the batch, tried again, then a dead letter |
| the handler fails on record after record | a bad deploy (`FailureBudget`): the consumer pauses, nothing is moved |
| the dead letter cannot be published | nothing of the batch is committed |

A paused consumer takes the same records up again after a while; no outage moves a record to dead letters. FastStream
sees one call per batch with NACK_ON_ERROR: returning commits the whole batch, raising seeks back to its start. Its
middlewares cannot split a batch, so this wraps the handler instead of being one (ADR 0003).
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
import traceback as tracebacks
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Union

from aiokafka import ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError
from faststream import AckPolicy
from faststream.kafka import KafkaBroker
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from shared import metrics, topics, tracing, tracing_kafka
from shared.broker import Publisher, PublishFailed
from shared.cloudevents import InvalidRecord, Origin, Outgoing, Received, decode, given_trace, header_map
from shared.events import DeadLetter, DeadLetterReason, Event
from shared.logs import summary
from shared.redaction import redact, redact_json_text
from shared.settings import CommonSettings
from shared.topics import Topic
from shared.trace_context import about

logger = logging.getLogger(__name__)

_BACKOFF_FIRST_SECONDS: Final = 0.1
_BACKOFF_MOST_SECONDS: Final = 5.0
_TRIES_ALONE: Final = 3
_SMALL_BATCH_SHARE: Final = 4
# How long a rebalance waits for a member that is busy: longer than a batch with its retries, shorter than a person's.
_REBALANCE_MOST_MS: Final = 60_000
_TRACEBACK_LINES: Final = 12
VALUE_MOST_CHARACTERS: Final = 200_000
# Shorter than that, and longer than a batch with its retries (DELIVERY_RETRY_SECONDS) and its pause.
_HAND_OVER_MOST_SECONDS: Final = 45.0
# SQLSTATE classes of faults that pass: connection, transaction rollback (deadlock, serialization), resources,
# operator intervention; and a schema, table or column that is missing until the migrations have run.
_PASSING_SQLSTATES: Final = ("08", "40", "53", "55", "57", "3F000", "42P01", "42703")


@dataclass(frozen=True, slots=True)
class Refusal:
    """A record that the handler cannot accept, ever: it goes to dead.letters. No values in `detail`."""

    received: Received[Any]
    detail: str


Handler = Callable[[Sequence[Received[Any]]], Awaitable[Iterable[Refusal] | None]]


@dataclass(frozen=True, slots=True)
class _GivenUp:
    received: Received[Any]
    reason: DeadLetterReason
    detail: str
    head: str | None = None


@dataclass(frozen=True, slots=True)
class _Dead:
    letter: DeadLetter
    traceparent: str
    ticket_id: uuid.UUID | None = None


class Paused(Exception):
    """The batch was not handled; the same records come again."""


class _BadDeploy(Exception):
    """The handler fails on record after record: stop rather than empty the topic."""


def is_passing(error: BaseException) -> bool:
    """Whether trying again later can help, with the same code and the same record."""
    if isinstance(error, (PublishFailed, KafkaError, OSError, TimeoutError, PoolTimeoutError, InterfaceError)):
        return True
    if isinstance(error, DBAPIError):
        state = getattr(error.orig, "sqlstate", None) or ""
        return (
            error.connection_invalidated
            or state.startswith(_PASSING_SQLSTATES)
            or (isinstance(error, OperationalError) and not state)
        )
    return False


@dataclass(slots=True)
class FailureBudget:
    """How many records may still be moved to dead.letters because the handler failed on them.

    Starts with `start`; every `per_success` records handled earn one more, up to `most`. So one record in twenty may be
    bad in the long run, and a deploy that fails on everything stops after a handful.
    """

    start: int = 5
    most: int = 50
    per_success: int = 20
    _left: float = field(init=False)

    def __post_init__(self) -> None:
        self._left = self.start

    def earn(self, records: int) -> None:
        self._left = min(self.most, self._left + records / self.per_success)

    def spend(self) -> bool:
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Subscription:
    """One handler's consumer: a group, its topics, and the loop's progress (for readiness)."""

    def __init__(
        self,
        *,
        service: str,
        group: str,
        topics: Sequence[Topic],
        handler: Handler,
        publisher: Publisher,
        settings: CommonSettings,
    ) -> None:
        self.service = service
        self.group = group
        self.topics = {topic.name: topic for topic in topics}
        self.progress_at = time.monotonic()
        self.busy = False
        self.paused: str | None = None
        """Why the last batch was not handled; None when it was."""
        self.in_hand: Mapping[tuple[str, int], int] = {}  # records by topic and partition, while `busy`
        self.consumer: Callable[[], Any] = lambda: None
        self.is_alive: Callable[[], bool] = lambda: True
        """Whether its loop runs: FastStream starts one again that failed, but not one that just ended."""
        self.restart: Callable[[], Awaitable[None]] = _nothing
        self._handler = handler
        self._publisher = publisher
        self._settings = settings
        self._budget = FailureBudget()
        self._stopping = asyncio.Event()
        self._random = random.Random()  # noqa: S311 - jitter, not a secret
        self._begin_at_zero()

    def stop(self) -> None:
        """Give up waiting: what is being retried is left for the next start."""
        self._stopping.set()

    async def on_batch(self, records: Sequence[ConsumerRecord[Any, Any]]) -> None:
        """Handle a batch to the end, or raise: then none of it is committed and all of it comes again."""
        self.busy = True
        self.in_hand = Counter((record.topic, record.partition) for record in records)
        begun = time.monotonic()
        try:
            await self._deliver(records)
        except Exception as error:  # noqa: BLE001 - whatever it was: not committed, and said
            metrics.CONSUMER_PAUSED.labels(self.group).set(1)
            self.paused = type(error).__name__
            logger.error(
                "%s paused at %s: %s",
                self.group,
                _coordinates(records[0]),
                summary(error),
            )
            # Without this FastStream would take the same batch up again at once, thousands of times a second.
            await self._wait(self._jittered(_BACKOFF_MOST_SECONDS))
            raise Paused(f"{self.group}: {type(error).__name__}") from None
        finally:
            self.busy = False
            self.in_hand = {}
        self.progress_at = time.monotonic()
        self.paused = None
        metrics.CONSUMER_PAUSED.labels(self.group).set(0)
        metrics.LOOP_PROGRESS.labels(self.group).set_to_current_time()
        metrics.BATCH_SECONDS.labels(self.group).observe(time.monotonic() - begun)
        for topic, count in Counter(record.topic for record in records).items():
            metrics.RECORDS_CONSUMED.labels(self.group, topic).inc(count)
        now = time.time()
        age = metrics.RECORD_AGE_SECONDS.labels(self.group)
        for record in records:
            age.observe(max(0.0, now - record.timestamp / 1000))
        if len(records) < self._settings.batch_max_records // _SMALL_BATCH_SHARE:
            # Let the next batch gather: a transaction and a commit for every few records cost more than the records.
            await self._wait(self._settings.batch_wait_ms / 1000)

    async def _deliver(self, records: Sequence[ConsumerRecord[Any, Any]]) -> None:
        good: list[Received[Any]] = []
        dead: list[_Dead] = []
        by_origin: dict[Origin, ConsumerRecord[Any, Any]] = {}
        for record in records:
            origin = Origin(record.topic, record.partition, record.offset)
            by_origin[origin] = record
            try:
                good.append(decode(record, self.topics[record.topic].carries))
            except InvalidRecord as invalid:
                letter = self._dead_letter(record, invalid.reason, invalid.detail)
                trace = given_trace(header_map(record).get("traceparent", ""), letter)
                if tracing.is_on():
                    trace = tracing_kafka.rejected(origin, self.group, trace, invalid.reason)
                dead.append(_Dead(letter, trace))
        if good:
            for given_up in await self._handle_traced(good):
                received = given_up.received
                letter = self._dead_letter(by_origin[received.origin], given_up.reason, given_up.detail, given_up.head)
                dead.append(_Dead(letter, received.traceparent, _ticket_of(received)))
        if dead:
            await self._publisher.publish(
                [Outgoing(topics.DEAD_LETTERS.name, one.letter, one.traceparent) for one in dead]
            )
            for one in dead:
                letter = one.letter
                metrics.DEAD_LETTERS.labels(self.group, letter.topic, letter.reason).inc()
                with about(one.traceparent, one.ticket_id):
                    logger.warning(
                        "dead letter: %s[%s]@%s: %s: %s",
                        letter.topic,
                        letter.partition,
                        letter.offset,
                        letter.reason,
                        letter.detail,
                    )

    async def _handle_traced(self, good: Sequence[Received[Any]]) -> list[_GivenUp]:
        """See `_handle`. With tracing on, each record is handled within a span of its own, and carries its context."""
        if not tracing.is_on():
            given_up = await self._handle(good)
            self._say_handled(good)
            return given_up
        good, spans = tracing_kafka.begin_processing(good, self.group)
        try:
            given_up = await self._handle(good)
        except BaseException as error:
            for span in spans:
                span.fail(type(error).__name__)
            raise
        else:
            failed = {item.received.origin: item.reason for item in given_up}
            for received, span in zip(good, spans, strict=True):
                if (reason := failed.get(received.origin)) is not None:
                    span.fail(reason)
            self._say_handled(good)
            return given_up
        finally:
            for span in spans:
                span.end()

    def _say_handled(self, good: Sequence[Received[Any]]) -> None:
        """A line for each record, for who follows one ticket: only at DEBUG."""
        if logger.isEnabledFor(logging.DEBUG):
            for received in good:
                with about(*_matter_of([received])):
                    logger.debug("%s handled %s: %s", self.group, received.origin, received.event.TYPE)

    async def _handle(self, good: Sequence[Received[Any]]) -> list[_GivenUp]:
        """Have all of `good` handled; returns those that are to become dead letters. Raises when it cannot be done
        now.
        """
        try:
            refusals = await self._with_retries(good)
        except _HandlerFailed as failed:
            if len(good) == 1:
                return await self._alone(good[0], failed)
            middle = len(good) // 2
            return [*await self._handle(good[:middle]), *await self._handle(good[middle:])]
        self._budget.earn(len(good))
        return [_GivenUp(item.received, DeadLetterReason.REFUSED, item.detail) for item in refusals]

    async def _with_retries(self, good: Sequence[Received[Any]]) -> Sequence[Refusal]:
        deadline = time.monotonic() + self._settings.delivery_retry_seconds
        attempt = 0
        while True:
            try:
                with about(*_matter_of(good)):
                    return list(await self._handler(good) or ())
            except Exception as error:
                if not is_passing(error):
                    raise _HandlerFailed(error) from error
                if time.monotonic() >= deadline or self._stopping.is_set():
                    raise
                metrics.BATCH_RETRIES.labels(self.group).inc()
                logger.warning(
                    "%s: try %d failed, trying again: %s",
                    self.group,
                    attempt + 1,
                    summary(error),
                )
                await self._wait(self._jittered(min(_BACKOFF_MOST_SECONDS, _BACKOFF_FIRST_SECONDS * 2**attempt)))
                attempt += 1

    async def _alone(self, received: Received[Any], failed: _HandlerFailed) -> list[_GivenUp]:
        """The handler failed on this record by itself: try it again, then give it up, if the budget allows."""
        for attempt in range(1, _TRIES_ALONE):
            await self._wait(self._jittered(_BACKOFF_FIRST_SECONDS * 2**attempt))
            try:
                refusals = await self._with_retries([received])
            except _HandlerFailed as again:
                failed = again
            else:
                return [_GivenUp(received, DeadLetterReason.REFUSED, item.detail) for item in refusals]
        error = failed.error
        with about(*_matter_of([received])):
            logger.error("%s: the handler failed on %s alone: %s", self.group, received.origin, _summary(error))
        if not self._budget.spend():
            raise _BadDeploy(
                f"the handler fails on record after record, last on {received.origin}: {_summary(error)}; "
                "roll back or fix it, the records are kept until then"
            )
        return [_GivenUp(received, DeadLetterReason.HANDLER_FAILED, _summary(error), _head(error))]

    def _dead_letter(
        self, record: ConsumerRecord[Any, Any], reason: DeadLetterReason, detail: str, head: str | None = None
    ) -> DeadLetter:
        value = (record.value or b"").decode("utf-8", "backslashreplace")
        return DeadLetter(
            service=self.service,
            group=self.group,
            reason=reason,
            detail=redact(detail).text,
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            record_key=redact((record.key or b"").decode("utf-8", "backslashreplace")).text or None,
            # As one document: a header's name may be a secret, or say that its value is one.
            headers=json.loads(redact_json_text(json.dumps(header_map(record)))),
            value=redact_json_text(value)[:VALUE_MOST_CHARACTERS],
            recorded_at=datetime.fromtimestamp(record.timestamp / 1000, UTC),
            failed_at=datetime.now(UTC),
            traceback=head,
        )

    def _begin_at_zero(self) -> None:
        """What alerts watch: a series that begins with its first fault has no increase."""
        metrics.CONSUMER_PAUSED.labels(self.group).set(0)
        metrics.LOOP_PROGRESS.labels(self.group).set_to_current_time()
        metrics.BATCH_RETRIES.labels(self.group)
        metrics.RECORDS_DUPLICATE.labels(self.group)
        for topic in self.topics:
            metrics.RECORDS_CONSUMED.labels(self.group, topic)
            for reason in DeadLetterReason:
                metrics.DEAD_LETTERS.labels(self.group, topic, reason)

    def _jittered(self, seconds: float) -> float:
        return self._random.uniform(seconds / 2, seconds)

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return


class _HandOver(ConsumerRebalanceListener):  # type: ignore[misc]
    """Lets the batch at hand be finished and committed before its partitions may go to another replica, which would
    handle it a second time. The group waits; no further batch begins meanwhile, as aiokafka hands out no records.
    """

    def __init__(self, group: str) -> None:
        self._group = group
        self.subscriber: Any = None

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        finished = getattr(self.subscriber.lock, "wait_release", None)
        if finished is not None:
            await finished(_HAND_OVER_MOST_SECONDS)
            if not self.subscriber.lock.empty:
                logger.warning("%s: a batch is still at hand while its partitions are taken away", self._group)

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        return


async def _nothing() -> None:
    return


class _HandlerFailed(Exception):
    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def _matter_of(good: Sequence[Received[Any]]) -> tuple[str, uuid.UUID | None]:
    """What a handler's lines in the log are about: the one record of a batch, nothing that holds for several."""
    return (good[0].traceparent, _ticket_of(good[0])) if len(good) == 1 else ("", None)


def _ticket_of(received: Received[Any]) -> uuid.UUID | None:
    ticket_id: uuid.UUID | None = getattr(received.event, "ticket_id", None)
    return ticket_id


def _coordinates(record: ConsumerRecord[Any, Any]) -> str:
    return f"{record.topic}[{record.partition}]@{record.offset}"


def _summary(error: BaseException) -> str:
    # The type and the place, not the text: a handler's error may quote the customer.
    frame = tracebacks.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {frame.name} ({frame.filename.rsplit('/', 1)[-1]}:{frame.lineno})"


def _head(error: BaseException) -> str:
    frames = tracebacks.extract_tb(error.__traceback__)[-_TRACEBACK_LINES:]
    return "\n".join(f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno} {frame.name}" for frame in frames)


def subscribe(
    broker: KafkaBroker,
    publisher: Publisher,
    settings: CommonSettings,
    *,
    service: str,
    group: str,
    topics: Sequence[Topic],
    handler: Handler,
    description: str,
) -> Subscription:
    """Have `handler` called with batches of the events of `topics`. It must store, publish and only then return."""
    subscription = Subscription(
        service=service, group=group, topics=topics, handler=handler, publisher=publisher, settings=settings
    )
    hand_over = _HandOver(group)
    subscriber = broker.subscriber(
        *(topic.name for topic in topics),
        group_id=group,
        batch=True,
        max_records=settings.batch_max_records,
        batch_timeout_ms=settings.batch_wait_ms,
        rebalance_timeout_ms=_REBALANCE_MOST_MS,
        ack_policy=AckPolicy.NACK_ON_ERROR,
        auto_offset_reset="earliest",
        listener=hand_over,
        parser=_lenient_headers,
        decoder=_undecoded,
        title=f"{group}:{topics[0].name if len(topics) == 1 else topics[0].name.split('.')[0]}",
        description=description,
        no_reply=True,
    )

    async def on_batch(records: Any) -> None:
        await subscription.on_batch(records)

    # One record's type, for the AsyncAPI document: a producer sends single events, batches are our own affair.
    carried = tuple(dict.fromkeys(model for topic in topics for model in topic.carries))
    on_batch.__annotations__ = {"records": Union[carried], "return": None}  # noqa: UP007 - made at run time
    on_batch.__name__ = f"{group}_{topics[0].name}".replace(".", "_")
    on_batch.__doc__ = description
    subscriber(on_batch)
    hand_over.subscriber = subscriber

    async def restart() -> None:
        await subscriber.stop()
        await subscriber.start()

    subscription.consumer = lambda: subscriber.consumer
    subscription.is_alive = lambda: any(not task.done() for task in subscriber.tasks)
    subscription.restart = restart
    return subscription


async def _lenient_headers(records: Any, parse: Any) -> Any:
    """FastStream decodes headers strictly: one that is not UTF-8 would fail the whole batch, for ever."""
    for record in records:
        if not all(_is_utf8(value) for _, value in record.headers):
            record.headers = tuple(
                (name, (value or b"").decode("utf-8", "backslashreplace").encode()) for name, value in record.headers
            )
    return await parse(records)


def _is_utf8(value: bytes | None) -> bool:
    try:
        (value or b"").decode()
    except UnicodeDecodeError:
        return False
    return value is not None


async def _undecoded(message: Any) -> Any:
    """The raw records: `cloudevents.decode` reads them, one by one, so that a bad one does not fail the batch."""
    return message.raw_message


__all__ = [
    "Event",
    "FailureBudget",
    "Handler",
    "Paused",
    "Refusal",
    "Subscription",
    "is_passing",
    "subscribe",
]
