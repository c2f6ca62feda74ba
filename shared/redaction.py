"""Secrets are cut here before anything is stored, published or logged.

What is a secret: card numbers, card verification values, passwords, PINs, verification codes, resident identity
numbers, passport numbers, bank account numbers. What stays: order numbers, amounts, phone numbers, dates, and talk
about a password that does not tell it.

How it works. A *shadow* of the text, character for character as long as the text, writes every digit, letter, space,
dash and quotation mark in its ASCII form, so that one set of rules reads `４１１１`, `4111` and `四一一一`; what a rule
finds in the shadow is cut out of the text. There are two families of rules:

- numbers that prove themselves by a checksum (`_unnamed`): cards, identity numbers, IBANs;
- values that the customer names (`_NAMED`): a name, some words that may stand between, a value; or the other way round.

A new kind of secret is one more entry of `_NAMED`.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from stdnum import iban, luhn
from stdnum.iso7064 import mod_11_2

CARD: Final = "card"
CVV: Final = "cvv"
PASSWORD: Final = "password"  # noqa: S105 - the name of a kind
PIN: Final = "pin"
CODE: Final = "code"
IDENTITY: Final = "identity"
PASSPORT: Final = "passport"
ACCOUNT: Final = "account"
KINDS: Final = (IDENTITY, CARD, CVV, PIN, CODE, PASSPORT, ACCOUNT, PASSWORD)
"""In order of precedence: where two rules find the same characters, the first names them."""


@dataclass(frozen=True, slots=True)
class Redacted:
    """A text without its secrets, and how many of each kind were cut (kinds in alphabetical order)."""

    text: str
    counts: tuple[tuple[str, int], ...] = ()


def redact(text: str) -> Redacted:
    """`text` with every secret replaced by `[kind]`, e.g. `[card]`.

    Pure, and idempotent: redacting what was redacted changes nothing. No replacement holds or takes a
    quotation mark or a backslash of JSON, so that redacting a string as it is written in JSON leaves it one. Where a
    secret is cut, `\\u5bc6` and the like come out as the characters that they stand for.
    """
    readable = _WIDE_ESCAPE.sub(lambda escape: chr(int(escape[1], 16)), text) if "\\u" in text else text
    if not _may_hold_a_secret(readable):
        return Redacted(text)
    redacted = _redact(readable)
    return redacted if redacted.counts else Redacted(text)


# Any but ASCII, which could make another escape, and surrogates, which cannot stand alone.
_WIDE_ESCAPE: Final = re.compile(
    r"\\u((?:00[89a-f]|0[1-9a-f][0-9a-f]|[1-9abcef][0-9a-f]{2}|d[0-7][0-9a-f])[0-9a-f])", re.IGNORECASE
)


def _redact(text: str) -> Redacted:
    counts: Counter[str] = Counter()
    # Again until nothing is found: a cut can lay bare what stood in its way (a second value of a list, say).
    while spans := _secrets(text):
        pieces: list[str] = []
        end = 0
        for span in spans:
            pieces += (text[end : span.start], f"[{span.kind}]")
            counts[span.kind] += 1
            end = span.end
        text = "".join((*pieces, text[end:]))
    return Redacted(text, tuple(sorted(counts.items())))


def redact_json_text(raw: str) -> str:
    """`raw` without its secrets: in every key, string and number where it is a JSON document, else as plain text.

    Whatever holds no secret stays as it was written, to the byte: a dead letter is there to be replayed. The scalars
    under a key that names a secret (`"cvv": 123`) are cut whole.
    """
    try:
        json.loads(raw)
    except (ValueError, RecursionError):
        return redact(raw).text
    key_kind: str | None = None

    def cut(token: re.Match[str]) -> str:
        nonlocal key_kind
        written = token["scalar"]
        value = json.loads(written) if written[0] == '"' else written
        if token["colon"] is not None:
            key_kind = _kind_named_by(value)
        elif key_kind and value and not _TOKEN.fullmatch(value):
            return f'"[{key_kind}]"'
        without = redact(value).text
        if without == value:
            return token[0]
        return json.dumps(without, ensure_ascii=written.isascii()) + (token["colon"] or "")

    return _JSON_SCALAR.sub(cut, raw)


_JSON_SCALAR: Final = re.compile(
    r'(?P<scalar>"(?:[^"\\]|\\.)*+"|-?[0-9](?:[0-9.]|[eE][+-]?)*+)(?P<colon>\s*:)?', re.DOTALL
)
_TOKEN: Final = re.compile(rf"\[({'|'.join(KINDS)})\]")


# The shadow -------------------------------------------------------------------------------------------------------

_CHINESE_NUMERALS: Final = {
    ord(numeral): str(digit)
    for digit, numerals in enumerate(
        ("零〇", "一壹幺", "二贰貳", "三叁參", "四肆", "五伍", "六陆陸", "七柒", "八捌", "九玖")
    )
    for numeral in numerals
}


def _ascii_forms() -> dict[int, str]:
    """Every character of the basic plane that is one ASCII character in other clothes (full-width, circled, ...)."""
    forms: dict[int, str] = {}
    for code in range(0x80, 0xFFFF):
        character = chr(code)
        digit = unicodedata.digit(character, None)
        if digit is not None:
            forms[code] = str(digit)
        elif unicodedata.category(character) in ("Zs", "Cf"):  # spaces; zero-width characters
            forms[code] = " "
        elif unicodedata.category(character) == "Pd":
            forms[code] = "-"
        elif 0xFF01 <= code <= 0xFF5E:
            forms[code] = chr(code - 0xFEE0)
    forms.update({ord("−"): "-", ord("→"): ">", ord("·"): ".", ord("。"): "。"})
    forms.update(dict.fromkeys(map(ord, "“”„«»「」『』"), '"'))
    forms.update(dict.fromkeys(map(ord, "‘’"), "'"))
    forms.update(dict.fromkeys(map(ord, "【〔《〈"), "("))
    forms.update(dict.fromkeys(map(ord, "】〕》〉"), ")"))
    return forms


_PLAIN: Final = {ord("\t"): " ", **_ascii_forms()}
_SPOKEN: Final = {**_PLAIN, **_CHINESE_NUMERALS}


_CHINESE_NUMBER: Final = re.compile(  # long enough for a secret, or the rest of one that is written in two ways
    r"[{0}](?:\W{{0,3}}[0-9{0}]){{2}}|[0-9]\W{{0,3}}[{0}]".format("".join(map(chr, _CHINESE_NUMERALS)))
)


@dataclass(frozen=True, slots=True)
class _Span:
    start: int
    end: int
    kind: str


# A text may be as it is written in JSON. An escape is one character: it is cut whole or not at all, and the digits of a
# `\\u3000` are nobody's.
_JSON_ESCAPE: Final = re.compile(r'\\(?:u[0-9a-fA-F]{4}|["\\/bfnrt])')
_SHADOW_OF_ESCAPE: Final = {r"\"": '""', r"\\": "^^", r"\/": "//"}


# In the shadow, tokens of an earlier cut are characters that no value can hold: so each round of cutting leaves fewer
# characters to cut, and ends.
_CUT: Final = "\ue000"
_CUT_OF: Final = {PASSWORD: "\ue001", PIN: "\ue002", CODE: "\ue003"}  # kinds of which customers try several


def _shadow(text: str, forms: dict[int, str]) -> str:
    if "[" in text:
        text = _TOKEN.sub(lambda token: _CUT_OF.get(token[1], _CUT) * len(token[0]), text)
    if "\\" in text:
        text = _JSON_ESCAPE.sub(lambda escape: _SHADOW_OF_ESCAPE.get(escape[0], "\n" * len(escape[0])), text)
    return text.translate(forms)


def _secrets(text: str) -> list[_Span]:
    """The spans to cut, from left to right, none overlapping."""
    # Chinese numerals are words first ("卡号4111…一共" does not hold one digit more): they are read as digits where
    # there is nothing left to find without them.
    found = list(_in_shadow(_shadow(text, _PLAIN)))
    if not found and _CHINESE_NUMBER.search(text):
        found = list(_in_shadow(_shadow(text, _SPOKEN)))
    if not found:
        return found
    found.sort(key=lambda span: (span.start, span.end))
    merged = [found[0]]
    for span in found[1:]:
        last = merged[-1]
        if span.start < last.end:
            kind = min(last.kind, span.kind, key=KINDS.index)
            merged[-1] = _Span(last.start, max(last.end, span.end), kind)
        else:
            merged.append(span)
    return merged


def _in_shadow(shadow: str) -> Iterator[_Span]:
    yield from _unnamed(shadow)
    if _NAMES.search(shadow):
        for rule in _NAMED:
            yield from rule.find(shadow)


# Numbers that prove themselves ------------------------------------------------------------------------------------

_CARD_DIGITS: Final = range(13, 20)
_NUMBER_RUN: Final = re.compile(r"(?P<plus>\+ ?)?(?P<run>[0-9](?:[ .\-_/\n]{0,3}[0-9]){12,})")
_GROUP: Final = re.compile(r"[0-9]+")
# How cards are printed and typed: in fours; American Express 4-6-5, Diners 4-6-4; UnionPay 6-13; in halves 8-8.
_PRINTED_GROUPS: Final = frozenset(
    {(4, 4, 4, 4), *((4, 4, 4, 4, rest) for rest in (1, 2, 3)), (4, 6, 5), (4, 6, 4), (6, 13), (6, 10), (8, 8)}
    | {(4, 4, 4, 1), (6, 4, 4, 4, 1), (6, 4, 4, 4)}
)
_DATE_FIRST: Final = re.compile(r"(?:19|20)[0-9]{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])")
_DATE_BEFORE: Final = re.compile(r"(?:19|20)[0-9]{2}([-/.])[0-9]{1,2}\1[0-9]{1,2}[ \n]+")
_MILLISECONDS: Final = re.compile(r"1[4-9][0-9]{11}")  # since 1970: a time between 2014 and 2033
_PHONE: Final = re.compile(r"(?:(?:00)?86)?1[3-9][0-9]{9}")
_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)
_AFTER_CARD: Final = re.compile(
    r"[ ,;/]{1,3}(?:0?[1-9]|1[0-2]) ?[/\-] ?(?:20)?[0-9]{2}[ ,;/]{1,3}(?P<cvv>[0-9]{3,4})(?![0-9])"
)
_IDENTITY: Final = re.compile(
    r"(?<![0-9])[1-9][0-9]{5}[ \-]?(?:18|19|20)[0-9]{2}[ \-]?(?:0[1-9]|1[0-2])[ \-]?(?:0[1-9]|[12][0-9]|3[01])"
    r"[ \-]?[0-9]{3}[ \-]?[0-9Xx](?![0-9A-Za-z])"
)
_IBAN: Final = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]){11,30}(?![A-Za-z0-9])")
_ORDER_BEFORE: Final = re.compile(
    r"(?:订单|訂單|单号|單號|流水|运单|条形?[码碼]|條形?碼|[设設][备備]|序列|(?:交易|商户|凭证|工单|快递)(?:[单單]|编?[号號])"
    r"|(?<![a-z])(?:order|bar ?code|ean|isbn|imei|iccid|serial)(?![a-z])"
    r"|(?<![a-z])(?:transaction|txn|trx|reference|ref|tracking|invoice|trade|ticket|case)"
    r"(?= ?(?:num|no\b|no\.|id|code|#|:)))"
    r"(?:[ ]*(?:编?[号號][码碼]?|單|单|numbers?|num|no\.?|id|code|#|is|was|[:=\"'(]|是|为|為))*+[ ]*\Z",
    re.IGNORECASE,
)
_LONGEST_ORDER_NAME = 40


def _unnamed(shadow: str) -> Iterator[_Span]:
    for run in _NUMBER_RUN.finditer(shadow):
        for start, end in _cards_in(shadow, run):
            yield _Span(start, end, CARD)
            if after := _AFTER_CARD.match(shadow, end):
                yield _Span(*after.span("cvv"), CVV)
    for match in _IDENTITY.finditer(shadow):
        if _is_identity_number(_compact(match[0])):
            yield _Span(*match.span(), IDENTITY)
    for match in _IBAN.finditer(shadow):
        if iban.is_valid(match[0]):
            yield _Span(*match.span(), ACCOUNT)


def _cards_in(shadow: str, run: re.Match[str]) -> Iterator[tuple[int, int]]:
    """Spans of card numbers in a run of digits with separators.

    One number in ten passes the Luhn check by chance, so not every stretch of every run may try its luck: only the
    whole run (but for a date before it), single groups, and stretches in equal groups or grouped as cards are printed.
    """
    start, end = run.span("run")
    text = run["run"]
    groups = [(start + match.start(), start + match.end()) for match in _GROUP.finditer(text)]
    separators = set(re.findall(r"[^0-9]", text))
    candidates: list[tuple[int, int]] = []
    if separators <= {" ", "-"} or len(separators) == 1:
        date = _DATE_BEFORE.match(text)
        candidates += [(start, end), *([(start + date.end(), end)] if date else [])]
    sizes = [right - left for left, right in groups]
    for first, last in _stretches(sizes):
        candidates.append((groups[first][0], groups[last][1]))
    candidates.sort(key=lambda span: span[0] - span[1])  # the longest first
    taken: list[tuple[int, int]] = []
    for left, right in candidates:
        if any(left < other_right and other_left < right for other_left, other_right in taken):
            continue
        digits = _compact(shadow[left:right])
        if len(digits) not in _CARD_DIGITS or not luhn.is_valid(digits):
            continue
        if _is_something_else(shadow, left, right, digits, international=bool(run["plus"]) and left == start):
            continue
        taken.append((left, right))
        yield left, right


def _stretches(sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """First and last index of each stretch of groups of digits that could be one card, by the groups' sizes."""
    for first, size in enumerate(sizes):
        for last in range(first, min(first + 5, len(sizes))):
            if tuple(sizes[first : last + 1]) in _PRINTED_GROUPS or (last == first and size in _CARD_DIGITS):
                yield first, last
        if first == 0 or sizes[first - 1] != size:
            last = first
            while last + 1 < len(sizes) and sizes[last + 1] == size:
                last += 1
            if last > first:
                yield first, last
                if last + 1 < len(sizes) and sizes[last + 1] < size:
                    yield first, last + 1


def _is_something_else(shadow: str, left: int, right: int, digits: str, *, international: bool) -> bool:
    """Whether a number that passes as a card's by its checksum looks like an order, a date, a phone or an id."""
    return (
        (international and len(digits) <= 15)
        or _DATE_FIRST.match(digits) is not None
        or _MILLISECONDS.fullmatch(digits) is not None
        or _PHONE.fullmatch(digits) is not None
        or _ORDER_BEFORE.search(shadow, max(0, left - _LONGEST_ORDER_NAME), left) is not None
        or any(
            found.start() < right and left < found.end()
            for found in _UUID.finditer(shadow, max(0, left - 36), right + 36)
        )
    )


def _is_identity_number(digits: str) -> bool:
    return len(digits) == 18 and bool(mod_11_2.is_valid(digits.upper()))


def _compact(written: str) -> str:
    return re.sub(r"[^0-9A-Za-z]", "", written)


# Values that are named --------------------------------------------------------------------------------------------

# Words that may stand between a name and its value, or between a value and its name. They must not end in the middle of
# a word, so that "is" does not open "isn't", nor "her" a password "her-0".
_FILLERS: Final = (
    "(?:(?:number|num|no\\.?|code|value|for|to|the|my|your|our|his|her|this|that|account|wallet|app|login|log ?in|card"
    "|bank|i|we|use[ds]?|set|typed|entered|have|now|currently|just|still|also|as|of|online|payment|on|at|it|from|which|here|sent"
    "|received|got|by|sms|text|message|in|you|they|he|she|told|gave|him|me|us|them"
    "|came|arrived|e?mailed|texted|and (?:i|we) (?:told|gave|read|sent))(?![!#-'*-9;-~])"
    "|就|应该|應該|现在|現在|好像|一直|1直|都|我|你|您|设置|設置|设|設|改|的|了|[号號]|[码碼]|刚才?|收到|发来|发|分别|明明"
    "|确实|还|也|目前|原来|原本|以前|之前|记得|填|输入|输|用|写|从|由|这个|這個|这|如下|尾"
    "|告诉|告訴|给|給|他|她|对方|對方|[\"')#~]|-(?= ))"
)
_LINKS: Final = (
    "(?:(?<![A-Za-z])(?:is|was|are|were|be|equals)(?![!#-'*-9;-~])|'s(?![!#-'*-9;-~])|[:=]|[\\-=]?>|是|为|為|成|叫|即)"
)
# No group may capture within a possessive repetition: Python 3.11 then loses its spans ("please report a bug").
# "I forgot my PIN, it was 1234", "对方要验证码，我告诉他了123456": the value is told in the clause after the name's.
_NEXT_CLAUSE: Final = (
    r"[^0-9\n,.;!?。]{0,30},[ ]?(?:(?:it|which) (?:is|was) |(?:so |and )?i (?:told|gave|sent|read)(?: him| her)? "
    "|(?:以前|之前|原本|原来|原來|本来|本來|应该|應該|现在|現在|好像|一直)是"
    "|我(?:就|已经|已經|也|都|还|還)?(?:发|發|告诉|告訴|给|給|说|說|报|報)(?:他|她|对方|對方|客服|了|给|給){0,3})[ ]?"
)
_BETWEEN: Final = (
    rf"(?:(?P<between>(?:[ ]{{0,3}}(?:{_LINKS}|{_FILLERS}))*+[\s,]{{0,4}})[\"'(<]{{0,2}}+\s?|{_NEXT_CLAUSE})"
)
_LINK: Final = re.compile(_LINKS, re.IGNORECASE)
_OWNER: Final = (
    "(?:(?:my|your|the|our|his|her|their|new|old|current|login|log-?in|payment|card|bank|account|wallet|app|a|an|for|this"
    "|google|sms)(?![!#-'*-9;-~])"
    "|我们?|你|您|他|她|的|本次|这次|新|旧|原|登[录陆]|支付宝|支付|交易|银行卡?|取款|短信|手机|动态|微信|钱包|账[号户]|帐[号户]|卡)"
)
_BACK_LINK: Final = (
    r"[\"')]{0,2}[ ]{0,3}(?:就|才|这)?(?:(?:is|was|are|as|for(?= my ))(?![!#-'*-9;-~])|是|为|為|当作?|當作?|作为|做|=)"
    rf"(?:[ ]{{0,3}}{_OWNER}){{0,6}}[ ]{{0,3}}"
)
_DIRECT_LINK: Final = rf"(?:[ ]{{0,3}}\((?:{_OWNER}){{0,6}}|这个?)"
# "6位", "3 times", "500元": a number with a unit is no secret.
_NO_UNIT: Final = (
    r"(?![ ]{0,2}(?:[位次天秒年月元块塊条條张岁%]|分钟|小时|多[位次]|人民币|美元"
    r"|[港欧歐]元|港[币幣]|(?:times?|digits?|char(?:acter)?s?|minutes?|mins?|seconds?|secs?|hours?|days?|weeks?|months?|years?|yuan|rmb|cny|usd|dollars?"
    r"|euros?|eur|gbp|hkd|letters?|attempts?|messages?|chats?|posts?|items?|points?|people)(?![A-Za-z])))"
)


def _digits(fewest: int, most: int) -> str:
    """A regular expression for so many digits, in one piece or in equal groups (`1 2 3 4`, `12-34-56`, `123 456`)."""
    grouped = [
        rf"[0-9]{{{size}}}(?:[ \-][0-9]{{{size}}}){{{max(1, -(-fewest // size) - 1)},{most // size - 1}}}(?![0-9])"
        for size in (1, 2, 3, 4)
        if most // size >= 2
    ]
    return f"(?:{'|'.join(grouped)}|[0-9]{{{fewest},{most}}}(?![0-9]))"


def _long_digits(fewest: int, most: int) -> str:
    """A regular expression for a long number in any grouping."""
    return rf"[0-9](?:[ .\-]{{0,3}}[0-9]){{{fewest - 1},{most - 1}}}+(?![0-9])"


def _any_value(_value: str, _strong: bool) -> bool:
    return True


_APPOSITION: Final = re.compile(r", [^\s,]+(?:, |\Z)")  # "my PIN, 1234, is refused"


class _NamedSecret:
    """A kind of secret that is known by its name: `name` and `value` are regular expressions over the shadow.

    `check(value, strong)` has the last word; `strong` says whether a verb or a colon ties the value to the name.
    """

    def __init__(
        self, kind: str, name: str, value: str, check: Callable[[str, bool], bool] = _any_value, *, before: str = ""
    ) -> None:
        self.kind = kind
        self.name = re.compile(name, re.IGNORECASE)
        self._check = check
        self._after = re.compile(rf"(?:{name}){_BETWEEN}(?P<value>{value}){_NO_UNIT}", re.IGNORECASE)
        links = "|".join(filter(None, (_BACK_LINK, before)))
        self._before = re.compile(rf"(?<![A-Za-z0-9.\-])(?P<value>{value})(?:{links})(?:{name})", re.IGNORECASE)

    def find(self, shadow: str) -> Iterator[_Span]:
        # The name is sought first: it is rare, and everything else hangs on it.
        if not self.name.search(shadow):
            return
        for match in self._after.finditer(shadow):
            between = match["between"]
            if between is None:
                yield from self._span(match, strong=False)
                continue
            strong = _LINK.search(between) is not None
            in_clause = not {"\n", ","}.intersection(between)
            if strong or in_clause or _APPOSITION.match(shadow, match.end("between") - 2):
                yield from self._span(match, strong=strong)
        for match in self._before.finditer(shadow):
            yield from self._span(match, strong=False)

    def _span(self, match: re.Match[str], *, strong: bool) -> Iterator[_Span]:
        start, end = match.span("value")
        while end > start and match.string[end - 1] in _TRAILING:
            end -= 1
        if end > start and self._check(match.string[start:end], strong):
            yield _Span(start, end, self.kind)


_TRAILING: Final = ".,;:?)]}>'\"。"

# What follows "my password is" without telling it.
_TALK: Final = frozenset(
    """
    a about above accepted account active again all already also always an and another any asked at available
    bad because been before being below best better both box broken but button by can cannot case change changed
    clear closed code common complex compromised correct correctly cut dead definitely different difficult
    disabled done down due easy either email empty enough error even ever exact exactly expired failing false
    field fine for forgot forgotten from frozen gone good hacked hard has have here hidden how impossible in
    incorrect ineffective insecure insufficient invalid it its just known late less like long lost lower mail
    main manager mandatory many missing mixed more my necessary needed never new next no none nor not nothing
    now null number off often ok okay old on once one only open option or our out over page password phone pin
    please possible private problem protected public random really recorded refused rejected required reset
    right safe same saved screen secure seen sent set short should shown simple since slow so some soon still
    stolen strange strong stuck such sure taken temporary terrible that the their there these they this to too
    totally true typed undefined unknown unsafe unsure up updated used useful useless user users using usual
    valid very visible was weak weird what when where whether which who why will with without working wrong yes
    yet you your
    """.split()  # noqa: SIM905 - readable as a text, not as 190 quoted literals
)
_TALK_ENDING: Final = ("ed", "ing", "ly", "n't", "able", "ible")
_LOOKS_HARMLESS: Final = re.compile(
    r"(?:19|20)[0-9]{2}[-/.][0-9]{1,2}(?:[-/.][0-9]{1,2})?.*"  # a date
    r"|[0-9]{1,2}:[0-9]{2}(?::[0-9]{2})?"  # a time
    r"|[0-9]{1,2}[-/][0-9]{1,2}(?:[-/][0-9]{2,4})?"
    r"|\+?(?:86)?-?1[3-9][0-9]{9}"  # a phone number
    r"|[^@ ]+@[^@ ]+\.[A-Za-z]{2,}"  # an address
    r"|https?://.*"
    r"|[¥$€£]?[0-9,]*[0-9]\.[0-9]{1,2}|[¥$€£].*"  # an amount
)


def _is_password(value: str, strong: bool) -> bool:
    if len(value) < 3:
        return False
    has_digit = any("0" <= character <= "9" for character in value)
    if strong:
        words = [stripped for word in value.lower().split() if (stripped := word.strip("*!-"))]  # "password: ****"
        return has_digit or not all(word in _TALK or word.endswith(_TALK_ENDING) for word in words)
    return has_digit and len(value) >= 4 and not _LOOKS_HARMLESS.fullmatch(value)


def _is_code(value: str, strong: bool) -> bool:
    """Digits in any case; letters among them only where a verb or a colon says that this is the code."""
    return (strong or not any(map(str.isalpha, value[2:]))) and any(map(str.isdigit, value))


def _is_document_number(value: str, strong: bool) -> bool:
    return sum(map(str.isdigit, value)) >= 5 and (strong or not _LOOKS_HARMLESS.fullmatch(value))


def _is_account_number(value: str, _strong: bool) -> bool:
    digits = _compact(value)
    return not _PHONE.fullmatch(digits)


_NOT_IN_WORD: Final = "(?<![A-Za-z])"
_ENDS: Final = "(?![A-Za-z])"
_NUMBER_WORD: Final = r"(?:[ ]{0,2}(?:numbers?|num|no\.?|#|[号號][码碼]?))?"
# "It is abc123 or abc456", "I tried 1234 and 4321", "from 1234 to 4321": the second one is named by the first.
_NEXT: Final = (
    rf"[ ]{{0,2}}(?:或者?|还是|還是|改[为為成]|[换換]成|[变變]成|和|跟|{_NOT_IN_WORD}(?:or|to|and(?: also)?){_ENDS})"
)

_NAMED: Final = (
    _NamedSecret(
        CARD,
        rf"{_NOT_IN_WORD}(?:credit|debit|bank|visa|master ?card|unionpay)(?: card)?{_NUMBER_WORD}{_ENDS}"
        rf"|{_NOT_IN_WORD}card(?: ?numbers?| ?num| ?no\.?| ?#){_ENDS}"
        r"|卡[号號][码碼]?|银行卡|銀行卡|信用卡|储蓄卡|借记卡",
        _long_digits(13, 19),
    ),
    _NamedSecret(
        IDENTITY,
        rf"身份[证證]{_NUMBER_WORD}|[证證]件{_NUMBER_WORD}"
        rf"|{_NOT_IN_WORD}(?:(?:identity|national|resident|citizen)(?: id)?(?: card)?|id card|my id){_NUMBER_WORD}"
        rf"{_ENDS}",
        r"(?:[0-9](?:[ \-]?[0-9]){16}[ \-]?[0-9Xx]|[0-9]{15})(?![0-9A-Za-z])",
    ),
    _NamedSecret(
        CVV,
        rf"{_NOT_IN_WORD}(?:cvv2?|cvc2?|cvn2?|cv2|csc){_ENDS}(?:[ ]?(?:code|number|no\.?|[码碼]))?"
        rf"|{_NOT_IN_WORD}(?:security code|card verification (?:code|value|number)"
        rf"|(?:3|4|three|four)[ \-]?digits?(?: code| number)? (?:on|at) the back(?: of (?:the|my) card)?){_ENDS}"
        r"|安全[码碼]|(?:背[面后後]|(?<=卡)的?[后後]面)的?最?[后後末]?[三3四4][位个個](?:数字?|數字?|[号號]?[码碼])?",
        _digits(3, 4),
    ),
    _NamedSecret(
        PIN,
        rf"{_NOT_IN_WORD}pins?{_ENDS}(?:[ \-]?(?:codes?|numbers?|no\.?|[码碼]|[号號]))?",
        _digits(4, 12),
    ),
    _NamedSecret(
        CODE,
        r"(?:验 ?证 ?|驗 ?證 ?|校验|校驗|动态|動態|确认|確認|认证|認證|短信)[码碼]|动态密[码碼]|动态口令"
        r"|[一1]次性密[码碼]"
        rf"|{_NOT_IN_WORD}(?:t?otp|one[ \-]?time (?:pass ?)?(?:code|password|pin)"
        r"|(?:verification|verify|authentication|auth|authenticator|authori[sz]ation|security|confirmation|sms|text|log-?in|sign-?in|access"
        rf"|2fa|mfa|two[ \-]factor) ?(?:code|pin|passcode)s?|verification numbers?|(?:my|your) code){_ENDS}",
        rf"(?:[A-Z]-)?(?:{_digits(4, 8)}|[A-Z0-9]{{4,10}}(?![A-Z0-9]))",
        _is_code,
        before=_DIRECT_LINK,
    ),
    _NamedSecret(
        CODE,
        # A bare "the code" may be an error's: it takes the six digits that codes are sent with.
        rf"(?:{_NOT_IN_WORD}(?:the|that|this|a|me|us|sent|enter|entered|got|received|typed|with) |(?<=[的里裡中]))"
        rf"code{_ENDS}",
        _digits(6, 6),
    ),
    _NamedSecret(
        PASSPORT,
        rf"(?:护照|護照|通行[证證]|回[乡鄉][证證]){_NUMBER_WORD}|{_NOT_IN_WORD}passports?{_NUMBER_WORD}{_ENDS}",
        r"[A-Z0-9]{6,12}(?![A-Z0-9])",
        _is_document_number,
    ),
    _NamedSecret(
        ACCOUNT,
        r"(?:银行|銀行|[工农中建交招浦兴]行|储蓄|对公|對公|收款|开户|開戶|汇款)卡?的?(?:[账帐賬帳][号號户戶])[号號]?[码碼]?"
        rf"|{_NOT_IN_WORD}(?:bank )?(?:account|acct?\.?|a/c)(?: ?numbers?| ?num| ?no\.?| ?#){_ENDS}"
        rf"|{_NOT_IN_WORD}(?:(?:bank|checking|savings?|current|deposit) (?:account|acct?|a/c)|iban){_ENDS}",
        rf"(?:[A-Z]{{2}}[0-9]{{2}}[ ]?(?:[A-Z]{{4}}[ ]?)?)?{_long_digits(6, 30)}",
        _is_account_number,
    ),
    _NamedSecret(
        ACCOUNT,
        # Wallets call the customer's login an account too, so a bare 账号 needs a number as long as only banks have.
        r"(?<!支付宝)(?<!钱包)(?<!微信)(?<!会员)(?<!用户)[账帐賬帳][号號户戶][号號]?[码碼]?",
        _long_digits(15, 30),
        _is_account_number,
    ),
    _NamedSecret(
        PASSWORD,
        rf"密 ?[码碼]|口令|{_NOT_IN_WORD}(?:passwords?|pass word|passwd|pswd|pwd|pass ?codes?|pass ?phrases?"
        rf"|pw|pass(?=\s*[:=])){_ENDS}",
        # Without quotation marks round it, it may hold one within; at its end one closes the JSON string.
        r"(?<=\")[^\"\n\ue000-\ue003]{3,64}(?=\")|(?<=')[^'\"\n\ue000-\ue003]{3,64}(?=')"
        r"|(?>(?![,.;:?)\"'])(?:[!#-&(-~¡-ɏ]|[\"'](?=[A-Za-z0-9!@#$%^&*])){3,200})",
        _is_password,
    ),
    _NamedSecret(
        PASSWORD,
        rf"{_CUT_OF[PASSWORD]}{_NEXT}",
        r"(?>[!#-&(-~]{4,200})",
        _is_password,
    ),
    _NamedSecret(PIN, rf"{_CUT_OF[PIN]}{_NEXT}", _digits(4, 12)),
    _NamedSecret(CODE, rf"{_CUT_OF[CODE]}{_NEXT}", _digits(4, 8)),
)
_NAMES: Final = re.compile("|".join(rule.name.pattern for rule in _NAMED), re.IGNORECASE)


def _kind_named_by(key: str) -> str | None:
    """The kind of secret that a JSON key like `cardNumber`, `pin_code` or `密码` names."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|[_\-.]", " ", key.translate(_PLAIN)).strip()
    return next((rule.kind for rule in _NAMED if rule.name.fullmatch(words)), None)


# Most messages hold neither a digit nor a password's name, and end here.
_DIGITS_AND_WIDE_LETTERS: Final = frozenset(
    [*"0123456789", *(chr(code) for code, form in _PLAIN.items() if form.isdigit() or form.isalpha())]
)


def _may_hold_a_secret(text: str) -> bool:
    if not _DIGITS_AND_WIDE_LETTERS.isdisjoint(text):
        return True
    # Without a digit only a password can be told. The names that these stand for: see `_NAMED`.
    lower = text.lower()
    return (
        "密" in lower
        or "口令" in lower
        or "pass" in lower
        or "pwd" in lower
        or "pswd" in lower
        or "pw" in lower
        or _CHINESE_NUMBER.search(text) is not None
    )
