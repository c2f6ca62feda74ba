"""Where the demo's notifications arrive: a webhook receiver that checks signatures, and a mail server. Both count.

What is for uPay钱包's app chat is handed on to intake, so that who writes there by himself reads the answer there.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email import message_from_bytes, policy
from typing import Final

import httpx
import uvicorn
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from fastapi import FastAPI, Request, Response
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from deploy.demo.settings import Credentials
from deploy.processes import HOST, free_port

_FIRST_TRIES_REFUSED: Final = 3
"""So many webhooks are answered 503 at their first try: a newcomer sees that a receiver that fails loses nothing."""

_CHAT: Final = ("upay_wallet", "app_chat")


class Receivers:
    """What has arrived, by the sender's id of it: the same id twice is a doubled notification."""

    def __init__(self, credentials: Credentials) -> None:
        self.bodies: list[str] = []
        self.webhooks: Counter[str] = Counter()
        self.mails: Counter[str] = Counter()
        self.refused: set[str] = set()
        self.bad_signatures = 0
        self.intake_url: str | None = None
        self.port = free_port()
        self.mail_port = free_port()
        self._secrets = {"gateway": credentials.gateway_secret, "leads": credentials.leads_secret}

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def doubled(self) -> int:
        return sum(times - 1 for arrived in (self.webhooks, self.mails) for times in arrived.values())

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        mail = Controller(_Mailbox(self), hostname=HOST, port=self.mail_port)
        mail.start()
        config = uvicorn.Config(self._app(), host=HOST, port=self.port, log_config=None, access_log=False)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server._serve())  # not `serve`: that takes Ctrl-C for itself, which is the demo's
        try:
            while not server.started:  # noqa: ASYNC110 - uvicorn offers a flag, no event
                await asyncio.sleep(0.01)
            yield
        finally:
            server.should_exit = True
            await serving
            mail.stop()

    def _app(self) -> FastAPI:
        app = FastAPI(openapi_url=None)

        @app.post("/{receiver}/{brand}")
        @app.post("/{receiver}")
        async def receive(receiver: str, request: Request) -> Response:
            body = await request.body()
            try:
                Webhook(self._secrets[receiver]).verify(body, dict(request.headers))
            except (KeyError, WebhookVerificationError):
                self.bad_signatures += 1
                return Response(status_code=401)
            identity = request.headers["webhook-id"]
            if len(self.refused) < _FIRST_TRIES_REFUSED and identity not in self.refused:
                self.refused.add(identity)
                return Response(status_code=503)
            is_reply = receiver == "gateway" and self.intake_url and _is_for_the_chat(body)
            if is_reply and (refused := await self._handed_on(request, body)):
                return Response(status_code=refused)
            self.webhooks[identity] += 1
            self.bodies.append(body.decode())
            return Response(status_code=204)

        return app

    async def _handed_on(self, request: Request, body: bytes) -> int | None:
        """The status with which intake refused it, or None. When the demo ends, intake is gone before the notifier."""
        headers = {name: value for name, value in request.headers.items() if name.startswith("webhook-")}
        try:
            async with httpx.AsyncClient(timeout=10, trust_env=False) as intake:
                answer = await intake.post(f"{self.intake_url}/v1/replies/{_CHAT[0]}", content=body, headers=headers)
        except httpx.HTTPError:
            return httpx.codes.SERVICE_UNAVAILABLE
        return None if answer.is_success else answer.status_code


def _is_for_the_chat(body: bytes) -> bool:
    data = json.loads(body)["data"]
    return (data.get("brand"), data.get("channel")) == _CHAT


class _Mailbox:
    def __init__(self, receivers: Receivers) -> None:
        self._receivers = receivers

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's name
        mail = message_from_bytes(envelope.original_content or b"", policy=policy.default)
        self._receivers.mails[str(mail["Message-ID"])] += 1
        body = mail.get_body()
        self._receivers.bodies.append(f"{mail}\n{body.get_content() if body else ''}")
        return "250 accepted"
