"""What is read now and then to set gauges: outboxes, queues, lag. A measurement is no part of a service's work: one
that fails is told in the log and tried again, and the service stays ready.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from enum import Enum, auto
from typing import Final

from prometheus_client import Gauge

from shared.redaction import redact

logger = logging.getLogger(__name__)

_REST_MOST_SECONDS: Final = 600.0


async def for_ever(
    every_seconds: float, name: str, work: Callable[[], Awaitable[None]], *, most_of_time: float = 0.05
) -> None:
    """Call `work` every so often; more seldom on a large table, so that it takes no more than this share of the time
    (up to ten minutes apart). Until cancelled.
    """
    failing = False
    while True:
        begun = time.monotonic()
        rest_seconds = 0.0
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - whatever it was, the next one may do
            if not failing:
                reason = redact(f"{type(error).__name__}: {error}").text[:300]
                logger.warning("%s cannot be measured, what was known stays: %s", name, reason)
            failing = True
        else:
            if failing:
                logger.info("%s is measured again", name)
            failing = False
            rest_seconds = (time.monotonic() - begun) * (1 / most_of_time - 1)
        await asyncio.sleep(max(every_seconds, min(rest_seconds, _REST_MOST_SECONDS)))


class Gone(Enum):
    """What becomes of a series that a reading does not name any more."""

    ZERO = auto()
    REMOVED = auto()


class Reading:
    """A gauge of which all series are read at once, so that none of them stays behind with what once was so."""

    def __init__(self, gauge: Gauge, gone: Gone) -> None:
        self._gauge = gauge
        self._gone = gone
        self._shown: set[tuple[str, ...]] = set()

    def show(self, values: Mapping[tuple[str, ...], float]) -> None:
        """`values` by the gauge's labels, in their order."""
        for labels in self._shown - values.keys():
            if self._gone is Gone.ZERO:
                self._gauge.labels(*labels).set(0)
            else:
                self._gauge.remove(*labels)
        for labels, value in values.items():
            self._gauge.labels(*labels).set(value)
        self._shown = set(values) if self._gone is Gone.REMOVED else self._shown | set(values)
