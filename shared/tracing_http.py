"""A span for each HTTP request, the child of the `traceparent` that comes with it, as OpenTelemetry's conventions for
HTTP have it, but without path and query: they may hold what nobody should read. The route stands for them.
"""

from __future__ import annotations

import uuid
from http import HTTPStatus
from typing import Final

from shared import tracing
from shared.http import ASGIApp, Receive, Scope, Send
from shared.trace_context import about, is_valid, remain_about
from shared.tracing import TICKET

_NOT_TRACED: Final = ("/livez", "/readyz", "/metrics", "/operations")
"""Asked every few seconds, by machines."""
_METHODS: Final = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})


class TraceRequests:
    """ASGI middleware: the request's context is that of the work at hand while it is answered, tracing or not."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(_NOT_TRACED):
            await self._app(scope, receive, send)
            return
        given = _traceparent(scope)
        if tracing.is_on():
            await self._traced(given, scope, receive, send)
            return
        try:
            with about(given):
                await self._app(scope, receive, send)
        except Exception:
            remain_about(given, _ticket_of(scope))
            raise

    async def _traced(self, given: str, scope: Scope, receive: Receive, send: Send) -> None:
        method = scope["method"] if scope["method"] in _METHODS else "_OTHER"
        span = tracing.begin(method, given, "server", {"http.request.method": method})

        async def watched(message: Scope) -> None:
            if message["type"] == "http.response.start":
                status = message["status"]
                route = getattr(scope.get("route"), "path", None)
                ticket_id = _ticket_of(scope)
                span.rename(f"{method} {route}" if route else method)
                span.set(
                    {
                        "http.route": route,
                        "http.response.status_code": status,
                        TICKET: str(ticket_id) if ticket_id else None,
                    }
                )
                if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                    span.fail(str(status))
            await send(message)

        try:
            with about(span.traceparent):
                await self._app(scope, receive, watched)
        except Exception as error:
            span.fail(type(error).__name__)
            remain_about(span.traceparent, _ticket_of(scope))
            raise
        finally:
            span.end()


def _ticket_of(scope: Scope) -> uuid.UUID | None:
    """What the route has in its path, if that is an id."""
    try:
        return uuid.UUID(str(scope.get("path_params", {}).get("ticket_id")))
    except ValueError:
        return None


def _traceparent(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"traceparent":
            given: str = value.decode("latin-1")
            return given if is_valid(given) else ""
    return ""
