"""How a service lives: start in any order, tell the truth about health, drain on SIGTERM.

Every service is one FastAPI application: its own routes (if any), `/livez`, `/readyz` and `/metrics`, a broker with
subscriptions, and background tasks (outbox relay, deadline runner). Nothing waits for another service to be there:
what is missing is tried again, and `/readyz` says what is missing. What each answer promises: docs/health.md.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from aiokafka import TopicPartition
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from faststream.kafka import KafkaBroker
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from shared import labels, logs, measuring, metrics, tracing
from shared.admin import verify_topics
from shared.broker import Publisher, build_broker
from shared.build import version
from shared.database import Database
from shared.delivery import Handler, Subscription, subscribe
from shared.health import ANSWER_MOST_SECONDS, ASK_EVERY_SECONDS, DatabasePing, PoolWatch, Shown, Unhealthy, Watched
from shared.http import (
    BodyLimit,
    SecurityHeaders,
    bearer_token,
    install_problem_handlers,
    same_secret,
    unauthorized,
)
from shared.lag import Lag
from shared.operations import build_operations_router
from shared.rights import remedy
from shared.serving import serve
from shared.settings import CommonSettings
from shared.tls import (
    LOOK_EVERY_SECONDS,
    ServerCertificate,
    authorities_end_at,
    client_context,
    ends_at,
    server_certificate,
)
from shared.topics import DEAD_LETTERS, Topic
from shared.tracing_http import TraceRequests

logger = logging.getLogger(__name__)

_RETRY_FIRST_SECONDS: Final = 0.25
_RETRY_MOST_SECONDS: Final = 5.0
_LAG_EVERY_SECONDS: Final = 2.0
_SIZE_EVERY_SECONDS: Final = 60.0
_FETCH_WINDOW_SECONDS: Final = 0.005
_BODY_MOST_BYTES: Final = 2 * 1024 * 1024
_SETTLED_SECONDS: Final = 2.0  # a task that failed counts as failing until it has run for so long
_VERIFY_SECONDS: Final = 10.0
_COORDINATOR_EVERY_SECONDS: Final = 2.0
_CERTIFICATES_EVERY_SECONDS: Final = 60.0
_LET_GO_SECONDS: Final = 5.0  # to say good-bye to a broker or a database, each; they may be gone

_LOOK_SECONDS: Final = 1.0

# The relay publishes what the last requests and batches leave in the outbox; the gauges tell of the stop.
_LAST_TO_END: Final = frozenset({"outbox", "health"})

# What a request needs. Without Kafka most are still answered, from the database and into the outbox, or with a 503 that
# says when to come again: a load balancer must not turn that into a refused connection.
_NEEDED_FOR_HTTP: Final = frozenset({"service", "database", "pool"})

Task = Callable[[], Awaitable[None]]


@dataclass
class Service:
    """One service, wired in its `app.py` and run by `run`. `checks`: what else keeps it from being ready, by name.
    `certificates`: files whose end is told, by name. `stopping`: set as soon as it is to stop; what holds a request for
    long must end then.
    """

    name: str
    settings: CommonSettings
    database: Database = field(init=False)
    broker: KafkaBroker = field(init=False)
    publisher: Publisher = field(init=False)
    routers: list[APIRouter] = field(default_factory=list)
    subscriptions: list[Subscription] = field(default_factory=list)
    tasks: dict[str, Task] = field(default_factory=dict)
    publishes: list[Topic] = field(default_factory=list)
    checks: dict[str, Callable[[], str | None]] = field(default_factory=dict)
    certificates: dict[str, Path] = field(default_factory=dict)
    body_most_bytes: int = _BODY_MOST_BYTES
    stopping: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    certificate: ServerCertificate | None = field(init=False)
    _closing: list[Task] = field(default_factory=list, init=False)
    _consuming: bool = field(default=False, init=False)
    _failing: dict[str, str] = field(default_factory=dict, init=False)
    _running: dict[str, asyncio.Task[None]] = field(default_factory=dict, init=False)
    _draining: asyncio.Task[None] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.certificate = server_certificate(self.settings)
        client_context(self.settings)  # so that what is wrong with it is told at the start
        self.database = Database(self.settings, service=self.name)
        self.broker = build_broker(self.settings, service=self.name)
        self.publisher = Publisher(self.broker, self.settings, service=self.name)
        labels.BRANDS.add(self.settings.brands_directory)
        self.measure(_SIZE_EVERY_SECONDS, "size of the tables", self.database.measure_size, most_of_time=0.01)
        self.measure(_CERTIFICATES_EVERY_SECONDS, "certificates", self._measure_certificates)
        if self.certificate is not None:
            self.every(LOOK_EVERY_SECONDS, "http certificate", self._look_at_certificate)
        self._database_watch = Watched(DatabasePing(self.database))
        self._pool_watch = PoolWatch(self.database)
        self._broker_watch = Watched(self._ask_broker)
        self._group_watches: dict[str, Watched] = {}
        self._shown = Shown(self.name)

    def subscribe(self, topics: Sequence[Topic], handler: Handler, *, description: str) -> None:
        """Consume `topics` in one loop of the group named after the service and the first topic's family."""
        metrics.PUBLISH_FAILURES.labels(self.name, DEAD_LETTERS.name)
        family = topics[0].name.split(".")[0] if len(topics) > 1 else topics[0].name
        self.subscriptions.append(
            subscribe(
                self.broker,
                self.publisher,
                self.settings,
                service=self.name,
                group=f"{self.name}.{family}",
                topics=topics,
                handler=handler,
                description=description,
            )
        )
        added = self.subscriptions[-1]
        self._group_watches[added.group] = Watched(
            functools.partial(self._ask_coordinator, added), every_seconds=_COORDINATOR_EVERY_SECONDS
        )

    def announce(self, topic: Topic) -> None:
        """Declare that the service publishes to `topic`, for the AsyncAPI document and the check at start."""
        self.publishes.append(topic)
        metrics.PUBLISH_FAILURES.labels(self.name, topic.name)
        for model in topic.carries:
            self.broker.publisher(
                topic.name, schema=model, title=f"{topic.name}:{model.__name__}", description=topic.says
            )

    def every(self, seconds: float, name: str, work: Task) -> None:
        """Run `work` every so often, e.g. to measure a gauge."""

        async def repeat() -> None:
            while True:
                await work()
                await asyncio.sleep(seconds)

        self.tasks[name] = repeat

    def measure(self, seconds: float, name: str, work: Task, *, most_of_time: float = 0.05) -> None:
        """Set gauges every so often; see `measuring.for_ever`."""
        self.tasks[f"measure {name}"] = functools.partial(
            measuring.for_ever, seconds, name, work, most_of_time=most_of_time
        )

    def on_stop(self, close: Task) -> None:
        """Let go of something, e.g. connections, once nothing runs any more."""
        self._closing.append(close)

    def app(self) -> FastAPI:
        app = FastAPI(
            title=f"Switchyard {self.name}",
            lifespan=self._lifespan,
            docs_url=None,
            redoc_url=None,
            openapi_url="/openapi.json" if self.routers else None,
            # Its own would tell queries and what exceptions say, also of what only the environment switches on.
            telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
        )
        install_problem_handlers(app)
        app.add_middleware(BodyLimit, most_bytes=self.body_most_bytes)
        app.add_middleware(SecurityHeaders, service=self.name)
        app.add_middleware(TraceRequests)
        app.include_router(self._operations())
        app.include_router(build_operations_router(self.settings))
        for router in self.routers:
            app.include_router(router)
        return app

    # --- life ----------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        metrics.BUILD_INFO.labels(self.name, version()).set(1)
        self._shown.show(self._check_names(), set())
        for name, work in self._work().items():
            self._running[name] = asyncio.create_task(work, name=f"{self.name}:{name}")
        _settle_garbage_collector()
        try:
            yield
        finally:
            self.begin_stop()
            assert self._draining is not None
            await self._draining
            await self._end(self._running.values(), _LET_GO_SECONDS)
            await self._within(_LET_GO_SECONDS, "letting go of the broker", self.broker.stop())
            for close in self._closing:
                await self._within(_LET_GO_SECONDS, "closing", close())
            await self._within(_LET_GO_SECONDS, "letting go of the database", self.database.close())
            logger.info("stopped")

    def _work(self) -> dict[str, Coroutine[Any, Any, None]]:
        """Everything that runs as long as the service does, by name."""
        supervised: dict[str, Task] = {"consume": self._consume}
        if self.settings.kafka_fetch_pause_ms:
            for item in self.subscriptions:
                supervised[f"fetch {item.group}"] = functools.partial(self._pause_fetching, item)
        supervised |= self.tasks
        watched = {"health": self._show_health(), "health database": self._database_watch.watch()}
        watched["health broker"] = self._broker_watch.watch()
        for item in self.subscriptions:
            watched[f"health {item.group}"] = self._group_watches[item.group].watch()
            # Readiness hangs on it: it never rests.
            watched[f"lag {item.group}"] = measuring.for_ever(
                _LAG_EVERY_SECONDS, f"lag of {item.group}", Lag(item).measure, most_of_time=1
            )
        return watched | {name: self._supervise(name, work) for name, work in supervised.items()}

    def begin_stop(self) -> None:
        """Take nothing new from anywhere; finish what is at hand. Idempotent."""
        if not self.stopping.is_set():
            self.stopping.set()
            self._draining = asyncio.create_task(self._drain(), name=f"{self.name}:drain")

    async def _drain(self) -> None:
        """While requests at hand are still answered. What they leave in the outbox is published meanwhile."""
        for subscription in self.subscriptions:
            subscription.stop()
        # A start that goes on would make the consumers anew.
        await self._end([self._running["consume"]], _LET_GO_SECONDS)
        ending = [task for name, task in self._running.items() if name not in _LAST_TO_END]
        await asyncio.gather(
            self._end(ending, self.settings.drain_timeout_seconds),
            *(self._stop_consumer(subscriber) for subscriber in self.broker.subscribers),
        )

    async def _stop_consumer(self, subscriber: Any) -> None:
        """No new batch; the one at hand is finished and committed, then the group is left."""
        drain_seconds = self.settings.drain_timeout_seconds
        stopping = asyncio.ensure_future(subscriber.stop())
        await asyncio.sleep(0)  # it says first that no further batch is to begin
        if (finished := getattr(subscriber.lock, "wait_release", None)) is not None:
            await finished(drain_seconds)
        await self._within(_LET_GO_SECONDS, f"leaving the group {subscriber.group_id}", stopping)

    async def _end(self, tasks: Iterable[asyncio.Task[None]], seconds: float) -> None:
        tasks = [task for task in tasks if not task.done()]
        for task in tasks:
            task.cancel()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=seconds)
            for task in late:
                logger.warning("%s did not end within %g s", task.get_name(), seconds)

    async def _within(self, seconds: float, what: str, work: Awaitable[None]) -> None:
        """Wait for `work` for so long. Who is said good-bye to may be gone, and the platform kills who waits."""
        task = asyncio.ensure_future(work)
        await asyncio.wait({task}, timeout=seconds)
        if not task.done():
            task.cancel()
            logger.warning("%s did not end within %g s", what, seconds)
        elif not task.cancelled() and (error := task.exception()) is not None:
            logger.warning("%s failed: %r", what, error)

    # --- consuming -----------------------------------------------------------------------------------------------

    async def _consume(self) -> None:
        """Start consuming, once what is needed is there; start a consumer again whose loop has ended."""
        if not self._consuming:
            await self._start_consuming()
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            for subscription in self.subscriptions:
                if not subscription.is_alive():
                    logger.error("the consumer of %s has ended, starting it again", subscription.group)
                    await subscription.restart()

    async def _start_consuming(self) -> None:
        needed = {name for subscription in self.subscriptions for name in subscription.topics}
        needed |= {topic.name for topic in self.publishes}
        delay = _RETRY_FIRST_SECONDS
        while True:
            try:
                async with asyncio.timeout(_VERIFY_SECONDS):
                    await verify_topics(self.settings, needed)
                    await self.database.ping()
                await self.broker.start()
            except Exception as error:  # noqa: BLE001 - also what a database says that is just starting
                self._failing["start"] = f"{type(error).__name__}: {error}"
                logger.warning("cannot start consuming yet: %s%s", logs.summary(error), remedy(error, self.settings))
                # Those that did start would go on beside the ones of the next try, and commit for them.
                await asyncio.gather(*(item.stop() for item in self.broker.subscribers), return_exceptions=True)
                await asyncio.sleep(random.uniform(delay / 2, delay))  # noqa: S311 - jitter
                delay = min(_RETRY_MOST_SECONDS, delay * 2)
            else:
                self._failing.pop("start", None)
                self._consuming = True
                logger.info(
                    "consuming %s",
                    ", ".join(sorted(needed - {topic.name for topic in self.publishes})) or "nothing",
                )
                return

    async def _supervise(self, name: str, work: Task) -> None:
        """Keep `work` running: a fault of the database or the broker ends one try, not the service."""
        delay = _RETRY_FIRST_SECONDS
        loop = asyncio.get_running_loop()
        settled: asyncio.TimerHandle | None = None
        while True:
            begun = time.monotonic()
            try:
                await work()
            except (Exception, asyncio.CancelledError) as error:
                task = asyncio.current_task()
                if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                    raise  # of us; else of what `work` waited for
                if time.monotonic() - begun > 10 * _RETRY_MOST_SECONDS:
                    delay = _RETRY_FIRST_SECONDS
                if settled is not None:
                    settled.cancel()
                self._failing[name] = type(error).__name__
                logger.warning("%s failed, starting it again: %s", name, logs.summary(error))
                await asyncio.sleep(random.uniform(delay / 2, delay))  # noqa: S311 - jitter
                # Not at once: what fails over and over would be told to be well in between.
                settled = loop.call_later(_SETTLED_SECONDS, self._failing.pop, name, None)
                delay = min(_RETRY_MOST_SECONDS, delay * 2)
            else:
                self._failing.pop(name, None)
                return

    async def _pause_fetching(self, subscription: Subscription) -> None:
        """Keep a consumer that has caught up from asking the embedded broker thousands of times a second."""
        while True:
            consumer = subscription.consumer()
            if consumer and not subscription.busy and not any((await self._lag(subscription)).values()):
                resting = consumer.assignment()
                consumer.pause(*resting)
                await asyncio.sleep(self.settings.kafka_fetch_pause_ms / 1000)
                if subscription.consumer() is consumer:
                    consumer.resume(*(resting & consumer.assignment()))
            await asyncio.sleep(_FETCH_WINDOW_SECONDS)

    async def _lag(self, subscription: Subscription) -> dict[TopicPartition, int]:
        """Records written and not yet taken, per assigned partition, from what the last fetch told: no round trip."""
        consumer = subscription.consumer()
        lag = {}
        for partition in consumer.assignment() if consumer else ():
            end = consumer.highwater(partition)
            if end is not None:
                lag[partition] = max(0, end - await consumer.position(partition))
        return lag

    # --- health --------------------------------------------------------------------------------------------------

    def _operations(self) -> APIRouter:
        router = APIRouter(include_in_schema=False)

        @router.get("/livez")
        async def livez() -> JSONResponse:
            ended = self._ended()
            if not ended:
                return JSONResponse({"status": "alive"})
            return JSONResponse({"status": "dead", "ended": ended}, 503)

        @router.get("/readyz")
        async def readyz() -> JSONResponse:
            return _readiness(await self.not_ready())

        @router.get("/readyz/http")
        async def readyz_http() -> JSONResponse:
            missing = await self.not_ready()
            return _readiness({name: why for name, why in missing.items() if name in _NEEDED_FOR_HTTP})

        @router.get("/metrics")
        async def exposition(request: Request) -> Response:
            token = self.settings.metrics_token
            if token is not None and not same_secret(bearer_token(request), token.get_secret_value()):
                raise unauthorized()
            return Response(generate_latest(metrics.REGISTRY), media_type=CONTENT_TYPE_LATEST)

        return router

    async def not_ready(self) -> dict[str, str]:
        """What keeps the service from doing its work, by name; empty when it is ready. At the very beginning it waits
        for the first answers, never later.
        """
        await asyncio.gather(self._database_watch.first_answer(), self._broker_watch.first_answer())
        return self._missing()

    def _missing(self) -> dict[str, str]:
        missing: dict[str, str] = {}
        if self.stopping.is_set():
            missing["service"] = "stopping"
        for name, why_not in (("database", self._database_watch.why_not), ("pool", self._pool_watch.why_not)):
            if (reason := why_not()) is not None:
                missing[name] = reason
        if not self._consuming:
            missing["broker"] = "not consuming yet"
        else:
            if (reason := self._broker_watch.why_not()) is not None:
                missing["broker"] = reason
            for subscription in self.subscriptions:
                if (reason := self._why_not_consuming(subscription)) is not None:
                    missing[subscription.group] = reason
        missing |= {name: reason for name, check in self.checks.items() if (reason := check()) is not None}
        missing |= {name: reason for name, reason in self._failing.items() if name != "start"}
        return missing | dict.fromkeys(self._ended(), "has ended")

    def _why_not_consuming(self, subscription: Subscription) -> str | None:
        if not subscription.is_alive():
            return "its consumer has ended"
        if subscription.paused is not None:
            return f"paused: {subscription.paused}"
        stalled = time.monotonic() - subscription.progress_at
        if stalled > self.settings.stalled_after_seconds:
            return f"no batch finished for {stalled:.0f} s"
        reason = self._group_watches[subscription.group].why_not()
        return None if reason is None else f"its coordinator: {reason}"

    def _ended(self) -> list[str]:
        """What must run and does not any more, through a fault: only a restart helps."""
        if self.stopping.is_set():
            return []
        return [name for name, task in self._running.items() if task.done() and (task.cancelled() or task.exception())]

    async def _ask_broker(self) -> None:
        if self._consuming and not await self.broker.ping(ANSWER_MOST_SECONDS):
            raise Unhealthy("does not answer")

    async def _ask_coordinator(self, subscription: Subscription) -> None:
        """A broker may answer while the one that keeps the group does not: nothing is committed then."""
        consumer = subscription.consumer()
        if self._consuming and consumer is not None:
            await consumer.committed(TopicPartition(next(iter(subscription.topics)), 0))

    async def _show_health(self) -> None:
        while True:
            self._pool_watch.look()
            self._shown.show(self._check_names(), set(self._missing()))
            await asyncio.sleep(ASK_EVERY_SECONDS)

    def _check_names(self) -> set[str]:
        tasks = {name for name in self.tasks if not name.startswith("measure ")}
        groups = {subscription.group for subscription in self.subscriptions}
        return {"service", "database", "pool", "broker", "consume"} | groups | tasks | set(self.checks)

    # --- certificates --------------------------------------------------------------------------------------------

    async def _look_at_certificate(self) -> None:
        assert self.certificate is not None
        self.certificate.look()

    async def _measure_certificates(self) -> None:
        """Set the gauges of when certificates end: the one that is shown, and those of files."""
        if self.certificate is not None:
            self._show_end("http", self.certificate.ends_at)
        authorities = {
            "http_ca": self.settings.http_ca_file,
            "kafka_ca": self.settings.kafka_ssl_cafile,
            "tracing_ca": self.settings.tracing_otlp_cafile,
            "database_ca": self.database.authority,
        }
        for name, file in authorities.items():
            if file is not None:
                self._show_end(name, authorities_end_at(file))
        for name, file in self.certificates.items():
            self._show_end(name, ends_at(file))

    def _show_end(self, certificate: str, at: datetime) -> None:
        metrics.CERTIFICATE_EXPIRY.labels(self.name, certificate).set(at.timestamp())


def _readiness(missing: dict[str, str]) -> JSONResponse:
    return JSONResponse({"status": "not ready" if missing else "ready", "missing": missing}, 503 if missing else 200)


def _settle_garbage_collector() -> None:
    """What is there by now stays for good: do not walk through it at every collection.

    A batch makes tens of thousands of short-lived objects; with Python's thresholds each batch set off several full
    collections, which walked through every rule and compiled statement.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def run(service: Service) -> None:
    """Run until SIGTERM or SIGINT."""
    settings = service.settings
    logs.configure(service.name, settings.log_level, settings.log_format)
    tracing.configure(service.name, settings)
    service.on_stop(tracing.close)
    serve(service.app(), settings, service.certificate, service.begin_stop)
