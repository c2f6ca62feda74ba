"""App chat over real sockets and PostgreSQL: accepted is stored, replies come on every replica, to nobody else."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin

from services.intake import chat, chat_storage
from services.intake.channels.app_chat import FRAME_MOST_BYTES, AppChat, AppChatConfig
from shared.http import unavailable
from tests.support.chat import BRAND, SECRET, Replica, reply_to, running_replica, session_token
from tests.support.waiting import eventually

WAIT_SECONDS = 20


@pytest.fixture
async def replica(database: str) -> AsyncIterator[Replica]:
    async with running_replica(database, visitors=True, allowed_origins=["https://shop.example"]) as running:
        yield running


def somebody() -> str:
    return f"c-{uuid.uuid4().hex[:12]}"


async def say(line: ClientConnection, **frame: Any) -> None:
    await line.send(json.dumps(frame, ensure_ascii=False))


async def heard(line: ClientConnection) -> Any:
    async with asyncio.timeout(WAIT_SECONDS):
        return json.loads(await line.recv())


async def closed_with(line: ClientConnection) -> int:
    async with asyncio.timeout(WAIT_SECONDS):
        with suppress(ConnectionClosed):
            while True:
                await line.recv()
    assert line.close_code is not None
    return line.close_code


@asynccontextmanager
async def line_of(replica: Replica, token: str, **options: Any) -> AsyncIterator[ClientConnection]:
    """An open chat of whoever holds the token, welcomed."""
    async with connect(replica.socket_url, **options) as line:
        await say(line, type="hello", token=token)
        assert (await heard(line))["type"] == "welcome"
        yield line


async def history(replica: Replica, token: str, **query: str) -> list[dict[str, Any]]:
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{replica.url}/history", params=query, headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


async def test_accepted_is_stored_and_found_again(replica: Replica) -> None:
    customer = somebody()
    token = session_token(customer, name="王小明", lang="zh-CN", phone="+8613800138000", phone_verified=True)
    async with line_of(replica, token) as line:
        await say(line, type="message", message_id="m-1", text="充值没到账")
        assert await heard(line) == {"type": "accepted", "message_id": "m-1"}
        await say(line, message_id="m-1", text="充值没到账")  # sent again: harmless
        assert await heard(line) == {"type": "accepted", "message_id": "m-1"}
        await say(line, message_id="m-2", text="密码是 hunter22，谢谢", in_reply_to="m-1")
        assert await heard(line) == {"type": "accepted", "message_id": "m-2"}
    items = await history(replica, token)
    assert [item["id"] for item in items] == ["m-1", "m-2"]
    assert items[0]["text"] == "充值没到账"
    assert "hunter22" not in items[1]["text"]
    async with replica.database.transaction() as connection:
        rows = await connection.execute(
            text("SELECT message_id FROM intake.messages WHERE message_id LIKE :mine"), {"mine": f"{customer}/%"}
        )
        assert sorted(rows.scalars()) == [f"{customer}/m-1", f"{customer}/m-2"]
    assert [message.customer.name for message in replica.accepted] == ["王小明"] * 3


async def test_one_customer_s_ids_are_not_another_s(replica: Replica) -> None:
    first, second = somebody(), somebody()
    async with line_of(replica, session_token(first)) as one, line_of(replica, session_token(second)) as other:
        for line, words in ((one, "mine"), (other, "mine too")):
            await say(line, message_id="m-1", text=words)
            assert (await heard(line))["type"] == "accepted"
        await say(other, message_id="m-2", edits="m-1", text="changed")
        assert (await heard(other))["type"] == "accepted"
    assert [item["text"] for item in await history(replica, session_token(first))] == ["mine"]


async def test_changes_show_in_the_history(replica: Replica) -> None:
    token = session_token(somebody())
    async with line_of(replica, token) as line:
        for frame in (
            {"message_id": "m-1", "text": "amount 50", "attachments": [{"name": "a.png"}]},
            {"message_id": "m-2", "text": "wrong chat"},
            {"message_id": "m-3", "text": "amount 500", "edits": "m-1"},
            {"message_id": "m-4", "deletes": "m-2"},
        ):
            await say(line, **frame)
            assert await heard(line) == {"type": "accepted", "message_id": frame["message_id"]}
    items = await history(replica, token)
    assert [(item["id"], item["text"], item["is_edited"], item["is_deleted"]) for item in items] == [
        ("m-1", "amount 500", True, False),
        ("m-2", "", False, True),
    ]
    assert items[0]["attachments"] == [{"name": "a.png"}]


async def test_a_reply_reaches_the_sockets_of_every_replica_and_waits_for_who_is_away(
    database: str, replica: Replica
) -> None:
    customer = somebody()
    token = session_token(customer)
    async with (
        running_replica(database) as other,
        line_of(replica, token) as here,
        line_of(other, token) as there,
        line_of(other, session_token(somebody())) as stranger,
    ):
        for sender, words in ((replica, "已为您查询"), (other, "已退款")):
            reply = reply_to(customer, words)
            sent = await sender.hub.deliver(BRAND, reply)
            assert sent.message_ids == (f"{customer}/{reply.notification_id}",)
            await sender.hub.deliver(BRAND, reply)  # the notifier's second try
            for line in (here, there):
                frame = await heard(line)
                assert (frame["type"], frame["id"], frame["text"]) == ("reply", str(reply.notification_id), words)
        for line in (here, there, stranger):  # nothing came twice, nor to anybody else
            await say(line, type="ping")
            assert await heard(line) == {"type": "pong"}
    items = await history(replica, token)
    assert [(item["sender"], item["text"]) for item in items] == [("brand", "已为您查询"), ("brand", "已退款")]
    later = reply_to(customer, "还需要帮助吗？", is_acknowledgement=True)
    await replica.hub.deliver(BRAND, later)
    newer = await history(replica, token, since=items[-1]["id"])
    assert newer[-1]["id"] == str(later.notification_id)
    assert newer[-1]["is_acknowledgement"] is True
    assert items[-1]["id"] not in [item["id"] for item in newer]


async def test_replies_of_an_outage_are_looked_up(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection that listens is cut by the server: the hub says so, and starts again with a `refresh`."""
    customer = somebody()
    async with running_replica(database) as replica, line_of(replica, session_token(customer)) as line:
        hub = chat.ChatHub(replica.database)
        with hub.opened(BRAND, customer) as inbox:
            listening = asyncio.create_task(hub.run())
            assert (await asyncio.wait_for(inbox.frames.get(), WAIT_SECONDS))["type"] == "refresh"
            async with replica.database.transaction() as connection:
                await connection.execute(
                    text(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
                        "AND query LIKE 'LISTEN%' AND pid <> pg_backend_pid() "
                        "AND backend_start = (SELECT max(backend_start) FROM pg_stat_activity "
                        "WHERE datname = current_database() AND query LIKE 'LISTEN%')"
                    )
                )
            with pytest.raises((ConnectionError, OSError)):
                await asyncio.wait_for(listening, WAIT_SECONDS)
        await say(line, type="ping")
        assert await heard(line) == {"type": "pong"}


async def test_what_is_refused_is_told_and_kept_by_the_client(replica: Replica) -> None:
    async with line_of(replica, session_token(somebody())) as line:
        replica.refusing = unavailable("Kafka does not answer; nothing was stored, send it again")
        await say(line, message_id="m-1", text="在吗")
        error = await heard(line)
        assert (error["type"], error["message_id"], error["status"]) == ("error", "m-1", 503)
        assert error["retry_after"] > 0
        replica.refusing = None
        await say(line, message_id="m-1", text="在吗")
        assert await heard(line) == {"type": "accepted", "message_id": "m-1"}
        for frame, names in (
            ({"message_id": "m-2", "text": "  "}, "text"),
            ({"message_id": "a/b", "text": "x"}, "message_id"),
            ({"type": "shout", "message_id": "m-3"}, "type"),
            ({"message_id": "m-4", "text": "x", "sent_at": "yesterday"}, "sent_at"),
        ):
            await say(line, **frame)
            error = await heard(line)
            assert (error["type"], error["status"]) == ("error", 422)
            assert names in error["detail"]
        await line.send("[]")
        assert (await heard(line))["status"] == 400


async def test_a_customer_who_is_too_fast_is_asked_to_wait(database: str) -> None:
    async with (
        running_replica(database, sender_burst=2) as replica,
        line_of(replica, session_token(somebody())) as line,
    ):
        for number in range(2):
            await say(line, message_id=f"m-{number}", text="x")
            assert (await heard(line))["type"] == "accepted"
        await say(line, message_id="m-2", text="x")
        error = await heard(line)
        assert (error["message_id"], error["status"]) == ("m-2", 429)
        assert error["retry_after"] > 0


@pytest.mark.parametrize(
    "first",
    [
        {"type": "hello", "token": "no token"},
        {"type": "hello", "token": session_token("c", secret="another-secret-of-another-brand-entirely")},
        {"type": "hello", "token": session_token("c", seconds=-1)},
        {"type": "message", "message_id": "m", "text": "without a hello"},
        {"type": "hello"},
    ],
)
async def test_without_a_token_the_line_is_closed(replica: Replica, first: dict[str, Any]) -> None:
    async with connect(replica.socket_url) as line:
        await say(line, **first)
        assert await closed_with(line) == 4401
    assert replica.accepted == []


async def test_an_open_line_ends_with_its_token(replica: Replica) -> None:
    async with line_of(replica, session_token(somebody(), seconds=2)) as line:
        assert await closed_with(line) == 4401


async def test_silence_and_frames_without_end_close_the_line(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    async with line_of(replica, session_token(somebody())) as line:
        await say(line, message_id="m", text="x" * FRAME_MOST_BYTES)
        assert await closed_with(line) == 1009
    monkeypatch.setattr(chat, "_IDLE_SECONDS", 0.2)
    async with line_of(replica, session_token(somebody())) as line:
        assert await closed_with(line) == 4408
    monkeypatch.setattr(chat, "_HELLO_SECONDS", 0.2)
    async with connect(replica.socket_url) as line:
        assert await closed_with(line) == 4408


@pytest.mark.parametrize(
    ("origin", "is_let_in"),
    [
        (None, True),
        (Origin("https://shop.example"), True),
        (Origin("https://evil.example"), False),
        (Origin("null"), False),
    ],
)
async def test_only_sites_that_may_embed_the_chat_connect(
    replica: Replica, origin: Origin | None, *, is_let_in: bool
) -> None:
    token = session_token(somebody())
    if is_let_in:
        async with line_of(replica, token, origin=origin):
            return
    with pytest.raises(InvalidStatus) as refused:
        await connect(replica.socket_url, origin=origin)
    assert refused.value.response.status_code == 403


async def test_our_own_page_connects(replica: Replica) -> None:
    origin = Origin(replica.url.partition("/v1")[0])
    async with line_of(replica, session_token(somebody()), origin=origin):
        pass


async def test_a_customer_has_ten_lines_at_most(replica: Replica) -> None:
    customer = somebody()
    lines = []
    try:
        for _ in range(10):
            line = await connect(replica.socket_url)
            lines.append(line)
            await say(line, type="hello", token=session_token(customer))
            assert (await heard(line))["type"] == "welcome"
        async with connect(replica.socket_url) as eleventh:
            await say(eleventh, type="hello", token=session_token(customer))
            assert await closed_with(eleventh) == 1013
    finally:
        for line in lines:
            await line.close()


async def test_a_visitor_gets_a_token_and_is_nobody_s_customer(database: str) -> None:
    async with running_replica(database, visitors=True, visitor_burst=2) as replica, httpx.AsyncClient() as client:
        answer = await client.post(f"{replica.url}/visitors", params={"lang": "zh-CN"})
        assert answer.status_code == 201
        visitor = answer.json()
        assert visitor["customer_id"].startswith("visitor-")
        async with line_of(replica, visitor["token"]) as line:
            await say(line, message_id="m-1", text="你好")
            assert (await heard(line))["type"] == "accepted"
        message = replica.accepted[0]
        assert (message.customer.id, message.verified) == (visitor["customer_id"], ())
        assert message.customer.language == "zh"
        statuses = [(await client.post(f"{replica.url}/visitors")).status_code for _ in range(2)]
        assert statuses == [429, 429] or statuses == [201, 429]


async def test_without_visitors_there_is_no_token(database: str) -> None:
    outsider = AppChat(BRAND, AppChatConfig.model_validate({"token_secret": SECRET, "visitors": True}))
    token, _ = outsider.visitor_token("x", None, datetime.now(UTC))
    async with running_replica(database) as replica, httpx.AsyncClient() as client:
        assert (await client.post(f"{replica.url}/visitors")).status_code == 404
        answer = await client.get(f"{replica.url}/history", headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 401


async def test_over_http_the_same_message_is_the_same(replica: Replica) -> None:
    customer = somebody()
    headers = {"Authorization": f"Bearer {session_token(customer)}"}
    async with httpx.AsyncClient() as client:
        for _ in range(2):
            answer = await client.post(replica.url, json={"message_id": "m-1", "text": "hello"}, headers=headers)
            assert (answer.status_code, answer.json()) == (200, {"type": "accepted", "message_id": "m-1"})
        assert (await client.post(replica.url, json={"message_id": "m-1", "text": "x"})).status_code == 401
    assert [item["text"] for item in await history(replica, session_token(customer))] == ["hello"]


async def test_the_page_says_who_may_frame_it(replica: Replica) -> None:
    async with httpx.AsyncClient() as client:
        page = await client.get(f"{replica.url}/widget", headers={"Host": "chat.example"})
        policy = page.headers["content-security-policy"]
        assert "frame-ancestors 'self' https://shop.example" in policy
        assert "connect-src 'self' ws://chat.example wss://chat.example" in policy
        assert "unsafe" not in policy
        broken = await client.get(f"{replica.url}/widget", headers={"Host": "a;script-src *"})
        assert broken.status_code == 400 or "script-src *" not in broken.headers["content-security-policy"]
        for name in ("chat.css", "chat.js", "widget.js"):
            assert (await client.get(f"{replica.url}/{name}")).status_code == 200
        elsewhere = replica.url.replace(BRAND, "another")
        assert (await client.get(f"{elsewhere}/widget")).status_code == 404


async def test_old_replies_are_purged(replica: Replica) -> None:
    customer = somebody()
    token = session_token(customer)
    now = datetime.now(UTC)
    async with replica.database.transaction() as connection:
        for days in (29, 31):
            reply = reply_to(customer, f"{days} days old")
            await chat_storage.add_reply(connection, BRAND, reply, now - timedelta(days=days))
    await replica.hub.purge()
    assert [item["text"] for item in await history(replica, token)] == ["29 days old"]


async def test_a_line_that_is_gone_is_forgotten(replica: Replica) -> None:
    async with line_of(replica, session_token(somebody())):
        assert len(replica.hub._open) == 1

    async def forgotten() -> bool:
        return not replica.hub._open

    await eventually(forgotten)
