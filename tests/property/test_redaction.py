"""No secret survives, whatever its value and however it is written; redacting twice is redacting once."""

from __future__ import annotations

import datetime
import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stdnum import luhn
from stdnum.iso7064 import mod_11_2

from shared.redaction import KINDS, redact, redact_json_text

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
