"""WeChat as a test needs it: it signs and encrypts what it sends, and checks what its API is asked."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from fastapi import FastAPI, Request
from fastapi.responses import Response

APP_ID = "wx1234567890abcdef"
TOKEN = "made-up-token"
APP_SECRET = "made-up-app-secret"
ENCODING_AES_KEY = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
CONFIG = {"app_id": APP_ID, "token": TOKEN, "app_secret": APP_SECRET, "encoding_aes_key": ENCODING_AES_KEY}
CUSTOMER = "o9AgO5Kd5ggOC-bXrbNODIiE3bGY"

_ESCAPED = re.compile(rb"(?<!\\)(?:\\\\)*\\u")
_KEY = base64.b64decode(ENCODING_AES_KEY + "=")


def signature(*parts: str) -> str:
    return hashlib.sha1("".join(sorted(parts)).encode()).hexdigest()


def query(timestamp: int, token: str = TOKEN, **more: str) -> dict[str, str]:
    """The signed query of an address."""
    seconds, nonce = str(timestamp), "486452656"
    return {"signature": signature(token, seconds, nonce), "timestamp": seconds, "nonce": nonce, **more}


def encrypted(content: bytes, timestamp: int, padding: bytes | None = None) -> tuple[dict[str, str], bytes]:
    """Query and body of a request in AES mode. `content`: all that is encrypted (see `framed`). Padded as documented
    unless `padding` is given.
    """
    missing = 32 - len(content) % 32
    encryptor = Cipher(AES(_KEY), CBC(_KEY[:16])).encryptor()
    padded = content + (bytes([missing]) * missing if padding is None else padding)
    sealed = base64.b64encode(encryptor.update(padded) + encryptor.finalize()).decode()
    return sealed_request(sealed, timestamp)


def sealed_request(sealed: str, timestamp: int) -> tuple[dict[str, str], bytes]:
    signed = query(timestamp, encrypt_type="aes")
    signed["msg_signature"] = signature(TOKEN, signed["timestamp"], signed["nonce"], sealed)
    return signed, f"<xml><ToUserName>gh_1</ToUserName><Encrypt><![CDATA[{sealed}]]></Encrypt></xml>".encode()


def framed(message: bytes, app_id: str = APP_ID) -> bytes:
    return b"0123456789abcdef" + len(message).to_bytes(4, "big") + message + app_id.encode()


@dataclass
class WeChatApi:
    """`custom/send` and `stable_token`. What it took is in `texts`; `codes` are what it answers next, in order: an
    error, or 0 to take the message.
    """

    app: FastAPI = field(default_factory=FastAPI)
    texts: list[str] = field(default_factory=list)
    answers: list[Response] = field(default_factory=list)
    """Given out, in order, instead of its own."""
    codes: list[int] = field(default_factory=list)
    tokens_asked: list[bool] = field(default_factory=list)
    """Whether each was forced."""
    token: str = "token-1"
    expires_in: int = 7200

    def __post_init__(self) -> None:
        self.app.post("/cgi-bin/stable_token", response_model=None)(self._stable_token)
        self.app.post("/cgi-bin/message/custom/send", response_model=None)(self._send)

    async def _stable_token(self, request: Request) -> Response | dict[str, Any]:
        if self.answers:
            return self.answers.pop(0)
        asked = json.loads(await request.body())
        if asked["grant_type"] != "client_credential":
            return _error(40002)
        if asked["appid"] != APP_ID:
            return _error(40013)
        if asked["secret"] != APP_SECRET:
            return _error(40125)
        self.tokens_asked.append(asked["force_refresh"])
        if asked["force_refresh"]:
            self.token += "-forced"
        return {"access_token": self.token, "expires_in": self.expires_in}

    async def _send(self, request: Request) -> Response | dict[str, Any]:
        if self.answers:
            return self.answers.pop(0)
        body = await request.body()
        if request.query_params["access_token"] != self.token:
            return _error(40001)
        if self.codes and (code := self.codes.pop(0)):
            return _error(code)
        if _ESCAPED.search(body):
            return _error(40033)
        asked = json.loads(body)
        if asked["msgtype"] != "text":
            return _error(40008)
        if asked["touser"] != CUSTOMER:
            return _error(40003)
        content = asked["text"]["content"]
        if not content:
            return _error(44004)
        if len(content.encode()) > 2048:
            return _error(45002)
        self.texts.append(content)
        return {"errcode": 0, "errmsg": "ok"}


def _error(code: int) -> dict[str, Any]:
    return {"errcode": code, "errmsg": "made up"}
