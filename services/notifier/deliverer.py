"""Tries what is due: leases it, delivers outside any transaction, records what became of it.

A process that dies leaves a lease that runs out, and the notification is tried again: at least once. Receivers drop
repetitions by `webhook-id`, people see the same Message-ID.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import product
from typing import Final, Protocol

from services.notifier import storage
from services.notifier.domain.notifications import Kind, Notification, written_digest
from services.notifier.domain.outputs import MAIL_ENDPOINT, Outputs
from services.notifier.domain.retry import Outcome, Tried, Verdict, conclude
from services.notifier.domain.texts import Texts
from services.notifier.handlers import outcome
from services.notifier.settings import Settings
from services.notifier.storage import Lease, Result, State
from shared import metrics, topics, tracing
from shared.cloudevents import Outgoing
from shared.database import Database, listen
from shared.events import NotificationStatus, Output
from shared.finishing import finished
from shared.outbox import Outbox
from shared.trace_context import about

logger = logging.getLogger(__name__)

_LONGEST_SLEEP_SECONDS: Final = 5.0  # a safety net: NOTIFY wakes the deliverer
_SHORTEST_SLEEP_SECONDS: Final = 0.005  # what is due but locked by another replica must not make a busy loop
_RECORD_MOST: Final = 200
DISABLED: Final = "endpoint disabled"


class Sender(Protocol):
    async def send(self, notification: Notification) -> Tried: ...


@dataclass(frozen=True, slots=True)
class _Job:
    """A leased notification; `members` go out with a digest; `hopeless` says why it is not even tried."""

    lease: Lease
    notification: Notification
    members: Sequence[Notification]
    hopeless: str | None


@dataclass(frozen=True, slots=True)
class _Done:
    job: _Job
    outcome: Outcome


class Deliverer:
    """One per process. At most `notifier_deliveries_per_endpoint` deliveries to each endpoint are under way."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        texts: Texts,
        outputs: Outputs,
        senders: Mapping[Output, Sender],
    ) -> None:
        self._database = database
        self._settings = settings
        self._texts = texts
        self._outputs = outputs
        self._senders = senders
        self._outbox = Outbox(storage.SCHEMA)
        self._policy = settings.retry_policy
        self._url_digests = {
            name: hashlib.sha256(endpoint.url.encode()).hexdigest() for name, endpoint in outputs.endpoints.items()
        }
        self._under_way: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._done: asyncio.Queue[_Done] = asyncio.Queue()
        self._wake = asyncio.Event()
        for kind, output, status in product(Kind, Output, NotificationStatus):
            metrics.DELIVERIES.labels(kind, output, status)  # what alerts watch begins at 0

    async def run(self) -> None:
        """Until cancelled; then what is under way is finished and recorded. Raises when the database fails."""
        listener = await listen(self._database, storage.DEADLINES.channel, self._wake.set)
        recorder = asyncio.create_task(self._record_for_ever())
        turns = asyncio.create_task(self._lease_for_ever())
        try:
            await asyncio.wait({recorder, turns}, return_when=asyncio.FIRST_COMPLETED)
            for ended in (recorder, turns):
                if ended.done():
                    ended.result()
        finally:
            turns.cancel()
            recorder.cancel()
            await asyncio.gather(turns, recorder, return_exceptions=True)
            await self._finish_what_is_under_way()
            await listener.close(timeout=1)

    async def _finish_what_is_under_way(self) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._settings.notifier_delivery_timeout_seconds)
        for task in self._tasks:
            task.cancel()
        while not self._done.empty():
            await self._record(self._take_done())

    # --- leasing -----------------------------------------------------------------------------------------------------

    async def _lease_for_ever(self) -> None:
        while True:
            self._wake.clear()
            for job in await self._lease():
                self._under_way[job.lease.endpoint] += 1
                task = asyncio.create_task(self._deliver(job))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            await self._sleep()

    def _free(self) -> dict[str, int]:
        most = self._settings.notifier_deliveries_per_endpoint
        return {
            name: most - self._under_way[name] for name in self._outputs.endpoint_names if self._under_way[name] < most
        }

    async def _lease(self) -> list[_Job]:
        free = self._free()
        if not free:
            return []
        now = datetime.now(UTC)
        async with self._database.transaction() as connection:
            leases = await storage.lease_due(connection, now, self._settings.notifier_lease_seconds, free)
            if not leases:
                return []
            notifications = await storage.load_notifications(connection, [lease.notification_id for lease in leases])
            digests = [item.notification_id for item in notifications.values() if item.kind is Kind.DIGEST]
            members = await storage.members_of(connection, digests) if digests else {}
            disabled = await storage.disabled_endpoints(connection)
        jobs = []
        for lease in leases:
            notification = notifications[lease.notification_id]
            folded = members.get(lease.notification_id, [])
            if notification.kind is Kind.DIGEST:
                notification = written_digest(notification, folded, self._texts)
            since = disabled.get(lease.endpoint)
            gone = since is not None and since[0] == self._url_digests.get(lease.endpoint)
            jobs.append(
                _Job(lease, notification, folded, f"{DISABLED} since {since[1]:%F %T}Z" if gone and since else None)
            )
            if lease.attempt == 1:
                metrics.DEADLINES_FIRED.labels(storage.SCHEMA, notification.kind).inc()
                lateness_seconds = max(0.0, (now - lease.due_at).total_seconds())
                metrics.DEADLINE_LATENESS_SECONDS.labels(storage.SCHEMA, notification.kind).observe(lateness_seconds)
        return jobs

    async def _sleep(self) -> None:
        """Until something is due for an endpoint with room, or somebody says that it may be."""
        async with self._database.transaction() as connection:
            due = await storage.next_due(connection, self._free())
        wait_seconds = _LONGEST_SLEEP_SECONDS if due is None else (due - datetime.now(UTC)).total_seconds()
        try:
            async with asyncio.timeout(max(_SHORTEST_SLEEP_SECONDS, min(_LONGEST_SLEEP_SECONDS, wait_seconds))):
                await self._wake.wait()
        except TimeoutError:
            return

    # --- delivering --------------------------------------------------------------------------------------------------

    async def _deliver(self, job: _Job) -> None:
        try:
            with about(job.notification.traceparent, job.notification.ticket_id), _traced(job) as span:
                job = replace(job, notification=replace(job.notification, traceparent=span.traceparent))
                tried = await self._try(job)
                lease = job.lease
                concluded = conclude(tried, self._policy, lease.notification_id, lease.attempt, datetime.now(UTC))
                span.set({"switchyard.notification.status": _status(concluded)})
                if not concluded.delivered:
                    span.fail(concluded.detail)
            self._done.put_nowait(_Done(job, concluded))
        finally:
            self._under_way[job.lease.endpoint] -= 1
            self._wake.set()

    async def _try(self, job: _Job) -> Tried:
        if job.hopeless is not None:
            return Tried(Verdict.HOPELESS, job.hopeless)
        output = Output.MAIL if job.lease.endpoint == MAIL_ENDPOINT else Output.WEBHOOK
        begun = time.monotonic()
        try:
            return await self._senders[output].send(job.notification)
        except Exception as error:
            # A fault of ours, in this notification or in all: tried again, a better deploy may still deliver it.
            logger.exception("notification %s could not be sent", job.lease.notification_id)
            return Tried(Verdict.TRY_AGAIN, f"fault in the notifier: {type(error).__name__}")
        finally:
            metrics.DELIVERY_SECONDS.labels(output).observe(time.monotonic() - begun)

    # --- recording ---------------------------------------------------------------------------------------------------

    async def _record_for_ever(self) -> None:
        while True:
            first = await self._done.get()
            # Cut off, what was delivered would not be known to be: it would be delivered once more.
            await finished(self._record([first, *self._take_done()]))

    def _take_done(self) -> list[_Done]:
        """What else has ended by now: many results cost one transaction."""
        return [self._done.get_nowait() for _ in range(min(self._done.qsize(), _RECORD_MOST))]

    async def _record(self, ended: Sequence[_Done]) -> None:
        """Store what became of each and say so, in one transaction."""
        now = datetime.now(UTC)
        async with self._database.transaction() as connection:
            ours = await storage.end_leases(connection, {done.job.lease: done.outcome.next_try_at for done in ended})
            valid = [done for done in ended if done.job.lease.notification_id in ours]
            await storage.record_results(connection, [result for done in valid for result in _results(done)], now)
            for done in valid:
                if done.outcome.disables_endpoint:
                    name = done.job.lease.endpoint
                    await storage.disable_endpoint(connection, name, self._url_digests[name], now)
            await self._outbox.add(connection, [event for done in valid for event in _outcomes(done, now)])
        self._wake.set()  # the next try may be due sooner than what is slept for
        for done in valid:
            with about(done.job.notification.traceparent, done.job.notification.ticket_id):
                self._tell(done)

    def _tell(self, done: _Done) -> None:
        notification, lease = done.job.notification, done.job.lease
        output = Output.MAIL if lease.endpoint == MAIL_ENDPOINT else Output.WEBHOOK
        metrics.DELIVERIES.labels(notification.kind, output, _status(done.outcome)).inc()
        if done.outcome.delivered:
            now = datetime.now(UTC)
            age = metrics.NOTIFICATION_AGE_SECONDS.labels(notification.kind, output)
            for told in done.job.members or (notification,):
                age.observe(max(0.0, (now - told.caused_at).total_seconds()))
        if done.outcome.disables_endpoint:
            logger.error(
                "endpoint %s answered 410 Gone: nothing is sent to it until its URL changes in notifications.yaml, "
                "or until `python -m services.notifier enable %s`",
                lease.endpoint,
                lease.endpoint,
            )
        if done.outcome.delivered:
            logger.debug(
                "notification %s (%s to %s) delivered", lease.notification_id, notification.kind, lease.endpoint
            )
        else:
            logger.warning(
                "notification %s (%s to %s), try %d: %s; %s",
                lease.notification_id,
                notification.kind,
                lease.endpoint,
                lease.attempt,
                done.outcome.detail,
                "given up" if done.outcome.given_up else f"next at {done.outcome.next_try_at}",
            )


def _traced(job: _Job) -> AbstractContextManager[tracing.Span]:
    """A span of one try. A digest goes on with the trace of its first reminder, linked to those of all."""
    notification, lease = job.notification, job.lease
    return tracing.span(
        f"deliver {notification.kind}",
        notification.traceparent,
        "client",
        {
            tracing.TICKET: str(notification.ticket_id) if notification.ticket_id else None,
            tracing.BRAND: notification.brand,
            "switchyard.notification.id": str(lease.notification_id),
            "switchyard.notification.endpoint": lease.endpoint,
            "switchyard.notification.attempt": lease.attempt,
        },
        links=[member.traceparent for member in job.members],
    )


def _status(concluded: Outcome) -> NotificationStatus:
    if concluded.delivered:
        return NotificationStatus.DELIVERED
    return NotificationStatus.GIVEN_UP if concluded.given_up else NotificationStatus.FAILED


def _results(done: _Done) -> list[Result]:
    """Of the notification, and of each in it when it is a digest: those stay folded until the digest is finished."""
    lease, concluded = done.job.lease, done.outcome
    states = {
        NotificationStatus.DELIVERED: State.DELIVERED,
        NotificationStatus.GIVEN_UP: State.GIVEN_UP,
        NotificationStatus.FAILED: State.PENDING,
    }
    state = states[_status(concluded)]
    results = [Result(lease.notification_id, state, lease.attempt, concluded.detail, concluded.next_try_at)]
    if state is not State.PENDING:
        results += [Result(item.notification_id, state, lease.attempt, concluded.detail) for item in done.job.members]
    return results


def _outcomes(done: _Done, now: datetime) -> list[Outgoing]:
    about = done.job.members if done.job.notification.kind is Kind.DIGEST else (done.job.notification,)
    return [
        Outgoing(
            topics.NOTIFICATIONS_OUTCOMES.name,
            outcome(
                item,
                _status(done.outcome),
                attempt=done.job.lease.attempt,
                at=now,
                detail=done.outcome.detail,
                next_try_at=done.outcome.next_try_at,
            ),
            item.traceparent,
        )
        for item in about
    ]
