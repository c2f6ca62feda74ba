"""No secret survives, whatever its value and however it is written; redacting twice is redacting once."""

from __future__ import annotations

import asyncio
import datetime
import io
import json
import logging
import re
import string
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, unquote

import pytest
from aiokafka import ConsumerRecord
from hypothesis import given, settings
from hypothesis import strategies as st
from stdnum import luhn
from stdnum.iso7064 import mod_11_2

from services.intake.domain import accepted, thread
from services.intake.storage import lock_conversations
from shared.delivery import Paused
from shared.events import Attachment, Customer
from shared.logs import JsonFormatter, TextFormatter
from shared.redaction import KINDS, redact, redact_json_text
from tests.unit.intake.samples import WINDOWS, at, message
from tests.unit.shared.test_delivery import RecordingPublisher, record, subscription

_WRITTEN_DIGITS = ("0123456789", "０１２３４５６７８９", "零一二三四五六七八九", "〇壹贰叁肆伍陆柒捌玖")
_SEPARATORS = st.sampled_from(["", "", "", " ", "-", " - ", "\u00a0", "　", "–"])
_BEFORE = st.sampled_from(["", "你好，", "please help: ", "转账失败了。", "500元没到账，", "on 2026-11-23 ", "Hi,\n"])
_AFTER = st.sampled_from(["", " 谢谢", "，一共扣了500元", ", thanks", "（急）", "\n--\nBob"])


@st.composite
def _in_digits_of_any_kind(draw: st.DrawFn, digits: str, *, separated: bool) -> str:
    separator = draw(_SEPARATORS) if separated else ""
    alphabet = draw(st.sampled_from(_WRITTEN_DIGITS))
    written = [alphabet[int(digit)] if digit in string.digits else digit for digit in digits]
    size = draw(st.sampled_from((1, 2, 3, 4, 5, 6)))
    return separator.join("".join(written[at : at + size]) for at in range(0, len(written), size))


@st.composite
def _cards(draw: st.DrawFn) -> str:
    # Issuers' first digits; 20..., which dates and order numbers begin with, belongs to none.
    first = draw(
        st.sampled_from(["4", "51", "55", "2221", "2720", "34", "37", "36", "30", "62", "60", "65", "35", "81"])
    )
    length = draw(st.integers(13, 19))
    payload = first + draw(st.text(string.digits, min_size=length - 1 - len(first), max_size=length - 1 - len(first)))
    number = payload + luhn.calc_check_digit(payload)
    return draw(_in_digits_of_any_kind(number, separated=True))


@st.composite
def _identity_numbers(draw: st.DrawFn) -> str:
    born = draw(st.dates(datetime.date(1900, 1, 1), datetime.date(2026, 12, 31)))
    area = draw(st.integers(110000, 659999))
    payload = f"{area}{born:%Y%m%d}{draw(st.integers(0, 999)):03}"
    number = payload + mod_11_2.calc_check_digit(payload)
    return draw(_in_digits_of_any_kind(draw(st.sampled_from([number, number.lower()])), separated=False))


def _digits(fewest: int, most: int) -> st.SearchStrategy[str]:
    return st.text(string.digits, min_size=fewest, max_size=most).flatmap(
        lambda digits: _in_digits_of_any_kind(digits, separated=False)
    )


_PASSWORDS = st.tuples(
    st.sampled_from(string.ascii_letters),
    st.text(string.ascii_letters + string.digits + "!@#$%^&*_+-=~", min_size=2, max_size=30),
    st.sampled_from(string.digits),
).map("".join)

_NAMED = {
    "cvv": (_digits(3, 4), ["cvv是{}", "CVV: {}", "the cvc is {}", "安全码{}", "{}是CVV"]),
    "pin": (_digits(4, 8), ["my PIN is {}", "pin: {}", "PIN码是{}", "用{}作为PIN码", "{} is my PIN"]),
    "code": (
        _digits(4, 8),
        [
            "验证码是{}",
            "验证码：{}",
            "验证码 {}",
            "{}是我的验证码",
            "verification code: {}",
            "{} is your OTP",
            "驗證碼{}",
        ],
    ),
    "password": (
        _PASSWORDS,
        [
            "密码是{}",
            "密码：{}",
            "支付密码 {} ",
            "my password is {}",
            "password: {}",
            "pwd={}",
            "登录密码改成了{}",
            "{}是我的密码",
        ],
    ),
    "passport": (
        st.from_regex(r"[EGDSP][A-Z]?[0-9]{7,8}", fullmatch=True),
        ["护照号码是{}", "护照 {}", "passport number: {}", "my passport is {}", "{}是我的护照号码"],
    ),
    "account": (
        st.text(string.digits, min_size=12, max_size=19),
        ["银行账号是{}", "收款账号：{}", "account number {}", "my bank account is {}", "{}是我的银行账号"],
    ),
}


@given(before=_BEFORE, secret=_cards(), after=_AFTER)
def test_no_card_number_survives(before: str, secret: str, after: str) -> None:
    result = redact(f"{before}{secret}{after}")
    assert secret not in result.text
    assert dict(result.counts).keys() <= {"card", "identity"}  # 18 digits can be both
    assert result.counts


@given(before=_BEFORE, secret=_identity_numbers(), after=_AFTER)
def test_no_identity_number_survives(before: str, secret: str, after: str) -> None:
    result = redact(f"{before}{secret}{after}")
    assert secret not in result.text
    assert "identity" in dict(result.counts)


@pytest.mark.parametrize("kind", _NAMED)
@given(data=st.data())
def test_no_named_secret_survives(kind: str, data: st.DataObject) -> None:
    secrets, templates = _NAMED[kind]
    secret = data.draw(secrets)
    told = data.draw(st.sampled_from(templates)).format(secret)
    text = data.draw(_BEFORE) + told + data.draw(_AFTER)
    result = redact(text)
    assert secret not in result.text.replace("[password]", "")
    assert result.counts


_FRAGMENTS = st.one_of(
    st.sampled_from(
        [
            "密码",
            "验证码",
            "password",
            "pin",
            "cvv",
            "卡号",
            "是",
            ":",
            " is ",
            "或者",
            " or ",
            "[",
            "]",
            '"',
            "'",
            "\\",
            "（",
            "）",
        ]
        + [
            " ",
            "\n",
            "，",
            "订单号",
            "4111111111111111",
            "4111 1111",
            "11010519491231002X",
            "123456",
            "abc123",
            "一二三",
            "500元",
        ]
        + [f"[{kind}]" for kind in KINDS]
    ),
    st.text(max_size=8),
)
_TEXTS = st.lists(_FRAGMENTS, max_size=12).map("".join)


@given(_TEXTS)
def test_redacting_twice_is_redacting_once(text: str) -> None:
    once = redact(text)
    assert redact(once.text) == type(once)(once.text)
    assert sum(count for _, count in once.counts) <= once.text.count("[")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXTS, inner, max_size=4),
    max_leaves=12,
)


@given(document=_JSON, ascii_only=st.booleans())
def test_a_json_document_stays_one_and_twice_is_once(document: object, ascii_only: bool) -> None:
    raw = json.dumps(document, ensure_ascii=ascii_only)
    once = redact_json_text(raw)
    json.loads(once)
    assert redact_json_text(once) == once


@given(text=_TEXTS, ascii_only=st.booleans())
def test_redacting_inside_a_json_string_leaves_a_json_string(text: str, ascii_only: bool) -> None:
    assert isinstance(json.loads(redact(json.dumps(text, ensure_ascii=ascii_only)).text), str)


@given(secret=_cards(), other=_JSON)
def test_no_card_number_survives_in_a_document(secret: str, other: object) -> None:
    raw = json.dumps({"a": [{"text": f"卡号 {secret}"}], f"key {secret}": other})
    assert secret not in str(json.loads(redact_json_text(raw)))


# Every path that a secret can take out of intake ---------------------------------------------------------------------

_LONG_ENOUGH_TO_BE_TOLD_FROM_ANY_NUMBER = {
    kind: (_digits(8, 8) if kind in ("pin", "code") else values, templates)
    for kind, (values, templates) in _NAMED.items()
    if kind != "cvv"
}


@st.composite
def _told(draw: st.DrawFn) -> tuple[str, str]:
    """A sentence with a secret in it, and the secret."""
    kind = draw(st.sampled_from(["card", "identity", *_LONG_ENOUGH_TO_BE_TOLD_FROM_ANY_NUMBER]))
    if kind in ("card", "identity"):
        secret = draw(_cards() if kind == "card" else _identity_numbers())
        return draw(_BEFORE) + secret + draw(_AFTER), secret
    values, templates = _LONG_ENOUGH_TO_BE_TOLD_FROM_ANY_NUMBER[kind]
    secret = draw(values)
    return draw(_BEFORE) + draw(st.sampled_from(templates)).format(secret) + draw(_AFTER), secret


def _as_read(written: str) -> str:
    """What a person reads in JSON and in addresses: escapes undone, as often as they were made."""
    for _ in range(3):
        written = re.sub(r"\\\\*u([0-9a-f]{4})", lambda escape: chr(int(escape[1], 16)), written)
    return written + unquote(written)


@given(_told())
def test_no_secret_is_accepted_into_a_ticket(told: tuple[str, str]) -> None:
    sentence, secret = told
    given_message = message(
        text=sentence,
        subject=sentence,
        customer=Customer(id="c-1", name=sentence),
        attachments=(
            Attachment(name=f"{sentence}.png", media_type=sentence, url=f"https://files.example/1?name={sentence}"),
            Attachment(name="1.png", url=f"https://files.example/{quote(sentence)}.png"),
        ),
    )
    stored = accepted(thread([given_message], [], WINDOWS).placements[0], at(1))
    assert secret not in _as_read(stored.model_dump_json())
    assert stored.redactions


class _Statements:
    """Stands for a connection; keeps what would be stored."""

    def __init__(self) -> None:
        self.parameters: list[dict[str, Any]] = []

    async def execute(self, _statement: object, parameters: dict[str, Any]) -> None:
        self.parameters.append(parameters)


@given(_told())
def test_no_secret_is_stored_with_a_conversation(told: tuple[str, str]) -> None:
    sentence, secret = told
    connection = _Statements()
    conversation = message(conversation_id="Re: " + sentence.replace("\n", " "))
    asyncio.run(lock_conversations(connection, {uuid.UUID(int=1): conversation}, at(1)))  # type: ignore[arg-type]
    (stored,) = connection.parameters
    assert stored["channel_conversation_ids"][0].startswith("Re: ")
    assert secret not in stored["channel_conversation_ids"][0]


@contextmanager
def _logs() -> Iterator[io.StringIO]:
    """What is logged, as text and as JSON, one after the other."""
    stream = io.StringIO()
    handlers = [logging.StreamHandler(stream), logging.StreamHandler(stream)]
    handlers[0].setFormatter(JsonFormatter("intake"))
    handlers[1].setFormatter(TextFormatter("intake"))
    root = logging.getLogger()
    for handler in handlers:
        root.addHandler(handler)
    try:
        yield stream
    finally:
        for handler in handlers:
            root.removeHandler(handler)


_RECORDS = st.sampled_from(
    [
        lambda sentence: record(1, sent_at=sentence, text=sentence),
        lambda sentence: record(1, **dict[str, Any]({"sent_at": "never", sentence: [sentence]})),
        lambda sentence: record(1, channel=sentence, nested=json.dumps({"inner": sentence})),
        lambda sentence: record(1, json.dumps({"text": sentence})[:-1].encode()),
        lambda sentence: record(1, json.dumps({"text": sentence}, ensure_ascii=False)[:-1].encode()),
        lambda sentence: record(1, b"\xff " + sentence.encode()),
        lambda sentence: record(1, text=sentence),  # good: the handler fails on it
    ]
)


@given(told=_told(), make=_RECORDS)
def test_no_secret_survives_in_a_dead_letter_or_a_log(
    told: tuple[str, str], make: Callable[[str], ConsumerRecord[Any, Any]]
) -> None:
    sentence, secret = told

    async def quote_the_customer(_batch: object) -> None:
        raise ValueError(sentence)

    publisher = RecordingPublisher()
    bad = make(sentence)
    bad.key = sentence.encode()
    bad.headers = (("subject", sentence.encode()), (sentence, b"x"), ("ce_source", sentence.encode()))
    with _logs() as logged:
        asyncio.run(subscription(quote_the_customer, publisher).on_batch([bad]))
    (letter,) = publisher.letters
    assert secret not in _as_read(letter.model_dump_json())
    assert secret not in _as_read(logged.getvalue())
    assert "dead letter" in logged.getvalue()


@settings(max_examples=20)  # each tries again for a moment
@given(_told())
def test_no_secret_survives_in_the_log_of_a_pause(told: tuple[str, str]) -> None:
    sentence, secret = told

    async def quote_the_customer(_batch: object) -> None:
        raise OSError(sentence)

    with _logs() as logged, pytest.raises(Paused) as paused:
        asyncio.run(subscription(quote_the_customer, RecordingPublisher()).on_batch([record(1)]))
    assert "paused at" in logged.getvalue()
    assert secret not in _as_read(logged.getvalue()) + str(paused.value)


@given(_told())
def test_no_secret_survives_whatever_is_logged(told: tuple[str, str]) -> None:
    sentence, secret = told
    with _logs() as logged:
        try:
            raise ValueError(sentence)
        except ValueError:
            logging.getLogger("test").exception("failed on %s", sentence, extra={"customer": {"wrote": [sentence]}})
    assert "failed on" in logged.getvalue()
    assert secret not in _as_read(logged.getvalue())


def test_a_header_that_names_a_secret_is_cut() -> None:
    bad = record(1, b"no JSON")
    bad.headers = (("password", b"swordfish"), ("cvv", b"123"), ("shop", b"12"))
    publisher = RecordingPublisher()

    async def never(_batch: object) -> None:
        raise AssertionError

    asyncio.run(subscription(never, publisher).on_batch([bad]))
    assert publisher.letters[0].headers == {"password": "[password]", "cvv": "[cvv]", "shop": "12"}
