"""A Graph API that checks what Meta's would check of a message, and keeps what it has taken."""

from __future__ import annotations

import itertools
import json
from typing import Any

from fastapi import FastAPI, Request, Response

VERSION = "v26.0"


class _Error(Exception):
    def __init__(self, status: int, code: int, subcode: int | None = None) -> None:
        self.status = status
        self.error = {"message": "secret words", "type": "OAuthException", "code": code, "fbtrace_id": "A1"}
        if subcode is not None:
            self.error["error_subcode"] = subcode


class GraphApi:
    """`fail_next` are answers to come instead of success: status, body, headers. `late` are customers whose 24 hours
    are over, `answered_comments` those that have had their private reply.
    """

    def __init__(self, token: str, page_id: str = "", phone_number_id: str = "") -> None:
        self.token = token
        self.page_id = page_id
        self.phone_number_id = phone_number_id
        self.taken: list[dict[str, Any]] = []
        self.asked = 0
        self.fail_next: list[tuple[int, Any, dict[str, str]]] = []
        self.late: set[str] = set()
        self.answered_comments: set[str] = set()
        self._numbers = itertools.count(1)
        self.app = FastAPI()
        self.app.add_api_route("/{version}/{sender}/messages", self._messages, methods=["POST"], response_model=None)

    def fail(self, status: int, code: int, subcode: int | None = None, headers: dict[str, str] | None = None) -> None:
        self.fail_next.append((status, {"error": _Error(status, code, subcode).error}, headers or {}))

    async def _messages(self, request: Request, version: str, sender: str) -> Response:
        self.asked += 1
        if self.fail_next:
            status, content, headers = self.fail_next.pop(0)
            return _answer(status, content, headers)
        try:
            if request.headers.get("authorization") != f"Bearer {self.token}":
                raise _Error(401, 190)
            if version != VERSION or sender not in (self.page_id, self.phone_number_id):
                raise _Error(400, 100, 33)
            body = await request.json()
            return _answer(200, self._on_page(body) if sender == self.page_id else self._on_whatsapp(body))
        except _Error as error:
            return _answer(error.status, {"error": error.error})

    def _on_page(self, body: Any) -> dict[str, Any]:
        match body:
            case {"recipient": {"id": str(person)}, "messaging_type": "RESPONSE", "message": {"text": str(text)}}:
                if person in self.late:
                    raise _Error(400, 10, 2018278)
            case {
                "recipient": {"id": str()},
                "messaging_type": "MESSAGE_TAG",
                "tag": "HUMAN_AGENT",
                "message": {"text": str(text)},
            }:
                pass
            case {"recipient": {"comment_id": str(comment)}, "message": {"text": str(text)}}:
                if comment in self.answered_comments:
                    raise _Error(400, 10900)
                self.answered_comments.add(comment)
            case _:
                raise _Error(400, 100)
        if not 0 < len(text) <= 2000 or len(body["recipient"]) != 1:
            raise _Error(400, 100)
        self.taken.append(body)
        return {"recipient_id": "1", "message_id": f"m_{next(self._numbers)}"}

    def _on_whatsapp(self, body: Any) -> dict[str, Any]:
        match body:
            case {
                "messaging_product": "whatsapp",
                "recipient_type": "individual",
                "type": "text",
                "text": {"body": str(text)},
            }:
                whom = [body[name] for name in ("to", "recipient") if name in body]
            case _:
                raise _Error(400, 100)
        is_number = len(whom) == 1 and isinstance(whom[0], str) and whom[0].isdecimal()
        if not 0 < len(text) <= 4096 or len(whom) != 1 or is_number != ("to" in body):
            raise _Error(400, 131009)
        if "context" in body and not body["context"]["message_id"].startswith("wamid."):
            raise _Error(400, 131009)
        if whom[0] in self.late:
            raise _Error(400, 131047)
        self.taken.append(body)
        return {
            "messaging_product": "whatsapp",
            "contacts": [{"input": whom[0]}],
            "messages": [{"id": f"wamid.{next(self._numbers)}"}],
        }


def _answer(status: int, content: Any, headers: dict[str, str] | None = None) -> Response:
    body = content if isinstance(content, str) else json.dumps(content)
    return Response(body, status, headers, "application/json")
