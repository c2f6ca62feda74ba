"""Facebook Messenger, and the comments that customers leave on a brand's page. docs/channels/messenger.md.

https://developers.facebook.com/documentation/business-messaging/messenger-platform/webhooks/webhook-events
"""

from __future__ import annotations

import hashlib
import mimetypes
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import PurePosixPath
from typing import Annotated, Any, ClassVar, Final
from urllib.parse import unquote, urlsplit

from pydantic import Field

from services.intake.channels.base import Call, NotSent, Reply, Sent
from services.intake.channels.fields import MOST_SHORT_CHARACTERS, cut, mapping, objects
from services.intake.channels.meta import (
    MOST_ATTACHMENTS,
    Batch,
    GraphRefused,
    MetaAdapter,
    MetaConfig,
    attachment,
    message_identifier,
    moment,
    need_words,
    words,
)
from services.intake.channels.pieces import utf16_units
from shared.events import Attachment, ChannelMessage
from shared.taxonomy import Channel

_COMMENT: Final = "comment:"
_NO_MESSAGES: Final = {
    "reaction": "reaction",
    "read": "read",
    "delivery": "delivery",
    "referral": "referral",
    "optin": "optin",
    "account_linking": "account_linking",
    "policy_enforcement": "policy_enforcement",
    "pass_thread_control": "handover",
    "take_thread_control": "handover",
    "request_thread_control": "handover",
    "app_roles": "handover",
}
_ADDED: Final = frozenset({"add"})
_EDITED: Final = frozenset({"edit", "edited", "update"})
_REMOVED: Final = frozenset({"remove", "delete"})

_OUTSIDE_OF_WINDOW: Final = 10
_NOT_PERMITTED: Final = frozenset({_OUTSIDE_OF_WINDOW, 200})
"""With a subcode it is about this person (his 24 hours are over, he may not be written to); without one the app lacks a
permission, which the operator can mend."""
_HOPELESS_CODES: Final = frozenset({100, 551, 10900, 10902, 10903})
"""Wrong parameter (no such person), person not available; a comment that has its private reply, or may have none."""


class MessengerConfig(MetaConfig):
    """`human_agent_tag`: the app may answer within 7 days by the tag HUMAN_AGENT (Meta has to allow that to the app).

    `acknowledge_comments`: a comment gets one private reply, no more. False keeps it for the agent's answer.
    """

    page_id: Annotated[str, Field(pattern=r"^[0-9]{1,40}$")]
    human_agent_tag: bool = False
    acknowledge_comments: bool = False


class Messenger(MetaAdapter[MessengerConfig]):
    provider: ClassVar[str] = "messenger"
    channel: ClassVar[Channel] = Channel.FACEBOOK
    config_type: ClassVar[type[MessengerConfig]] = MessengerConfig
    topic: ClassVar[str] = "page"
    most_units: ClassVar[int] = 2000

    def read_entry(self, entry: Mapping[str, Any], batch: Batch, received_at: datetime) -> None:
        if words(entry, "id") != self.config.page_id:
            batch.ignored.append("foreign_page")
            return

        notified_at = moment(entry.get("time"), received_at)

        def read_change(change: Mapping[str, Any]) -> ChannelMessage | str:
            field, value = words(change, "field"), mapping(change, "value")
            if field == "feed":
                return self._comment(value, notified_at)
            # The form in which the reference of postbacks, and the test button of the app's dashboard, have them.
            return self._event(value, notified_at) if field.startswith("messag") else "unknown"

        known = [name for name in ("messaging", "changes", "standby") if name in entry]
        if not known:
            batch.ignored.append("unknown")
        if "messaging" in known:
            batch.read(entry["messaging"], lambda event: self._event(event, notified_at))
        if "changes" in known:
            batch.read(entry["changes"], read_change)
        if "standby" in known:  # another app has the conversation: we only look on
            batch.read(entry["standby"], lambda event: "standby")

    # --- private messages ---

    def _event(self, event: Mapping[str, Any], notified_at: datetime) -> ChannelMessage | str:
        if mapping(event, "message").get("is_echo") is True:
            return "echo"
        if words(mapping(event, "recipient"), "id") != self.config.page_id:
            return "foreign_page"
        readers = {"message": self._message, "postback": self._postback, "message_edit": self._edit}
        reader = next((name for name in readers if name in event), None)
        if reader is None:
            return next((kind for name, kind in _NO_MESSAGES.items() if name in event), "unknown")
        common = {
            "customer": {"id": need_words(mapping(event, "sender"), "id")},
            "sent_at": moment(event.get("timestamp"), notified_at),
        }
        return readers[reader](mapping(event, reader), common)

    def _message(self, content: Mapping[str, Any], common: dict[str, Any]) -> ChannelMessage:
        mid = need_words(content, "mid")
        if content.get("is_deleted") is True:
            return self.message(
                message_id=message_identifier(f"{mid}/deleted"), deletes=message_identifier(mid), **common
            )
        text = words(content, "text") or words(mapping(content, "quick_reply"), "payload")
        attachments = list(self._attachments(objects(content, "attachments"), mid))
        if not text and not attachments:
            # What Meta does not pass on was written by a customer all the same: the agent shall see that it was.
            attachments = [attachment("unsupported")]
        answered = words(mapping(content, "reply_to"), "mid")
        return self.message(
            message_id=message_identifier(mid),
            text=cut(text),
            attachments=attachments[:MOST_ATTACHMENTS],
            in_reply_to=(message_identifier(answered),) if answered else (),
            **common,
        )

    def _postback(self, postback: Mapping[str, Any], common: dict[str, Any]) -> ChannelMessage:
        """A button that he pressed, by its title; the payload is of the app's own making, and rarely for reading."""
        text = words(postback, "title") or need_words(postback, "payload")
        return self.message(message_id=message_identifier(need_words(postback, "mid")), text=cut(text), **common)

    def _edit(self, edit: Mapping[str, Any], common: dict[str, Any]) -> ChannelMessage:
        mid = need_words(edit, "mid")
        return self.message(
            message_id=message_identifier(f"{mid}/edited/{need_words(edit, 'num_edit')}"),
            edits=message_identifier(mid),
            text=cut(words(edit, "text")),
            **common,
        )

    def _attachments(self, parts: Iterable[Mapping[str, Any]], mid: str) -> Iterator[Attachment]:
        seen: set[str] = set()
        for part in parts:
            kind, payload = words(part, "type") or "file", mapping(part, "payload")
            url = words(payload, "url") or words(part, "url")
            if url and url in seen:  # a sticker comes as `sticker` and, for apps of before, once more as `image`
                continue
            seen.add(url)
            if kind == "location":
                place = mapping(payload, "coordinates")
                yield attachment("location", about=(words(place, "lat"), words(place, "long")), url=url)
            elif kind == "fallback":  # a link that he shared
                yield attachment("link", about=(words(payload, "title") or words(part, "title"),), url=url)
            else:
                yield _file(kind, url, otherwise=self.graph_address(mid, "attachments"))

    # --- comments ---

    def _comment(self, value: Mapping[str, Any], notified_at: datetime) -> ChannelMessage | str:
        if words(value, "item") != "comment":
            return "feed"
        author = mapping(value, "from")
        if need_words(author, "id") == self.config.page_id:
            return "own_comment"
        comment_id, verb = need_words(value, "comment_id"), words(value, "verb")
        text, created = words(value, "message"), words(value, "created_time")
        common: dict[str, Any] = {
            "customer": {"id": words(author, "id"), "name": cut(words(author, "name"), MOST_SHORT_CHARACTERS) or None},
            "sent_at": moment(value.get("created_time"), notified_at) if verb in _ADDED else notified_at,
        }
        if verb in _REMOVED:
            return self.message(
                message_id=message_identifier(f"{comment_id}/removed"), deletes=message_identifier(comment_id), **common
            )
        common |= {"text": cut(text), "attachments": _pictures(value), "reply_to": f"{_COMMENT}{comment_id}"}
        if verb in _EDITED:
            # No number and no time of the edit are told, so its words tell it apart.
            edit = hashlib.sha256(text.encode()).hexdigest()[:16]
            return self.message(
                message_id=message_identifier(f"{comment_id}/edited/{created}/{edit}"),
                edits=message_identifier(comment_id),
                **common,
            )
        if verb not in _ADDED:
            return "comment"  # hidden, shown again
        parent = words(value, "parent_id")
        answers_a_comment = parent and parent != words(value, "post_id")
        return self.message(
            message_id=message_identifier(comment_id),
            in_reply_to=(message_identifier(parent),) if answers_a_comment else (),
            **common,
        )

    # --- replies ---

    async def send(self, reply: Reply, call: Call) -> Sent:
        if _comment_of(reply):
            if reply.is_acknowledgement and not self.config.acknowledge_comments:
                raise NotSent("a comment gets one private reply, which is kept for the agent's answer", hopeless=True)
            if utf16_units(reply.text.strip()) > self.most_units:
                raise NotSent(
                    f"a comment gets one private reply, of at most {self.most_units} characters", hopeless=True
                )
        return await super().send(reply, call)

    async def send_piece(self, reply: Reply, piece: str, call: Call, *, is_first: bool) -> str:
        comment = _comment_of(reply)
        path = f"{self.config.page_id}/messages"
        body = {
            "recipient": {"comment_id": comment} if comment else {"id": reply.customer_id},
            "messaging_type": "RESPONSE",
            "message": {"text": piece},
        }
        try:
            answer = await self.ask(call, path, body)
        except GraphRefused as refused:
            # When he last wrote is not known here: the refusal shows it. The tag is for what a person has written.
            is_late = refused.code == _OUTSIDE_OF_WINDOW and refused.hopeless
            if not is_late or comment or reply.is_acknowledgement or not self.config.human_agent_tag:
                raise
            answer = await self.ask(call, path, {**body, "messaging_type": "MESSAGE_TAG", "tag": "HUMAN_AGENT"})
        return message_identifier(words(answer, "message_id"))

    def is_hopeless(self, code: int, subcode: int) -> bool:
        return code in _HOPELESS_CODES or (code in _NOT_PERMITTED and subcode != 0)


def _comment_of(reply: Reply) -> str | None:
    """The comment that it answers."""
    if reply.reply_to is None or not reply.reply_to.startswith(_COMMENT):
        return None
    return reply.reply_to.removeprefix(_COMMENT)


def _file(kind: str, url: str, *, otherwise: str | None = None) -> Attachment:
    """By the name that stands in its address. One that is longer than ours may be gives way to `otherwise`."""
    try:
        name = PurePosixPath(unquote(urlsplit(url).path)).name
    except ValueError:
        name = ""
    media_type = mimetypes.guess_type(name)[0] or ""
    if kind == "audio":  # voice messages are .mp4
        media_type = media_type.replace("video/", "audio/", 1)
    return attachment(
        name if media_type else kind,
        media_type=media_type,
        url=url if len(url) <= MOST_SHORT_CHARACTERS else otherwise,
    )


def _pictures(value: Mapping[str, Any]) -> list[Attachment]:
    """What he added to his comment, and the post that it stands under."""
    files = [_file(kind, words(value, kind)) for kind in ("photo", "video") if words(value, kind)]
    post = words(mapping(value, "post"), "permalink_url")
    return [*files, attachment("post", url=post)] if post else files
