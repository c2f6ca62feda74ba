"""Providers' requests to `/v1/channels`, on PostgreSQL: what is stored before the answer, and what is refused."""

from __future__ import annotations

import hashlib
import hmac
import json
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from fastapi import FastAPI
from prometheus_client import generate_latest
from sqlalchemy import text

from services.intake.app import build
from services.intake.settings import Settings
from shared import metrics
from shared.database import Database
from shared.events import TicketMessage

APP_SECRET = "a-made-up-app-secret"
TOKEN_SECRET = "a-made-up-token-secret-of-more-than-32-bytes"
AppOf = Callable[..., FastAPI]
BRAND_FILE = """
brand: upay
name: {zh: UPay, en: UPay}
mail_from: service@upay.example
gateways: {default: upay}
leads: {default: [service_lead]}
channels:
  whatsapp:
    hours: always
    adapter:
      provider: whatsapp
      app_secret: ${GATEWAY_TEST_APP_SECRET}
      verify_token: ${GATEWAY_TEST_VERIFY_TOKEN}
      access_token: ${GATEWAY_TEST_ACCESS_TOKEN}
      phone_number_id: "106540352242922"
  app_chat:
    hours: always
    adapter: {provider: app_chat, token_secret: "${GATEWAY_TEST_TOKEN_SECRET}"}
  telegram:
    hours: always
    adapter:
      provider: telegram
      bot_token: ${GATEWAY_TEST_NOT_SET}
      secret_token: ${GATEWAY_TEST_NOT_SET_EITHER}
"""


@pytest.fixture
async def app_of(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AppOf]:
    """Intake's application, its lifespan not begun: the routes need no broker."""
    (tmp_path / "upay.yaml").write_text(BRAND_FILE)
    monkeypatch.setenv("GATEWAY_TEST_APP_SECRET", APP_SECRET)
    monkeypatch.setenv("GATEWAY_TEST_TOKEN_SECRET", TOKEN_SECRET)
    monkeypatch.setenv("GATEWAY_TEST_VERIFY_TOKEN", "a-made-up-verify-token")
    monkeypatch.setenv("GATEWAY_TEST_ACCESS_TOKEN", "a-made-up-access-token")
    async with AsyncExitStack() as stack:

        def make(**changes: Any) -> FastAPI:
            service = build(Settings(**{"database_url": database, "brands_directory": tmp_path, **changes}))
            stack.push_async_callback(service.database.close)
            return service.app()

        yield make


def client_of(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://intake")


@pytest.fixture
async def client(app_of: AppOf) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app_of()) as running:
        yield running


@pytest.fixture
async def tables(database: str) -> AsyncIterator[Database]:
    connected = Database(Settings(database_url=database), service="test")
    yield connected
    await connected.close()


def batch(*messages: dict[str, Any]) -> dict[str, Any]:
    """A WhatsApp webhook with these messages, each an entry of its own."""
    return {
        "object": "whatsapp_business_account",
        "entry": [
            {
                "id": "102290129340398",
                "changes": [
                    {
                        "field": "messages",
                        "value": {
                            "messaging_product": "whatsapp",
                            "metadata": {"display_phone_number": "15550783881", "phone_number_id": "106540352242922"},
                            "contacts": [{"profile": {"name": "Lin"}, "wa_id": message["from"]}],
                            "messages": [message],
                        },
                    }
                ],
            }
            for message in messages
        ],
    }


def message(words: str = "充值没到账", **changes: Any) -> dict[str, Any]:
    return {
        "from": f"86138{uuid.uuid4().int % 10**8:08}",
        "id": f"wamid.{uuid.uuid4().hex}",
        "timestamp": "1764129600",
        "type": "text",
        "text": {"body": words},
        **changes,
    }


async def post(client: httpx.AsyncClient, content: Any, *, secret: str = APP_SECRET, **headers: str) -> httpx.Response:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return await client.post(
        "/v1/channels/whatsapp/upay",
        content=body,
        headers={"X-Hub-Signature-256": f"sha256={signature}", "Content-Type": "application/json", **headers},
    )


async def stored(tables: Database, *ids: str) -> dict[str, TicketMessage]:
    async with tables.transaction() as connection:
        rows = await connection.execute(
            text("SELECT message_id, event FROM intake.messages WHERE message_id = ANY(:ids)"), {"ids": list(ids)}
        )
        return {row.message_id: TicketMessage.model_validate_json(row.event) for row in rows}


async def in_outbox(tables: Database, *tickets: uuid.UUID) -> int:
    async with tables.transaction() as connection:
        bodies = (await connection.execute(text("SELECT body FROM intake.outbox"))).scalars().all()
    return sum(json.loads(body)["ticket_id"] in {str(ticket) for ticket in tickets} for body in bodies)


async def test_a_batch_is_stored_with_its_events_before_it_is_answered(
    client: httpx.AsyncClient, tables: Database
) -> None:
    first, second = message(), message("my card is 4111 1111 1111 1111")
    answer = await post(client, batch(first, second))
    assert answer.status_code == 200
    events = await stored(tables, first["id"], second["id"])
    assert events[first["id"]].text == "充值没到账"
    assert "4111" not in events[second["id"]].text
    assert events[first["id"]].customer.phone == f"+{first['from']}"
    assert await in_outbox(tables, *(event.ticket_id for event in events.values())) == 2


async def test_a_redelivery_changes_nothing(client: httpx.AsyncClient, tables: Database) -> None:
    once = batch(message())
    (message_id,) = (entry["changes"][0]["value"]["messages"][0]["id"] for entry in once["entry"])
    for _ in range(3):
        assert (await post(client, once)).status_code == 200
    event = (await stored(tables, message_id))[message_id]
    assert event.sequence == 1
    assert await in_outbox(tables, event.ticket_id) == 1


async def test_a_wrong_signature_is_refused_and_nothing_is_stored(client: httpx.AsyncClient, tables: Database) -> None:
    sent = message()
    answer = await post(client, batch(sent), secret="somebody else's")
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert await stored(tables, sent["id"]) == {}


async def test_the_handshake_is_answered(client: httpx.AsyncClient) -> None:
    asked = {"hub.mode": "subscribe", "hub.verify_token": "a-made-up-verify-token", "hub.challenge": "1158201444"}
    answer = await client.get("/v1/channels/whatsapp/upay", params=asked)
    assert (answer.status_code, answer.text) == (200, "1158201444")
    assert (await client.get("/v1/channels/whatsapp/upay", params={**asked, "hub.verify_token": "no"})).status_code in (
        401,
        403,
    )


@pytest.mark.parametrize(
    "address",
    ["/v1/channels/pigeon/upay", "/v1/channels/whatsapp/nobody", "/v1/channels/telegram/upay"],
    ids=["no such provider", "no such brand", "its variables are not set"],
)
async def test_what_is_not_there_is_told(client: httpx.AsyncClient, address: str) -> None:
    answer = await client.post(address, content=b"{}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


async def test_what_is_no_message_is_counted(client: httpx.AsyncClient) -> None:
    status = batch(message())
    value = status["entry"][0]["changes"][0]["value"]
    del value["messages"]
    value["statuses"] = [
        {"id": "wamid.1", "status": "read", "timestamp": "1764129600", "recipient_id": "8613800000000"}
    ]
    assert (await post(client, status)).status_code == 200
    assert b'switchyard_channel_events_ignored_total{brand="upay",channel="whatsapp",kind="status"}' in generate_latest(
        metrics.REGISTRY
    )


async def test_a_time_that_cannot_be_does_not_lose_the_message(client: httpx.AsyncClient, tables: Database) -> None:
    sent = message(timestamp="1")
    assert (await post(client, batch(sent))).status_code == 200
    event = (await stored(tables, sent["id"]))[sent["id"]]
    assert event.sent_at == event.accepted_at or abs((event.sent_at - event.accepted_at).total_seconds()) < 60


async def test_without_a_database_the_provider_is_asked_to_send_it_again(app_of: AppOf) -> None:
    async with client_of(app_of(database_url="postgresql://switchyard@127.0.0.1:1/switchyard")) as client:
        answer = await post(client, batch(message()))
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0


async def test_a_body_beyond_the_limit_is_refused(app_of: AppOf) -> None:
    async with client_of(app_of(intake_body_most_bytes=2048)) as client:
        answer = await post(client, batch(message("x" * 4096)))
    assert answer.status_code == 413


async def test_a_client_that_is_too_fast_is_asked_to_wait(app_of: AppOf) -> None:
    async with client_of(app_of(intake_client_rate_per_second=0.001, intake_client_rate_burst=2)) as client:
        statuses = [(await post(client, batch(message()), secret="wrong")).status_code for _ in range(2)]
        answer = await post(client, batch(message()))
    assert statuses == [401, 401]
    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) > 0


async def chat(client: httpx.AsyncClient, customer: str, message_id: str) -> httpx.Response:
    claims = {"sub": customer, "aud": "upay", "exp": datetime.now(UTC) + timedelta(hours=1)}
    token = jwt.encode(claims, TOKEN_SECRET, algorithm="HS256")
    return await client.post(
        "/v1/channels/app_chat/upay",
        json={"message_id": message_id, "text": "在吗"},
        headers={"Authorization": f"Bearer {token}"},
    )


async def test_a_customer_who_is_too_fast_is_asked_to_wait_and_nobody_else(app_of: AppOf, tables: Database) -> None:
    fast, other = uuid.uuid4().hex, uuid.uuid4().hex
    async with client_of(app_of(intake_sender_rate_per_second=0.001, intake_sender_rate_burst=3)) as client:
        answers = [await chat(client, fast, f"m-{number}") for number in range(4)]
        elsewhere = await chat(client, other, "m-0")
        # A provider's batch is of many customers: none of them holds up the others.
        sender = f"86138{uuid.uuid4().int % 10**8:08}"
        batches = [await post(client, batch(message(**{"from": sender}))) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert int(answers[-1].headers["Retry-After"]) > 0
    assert elsewhere.status_code == 200
    assert [answer.status_code for answer in batches] == [200] * 5
    assert set(await stored(tables, f"{fast}/m-2", f"{fast}/m-3")) == {f"{fast}/m-2"}


async def test_what_is_older_than_the_operator_allows_is_counted_and_left_out(app_of: AppOf, tables: Database) -> None:
    old, fresh = message(timestamp="1700000000"), message(timestamp=str(int(datetime.now(UTC).timestamp())))
    async with client_of(app_of(intake_message_oldest_days=7)) as client:
        assert (await post(client, batch(old, fresh))).status_code == 200
    assert set(await stored(tables, old["id"], fresh["id"])) == {fresh["id"]}
    counted = b'switchyard_channel_events_ignored_total{brand="upay",channel="whatsapp",kind="too_old"}'
    assert counted in generate_latest(metrics.REGISTRY)
