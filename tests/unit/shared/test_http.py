"""Limits and errors that every HTTP surface shares."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from sqlalchemy.exc import InterfaceError

from shared import metrics
from shared.http import (
    BodyLimit,
    Problem,
    RateLimiter,
    SecurityHeaders,
    bearer_token,
    install_problem_handlers,
    same_secret,
    token_hash,
)

MOST_BYTES = 100


class Body(BaseModel):
    number: int


@pytest.fixture
def client() -> httpx.AsyncClient:
    app = FastAPI()
    install_problem_handlers(app)
    app.add_middleware(BodyLimit, most_bytes=MOST_BYTES)
    app.add_middleware(SecurityHeaders, service="test")

    @app.post("/body")
    async def body(body: Body) -> dict[str, int]:
        return {"number": body.number}

    @app.post("/length")
    async def length(request: Request) -> dict[str, int]:
        return {"length": len(await request.body())}

    @app.get("/token")
    async def token(request: Request) -> dict[str, str]:
        return {"token": bearer_token(request)}

    @app.get("/things/{name}")
    async def thing(name: str) -> dict[str, str]:
        return {"name": name}

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(iter(["data: x\n\n"]), media_type="text/event-stream")

    @app.get("/fault")
    async def fault() -> None:
        raise ZeroDivisionError

    @app.get("/database")
    async def database() -> None:
        raise InterfaceError("SELECT", {}, ConnectionRefusedError())

    return httpx.AsyncClient(transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url="http://test")


async def test_an_invalid_body_is_a_problem_that_names_the_field_and_not_the_value(client: httpx.AsyncClient) -> None:
    answer = await client.post("/body", json={"number": "4111111111111111x"})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert [error["field"] for error in answer.json()["errors"]] == ["number"]
    assert "4111" not in answer.text


async def test_the_database_being_away_is_503_with_retry_after(client: httpx.AsyncClient) -> None:
    answer = await client.get("/database")
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert answer.headers["content-type"] == "application/problem+json"


async def test_unknown_routes_are_problems_too_and_carry_the_security_headers(client: httpx.AsyncClient) -> None:
    answer = await client.get("/nowhere")
    assert answer.status_code == 404
    assert answer.json()["status"] == 404
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(("size", "status"), [(MOST_BYTES, 200), (MOST_BYTES + 1, 413)])
async def test_the_body_limit_is_exact(client: httpx.AsyncClient, size: int, status: int) -> None:
    answer = await client.post("/length", content=b"x" * size)
    assert answer.status_code == status


async def test_the_body_limit_holds_for_a_body_in_chunks_without_a_length(client: httpx.AsyncClient) -> None:
    async def chunks(count: int) -> AsyncIterator[bytes]:
        for _ in range(count):
            yield b"x" * 10

    assert (await client.post("/length", content=chunks(10))).json() == {"length": 100}
    assert (await client.post("/length", content=chunks(11))).status_code == 413


async def test_a_body_that_never_ends_is_not_waited_for() -> None:
    app = FastAPI()
    answers: list[Any] = []
    sent = iter([{"type": "http.request", "body": b"a", "more_body": True}])

    async def receive() -> Any:
        return next(sent, None) or await asyncio.Event().wait()

    async def send(message: Any) -> None:
        answers.append(message)

    scope = {"type": "http", "method": "POST", "path": "/", "headers": []}
    await BodyLimit(app, MOST_BYTES, most_seconds=0.01)(scope, receive, send)
    assert answers[0]["status"] == 408


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        ({"Authorization": "Bearer abc"}, "abc"),
        ({"Authorization": "bearer  abc "}, "abc"),
        ({"X-API-Key": "abc"}, "abc"),
        ({"Authorization": "Basic abc"}, None),
        ({"Authorization": "Bearer "}, None),
        ({}, None),
    ],
)
async def test_tokens(client: httpx.AsyncClient, headers: dict[str, str], token: str | None) -> None:
    answer = await client.get("/token", headers=headers)
    if token is None:
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
    else:
        assert answer.json() == {"token": token}


def test_secrets_are_compared_and_hashed_as_text() -> None:
    assert same_secret("密码", "密码")
    assert not same_secret("密码", "密碼")
    assert token_hash("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, B.1


class TestRateLimiter:
    def setup_method(self) -> None:
        self.now = 0.0
        self.limiter = RateLimiter(per_second=2, burst=4, most_keys=3, clock=lambda: self.now)

    def allowed(self, key: str = "a", cost: float = 1) -> bool:
        try:
            self.limiter.check(key, cost)
        except Problem:
            return False
        return True

    def test_who_is_refused_is_told_when_to_come_again(self) -> None:
        self.limiter.check("a", 4)
        with pytest.raises(Problem) as raised:
            self.limiter.check("a", 4)
        assert raised.value.status == 429
        assert raised.value.headers["Retry-After"] == "2"

    def test_a_burst_passes_then_the_rate_holds(self) -> None:
        assert [self.allowed() for _ in range(5)] == [True] * 4 + [False]
        self.now = 0.5  # 2 a second: one more
        assert [self.allowed() for _ in range(2)] == [True, False]
        self.now = 100.0  # never more than a burst
        assert [self.allowed() for _ in range(5)] == [True] * 4 + [False]

    def test_keys_do_not_share(self) -> None:
        assert [self.allowed("a") for _ in range(5)][-1] is False
        assert self.allowed("b")

    def test_what_costs_more_than_a_burst_passes_when_the_bucket_is_full(self) -> None:
        assert self.allowed(cost=10)
        assert not self.allowed()

    def test_memory_is_bounded(self) -> None:
        for key in "abcdef":
            self.allowed(key)
        assert len(self.limiter._buckets) == 3


def answered(route: str, method: str, status: int) -> float:
    labels = {"service": "test", "route": route, "method": method, "status": str(status)}
    return metrics.REGISTRY.get_sample_value("switchyard_http_requests_total", labels) or 0


def timed(route: str, method: str) -> float:
    labels = {"service": "test", "route": route, "method": method}
    return metrics.REGISTRY.get_sample_value("switchyard_http_seconds_count", labels) or 0


@pytest.mark.parametrize(
    ("method", "path", "route", "status", "is_timed"),
    [
        ("GET", "/things/4111", "/things/{name}", 200, True),
        ("POST", "/things/4111", "/things/{name}", 405, True),
        ("GET", "/no/such/place", "unmatched", 404, True),
        ("GET", "/fault", "/fault", 500, True),
        ("GET", "/stream", "/stream", 200, False),
    ],
)
async def test_answers_are_counted_and_timed_by_route(
    client: httpx.AsyncClient, method: str, path: str, route: str, status: int, is_timed: bool
) -> None:
    counted, times = answered(route, method, status), timed(route, method)
    assert (await client.request(method, path)).status_code == status
    assert answered(route, method, status) == counted + 1
    assert timed(route, method) == times + is_timed


async def test_an_invented_method_makes_no_series(client: httpx.AsyncClient) -> None:
    counted = answered("/things/{name}", "other", 405)
    for number in range(3):
        await client.request(f"BREW{number}", "/things/x")
    assert answered("/things/{name}", "other", 405) == counted + 3
