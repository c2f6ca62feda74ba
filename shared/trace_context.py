"""Which trace, and which ticket, the work at hand belongs to: W3C trace context as we pass it on, and what logs say.

No span is made here, and nothing costs anything to speak of: see `shared/tracing.py` for spans.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

_VALID: Final = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_SAMPLED: Final = 1

_traceparent: ContextVar[str] = ContextVar("traceparent", default="")
_ticket_id: ContextVar[uuid.UUID | None] = ContextVar("ticket_id", default=None)


def is_valid(traceparent: str) -> bool:
    return _VALID.fullmatch(traceparent) is not None


def derived(identity: uuid.UUID) -> str:
    """The context of what came without one: the trace is named after it, and there is no span yet."""
    return f"00-{identity.hex}-{identity.hex[16:]}-00"


def names_no_span(traceparent: str) -> bool:
    """Whether a valid context is a derived one: who goes on with it makes the trace's first span."""
    return traceparent[36:52] == traceparent[19:35]


def is_sampled(traceparent: str) -> bool:
    return bool(int(traceparent[53:55], 16) & _SAMPLED)


def trace_id_of(traceparent: str) -> str:
    return traceparent[3:35]


def span_id_of(traceparent: str) -> str:
    return traceparent[36:52]


def current() -> str:
    """The context of the work at hand; empty when there is none."""
    return _traceparent.get()


def current_ticket() -> uuid.UUID | None:
    return _ticket_id.get()


@contextmanager
def about(traceparent: str = "", ticket_id: uuid.UUID | None = None) -> Iterator[None]:
    """While inside, this is what the work at hand, and each line it logs, is about."""
    trace, ticket = _traceparent.set(traceparent), _ticket_id.set(ticket_id)
    try:
        yield
    finally:
        _traceparent.reset(trace)
        _ticket_id.reset(ticket)


def remain_about(traceparent: str, ticket_id: uuid.UUID | None = None) -> None:
    """For the rest of a task that fails: what logs its error, out there, still knows what it was about."""
    _traceparent.set(traceparent)
    _ticket_id.set(ticket_id)
