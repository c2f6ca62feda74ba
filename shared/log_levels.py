"""The level of our loggers, changed for a while: it goes back by itself, so that nobody leaves a service at DEBUG."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from shared.logs import OURS, Level

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Change:
    """A logger that has another level than the configured one, and until when."""

    logger: str
    level: Level
    until: datetime


def is_ours(name: str) -> bool:
    """Whether the level of this logger may be changed: libraries print what customers write."""
    return any(name == ours or name.startswith(f"{ours}.") for ours in OURS)


@dataclass(slots=True)
class LogLevels:
    """Of this process. `configured`: what `LOG_LEVEL` says."""

    configured: Level
    _changes: dict[str, Change] = field(default_factory=dict)
    _timers: dict[str, asyncio.TimerHandle] = field(default_factory=dict)

    def changes(self) -> list[Change]:
        return sorted(self._changes.values(), key=lambda change: change.logger)

    def change(self, level: Level, lasting: timedelta, name: str | None = None) -> None:
        """Log from `level` on for so long: one logger with those below it, or all of ours."""
        until = datetime.now(UTC) + lasting
        loop = asyncio.get_running_loop()
        for each in (name,) if name else OURS:
            self._cancel(each)
            logging.getLogger(each).setLevel(level)
            self._changes[each] = Change(each, level, until)
            self._timers[each] = loop.call_later(lasting.total_seconds(), self.restore, each)
        logger.warning("%s logs from %s on until %s", name or "everything", level, until.isoformat(timespec="seconds"))

    def restore(self, name: str | None = None) -> None:
        """Back to what is configured: one logger, or all that were changed."""
        for each in (name,) if name else tuple(self._changes):
            self._cancel(each)
            if self._changes.pop(each, None) is not None:
                # One of a module takes the level of those above it again.
                logging.getLogger(each).setLevel(self.configured if each in OURS else logging.NOTSET)
                logger.warning("%s logs from %s on, as configured", each, self.configured)

    def _cancel(self, name: str) -> None:
        if (timer := self._timers.pop(name, None)) is not None:
            timer.cancel()
