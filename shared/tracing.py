"""Spans: which service did what with a message, and when. Told to a collector by OTLP, if `TRACING_OTLP_ENDPOINT` says
where one is; else nothing of OpenTelemetry's SDK is even imported, and contexts are only passed on.

What is passed on is a `traceparent` (`shared/trace_context.py`): in records, rows and requests. A span begins with the
one of its cause and has one of its own, which its effects carry. No text of a message, no address, no secret goes into
an attribute: names here are closed sets, ids and numbers.

Whether a trace is recorded is decided once: by who began it, if it came with a context that names a span, else by the
trace's id, so that every service decides alike.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Literal

from shared import trace_context
from shared.settings import CommonSettings
from shared.trace_context import about, is_valid

if TYPE_CHECKING:
    from opentelemetry.trace import Span as RecordedSpan

    from shared.tracing_export import Recorder

Kind = Literal["internal", "server", "client", "producer", "consumer"]
Attributes = Mapping[str, "str | int | float | bool | None"]
"""None: not known, left out."""

TICKET: Final = "switchyard.ticket.id"
BRAND: Final = "switchyard.brand"
CHANNEL: Final = "switchyard.channel"
_CLOSE_SECONDS: Final = 3.0

_recorder: Recorder | None = None
_open: dict[str, Span] = {}


class Span:
    """A span that has begun; or, of a trace that is not recorded, its context and nothing else."""

    __slots__ = ("_recorded", "traceparent")

    def __init__(self, traceparent: str, recorded: RecordedSpan | None) -> None:
        self.traceparent = traceparent
        self._recorded = recorded
        if recorded is not None:
            _open[traceparent] = self

    def set(self, attributes: Attributes) -> None:
        if self._recorded is not None:
            for name, value in attributes.items():
                if value is not None:
                    self._recorded.set_attribute(name, value)

    def rename(self, name: str) -> None:
        if self._recorded is not None:
            self._recorded.update_name(name)

    def fail(self, what: str) -> None:
        """`what` went wrong: the name of a class, a reason, a code. Never what an exception says: it may quote."""
        if self._recorded is not None and _recorder is not None:
            _recorder.fail(self._recorded, what)

    def end(self, at_ns: int | None = None) -> None:
        if self._recorded is not None:
            _open.pop(self.traceparent, None)
            self._recorded.end(at_ns)
            self._recorded = None


def is_on() -> bool:
    """Ask this before work that only spans need."""
    return _recorder is not None


def begin(
    name: str,
    parent: str,
    kind: Kind = "internal",
    attributes: Attributes | None = None,
    *,
    links: Sequence[str] = (),
    at_ns: int | None = None,
) -> Span:
    """`parent`: the context of the cause; empty where there is none, then a trace of its own begins.

    `links`: contexts of what else led to it. `at_ns`: when it began, in ns since 1970, if that was not now.
    """
    if _recorder is None or not _recorder.records(parent):
        return Span(parent, None)
    recorded = _recorder.begin(
        name,
        parent,
        kind,
        {key: value for key, value in (attributes or {}).items() if value is not None},
        [link for link in links if is_valid(link) and not trace_context.names_no_span(link)],
        at_ns,
    )
    return Span(_recorder.traceparent_of(recorded), recorded)


@contextmanager
def span(
    name: str,
    parent: str,
    kind: Kind = "internal",
    attributes: Attributes | None = None,
    *,
    links: Sequence[str] = (),
) -> Iterator[Span]:
    """A span around a piece of work, and the context of it while inside. An exception is told by its class."""
    begun = begin(name, parent, kind, attributes, links=links)
    try:
        with about(begun.traceparent, trace_context.current_ticket()):
            yield begun
    except BaseException as error:
        begun.fail(type(error).__name__)
        raise
    finally:
        begun.end()


def note(traceparent: str, attributes: Attributes) -> None:
    """Tell more of a span that this process has begun and not ended, by its context."""
    if (found := _open.get(traceparent)) is not None:
        found.set(attributes)


def configure(service: str, settings: CommonSettings) -> None:
    """Record spans from now on, if the settings name a collector. Call once, at start."""
    global _recorder
    if settings.tracing_otlp_endpoint is not None:
        from shared.tracing_export import Recorder

        _recorder = Recorder(service, settings)


async def close() -> None:
    """Hand over what is left, but do not wait long for a collector that is away."""
    global _recorder
    recorder, _recorder = _recorder, None
    if recorder is not None:
        # A daemon: a hand-over that hangs must not keep the process from ending.
        ending = threading.Thread(target=recorder.close, name="tracing-close", daemon=True)
        ending.start()
        await asyncio.to_thread(ending.join, _CLOSE_SECONDS)
