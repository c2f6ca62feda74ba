"""Phone: what a call centre tells of its calls, by webhooks of our own contract (docs/channels/phone.md)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator
from standardwebhooks import Webhook
from standardwebhooks.webhooks import EmptyWebhookSecretError

from services.intake.channels.base import (
    Adapter,
    AdapterConfig,
    Answer,
    Call,
    ChannelRequest,
    NotSent,
    ProviderAnswer,
    ProviderRequest,
    Refused,
    Reply,
    Sent,
    json_object,
    need_method,
)
from services.intake.channels.fields import (
    address,
    e164,
    identifier,
    iso_time,
    language,
    mapping,
    objects,
    same,
    short,
    text,
)
from shared.events import ChannelMessage
from shared.events.channel import MAX_TEXT_CHARACTERS, Attachment, Contact, Customer
from shared.retry_after import retry_after_seconds
from shared.taxonomy import Channel, Language

_TOLERANCE: Final = timedelta(minutes=5)
_TIMESTAMP: Final = re.compile(r"[0-9]{1,10}")
_IGNORED: Final = MappingProxyType(
    {"call.started": "call_status", "call.ringing": "call_status", "call.transferred": "call_status"}
)
_GAP: Final = "\n…\n"
_NUMBER: Final = re.compile(r"\+[0-9]{3,15}")
_LONGEST_WAIT_SECONDS: Final = 24 * 3600

_NOTHING_SAID: Final = MappingProxyType(
    {
        "call.ended": MappingProxyType(
            {Language.ZH: "来电，尚无文字记录。", Language.EN: "A call; not in writing yet."}
        ),
        "call.missed": MappingProxyType(
            {Language.ZH: "未接来电，请回拨。", Language.EN: "A missed call; please call back."}
        ),
        "voicemail.left": MappingProxyType(
            {Language.ZH: "语音留言，尚无文字记录。", Language.EN: "A voicemail; not in writing yet."}
        ),
        "callback.requested": MappingProxyType(
            {Language.ZH: "客户请求回电。", Language.EN: "The customer asks to be called back."}
        ),
    }
)
"""What stands in place of the customer's words while there are none, by kind of event and language of the brand."""


def _is_secret(value: SecretStr) -> SecretStr:
    try:
        Webhook(value.get_secret_value())
    except (ValueError, EmptyWebhookSecretError):
        raise ValueError("must be a secret of Standard Webhooks: whsec_ and base64") from None
    return value


Secret = Annotated[SecretStr, AfterValidator(_is_secret)]


class PhoneConfig(AdapterConfig):
    """`secret` signs what the call centre sends, `outgoing_secret` what it is sent. `region`: of numbers that come
    without a country. `language`: of what stands in place of words that nobody said.
    """

    secret: Secret
    region: Annotated[str, Field(pattern=r"^[A-Z]{2}$")] = "CN"
    language: Literal[Language.ZH, Language.EN] = Language.ZH
    callback_url: Annotated[str, Field(pattern=r"^https?://\S+$")] | None = None
    sms_url: Annotated[str, Field(pattern=r"^https?://\S+$")] | None = None
    outgoing_secret: Secret | None = None

    @model_validator(mode="after")
    def _can_sign(self) -> Self:
        if (self.callback_url or self.sms_url) and self.outgoing_secret is None:
            raise ValueError("`callback_url` and `sms_url` need `outgoing_secret`")
        return self


class Phone(Adapter[PhoneConfig]):
    provider = "phone"
    channel = Channel.PHONE
    config_type = PhoneConfig

    def receive(self, request: ChannelRequest) -> Answer:
        need_method(request, "POST")
        _verify(request, self.config.secret)
        event = json_object(request.body)
        kind = text(event, "type")
        if kind in _IGNORED:
            return Answer(ignored=(_IGNORED[kind],))
        if kind not in _NOTHING_SAID and kind != "transcript.ready":
            return Answer(ignored=("unknown",))
        try:
            made = self._message(kind, mapping(event, "data"), iso_time(text(event, "timestamp")))
        except Refused:
            return Answer(ignored=("malformed",))
        return Answer(ignored=(made,)) if isinstance(made, str) else Answer(messages=(made,))

    def _message(self, kind: str, data: Mapping[str, Any], at: datetime) -> ChannelMessage | str:
        is_outbound = text(data, "direction") == "outbound"
        said = text(data, "reason").strip() if kind == "callback.requested" else _customers_words(data)
        if is_outbound and not said:  # our own call, and the customer said nothing that is known
            return "outbound"
        if kind == "transcript.ready" and not said:
            return "empty"
        call_id = identifier(data, "request_id" if kind == "callback.requested" else "call_id")
        number = e164(text(data, "callee" if is_outbound else "caller"), self.config.region)
        is_verified = data.get("caller_verified") is True and number is not None
        recording = text(data, "recording_url")
        message_id, edits = _ids(kind, call_id, of_voicemail=text(data, "of") == "voicemail")
        return self.message(
            message_id=message_id,
            customer=Customer(
                id=number or f"anonymous-{call_id}",
                name=short(data, "caller_name"),
                phone=number,
                language=language(text(data, "language")),
            ),
            text=_beginning_and_end(said) if said else _NOTHING_SAID[kind][self.config.language],
            sent_at=at,
            reply_to=number,
            attachments=(Attachment(name="recording", url=address(data, "recording_url")),) if recording else (),
            edits=edits,
            verified=(Contact.PHONE,) if is_verified else (),
        )

    async def send(self, reply: Reply, call: Call) -> Sent:
        """Asks the call centre to call the customer and tell him, or sends him a text message; see docs."""
        # A receipt is not worth a person's call: it is written, or not sent.
        urls = {
            "callback.requested": None if reply.is_acknowledgement else self.config.callback_url,
            "sms.requested": self.config.sms_url,
        }
        kind, url = next(((kind, url) for kind, url in urls.items() if url), ("", None))
        if url is None or self.config.outgoing_secret is None:
            missing = "sms_url" if reply.is_acknowledgement else "callback_url or sms_url"
            raise NotSent(f"no way to reach a caller is configured: set {missing}", hopeless=True)
        if not _NUMBER.fullmatch(reply.reply_to or ""):
            raise NotSent("the caller has withheld his number", hopeless=True)
        now = datetime.now(UTC)
        body = json.dumps(self._request(kind, reply, now), ensure_ascii=False, separators=(",", ":"))
        webhook_id = str(reply.notification_id)
        headers = {
            "content-type": "application/json",
            "webhook-id": webhook_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": Webhook(self.config.outgoing_secret.get_secret_value()).sign(webhook_id, now, body),
        }
        answer = await call(ProviderRequest("POST", url, headers, body=body.encode()))
        if not 200 <= answer.status < 300:
            raise _not_sent(answer, now)
        return Sent()

    def _request(self, kind: str, reply: Reply, now: datetime) -> Mapping[str, Any]:
        return {
            "type": kind,
            "timestamp": now.isoformat(timespec="seconds"),
            "data": {
                "request_id": str(reply.notification_id),
                "ticket_id": None if reply.ticket_id is None else str(reply.ticket_id),
                "brand": self.brand,
                "number": reply.reply_to,
                "language": reply.language.value,
                "text": reply.text,
            },
        }


def _verify(request: ChannelRequest, secret: SecretStr) -> None:
    """Standard Webhooks 1.0. Raises Refused.

    The library's own check asks the clock; here the time is that of the request, so that it can be replayed.
    """
    wrong = Refused(
        401, "signature", "webhook-id, webhook-timestamp or webhook-signature is missing or wrong; see secret"
    )
    webhook_id = request.headers.get("webhook-id", "")
    timestamp = request.headers.get("webhook-timestamp", "")
    if not webhook_id or not _TIMESTAMP.fullmatch(timestamp):
        raise wrong
    signed_at = datetime.fromtimestamp(int(timestamp), UTC)
    try:
        expected = Webhook(secret.get_secret_value()).sign(webhook_id, signed_at, request.body.decode())
    except UnicodeError:  # JSON is UTF-8: the call centre has not signed this
        raise wrong from None
    # Several while the sender changes his secret.
    if not any(same(one, expected) for one in request.headers.get("webhook-signature", "").split(" ")):
        raise wrong
    if abs(request.received_at - signed_at) > _TOLERANCE:
        raise Refused(
            401, "stale", "webhook-timestamp is more than 5 minutes off; sign anew at each try, check the clock"
        )


def _ids(kind: str, call_id: str, *, of_voicemail: bool) -> tuple[str, str | None]:
    """Of the message, and of the one whose words it replaces: a call is told of when it ends, written down later."""
    voicemail = f"{call_id}/voicemail"
    if kind == "transcript.ready":
        return (f"{voicemail}/transcript", voicemail) if of_voicemail else (f"{call_id}/transcript", call_id)
    if kind == "voicemail.left":
        return voicemail, None
    return f"{call_id}/callback" if kind == "callback.requested" else call_id, None


def _customers_words(data: Mapping[str, Any]) -> str:
    """What the customer himself said: what the agent says is not to decide what his ticket is about."""
    written = text(data, "transcript") or "\n".join(
        text(part, "text").strip() for part in objects(data, "transcript") if text(part, "speaker") == "customer"
    )
    return written.strip()


def _beginning_and_end(said: str) -> str:
    """What a call is about is said at its beginning, and what was left open at its end."""
    if len(said) <= MAX_TEXT_CHARACTERS:
        return said
    kept = MAX_TEXT_CHARACTERS - len(_GAP)
    return said[: kept - kept // 2] + _GAP + said[-(kept // 2) :]


def _not_sent(answer: ProviderAnswer, now: datetime) -> NotSent:
    hopeless = answer.status in (400, 404, 410, 413, 422)
    wait = retry_after_seconds(answer.headers.get("retry-after"), now)
    return NotSent(
        f"the call centre answered {answer.status}",
        hopeless=hopeless,
        retry_after_seconds=None if wait is None else min(wait, _LONGEST_WAIT_SECONDS),
    )
