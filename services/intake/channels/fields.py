"""Reading what strangers send: each value is of the type that was asked for, or it is as if it were not there.

A text that is longer than a contract allows is cut and says so; a message is never lost for its length.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import phonenumbers

from services.intake.channels.base import Refused
from shared.events.channel import MAX_TEXT_CHARACTERS
from shared.taxonomy import Language

MOST_SHORT_CHARACTERS: Final = 500
MOST_ID_CHARACTERS: Final = 200
_CUT: Final = "…"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Malformed(Refused):
    """What a provider sent cannot be used: a whole request, or one entry of a batch, which is then skipped."""

    def __init__(self, detail: str) -> None:
        super().__init__(400, "malformed", detail)


def mapping(holder: Any, *names: str) -> Mapping[str, Any]:
    """The object under that path of names; an empty one where there is none."""
    found = _at(holder, names)
    return found if isinstance(found, dict) else {}


def listed(holder: Any, *names: str) -> list[Any]:
    """The list under that path of names; an empty one where there is none."""
    found = _at(holder, names)
    return found if isinstance(found, list) else []


def objects(holder: Any, *names: str) -> Iterator[Mapping[str, Any]]:
    """The objects in the list under that path of names."""
    return (item for item in listed(holder, *names) if isinstance(item, dict))


def texts(holder: Any, *names: str) -> list[str]:
    """The strings in the list under that path of names."""
    return [text({"": item}, "") for item in listed(holder, *names) if isinstance(item, str)]


def text(holder: Any, *names: str) -> str:
    """The string under that path of names, "" where there is none; what is no Unicode in it is replaced."""
    found = _at(holder, names)
    # JSON may hold halves of surrogate pairs, which neither a database nor UTF-8 can.
    return found.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if isinstance(found, str) else ""


def integer(holder: Any, *names: str) -> int | None:
    """The whole number under that path of names, or None."""
    found = _at(holder, names)
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def short(holder: Any, *names: str) -> str | None:
    """A text for one line of a form: a name, a file's name; None where there is none."""
    return cut(text(holder, *names).strip(), MOST_SHORT_CHARACTERS) or None


def identifier(holder: Any, *names: str) -> str:
    """The provider's id under that path of names: a string or a whole number. Raises Malformed when it is no id."""
    number = integer(holder, *names)
    found = text(holder, *names) if number is None else str(number)
    # Room is left for what adapters put around it.
    if not 0 < len(found) <= MOST_ID_CHARACTERS // 2 or not found.isprintable() or found != found.strip():
        raise Malformed(f"{'.'.join(names)}: is no id")
    return found


def address(holder: Any, *names: str) -> str | None:
    """An http(s) URL under that path of names. None when it is none, or too long to keep: half of it leads nowhere."""
    found = text(holder, *names)
    is_one = found.startswith(("https://", "http://")) and found.isprintable() and " " not in found
    return found if is_one and len(found) <= MOST_SHORT_CHARACTERS else None


def size(holder: Any, *names: str) -> int | None:
    """A number of bytes under that path of names, or None."""
    found = integer(holder, *names)
    return found if found is not None and 0 <= found < 2**53 else None


def seconds(value: int | None) -> datetime:
    """A time in seconds since 1970. Raises Malformed when it is none."""
    return milliseconds(None if value is None else value * 1000)


def milliseconds(value: int | None) -> datetime:
    """A time in milliseconds since 1970. Raises Malformed when it is none."""
    try:
        return _EPOCH + timedelta(milliseconds=value if value is not None else float("nan"))
    except (OverflowError, ValueError):
        raise Malformed("a time is missing, or is none") from None


def iso_time(value: str) -> datetime:
    """A time as ISO 8601 with an offset. Raises Malformed when it is none."""
    try:
        found = datetime.fromisoformat(value)
        return found.astimezone(UTC) if found.tzinfo else _without_offset()
    except (ValueError, OverflowError):
        raise Malformed("a time is missing, or is not ISO 8601 with an offset") from None


def language(tag: str) -> Language | None:
    """Of a language tag such as `zh-CN`; None where there is none."""
    code = tag.replace("_", "-").split("-")[0].lower()
    if not code:
        return None
    return Language(code) if code in (Language.ZH, Language.EN) else Language.OTHER


def e164(number: str, region: str | None = None) -> str | None:
    """A phone number as E.164 (`+8613800138000`), or None. `region`: whose numbers are written without a country."""
    try:
        found = phonenumbers.parse(number[:40], region)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_possible_number(found):
        return None
    return phonenumbers.format_number(found, phonenumbers.PhoneNumberFormat.E164)


def same(given: str, expected: str) -> bool:
    """Whether what a stranger gave is the secret or signature; how long it takes does not tell how close it is."""
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), expected.encode())


def cut(value: str, most_characters: int = MAX_TEXT_CHARACTERS) -> str:
    """The text, or its beginning with a sign that more followed."""
    return value if len(value) <= most_characters else value[: most_characters - len(_CUT)] + _CUT


def _at(holder: Any, names: tuple[str, ...]) -> Any:
    for name in names:
        holder = holder.get(name) if isinstance(holder, dict) else None
    return holder


def _without_offset() -> datetime:
    raise ValueError("no offset")
