"""Intake's chat and web form on a port, without the rest of the service: real PostgreSQL and sockets, no Kafka."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import uvicorn
from fastapi import FastAPI

from deploy.processes import HOST, free_port
from services.intake.acceptance import Acceptance
from services.intake.brands import Adapters
from services.intake.channels.app_chat import AppChat, AppChatConfig
from services.intake.channels.base import Reply
from services.intake.channels.web_form import WebForm, WebFormConfig
from services.intake.chat import ChatHub, build_chat_router
from services.intake.domain import Windows
from services.intake.gateway import Intake, build_gateway_router
from services.intake.pressure import Pressure
from services.intake.settings import Settings
from shared.database import Database
from shared.events import ChannelMessage
from shared.http import Problem, RateLimiter, SecurityHeaders, install_problem_handlers
from shared.outbox import Outbox
from shared.taxonomy import Channel, Language

BRAND = "upay"
SECRET = "made-up-secret-of-the-brand-s-back-end"


def session_token(customer_id: str, *, seconds: float = 3600, secret: str = SECRET, **claims: Any) -> str:
    expires = datetime.now(UTC) + timedelta(seconds=seconds)
    return jwt.encode({"sub": customer_id, "aud": BRAND, "exp": expires, **claims}, secret, algorithm="HS256")


def reply_to(customer_id: str, text: str, **changes: Any) -> Reply:
    return Reply(
        **{
            "notification_id": uuid.uuid4(),
            "ticket_id": None,
            "customer_id": customer_id,
            "reply_to": customer_id,
            "text": text,
            "language": Language.ZH,
            "is_acknowledgement": False,
            "at": datetime.now(UTC),
            **changes,
        }
    )


@dataclass
class Replica:
    """One process of intake, as far as the chat is concerned. Its HTTP server can be stopped and started."""

    app: FastAPI
    hub: ChatHub
    database: Database
    port: int = field(default_factory=free_port)
    refusing: Problem | None = None
    """What every message is answered with."""
    accepted: list[ChannelMessage] = field(default_factory=list)
    _server: uvicorn.Server | None = None
    _serving: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}/v1/channels/app_chat/{BRAND}"

    @property
    def form_url(self) -> str:
        return self.url.replace("app_chat", "web_form")

    @property
    def socket_url(self) -> str:
        return f"{self.url.replace('http', 'ws', 1)}/socket"

    async def start(self) -> None:
        config = uvicorn.Config(
            self.app,
            host=HOST,
            port=self.port,
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._serving = asyncio.create_task(self._server._serve())  # not `serve`: that takes Ctrl-C for itself
        while not self._server.started:  # noqa: ASYNC110 - uvicorn offers a flag, no event
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        assert self._server is not None
        assert self._serving is not None
        self._server.should_exit = True
        await self._serving


@asynccontextmanager
async def running_replica(
    database_url: str, *, sender_burst: float = 1000, visitor_burst: float = 1000, **config: Any
) -> AsyncIterator[Replica]:
    """`config`: of the adapter."""
    settings = Settings(database_url=database_url)
    database = Database(settings, service="test")

    async def ping(_: float) -> bool:
        return True

    intake = Intake(
        Acceptance(database, Windows(timedelta(hours=24), timedelta(hours=72)), Outbox("intake")),
        Pressure(ping, database, accept_in_outage_seconds=0, outbox_most=1000),
        RateLimiter(0.01, sender_burst),
        None,
    )
    adapter = AppChat(BRAND, AppChatConfig.model_validate({"token_secret": SECRET, **config}))
    form = WebForm(
        BRAND,
        WebFormConfig.model_validate(
            {"secret": SECRET, "public": True, "allowed_origins": config.get("allowed_origins", [])}
        ),
    )
    app = FastAPI()
    hub = ChatHub(database)
    replica = Replica(app, hub, database)

    async def accept(brand: str, channel: Channel, messages: Sequence[ChannelMessage], ignored: Sequence[str]) -> None:
        if replica.refusing is not None:
            raise replica.refusing
        await intake.accept(brand, channel, messages, ignored)
        replica.accepted.extend(messages)

    install_problem_handlers(app)
    app.add_middleware(SecurityHeaders, service="test")
    app.include_router(build_chat_router({BRAND: adapter}, hub, accept, RateLimiter(0.01, visitor_burst)))
    gateway = build_gateway_router(
        intake,
        Adapters({(BRAND, Channel.APP_CHAT): adapter, (BRAND, Channel.WEB_FORM): form}, {}),
        RateLimiter(100, 1000),
        RateLimiter(100, 1000),
        None,
    )
    app.include_router(gateway)
    with hub.opened(BRAND, "nobody") as inbox:
        listening = asyncio.create_task(hub.run())
        await inbox.frames.get()  # it listens, and says so to all who are there
    try:
        await replica.start()
        yield replica
        if listening.done():
            listening.result()
    finally:
        await replica.stop()
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        await database.close()
