"""Telegram: private chats with the brand's bot, or with the business account that the bot is connected to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Annotated, Any, Final

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
    Refused,
    Reply,
    Sent,
    json_object,
    need_method,
)
from services.intake.channels.fields import (
    MOST_SHORT_CHARACTERS,
    Malformed,
    cut,
    e164,
    identifier,
    integer,
    language,
    listed,
    mapping,
    objects,
    same,
    seconds,
    short,
    size,
    text,
)
from services.intake.channels.pieces import Progress, split, utf16_units
from shared.events import ChannelMessage
from shared.events.channel import Attachment, Contact, Customer
from shared.taxonomy import Channel

_MESSAGES: Final = ("message", "edited_message", "business_message", "edited_business_message")
_IGNORED: Final = MappingProxyType(
    {
        "channel_post": "channel",
        "edited_channel_post": "channel",
        "callback_query": "button",
        "inline_query": "inline",
        "chosen_inline_result": "inline",
        "my_chat_member": "membership",
        "chat_member": "membership",
        "chat_join_request": "membership",
        "message_reaction": "reaction",
        "message_reaction_count": "reaction",
        "business_connection": "connection",
        "poll": "poll",
        "poll_answer": "poll",
    }
)
_FILES: Final = MappingProxyType(
    {
        "animation": ("animation.mp4", "video/mp4"),
        "audio": ("audio.mp3", "audio/mpeg"),
        "document": ("document", "application/octet-stream"),
        "sticker": ("sticker.webp", "image/webp"),
        "video": ("video.mp4", "video/mp4"),
        "video_note": ("video.mp4", "video/mp4"),
        "voice": ("voice.ogg", "audio/ogg"),
    }
)
"""Kinds of files with the name and type of those that come without."""
_WITHOUT_FILE: Final = ("checklist", "game", "paid_media", "poll", "story")
"""What the Bot API gives no file of: an agent sees that it was sent, and looks at it in Telegram or asks."""
_STICKER_TYPES: Final = MappingProxyType({"is_animated": "application/x-tgsticker", "is_video": "video/webm"})
_FILE_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,400}")
_CONNECTION: Final = re.compile(r"[A-Za-z0-9_-]{1,100}")
_START: Final = re.compile(r"/start(@\w+)?(\s+[\w-]{1,64})?")
_REPLY_TO: Final = re.compile(r"(?:business:([A-Za-z0-9_-]{1,100}):)?(-?[0-9]{1,20})")
_MOST_UNITS: Final = 4096
_LONGEST_WAIT_SECONDS: Final = 24 * 3600
_BUSINESS: Final = "business"


class TelegramConfig(AdapterConfig):
    """`secret_token` is what `setWebhook` was given: Telegram sends it with every update and signs nothing."""

    bot_token: SecretStr
    secret_token: Annotated[SecretStr, Field(min_length=1, max_length=256)]
    api_url: Annotated[str, Field(pattern=r"^https?://[^\s?#]+$")] = "https://api.telegram.org"


class Telegram(Adapter[TelegramConfig]):
    provider = "telegram"
    channel = Channel.TELEGRAM
    config_type = TelegramConfig

    def __init__(self, brand: str, config: TelegramConfig) -> None:
        super().__init__(brand, config)
        self._progress = Progress()

    def receive(self, request: ChannelRequest) -> Answer:
        need_method(request, "POST")
        given = request.headers.get("x-telegram-bot-api-secret-token", "")
        if not same(given, self.config.secret_token.get_secret_value()):
            raise Refused(401, "signature", "x-telegram-bot-api-secret-token is missing or wrong; see secret_token")
        update = json_object(request.body)
        try:
            return self._update(update, request.received_at)
        except Refused:
            # It will not get better by being sent again, and Telegram would hold back what comes after it.
            return Answer(ignored=("malformed",))

    def _update(self, update: Mapping[str, Any], received_at: datetime) -> Answer:
        """An update has its id, and at most one of the many kinds of content."""
        for kind in _MESSAGES:
            if kind in update:
                made = self._message(mapping(update, kind), is_edited=kind.startswith("edited"))
                return Answer(ignored=(made,)) if isinstance(made, str) else Answer(messages=(made,))
        if "deleted_business_messages" in update:
            return self._deletions(mapping(update, "deleted_business_messages"), received_at)
        return Answer(ignored=(next((_IGNORED[kind] for kind in update if kind in _IGNORED), "unknown"),))

    def _message(self, message: Mapping[str, Any], *, is_edited: bool) -> ChannelMessage | str:
        if text(message, "chat", "type") != "private":
            return "channel" if text(message, "chat", "type") == "channel" else "group"
        sender = mapping(message, "from")
        if sender.get("is_bot") is not False or message.get("sender_business_bot") is not None:
            return "bot"
        thread = _Thread.of(message)
        customer_id = identifier(sender, "id")
        if customer_id != thread.chat_id:  # the owner of the business account, in his chat with the customer
            return "own"
        if is_edited and mapping(message, "location"):  # somebody walks, and lets us watch
            return "live_location"
        words = _words(message)
        attachments = _attachments(message)
        if not words and not attachments:
            return "service"
        if _START.fullmatch(words):  # what Telegram sends for a person who opens the chat
            return "start"
        message_id = thread.id_of(identifier(message, "message_id"))
        phone = _own_phone(message, customer_id)
        names = filter(None, (short(sender, "first_name"), short(sender, "last_name")))
        answered = mapping(message, "reply_to_message")
        edited_at = integer(message, "edit_date") if is_edited else None
        return self.message(
            message_id=f"{message_id}/edited/{edited_at}" if is_edited else message_id,
            customer=Customer(
                id=customer_id,
                name=cut(" ".join(names), MOST_SHORT_CHARACTERS) or None,
                phone=phone,
                language=language(text(sender, "language_code")),
            ),
            text=cut(words),
            sent_at=seconds(edited_at if is_edited else integer(message, "date")),
            conversation_id=thread.conversation_id,
            reply_to=thread.reply_to,
            attachments=attachments,
            in_reply_to=(thread.id_of(identifier(answered, "message_id")),) if answered else (),
            edits=message_id if is_edited else None,
            verified=(Contact.PHONE,) if phone else (),
        )

    def _deletions(self, deleted: Mapping[str, Any], received_at: datetime) -> Answer:
        """Of a business chat; it is not told who deleted what, nor when. In chats with a bot nothing is told at all."""
        if text(deleted, "chat", "type") != "private":
            return Answer(ignored=("group",))
        thread = _Thread.of(deleted)
        messages, ignored = [], []
        for deleted_id in listed(deleted, "message_ids"):
            try:
                message_id = thread.id_of(identifier({"message_ids": deleted_id}, "message_ids"))
            except Malformed:
                ignored.append("malformed")
                continue
            messages.append(
                self.message(
                    message_id=f"{message_id}/deleted",
                    customer=Customer(id=thread.chat_id),
                    sent_at=received_at,
                    conversation_id=thread.conversation_id,
                    reply_to=thread.reply_to,
                    deletes=message_id,
                )
            )
        return Answer(messages=tuple(messages), ignored=tuple(ignored))

    async def send(self, reply: Reply, call: Call) -> Sent:
        found = _REPLY_TO.fullmatch(reply.reply_to or reply.customer_id)
        if found is None:
            raise NotSent("the ticket has no chat that an answer could go to", hopeless=True)
        connection, chat_id = found.groups()
        thread = _Thread(chat_id, connection)
        to = {"chat_id": int(chat_id)} | ({"business_connection_id": connection} if connection else {})
        url = f"{self.config.api_url.rstrip('/')}/bot{self.config.bot_token.get_secret_value()}/sendMessage"

        async def send_one(piece: str, _: str | None) -> str:
            answer = await call(ProviderRequest("POST", url, json={**to, "text": piece}))
            sent = integer(answer.json(), "result", "message_id")
            if answer.status != 200:
                raise _not_sent(answer)
            return "" if sent is None else thread.id_of(str(sent))

        return await self._progress.send(reply.notification_id, split(reply.text, _MOST_UNITS, utf16_units), send_one)


class _Thread:
    """A private chat: with the bot, or with the business account of a connection. The two are independent, and count
    their messages each for itself, though the chat has the customer's id in both.
    """

    def __init__(self, chat_id: str, connection: str | None) -> None:
        self.chat_id = chat_id
        self._connection = connection

    @classmethod
    def of(cls, message: Mapping[str, Any]) -> _Thread:
        connection = text(message, "business_connection_id")
        if connection and not _CONNECTION.fullmatch(connection):
            raise Malformed("business_connection_id: is no id")
        return cls(identifier(message, "chat", "id"), connection or None)

    @property
    def conversation_id(self) -> str | None:
        return _BUSINESS if self._connection else None

    @property
    def reply_to(self) -> str:
        return f"{_BUSINESS}:{self._connection}:{self.chat_id}" if self._connection else self.chat_id

    def id_of(self, message_id: str) -> str:
        return "/".join(filter(None, (self._connection, self.chat_id, message_id)))


def _words(message: Mapping[str, Any]) -> str:
    """What was written, or what stands for it: an emoji, a place, a card with somebody's name and number."""
    written = text(message, "text") or text(message, "caption")
    if written:
        return written.strip()
    contact, place = mapping(message, "contact"), mapping(message, "location") or mapping(message, "venue", "location")
    if contact:
        named = (text(contact, "first_name"), text(contact, "last_name"), text(contact, "phone_number"))
        return " ".join(filter(None, named))
    venue = (text(message, "venue", "title"), text(message, "venue", "address"))
    numbers = [place.get(name) for name in ("latitude", "longitude")]
    at = ", ".join(f"{number:.6f}" for number in numbers if isinstance(number, int | float) and abs(number) <= 180)
    return "\n".join(filter(None, (*venue, at))) or text(message, "sticker", "emoji") or text(message, "dice", "emoji")


def _attachments(message: Mapping[str, Any]) -> tuple[Attachment, ...]:
    found = []
    # Sizes of one photo: the largest is what the customer sent.
    photos = sorted(
        objects(message, "photo"), key=lambda one: (integer(one, "width") or 0) * (integer(one, "height") or 0)
    )
    if photos:
        found.append(_attachment(photos[-1], "photo.jpg", "image/jpeg"))
    for kind, (name, media_type) in _FILES.items():
        # An animation comes with a `document` too, for programs that do not know animations.
        if mapping(message, kind) and not (kind == "document" and "animation" in message):
            file = mapping(message, kind)
            if kind == "sticker":
                media_type = next(
                    (_STICKER_TYPES[flag] for flag in _STICKER_TYPES if file.get(flag) is True), media_type
                )
            found.append(_attachment(file, name, media_type))
    found += [Attachment(name=kind) for kind in _WITHOUT_FILE if mapping(message, kind)]
    return tuple(found)


def _attachment(file: Mapping[str, Any], name: str, media_type: str) -> Attachment:
    file_id = text(file, "file_id")
    return Attachment(
        name=short(file, "file_name") or name,
        media_type=short(file, "mime_type") or media_type,
        # The real address holds the bot's token and lives for an hour: whoever opens the file asks `getFile` for it.
        url=f"telegram+media:{file_id}" if _FILE_ID.fullmatch(file_id) else None,
        size_bytes=size(file, "file_size"),
    )


def _own_phone(message: Mapping[str, Any], customer_id: str) -> str | None:
    """The number of the customer's account, when he shares his own card. Telegram names the account of a number itself:
    who shares a stranger's number has a stranger's `user_id` in the card, or none.
    """
    if str(integer(message, "contact", "user_id")) != customer_id:
        return None
    return e164("+" + text(message, "contact", "phone_number").lstrip("+"))


def _not_sent(answer: ProviderAnswer) -> NotSent:
    content = answer.json()
    wait = integer(content, "parameters", "retry_after")
    described = text(content, "description").lower()
    known = next((reason for reason in _REASONS if reason in described), None)
    detail = f"Telegram answered {answer.status}" + (f" ({known})" if known else "")
    # 401 and 404 are about the bot's token, which the operator can put right.
    hopeless = answer.status in (400, 403)
    seconds_to_wait = float(min(max(0, wait), _LONGEST_WAIT_SECONDS)) if wait is not None else None
    return NotSent(detail, hopeless=hopeless, retry_after_seconds=seconds_to_wait)


_REASONS: Final = (
    "bot was blocked by the user",
    "user is deactivated",
    "bot can't initiate conversation with a user",
    "chat not found",
    "business connection not found",
    "message is too long",
    "too many requests",
)
"""Descriptions of errors that are told on. Others may hold parts of what was sent."""
