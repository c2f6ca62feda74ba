"""App chat, live: the widget's page, its WebSocket, what a customer finds when he comes back, and replies to him.

A message is answered with `accepted` once it is stored; a client keeps and sends again what was not, and ids make that
harmless. A reply is delivered when it is stored: those who are there see it at once, on whichever replica they are, all
others when they come back.
"""

from __future__ import annotations

import asyncio
import html
import json
import logging
import secrets
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Request, Response, WebSocket, WebSocketDisconnect
from fastapi import Path as InPath
from pydantic import BaseModel
from starlette.requests import HTTPConnection

from services.intake import chat_storage
from services.intake.channels.app_chat import FRAME_MOST_BYTES, AppChat, Session, own_id
from services.intake.channels.base import Refused, Reply, Sent, json_object
from services.intake.channels.embedding import framed_policy, host_of, may_connect
from services.intake.chat_storage import StoredReply
from services.intake.domain import conversation_id_of
from services.intake.gateway import Accept
from shared import metrics
from shared.database import Database, hear
from shared.delivery import is_passing
from shared.events import TicketMessage
from shared.http import Problem, RateLimiter, bearer_token, unavailable
from shared.taxonomy import Channel

logger = logging.getLogger(__name__)

KEEP_REPLIES: Final = timedelta(days=30)
_HISTORY_MOST: Final = 100
_HISTORY_OVERLAP: Final = timedelta(seconds=30)
"""Two transactions may be committed in another order than their times say."""
_HELLO_SECONDS: Final = 10.0
_IDLE_SECONDS: Final = 90.0
_SEND_SECONDS: Final = 20.0
_STILL_LISTENING_SECONDS: Final = 20.0
_MOST_WAITING: Final = 100
_MOST_PER_CUSTOMER: Final = 10
_FRAMES_PER_SECOND: Final = 5.0
_FRAMES_BURST: Final = 50.0

_WRONG_TOKEN: Final = 4401
_SILENT: Final = 4408
_TOO_BIG: Final = 1009
_NOT_NOW: Final = 1013

_STATIC: Final = Path(__file__).parent / "static"
_REFRESH: Final[Mapping[str, Any]] = {"type": "refresh"}

Frame = Mapping[str, Any]
Brand = Annotated[str, InPath(pattern=r"^[a-z][a-z0-9_]{0,39}$")]


class FileSent(BaseModel):
    """A file that the customer sent, as far as he is shown it."""

    name: str


class Item(BaseModel):
    """One entry of a chat, as its customer sees it: secrets that he wrote are cut."""

    id: str
    sender: Literal["customer", "brand"]
    text: str
    at: datetime
    attachments: list[FileSent] = []
    is_edited: bool = False
    is_deleted: bool = False
    is_acknowledgement: bool = False


class History(BaseModel):
    """Oldest first."""

    items: list[Item]


class Visitor(BaseModel):
    """A token for somebody without a login, and until when he is known by it."""

    token: str
    customer_id: str
    expires_at: datetime


def history_of(customer_id: str, messages: Iterable[TicketMessage], replies: Iterable[StoredReply]) -> list[Item]:
    """The chat as it is now: changed messages with their last words. Oldest first.

    What stands for a flood is left out: the customer has written its messages one by one.
    """
    items: dict[str, Item] = {}
    for message in sorted(messages, key=lambda message: (message.accepted_at, message.sequence)):
        changed = items.get(message.changes or "")
        if changed is not None:
            changed.text = message.text
            changed.is_edited, changed.is_deleted = message.edits is not None, message.deletes is not None
            changed.attachments = [] if changed.is_deleted else changed.attachments
        elif message.changes is None and not message.folded:
            items[message.message_id] = Item(
                id=message.message_id.removeprefix(own_id(customer_id, "")),
                sender="customer",
                text=message.text,
                at=message.accepted_at,
                attachments=[FileSent(name=attachment.name) for attachment in message.attachments],
                is_deleted=not (message.text or message.attachments),  # taken back before it was told to anybody
            )
    said = [
        Item(
            id=str(reply.notification_id),
            sender="brand",
            text=reply.text,
            at=reply.at,
            is_acknowledgement=reply.is_acknowledgement,
        )
        for reply in replies
    ]
    return sorted((*items.values(), *said), key=lambda item: item.at)


def after(items: Sequence[Item], since: str | None) -> Sequence[Item]:
    """What came after the entry `since`, and what may have; all, where there is no such entry."""
    known = next((item.at for item in items if item.id == since), None)
    if known is None:
        return items
    return [item for item in items if item.id != since and item.at >= known - _HISTORY_OVERLAP]


@dataclass(eq=False, slots=True)
class Inbox:
    """What is still to be sent to one open socket."""

    frames: asyncio.Queue[Frame] = field(default_factory=lambda: asyncio.Queue(_MOST_WAITING))

    def push(self, frame: Frame) -> None:
        """For a client that does not keep up, all that waits becomes one word: look it up."""
        try:
            self.frames.put_nowait(frame)
        except asyncio.QueueFull:
            waiting = [*(self.frames.get_nowait() for _ in range(self.frames.qsize())), frame]
            # What a client waits for, it does not find in its history.
            answers = [item for item in waiting if item["type"] not in ("reply", "refresh")]
            for kept in (*answers[: _MOST_WAITING - 1], _REFRESH):
                self.frames.put_nowait(kept)


class ChatHub:
    """Brings replies to their customers. One per process; `run` in the background, `purge` now and then."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._open: defaultdict[tuple[str, str], set[Inbox]] = defaultdict(set)
        self._heard: asyncio.Queue[str | None] = asyncio.Queue()

    async def deliver(self, brand: str, reply: Reply) -> Sent:
        """Store a reply; again does nothing. Raises what a failing database raises."""
        async with self._database.transaction() as connection:
            await chat_storage.add_reply(connection, brand, reply, datetime.now(UTC))
        return Sent((own_id(reply.customer_id, str(reply.notification_id)),))

    @contextmanager
    def opened(self, brand: str, customer_id: str) -> Iterator[Inbox]:
        """Replies to this customer come into the inbox from now on. Raises a 429 Problem: he has too many open."""
        key = brand, customer_id
        if len(self._open.get(key, ())) >= _MOST_PER_CUSTOMER:
            raise Problem(HTTPStatus.TOO_MANY_REQUESTS, "Too Many Requests", "this chat is open too often; close some")
        inbox = Inbox()
        self._open[key].add(inbox)
        try:
            yield inbox
        finally:
            self._open[key].discard(inbox)
            if not self._open[key]:
                del self._open[key]

    async def run(self) -> None:
        """Push what is stored, by this or another replica, to the sockets that are open here. Until cancelled; raises
        when the database fails: `shared.service` starts it again.
        """
        self._heard = asyncio.Queue()
        connection = await hear(self._database, chat_storage.REPLIES_CHANNEL, self._hear)
        connection.add_termination_listener(lambda _: self._heard.put_nowait(None))
        try:
            for inboxes in self._open.values():  # whatever was stored while nobody listened
                for inbox in inboxes:
                    inbox.push(_REFRESH)
            while True:
                try:
                    async with asyncio.timeout(_STILL_LISTENING_SECONDS):
                        payload = await self._heard.get()
                except TimeoutError:
                    await connection.execute("SELECT 1", timeout=_STILL_LISTENING_SECONDS)
                    continue
                if payload is None:
                    raise ConnectionError("the connection that listens for replies was closed")
                await self._push(payload)
        finally:
            await connection.close(timeout=1)

    async def purge(self) -> None:
        """Delete replies that are older than `KEEP_REPLIES`."""
        async with self._database.transaction() as connection:
            await chat_storage.purge(connection, datetime.now(UTC) - KEEP_REPLIES)

    async def history(self, adapter: AppChat, session: Session) -> list[Item]:
        """The latest entries of the customer's chat, oldest first."""
        now = datetime.now(UTC)
        customer = session.customer
        conversation_id = conversation_id_of(adapter.message(message_id="any", customer=customer, sent_at=now))
        async with self._database.transaction() as connection:
            replies = await chat_storage.latest_replies(connection, adapter.brand, customer.id, _HISTORY_MOST)
            messages = await chat_storage.latest_messages(
                connection, conversation_id, now - KEEP_REPLIES, 2 * _HISTORY_MOST
            )
        return history_of(customer.id, messages, replies)[-_HISTORY_MOST:]

    def _hear(self, payload: str) -> None:
        if _addressee(payload) in self._open:
            self._heard.put_nowait(payload)

    async def _push(self, payload: str) -> None:
        async with self._database.transaction() as connection:
            reply = await chat_storage.reply_of(connection, uuid.UUID(json.loads(payload)["id"]))
        if reply is None:
            return
        frame = {
            "type": "reply",
            "id": str(reply.notification_id),
            "text": reply.text,
            "at": reply.at.isoformat(),
            "is_acknowledgement": reply.is_acknowledgement,
        }
        for inbox in self._open.get(_addressee(payload), ()):
            inbox.push(frame)


def _addressee(payload: str) -> tuple[str, str]:
    content = json.loads(payload)
    return content["brand"], content["customer_id"]


@dataclass(slots=True)
class Line:
    """One open WebSocket, from its hello to its end."""

    websocket: WebSocket
    adapter: AppChat
    hub: ChatHub
    accept: Accept
    limiter: RateLimiter

    async def run(self) -> None:
        try:
            async with asyncio.timeout(_HELLO_SECONDS):
                session = await self._hello()
        except TimeoutError:
            await self._close(_SILENT, "no hello")
            return
        except Refused as refused:
            metrics.MESSAGES_REJECTED.labels(self.adapter.provider, refused.reason).inc()
            await self._close(_WRONG_TOKEN, refused.detail)
            return
        try:
            with self.hub.opened(self.adapter.brand, session.customer.id) as inbox:
                inbox.push(
                    {
                        "type": "welcome",
                        "customer_id": session.customer.id,
                        "is_visitor": session.is_visitor,
                        "expires_at": session.expires_at.isoformat(),
                    }
                )
                writing = asyncio.create_task(self._write(inbox))
                try:
                    await self._read(session, inbox)
                finally:
                    writing.cancel()
                    await asyncio.gather(writing, return_exceptions=True)
        except Problem as problem:
            await self._close(_NOT_NOW, problem.detail)

    async def _hello(self) -> Session:
        content = json_object(await self._frame())
        token = content.get("token")
        if content.get("type") != "hello" or not isinstance(token, str):
            raise Refused(400, "malformed", 'the first frame must be {"type": "hello", "token": ...}')
        return self.adapter.session(token, datetime.now(UTC))

    async def _read(self, session: Session, inbox: Inbox) -> None:
        """Until the client goes, falls silent or sends too much, or its token expires."""
        while (left := (session.expires_at - datetime.now(UTC)).total_seconds()) > 0:
            try:
                async with asyncio.timeout(min(left, _IDLE_SECONDS)):
                    frame = await self._frame()
            except TimeoutError:
                if left > _IDLE_SECONDS:
                    await self._close(_SILENT, "nothing was sent, not even a ping")
                    return
                continue
            inbox.push(await self._answer(frame, session))
        await self._close(_WRONG_TOKEN, "the token has expired; get a new one")

    async def _frame(self) -> bytes:
        message = await self.websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        frame: bytes = message.get("bytes") or (message.get("text") or "").encode("utf-8", "replace")
        if len(frame) > FRAME_MOST_BYTES:
            await self._close(_TOO_BIG, f"a frame may have {FRAME_MOST_BYTES} bytes at most")
            raise WebSocketDisconnect(_TOO_BIG)
        return frame

    async def _answer(self, frame: bytes, session: Session) -> Frame:
        content: dict[str, Any] = {}
        try:
            self.limiter.check(f"{self.adapter.brand}/{session.customer.id}")
            content = json_object(frame)
            kind = content.get("type", "message")
            if kind == "ping":
                return {"type": "pong"}
            if kind != "message":
                raise Refused(422, "invalid", "type: is neither message nor ping")
            message = self.adapter.message_in(content, session, datetime.now(UTC))
            await self.accept(self.adapter.brand, Channel.APP_CHAT, (message,), ())
        except Refused as refused:
            metrics.MESSAGES_REJECTED.labels(self.adapter.provider, refused.reason).inc()
            return _error(content, problem_of(refused))
        except Problem as problem:
            return _error(content, problem)
        except Exception as error:
            if not is_passing(error):
                raise
            return _error(content, unavailable("the database does not answer; nothing was stored, send it again"))
        return {"type": "accepted", "message_id": content["message_id"]}

    async def _write(self, inbox: Inbox) -> None:
        """Until cancelled. A client that takes nothing for too long is cut off; it keeps what was not accepted."""
        try:
            while True:
                frame = await inbox.frames.get()
                async with asyncio.timeout(_SEND_SECONDS):
                    await self.websocket.send_text(json.dumps(frame, ensure_ascii=False))
        except TimeoutError:
            await self._close(_NOT_NOW, "too slow")
        except (WebSocketDisconnect, RuntimeError):
            return  # gone, or closed by us: the reader knows

    async def _close(self, code: int, reason: str) -> None:
        with suppress(WebSocketDisconnect, RuntimeError):  # it may be closed already
            await self.websocket.close(code, reason[:120])


def problem_of(refused: Refused) -> Problem:
    return Problem(refused.status, HTTPStatus(refused.status).phrase, refused.detail)


def _error(content: Frame, problem: Problem) -> Frame:
    message_id = content.get("message_id")
    retry_after = problem.headers.get("Retry-After")
    return {
        "type": "error",
        "message_id": message_id[:200] if isinstance(message_id, str) else None,
        "status": problem.status,
        "detail": problem.detail,
        **({"retry_after": int(retry_after)} if retry_after else {}),
    }


def client_of(connection: HTTPConnection) -> str:
    """The network address that asks, as uvicorn knows it (`--proxy-headers` behind a proxy)."""
    return connection.client.host if connection.client else ""


def build_chat_router(
    adapters: Mapping[str, AppChat],
    hub: ChatHub,
    accept: Accept,
    visitor_limiter: RateLimiter,
    *,
    client: Callable[[HTTPConnection], str] = client_of,
) -> APIRouter:
    """Routes of app chat beside the gateway's. `adapters`: by brand. `visitor_limiter`: new visitors and new sockets of
    one network address.
    """
    router = APIRouter(prefix="/v1/channels/app_chat/{brand}", tags=["app chat"])
    frame_limiter = RateLimiter(_FRAMES_PER_SECOND, _FRAMES_BURST)

    def adapter_of(brand: str) -> AppChat:
        adapter = adapters.get(brand)
        if adapter is None:
            raise Problem(404, "Not Found", "this brand has no app chat, or its settings are not complete")
        return adapter

    def authenticated(request: Request, adapter: AppChat) -> Session:
        try:
            session = adapter.session(bearer_token(request), datetime.now(UTC))
        except Refused as refused:
            metrics.MESSAGES_REJECTED.labels(adapter.provider, refused.reason).inc()
            raise problem_of(refused) from None
        frame_limiter.check(f"{adapter.brand}/{session.customer.id}")
        return session

    @router.get("/history", summary="A customer's messages and the replies to them", responses=_PROBLEMS)
    async def history(
        request: Request, brand: Brand, since: Annotated[str | None, Query(max_length=200)] = None
    ) -> History:
        adapter = adapter_of(brand)
        items = await hub.history(adapter, authenticated(request, adapter))
        return History(items=list(after(items, since)))

    @router.post("/visitors", status_code=201, summary="A token for somebody without a login", responses=_PROBLEMS)
    async def visitors(
        request: Request, brand: Brand, lang: Annotated[str | None, Query(pattern=r"^[A-Za-z0-9_-]{2,35}$")] = None
    ) -> Visitor:
        adapter = adapter_of(brand)
        if not adapter.config.visitors:
            raise Problem(404, "Not Found", "this brand's chat is for customers who have logged in")
        visitor_limiter.check(client(request))
        token, session = adapter.visitor_token(secrets.token_urlsafe(16), lang, datetime.now(UTC))
        return Visitor(token=token, customer_id=session.customer.id, expires_at=session.expires_at)

    @router.websocket("/socket")
    async def socket(websocket: WebSocket, brand: Brand) -> None:
        adapter = adapters.get(brand)
        headers = websocket.headers
        if adapter is None or not may_connect(
            headers.get("origin"), host_of(headers.get("host", "")), adapter.config.allowed_origins
        ):
            await websocket.close()  # before it is accepted: 403
            return
        try:
            visitor_limiter.check(client(websocket), _COST_OF_A_SOCKET)
        except Problem as problem:
            await websocket.send_denial_response(problem.response())
            return
        await websocket.accept()
        with suppress(WebSocketDisconnect):
            await Line(websocket, adapter, hub, accept, frame_limiter).run()

    @router.get("/widget", include_in_schema=False)
    async def widget(request: Request, brand: Brand) -> Response:
        adapter = adapter_of(brand)
        host = host_of(request.headers.get("host", ""))
        policy = framed_policy(
            adapter.config.allowed_origins,
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self'",
            # Safari before 15.4 does not count WebSockets as 'self'.
            f"connect-src 'self' ws://{host} wss://{host}" if host else "connect-src 'self'",
            "form-action 'none'",
        )
        return Response(_page(adapter), media_type="text/html", headers={"Content-Security-Policy": policy})

    for name, media_type, headers in _FILES:
        router.add_api_route(f"/{name}", _serving(name, media_type, headers), methods=["GET"], include_in_schema=False)
    return router


_PROBLEM: Final[dict[str, Any]] = {
    "description": "What is wrong, and what to do (RFC 9457)",
    "content": {"application/problem+json": {"schema": {"type": "object"}}},
}
_PROBLEMS: Final[dict[int | str, dict[str, Any]]] = dict.fromkeys((401, 404, 422, 429, 503), _PROBLEM)
_COST_OF_A_SOCKET: Final = 0.1
"""In new visitors: whoever is on a train comes back often, and behind one address there may be an office."""
_FILES: Final[Sequence[tuple[str, str, Mapping[str, str]]]] = (
    ("chat.css", "text/css", {}),
    ("chat.js", "text/javascript", {}),
    # On every page of a shop: worth keeping for a while.
    ("widget.js", "text/javascript", {"Cache-Control": "public, max-age=300"}),
)


def _page(adapter: AppChat) -> str:
    page = (_STATIC / "chat.html").read_text(encoding="utf-8")
    for language in ("zh", "en"):
        page = page.replace(f"{{{{title_{language}}}}}", html.escape(adapter.config.title.get(language, "")))
    return page


def _serving(name: str, media_type: str, headers: Mapping[str, str]) -> Callable[..., Any]:
    content = (_STATIC / name).read_bytes()

    async def serve(brand: Brand) -> Response:
        return Response(content, media_type=media_type, headers=dict(headers))

    return serve
