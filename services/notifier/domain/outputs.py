"""Where a notification goes: what `notifications.yaml` and brands' files may say, and which output that leads to."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator

from services.notifier.domain.texts import OwnTexts
from shared.brands import DEFAULT, BrandFile, BrandReach, Name, PeopleByQueue
from shared.events import EscalationLevel, Output
from shared.taxonomy import Channel, Language, Queue
from shared.yaml_files import Fault, refused

MAIL_ENDPOINT: Final = "mail"
"""Endpoint name of the mail server: one host, one limit, like an endpoint of webhooks."""

_MAX_ADDRESS_CHARACTERS: Final = 254  # RFC 5321, 4.5.3.1.3
_MAX_URL_CHARACTERS: Final = 2000
# What every mail server takes. Quoted local parts and characters outside ASCII are left to the brand's gateway.
_ADDRESS: Final = re.compile(
    r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,63}"
)
_SHORTEST_KEY_BYTES: Final = 24  # Standard Webhooks 1.0, "signature scheme": 24 to 64 bytes
_LONGEST_KEY_BYTES: Final = 64


def is_mail_address(value: str | None) -> bool:
    return value is not None and len(value) <= _MAX_ADDRESS_CHARACTERS and _ADDRESS.fullmatch(value) is not None


def _mail_address(value: str) -> str:
    if not is_mail_address(value):
        raise ValueError("is not an e-mail address of the form name@host.example")
    return value


def _time_zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (OSError, ValueError, KeyError):  # ZoneInfoNotFoundError is a KeyError
        raise ValueError("is not an IANA time zone such as Asia/Shanghai") from None
    return value


def _url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or len(value) > _MAX_URL_CHARACTERS:
        raise ValueError("is not an http or https URL with a host")
    if parts.username or parts.password or parts.fragment:
        raise ValueError("must not carry a user, a password or a fragment")
    return value


def _signing_key(secret: SecretStr) -> SecretStr:
    try:
        key = base64.b64decode(secret.get_secret_value().removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("is not base64; make one with `openssl rand -base64 32`") from None
    if not _SHORTEST_KEY_BYTES <= len(key) <= _LONGEST_KEY_BYTES:
        raise ValueError(
            f"must be {_SHORTEST_KEY_BYTES} to {_LONGEST_KEY_BYTES} bytes in base64; "
            "make one with `openssl rand -base64 32`"
        )
    return secret


MailAddress = Annotated[str, AfterValidator(_mail_address)]
Secret = Annotated[SecretStr, AfterValidator(_signing_key)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Endpoint(_Part):
    """A receiver of webhooks. All secrets sign, so that a receiver can change over in its own time."""

    url: Annotated[str, AfterValidator(_url)]
    secrets: Annotated[tuple[Secret, ...], Field(min_length=1, max_length=4)]


class Person(_Part):
    """Who may be told of promises that are late, or a room of such people: by webhook, by mail, or both."""

    endpoint: Name | None = None
    mail: tuple[MailAddress, ...] = ()
    language: Literal[Language.ZH, Language.EN] = Language.EN
    timezone: Annotated[str, AfterValidator(_time_zone)] = "UTC"

    @model_validator(mode="after")
    def _is_reachable(self) -> Self:
        if self.endpoint is None and not self.mail:
            raise ValueError("needs `endpoint`, `mail` or both")
        return self


TextsByLanguage = Mapping[Literal[Language.ZH, Language.EN], OwnTexts]


class Brand(BrandReach):
    mail_from: MailAddress
    texts: TextsByLanguage = Field(default_factory=dict)

    @property
    def people(self) -> Mapping[EscalationLevel, PeopleByQueue]:
        return {
            EscalationLevel.LEAD: self.leads,
            EscalationLevel.HEAD: self.heads,
            EscalationLevel.ON_CALL: self.on_call,
        }


class NotifierBrand(BrandFile):
    """A brand's file as the notifier reads it."""

    mail_from: MailAddress
    texts: TextsByLanguage = Field(default_factory=dict)

    def as_brand(self) -> Brand:
        return Brand(**{field: getattr(self, field) for field in Brand.model_fields if field in self.model_fields_set})


class Outputs(_Part):
    """`notifications.yaml`, and the `brands` that have a file of their own; any other is treated as `default_brand`."""

    mail_channels: frozenset[Channel]
    endpoints: Mapping[Name, Endpoint]
    people: Mapping[Name, Person]
    default_brand: Brand
    brands: Mapping[str, Brand] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _refers_to_what_is_there(self) -> Self:
        faults: list[Fault] = []
        if MAIL_ENDPOINT in self.endpoints:
            faults.append((("endpoints", MAIL_ENDPOINT), "the name is taken by the mail server"))
        faults += [
            (("people", name, "endpoint"), f"no endpoint {person.endpoint}")
            for name, person in self.people.items()
            if person.endpoint is not None and person.endpoint not in self.endpoints
        ]
        faults += [(("default_brand", *field), why) for field, why in self.faults_of(self.default_brand)]
        if faults:
            raise refused(faults)
        return self

    def faults_of(self, brand: BrandReach) -> list[Fault]:
        """Where it names an endpoint or a person that is not there, or nobody at all."""
        faults: list[Fault] = [
            (("gateways", channel), f"no endpoint {endpoint}")
            for channel, endpoint in brand.gateways.items()
            if endpoint not in self.endpoints
        ]
        faults += [
            ((section, queue, number), f"no person {name}")
            for section, by_queue in (("leads", brand.leads), ("heads", brand.heads), ("on_call", brand.on_call))
            for queue, names in by_queue.items()
            for number, name in enumerate(names)
            if name not in self.people
        ]
        if not brand.leads[DEFAULT]:
            faults.append((("leads", DEFAULT), "name somebody: escalations end here"))
        return faults

    def brand(self, code: str) -> Brand:
        return self.brands.get(code) or self.default_brand

    @property
    def endpoint_names(self) -> tuple[str, ...]:
        return (MAIL_ENDPOINT, *sorted(self.endpoints))


@dataclass(frozen=True, slots=True)
class Route:
    """`recipient`: a mail address, a person's name, or the address that the channel knows the customer by."""

    output: Output
    endpoint: str
    recipient: str


def customer_route(
    outputs: Outputs,
    *,
    brand: str,
    channel: Channel,
    customer_id: str,
    email: str | None = None,
    reply_to: str | None = None,
) -> Route:
    """Mail for the channels of mail when an address is known, else the brand's gateway for the channel."""
    if channel in outputs.mail_channels:
        for address in (reply_to, email, customer_id):
            if address is not None and is_mail_address(address):
                return Route(Output.MAIL, MAIL_ENDPOINT, address)
    gateways = outputs.brand(brand).gateways
    return Route(Output.WEBHOOK, gateways.get(channel) or gateways["default"], reply_to or customer_id)


def lead_routes(outputs: Outputs, *, brand: str, queue: Queue | None) -> list[tuple[Person, Route]]:
    """Every way to every lead of the brand's queue; the brand's default leads while the ticket has no queue."""
    return _routes(outputs, _named(outputs.brand(brand).leads, queue))


def escalation_routes(
    outputs: Outputs, *, brand: str, queue: Queue | None, level: EscalationLevel
) -> tuple[EscalationLevel, list[tuple[Person, Route]]]:
    """The level that is really called, and every way to everybody on it.

    Where the brand names nobody on `level`, the next lower one is called instead; where a queue has no lead either, the
    brand's default leads. So somebody always is.
    """
    people = outputs.brand(brand).people
    levels = list(EscalationLevel)
    for called in reversed(levels[: levels.index(level) + 1]):
        if names := _named(people[called], queue):
            return called, _routes(outputs, names)
    return EscalationLevel.LEAD, _routes(outputs, people[EscalationLevel.LEAD]["default"])


def _named(people: PeopleByQueue, queue: Queue | None) -> tuple[str, ...]:
    otherwise = people.get("default", ())
    return otherwise if queue is None else people.get(queue, otherwise)


def _routes(outputs: Outputs, names: Sequence[str]) -> list[tuple[Person, Route]]:
    routes = []
    for name in dict.fromkeys(names):
        person = outputs.people[name]
        if person.endpoint is not None:
            routes.append((person, Route(Output.WEBHOOK, person.endpoint, name)))
        routes.extend((person, Route(Output.MAIL, MAIL_ENDPOINT, address)) for address in dict.fromkeys(person.mail))
    return routes


_AUTOMATIC_SENDERS: Final = frozenset(
    {"mailer-daemon", "postmaster", "noreply", "no-reply", "donotreply", "do-not-reply", "bounce", "bounces"}
)


def is_automatic_sender(address: str) -> bool:
    """Whether nobody reads this mailbox: answering it answers a machine, which may answer back for ever."""
    local = address.partition("@")[0].lower()
    return re.split(r"[+=]", local)[0] in _AUTOMATIC_SENDERS
