"""The interface of all channel adapters, and what they have in common.

`receive` turns one request of the provider into its answer and the messages in it. It is pure: no clock, no network, no
database; so support engineers can replay a request (`python -m services.intake parse`), and so can tests. `send` makes
one try to hand an answer to the provider, over a connection that it is given.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Final, Generic, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, ValidationError

from shared.cloudevents import describe
from shared.events import ChannelMessage
from shared.taxonomy import Channel, Language

MOST_NESTING: Final = 40
"""Deepest JSON that is read: providers nest to about ten."""


@dataclass(frozen=True, slots=True)
class ChannelRequest:
    """One HTTP request of a provider. Names of headers are in lower case; of a query field given twice, the first.

    `url` is the public address that the provider asked, without its query. `client` is the network address that asked.
    """

    method: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    received_at: datetime
    url: str = ""
    client: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the provider is told once the messages are stored, and what was in its request.

    `ignored` names the kinds of events that were understood and are no message of a customer (a receipt, a kind that is
    newer than this adapter): they are counted, and answered like all others, or the provider would send them for ever.
    """

    status: int = 200
    body: str = ""
    media_type: str = "text/plain"
    headers: Mapping[str, str] = field(default_factory=dict)
    messages: tuple[ChannelMessage, ...] = ()
    ignored: tuple[str, ...] = ()


class Refused(Exception):
    """The request is not accepted, nothing of it is kept.

    `reason` is one of a few words, for the metrics (`signature`, `malformed`, `invalid`, `stale`, `method`); `detail`
    says what is wrong and what to do, and quotes nothing of the request.
    """

    def __init__(self, status: int, reason: str, detail: str) -> None:
        super().__init__(f"{status} {reason}: {detail}")
        self.status = status
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Reply:
    """A text on its way to a customer. `reply_to` is what the adapter wrote into his message; `notification_id` is the
    same at every try.
    """

    notification_id: UUID
    ticket_id: UUID | None
    customer_id: str
    reply_to: str | None
    text: str
    language: Language
    is_acknowledgement: bool
    at: datetime


@dataclass(frozen=True, slots=True)
class Sent:
    """The provider has taken the reply. `message_ids` are its ids of it: a customer's answer may name one."""

    message_ids: tuple[str, ...] = ()


class NotSent(Exception):
    """The provider has not taken the reply. `detail` has its codes, never text of the message.

    `hopeless`: it never will (the customer has blocked the brand, its time for answers is over).
    """

    def __init__(self, detail: str, *, hopeless: bool = False, retry_after_seconds: float | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.hopeless = hopeless
        self.retry_after_seconds = retry_after_seconds


@dataclass(frozen=True, slots=True)
class ProviderRequest:
    """A request to a provider's API. `json` is sent as JSON, `form` as a form, `body` as it is; at most one of them."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    json: Any = None
    form: Mapping[str, str] | None = None
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class ProviderAnswer:
    """Names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, or None when it is no JSON."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None


Call = Callable[[ProviderRequest], Awaitable[ProviderAnswer]]
"""Asks a provider, with a time-out and without following redirects. Raises NotSent when there is no answer."""


class AdapterConfig(BaseModel):
    """What a brand's file says of a channel's adapter. Secrets are `SecretStr`, filled from the environment."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


C = TypeVar("C", bound=AdapterConfig)


class Adapter(ABC, Generic[C]):
    """One provider's account of one brand."""

    provider: ClassVar[str]
    """Its name in addresses (`/v1/channels/<provider>/<brand>`) and in brands' files."""
    channel: ClassVar[Channel]
    config_type: ClassVar[type[AdapterConfig]]

    def __init__(self, brand: str, config: C) -> None:
        self.brand = brand
        self.config = config

    @abstractmethod
    def receive(self, request: ChannelRequest) -> Answer:
        """What is in the request, and what to answer. Raises Refused."""

    @abstractmethod
    async def send(self, reply: Reply, call: Call) -> Sent:
        """One try to hand a reply to the provider. Raises NotSent."""

    def message(self, **fields: Any) -> ChannelMessage:
        """A message of this brand and channel. Raises Refused when what the provider sent breaks the contract."""
        try:
            return ChannelMessage(brand=self.brand, channel=self.channel, **fields)
        except ValidationError as error:
            raise Refused(422, "invalid", describe(error)) from None


def json_object(body: bytes) -> dict[str, Any]:
    """The JSON object in a request's body. Raises Refused: not JSON, no object, nested too deeply."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise Refused(400, "malformed", "the body is not JSON") from None
    if not isinstance(content, dict):
        raise Refused(400, "malformed", "the body is not a JSON object")
    if _is_deep(content):
        raise Refused(400, "malformed", f"the body is nested deeper than {MOST_NESTING}")
    return content


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MOST_NESTING):
        level = [
            item
            for holder in level
            for item in (holder.values() if isinstance(holder, dict) else holder)
            if isinstance(item, dict | list)
        ]
        if not level:
            return False
    return True


def need_method(request: ChannelRequest, *methods: str) -> None:
    """Raises Refused for a method that the provider does not use."""
    if request.method not in methods:
        raise Refused(405, "method", f"send {' or '.join(methods)}")
