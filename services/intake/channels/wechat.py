"""WeChat official accounts (微信公众号): messages as XML, plain, in compatible mode or encrypted; replies by the
customer-service API. docs/channels/wechat.md says what is documented by WeChat and what is a guess.
"""

from __future__ import annotations

import base64
import hmac
import json
import mimetypes
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, Self
from urllib.parse import urlencode
from xml.etree.ElementTree import ParseError

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from defusedxml.ElementTree import fromstring
from pydantic import Field, SecretStr, model_validator

from services.intake.channels.base import (
    Adapter,
    AdapterConfig,
    Answer,
    Call,
    ChannelRequest,
    NotSent,
    ProviderRequest,
    Refused,
    Reply,
    Sent,
    json_object,
    need_method,
)
from services.intake.channels.fields import (
    MOST_SHORT_CHARACTERS,
    Malformed,
    address,
    cut,
    identifier,
    integer,
    mapping,
    seconds,
    short,
    text,
)
from services.intake.channels.pieces import Progress, split
from services.intake.channels.sorted_sha1 import handshake, is_signature, verify
from shared.taxonomy import Channel

_BODY_MOST_BYTES: Final = 256 * 1024
"""A message has at most a few kilobytes, three times that in compatible mode."""

_EVENTS: Final = frozenset(
    {"subscribe", "unsubscribe", "scan", "location"}
    | {"click", "view", "view_miniprogram", "scancode_push", "scancode_waitmsg", "location_select"}
    | {"pic_sysphoto", "pic_photo_or_album", "pic_weixin"}
    | {"kf_create_session", "kf_close_session", "kf_switch_session"}
    | {"templatesendjobfinish", "masssendjobfinish", "publishjobfinish"}
    | {"subscribe_msg_popup_event", "subscribe_msg_change_event", "subscribe_msg_sent_event"}
)
_VOICE_TYPES: Final = {"amr": "audio/amr", "mp3": "audio/mpeg", "speex": "audio/speex"}

_REPLY_MOST_BYTES: Final = 2048
_REPLY_MOST_PIECES: Final = 5
"""What WeChat lets an account send to a customer after each of his messages."""
_TOKEN_EARLY_SECONDS: Final = 300
_TOKEN_REFUSED: Final = frozenset({40001, 40014, 42001})
_HOPELESS: Final = {
    40003: "the customer is not known to this account",
    40033: "the text has characters that WeChat does not take",
    43004: "the customer does not follow the account",
    43019: "the account has blocked the customer",
    44004: "the text is empty",
    45002: "the text is too long",
    45015: "the customer has not written for 48 hours, or follows the account no more",
    45047: "the customer has to write before he can be sent more",
    48002: "the customer takes no messages of the account",
}
_TRY_AGAIN_SECONDS: Final = {
    45009: 3600.0,  # the day's quota
    45011: 60.0,  # the minute's
}

Secret = Annotated[SecretStr, Field(min_length=1)]


class WeChatConfig(AdapterConfig):
    """`token` and `encoding_aes_key` are those of the server configuration at mp.weixin.qq.com, `app_id` and
    `app_secret` those of the account. With `require_aes` what comes unencrypted is refused.
    """

    app_id: Annotated[str, Field(min_length=1, max_length=100)]
    token: Secret
    app_secret: Secret
    encoding_aes_key: SecretStr | None = None
    require_aes: bool = False
    api_url: str = "https://api.weixin.qq.com"

    @model_validator(mode="after")
    def _can_decrypt(self) -> Self:
        if self.require_aes and self.encoding_aes_key is None:
            raise ValueError("`require_aes` needs `encoding_aes_key`")
        if self.encoding_aes_key is not None and len(self.aes_key or b"") != 32:
            raise ValueError("`encoding_aes_key` must be the 43 letters and digits that WeChat shows")
        return self

    @property
    def aes_key(self) -> bytes | None:
        """32 bytes; none where the account does not encrypt."""
        if self.encoding_aes_key is None:
            return None
        try:
            return base64.b64decode(self.encoding_aes_key.get_secret_value() + "=", validate=True)
        except ValueError:
            return b""


@dataclass(frozen=True, slots=True)
class _Token:
    """`until` is a time of the adapter's clock, in seconds."""

    value: str
    until: float


class WeChat(Adapter[WeChatConfig]):
    provider: ClassVar = "wechat"
    channel: ClassVar = Channel.WECHAT
    config_type: ClassVar = WeChatConfig

    def __init__(self, brand: str, config: WeChatConfig, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(brand, config)
        self._clock = clock
        self._token: _Token | None = None
        self._progress = Progress()

    # --- in ---------------------------------------------------------------------------------------------------------

    def receive(self, request: ChannelRequest) -> Answer:
        need_method(request, "GET", "POST")
        verify(request, self.config.token.get_secret_value())
        if request.method == "GET":
            return handshake(request)
        fields = self._in_clear(request)
        kind = text(fields, "MsgType")
        if kind == "event":
            event = text(fields, "Event").lower()
            # "success" keeps WeChat from sending it again, and from telling the customer that nobody is there.
            return Answer(body="success", ignored=(f"event.{event}" if event in _EVENTS else "event.unknown",))
        content = self._content(kind, fields)
        if content is None:
            if not kind:
                raise Malformed("the message has no MsgType")
            return Answer(body="success", ignored=("unknown",))
        message = self.message(
            message_id=identifier(fields, "MsgId"),
            customer={"id": identifier(fields, "FromUserName")},
            sent_at=seconds(_number(fields, "CreateTime")),
            **content,
        )
        return Answer(body="success", messages=(message,))

    def _in_clear(self, request: ChannelRequest) -> Mapping[str, str]:
        """The fields of the message: those that were encrypted, where the account encrypts."""
        fields = _fields(request.body)
        if request.query.get("encrypt_type") != "aes":
            if self.config.require_aes:
                raise Refused(401, "signature", "the message is not encrypted, and `require_aes` is set")
            return fields
        key = self.config.aes_key
        if key is not None:
            return _fields(self._decrypted(request, key, fields.get("Encrypt", "").strip()))
        if "MsgType" not in fields:
            raise Refused(422, "invalid", "the message is encrypted: set `encoding_aes_key`")
        return fields  # compatible mode: the same stands there in clear

    def _decrypted(self, request: ChannelRequest, key: bytes, sealed: str) -> bytes:
        query = request.query
        token = self.config.token.get_secret_value()
        if not is_signature(
            query.get("msg_signature", ""), token, query.get("timestamp", ""), query.get("nonce", ""), sealed
        ):
            raise Refused(401, "signature", "`msg_signature` in the address is missing or wrong")
        content = _unsealed(key, sealed)
        length = int.from_bytes(content[16:20], "big")  # after 16 random bytes
        message, app_id = content[20 : 20 + length], content[20 + length :]
        if not hmac.compare_digest(app_id, self.config.app_id.encode()):
            raise _cannot_decrypt()
        return message

    def _content(self, kind: str, fields: Mapping[str, str]) -> dict[str, Any] | None:
        """Text and attachments of a customer's message; none for a kind that is not known."""
        match kind:
            case "text":
                return _said(text(fields, "Content"))
            case "image":
                return _said("", self._file("image.jpg", "image/jpeg", fields))
            case "voice":
                form = text(fields, "Format").lower()
                name = f"voice.{form}" if form in _VOICE_TYPES else "voice"
                file = self._file(name, _VOICE_TYPES.get(form, "application/octet-stream"), fields)
                return _said(text(fields, "Recognition"), file)
            case "video" | "shortvideo":
                return _said("", self._file("video.mp4", "video/mp4", fields))
            case "location":
                place, latitude, longitude = (text(fields, name) for name in ("Label", "Location_X", "Location_Y"))
                return _said(f"位置：{place}（{latitude}, {longitude}）")
            case "link":
                lines = (text(fields, name) for name in ("Title", "Description", "Url"))
                return _said("\n".join(filter(None, lines)))
            case "file":
                name = short(fields, "Title") or "file"
                media_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
                return _said(text(fields, "Description"), self._file(name, media_type, fields))
        return None

    def _file(self, name: str, media_type: str, fields: Mapping[str, str]) -> dict[str, str | int | None]:
        url = address(fields, "PicUrl")
        if url is None and (media_id := text(fields, "MediaId")):
            # Without access token: whoever may fetch it adds a valid one.
            url = f"{self.config.api_url}/cgi-bin/media/get?{urlencode({'media_id': media_id})}"
        return {
            "name": name,
            "media_type": media_type,
            "url": url if url and len(url) <= MOST_SHORT_CHARACTERS else None,
            "size_bytes": _number(fields, "FileTotalLen"),
        }

    # --- out --------------------------------------------------------------------------------------------------------

    async def send(self, reply: Reply, call: Call) -> Sent:
        pieces = split(reply.text, _REPLY_MOST_BYTES, _utf8_bytes)
        if len(pieces) > _REPLY_MOST_PIECES:
            detail = f"the reply needs {len(pieces)} messages, and WeChat takes {_REPLY_MOST_PIECES}: shorten it"
            raise NotSent(detail, hopeless=True)

        async def send_one(piece: str, _: str | None) -> str:
            await self._send_text(reply.customer_id, piece, call)
            return ""

        await self._progress.send(reply.notification_id, pieces, send_one)
        return Sent()  # WeChat gives what is sent no id

    async def _send_text(self, customer_id: str, piece: str, call: Call) -> None:
        content = {"touser": customer_id, "msgtype": "text", "text": {"content": piece}}
        token = await self._valid_token(call)
        answer = await self._ask(call, "/cgi-bin/message/custom/send", content, token)
        if _code(answer) in _TOKEN_REFUSED:
            answer = await self._ask(call, "/cgi-bin/message/custom/send", content, await self._new_token(token, call))
        if _code(answer) != 0:
            raise _not_sent(answer)

    async def _valid_token(self, call: Call) -> str:
        if self._token is None or self._token.until <= self._clock():
            self._token = await self._fetch_token(call, force=False)
        return self._token.value

    async def _new_token(self, refused: str, call: Call) -> str:
        """Another token than the one that was refused.

        Forcing one takes the old one from all who use it, and is allowed 20 times a day: only if WeChat goes on handing
        out the refused one.
        """
        self._token = await self._fetch_token(call, force=False)
        if self._token.value == refused:
            self._token = await self._fetch_token(call, force=True)
        return self._token.value

    async def _fetch_token(self, call: Call, *, force: bool) -> _Token:
        begun = self._clock()
        answer = await self._ask(
            call,
            "/cgi-bin/stable_token",
            {
                "grant_type": "client_credential",
                "appid": self.config.app_id,
                "secret": self.config.app_secret.get_secret_value(),
                "force_refresh": force,
            },
        )
        token, valid_seconds = text(answer, "access_token"), integer(answer, "expires_in")
        if not token or valid_seconds is None:
            raise _not_sent(answer)
        return _Token(token, begun + valid_seconds - _TOKEN_EARLY_SECONDS)

    async def _ask(
        self, call: Call, path: str, content: Mapping[str, Any], token: str | None = None
    ) -> Mapping[str, Any]:
        """What WeChat's API answers. Raises NotSent when that is not an answer of it."""
        answer = await call(
            ProviderRequest(
                "POST",
                f"{self.config.api_url}{path}",
                headers={"Content-Type": "application/json; charset=utf-8"},
                query={"access_token": token} if token is not None else {},
                # Written here because WeChat shows the customer `\u4f60` where JSON is escaped.
                body=json.dumps(content, ensure_ascii=False).encode("utf-8", "replace"),
            )
        )
        if answer.status != 200:
            raise NotSent(f"WeChat answered {answer.status}")
        return mapping(answer.json())


def _cannot_decrypt() -> Refused:
    """The same whatever is wrong, so that nobody learns about the key by trying."""
    return Refused(401, "signature", "the message cannot be decrypted: check `encoding_aes_key` and `app_id`")


def _fields(body: bytes) -> dict[str, str]:
    """The fields of a message, which accounts can choose to get as XML or as JSON. Of one given twice, the first."""
    if len(body) > _BODY_MOST_BYTES:
        raise Refused(413, "malformed", f"the message is longer than {_BODY_MOST_BYTES} bytes")
    if body.lstrip()[:1] == b"{":
        return {name: str(value) for name, value in json_object(body).items() if isinstance(value, str | int)}
    try:
        root = fromstring(body, forbid_dtd=True)
    except (ParseError, ValueError, LookupError):  # broken; a DTD or an entity (a ValueError too); an unknown encoding
        raise Malformed("the message is not plain XML") from None
    fields: dict[str, str] = {}
    for element in root:
        fields.setdefault(element.tag, element.text or "")
    return fields


def _unsealed(key: bytes, sealed: str) -> bytes:
    """AES-256-CBC, padded to blocks of 32 bytes by PKCS#7. Raises Refused."""
    try:
        decryptor = Cipher(AES(key), CBC(key[:16])).decryptor()
        padded = decryptor.update(base64.b64decode(sealed, validate=True)) + decryptor.finalize()
    except ValueError:
        raise _cannot_decrypt() from None
    padding = padded[-1] if padded else 0
    if not 1 <= padding <= 32 or padded[-padding:] != bytes([padding]) * padding:
        raise _cannot_decrypt()
    return padded[:-padding]


def _said(words: str, *attachments: dict[str, str | int | None]) -> dict[str, Any]:
    return {"text": cut(words), "attachments": attachments}


def _number(fields: Mapping[str, str], name: str) -> int | None:
    value = fields.get(name, "")
    return int(value) if re.fullmatch(r"[0-9]{1,15}", value) else None


def _utf8_bytes(words: str) -> int:
    return len(words.encode("utf-8", "replace"))


def _code(answer: Mapping[str, Any]) -> int | None:
    return integer(answer, "errcode")


def _not_sent(answer: Mapping[str, Any]) -> NotSent:
    code = _code(answer)
    if code is None:
        return NotSent("WeChat's answer has no errcode")
    if code in _HOPELESS:
        return NotSent(f"WeChat {code}: {_HOPELESS[code]}", hopeless=True)
    # All others are about the account (its quota, its secret, its permissions) or WeChat: an operator can mend them.
    return NotSent(f"WeChat {code}: see its list of return codes", retry_after_seconds=_TRY_AGAIN_SECONDS.get(code))
