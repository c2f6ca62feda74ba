"""App chat: what the chat of a brand's app or site sends, over HTTP and over WebSocket.

The protocol is our own (docs/channels/app_chat.md). Who writes is told by a session token: a JWT that the brand's back
end signs for its customer, or that intake signs for a visitor without a login. Ids of messages are the client's, so
they are kept apart by customer: nobody can take another's id, nor change another's message.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, ClassVar, Final, Literal

import jwt
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
)

from services.intake.channels.base import (
    Adapter,
    AdapterConfig,
    Answer,
    Call,
    ChannelRequest,
    NotSent,
    Refused,
    Reply,
    Sent,
    json_object,
    need_method,
)
from services.intake.channels.embedding import Origin
from services.intake.channels.fields import MOST_SHORT_CHARACTERS, cut, e164, language
from shared.cloudevents import describe
from shared.events import Attachment, ChannelMessage, Contact, Customer
from shared.events.base import Identifier
from shared.taxonomy import Channel

FRAME_MOST_BYTES: Final = 64 * 1024
VISITOR_PREFIX: Final = "visitor-"
TOKEN_LONGEST: Final = timedelta(hours=24)
VISITOR_LONGEST: Final = timedelta(days=7)
_TOKEN_MOST_CHARACTERS: Final = 4096
_CLOCKS_APART: Final = timedelta(minutes=1)
_OFFLINE_LONGEST: Final = timedelta(hours=24)
"""How long a client may keep a message: a time before that is no time of sending, but a way to jump the queue."""
_SECRET_LEAST_BYTES: Final = 32
_MOST_ATTACHMENTS: Final = 50


def _is_long(secret: SecretStr) -> SecretStr:
    if len(secret.get_secret_value().encode()) < _SECRET_LEAST_BYTES:
        raise ValueError(f"must have at least {_SECRET_LEAST_BYTES} bytes (openssl rand -hex 32)")
    return secret


Secret = Annotated[SecretStr, AfterValidator(_is_long)]


class AppChatConfig(AdapterConfig):
    """`token_secret`: what the brand's back end signs session tokens with; `token_secret_previous`: accepted while it
    changes. `visitors`: people without a login may write. `allowed_origins`: sites that may embed the widget.
    `title`: what stands over it, by language.
    """

    token_secret: Secret
    token_secret_previous: Secret | None = None
    visitors: bool = False
    allowed_origins: tuple[Origin, ...] = ()
    title: Mapping[Literal["zh", "en"], Annotated[str, Field(min_length=1, max_length=60)]] = {}


@dataclass(frozen=True, slots=True)
class Session:
    """Who holds a token, until when."""

    customer: Customer
    verified: tuple[Contact, ...]
    expires_at: datetime

    @property
    def is_visitor(self) -> bool:
        return self.customer.id.startswith(VISITOR_PREFIX)


class _Claims(BaseModel):
    """What a token says. Strict: `"false"` is no truth value."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", hide_input_in_errors=True)

    sub: Annotated[Identifier, Field(max_length=120)]
    exp: Annotated[float, Field(gt=0, lt=4_102_444_800, allow_inf_nan=False)]
    name: str | None = None
    phone: str | None = None
    email: str | None = None
    phone_verified: bool = False
    email_verified: bool = False
    lang: str | None = None
    vip: bool = False


def _mended(value: Any) -> Any:
    # Half an emoji: JavaScript cuts text between its two halves, JSON carries it, UTF-8 cannot.
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


Text = Annotated[str, BeforeValidator(_mended)]
ClientId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:-]{1,64}$")]
"""A message's id as the client makes it. Without a slash, which parts it from the customer's."""


class _Attachment(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    name: Annotated[Text, Field(min_length=1)]
    media_type: Text = "application/octet-stream"
    # One that is too long is refused, not cut: the half of an address leads nowhere.
    url: Annotated[Text, StringConstraints(pattern=r"^https?://", max_length=MOST_SHORT_CHARACTERS)] | None = None
    size_bytes: Annotated[int, Field(ge=0, lt=2**63)] | None = None


class _Message(BaseModel):
    """A message of the client. Unknown fields are ignored, so that a newer client can talk to an older server."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    message_id: ClientId
    text: Text = ""
    sent_at: AwareDatetime | None = None
    attachments: tuple[_Attachment, ...] = ()
    edits: ClientId | None = None
    deletes: ClientId | None = None
    in_reply_to: ClientId | tuple[ClientId, ...] = ()


class AppChat(Adapter[AppChatConfig]):
    """One brand's chat."""

    provider: ClassVar[str] = "app_chat"
    channel: ClassVar[Channel] = Channel.APP_CHAT
    config_type: ClassVar[type[AdapterConfig]] = AppChatConfig

    def receive(self, request: ChannelRequest) -> Answer:
        """`POST` of one message as JSON, with the session token as `Authorization: Bearer`."""
        need_method(request, "POST")
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            raise Refused(401, "signature", "send the session token as `Authorization: Bearer <token>`")
        session = self.session(token.strip(), request.received_at)
        if len(request.body) > FRAME_MOST_BYTES:
            raise Refused(413, "invalid", f"a message may have {FRAME_MOST_BYTES} bytes at most")
        content = json_object(request.body)
        message = self.message_in(content, session, request.received_at)
        answer = {"type": "accepted", "message_id": content["message_id"]}
        return Answer(body=json.dumps(answer), media_type="application/json", messages=(message,))

    async def send(self, reply: Reply, call: Call) -> Sent:
        """A chat has no provider to call: replies are stored for the customer, by `services.intake.chat.ChatHub`."""
        raise NotSent("replies of app chat go through ChatHub.deliver, not through an adapter")

    # --- sessions ------------------------------------------------------------------------------------------------

    def session(self, token: str, now: datetime) -> Session:
        """Whose token it is. Raises Refused: 401."""
        claims, is_visitor = self._claims(token)
        try:
            said = _Claims.model_validate(claims)
        except ValidationError as error:
            raise Refused(401, "invalid", f"the token's claims: {describe(error)}") from None
        expires_at = datetime.fromtimestamp(said.exp, UTC)
        if expires_at <= now:
            raise Refused(401, "stale", "the token has expired; get a new one")
        if expires_at > now + (VISITOR_LONGEST if is_visitor else TOKEN_LONGEST) + _CLOCKS_APART:
            raise Refused(401, "invalid", "the token's `exp` is more than 24 hours ahead")
        if said.sub.startswith(VISITOR_PREFIX) != is_visitor:
            raise Refused(401, "invalid", f"the token's `sub` begins with {VISITOR_PREFIX}, as only visitors' do")
        customer = Customer(
            id=said.sub,
            name=_short(said.name),
            phone=_short(e164(said.phone) or said.phone) if said.phone else None,
            email=_short(said.email),
            language=language(said.lang or ""),
            vip=said.vip,
        )
        verified = (
            *((Contact.PHONE,) if customer.phone and said.phone_verified else ()),
            *((Contact.EMAIL,) if customer.email and said.email_verified else ()),
        )
        return Session(customer, verified, expires_at)

    def visitor_token(self, name: str, lang: str | None, now: datetime) -> tuple[str, Session]:
        """A token for a visitor; `name` is random. Only where `config.visitors`."""
        claims = {
            "sub": f"{VISITOR_PREFIX}{name}",
            "aud": self.brand,
            "exp": int((now + VISITOR_LONGEST).timestamp()),
            **({"lang": lang} if lang else {}),
        }
        token = jwt.encode(claims, _visitors_key(self.config.token_secret), algorithm="HS256")
        return token, self.session(token, now)

    def _claims(self, token: str) -> tuple[dict[str, Any], bool]:
        """What the token says, and whether it is a visitor's."""
        if len(token) <= _TOKEN_MOST_CHARACTERS:
            for key, is_visitor in self._keys():
                try:
                    claims = jwt.decode(
                        token,
                        key,
                        algorithms=["HS256"],
                        audience=self.brand,
                        # Times are ours to check: PyJWT looks at its own clock.
                        options={
                            "require": ["exp", "sub", "aud"],
                            "strict_aud": True,
                            "verify_exp": False,
                            "verify_nbf": False,
                            "verify_iat": False,
                        },
                    )
                except jwt.InvalidSignatureError:
                    continue
                except (jwt.PyJWTError, ValueError, RecursionError):
                    break
                return claims, is_visitor
        raise Refused(401, "signature", "the token is not one of this brand: HS256, `sub`, `exp`, `aud` are needed")

    def _keys(self) -> Iterator[tuple[bytes, bool]]:
        for secret in (self.config.token_secret, self.config.token_secret_previous):
            if secret is not None:
                yield secret.get_secret_value().encode(), False
                if self.config.visitors:
                    yield _visitors_key(secret), True

    # --- messages ------------------------------------------------------------------------------------------------

    def message_in(self, content: Mapping[str, Any], session: Session, now: datetime) -> ChannelMessage:
        """The message of a frame. Raises Refused: 422 with the fields that are wrong."""
        try:
            said = _Message.model_validate(content)
        except ValidationError as error:
            raise Refused(422, "invalid", describe(error)) from None
        if not (said.deletes or said.text.strip() or said.attachments):
            raise Refused(422, "invalid", "text: is empty, and there is no attachment")
        answers = (said.in_reply_to,) if isinstance(said.in_reply_to, str) else said.in_reply_to

        def own(message_id: str) -> str:
            return own_id(session.customer.id, message_id)

        return self.message(
            message_id=own(said.message_id),
            customer=session.customer,
            text="" if said.deletes else cut(said.text),
            sent_at=said.sent_at if said.sent_at and now - _OFFLINE_LONGEST <= said.sent_at <= now else now,
            reply_to=session.customer.id,
            attachments=()
            if said.deletes
            else tuple(
                Attachment(
                    name=cut(item.name, MOST_SHORT_CHARACTERS),
                    media_type=cut(item.media_type, MOST_SHORT_CHARACTERS),
                    url=item.url,
                    size_bytes=item.size_bytes,
                )
                for item in said.attachments[:_MOST_ATTACHMENTS]
            ),
            in_reply_to=tuple(own(message_id) for message_id in answers[:_MOST_ATTACHMENTS]),
            edits=said.edits and own(said.edits),
            deletes=said.deletes and own(said.deletes),
            verified=session.verified,
        )


def own_id(customer_id: str, message_id: str) -> str:
    """The id that a message of this customer's chat, his or ours, is known by."""
    return f"{customer_id}/{message_id}"


def _short(value: str | None) -> str | None:
    return cut(_mended(value), MOST_SHORT_CHARACTERS) if value else None


def _visitors_key(secret: SecretStr) -> bytes:
    # Of its own, so that a visitor's token cannot pass for one that the brand has signed.
    return hmac.new(secret.get_secret_value().encode(), b"switchyard app_chat visitors", hashlib.sha256).digest()
