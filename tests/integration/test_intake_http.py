"""`POST /v1/messages` on PostgreSQL: idempotence, and every way to be refused."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client import generate_latest
from sqlalchemy import text

from services.intake.app import build
from services.intake.settings import Settings
from shared import metrics
from shared.database import Database
from shared.events import TicketMessage
from shared.http import token_hash
from tests.support.brands import write_brand

KEY, OTHER_KEY = f"key-{uuid.uuid4().hex}", f"key-{uuid.uuid4().hex}"
_KEYS = [{"key_sha256": token_hash(KEY)}]
CHANNELS = {
    "app_chat": {"hours": "always", "keys": _KEYS},
    "email": {"hours": "always", "keys": _KEYS},
    "x": {"hours": "always", "keys": [{"key_sha256": token_hash(OTHER_KEY)}]},
}
AppOf = Callable[..., FastAPI]


@pytest.fixture
async def app_of(database: str, tmp_path: Path) -> AsyncIterator[AppOf]:
    """Intake's application, its lifespan not begun: the routes need no broker."""
    brands = write_brand(tmp_path / "brands", "upay", channels=CHANNELS)

    async with AsyncExitStack() as stack:

        def make(**changes: Any) -> FastAPI:
            service = build(Settings(**{"database_url": database, "brands_directory": brands, **changes}))
            stack.push_async_callback(service.database.close)
            return service.app()

        yield make


@pytest.fixture
async def client(app_of: AppOf) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app_of()) as running:
        yield running


def client_of(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://intake")


@pytest.fixture
async def tables(database: str) -> AsyncIterator[Database]:
    connected = Database(Settings(database_url=database), service="test")
    yield connected
    await connected.close()


def body(message_id: str | None = None, **changes: Any) -> dict[str, Any]:
    return {
        "brand": "upay",
        "channel": "app_chat",
        "message_id": message_id or uuid.uuid4().hex,
        "customer": {"id": uuid.uuid4().hex},
        "text": "充值没到账",
        "sent_at": "2026-03-02T17:00:00+08:00",
        **changes,
    }


async def post(client: httpx.AsyncClient, content: Any, *, key: str | None = KEY, **headers: str) -> httpx.Response:
    raw = content if isinstance(content, (bytes, str)) else json.dumps(content)
    given = {"content-type": "application/json", **({"authorization": f"Bearer {key}"} if key else {}), **headers}
    return await client.post("/v1/messages", content=raw, headers=given)


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    told: dict[str, Any] = answer.json()
    assert told["status"] == status
    assert told["title"]
    assert told["detail"]
    return told


async def events_of(tables: Database, message_id: str) -> list[TicketMessage]:
    async with tables.transaction() as connection:
        rows = (await connection.execute(text("SELECT type, body FROM intake.outbox ORDER BY id"))).all()
    events = [TicketMessage.model_validate_json(row.body) for row in rows if row.type == TicketMessage.TYPE]
    return [event for event in events if event.message_id == message_id]


async def test_one_message_is_answered_with_its_ticket_and_its_event_waits_in_the_outbox(
    client: httpx.AsyncClient, tables: Database
) -> None:
    sent = body(text="我的密码是abc123")
    answer = await post(client, sent)
    assert answer.status_code == 202
    told = answer.json()
    assert (told["message_id"], told["status"]) == (sent["message_id"], "accepted")
    (event,) = await events_of(tables, sent["message_id"])
    assert str(event.ticket_id) == told["ticket_id"]
    assert event.text == "我的密码是[password]"


async def test_the_same_message_again_is_a_duplicate_with_the_same_ticket_and_no_event(
    client: httpx.AsyncClient, tables: Database
) -> None:
    sent = body()
    first, again = await post(client, sent), await post(client, sent | {"text": "something else"})
    assert again.status_code == 202
    assert again.json() == first.json() | {"status": "duplicate"}
    assert [event.text for event in await events_of(tables, sent["message_id"])] == [sent["text"]]


async def test_a_list_is_answered_in_its_order(client: httpx.AsyncClient, tables: Database) -> None:
    customer = {"id": uuid.uuid4().hex}
    burst = [body(customer=customer), body(customer=customer, sent_at="2026-03-02T08:59:59Z")]
    answer = await post(client, [*burst, burst[0], body(channel="email")])
    assert answer.status_code == 202
    results = answer.json()["results"]
    assert [item["status"] for item in results] == ["accepted", "accepted", "duplicate", "accepted"]
    assert [item["message_id"] for item in results[:3]] == [item["message_id"] for item in (*burst, burst[0])]
    assert len({item["ticket_id"] for item in results[:3]}) == 1
    assert results[3]["ticket_id"] != results[0]["ticket_id"]
    (event,) = await events_of(tables, burst[0]["message_id"])
    assert event.sequence == 2  # the other was sent a second before


async def test_a_list_of_one_is_answered_with_a_list(client: httpx.AsyncClient) -> None:
    answer = await post(client, b" \n" + json.dumps([body()]).encode())
    assert len(answer.json()["results"]) == 1


async def test_the_key_may_stand_in_its_own_header(client: httpx.AsyncClient) -> None:
    answer = await post(client, body(), key=None, **{"x-api-key": KEY})
    assert answer.status_code == 202


async def test_a_trace_goes_on(client: httpx.AsyncClient, tables: Database) -> None:
    trace = f"00-{uuid.uuid4().hex}-{uuid.uuid4().hex[:16]}-01"
    assert (await post(client, body(), traceparent=trace)).status_code == 202
    async with tables.transaction() as connection:
        traces = (await connection.execute(text("SELECT traceparent FROM intake.outbox"))).scalars().all()
    assert trace in traces


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"brand": "UPay"}, "brand"),
        ({"channel": "pigeon"}, "channel"),
        ({"message_id": ""}, "message_id"),
        ({"message_id": "a\u0000b"}, "message_id"),
        ({"customer": {}}, "customer.id"),
        ({"customer": None}, "customer"),
        ({"sent_at": "2026-03-02T17:00:00"}, "sent_at"),
        ({"sent_at": "yesterday"}, "sent_at"),
        ({"sent_at": "9999-12-31T23:59:59Z"}, "sent_at"),
        ({"text": "x" * 20_001}, "text"),
        ({"attachments": [{"name": "a", "size_bytes": -1}]}, "attachments.0.size_bytes"),
    ],
)
async def test_a_wrong_field_is_named_alone_and_in_a_list(
    client: httpx.AsyncClient, tables: Database, change: dict[str, Any], field: str
) -> None:
    good, wrong = body(), body() | change
    told = problem(await post(client, wrong), 422)
    assert [item["field"] for item in told["errors"]] == [field]
    told = problem(await post(client, [good, wrong]), 422)
    assert [item["field"] for item in told["errors"]] == [f"1.{field}"]
    assert field in told["detail"]
    assert not await events_of(tables, good["message_id"])  # all or none


async def test_nothing_of_a_refused_body_is_echoed(client: httpx.AsyncClient) -> None:
    secret = "4111111111111111"
    for wrong in (
        body(channel=secret),
        body(sent_at=secret),
        body(customer={"id": [secret]}),
        {"text": secret, secret: secret},
        f'{{"text": "{secret}",',
        f'"{secret}"',
    ):
        answer = await post(client, wrong)
        problem(answer, 422)
        assert secret not in answer.text


@pytest.mark.parametrize("content", [b"", b"{", b"null", b"42", b'"text"', b"[1]", b"[]", b"\xff\xfe", b"[" * 5000])
async def test_what_is_no_message_is_refused(client: httpx.AsyncClient, content: bytes) -> None:
    assert problem(await post(client, content), 422)["errors"]


async def test_a_list_may_have_500_messages_and_no_more(client: httpx.AsyncClient) -> None:
    customer = {"id": uuid.uuid4().hex}
    many = [body(customer=customer) for _ in range(501)]
    told = problem(await post(client, many), 422)
    assert "500" in told["errors"][0]["detail"]
    answer = await post(client, many[:500])
    assert len(answer.json()["results"]) == 500
    assert len({item["ticket_id"] for item in answer.json()["results"]}) == 1


@pytest.mark.parametrize(
    "headers", [{}, {"authorization": "Basic abc"}, {"authorization": "Bearer "}, {"authorization": "Bearer wrong"}]
)
async def test_without_a_known_key_nothing_is_said(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    answer = await post(client, body(brand="wrong!"), key=None, **headers)
    problem(answer, 401)
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("change", [{"channel": "x"}, {"channel": "phone"}, {"brand": "topay"}])
async def test_a_key_is_for_its_channels_only(
    client: httpx.AsyncClient, tables: Database, change: dict[str, str]
) -> None:
    good = body()
    problem(await post(client, body(**change)), 403)
    told = problem(await post(client, [good, body(**change)]), 403)
    assert [item["field"] for item in told["errors"]] == ["1.channel"]
    assert not await events_of(tables, good["message_id"])
    assert (await post(client, body(channel="x"), key=OTHER_KEY)).status_code == 202


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_a_body_that_is_not_said_to_be_json_is_refused(client: httpx.AsyncClient, media_type: str) -> None:
    problem(await post(client, body(), **{"content-type": media_type}), 415)


async def test_a_charset_may_be_told(client: httpx.AsyncClient) -> None:
    answer = await post(client, body(), **{"content-type": "Application/JSON; charset=utf-8"})
    assert answer.status_code == 202


async def test_a_body_over_the_limit_is_refused_also_in_chunks(app_of: AppOf) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"x" * 1000

    async with client_of(app_of(intake_body_most_bytes=2048)) as client:
        problem(await post(client, b"x" * 2049), 413)
        answer = await client.post(
            "/v1/messages", content=chunks(), headers={"x-api-key": KEY, "content-type": "application/json"}
        )
        problem(answer, 413)
        assert (await post(client, body())).status_code == 202


async def test_a_key_that_sends_too_much_is_slowed_down_and_others_are_not(app_of: AppOf) -> None:
    async with client_of(app_of(intake_rate_per_second=0.01, intake_rate_burst=5)) as client:
        assert (await post(client, [body() for _ in range(4)])).status_code == 202
        assert (await post(client, body())).status_code == 202
        answer = await post(client, body())
        problem(answer, 429)
        assert int(answer.headers["retry-after"]) > 1
        assert (await post(client, body(channel="x"), key=OTHER_KEY)).status_code == 202


async def test_messages_older_than_the_limit_are_refused(app_of: AppOf) -> None:
    async with client_of(app_of(intake_message_oldest_days=1)) as client:
        told = problem(await post(client, [body(sent_at="2020-01-01T00:00:00Z")]), 422)
        assert told["errors"] == [
            {
                "field": "0.sent_at",
                "detail": "is more than 1 days ago; check the channel's clock, or raise INTAKE_MESSAGE_OLDEST_DAYS",
            }
        ]


async def test_with_the_database_away_the_sender_is_told_to_come_back(app_of: AppOf) -> None:
    async with client_of(app_of(database_url="postgresql://nobody@127.0.0.1:1/none")) as client:
        answer = await post(client, body())
        problem(answer, 503)
        assert int(answer.headers["retry-after"]) >= 1


async def test_what_happens_is_counted(client: httpx.AsyncClient) -> None:
    before = counters()
    sent = body(text="pin 1234, card 4111111111111111")
    await post(client, sent)
    await post(client, sent)
    await post(client, [1])
    grown = {name: value - before.get(name, 0) for name, value in counters().items() if value != before.get(name, 0)}
    assert grown == {
        'messages_accepted_total{brand="upay",channel="app_chat",disposition="opened"}': 1,
        'messages_duplicate_total{brand="upay",channel="app_chat"}': 1,
        'messages_rejected_total{channel="http",reason="invalid"}': 1,
        'secrets_cut_total{kind="card"}': 1,
        'secrets_cut_total{kind="pin"}': 1,
    }


def counters() -> dict[str, float]:
    def lines() -> Iterator[tuple[str, float]]:
        for line in generate_latest(metrics.REGISTRY).decode().splitlines():
            name, _, value = line.rpartition(" ")
            if name.startswith(("switchyard_messages_", "switchyard_secrets_")) and "_total" in name:
                yield name.removeprefix("switchyard_"), float(value)

    return dict(lines())


async def test_the_openapi_document_describes_the_body(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    operation = document["paths"]["/v1/messages"]["post"]
    one, several = operation["requestBody"]["content"]["application/json"]["schema"]["anyOf"]
    assert "message_id" in one["required"]
    assert several["maxItems"] == 500
    assert several["items"]["properties"]["customer"]["required"] == ["id"]
    assert "$ref" not in json.dumps(operation["requestBody"])
    assert {"202", "401", "403", "413", "415", "422", "429", "503"} <= operation["responses"].keys()
