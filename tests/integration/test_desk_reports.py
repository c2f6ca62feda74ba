"""Reports at the desk: the sla_timer's real API behind it, who may ask for what, what is said when it cannot answer."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from services.desk.app import build as build_desk
from services.desk.reports import Reports
from services.desk.settings import Settings as DeskSettings
from services.sla_timer.app import build as build_sla_timer
from shared.http import token_hash
from tests.support.sla_timer import TOKEN, settings_for

LEAD, VIEWER, AGENT, UPAY_LEAD, PAYMENTS_LEAD = (
    f"token-of-{name}-for-reports" for name in ("lead", "viewer", "agent", "upay", "payments")
)
PERIOD = {"from": "2026-10-26", "to": "2026-10-28"}


def agents_file(directory: Path) -> Path:
    path = directory / "agents.yaml"
    entries = (
        ("lead", "lead", LEAD, "all", "all"),
        ("wall", "viewer", VIEWER, "all", "all"),
        ("mei", "agent", AGENT, "all", "all"),
        ("upay-lead", "lead", UPAY_LEAD, "all", "[upay]"),
        ("payments-lead", "lead", PAYMENTS_LEAD, "[payments]", "all"),
    )
    path.write_text(
        "agents:\n"
        + "".join(
            f"  - {{id: {name}, role: {role}, token_sha256: {token_hash(token)}, queues: {queues}, brands: {brands}}}\n"
            for name, role, token, queues, brands in entries
        )
    )
    return path


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[str]:
    """The application's routes on a port of its own; nothing of it consumes."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, lifespan="off", log_config=None, access_log=False, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
        listener.close()


@asynccontextmanager
async def desk(directory: Path, database: str, **changes: Any) -> AsyncIterator[Callable[..., Any]]:
    """Asks the desk's `/v1/report`; `changes` are its settings."""
    service = build_desk(DeskSettings(database_url=database, desk_agents_file=agents_file(directory), **changes))
    transport = httpx.ASGITransport(app=service.app())
    async with httpx.AsyncClient(transport=transport, base_url="http://desk") as client:

        async def ask(token: str = LEAD, **params: str) -> httpx.Response:
            headers = {"Authorization": f"Bearer {token}"}
            return await client.get("/v1/report", params=PERIOD | params, headers=headers)

        try:
            yield ask
        finally:
            await service.database.close()


@pytest.fixture(scope="module")
async def sla_timer(database: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """The sla_timer's address; it knows one answered promise of upay and one of topay."""
    connection = await asyncpg.connect(database)
    await connection.execute(
        "INSERT INTO sla_timer.clocks (clock_id, ticket_id, target, generation, state, brand, channel, queue, "
        "priority, policy, calendar, policy_version, calendar_version, target_seconds, marks, started_at, ended_at, "
        "used_seconds, course, alarms, told) "
        "SELECT gen_random_uuid(), gen_random_uuid(), 'first_response', 1, 'met', brand, 'app_chat', 'payments', "
        "'P2', 'p', 'always', 'v', 'v', 600, '[]', at, at + used * interval '1 second', used, '[]', '[]', 1 "
        "FROM (VALUES ('upay', timestamptz '2026-10-26T12:00Z', 77), "
        "('topay', timestamptz '2026-10-27T12:00Z', 99)) AS known (brand, at, used)"
    )
    await connection.close()
    service = build_sla_timer(settings_for(tmp_path_factory.mktemp("sla_timer"), database))
    async with serving(service.app()) as url:
        yield url
    await service.database.close()


async def test_leads_and_viewers_get_what_the_sla_timer_answers(sla_timer: str, database: str, tmp_path: Path) -> None:
    async with desk(tmp_path, database, desk_sla_timer_url=f"{sla_timer}/", desk_sla_timer_token=TOKEN) as ask:
        for token in (LEAD, VIEWER):
            answer = await ask(token, by="brand", target="first_response")
            assert answer.status_code == 200
            assert answer.headers["content-type"] == "application/json"
            assert answer.headers["cache-control"] == "no-store"
            rows = {row["group"]: row["overall"]["business_seconds"]["p90"] for row in answer.json()["rows"]}
            assert rows == {"upay": 77, "topay": 99}
        filtered = (await ask(by="queue", brand="upay", queue="payments", zone="Asia/Shanghai")).json()
        assert filtered["zone"] == "Asia/Shanghai"
        assert filtered["filters"] == {"brand": "upay", "queue": "payments", "channel": None, "priority": None}
        async with httpx.AsyncClient() as client:
            straight = await client.get(
                f"{sla_timer}/v1/report",
                params=PERIOD | {"by": "queue", "brand": "upay", "queue": "payments", "zone": "Asia/Shanghai"},
                headers={"Authorization": f"Bearer {TOKEN}"},
            )
        assert {**filtered, "made_at": ""} == {**straight.json(), "made_at": ""}


async def test_nobody_sees_more_than_is_theirs(sla_timer: str, database: str, tmp_path: Path) -> None:
    async with desk(tmp_path, database, desk_sla_timer_url=sla_timer, desk_sla_timer_token=TOKEN) as ask:
        assert (await ask("not-a-token-of-anybody")).status_code == 401
        refused = await ask(AGENT)
        assert refused.status_code == 403
        assert "for leads and viewers" in refused.json()["detail"]
        for token, field, own, other in (
            (UPAY_LEAD, "brand", "upay", "topay"),
            (PAYMENTS_LEAD, "queue", "payments", "refunds"),
        ):
            for params in ({}, {field: other}):
                refused = await ask(token, **params)
                assert refused.status_code == 403
                assert refused.json()["errors"][0]["field"] == f"query.{field}"
                assert own in refused.json()["detail"]
            assert (await ask(token, **{field: own})).status_code == 200


async def test_what_the_sla_timer_finds_wrong_is_told_by_field(sla_timer: str, database: str, tmp_path: Path) -> None:
    async with desk(tmp_path, database, desk_sla_timer_url=sla_timer, desk_sla_timer_token=TOKEN) as ask:
        for params, field in (
            ({"by": "weather"}, "query.by"),
            ({"to": "2026-10-26"}, "query.to"),
            ({"zone": "Mars/Olympus"}, "query.zone"),
            ({"queue": "nowhere"}, "query.queue"),
            ({"surprise": "1"}, "query.surprise"),
        ):
            answer = await ask(**params)
            assert answer.status_code == 422
            assert [error["field"] for error in answer.json()["errors"]] == [field]


async def test_a_desk_that_has_no_way_to_the_sla_timer_says_which_setting_is_missing(
    database: str, tmp_path: Path
) -> None:
    for settings, missing in (
        ({}, "DESK_SLA_TIMER_URL"),
        ({"desk_sla_timer_url": "", "desk_sla_timer_token": TOKEN}, "DESK_SLA_TIMER_URL"),
        ({"desk_sla_timer_url": "http://127.0.0.1:1"}, "DESK_SLA_TIMER_TOKEN"),
        ({"desk_sla_timer_url": "http://127.0.0.1:1", "desk_sla_timer_token": ""}, "DESK_SLA_TIMER_TOKEN"),
    ):
        async with desk(tmp_path, database, **settings) as ask:
            answer = await ask()
        assert answer.status_code == 503
        assert f"has not set {missing}" in answer.json()["detail"]


async def test_a_wrong_token_is_the_operators_fault_and_not_the_leads(
    sla_timer: str, database: str, tmp_path: Path
) -> None:
    async with desk(tmp_path, database, desk_sla_timer_url=sla_timer, desk_sla_timer_token="of-long-ago") as ask:
        answer = await ask()
    assert answer.status_code == 502
    assert "must be its SLA_TIMER_API_TOKEN" in answer.json()["detail"]
    assert "of-long-ago" not in answer.text


async def test_a_sla_timer_that_is_away_is_a_bad_gateway(database: str, tmp_path: Path) -> None:
    for url in ("http://127.0.0.1:1", "http://[nonsense"):
        async with desk(tmp_path, database, desk_sla_timer_url=url, desk_sla_timer_token=TOKEN) as ask:
            answer = await ask()
        assert answer.status_code == 502
        assert "cannot be reached" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("answered", "status", "said"),
    [
        (httpx.ReadTimeout("slow"), 504, "did not answer in time"),
        (httpx.ConnectTimeout("slow"), 504, "did not answer in time"),
        (httpx.Response(503, json={"detail": "the report took longer than 20 s"}), 503, "took longer than 20 s"),
        (httpx.Response(503, text="<html>"), 503, "not now"),
        (httpx.Response(500, text="boom: password=1234"), 502, "answered 500"),
        (httpx.Response(302, headers={"Location": "http://elsewhere/"}), 502, "answered 302"),
    ],
)
async def test_every_other_answer_becomes_one_that_a_lead_can_read(
    database: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    answered: httpx.Response | httpx.TransportError,
    status: int,
    said: str,
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.headers["authorization"] == f"Bearer {TOKEN}"
        if isinstance(answered, httpx.TransportError):
            raise answered
        return answered

    transport = httpx.MockTransport(answer)
    monkeypatch.setattr("services.desk.app.Reports", lambda settings: Reports(settings, transport))
    settings = {"desk_sla_timer_url": "http://sla_timer:8000", "desk_sla_timer_token": TOKEN}
    async with desk(tmp_path, database, **settings) as ask:
        found = await ask()
    assert found.status_code == status
    assert said in found.json()["detail"]
    assert "password" not in found.text
