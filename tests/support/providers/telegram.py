"""Telegram's Bot API as a test needs it: it checks what it is asked, and remembers what it took."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

BOT_TOKEN = "100200300:made-up-token-of-the-bot"
SECRET_TOKEN = "made-up-webhook-secret"
CONFIG = {"bot_token": BOT_TOKEN, "secret_token": SECRET_TOKEN}
CHAT = 830145267
CONNECTION = "vF1wLp2kAUkPEwAA_r9-x"


@dataclass
class TelegramApi:
    """`sendMessage`. What it took is in `taken`; its message ids are counted up from 501.

    `failures` are what it answers next (error code, description, parameters); None lets one through.
    """

    app: FastAPI = field(default_factory=FastAPI)
    taken: list[dict[str, Any]] = field(default_factory=list)
    failures: list[tuple[int, str, dict[str, int]] | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.app.post("/bot{token}/sendMessage")(self._send_message)

    async def _send_message(self, request: Request, token: str) -> JSONResponse:
        if token != BOT_TOKEN:
            return _error(401, "Unauthorized")
        failure = self.failures.pop(0) if self.failures else None
        if failure:
            return _error(*failure)
        asked = json.loads(await request.body())
        if asked["chat_id"] != CHAT:
            return _error(400, "Bad Request: chat not found")
        if not asked["text"]:
            return _error(400, "Bad Request: message text is empty")
        if len(asked["text"].encode("utf-16-le")) // 2 > 4096:
            return _error(400, "Bad Request: message is too long")
        if asked.get("business_connection_id", CONNECTION) != CONNECTION:
            return _error(400, "Bad Request: business connection not found")
        self.taken.append(asked)
        return JSONResponse({"ok": True, "result": {"message_id": 500 + len(self.taken), "chat": {"id": CHAT}}})


def _error(status: int, description: str, parameters: dict[str, int] | None = None) -> JSONResponse:
    content = {"ok": False, "error_code": status, "description": description}
    return JSONResponse(content | ({"parameters": parameters} if parameters else {}), status)
