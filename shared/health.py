"""What keeps a service from its work. It is asked for in the background, so that an answer to a probe costs nothing, is
never late, and is the same however many ask.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from sqlalchemy import AsyncAdaptedQueuePool

from shared import metrics
from shared.database import Database

ASK_EVERY_SECONDS: Final = 1.0
ANSWER_MOST_SECONDS: Final = 2.0
"""What takes longer does not answer. Shorter than the time-out of any probe that asks us."""

_HANGS_AFTER_SECONDS: Final = ANSWER_MOST_SECONDS + 0.5
_FULL_MOST_SECONDS: Final = 10.0  # as long as a request waits for a connection before it is told 503
_NEW_CONNECTION_SECONDS: Final = 10.0


class Unhealthy(Exception):
    """It answers, but cannot do what it is there for; the text says why."""


class Watched:
    """Asks one thing whether it answers, over and over. `ask` raises when it does not."""

    def __init__(
        self,
        ask: Callable[[], Awaitable[None]],
        *,
        every_seconds: float = ASK_EVERY_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask = ask
        self._every_seconds = every_seconds
        self._clock = clock
        self._failure: str | None = "not asked yet"
        self._asked_at: float | None = None
        self._told = asyncio.Event()

    async def watch(self) -> None:
        """Until cancelled."""
        while True:
            self._asked_at = self._clock()
            self._failure = await self._answer()
            self._asked_at = None
            self._told.set()
            await asyncio.sleep(self._every_seconds)

    async def first_answer(self) -> None:
        """Returns once there is one, or none in time."""
        try:
            async with asyncio.timeout(_HANGS_AFTER_SECONDS):
                await self._told.wait()
        except TimeoutError:
            return

    def why_not(self) -> str | None:
        """Why it does not do, as of now; None when it does."""
        if self._asked_at is not None and (waited := self._clock() - self._asked_at) > _HANGS_AFTER_SECONDS:
            # Even giving up may hang: a client that wants to cancel asks the same server for it.
            return f"no answer for {waited:.0f} s"
        return self._failure

    async def _answer(self) -> str | None:
        try:
            async with asyncio.timeout(ANSWER_MOST_SECONDS):
                await self._ask()
        except TimeoutError:
            return f"no answer within {ANSWER_MOST_SECONDS:g} s"
        except Unhealthy as error:
            return str(error)
        except Exception as error:  # noqa: BLE001 - any fault means the same here
            return type(error).__name__
        return None


class DatabasePing:
    """Asks PostgreSQL over a connection of its own, so that a full pool is not taken for a database that is away.

    The connection is made anew now and then: a server that hangs may serve those it has and take in nobody.
    """

    def __init__(self, database: Database, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._connection: Any = None
        self._connected_at = 0.0

    async def __call__(self) -> None:
        """Raises what failed, or Unhealthy."""
        try:
            if self._connection is None or self._clock() - self._connected_at > _NEW_CONNECTION_SECONDS:
                self.let_go()
                self._connection = await self._database.connect(timeout_seconds=ANSWER_MOST_SECONDS)
                self._connected_at = self._clock()
            if await self._connection.fetchval("SELECT current_setting('transaction_read_only')") == "on":
                raise Unhealthy("takes no writes: it is a standby, or set to read only")
        except BaseException:
            self.let_go()
            raise

    def let_go(self) -> None:
        if self._connection is not None:
            self._connection.terminate()  # `close` would wait for the server
            self._connection = None


class PoolWatch:
    """Tells a pool that has had no free connection for so long that requests are refused."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.monotonic) -> None:
        pool = database.engine.pool
        assert isinstance(pool, AsyncAdaptedQueuePool)
        self._in_use = pool.checkedout
        self._most = database.pool_most
        self._clock = clock
        self._full_since: float | None = None

    def look(self) -> None:
        """Call it often: what is not seen is not told."""
        if self._in_use() < self._most:
            self._full_since = None
        elif self._full_since is None:
            self._full_since = self._clock()

    def why_not(self) -> str | None:
        if self._full_since is None or (full := self._clock() - self._full_since) < _FULL_MOST_SECONDS:
            return None
        return f"all {self._most} connections have been in use for {full:.0f} s"


class Shown:
    """The gauge that says the same as /readyz. Every check has its series from the start."""

    def __init__(self, service: str) -> None:
        self._service = service

    def show(self, checks: set[str], missing: set[str]) -> None:
        for check in checks | missing:
            metrics.NOT_READY.labels(self._service, check).set(check in missing)
