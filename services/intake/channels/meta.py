"""What Messenger and WhatsApp share: both are products of one Meta app, and its webhooks and its Graph API work alike.

Webhooks: https://developers.facebook.com/docs/graph-api/webhooks/getting-started
Errors: https://developers.facebook.com/docs/graph-api/guides/error-handling
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Final, TypeVar
from urllib.parse import quote

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
    MOST_ID_CHARACTERS,
    MOST_SHORT_CHARACTERS,
    Malformed,
    cut,
    integer,
    mapping,
    objects,
)
from services.intake.channels.pieces import Progress, split, utf16_units
from shared.events import Attachment, ChannelMessage

MALFORMED: Final = "malformed"
MOST_ATTACHMENTS: Final = 50
_MILLISECONDS_FROM: Final = 100_000_000_000
"""Seconds since 1970 stay below until the year 5138, milliseconds have been above since 1973."""

Secret = Annotated[SecretStr, Field(min_length=1)]


class MetaConfig(AdapterConfig):
    """`verify_token` is of our own choice. `app_secret_previous` may be empty: it is for the days in which the app's
    secret is changed.
    """

    app_secret: Secret
    app_secret_previous: SecretStr | None = None
    verify_token: Secret
    access_token: Secret
    api_url: Annotated[str, Field(pattern=r"^https?://[^\s?#]*[^\s?#/]$")] = "https://graph.facebook.com"
    api_version: Annotated[str, Field(pattern=r"^v[0-9]{1,3}\.[0-9]{1,2}$")] = "v26.0"


C = TypeVar("C", bound=MetaConfig)


class Batch:
    """What was found in a request: Meta puts up to 1,000 events into one."""

    def __init__(self) -> None:
        self.messages: list[ChannelMessage] = []
        self.ignored: list[str] = []

    def read(self, events: object, read: Callable[[Mapping[str, Any]], ChannelMessage | str]) -> None:
        """`read` makes a message of an event, or names its kind. An event that is broken does not lose the others."""
        if not isinstance(events, list):
            self.ignored.append(MALFORMED)
            return
        for event in events:
            try:
                found = read(event) if isinstance(event, dict) else MALFORMED
            except Refused:
                found = MALFORMED
            if isinstance(found, str):
                self.ignored.append(found)
            else:
                self.messages.append(found)


class GraphRefused(NotSent):
    """The Graph API has answered with an error. `code` and `subcode` are 0 where it gave none."""

    def __init__(self, answer: ProviderAnswer, code: int, subcode: int, *, hopeless: bool) -> None:
        super().__init__(
            f"Graph API {answer.status}, code {code}, subcode {subcode}",
            hopeless=hopeless,
            retry_after_seconds=_retry_after_seconds(answer.headers),
        )
        self.code = code
        self.subcode = subcode


class MetaAdapter(Adapter[C]):
    topic: ClassVar[str]
    """The `object` of its webhooks."""
    most_units: ClassVar[int]
    """Longest text of a message. Meta says "characters" and not which: UTF-16 has the most of them."""

    def __init__(self, brand: str, config: C) -> None:
        super().__init__(brand, config)
        self._progress = Progress()

    def receive(self, request: ChannelRequest) -> Answer:
        need_method(request, "GET", "POST")
        if request.method == "GET":
            return self._challenge(request.query)
        self._need_signature(request)
        content = json_object(request.body)
        entries = content.get("entry")
        if not isinstance(entries, list):
            raise Refused(400, "malformed", "`entry` is not a list")
        batch = Batch()
        if content.get("object") != self.topic:
            batch.ignored.append("foreign_object")
        else:
            for entry in entries:
                if isinstance(entry, dict):
                    self.read_entry(entry, batch, request.received_at)
                else:
                    batch.ignored.append(MALFORMED)
        return Answer(body="EVENT_RECEIVED", messages=tuple(batch.messages), ignored=tuple(batch.ignored))

    @abstractmethod
    def read_entry(self, entry: Mapping[str, Any], batch: Batch, received_at: datetime) -> None:
        """Reads all events of an entry into the batch. Raises nothing."""

    def _challenge(self, query: Mapping[str, str]) -> Answer:
        challenge = query.get("hub.challenge", "")
        if query.get("hub.mode") != "subscribe" or not challenge:
            raise Refused(400, "malformed", "no `hub.mode=subscribe` with a `hub.challenge`")
        if not _same(query.get("hub.verify_token", ""), self.config.verify_token.get_secret_value()):
            raise Refused(403, "signature", "`hub.verify_token` is not the `verify_token` of the brand's file")
        return Answer(body=challenge)

    def _need_signature(self, request: ChannelRequest) -> None:
        claimed = request.headers.get("x-hub-signature-256", "")
        for secret in (self.config.app_secret, self.config.app_secret_previous):
            if secret is None or not secret.get_secret_value():
                continue
            signature = hmac.new(secret.get_secret_value().encode(), request.body, hashlib.sha256).hexdigest()
            if _same(claimed, f"sha256={signature}"):
                return
        raise Refused(401, "signature", "X-Hub-Signature-256 is missing, or not made with the app's secret")

    async def send(self, reply: Reply, call: Call) -> Sent:
        async def send_piece(piece: str, before: str | None) -> str:
            return await self.send_piece(reply, piece, call, is_first=before is None)

        pieces = split(reply.text, self.most_units, utf16_units)
        return await self._progress.send(reply.notification_id, pieces, send_piece)

    @abstractmethod
    async def send_piece(self, reply: Reply, piece: str, call: Call, *, is_first: bool) -> str:
        """The provider's id of the message that it has taken, or "" where it tells none. Raises NotSent."""

    @abstractmethod
    def is_hopeless(self, code: int, subcode: int) -> bool:
        """Whether no later try can do better. False for codes that are unknown, and for what the operator can mend."""

    async def ask(self, call: Call, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """POSTs to the Graph API. Raises GraphRefused.

        The token goes into a header, where the documentation of Messenger has it in the address: addresses are logged.
        """
        answer = await call(
            ProviderRequest(
                "POST",
                f"{self.config.api_url}/{self.config.api_version}/{path}",
                headers={"Authorization": f"Bearer {self.config.access_token.get_secret_value()}"},
                json=body,
            )
        )
        content = answer.json()
        if isinstance(content, dict) and "error" not in content and 200 <= answer.status < 300:
            return content
        code, subcode = (integer(content, "error", name) or 0 for name in ("code", "error_subcode"))
        raise GraphRefused(answer, code, subcode, hopeless=self.is_hopeless(code, subcode))

    def graph_address(self, *path: str) -> str:
        """Of something that the Graph API gives out, with the access token."""
        parts = (quote(part, safe="") for part in path)
        return "/".join((self.config.api_url, self.config.api_version, *parts))


def _same(claimed: str, expected: str) -> bool:
    return hmac.compare_digest(claimed.encode(errors="replace"), expected.encode())


def _retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """`Retry-After`, else the longest time that the usage of a business use case is said to take to calm down."""
    seconds = headers.get("retry-after", "")
    if re.fullmatch(r"[0-9]{1,6}", seconds):
        return float(seconds)
    try:
        usage = json.loads(headers.get("x-business-use-case-usage", "{}"))
    except (ValueError, RecursionError):
        return None
    minutes = [
        integer(use, "estimated_time_to_regain_access") or 0
        for business in mapping({"": usage}, "")
        for use in objects(usage, business)
    ]
    longest = max(minutes, default=0)
    return min(longest, 24 * 60) * 60.0 if longest > 0 else None


# --- reading ------------------------------------------------------------------------------------


def words(holder: Mapping[str, Any], name: str) -> str:
    """A text, or a number as one; else "". Halves of surrogate pairs, which UTF-8 cannot carry, become "?"."""
    value = holder.get(name)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return value.encode(errors="replace").decode().strip() if isinstance(value, str) else ""


def need_words(holder: Mapping[str, Any], name: str) -> str:
    """Raises Malformed when there is none."""
    value = words(holder, name)
    if not value:
        raise Malformed(f"{name}: is missing")
    return value


def message_identifier(value: str) -> str:
    """As it is, or a digest of an id that is longer than ids may be: it still tells messages apart, and is the same
    wherever the id occurs.
    """
    if len(value) <= MOST_ID_CHARACTERS:
        return value
    return f"sha256:{hashlib.sha256(value.encode()).hexdigest()}"


def moment(value: object, otherwise: datetime) -> datetime:
    """A time in seconds or milliseconds since 1970, as number or text; `otherwise` where it is none."""
    try:
        number = int(value) if isinstance(value, int | float | str) else -1
        if number < 0:
            return otherwise
        return datetime.fromtimestamp(number / 1000 if number >= _MILLISECONDS_FROM else number, UTC)
    except (ValueError, OverflowError, OSError):
        return otherwise


def attachment(name: str, *, about: Iterable[str] = (), media_type: str = "", url: str | None = None) -> Attachment:
    """`about` says more of what has no file of its own: a place, a person. An address that is too long is left out: cut
    short it would lead nowhere.
    """
    # A name is shown from its last slash on.
    more = ", ".join(part for part in about if part).replace("/", "-").replace("\\", "-")
    return Attachment(
        name=cut(f"{name} ({more})" if more else name, MOST_SHORT_CHARACTERS),
        media_type=cut(media_type, MOST_SHORT_CHARACTERS) or "application/octet-stream",
        url=url if url and len(url) <= MOST_SHORT_CHARACTERS else None,
    )
