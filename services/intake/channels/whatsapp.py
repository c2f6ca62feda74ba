"""WhatsApp Business Platform (Cloud API). docs/channels/whatsapp.md.

https://developers.facebook.com/documentation/business-messaging/whatsapp/webhooks/reference/messages
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated, Any, ClassVar, Final

from pydantic import Field

from services.intake.channels.base import Call, Reply
from services.intake.channels.fields import MOST_SHORT_CHARACTERS, cut, mapping, objects
from services.intake.channels.meta import (
    MALFORMED,
    MOST_ATTACHMENTS,
    Batch,
    MetaAdapter,
    MetaConfig,
    attachment,
    message_identifier,
    moment,
    need_words,
    words,
)
from shared.events import Attachment, ChannelMessage, Contact
from shared.taxonomy import Channel

_NUMBER: Final = re.compile(r"[0-9]{5,15}")
_NO_MESSAGES: Final = {"reaction": "reaction", "system": "system", "request_welcome": "welcome"}
_OTHER_FIELDS: Final = {"smb_message_echoes": "echo", "calls": "call", "history": "history", "standby": "standby"}

_HOPELESS: Final = frozenset(
    {
        33,  # the address of the request does not exist
        100,  # wrong parameter
        131008,  # parameter missing
        131009,  # value of a parameter is wrong
        131021,  # the recipient is the sender
        131026,  # undeliverable: not on WhatsApp, or has blocked the brand
        131030,  # not among the recipients that a test number may write to
        131047,  # more than 24 hours since the customer's last message
        131051,  # type of message not supported
        131062,  # cannot be sent to someone whose number is not known
    }
)


class WhatsAppConfig(MetaConfig):
    phone_number_id: Annotated[str, Field(pattern=r"^[0-9]{1,40}$")]


@dataclass(frozen=True, slots=True)
class _Content:
    text: str = ""
    attachments: tuple[Attachment, ...] = ()


class WhatsApp(MetaAdapter[WhatsAppConfig]):
    provider: ClassVar[str] = "whatsapp"
    channel: ClassVar[Channel] = Channel.WHATSAPP
    config_type: ClassVar[type[WhatsAppConfig]] = WhatsAppConfig
    topic: ClassVar[str] = "whatsapp_business_account"
    most_units: ClassVar[int] = 4096

    def read_entry(self, entry: Mapping[str, Any], batch: Batch, received_at: datetime) -> None:
        changes = entry.get("changes")
        if not isinstance(changes, list):
            batch.ignored.append(MALFORMED)
            return
        for change in changes:
            if isinstance(change, dict):
                self._read_change(change, batch, received_at)
            else:
                batch.ignored.append(MALFORMED)

    def _read_change(self, change: Mapping[str, Any], batch: Batch, received_at: datetime) -> None:
        value = mapping(change, "value")
        field = words(change, "field")
        if field != "messages":
            batch.ignored.append(_OTHER_FIELDS.get(field, "unknown"))
            return
        if words(mapping(value, "metadata"), "phone_number_id") != self.config.phone_number_id:
            batch.ignored.append("foreign_number")
            return
        contacts = tuple(objects(value, "contacts"))
        known = [name for name in ("messages", "statuses", "errors") if name in value]
        if not known:
            batch.ignored.append("unknown")
        if "messages" in known:
            batch.read(value["messages"], lambda message: self._message(message, contacts, received_at))
        if "statuses" in known:
            batch.read(
                value["statuses"],
                lambda status: "status_failed" if words(status, "status") == "failed" else "status",
            )
        if "errors" in known:
            batch.read(value["errors"], lambda error: "error")

    def _message(
        self, message: Mapping[str, Any], contacts: Sequence[Mapping[str, Any]], received_at: datetime
    ) -> ChannelMessage | str:
        kind = words(message, "type")
        if kind in _NO_MESSAGES:
            return _NO_MESSAGES[kind]
        if words(message, "group_id"):
            # What is to be said of someone's wallet is not for a group.
            return "group"
        message_id = need_words(message, "id")
        common = {
            "message_id": message_identifier(message_id),
            "sent_at": moment(message.get("timestamp"), received_at),
            **_person(message, contacts),
        }
        if kind == "revoke":
            return self.message(
                deletes=message_identifier(need_words(mapping(message, "revoke"), "original_message_id")), **common
            )
        if kind == "edit":
            edit = mapping(message, "edit")
            edited = need_words(edit, "original_message_id")
            content = self._content(mapping(edit, "message"))
            common |= {"edits": message_identifier(edited), "reply_to": edited}
        else:
            content = self._content(message)
            common |= {"reply_to": message_id}
        answered = words(mapping(message, "context"), "id")
        return self.message(
            text=cut(content.text),
            attachments=content.attachments[:MOST_ATTACHMENTS],
            in_reply_to=(message_identifier(answered),) if answered else (),
            **common,
        )

    def _content(self, message: Mapping[str, Any]) -> _Content:
        kind = words(message, "type")
        part = mapping(message, kind)
        match kind:
            case "text":
                content = _Content(words(part, "body"))
            case "image" | "document" | "audio" | "video" | "sticker":
                content = self._media(kind, part)
            case "button":
                content = _Content(words(part, "text") or words(part, "payload"))
            case "interactive":
                content = _Content(_chosen(part))
            case "location":
                content = _Content("", (_location(part),))
            case "contacts":
                content = _Content("", tuple(map(_contact, objects(message, "contacts"))))
            case "order":
                content = _Content(words(part, "text"), (_order(part),))
            case _:
                content = _Content()
        if not content.text and not content.attachments:
            # What the API does not pass on (a poll, a picture to be seen once) was written by a customer all the same:
            # the agent shall see that there was a message, and can ask for it in another form.
            what = words(mapping(message, "unsupported"), "type") or kind
            content = _Content("", (attachment("unsupported", about=(what,)),))
        advertisement = mapping(message, "referral")
        if advertisement:
            came_by = attachment(
                "advertisement", about=(words(advertisement, "headline"),), url=words(advertisement, "source_url")
            )
            content = replace(content, attachments=(*content.attachments, came_by))
        return content

    def _media(self, kind: str, media: Mapping[str, Any]) -> _Content:
        name = words(media, "filename") or ("voice" if media.get("voice") is True else kind)
        media_id = words(media, "id")
        url = self.graph_address(media_id) if media_id else None
        return _Content(words(media, "caption"), (attachment(name, media_type=words(media, "mime_type"), url=url),))

    async def send_piece(self, reply: Reply, piece: str, call: Call, *, is_first: bool) -> str:
        # A number has digits alone; else it is the id of someone who does not show his number.
        whom = "to" if _NUMBER.fullmatch(reply.customer_id) else "recipient"
        body: dict[str, Any] = {
            "messaging_product": "whatsapp",
            "recipient_type": "individual",
            whom: reply.customer_id,
            "type": "text",
            "text": {"preview_url": False, "body": piece},
        }
        if reply.reply_to and is_first:
            body["context"] = {"message_id": reply.reply_to}
        answer = await self.ask(call, f"{self.config.phone_number_id}/messages", body)
        return message_identifier(next((words(sent, "id") for sent in objects(answer, "messages")), ""))

    def is_hopeless(self, code: int, subcode: int) -> bool:
        return code in _HOPELESS


def _person(message: Mapping[str, Any], contacts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The fields of a message that say who wrote it.

    Who has a user name may hide his number: then `from` and `wa_id` are missing, and the business-scoped user id names
    him. WhatsApp sends codes to a number before it can be used: it is verified.
    """
    number, user_id = words(message, "from"), words(message, "from_user_id")
    contact = next(
        (
            contact
            for contact in contacts
            if (number and words(contact, "wa_id") == number) or (user_id and words(contact, "user_id") == user_id)
        ),
        contacts[0] if len(contacts) == 1 and not number and not user_id else {},
    )
    wa_id = words(contact, "wa_id")
    phone = next((candidate for candidate in (number, wa_id) if _NUMBER.fullmatch(candidate)), None)
    return {
        "customer": {
            "id": wa_id or number or user_id or need_words(contact, "user_id"),
            "name": cut(words(mapping(contact, "profile"), "name"), MOST_SHORT_CHARACTERS) or None,
            "phone": f"+{phone}" if phone else None,
        },
        "verified": (Contact.PHONE,) if phone else (),
    }


def _location(place: Mapping[str, Any]) -> Attachment:
    about = [words(place, name) for name in ("latitude", "longitude", "name", "address")]
    return attachment("location", about=about, url=words(place, "url"))


def _contact(card: Mapping[str, Any]) -> Attachment:
    phones = [words(phone, "phone") for phone in objects(card, "phones")]
    return attachment("contact", about=[words(mapping(card, "name"), "formatted_name"), *phones])


def _order(order: Mapping[str, Any]) -> Attachment:
    wanted = objects(order, "product_items")
    return attachment(
        "order", about=[f"{words(item, 'quantity')} × {words(item, 'product_retailer_id')}" for item in wanted]
    )


def _chosen(interactive: Mapping[str, Any]) -> str:
    """The button or the row that he chose, or the form that he filled in."""
    kind = words(interactive, "type")
    choice = mapping(interactive, kind)
    if kind == "nfm_reply":
        return _form(words(choice, "response_json")) or words(choice, "body")
    return "\n".join(filter(None, (words(choice, "title"), words(choice, "description"))))


def _form(response: str) -> str:
    """A line for each field of a flow's answer, without the flow's token, which is a secret of ours and no answer."""
    try:
        fields = json.loads(response)
        if not isinstance(fields, dict):
            return response
        return (
            "\n".join(
                f"{name}: {words(fields, name) or json.dumps(value)}"
                for name, value in fields.items()
                if name != "flow_token"
            )
            .encode(errors="replace")
            .decode()
        )
    except (ValueError, RecursionError):
        return response
