"""Whether gateways may take in more: not while Kafka is away, nor when too much waits for it.

What they have accepted lies in the outbox and goes out when Kafka is back. But an outage is told to whoever sends,
who can keep a message and try again (503 with Retry-After in HTTP, 451 in SMTP): an outbox without bound would only
move the loss to a full disk.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

from sqlalchemy import text

from services.intake.storage import METADATA
from shared.database import Database
from shared.http import unavailable

logger = logging.getLogger(__name__)

EVERY_SECONDS: Final = 1.0
"""How often it is measured: for so long, and the ping's time, an outage may last before senders are told."""
_PING_SECONDS: Final = 2.0


class Pressure:
    """Until `measure` was called for the first time, everything is taken in."""

    def __init__(
        self,
        ping: Callable[[float], Awaitable[bool]],
        database: Database,
        *,
        accept_in_outage_seconds: float,
        outbox_most: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ping = ping
        self._database = database
        self._accept_in_outage_seconds = accept_in_outage_seconds
        self._outbox_most = outbox_most
        self._clock = clock
        self._away_since: float | None = None
        self._is_full = False

    async def measure(self) -> None:
        """Ask Kafka whether it is there, and count what waits for it. Raises when the database is away."""
        if await self._ping(_PING_SECONDS):
            if self._away_since is not None:
                logger.info("Kafka answers again: messages are accepted")
            self._away_since = None
        elif self._away_since is None:
            self._away_since = self._clock()
            logger.warning("Kafka does not answer: gateways tell senders to try again later")
        async with self._database.transaction() as connection:
            waiting = await connection.scalar(
                text(f"SELECT count(*) FROM (SELECT 1 FROM {METADATA.schema}.outbox LIMIT :most + 1) AS waiting"),  # noqa: S608 - our own schema
                {"most": self._outbox_most},
            )
        self._is_full = (waiting or 0) > self._outbox_most

    def why_not(self) -> str | None:
        """Why nothing further may be accepted, or None."""
        if self._away_since is not None and self._clock() - self._away_since >= self._accept_in_outage_seconds:
            return "Kafka does not answer"
        return "too many messages wait to be published" if self._is_full else None

    def check(self) -> None:
        """Raises a 503 Problem when nothing further may be accepted."""
        why_not = self.why_not()
        if why_not is not None:
            raise unavailable(f"{why_not}; nothing was stored, send it again")
