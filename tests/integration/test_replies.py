"""`POST /v1/replies/<brand>`: each reply goes to its provider once, whatever happens to the tries."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from sqlalchemy import text
from standardwebhooks import Webhook

from services.intake.channels.base import NotSent, Reply, Sent
from services.intake.replies import Replies, build_replies_router
from services.intake.settings import Settings
from shared.database import Database
from shared.http import install_problem_handlers
from shared.taxonomy import Channel

SECRET = base64.b64encode(secrets.token_bytes(32)).decode()
PREVIOUS = base64.b64encode(secrets.token_bytes(32)).decode()


class Provider:
    """Takes replies, or does what `answers` says, one after the other."""

    def __init__(self) -> None:
        self.taken: list[Reply] = []
        self.answers: list[BaseException] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def send(self, reply: Reply) -> Sent:
        await self.gate.wait()
        if self.answers:
            raise self.answers.pop(0)
        self.taken.append(reply)
        return Sent((f"provider-{len(self.taken)}",))


@pytest.fixture
def provider() -> Provider:
    return Provider()


@pytest.fixture
async def tables(database: str) -> AsyncIterator[Database]:
    connected = Database(Settings(database_url=database), service="test")
    yield connected
    await connected.close()


@pytest.fixture
async def client(tables: Database, provider: Provider) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    install_problem_handlers(app)
    replies = Replies(tables, {("upay", Channel.WECHAT): provider.send})
    app.include_router(build_replies_router(replies, [SecretStr(SECRET), SecretStr(PREVIOUS)]))
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://intake") as running:
        yield running


def payload(notification: uuid.UUID | None = None, **changes: Any) -> dict[str, Any]:
    return {
        "type": "notification.reply",
        "timestamp": "2026-11-26T04:00:00+00:00",
        "data": {
            "notification_id": str(notification or uuid.uuid4()),
            "ticket_id": str(uuid.uuid4()),
            "brand": "upay",
            "channel": "wechat",
            "customer_id": "o-1",
            "reply_to": None,
            "language": "zh",
            "subject": "回复",
            "text": "您好，已为您处理。",
            "agent": "mei",
            **changes,
        },
    }


async def post(
    client: httpx.AsyncClient, content: Any, *, secret: str = SECRET, brand: str = "upay", at: datetime | None = None
) -> httpx.Response:
    body = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    at = at or datetime.now(UTC)
    return await client.post(
        f"/v1/replies/{brand}",
        content=body.encode(),
        headers={
            "webhook-id": "w-1",
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": Webhook(secret).sign("w-1", at, body),
        },
    )


async def test_a_reply_reaches_its_provider_once(client: httpx.AsyncClient, provider: Provider) -> None:
    once = payload()
    assert [(await post(client, once)).status_code for _ in range(3)] == [204, 204, 204]
    (reply,) = provider.taken
    assert (reply.customer_id, reply.text, reply.is_acknowledgement) == ("o-1", "您好，已为您处理。", False)


async def test_a_secret_can_be_changed(client: httpx.AsyncClient, provider: Provider) -> None:
    assert (await post(client, payload(), secret=PREVIOUS)).status_code == 204
    assert len(provider.taken) == 1


async def test_who_does_not_sign_is_refused(client: httpx.AsyncClient, provider: Provider) -> None:
    stranger = base64.b64encode(b"x" * 32).decode()
    old = datetime(2026, 1, 1, tzinfo=UTC)
    answers = [
        await post(client, payload(), secret=stranger),
        await post(client, payload(), at=old),  # a replay of long ago
        await client.post("/v1/replies/upay", json=payload()),
        await client.post("/v1/replies/upay", json=payload(), headers={"webhook-id": "1", "webhook-timestamp": "soon"}),
    ]
    good = {"webhook-id": "1", "webhook-timestamp": str(int(datetime.now(UTC).timestamp()))}
    for odd in ("v1", "v1,é", "v1,####", "v2,AAAA", ","):
        headers = {name.encode(): value.encode("latin-1") for name, value in {**good, "webhook-signature": odd}.items()}
        answers.append(await client.post("/v1/replies/upay", content=b"\xff", headers=headers))
    answers.append(await client.post("/v1/replies/upay", content=b"", headers={**good, "webhook-timestamp": "9" * 400}))
    assert [answer.status_code for answer in answers] == [401] * len(answers)
    assert provider.taken == []


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("{", "JSON"),
        ("[]", "body"),
        (payload(channel="pigeon"), "data.channel"),
        (payload(brand="topay"), "data.brand"),
        ({**payload(), "type": "notification.breach"}, "type"),
        (payload(text=""), "data.text"),
    ],
    ids=["no JSON", "a list", "no channel", "another brand", "not for customers", "no text"],
)
async def test_what_is_no_reply_names_what_is_wrong(client: httpx.AsyncClient, content: Any, named: str) -> None:
    answer = await post(client, content)
    assert answer.status_code == 422
    assert named in answer.json()["detail"]


async def test_what_the_provider_may_take_later_is_tried_again(client: httpx.AsyncClient, provider: Provider) -> None:
    provider.answers = [NotSent("HTTP 429", retry_after_seconds=42.4), NotSent("no answer")]
    once = payload()
    first = await post(client, once)
    assert (first.status_code, first.headers["Retry-After"]) == (503, "42")
    assert (await post(client, once)).status_code == 503
    assert (await post(client, once)).status_code == 204
    assert len(provider.taken) == 1


async def test_what_the_provider_never_takes_is_told_so(client: httpx.AsyncClient, provider: Provider) -> None:
    provider.answers = [NotSent("errcode 45015", hopeless=True)]
    answer = await post(client, payload())
    assert (answer.status_code, answer.json()["detail"]) == (422, "errcode 45015")


async def test_a_fault_of_ours_leaves_the_reply_to_the_next_try(client: httpx.AsyncClient, provider: Provider) -> None:
    provider.answers = [ZeroDivisionError()]
    once = payload()
    assert (await post(client, once)).status_code == 500
    assert (await post(client, once)).status_code == 204
    assert len(provider.taken) == 1


async def test_two_tries_at_a_time_are_one(client: httpx.AsyncClient, provider: Provider) -> None:
    provider.gate.clear()
    once = payload()
    first = asyncio.create_task(post(client, once))
    second = asyncio.create_task(post(client, once))
    refused = await next(asyncio.as_completed([first, second]))
    assert refused.status_code == 503
    provider.gate.set()
    assert sorted(answer.status_code for answer in await asyncio.gather(first, second)) == [204, 503]
    assert len(provider.taken) == 1


async def test_a_try_that_died_is_taken_over_after_its_lease(
    client: httpx.AsyncClient, provider: Provider, tables: Database
) -> None:
    notification = uuid.uuid4()
    once = payload(notification)
    async with tables.transaction() as connection:
        await connection.execute(
            text(
                "INSERT INTO intake.replies (notification_id, brand, channel, leased_until, message_ids)"
                " VALUES (:id, 'upay', 'wechat', now() + interval '1 minute', '{}')"
            ),
            {"id": notification},
        )
    assert (await post(client, once)).status_code == 503
    async with tables.transaction() as connection:
        await connection.execute(
            text("UPDATE intake.replies SET leased_until = now() WHERE notification_id = :id"), {"id": notification}
        )
    assert (await post(client, once)).status_code == 204
    assert len(provider.taken) == 1


async def test_a_channel_without_an_adapter_waits_for_one(client: httpx.AsyncClient) -> None:
    answer = await post(client, payload(channel="weibo"))
    assert answer.status_code == 503
    assert "weibo of upay" in answer.json()["detail"]


async def test_the_providers_ids_are_kept(client: httpx.AsyncClient, tables: Database) -> None:
    notification = uuid.uuid4()
    await post(client, payload(notification))
    async with tables.transaction() as connection:
        ids = await connection.scalar(
            text("SELECT message_ids FROM intake.replies WHERE notification_id = :id"), {"id": notification}
        )
    assert ids == ["provider-1"]
