"""What every HTTP surface shares: problem+json errors (RFC 9457), bearer tokens, body and rate limits."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DBAPIError, InterfaceError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException

from shared import metrics
from shared.labels import method_label

PROBLEM_JSON: Final = "application/problem+json"
RETRY_AFTER_SECONDS: Final = 5
_BODY_MOST_SECONDS: Final = 30.0

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]


class Problem(Exception):
    """An answer that is an error: status, a short title, what is wrong and what to do. Never quotes a value of the
    request.
    """

    def __init__(
        self,
        status: int,
        title: str,
        detail: str,
        *,
        errors: Sequence[dict[str, str]] = (),
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(f"{status} {title}: {detail}")
        self.status = status
        self.title = title
        self.detail = detail
        self.errors = errors
        self.headers = headers or {}

    def response(self) -> JSONResponse:
        body: dict[str, Any] = {
            "type": "about:blank",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }
        if self.errors:
            body["errors"] = list(self.errors)
        return JSONResponse(body, self.status, self.headers, PROBLEM_JSON)


def unauthorized(detail: str = "send a valid token as `Authorization: Bearer <token>`") -> Problem:
    return Problem(401, "Unauthorized", detail, headers={"WWW-Authenticate": "Bearer"})


def forbidden(detail: str) -> Problem:
    return Problem(403, "Forbidden", detail)


def too_many(retry_after_seconds: float) -> Problem:
    return Problem(
        429,
        "Too Many Requests",
        "slow down and try again after the time in Retry-After",
        headers={"Retry-After": str(max(1, round(retry_after_seconds)))},
    )


def unavailable(detail: str) -> Problem:
    return Problem(503, "Service Unavailable", detail, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})


def field_errors(errors: Sequence[Any]) -> list[dict[str, str]]:
    """pydantic's errors as `{"field", "detail"}`, without the values: they may be secrets."""
    return [
        {
            "field": ".".join(str(part) for part in item["loc"] if part != "body") or "body",
            "detail": item["msg"],
        }
        for item in errors
    ]


def install_problem_handlers(app: FastAPI) -> None:
    """Every error of `app` is answered as problem+json."""

    async def on_problem(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, Problem)
        return error.response()

    async def on_invalid(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        errors = field_errors(error.errors())
        fields = ", ".join(item["field"] for item in errors[:5])
        return Problem(422, "Invalid request", f"wrong or missing: {fields}", errors=errors).response()

    async def on_http(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        headers = dict(error.headers or {})
        return Problem(error.status_code, "Error", str(error.detail), headers=headers).response()

    async def on_database(_: Request, __: Exception) -> JSONResponse:
        return unavailable("the database does not answer; nothing was stored, send it again").response()

    app.add_exception_handler(Problem, on_problem)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(HTTPException, on_http)
    for passing in (OSError, TimeoutError, InterfaceError, DBAPIError, PoolTimeoutError):
        app.add_exception_handler(passing, on_database)


def token_hash(token: str) -> str:
    """SHA-256 of a token, hex: what configuration files hold. Tokens are long and random, so a plain hash is enough."""
    return hashlib.sha256(token.encode()).hexdigest()


def same_secret(left: str, right: str) -> bool:
    """Constant-time comparison."""
    return hmac.compare_digest(left.encode(), right.encode())


def bearer_token(request: Request) -> str:
    """The request's token, from `Authorization: Bearer` or `X-API-Key`. Raises a 401 Problem when there is none."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    key = request.headers.get("x-api-key", "").strip()
    if key:
        return key
    raise unauthorized()


@dataclass(slots=True)
class RateLimiter:
    """A token bucket per key: `per_second` on average, `burst` at once. Keeps the `most_keys` latest keys, so memory
    is bounded.
    """

    per_second: float
    burst: float
    most_keys: int = 10_000
    clock: Callable[[], float] = time.monotonic
    _buckets: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)

    def check(self, key: str, cost: float = 1.0) -> None:
        """Raises a 429 Problem when `key` has used up its share."""
        now = self.clock()
        level, then = self._buckets.pop(key, (self.burst, now))
        level = min(self.burst, level + (now - then) * self.per_second)
        # A request that costs more than a whole burst passes when the bucket is full, or it never would.
        allowed = level >= min(cost, self.burst)
        self._buckets[key] = (level - cost if allowed else level, now)
        while len(self._buckets) > self.most_keys:
            self._buckets.popitem(last=False)
        if not allowed:
            raise too_many((min(cost, self.burst) - level) / self.per_second)


class BodyLimit:
    """ASGI middleware: refuses a request body over `most_bytes` with 413, also one that comes in chunks without a
    length, and with 408 one that takes longer than `most_seconds` to come.
    """

    def __init__(self, app: ASGIApp, most_bytes: int, most_seconds: float = _BODY_MOST_SECONDS) -> None:
        self._app = app
        self._most_bytes = most_bytes
        self._most_seconds = most_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self._most_seconds):
                body = await self._body(scope, receive)
        except TimeoutError:
            problem = Problem(408, "Request Timeout", f"the body must come within {self._most_seconds:g} s")
            await problem.response()(scope, receive, send)
            return
        except _Disconnected:
            return
        if body is None:
            problem = Problem(413, "Content Too Large", f"the body may have {self._most_bytes} bytes at most")
            await problem.response()(scope, receive, send)
            return
        delivered = False

        async def replay() -> MutableMapping[str, Any]:
            nonlocal delivered
            if delivered:
                return await receive()
            delivered = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, replay, send)

    async def _body(self, scope: Scope, receive: Receive) -> bytes | None:
        """All of it, or None when it is too large."""
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self._most_bytes:
            return None
        body = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _Disconnected
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self._most_bytes:
                return None
        return bytes(body)


class _Disconnected(Exception):
    """Nobody is there to be answered."""


class SecurityHeaders:
    """ASGI middleware: headers every answer carries, and the count and time of answers by route (never by raw path)."""

    _HEADERS: Final = (
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
        (b"x-frame-options", b"DENY"),
        (b"cache-control", b"no-store"),
        (
            b"content-security-policy",
            b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
            b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
    )

    def __init__(self, app: ASGIApp, service: str) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        begun = time.monotonic()
        is_answered = is_stream = False

        async def with_headers(message: MutableMapping[str, Any]) -> None:
            nonlocal is_answered, is_stream
            if message["type"] == "http.response.start":
                is_answered = True
                present = dict(message["headers"])
                message["headers"] = [
                    *message["headers"],
                    *(pair for pair in self._HEADERS if pair[0] not in present),
                ]
                is_stream = present.get(b"content-type", b"").startswith(b"text/event-stream")
                self._count(scope, message["status"])
            await send(message)

        try:
            await self._app(scope, receive, with_headers)
        except Exception:
            if not is_answered:  # Starlette will do it, outside of every middleware
                self._count(scope, 500)
                is_answered = True
            raise
        finally:
            if is_answered and not is_stream:
                metrics.HTTP_SECONDS.labels(self._service, _route(scope), method_label(scope["method"])).observe(
                    time.monotonic() - begun
                )

    def _count(self, scope: Scope, status: int) -> None:
        metrics.HTTP_REQUESTS.labels(self._service, _route(scope), method_label(scope["method"]), status).inc()


def _route(scope: Scope) -> str:
    """The template, e.g. `/v1/tickets/{ticket_id}`; `unmatched` where no route was found."""
    return getattr(scope.get("route"), "path", "unmatched")
