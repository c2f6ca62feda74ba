"""Messages of one made-up customer."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from services.intake.domain import Windows
from shared.events import ChannelMessage, Customer
from shared.taxonomy import Channel

T0 = datetime(2026, 3, 2, 9, tzinfo=UTC)
WINDOWS = Windows(follow_up=timedelta(hours=24), reopen=timedelta(hours=72))


def at(hours: float) -> datetime:
    return T0 + timedelta(hours=hours)


def message(message_id: str = "m-1", hours: float = 0, **fields: Any) -> ChannelMessage:
    given: dict[str, Any] = {
        "brand": "upay",
        "channel": Channel.APP_CHAT,
        "message_id": message_id,
        "customer": Customer(id="c-1"),
        "text": "充值没到账",
        "sent_at": at(hours),
    }
    return ChannelMessage(**(given | fields))
