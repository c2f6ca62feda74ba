"""A call centre as a test needs it: it signs what it sends, and checks what it is asked to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from fastapi import FastAPI, Request, Response
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

SECRET = "whsec_bWFkZS11cC1zZWNyZXQtb2YtdGhlLWNhbGwtY2VudHJl"
OUTGOING_SECRET = "whsec_bWFkZS11cC1zZWNyZXQtb2Ytb3VyLW93bi1zaWRl"


def signed(body: bytes, at: datetime, *, webhook_id: str = "msg_1", secret: str = SECRET) -> dict[str, str]:
    """The headers of a webhook. `at` is in UTC."""
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign(webhook_id, at, body.decode()),
    }


@dataclass
class CallCentre:
    """Takes `/callbacks` and `/sms`, in `callbacks` and `texts`, each request once by its `webhook-id`.

    `failures` are what it answers next: a status, headers.
    """

    app: FastAPI = field(default_factory=FastAPI)
    callbacks: list[dict[str, Any]] = field(default_factory=list)
    texts: list[dict[str, Any]] = field(default_factory=list)
    failures: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.app.post("/callbacks")(self._callback)
        self.app.post("/sms")(self._sms)

    async def _callback(self, request: Request) -> Response:
        return await self._take(request, "callback.requested", self.callbacks)

    async def _sms(self, request: Request) -> Response:
        return await self._take(request, "sms.requested", self.texts)

    async def _take(self, request: Request, kind: str, taken: list[dict[str, Any]]) -> Response:
        try:
            content = Webhook(OUTGOING_SECRET).verify(await request.body(), dict(request.headers))
        except WebhookVerificationError:
            return Response(status_code=401)
        if self.failures:
            status, headers = self.failures.pop(0)
            return Response(status_code=status, headers=headers)
        if content["type"] != kind or not request.headers["content-type"].startswith("application/json"):
            return Response(status_code=422)
        if request.headers["webhook-id"] not in self.ids:
            self.ids.append(request.headers["webhook-id"])
            taken.append(content)
        return Response(status_code=202)
