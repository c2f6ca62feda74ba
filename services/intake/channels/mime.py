"""Reads MIME that strangers wrote, within bounds: parts, character sets, headers, file names. Pure.

Bounds are kept while reading, not afterwards: the standard library's parser follows any nesting and takes quadratic
time over some headers.
"""

from __future__ import annotations

import binascii
import codecs
import quopri
import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesParser
from email.policy import Compat32
from email.utils import getaddresses
from typing import Any, Final

from services.intake.channels.base import Refused

MOST_BYTES: Final = 32 * 1024 * 1024
MOST_DEPTH: Final = 20
MOST_PARTS: Final = 200
MOST_TEXT_BYTES: Final = 1024 * 1024
"""Of one part's text; the contract keeps 20,000 characters, but HTML needs room."""
_MOST_LINES: Final = 450_000
"""More than the largest mail has in base64. Time goes by lines: each is compared with the boundary of every part that
is open."""
_MOST_CONTAINERS: Final = 60
"""Parts that hold parts."""
_MOST_HEADER_CHARACTERS: Final = 64 * 1024
_MOST_PARAMETER_CHARACTERS: Final = 4096
_MOST_HEADERS_CHARACTERS: Final = 256 * 1024
_MOST_ADDRESS_HEADER_CHARACTERS: Final = 2000

_CONTAINER: Final = re.compile(rb"(?im)^content-type:[ \t]*(?:\n[ \t]+)?(?:multipart|message)/")


# --- parts -----------------------------------------------------------------------------------------------------------


class _Policy(Compat32):
    """Cuts headers as they are read. The nearest references stand at the end, everything else at the beginning."""

    def header_source_parse(self, sourcelines: list[str]) -> tuple[str, str]:
        name, value = super().header_source_parse(sourcelines)
        if name.lower() == "references":
            return name, value[-_MOST_HEADER_CHARACTERS:]
        has_parameters = name.lower().startswith("content-")
        return name, value[: _MOST_PARAMETER_CHARACTERS if has_parameters else _MOST_HEADER_CHARACTERS]

    def header_fetch_parse(self, name: str, value: str) -> Any:
        return value  # bytes outside ASCII stay what they are, for `decode` to read


class Part(Message):
    """A part of a mail as the parser leaves it. Read it by the functions below: `Message`'s own ones trust it."""

    characters = 0

    def set_raw(self, name: str, value: Any) -> None:
        self.characters += len(name) + len(value)
        if self.characters > _MOST_HEADERS_CHARACTERS:
            raise Refused(422, "too_large", f"the headers have more than {_MOST_HEADERS_CHARACTERS} characters")
        super().set_raw(name, value)

    @property
    def held(self) -> list[Part] | str:
        """Its parts, or its text as it was sent; bytes outside ASCII are surrogates."""
        payload: Any = self.__dict__["_payload"]  # `get_payload` decodes by whatever codec the sender names
        return payload if payload is not None else ""


def parse(raw: bytes) -> Part:
    """The mail's outermost part. Raises Refused: too large, too deep, too many parts."""
    if len(raw) > MOST_BYTES:
        raise Refused(413, "too_large", f"the mail has more than {MOST_BYTES} bytes")
    # The parser takes a lone CR for an end of line, so what is looked for here must see the same lines.
    lines = raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if lines.count(b"\n") > _MOST_LINES:
        raise Refused(422, "too_large", f"the mail has more than {_MOST_LINES} lines")
    if sum(1 for _ in _CONTAINER.finditer(lines)) > _MOST_CONTAINERS:
        raise Refused(422, "too_deep", f"more than {_MOST_CONTAINERS} parts of the mail hold parts")
    made = 0

    def part(policy: _Policy) -> Part:
        nonlocal made
        made += 1
        if made > MOST_PARTS + 1:  # the parser makes one to try the function
            raise Refused(422, "too_many_parts", f"the mail has more than {MOST_PARTS} parts")
        return Part(policy)

    factory: Any = part  # called with a policy, whatever its stub says
    try:
        mail: Any = BytesParser(factory, policy=_Policy()).parsebytes(lines)
    except RecursionError:
        raise _too_deep() from None
    assert isinstance(mail, Part)
    _check_depth(mail)
    return mail


def _too_deep() -> Refused:
    return Refused(422, "too_deep", f"the mail is nested deeper than {MOST_DEPTH}")


def _check_depth(mail: Part) -> None:
    level = [mail]
    for _ in range(MOST_DEPTH):
        level = [child for part in level for child in children(part)]
        if not level:
            return
    raise _too_deep()


def children(part: Part) -> list[Part]:
    return part.held if isinstance(part.held, list) else []


def content_type(part: Part) -> str:
    """Of the form `text/plain`, which is also what a part without a usable type is."""
    kind = part.get_content_type()
    return kind if kind.isascii() and kind.isprintable() else "application/octet-stream"


def content(part: Part) -> bytes:
    """A part's bytes, its transfer encoding undone as far as it can be."""
    held = part.held
    if not isinstance(held, str):
        return b""
    data = _raw(held)
    encoding = raw_header(part, "content-transfer-encoding").lower()
    if encoding == "quoted-printable":
        return quopri.decodestring(data)
    return _base64(data) if encoding == "base64" else data


def _base64(data: bytes) -> bytes:
    """What is no digit is passed over, and what is left over at the end is dropped."""
    try:
        return binascii.a2b_base64(data)
    except binascii.Error:
        digits = _NO_BASE64.sub(b"", data)
        digits = digits[: len(digits) - (len(digits) % 4 == 1)]
        return binascii.a2b_base64(digits + b"=" * (-len(digits) % 4))


@dataclass(frozen=True, slots=True)
class Found:
    """`section` numbers a part as IMAP does (RFC 3501, 6.4.5): 2.1 is the first part of the second one."""

    section: str
    part: Part

    def inside(self) -> Iterator[Found]:
        prefix = f"{self.section}." if self.section else ""
        for number, child in enumerate(children(self.part), 1):
            yield Found(f"{prefix}{number}", child)


# --- characters ------------------------------------------------------------------------------------------------------

_WIDER: Final = {"gb2312": "gb18030", "gbk": "gb18030", "big5": "big5hkscs", "cp950": "big5hkscs", "ascii": "utf-8"}
"""Codecs that hold all of another: senders name the small one and use the large one."""
_ALIASES: Final = {
    "x-gbk": "gb18030",
    "gb18030-2022": "gb18030",
    "gb_2312-80": "gb18030",
    "x-euc-cn": "gb18030",
    "x-x-big5": "big5hkscs",
    "x-sjis": "cp932",
    "cp-850": "cp850",
    "iso-8859-8-i": "iso8859-8",
}
# By name, because Python also has "codecs" that are no character sets, and some take quadratic time.
_ALLOWED: Final = re.compile(
    r"utf-8|utf-16(-[bl]e)?|utf-32(-[bl]e)?|utf-7|gb18030|hz|big5hkscs|euc_jp|euc_jis_2004|shift_jis(_2004)?|cp932"
    r"|iso2022_jp(_1|_2|_2004|_3|_ext)?|iso2022_kr|euc_kr|cp949|johab|koi8-[rtu]|iso8859-\d+|cp\d{3,4}|tis-620"
    r"|mac-roman|mac-cyrillic"
)
_STATEFUL: Final = re.compile(r"utf-7|utf-16|utf-32|hz|iso2022")
"""Encodings whose bytes are ASCII, or no text of any other encoding: what they are named is what they are."""
_GUESSES: Final = ("utf-8", "gb18030", "big5hkscs")
# Among the hundred most frequent characters of Chinese texts and of customers' mail, simplified and traditional: which
# of two encodings makes sense shows in the second word.
_COMMON: Final = frozenset(
    "的一是不了我您你好请在有这个为们么没说时对到和人就也都会要可以能大上中下来去过还后多天钱款账户号元支付充值"
    "退请问谢客服收额单订余提现密码锁定登录手机银行卡請這個為們麼沒說時對來過還後錢賬戶號問謝單訂餘現碼鎖錄機銀"
)


def decode(data: bytes, charset: str | None) -> str:
    """Text out of bytes that say they are in `charset`, which is often missing and sometimes wrong. Never raises."""
    named = _codec(charset)
    if named and _STATEFUL.match(named):
        return _replaced(data, named).encode("utf-8", "replace").decode()  # UTF-7 can hold halves of pairs
    if data.isascii() and (named is None or b"\x1b" not in data):
        return data.decode("ascii")
    as_utf_8 = _strict(data, "utf-8")
    # A few characters of GB 18030 are Greek or Cyrillic in UTF-8 ("一些"). None of them is Chinese there, too.
    if as_utf_8 is not None and (named in (None, "utf-8") or any(character >= "\u2000" for character in as_utf_8)):
        return as_utf_8.removeprefix("\ufeff")
    if named and named != "utf-8" and not _is_western(named) and (text := _strict(data, named)) is not None:
        return text
    candidates = [codec for codec in (named, *_GUESSES) if codec]
    texts = [(codec, _strict(data, codec)) for codec in candidates]
    readable = [text for _, text in texts if text is not None]
    best = max(readable, key=_sense, default="")
    if _sense(best) > 0:
        return best
    if named and _is_western(named):
        return _replaced(data, named)
    # Damaged (a byte lost, a text cut in a character): the encoding that it damages least.
    damaged = [_replaced(data, codec) for codec in candidates]
    return min(damaged, key=lambda text: (text.count("\ufffd"), -_sense(text)))


def _codec(charset: str | None) -> str | None:
    name = (charset or "").strip().strip("\"'").lower()
    try:
        found = codecs.lookup(_ALIASES.get(name, name)).name
    except (LookupError, ValueError):
        return None
    found = _WIDER.get(found, found)
    return found if _ALLOWED.fullmatch(found) else None


def _is_western(codec: str) -> bool:
    """Encodings in which any bytes are a text, and so the default of programs that do not know."""
    return codec in ("iso8859-1", "iso8859-15", "cp1252")


def _strict(data: bytes, codec: str) -> str | None:
    try:
        return data.decode(codec)
    except (UnicodeError, ValueError):
        return None


def _replaced(data: bytes, codec: str) -> str:
    return data.decode(codec, "replace").removeprefix("\ufeff")


def _sense(text: str) -> float:
    """The share of frequent Chinese characters among those outside ASCII."""
    foreign = [character for character in text[:4000] if character > "\x7f"]
    return sum(character in _COMMON for character in foreign) / len(foreign) if foreign else 0.0


_META_CHARSET: Final = re.compile(rb"(?i)<meta[^>]{0,200}?charset=[\"' ]*([a-z0-9_:.-]{1,40})")


def text_of(part: Part) -> str:
    """The text of a text part, its beginning if it is very long."""
    data = content(part)[:MOST_TEXT_BYTES]
    charset = parameter(part, "content-type", "charset")
    if charset is None and content_type(part) == "text/html" and (meta := _META_CHARSET.search(data[:4096])):
        charset = meta[1].decode("ascii")
    return decode(data, charset)


# --- headers ---------------------------------------------------------------------------------------------------------

_ENCODED_WORD: Final = re.compile(r"=\?([A-Za-z0-9_.:-]{1,40})(?:\*[A-Za-z0-9-]{0,40})?\?([BbQq])\?([^?]*)\?=")
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f\u2028\u2029]+")
_NO_BASE64: Final = re.compile(rb"[^A-Za-z0-9+/]")


def raw_headers(part: Part, name: str) -> list[str]:
    """The values of a header, unfolded; bytes outside ASCII are surrogates, as the parser leaves them."""
    wanted = name.lower()
    return [
        re.sub(r"\n[ \t]*", " ", str(value)).strip() for found, value in part.raw_items() if found.lower() == wanted
    ]


def raw_header(part: Part, name: str) -> str:
    """The first of them, or ""."""
    return next(iter(raw_headers(part, name)), "")


def header(part: Part, name: str) -> str:
    """The header as a person reads it, on one line."""
    return decoded_header(raw_header(part, name))


def decoded_header(value: str) -> str:
    """A header's value with its encoded words (RFC 2047) and raw bytes as text, on one line."""
    pieces: list[tuple[str | None, bytes]] = []
    position = 0
    for word in _ENCODED_WORD.finditer(value):
        between = value[position : word.start()]
        if between.strip() or not pieces:
            pieces.append((None, _raw(between)))
        data = _word_bytes(word[2], word[3])
        charset = word[1].lower()
        if pieces and pieces[-1][0] == charset:  # senders split a character over two words
            pieces[-1] = (charset, pieces[-1][1] + data)
        else:
            pieces.append((charset, data))
        position = word.end()
    pieces.append((None, _raw(value[position:])))
    text = "".join(decode(data, charset) for charset, data in pieces)
    return _CONTROLS.sub(" ", text).strip()


def _raw(value: str) -> bytes:
    return value.encode("utf-8", "surrogateescape")


def _word_bytes(encoding: str, word: str) -> bytes:
    if encoding in "Qq":
        return binascii.a2b_qp(_raw(word), header=True)
    return _base64(_raw(word))


def parameter(part: Part, header_name: str, name: str) -> str | None:
    """A parameter of a header, e.g. `filename` of `content-disposition`, decoded (RFC 2231; 2047 where senders use it
    against the rules). None where there is none.
    """
    try:
        found = part.get_param(name, header=header_name)
    except (ValueError, LookupError, TypeError, AttributeError):  # what the standard library makes of nonsense
        return None
    if isinstance(found, tuple):
        charset, _, value = found
        return _CONTROLS.sub(" ", decode(value.encode("latin-1", "replace"), charset)).strip()
    return decoded_header(str(found)) if found else None


def disposition(part: Part) -> str:
    return raw_header(part, "content-disposition").partition(";")[0].strip().lower()


def file_name(part: Part) -> str:
    return parameter(part, "content-disposition", "filename") or parameter(part, "content-type", "name") or ""


# --- addresses -------------------------------------------------------------------------------------------------------

_ADDRESS: Final = re.compile(
    r"[^\s@<>()\[\],;:\"\\\x00-\x20\x7f]{1,64}@(?:[^\s@<>()\[\],;:\"\\.\x00-\x20\x7f]{1,63}\.)+[^\W\d_][\w-]{0,61}\w"
)
_MOST_ADDRESS_CHARACTERS: Final = 200


def address(value: str) -> str | None:
    """The address in lower case, or None when it is none."""
    found = value.strip().lower()
    is_one = len(found) <= _MOST_ADDRESS_CHARACTERS and found.isprintable() and _ADDRESS.fullmatch(found)
    return found if is_one else None


def addresses(part: Part, name: str) -> list[tuple[str, str]]:
    """Names and addresses (in lower case) of a header; what is no address is left out."""
    value = raw_header(part, name)[:_MOST_ADDRESS_HEADER_CHARACTERS]
    if not value.isascii():  # bytes of GB 18030 may look like a bracket; encoded words are read after taking it apart
        value = decode(_raw(value), None)
    try:
        pairs = getaddresses([value])
    except (RecursionError, ValueError, IndexError):  # thousands of brackets
        return []
    return [(decoded_header(shown), found) for shown, written in pairs if (found := address(written))]
