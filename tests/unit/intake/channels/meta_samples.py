"""Messenger's and WhatsApp's adapters with the made-up configurations of tests/channels, and what Meta sends them."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from services.intake.calls import Caller
from services.intake.channels.base import Call, ChannelRequest, Reply
from services.intake.channels.messenger import Messenger, MessengerConfig
from services.intake.channels.whatsapp import WhatsApp, WhatsAppConfig
from shared.taxonomy import Language
from tests.channels import cases
from tests.support.providers.meta import GraphApi
from tests.support.server import serving

AT = datetime(2026, 11, 20, 4, 0, 3, tzinfo=UTC)
PAGE = "682498302938465"
NUMBER = "106540352242922"
PSID = "5012345678901234"
WA_ID = "8613800138000"


def messenger(**changes: Any) -> Messenger:
    return Messenger("upay", MessengerConfig.model_validate(cases.config("messenger") | changes))


def whatsapp(**changes: Any) -> WhatsApp:
    return WhatsApp("upay", WhatsAppConfig.model_validate(cases.config("whatsapp") | changes))


def adapter(provider: str, **changes: Any) -> Messenger | WhatsApp:
    return messenger(**changes) if provider == "messenger" else whatsapp(**changes)


def signed(provider: str, body: bytes, secret: str | None = None) -> ChannelRequest:
    key = cases.config(provider)["app_secret"] if secret is None else secret
    signature = hmac.new(key.encode(), body, hashlib.sha256).hexdigest()
    return ChannelRequest("POST", {}, {"x-hub-signature-256": f"sha256={signature}"}, body, AT)


def webhook(provider: str, *events: Any) -> bytes:
    """Events of the configured page, or messages to the configured number."""
    if provider == "messenger":
        entry: dict[str, Any] = {"id": PAGE, "time": 1795147200500, "messaging": list(events)}
        return json.dumps({"object": "page", "entry": [entry]}).encode()
    value = {"metadata": {"phone_number_id": NUMBER}, "contacts": [{"wa_id": WA_ID}], "messages": list(events)}
    entry = {"id": "1", "changes": [{"field": "messages", "value": value}]}
    return json.dumps({"object": "whatsapp_business_account", "entry": [entry]}).encode()


def text_event(provider: str, text: str, message_id: str = "wamid.1") -> dict[str, Any]:
    if provider == "messenger":
        message = {"mid": message_id, "text": text}
        return {"sender": {"id": PSID}, "recipient": {"id": PAGE}, "timestamp": 1795147200000, "message": message}
    return {"from": WA_ID, "id": message_id, "timestamp": "1795147200", "type": "text", "text": {"body": text}}


def reply(text: str = "We look into it.", **changes: Any) -> Reply:
    fields: dict[str, Any] = {
        "notification_id": UUID(int=1),
        "ticket_id": UUID(int=2),
        "customer_id": PSID,
        "reply_to": None,
        "text": text,
        "language": Language.EN,
        "is_acknowledgement": False,
        "at": AT,
    }
    return Reply(**(fields | changes))


@asynccontextmanager
async def graph_api(provider: str, **changes: Any) -> AsyncIterator[tuple[GraphApi, Messenger | WhatsApp, Call]]:
    """A Graph API that is served, the adapter that asks it, and the connection to ask it by."""
    config = cases.config(provider)
    graph = GraphApi(config["access_token"], config.get("page_id", ""), config.get("phone_number_id", ""))
    call = Caller(timeout_seconds=10)
    try:
        async with serving(graph.app) as url:
            yield graph, adapter(provider, api_url=url, **changes), call
    finally:
        await call.close()
