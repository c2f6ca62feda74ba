"""How a service lives: start in any order, tell the truth about health, drain on SIGTERM.

Every service is one FastAPI application: its own routes (if any), `/livez`, `/readyz` and `/metrics`, a broker with
subscriptions, and background tasks (outbox relay, deadline runner). Nothing waits for another service to be there:
what is missing is tried again, and `/readyz` says what is missing.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import uvicorn
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from faststream.kafka import KafkaBroker
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from shared import logs, metrics
from shared.admin import TopicsMissing, verify_topics
from shared.broker import Publisher, build_broker
from shared.database import Database
from shared.delivery import Handler, Subscription, subscribe
from shared.http import (
    BodyLimit,
    SecurityHeaders,
    bearer_token,
    install_problem_handlers,
    same_secret,
    unauthorized,
)
from shared.settings import CommonSettings
from shared.topics import Topic

logger = logging.getLogger(__name__)

_RETRY_FIRST_SECONDS: Final = 0.25
_RETRY_MOST_SECONDS: Final = 5.0
_LAG_EVERY_SECONDS: Final = 2.0
_FETCH_WINDOW_SECONDS: Final = 0.005
_BODY_MOST_BYTES: Final = 2 * 1024 * 1024
_FRAME_MOST_BYTES: Final = 64 * 1024  # of a WebSocket: what is longer is not even read
_PING_SECONDS: Final = 3.0

Task = Callable[[], Awaitable[None]]


@dataclass
class Service:
    """One service, wired in its `app.py` and run by `run`. `checks`: what else keeps it from being ready, by name."""

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
    body_most_bytes: int = _BODY_MOST_BYTES
    _closing: list[Task] = field(default_factory=list, init=False)
    _consuming: bool = field(default=False, init=False)
    _failing: dict[str, str] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.database = Database(self.settings, service=self.name)
        self.broker = build_broker(self.settings, service=self.name)
        self.publisher = Publisher(self.broker, self.settings, service=self.name)

    def subscribe(self, topics: Sequence[Topic], handler: Handler, *, description: str) -> None:
        """Consume `topics` in one loop of the group named after the service and the first topic's family."""
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

    def announce(self, topic: Topic) -> None:
        """Declare that the service publishes to `topic`, for the AsyncAPI document and the check at start."""
        self.publishes.append(topic)
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
        )
        install_problem_handlers(app)
        app.add_middleware(BodyLimit, most_bytes=self.body_most_bytes)
        app.add_middleware(SecurityHeaders, service=self.name)
        app.include_router(self._operations())
        for router in self.routers:
            app.include_router(router)
        return app

    # --- life ----------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        running = [
            asyncio.create_task(self._start_consuming(), name=f"{self.name}:consume"),
            asyncio.create_task(self._supervise("lag", self._measure_lag)),
            *(
                asyncio.create_task(
                    self._supervise(f"fetch {item.group}", functools.partial(self._pause_fetching, item))
                )
                for item in (self.subscriptions if self.settings.kafka_fetch_pause_ms else ())
            ),
            *(
                asyncio.create_task(self._supervise(name, task), name=f"{self.name}:{name}")
                for name, task in self.tasks.items()
            ),
        ]
        _settle_garbage_collector()
        try:
            yield
        finally:
            # Drain: no new batches, finish the one at hand, then end the tasks, then let go of the connections.
            running[0].cancel()
            for subscription in self.subscriptions:
                subscription.stop()
            await self._stop_subscribers()
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            await self.broker.stop()
            await asyncio.gather(*(close() for close in self._closing), return_exceptions=True)
            await self.database.close()
            logger.info("stopped")

    async def _stop_subscribers(self) -> None:
        results = await asyncio.gather(
            *(subscriber.stop() for subscriber in self.broker.subscribers), return_exceptions=True
        )
        for result in results:
            if isinstance(result, Exception):
                logger.warning("a consumer did not stop cleanly: %r", result)

    async def _start_consuming(self) -> None:
        needed = {name for subscription in self.subscriptions for name in subscription.topics}
        needed |= {topic.name for topic in self.publishes}
        delay = _RETRY_FIRST_SECONDS
        while True:
            try:
                await verify_topics(self.settings, needed)
                await self.database.ping()
                await self.broker.start()
            except (KafkaError, OSError, TimeoutError, TopicsMissing) as error:
                self._failing["start"] = f"{type(error).__name__}: {error}"
                logger.warning("cannot start consuming yet: %s: %s", type(error).__name__, error)
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
        while True:
            begun = time.monotonic()
            try:
                await work()
                return
            except Exception as error:  # noqa: BLE001 - whatever it was, the work must go on and readiness must say so
                if time.monotonic() - begun > 10 * _RETRY_MOST_SECONDS:
                    delay = _RETRY_FIRST_SECONDS
                self._failing[name] = type(error).__name__
                logger.warning("%s failed, starting it again: %s: %s", name, type(error).__name__, error)
                await asyncio.sleep(random.uniform(delay / 2, delay))  # noqa: S311 - jitter
                self._failing.pop(name, None)
                delay = min(_RETRY_MOST_SECONDS, delay * 2)

    async def _measure_lag(self) -> None:
        while True:
            for subscription in self.subscriptions:
                waiting = 0
                for (topic, partition), records in (await self._lag(subscription)).items():
                    metrics.CONSUMER_LAG.labels(subscription.group, topic, partition).set(records)
                    waiting += records
                if not waiting and not subscription.busy:
                    subscription.progress_at = time.monotonic()  # nothing to do is no lack of progress
            await asyncio.sleep(_LAG_EVERY_SECONDS)

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
        async def livez() -> dict[str, str]:
            return {"status": "alive"}

        @router.get("/readyz")
        async def readyz() -> JSONResponse:
            missing = await self.not_ready()
            return JSONResponse(
                {"status": "not ready" if missing else "ready", "missing": missing}, 503 if missing else 200
            )

        @router.get("/metrics")
        async def exposition(request: Request) -> Response:
            token = self.settings.metrics_token
            if token is not None and not same_secret(bearer_token(request), token.get_secret_value()):
                raise unauthorized()
            return Response(generate_latest(metrics.REGISTRY), media_type=CONTENT_TYPE_LATEST)

        return router

    async def not_ready(self) -> dict[str, str]:
        """What keeps the service from doing its work, by name; empty when it is ready."""
        missing: dict[str, str] = {}
        try:
            async with asyncio.timeout(_PING_SECONDS):
                await self.database.ping()
        except Exception as error:  # noqa: BLE001 - any fault means the same here
            missing["database"] = type(error).__name__
        if not self._consuming:
            missing["broker"] = "not consuming yet"
        elif not await self.broker.ping(_PING_SECONDS):
            missing["broker"] = "does not answer"
        for subscription in self.subscriptions:
            stalled = time.monotonic() - subscription.progress_at
            if self._consuming and stalled > self.settings.stalled_after_seconds:
                missing[subscription.group] = f"no batch finished for {stalled:.0f} s"
        missing |= {name: why_not for name, check in self.checks.items() if (why_not := check()) is not None}
        missing |= {name: reason.split(":")[0] for name, reason in self._failing.items() if name != "start"}
        return missing


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
    uvicorn.run(
        service.app(),
        host=settings.http_host,
        port=settings.http_port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=5,
        timeout_keep_alive=30,
        h11_max_incomplete_event_size=16 * 1024,
        ws_max_size=_FRAME_MOST_BYTES,
    )
