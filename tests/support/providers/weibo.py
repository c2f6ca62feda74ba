"""Weibo as a test needs it: it signs what it sends, and checks what its API is asked."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

APP_SECRET = "made-up-app-secret"
ACCESS_TOKEN = "made-up-access-token"
CONFIG = {"app_secret": APP_SECRET, "access_token": ACCESS_TOKEN}
CUSTOMER = "2489518277"


def query(timestamp: int, secret: str = APP_SECRET) -> dict[str, str]:
    """The signed query of an address."""
    written, nonce = str(timestamp), "213674821"
    signed = hashlib.sha1("".join(sorted((secret, written, nonce))).encode()).hexdigest()
    return {"signature": signed, "timestamp": written, "nonce": nonce}


@dataclass
class WeiboApi:
    """`messages/reply`. What it took is in `texts`; `answers` are what it answers next, in order, instead."""

    app: FastAPI = field(default_factory=FastAPI)
    texts: list[str] = field(default_factory=list)
    answers: list[Response] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.app.post("/2/messages/reply.json", response_model=None)(self._reply)

    async def _reply(self, request: Request) -> Response | dict[str, Any]:
        if self.answers:
            return self.answers.pop(0)
        form = await request.form()
        if request.headers["content-type"] != "application/x-www-form-urlencoded":
            return error(10007)
        if form.get("access_token") != ACCESS_TOKEN:
            return error(21332, status=401)
        if form.get("type") != "text" or form.get("save_sender_box") not in ("0", "1"):
            return error(10017)
        if form.get("receiver_id") != CUSTOMER:
            return error(20301)
        if "\\u" in str(form["data"]):  # JSON as in Weibo's example; whether it reads escapes is not documented
            return error(10017)
        text = json.loads(str(form["data"]))["text"]
        if not 0 < len(text) < 300:
            return error(10017)
        self.texts.append(text)
        return {"result": True, "receiver_id": int(CUSTOMER), "type": "text", "data": form["data"]}


def error(code: int, status: int = 400) -> JSONResponse:
    """As Weibo's list of error codes shows one: the code is a string there."""
    return JSONResponse({"request": "/2/messages/reply.json", "error_code": str(code), "error": "made up"}, status)
