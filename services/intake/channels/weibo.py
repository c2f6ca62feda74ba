"""Weibo's fans service platform (微博粉丝服务平台): private messages as JSON; replies by its customer-service API.
docs/channels/weibo.md says what is documented by Weibo and what is a guess.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Final
from urllib.parse import urlencode

from pydantic import Field, SecretStr

from services.intake.channels.base import (
    Adapter,
    AdapterConfig,
    Answer,
    Call,
    ChannelRequest,
    NotSent,
    ProviderAnswer,
    ProviderRequest,
    Reply,
    Sent,
    json_object,
    need_method,
)
from services.intake.channels.fields import Malformed, cut, identifier, integer, mapping, text
from services.intake.channels.pieces import Progress, split
from services.intake.channels.sorted_sha1 import handshake, verify
from shared.taxonomy import Channel

MEDIA_URL: Final = "https://upload.api.weibo.com/2/mss/msget"

_EVENTS: Final = frozenset({"follow", "unfollow", "subscribe", "unsubscribe", "scan", "scan_follow", "click", "view"})
_MENTIONS: Final = frozenset({"mention", "mention_status", "mention_comment", "comment"})
"""A guess: Weibo pushes mentions to accounts that it has allowed to see them, and shows no example of one."""
_MEDIA: Final = {"image": ("image.jpg", "image/jpeg"), "voice": ("voice.amr", "audio/amr")}
_MESSAGES: Final = frozenset({"text", "position", "event", *_MEDIA, *_MENTIONS})

_FILE_ID_MOST_CHARACTERS: Final = 40

_REPLY_MOST_CHARACTERS: Final = 299
_REPLY_MOST_PIECES: Final = 20
"""Our own limit: a try must end within the time that intake gives it."""
_HOPELESS: Final = {
    10013: "the customer is not a user of Weibo",
    20003: "the customer is not a user of Weibo any more",
    20021: "Weibo does not let this text pass",
    20301: "the customer does not follow the account",
    20302: "Weibo does not let this message pass",
}
_TRY_AGAIN_SECONDS: Final = dict.fromkeys((10022, 10023, 10024, 20308), 600.0)
"""Limits: of the machine's address, of the account, of the application, of private messages."""

Secret = Annotated[SecretStr, Field(min_length=1)]


class WeiboConfig(AdapterConfig):
    """`app_secret` is the application's at open.weibo.com, `access_token` the account's on its fans service page.

    With `account_id` (the account's uid), messages to other accounts of the same application are left alone.
    """

    app_secret: Secret
    access_token: Secret
    account_id: Annotated[str, Field(pattern=r"^[0-9]{1,20}$")] | None = None
    api_url: str = "https://m.api.weibo.com"


class Weibo(Adapter[WeiboConfig]):
    provider: ClassVar = "weibo"
    channel: ClassVar = Channel.WEIBO
    config_type: ClassVar = WeiboConfig

    def __init__(self, brand: str, config: WeiboConfig) -> None:
        super().__init__(brand, config)
        self._progress = Progress()

    def receive(self, request: ChannelRequest) -> Answer:
        need_method(request, "GET", "POST")
        verify(request, self.config.app_secret.get_secret_value())
        if request.method == "GET":
            return handshake(request)
        pushed = json_object(request.body)
        kind, data = text(pushed, "type"), mapping(pushed, "data")
        if not kind:
            raise Malformed("`type` is missing")
        if self.config.account_id is not None and identifier(pushed, "receiver_id") != self.config.account_id:
            return Answer(ignored=("other_account",))
        if kind == "event" and (subtype := text(data, "subtype")) not in _MENTIONS:
            return Answer(ignored=(f"event.{subtype}" if subtype in _EVENTS else "event.unknown",))
        if kind not in _MESSAGES:
            return Answer(ignored=("unknown",))
        sender, sent_at = identifier(pushed, "sender_id"), _time(text(pushed, "created_at"))
        message = self.message(
            message_id=_derived_id(pushed, sender, sent_at),
            customer={"id": sender},
            text=_words(kind, pushed, data),
            sent_at=sent_at,
            attachments=_attachments(kind, data),
        )
        # An empty answer is one: Weibo tells the customer nothing, and does not send it again.
        return Answer(messages=(message,))

    async def send(self, reply: Reply, call: Call) -> Sent:
        pieces = split(reply.text, _REPLY_MOST_CHARACTERS)
        if len(pieces) > _REPLY_MOST_PIECES:
            raise NotSent(f"the reply needs {len(pieces)} messages: shorten it", hopeless=True)

        async def send_one(piece: str, _: str | None) -> str:
            answer = await call(
                ProviderRequest(
                    "POST",
                    f"{self.config.api_url}/2/messages/reply.json",
                    form={
                        "access_token": self.config.access_token.get_secret_value(),
                        "type": "text",
                        "data": json.dumps({"text": piece}, ensure_ascii=False),
                        "receiver_id": reply.customer_id,
                        # What the agent wrote is seen by whoever opens the account's own message box.
                        "save_sender_box": "1",
                    },
                )
            )
            _check(answer)
            return ""

        await self._progress.send(reply.notification_id, pieces, send_one)
        return Sent()  # Weibo gives what is sent no id


def _time(created_at: str) -> datetime:
    """E.g. "Mon Jul 16 18:09:20 +0800 2012"."""
    try:
        return datetime.strptime(created_at, "%a %b %d %H:%M:%S %z %Y").astimezone(UTC)
    except (ValueError, OverflowError):
        raise Malformed("`created_at` is missing, or is no time") from None


def _derived_id(pushed: Mapping[str, Any], sender: str, sent_at: datetime) -> str:
    """Weibo gives messages no id, and advises to tell them apart by sender and second. Two of one second differ in what
    they say, so that counts too; the same words twice within a second are one message.
    """
    told = json.dumps([pushed.get(name) for name in ("type", "text", "data")], sort_keys=True)
    return f"{sender}-{int(sent_at.timestamp())}-{hashlib.sha256(told.encode()).hexdigest()[:16]}"


def _words(kind: str, pushed: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    words = text(pushed, "text")
    if kind == "position":
        words += f"\n位置：{text(data, 'latitude')}, {text(data, 'longitude')}"
    return cut(words)


def _attachments(kind: str, data: Mapping[str, Any]) -> tuple[dict[str, str | None], ...]:
    if kind not in _MEDIA:
        return ()
    name, media_type = _MEDIA[kind]
    # `tovfid` is the file as its receiver may fetch it; `vfid`, as its sender may.
    file_id = integer(data, "tovfid") or text(data, "tovfid")[:_FILE_ID_MOST_CHARACTERS]
    return (
        {
            "name": name,
            "media_type": media_type,
            "url": f"{MEDIA_URL}?{urlencode({'fid': file_id})}" if file_id else None,
        },
    )


def _check(answer: ProviderAnswer) -> None:
    """Raises NotSent when the answer does not say that Weibo has taken the message."""
    found = answer.json()
    # Written as a number, and as a string in Weibo's own example.
    code = str(found.get("error_code", "")) if isinstance(found, dict) else ""
    if re.fullmatch(r"[0-9]{1,6}", code):
        number = int(code)
        if number in _HOPELESS:
            raise NotSent(f"Weibo {code}: {_HOPELESS[number]}", hopeless=True)
        # All others are about the account (its token, its permissions) or Weibo: an operator can mend them.
        wait = _TRY_AGAIN_SECONDS.get(number)
        raise NotSent(f"Weibo {code}: see its list of error codes", retry_after_seconds=wait)
    if answer.status != 200 or not isinstance(found, dict) or found.get("result") is False:
        raise NotSent(f"Weibo answered {answer.status}, and not that it has the message")
