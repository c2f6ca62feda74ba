"""Structured logs: one JSON object a line, with the trace and the ticket it is about, secrets cut from all of it.

What customers and agents write is never logged, nor an error's own words where they may quote it: see `summary`, and
`_traceback`. Libraries print what passes through them (frames, lines of mails, requests) below WARNING: the level that
is configured, or changed at run time, is that of our loggers; those of libraries stay where they are.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any, Final, Literal

from aiokafka.errors import KafkaError

from shared import metrics
from shared.redaction import redact, redact_json_text
from shared.trace_context import current, current_ticket, span_id_of, trace_id_of

Level = Literal["DEBUG", "INFO", "WARNING", "ERROR"]

OURS: Final = ("services", "shared", "switchyard", "__main__")
"""Loggers whose level is ours to change, with all below them."""
_UVICORN: Final = (
    "uvicorn.error"  # says at INFO where the service listens, and at DEBUG what is in a WebSocket's frames
)
_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_PARTS_MOST: Final = 3
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {
    "message",
    "asctime",
    "taskName",
    "color_message",
}
# SQLSTATE classes about the connection, signing in, what does not exist, resources and the operator: no row is in them.
_ABOUT_NO_ROW: Final = ("08", "28", "3D", "42", "53", "57")


class JsonFormatter(logging.Formatter):
    """Time (UTC), level, logger, service, message, trace, span and ticket where known, and whatever was passed as
    `extra=`.
    """

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info and record.exc_info[1] is not None:
            entry["exception"] = _traceback(record.exc_info[1])
        told: dict[str, Any] = json.loads(redact_json_text(json.dumps(entry, ensure_ascii=False, default=str)))
        # After the cut, which takes some ids for secrets; these are ours.
        return json.dumps(told | _matter(), ensure_ascii=False)


def _matter() -> dict[str, str]:
    trace, ticket_id = current(), current_ticket()
    known = {"trace_id": trace_id_of(trace), "span_id": span_id_of(trace)} if trace else {}
    return known if ticket_id is None else {**known, "ticket_id": str(ticket_id)}


class TextFormatter(logging.Formatter):
    """For a person at a terminal."""

    def __init__(self, service: str) -> None:
        super().__init__(f"%(asctime)s %(levelname)-7s {service} %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record)).text

    def formatException(self, ei: Any) -> str:  # noqa: N802 - the standard library's name
        return _traceback(ei[1])


def summary(error: BaseException) -> str:
    """What went wrong, in words that quote no customer: an error's own only where they are about a connection, a
    setting or our own state.
    """
    name = type(error).__name__
    if isinstance(error, BaseExceptionGroup):
        return f"{name}: " + "; ".join(summary(part) for part in error.exceptions[:_PARTS_MOST])
    cause = getattr(error, "orig", None) or error  # SQLAlchemy wraps what the driver raised, and adds the parameters
    state = getattr(cause, "sqlstate", None)
    if state is not None:
        words = str(cause.args[0]).partition("\n")[0] if cause.args and state.startswith(_ABOUT_NO_ROW) else ""
        where = ".".join(filter(None, (getattr(cause, "table_name", None), getattr(cause, "constraint_name", None))))
        return redact(": ".join(filter(None, (f"{name} {state}", where, words)))).text[:500]
    ours = type(error).__module__.startswith(("shared.", "services."))
    if ours or isinstance(error, (KafkaError, OSError, TimeoutError)):
        return redact(f"{name}: {error}").text[:1000]
    frames = traceback.extract_tb(error.__traceback__)
    return (
        f"{name} in {frames[-1].name} ({frames[-1].filename.rsplit('/', 1)[-1]}:{frames[-1].lineno})"
        if frames
        else name
    )


def _traceback(error: BaseException) -> str:
    """Where it happened, and `summary` of each error of the chain: the words of any other may quote a customer."""
    told: list[str] = []
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        frames = "".join(traceback.StackSummary.from_list(traceback.extract_tb(link.__traceback__)).format())
        told.append(f"Traceback (most recent call last):\n{frames}{summary(link)}")
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return "\n\nwhich came of this:\n\n".join(told)


class _Count(logging.Filter):
    """Counts the lines of each level."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._by_level = {level: metrics.LOG_RECORDS.labels(service, level) for level in _LEVELS}

    def filter(self, record: logging.LogRecord) -> bool:
        if (counter := self._by_level.get(record.levelname)) is not None:
            counter.inc()
        return True


def configure(service: str, level: Level, style: Literal["json", "text"]) -> None:
    """Send all logs of this process to standard error. Call once, at start."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(service) if style == "json" else TextFormatter(service))
    handler.addFilter(_Count(service))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(logging.WARNING, logging.getLevelNamesMapping()[level]))
    for name in OURS:
        logging.getLogger(name).setLevel(level)
    logging.getLogger(_UVICORN).setLevel(max(logging.INFO, logging.getLevelNamesMapping()[level]))
