"""What every event has in common: a type with a version, a deterministic id, a key, a time."""

from __future__ import annotations

import re
import uuid
from datetime import datetime
from typing import Annotated, ClassVar, Final

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, StringConstraints

# Every id of the project is a UUIDv5 in this namespace (itself uuid5 of the DNS namespace and "switchyard").
NAMESPACE: Final = uuid.uuid5(uuid.NAMESPACE_DNS, "switchyard")


def derive_id(step: str, *cause: object) -> uuid.UUID:
    """The id of what `step` makes of `cause`: the same cause gives the same id, on any replica, any number of times.

    Parts are joined by the unit separator, which none of the identifiers may contain, so that ("ab", "c") and
    ("a", "bc") differ.
    """
    return uuid.uuid5(NAMESPACE, "\x1f".join((step, *map(str, cause))))


_CONTROL_CHARACTER: Final = re.compile(r"[\x00-\x1f\x7f]")


def _no_control_characters(value: str) -> str:
    if _CONTROL_CHARACTER.search(value):
        raise ValueError("must not contain control characters")
    return value


# PostgreSQL refuses NUL in text, and ids are joined by a control character: an identifier carries neither.
Identifier = Annotated[
    str,
    StringConstraints(min_length=1, max_length=200, strip_whitespace=True),
    AfterValidator(_no_control_characters),
]
BrandCode = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,39}$")]


class Contract(BaseModel):
    """A part of an event. Frozen; unknown fields are ignored, so that a newer producer does not break an older
    consumer.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="null")


class Event(Contract):
    """One record of a topic, published as a CloudEvent in Kafka's binary mode (see `shared.cloudevents`)."""

    TYPE: ClassVar[str]
    """CloudEvents type, e.g. `switchyard.ticket.message.v2`; the version is its last part."""

    @property
    def event_id(self) -> uuid.UUID:
        """Derived from the event's cause: publishing again publishes the same id."""
        raise TypeError(f"{type(self).__name__} must derive its event_id")

    @property
    def key(self) -> str:
        """The record's key: what is kept in order."""
        raise TypeError(f"{type(self).__name__} must name its key")

    @property
    def occurred_at(self) -> datetime:
        """When it happened (not when it was published)."""
        raise TypeError(f"{type(self).__name__} must name its time")

    def upgraded(self) -> Event:
        """The same in the current version of its type: what a consumer is given, whatever version was written."""
        return self


__all__ = ["NAMESPACE", "AwareDatetime", "BrandCode", "Contract", "Event", "Identifier", "derive_id"]
