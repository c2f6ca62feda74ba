"""Amounts of money, in Chinese and English writing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from services.classifier.domain.facts.numbers import CHINESE_NUMERALS, SCALES, arabic, chinese
from shared.taxonomy import Language


@dataclass(frozen=True, slots=True)
class Amount:
    """`currency`: ISO 4217 (USDT by its own name), None where neither the customer nor the language tells."""

    value: Decimal
    currency: str | None
    start: int
    end: int


_CURRENCIES: Final = {
    "CNY": "¥ 元 块 块钱 圆 人民币 rmb cny yuan 大洋",
    "USD": "$ us$ 美元 美金 刀 usd dollar dollars buck bucks",
    "EUR": "€ 欧元 eur euro euros",
    "GBP": "£ 英镑 gbp pound pounds quid",
    "HKD": "hk$ 港币 港元 港纸 hkd",
    "MOP": "澳门币 mop",
    "TWD": "nt$ 台币 新台币 twd",
    "JPY": "日元 日币 jpy yen",
    "KRW": "₩ 韩元 韩币 krw won",
    "SGD": "s$ 新币 新加坡元 sgd",
    "MYR": "rm 马币 令吉 myr ringgit",
    "THB": "฿ 泰铢 thb baht",
    "AUD": "a$ 澳元 澳币 aud",
    "CAD": "c$ 加元 加币 cad",
    "INR": "₹ 卢比 inr rupees",
    "RUB": "卢布 rub rubles roubles",
    "USDT": "usdt",
}
_CODE_OF: Final = {written: code for code, all_written in _CURRENCIES.items() for written in all_written.split()}


def _any_of(words: Iterator[str] | list[str]) -> str:
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))


_SIGN: Final = _any_of([word for word in _CODE_OF if not word[-1].isalpha() or re.fullmatch(r"[a-z]{2,4}", word)])
_UNIT: Final = _any_of(list(_CODE_OF))
_SCALE: Final = _any_of(list(SCALES))
# Every repetition is bounded: a text of twenty thousand digits must cost no more than any other.
_NUMBER: Final = r"(?:\d{1,3}(?:,\d{3}){1,4}|\d{1,12})(?:\.\d{1,8})?"
_NUMERALS: Final = rf"(?<![{CHINESE_NUMERALS}])"
_LEFT: Final = r"(?<![\w*-])(?<!\d[.,])"  # not the tail of a longer number, of a word or of a masked number
_NOT_MORE: Final = r"(?![\d*]|[.,:/-]\d)"
# A bare number counts as money after a verb of paying, unless a unit of something else follows.
_VERB: Final = (
    r"消费|付了|付款|支付|转了|转账|转走|转|充值|充了|充|扣了|扣款|扣|提现|取了|取|刷了|刷|还了|退款|借了|花了|收|汇款|汇|打了"
    r"|paid|pay|charged|transferred|transfer of|sent|withdrew|deposited|topped up|top up of|spent|refund of|payment of"
)
_OTHER_UNIT: Final = (
    r"\s*(?:次|笔|天|小时|分钟|个|张|月|号|日|年|点|遍|回|位|家|人|岁|%|折|倍|期|times?\b|days?\b|hours?\b|weeks?\b|months?\b"
    r"|minutes?\b|years?\b|digits?\b|percent|cards?\b|accounts?\b|st\b|nd\b|rd\b|th\b)"
)
_MONEY: Final = re.compile(
    rf"(?:{_LEFT}|(?<=[㐀-鿿]))(?P<sign>{_SIGN})\s*(?P<signed>{_NUMBER})\s*(?:(?P<signed_scale>{_SCALE})(?![a-z]))?{_NOT_MORE}"
    rf"|(?:{_LEFT}|(?<=[㐀-鿿]))(?P<counted>{_NUMBER})\s*(?:(?P<counted_scale>{_SCALE})(?![a-z]))?[多来几]?\s*(?P<unit>{_UNIT})(?![a-z])"
    rf"(?P<tenth>[\d一二三四五六七八九](?![\d{CHINESE_NUMERALS}元块个天次分]))?"
    rf"|{_NUMERALS}(?P<chinese>[{CHINESE_NUMERALS}半]{{1,12}})[多来几]?\s*(?P<chinese_unit>{_UNIT})(?![a-z])"
    rf"(?P<chinese_tenth>[一二三四五六七八九](?![{CHINESE_NUMERALS}个天次分]))?"
    rf"|{_NUMERALS}(?P<bare_chinese>(?:[一二三四五六七八九两俩十]{{1,3}}[百千万亿]){{1,4}}[{CHINESE_NUMERALS}]{{0,4}})(?!{_OTHER_UNIT}|[{CHINESE_NUMERALS}不分])"
    rf"|(?:{_LEFT}|(?<=[㐀-鿿]))(?P<scaled>{_NUMBER})\s?(?P<scale>[kw千万亿])(?P<next>[1-9])?(?![a-z{CHINESE_NUMERALS}]){_NOT_MORE}(?!{_OTHER_UNIT})"
    rf"|(?:{_VERB})\s*(?:了|过|of)?\s*(?P<paid>(?:\d{{1,3}}(?:,\d{{3}})+|\d{{1,7}})(?:\.\d{{1,2}})?){_NOT_MORE}(?!{_OTHER_UNIT}|\s*[多来几]?(?:{_UNIT}|{_SCALE})|[a-z])"
)
_COINS: Final = re.compile(
    rf"(?P<coins>(?<![\d.])\d{{1,4}}(?:\.\d)?|{_NUMERALS}[{CHINESE_NUMERALS}])\s*(?P<coin>毛|角)钱?"
)
_MONEY_MARK: Final = re.compile(rf"\d|[{CHINESE_NUMERALS}]")


def amounts(folded: str, language: Language) -> list[Amount]:
    """Every amount in the folded text, in order. `$` is USD; without any currency a Chinese text means CNY."""
    if not _MONEY_MARK.search(folded):
        return []
    usual = "CNY" if language is Language.ZH else None
    found = [amount for match in _MONEY.finditer(folded) if (amount := _amount(match, usual))]
    found += [
        Amount(value / 10, "CNY", match.start(), match.end())
        for match in _COINS.finditer(folded)
        if (value := _number(match["coins"])) is not None
    ]
    return found


def _amount(match: re.Match[str], usual: str | None) -> Amount | None:
    start, end = match.span()
    currency = usual
    value: Decimal | None
    if match["signed"]:
        value, currency = arabic(match["signed"], match["signed_scale"]), _CODE_OF[match["sign"]]
    elif match["counted"]:
        value, currency = arabic(match["counted"], match["counted_scale"]), _CODE_OF[match["unit"]]
        value = _with_tenth(value, match["tenth"])
    elif match["chinese"]:
        written = match["chinese"]
        value = Decimal("0.5") if written == "半" else chinese(written.removesuffix("半"))
        if value is not None and written != "半" and written.endswith("半"):
            value += Decimal("0.5")
        value, currency = _with_tenth(value, match["chinese_tenth"]), _CODE_OF[match["chinese_unit"]]
    elif match["bare_chinese"]:
        value = chinese(match["bare_chinese"])
    elif match["scaled"]:
        value = arabic(match["scaled"], match["scale"])
        if match["next"]:  # 2万5: the digit behind the scale counts in the next lower unit
            value += int(match["next"]) * SCALES[match["scale"]] // 10
    else:
        value = arabic(match["paid"])
        start = match.start("paid")
    return None if value is None else Amount(value, currency, start, end)


def _with_tenth(value: Decimal | None, tenth: str | None) -> Decimal | None:
    """`两块五`: the digit behind the unit is tenths."""
    if value is None or tenth is None:
        return value
    digit = _number(tenth)
    return value if digit is None else value + digit / 10


def _number(written: str) -> Decimal | None:
    return Decimal(written) if written[0].isascii() else chinese(written)


def written_out(value: Decimal) -> str:
    """The decimal string of an amount, with the cents that were written: `1299.00`, `2000`, `2.5`."""
    return f"{value:f}"
