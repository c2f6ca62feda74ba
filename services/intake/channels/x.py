"""X: direct messages and mentions, by webhooks of the Account Activity API or the X Activity API."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, SecretStr, model_validator

from services.intake.channels import oauth1
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
    Malformed,
    address,
    cut,
    identifier,
    integer,
    iso_time,
    listed,
    mapping,
    milliseconds,
    objects,
    same,
    short,
    text,
    texts,
)
from services.intake.channels.pieces import Progress, split
from shared.events import ChannelMessage
from shared.events.channel import Attachment, Customer
from shared.taxonomy import Channel

_IGNORED: Final = MappingProxyType(
    {
        "favorite_events": "like",
        "follow_events": "follow",
        "unfollow_events": "follow",
        "block_events": "block",
        "unblock_events": "block",
        "mute_events": "block",
        "unmute_events": "block",
        "user_event": "revoke",
        "direct_message_indicate_typing_events": "typing",
        "direct_message_mark_read_events": "read",
    }
)
"""Kinds of events of the Account Activity API that are no message."""
_IGNORED_ACTIVITIES: Final = MappingProxyType(
    {
        "dm.sent": "own",
        "post.create": "own",
        "dm.read": "read",
        "dm.indicate_typing": "typing",
        "like.create": "like",
        "follow.follow": "follow",
        "follow.unfollow": "follow",
        "chat.sent": "own",
        "chat.received": "encrypted",
        "chat.conversation_join": "encrypted",
        "oauth.revoke": "revoke",
    }
)
"""The same of the X Activity API. What is `encrypted` can be read with the account's chat keys only."""
_MEDIA_TYPES: Final = MappingProxyType(
    {
        "photo": ("image/jpeg", "photo.jpg"),
        "video": ("video/mp4", "video.mp4"),
        "animated_gif": ("video/mp4", "gif.mp4"),
    }
)
_MOST_MEDIA: Final = 50
_NAME_OF_MEDIA: Final = re.compile(r"/([A-Za-z0-9_.-]{1,100}\.[A-Za-z0-9]{1,5})(?:[?:].*)?$")

_DM_MOST_CHARACTERS: Final = 10_000
_POST_MOST_WEIGHT: Final = 280
_LIGHT: Final = ((0, 4351), (8192, 8205), (8208, 8223), (8242, 8247))
"""Code points that count as one, all others as two: configuration 3 of twitter-text."""
_URL_WEIGHT: Final = 23
_URL: Final = re.compile(r"(?<![\w.-])(?:https?://)?[\w-]++(?:\.[\w-]++)+\S*", re.IGNORECASE)
"""With or without a scheme. Begins where a word does, so that a long word is not searched from each of its letters."""
_REPLY_TO: Final = re.compile(r"(dm|post):([0-9]{1,20})")
_PROBLEM: Final = re.compile(r"/problems/([a-z0-9-]{1,60})$")
_OPERATORS_PROBLEMS: Final = frozenset(
    {"client-forbidden", "oauth1-permissions", "unsupported-authentication", "usage-capped", "client-disconnected"}
)
_OPERATORS_CODES: Final = frozenset({32, 64, 89, 99, 135, 215, 220, 261, 326, 416, 453})
"""Errors that somebody can repair (keys, permissions, a locked account): another try may do."""


class XConfig(AdapterConfig):
    """`access_token` with `access_token_secret` signs as OAuth 1.0a; alone, it is a user's bearer token (OAuth 2.0)."""

    account_id: Annotated[str, Field(pattern=r"^[0-9]{1,20}$")]
    consumer_key: str | None = None
    consumer_secret: SecretStr
    access_token: SecretStr
    access_token_secret: SecretStr | None = None
    answer_mentions: Literal["post", "dm"] = "post"
    api_url: Annotated[str, Field(pattern=r"^https?://[^\s?#]+$")] = "https://api.x.com"

    @model_validator(mode="after")
    def _can_sign(self) -> Self:
        if self.access_token_secret is not None and self.consumer_key is None:
            raise ValueError("`access_token_secret` (OAuth 1.0a) needs `consumer_key` too")
        return self


class X(Adapter[XConfig]):
    provider = "x"
    channel = Channel.X
    config_type = XConfig

    def __init__(self, brand: str, config: XConfig) -> None:
        super().__init__(brand, config)
        self._progress = Progress()

    def receive(self, request: ChannelRequest) -> Answer:
        need_method(request, "GET", "POST")
        if request.method == "GET":
            return self._challenge(request)
        given = request.headers.get("x-twitter-webhooks-signature", "")
        if not same(given, self._signature(request.body)):
            raise Refused(401, "signature", "x-twitter-webhooks-signature is missing or wrong; see consumer_secret")
        body = json_object(request.body)
        found = _Found()
        if mapping(body, "data"):
            self._activity(mapping(body, "data"), request.received_at, found)
        else:
            self._account_activity(body, found)
        return Answer(messages=tuple(found.messages), ignored=tuple(found.ignored))

    def _challenge(self, request: ChannelRequest) -> Answer:
        token = request.query.get("crc_token", "")
        if not token:
            raise Malformed("crc_token is missing: this address answers X's challenge and takes its webhooks")
        answer = {"response_token": self._signature(token.encode("utf-8", "surrogatepass"))}
        return Answer(body=json.dumps(answer), media_type="application/json")

    def _signature(self, content: bytes) -> str:
        digest = hmac.new(self.config.consumer_secret.get_secret_value().encode(), content, hashlib.sha256).digest()
        return "sha256=" + base64.b64encode(digest).decode()

    def _account_activity(self, body: Mapping[str, Any], found: _Found) -> None:
        """The events of one delivery of the Account Activity API, each kind in a list of its own."""
        if "user_event" not in body and text(body, "for_user_id") != self.config.account_id:
            found.ignored.append("other_account")
            return
        users = mapping(body, "users")
        for name in body:
            if name == "direct_message_events":
                found.add(listed(body, name), lambda event: self._direct_message(event, users))
            elif name == "tweet_create_events":
                found.add(listed(body, name), self._post_v1)
            elif name == "tweet_delete_events":
                found.add(listed(body, name), self._deletion_v1)
            elif name in _IGNORED:
                found.ignored.extend([_IGNORED[name]] * max(1, len(listed(body, name))))
            elif name.endswith(("_event", "_events")):
                found.ignored.append("unknown")

    def _activity(self, data: Mapping[str, Any], received_at: datetime, found: _Found) -> None:
        """The one event of a delivery of the X Activity API."""
        kind, payload = text(data, "event_type"), mapping(data, "payload")
        if text(data, "filter", "user_id") != self.config.account_id:
            found.ignored.append("other_account")
        elif kind == "dm.received":
            users = {name: mapping(user, "data") for name, user in mapping(payload, "users").items()}
            found.add(listed(payload, "direct_message_events"), lambda event: self._direct_message(event, users))
        elif kind == "post.mention.create":
            found.add([payload], lambda post: self._post_v2(post, mapping(data, "includes")))
        elif kind == "post.delete":
            found.add(
                [payload], lambda post: self._deletion(identifier(post, "id"), text(post, "author_id"), received_at)
            )
        else:
            found.ignored.append(_IGNORED_ACTIVITIES.get(kind, "unknown"))

    def _direct_message(self, event: Mapping[str, Any], users: Mapping[str, Any]) -> ChannelMessage | str:
        if text(event, "type") != "message_create":
            return "unknown"
        sender = identifier(event, "message_create", "sender_id")
        if sender == self.config.account_id:
            return "own"
        if text(event, "message_create", "target", "recipient_id") != self.config.account_id:
            return "other_account"
        content = mapping(event, "message_create", "message_data")
        media = [mapping(content, "attachment", "media")] if text(content, "attachment", "type") == "media" else []
        return self.message(
            message_id=identifier(event, "id"),
            customer=Customer(id=sender, name=short(users, sender, "name")),
            text=_plain(content, "text", objects(content, "entities", "urls"), media),
            sent_at=milliseconds(_number(event, "created_timestamp")),
            reply_to=f"dm:{sender}",
            attachments=_attachments(media),
        )

    def _post_v1(self, post: Mapping[str, Any]) -> ChannelMessage | str:
        """A Tweet object of API v1.1; what is too long for its `text` stands in `extended_tweet`."""
        author = identifier(post, "user", "id_str")
        if author == self.config.account_id:
            return "own"
        if mapping(post, "retweeted_status"):
            return "repost"
        whole = mapping(post, "extended_tweet") or post
        addressed = {text(mention, "id_str") for mention in objects(whole, "entities", "user_mentions")}
        if self.config.account_id not in addressed | {text(post, "in_reply_to_user_id_str")}:
            return "post"
        media = list(objects(whole, "extended_entities", "media")) or list(objects(whole, "entities", "media"))
        versions = texts(post, "edit_history", "edit_tweet_ids")
        return self._mention(
            identifier(post, "id_str"),
            Customer(id=author, name=short(post, "user", "name")),
            _plain(whole, "full_text" if "full_text" in whole else "text", objects(whole, "entities", "urls"), media),
            _v1_time(text(post, "created_at")),
            answers=text(post, "in_reply_to_status_id_str"),
            versions=versions,
            media=media,
        )

    def _post_v2(self, post: Mapping[str, Any], includes: Mapping[str, Any]) -> ChannelMessage | str:
        """A Post object of API v2; what is too long for its `text` stands in `note_tweet`."""
        author = identifier(post, "author_id")
        if author == self.config.account_id:
            return "own"
        referenced = {text(one, "type"): text(one, "id") for one in objects(post, "referenced_tweets")}
        if "retweeted" in referenced:
            return "repost"
        name = next((short(user, "name") for user in objects(includes, "users") if text(user, "id") == author), None)
        keys = set(texts(post, "attachments", "media_keys"))
        media = [one for one in objects(includes, "media") if text(one, "media_key") in keys]
        whole = mapping(post, "note_tweet") or post
        return self._mention(
            identifier(post, "id"),
            Customer(id=author, name=name),
            _plain(whole, "text", objects(whole, "entities", "urls"), media),
            iso_time(text(post, "created_at")),
            answers=referenced.get("replied_to", ""),
            versions=texts(post, "edit_history_tweet_ids"),
            media=media,
        )

    def _mention(
        self,
        post_id: str,
        customer: Customer,
        words: str,
        sent_at: datetime,
        *,
        answers: str,
        versions: list[str],
        media: list[Mapping[str, Any]],
    ) -> ChannelMessage:
        # An edited post is a new post with a new id, which names all earlier ones, the first one first.
        earlier = versions[0] if versions and versions[0] != post_id and versions[0].isdecimal() else None
        return self.message(
            message_id=post_id,
            customer=customer,
            text=words,
            sent_at=sent_at,
            reply_to=f"post:{post_id}",
            attachments=_attachments(media),
            in_reply_to=(answers,) if answers.isdecimal() else (),
            edits=earlier,
        )

    def _deletion_v1(self, event: Mapping[str, Any]) -> ChannelMessage | str:
        status = mapping(event, "status")
        return self._deletion(
            identifier(status, "id"), text(status, "user_id"), milliseconds(_number(event, "timestamp_ms"))
        )

    def _deletion_v2(self, post: Mapping[str, Any], received_at: datetime) -> ChannelMessage | str:
        """Its payload does not tell the time."""
        return self._deletion(identifier(post, "id"), text(post, "author_id"), received_at)

    def _deletion(self, post_id: str, author: str, at: datetime) -> ChannelMessage | str:
        if author == self.config.account_id:
            return "own"
        return self.message(
            message_id=f"{post_id}/deleted",
            customer=Customer(id=identifier({"author": author}, "author")),
            sent_at=at,
            reply_to=f"post:{post_id}",
            deletes=post_id,
        )

    async def send(self, reply: Reply, call: Call) -> Sent:
        found = _REPLY_TO.fullmatch(reply.reply_to or "")
        if found is None:
            raise NotSent("the ticket has no address at X that an answer could go to", hopeless=True)
        kind, target = found.groups()
        if kind == "post" and self.config.answer_mentions == "dm":
            kind, target = "dm", reply.customer_id
            if not target.isdecimal():
                raise NotSent("the customer's id is no user of X", hopeless=True)

        async def message(piece: str, _: str | None) -> str:
            url = f"{self._api_url}/2/dm_conversations/with/{target}/messages"
            return await self._post(call, url, {"text": piece}, "dm_event_id")

        async def post(piece: str, before: str | None) -> str:
            body = {"text": piece, "reply": {"in_reply_to_tweet_id": before or target}}
            return await self._post(call, f"{self._api_url}/2/tweets", body, "id")

        if kind == "dm":
            return await self._progress.send(reply.notification_id, split(reply.text, _DM_MOST_CHARACTERS), message)
        return await self._progress.send(reply.notification_id, split(reply.text, _POST_MOST_WEIGHT, weight), post)

    @property
    def _api_url(self) -> str:
        return self.config.api_url.rstrip("/")

    async def _post(self, call: Call, url: str, body: Mapping[str, Any], name_of_id: str) -> str:
        answer = await call(ProviderRequest("POST", url, {"Authorization": self._authorization(url)}, json=body))
        if answer.status not in (200, 201):
            raise _not_sent(answer)
        return text(answer.json(), "data", name_of_id)

    def _authorization(self, url: str) -> str:
        token = self.config.access_token.get_secret_value()
        if self.config.access_token_secret is None:
            return f"Bearer {token}"
        credentials = oauth1.Credentials(
            self.config.consumer_key or "",
            self.config.consumer_secret.get_secret_value(),
            token,
            self.config.access_token_secret.get_secret_value(),
        )
        nonce, now = secrets.token_hex(16), int(time.time())
        return oauth1.authorization(credentials, "POST", url, nonce=nonce, timestamp=now, parameters={})


class _Found:
    """What a delivery holds. A broken entry loses none of the others."""

    def __init__(self) -> None:
        self.messages: list[ChannelMessage] = []
        self.ignored: list[str] = []

    def add(self, events: Iterable[Any], read: Callable[[Mapping[str, Any]], ChannelMessage | str]) -> None:
        """`read` makes of an event a message, or says by which name it is ignored."""
        for event in events:
            try:
                made = read(event if isinstance(event, dict) else {})
            except Refused:
                made = "malformed"
            if isinstance(made, str):
                self.ignored.append(made)
            else:
                self.messages.append(made)


def weight(words: str) -> int:
    """The length of a post as X counts it, or more: an address counts as 23, and as itself where that is more."""
    plain = sum(map(_weight_of, words))
    return plain + sum(max(0, _URL_WEIGHT - sum(map(_weight_of, url))) for url in _URL.findall(words))


def _weight_of(character: str) -> int:
    point = ord(character)
    return 1 if any(first <= point <= last for first, last in _LIGHT) else 2


def _plain(
    holder: Mapping[str, Any], name: str, urls: Iterable[Mapping[str, Any]], media: Iterable[Mapping[str, Any]]
) -> str:
    """The words as they were typed: `&`, `<` and `>` unescaped, X's short links replaced by what they lead to, and
    those to the attached media left out.
    """
    words = text(holder, name).replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    shown = {text(one, "url"): "" for one in media}
    for one in urls:
        shown.setdefault(text(one, "url"), text(one, "expanded_url"))
        if text(one, "media_key"):
            shown[text(one, "url")] = ""
    links = sorted(filter(None, shown), key=len, reverse=True)
    if links:
        words = re.sub("|".join(map(re.escape, links)), lambda found: shown[found[0]], words)
    return cut(words.strip())


def _attachments(media: Iterable[Mapping[str, Any]]) -> tuple[Attachment, ...]:
    attachments = []
    for one in media:
        media_type, name = _MEDIA_TYPES.get(text(one, "type"), ("application/octet-stream", "file"))
        url = _video(one) or address(one, "media_url_https") or address(one, "url") or address(one, "preview_image_url")
        named = _NAME_OF_MEDIA.search(url or "")
        attachments.append(Attachment(name=named[1] if named else name, media_type=media_type, url=url))
    return tuple(attachments[:_MOST_MEDIA])


def _video(media: Mapping[str, Any]) -> str | None:
    """The best of a video's variants (v1.1: in `video_info`; v2: directly)."""
    variants = [*objects(media, "video_info", "variants"), *objects(media, "variants")]
    playable = [one for one in variants if text(one, "content_type") == "video/mp4" and address(one, "url")]
    best = max(playable, key=lambda one: integer(one, "bitrate") or integer(one, "bit_rate") or 0, default=None)
    return address(best, "url")


def _number(holder: Mapping[str, Any], name: str) -> int | None:
    """A whole number that is written as a string."""
    found = text(holder, name)
    return int(found) if re.fullmatch(r"[0-9]{1,15}", found) else None


def _v1_time(value: str) -> datetime:
    """`Wed Oct 10 20:19:24 +0000 2018`."""
    try:
        return datetime.strptime(value, "%a %b %d %H:%M:%S %z %Y").astimezone(UTC)
    except (ValueError, OverflowError):
        raise Malformed("created_at is missing, or no time") from None


def _not_sent(answer: ProviderAnswer) -> NotSent:
    content = answer.json()
    problem = _PROBLEM.search(text(content, "type"))
    codes = [code for one in objects(content, "errors") if (code := integer(one, "code")) is not None]
    named = [*map(str, codes[:3]), *([problem[1]] if problem else [])]
    detail = f"X answered {answer.status}" + (f" ({', '.join(named)})" if named else "")
    repairable = not _OPERATORS_CODES.isdisjoint(codes) or (problem and problem[1] in _OPERATORS_PROBLEMS)
    hopeless = answer.status in (400, 404, 410, 413, 422) or (answer.status == 403 and not repairable)
    reset = answer.headers.get("x-rate-limit-reset", "")
    wait = float(reset) - time.time() if re.fullmatch(r"[0-9]{1,12}", reset) and answer.status == 429 else None
    return NotSent(detail, hopeless=hopeless, retry_after_seconds=None if wait is None else max(0.0, wait))
