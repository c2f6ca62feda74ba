"""X as a test needs it: it signs what it sends, and checks what its API is asked."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
import unicodedata
from dataclasses import dataclass, field
from urllib.parse import unquote

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from services.intake.channels import oauth1

ACCOUNT = "1716450569358098432"
CONFIG = {
    "account_id": ACCOUNT,
    "consumer_key": "made-up-consumer-key",
    "consumer_secret": "made-up-consumer-secret",
    "access_token": "made-up-token",
    "access_token_secret": "made-up-token-secret",
}
CUSTOMER = "830145267"


def signed(body: bytes) -> dict[str, str]:
    """The headers of a webhook."""
    digest = hmac.new(CONFIG["consumer_secret"].encode(), body, hashlib.sha256).digest()
    return {"x-twitter-webhooks-signature": "sha256=" + base64.b64encode(digest).decode()}


@dataclass
class Failure:
    """What the API answers in place of taking it."""

    status: int
    body: object
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class XApi:
    """Direct messages and posts. What it took is in `messages` (to whom, text) and `posts` (in answer to which, text);
    ids are counted up. `failures` are what it answers next; None lets one through.
    """

    app: FastAPI = field(default_factory=FastAPI)
    messages: list[tuple[str, str]] = field(default_factory=list)
    posts: list[tuple[str, str]] = field(default_factory=list)
    failures: list[Failure | None] = field(default_factory=list)
    nonces: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.app.post("/2/dm_conversations/with/{participant}/messages")(self._message)
        self.app.post("/2/tweets")(self._post)

    async def _message(self, request: Request, participant: str) -> JSONResponse:
        if refusal := self._refusal(request):
            return refusal
        text = json.loads(await request.body())["text"]
        if not 0 < len(text) <= 10_000:
            return _problem(400, "invalid-request")
        self.messages.append((participant, text))
        data = {"dm_conversation_id": f"{participant}-{ACCOUNT}", "dm_event_id": str(7000 + len(self.messages))}
        return JSONResponse({"data": data}, 201)

    async def _post(self, request: Request) -> JSONResponse:
        if refusal := self._refusal(request):
            return refusal
        asked = json.loads(await request.body())
        # Without addresses in the text, its length is plain: what is wide counts as two.
        length = sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in asked["text"])
        if not 0 < length <= 280:
            return _problem(400, "invalid-request")
        if any(text == asked["text"] for _, text in self.posts):
            return JSONResponse({"detail": "duplicate content", "type": "about:blank", "status": 403}, 403)
        self.posts.append((asked["reply"]["in_reply_to_tweet_id"], asked["text"]))
        return JSONResponse({"data": {"id": str(9000 + len(self.posts)), "text": asked["text"]}}, 201)

    def _refusal(self, request: Request) -> JSONResponse | None:
        if not self._is_authorized(request):
            return _problem(401, "unauthorized")
        failure = self.failures.pop(0) if self.failures else None
        return JSONResponse(failure.body, failure.status, failure.headers) if failure else None

    def _is_authorized(self, request: Request) -> bool:
        kind, _, rest = request.headers.get("authorization", "").partition(" ")
        if kind == "Bearer":
            return rest == CONFIG["access_token"]
        if kind != "OAuth":
            return False
        pairs = (part.split("=", 1) for part in rest.split(", "))
        fields = {unquote(name): unquote(value.strip('"')) for name, value in pairs}
        given = fields.pop("oauth_signature")
        expected = oauth1.signature(
            "POST",
            str(request.url),
            fields.items(),
            CONFIG["consumer_secret"],
            CONFIG["access_token_secret"],
        )
        is_new = fields["oauth_nonce"] not in self.nonces
        self.nonces.add(fields["oauth_nonce"])
        return (
            given == expected
            and is_new
            and fields["oauth_consumer_key"] == CONFIG["consumer_key"]
            and fields["oauth_token"] == CONFIG["access_token"]
            and abs(int(fields["oauth_timestamp"]) - time.time()) < 300
        )


def _problem(status: int, kind: str) -> JSONResponse:
    return JSONResponse({"title": kind, "type": f"https://api.x.com/2/problems/{kind}", "status": status}, status)
