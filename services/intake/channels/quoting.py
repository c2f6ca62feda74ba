"""What the customer himself wrote in a mail: HTML to text, the history below it and his signature cut off. Pure.

The history is what mail programs put below or around an answer. It is known by what the programs write, line by line,
in linear time (`mailparser_reply` takes seconds over a few thousand empty lines, and any "- item" for a signature). A
mail that is no answer keeps what merely looks like history: a customer who shows us a phishing mail, its headers typed
in, has not answered it. A forwarded mail is kept whole: it is what he wants to show.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from inscriptis import Inscriptis
from inscriptis.css_profiles import STRICT_CSS_PROFILE
from inscriptis.model.config import ParserConfig
from lxml.etree import LxmlError
from lxml.html import HtmlElement, HTMLParser, document_fromstring

_MOST_CHARACTERS: Final = 400_000
"""Of a text that is looked at; twenty times what is kept."""
_MOST_HTML_CHARACTERS: Final = 300_000
_MOST_ELEMENTS: Final = 20_000
"""With more, HTML is only freed of its tags: laying it out takes 50 µs an element."""


_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffe\uffff]")


@dataclass(frozen=True, slots=True)
class Kind:
    """What the mail's headers say it is."""

    is_reply: bool
    is_forward: bool


# --- subjects --------------------------------------------------------------------------------------------------------

_PREFIX: Final = re.compile(
    r"""(?ix) \s* (?: (?P<reply> re|aw|回复|回覆|答复|答覆|返信) | (?P<forward> fwd?|转发|轉發|轉寄|转寄) )
    \s* (?: \[\d{1,3}\] | \(\d{1,3}\) | \^\d{1,3} )? \s* [:：]"""
)


def bare_subject(subject: str) -> tuple[str, Kind]:
    """The subject without the prefixes that mail programs put before it, and what the first of them says."""
    first = _PREFIX.match(subject)
    kind = Kind(bool(first and first["reply"]), bool(first and first["forward"]))
    rest = subject
    while found := _PREFIX.match(rest):
        rest = rest[found.end() :]
    return rest.strip(), kind


# --- HTML ------------------------------------------------------------------------------------------------------------

_UNSEEN: Final = frozenset({"head", "script", "style", "title", "noscript", "template", "object", "iframe", "svg"})
_HIDDEN_STYLE: Final = re.compile(r"(?i)display\s*:\s*none|mso-hide\s*:\s*all")
_QUOTES: Final = frozenset(
    {
        "gmail_quote",
        "gmail_quote_container",
        "gmail_attr",
        "moz-cite-prefix",
        "yahoo_quoted",
        "protonmail_quote",
        "zmail_extra",
        "ntes-mailmaster-quote",
        "includetail",
        "OutlookMessageHeader",
    }
)
"""Classes of what mail programs quote."""
_BEGINS_HISTORY: Final = frozenset({"divRplyFwdMsg", "appendonsend", "original-content"})
"""Ids of what stands before the history, of Outlook and QQ Mail: all that follows is quoted."""
_FORWARDED: Final = re.compile(r"(?i)forwarded message|转发的邮件|转发邮件|轉寄的郵件")
_LAYOUT: Final = ParserConfig(css=STRICT_CSS_PROFILE)
_DEEPEST_LIST: Final = 8
_INDENTED: Final = frozenset({"ul", "ol", "dl", "dd", "blockquote"})
_TAG: Final = re.compile(r"<[^<>]*>")


def html_text(html: str, kind: Kind, *, whole: bool = False) -> str:
    """The text that a reader sees. Without what is marked as quoted, unless `whole`."""
    source = _CONTROLS.sub("", html[:_MOST_HTML_CHARACTERS])
    try:
        tree = document_fromstring(source.encode("utf-8", "replace"), parser=_parser())
        if sum(1 for _ in tree.iter()) > _MOST_ELEMENTS:
            return _without_tags(source)
        if not whole and not kind.is_forward:
            _drop_quotes(tree, kind)
        _simplify(tree)
    except (LxmlError, ValueError):  # nothing in it, or nothing that can be read
        return _without_tags(source)
    text = str(Inscriptis(tree, _LAYOUT).get_text())
    # Deeper than the parser goes, it reads nothing at all.
    return text if text.strip() or not whole else _without_tags(source)


def _parser() -> HTMLParser:
    return HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True, no_network=True, huge_tree=False)


def _without_tags(source: str) -> str:
    return _TAG.sub(" ", source)


def _drop_quotes(tree: HtmlElement, kind: Kind) -> None:
    for element in list(tree.iter()):
        if not isinstance(element.tag, str):
            continue
        if element.get("id") in _BEGINS_HISTORY:
            _drop_from(element)
            return
        classes = (element.get("class") or "").split()
        is_quote = not _QUOTES.isdisjoint(classes)
        if element.tag == "blockquote" and (kind.is_reply or (element.get("type") or "").lower() == "cite"):
            is_quote = True
        if is_quote and element.getparent() is not None and not _shows_a_forwarded_mail(element):
            element.drop_tree()


def _shows_a_forwarded_mail(element: HtmlElement) -> bool:
    beginning = "".join(_first(element.itertext(), 5))
    return _FORWARDED.search(beginning[:500]) is not None


def _first(texts: Any, count: int) -> list[str]:
    return [str(text) for text, _ in zip(texts, range(count), strict=False)]


def _drop_from(element: HtmlElement) -> None:
    """Drop the element and all that follows it in the document."""
    current = element
    while (parent := current.getparent()) is not None:
        for following in list(current.itersiblings()):
            parent.remove(following)
        current.tail = None
        current = parent
    if (parent := element.getparent()) is not None:
        parent.remove(element)


def _simplify(tree: HtmlElement) -> None:
    """Nothing unseen, no attributes, tables, deep lists: a layout can blow a small page up to gigabytes of blanks."""
    depths: dict[HtmlElement, int] = {}
    for element in list(tree.iter()):
        if not isinstance(element.tag, str):
            continue
        parent = element.getparent()
        if parent is not None and (element.tag in _UNSEEN or _HIDDEN_STYLE.search(element.get("style") or "")):
            element.drop_tree()
            continue
        element.attrib.clear()
        depth = depths.get(parent, 0) if parent is not None else 0
        if element.tag in _INDENTED:
            depth += 1
            if depth > _DEEPEST_LIST or element.tag == "blockquote":
                element.tag = "div"
        elif element.tag in ("table", "tbody", "thead", "tfoot", "tr"):
            element.tag = "div"
        elif element.tag in ("td", "th"):
            element.tag = "span"
            element.tail = " " + (element.tail or "")
        depths[element] = depth


# --- plain text ------------------------------------------------------------------------------------------------------

_ZERO_WIDTH: Final = re.compile(r"[\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\u00ad]")
_BLANK_LINES: Final = re.compile(r"\n{3,}")


def tidy(text: str) -> str:
    """Lines without blanks at their end, at most one empty line in a row, no characters that cannot be seen."""
    plain = text.replace("\r\n", "\n").replace("\r", "\n").replace("\xa0", " ")
    plain = _CONTROLS.sub("", _ZERO_WIDTH.sub("", plain))
    return _BLANK_LINES.sub("\n\n", "\n".join(line.rstrip() for line in plain.split("\n"))).strip()


def unflowed(text: str, *, delete_space: bool) -> str:
    """Text in `format=flowed` (RFC 3676) with its soft line breaks undone."""
    pieces: list[str] = []
    open_depth: int | None = None  # of a line that goes on in the next
    for line in text.replace("\r\n", "\n").split("\n"):
        content = line.lstrip(">")
        depth = len(line) - len(content)
        content = content.removeprefix(" ")
        is_soft = content.endswith(" ") and content != "-- "
        if open_depth != depth or content == "-- ":
            pieces.append("\n" + (f"{'>' * depth} " if depth else ""))
        pieces.append(content[:-1] if is_soft and delete_space else content)
        open_depth = depth if is_soft else None
    return "".join(pieces).removeprefix("\n")


_RULE: Final = r"[-_=—*]{2,80}"
_SEPARATOR: Final = re.compile(
    rf"""(?ix) \s* {_RULE} \s* (?:
    original(?:\ message)? | replied\ message | original\ appointment
    | 原始邮件 | 原邮件 | 回复的原邮件 | 原始郵件 | 原始信件 | 邮件原文 | 原始消息
    ) \s* {_RULE} \s*"""
)
_LINE: Final = re.compile(r"\s*[-_=—]{8,}\s*")
_WROTE: Final = re.compile(r"(?i)(?:wrote|写道|寫道)\s?[:：]?$")
_ON: Final = re.compile(r"(?i)(?:on|at)\s|在")
_AT_A_TIME: Final = re.compile(r"[于於在]\s?\d{4}")
_DATED: Final = re.compile(r"\d{4}|\d{1,2}[:：]\d{2}|\d{1,2}月")
_FROM: Final = re.compile(r"(?i)[>\s*]*(?:from|发件人|寄件者|寄件人|發件人)\s?[:：]\**\s*\S")
_FIELD: Final = re.compile(
    r"""(?ix) [>\s*]* (?: from | sent | date | to | cc | subject
    | 发件人 | 发送时间 | 发送日期 | 日期 | 时间 | 收件人 | 抄送 | 抄送人 | 主\s*题
    | 寄件者 | 寄件人 | 寄件日期 | 收件者 | 副本 | 主旨 | 發件人 | 發送時間 | 傳送日期 ) \s? [:：]"""
)
_SUBJECT: Final = re.compile(r"(?i)[>\s*]*(?:subject|主\s*题|主旨)\s?[:：]")
_LINES_OF_FIELDS: Final = 8
_LEAST_FIELDS: Final = 3
_LINES_OF_ATTRIBUTION: Final = 3
_LONGEST_LINE: Final = 1000


def own_text(text: str, kind: Kind) -> str:
    """Without history and signature. Empty when nothing else is there: then the whole is to be taken."""
    lines = text[:_MOST_CHARACTERS].split("\n")
    if not kind.is_forward:
        lines = _without_history(lines, kind)
    return tidy("\n".join(_without_signature(lines)))


def _without_history(lines: list[str], kind: Kind) -> list[str]:
    kept: list[str] = []
    number = 0
    while number < len(lines):
        line = lines[number]
        if length := _attribution(lines, number, kind):
            following = number + length
            while following < len(lines) and not lines[following].strip():
                following += 1
            if _AT_A_TIME.match(line.strip(" >\t")) and kept and "@" in kept[-1]:
                kept.pop()  # the name stood on a line of its own
            if following >= len(lines) or not _is_quoted(lines[following]):
                break
            number = following  # the quoted lines; what stands between and below them is the customer's
            while number < len(lines) and (_is_quoted(lines[number]) or not lines[number].strip()):
                number += 1
            kept.append("")
            continue
        if _begins_history(lines, number, kind):
            break
        if not (kind.is_reply and _is_quoted(line)):
            kept.append(line)
        number += 1
    while kept and (not kept[-1].strip() or _LINE.fullmatch(kept[-1][:_LONGEST_LINE])):
        kept.pop()
    return kept


def _is_quoted(line: str) -> bool:
    return line.lstrip().startswith(">")


def _attribution(lines: list[str], number: int, kind: Kind) -> int:
    """How many lines, from this one, say who wrote what follows; 0 when it is not so.

    "On Fri, 20 Nov 2026, UPay <...> wrote:", "在 2026年11月20日，UPay <...> 写道：", "UPay <...> 于2026年…写道："
    """
    joined = ""
    for length, line in enumerate(lines[number : number + _LINES_OF_ATTRIBUTION], 1):
        part = line[:_LONGEST_LINE].strip(" >\t")
        begins = _ON.match(part) or _AT_A_TIME.search(part)
        if not part or (length == 1) is not bool(begins):
            return 0
        joined = f"{joined} {part}"
        if not _DATED.search(joined):
            return 0
        if _WROTE.search(part[-12:]):
            below = lines[number + length :]
            # What the customer himself quotes of a chat begins like this, too: only programs add an address.
            is_certain = (
                "@" in joined
                or any(map(_is_quoted, below[:2]))
                or not any(map(str.strip, below))
                or (kind.is_reply and part[-1] == ":" and part.isascii())
            )
            return length if is_certain else 0
    return 0


def _begins_history(lines: list[str], number: int, kind: Kind) -> bool:
    line = lines[number][:_LONGEST_LINE]
    if _SEPARATOR.fullmatch(line):
        return True
    if not _FROM.match(line):
        return False
    below = [item[:_LONGEST_LINE] for item in lines[number : number + 2 * _LINES_OF_FIELDS] if item.strip()]
    named = [item for item in below[:_LINES_OF_FIELDS] if _FIELD.match(item)]
    if len(named) < _LEAST_FIELDS or not any(map(_SUBJECT.match, named)):
        return False
    before = next((item for item in reversed(lines[max(0, number - 2) : number]) if item.strip()), "")
    return kind.is_reply or _LINE.fullmatch(before[:_LONGEST_LINE]) is not None


# --- signatures ------------------------------------------------------------------------------------------------------

_MOST_SIGNATURE_LINES: Final = 12
_THING: Final = r"""(?: iphone | ipad | ipod | mac | android | windows | outlook | foxmail | samsung | galaxy | huawei
    | honor | xiaomi | redmi | oppo | vivo | oneplus | pixel | nokia | blackberry | mobile | phone | tablet | device
    | mail | 手机 | 手機 | 平板 | 设备 | 安卓 | 华为 | 荣耀 | 小米 | 红米 | 三星 | 魅族 | 一加 | 邮箱 | 郵箱 | 邮件
    | 网易 )"""
_DEVICE: Final = re.compile(
    rf"""(?ix) \s* (?:
    (?: 发自 | 發自 | 来自 | 來自 | 发送自 ) \s? .{{0,20}} {_THING} .{{0,15}}
    | (?: 从 | 從 | 由 ) \s? .{{0,20}} {_THING} .{{0,15}} (?: 发送 | 傳送 )
    | (?: 获取 | 下载 | get ) \s? .{{0,10}} outlook .{{0,30}}
    | sent \s from \s (?: my \s )? .{{0,20}} {_THING} .{{0,20}}
    ) \s*"""
)
_ANGLED_ADDRESS: Final = re.compile(r"[<\[(]https?://[^\s<>\])]{1,300}[>\])]")


def _without_signature(lines: list[str]) -> list[str]:
    kept = list(lines)
    for number, line in enumerate(kept):
        is_dashes = line == "-- " or line.strip() == "--"
        if is_dashes and 0 < len(kept) - number - 1 <= _MOST_SIGNATURE_LINES and any(map(str.strip, kept[:number])):
            kept = kept[:number]
            break
    while True:
        while kept and (not kept[-1].strip() or _LINE.fullmatch(kept[-1][:_LONGEST_LINE])):
            kept.pop()
        if not kept or not _DEVICE.fullmatch(_ANGLED_ADDRESS.sub("", kept[-1][:_LONGEST_LINE])):
            return kept
        kept.pop()
