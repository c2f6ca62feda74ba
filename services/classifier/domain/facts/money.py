"""Amounts of money, in Chinese and English writing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from services.classifier.domain.facts.numbers import (
    CHINESE_NUMERALS,
    ENGLISH_NUMBERS,
    SCALES,
    arabic,
    chinese,
    english,
    mixed,
)
from services.classifier.domain.text import Reading, stem
from shared.taxonomy import Language


@dataclass(frozen=True, slots=True)
class Amount:
    """`currency`: ISO 4217 (USDT by its own name), None where neither the customer nor the language tells."""

    value: Decimal
    currency: str | None
    start: int
    end: int


# The first word of each is written before the number, or behind it; so are the codes. Of the rest, see _SIGN and _UNIT.
_CURRENCIES: Final = {
    "CNY": "¥ 元 块 块钱 圆 人民币 rmb cny yuan 大洋",
    "USD": "$ us$ 美元 美金 刀 usd dollar dollars buck bucks",
    "EUR": "€ 欧元 eur euro euros",
    "GBP": "£ 英镑 gbp pound pounds quid",
    "HKD": "hk$ 港币 港元 港纸 蚊 hkd",
    "MOP": "mop$ 澳门币 澳门元 mop",
    "TWD": "nt$ 台币 新台币 twd",
    "JPY": "日元 日币 日圆 jpy yen",
    "KRW": "₩ 韩元 韩币 krw won",
    "SGD": "s$ 新币 新加坡元 sgd",
    "MYR": "rm 马币 令吉 myr ringgit",
    "THB": "฿ 泰铢 thb baht",
    "AUD": "a$ 澳元 澳币 aud",
    "NZD": "nz$ 纽币 nzd",
    "CAD": "c$ 加元 加币 cad",
    "CHF": "瑞郎 chf francs",
    "INR": "₹ 卢比 inr rupee rupees",
    "IDR": "rp 印尼盾 idr rupiah",
    "VND": "₫ 越南盾 vnd dong",
    "PHP": "₱ 比索 php peso pesos",
    "BRL": "r$ brl reais",
    "RUB": "₽ 卢布 rub rubles roubles",
    "USDT": "usdt",
}
_CODE_OF: Final = {written: code for code, all_written in _CURRENCIES.items() for written in all_written.split()}
# Words that many currencies share: they give way to a sign that names one ("港币800元", "HK$20 dollars").
_SHARED: Final = frozenset({"元", "块", "块钱", "圆", "dollar", "dollars"})
_CONTINENTAL: Final = ("EUR", "BRL", "IDR", "VND", "CHF")  # who write 1.299,00


def _any_of(words: Iterable[str]) -> str:
    """The longest first; a Latin word must be whole ("500块app" has a unit, "5kg" no scale)."""
    return "|".join(
        re.escape(word) + ("(?![a-z])" if "a" <= word[-1] <= "z" else "")
        for word in sorted(words, key=len, reverse=True)
    )


_NAMES: Final = tuple(
    word for word in _CODE_OF if len(word) > 1 and "㐀" <= word[0] <= "鿿" and word not in {"块钱", "大洋"}
)


def _is_sign(word: str) -> bool:
    return not word[-1].isalpha() or word in {"rm", "rp", "rmb"} or word.upper() in _CURRENCIES or word in _NAMES


_SIGN: Final = _any_of(filter(_is_sign, _CODE_OF))
_UNIT: Final = _any_of(word for word in _CODE_OF if word != "元") + "|元(?![旦宵宝])"
_SCALE: Final = _any_of(SCALES)
_CONTINENTAL_WORDS: Final = [word for word, code in _CODE_OF.items() if code in _CONTINENTAL]
# Every repetition is bounded: a text of twenty thousand digits must cost no more than any other.
_NUMBER: Final = r"(?:\d{1,3}(?:,\d{3}){1,4}|\d{1,2}(?:,\d\d){1,4},\d{3}|\d{1,12})(?:\.\d{1,8})?"
_WITH_POINTS: Final = r"(?:\d{1,3}(?:[. ]\d{3}){1,4}(?:,\d\d)?|\d{1,7},\d\d)"
_NUMERALS: Final = rf"(?<![{CHINESE_NUMERALS}几数])"
_LEFT: Final = r"(?<![\w*-])(?<!\d[.,])"  # not the tail of a longer number, of a word or of a masked number
_NOT_MORE: Final = r"(?![\d*]|[.,:/-]\d)"
_START: Final = rf"(?:{_LEFT}|(?<=[㐀-鿿]))"
# A bare number counts as money after a verb of paying, unless a unit of something else follows.
_VERB: Final = (
    r"消费|付了|付款|支付|转了|转账|转走|转出|转给[㐀-鿿]{1,4}|转|充值|充了|充|扣了|扣款|扣|提现|取了|取|刷了|刷"
    r"|还款|还了|退款|借了|花了|收到|收|汇款|汇|打款|打了|金额|总额|总价|损失|少了|亏了|到账"
    r"|paid|pay|charged|debited|deducted|transferred|transfer of|sent|withdrew|withdraw|deposited|topped up|top up"
    r"|spent|refund of|payment of|amount|sum of|total of|lost"
)
_BETWEEN: Final = r"(?:\s*(?:[:=了过是为]|of|is|was|me|us|him|her|them|about|around|over|only)){0,3}\s*"
_OTHER_UNIT: Final = (
    r"\s*(?:多?(?:次|笔|天|小时|分钟|个|张|月|号|日|年|点|遍|回|位|家|人|岁|折|倍|期|单|份|件|台|部|套|条|种|名|户|米|秒|封|通"
    r"|积分|分|金币|豆)|%"
    r"|times?\b|days?\b|hours?\b|weeks?\b|months?\b|minutes?\b|years?\b|digits?\b|percent|st\b|nd\b|rd\b|th\b|am\b|pm\b"
    r"|(?!this\b|was\b|is\b|has\b|as\b|us\b|plus\b|across\b|always\b|bucks\b)[a-z]{2,14}s\b)"
)
# Where an amount can begin: a look at one character, before all the patterns are tried.
_BEGINS: Final = (
    rf"(?:(?=[\d{CHINESE_NUMERALS}半"
    + "".join(sorted({re.escape(word[0]) for word in (*_CODE_OF, *_VERB.split("|")) if not "a" <= word[0] <= "z"}))
    + "])|(?<![a-z])(?=[a-z]))"
)
_SPACED: Final = rf"\d{{1,3}}(?: \d{{3}}){{1,3}}(?:\.\d\d)?(?![\d.,:])(?!{_OTHER_UNIT}|\s*(?:{_SCALE}))"
_MIXED: Final = r"\d{1,4}[亿万千百]\d{1,4}(?:[千百]\d{0,3}百?)?"


def _coins_behind(name: str, digits: str, not_before: str) -> str:
    """What stands behind `3块`: `8毛5`, or just `8`."""
    return (
        rf"(?:(?P<{name}_tenth>[{digits}半](?![{digits}{CHINESE_NUMERALS}{not_before}]))"
        rf"(?:[毛角](?:(?P<{name}_hundredth>[{digits}])(?![{digits}{CHINESE_NUMERALS}])分?)?钱?)?)?"
    )


_DIGITS_OR_NUMERALS: Final = "0123456789一二三四五六七八九"
_WRITINGS: Final = (
    # €1.299,00 and 1 299,00 €
    rf"{_START}(?P<point_sign>{_any_of(filter(_is_sign, _CONTINENTAL_WORDS))})\s*"
    rf"(?P<point_signed>{_WITH_POINTS})(?![\d㐀-鿿]|[.,]\d)",
    rf"{_START}(?P<point_counted>{_WITH_POINTS})\s?(?P<point_unit>{_any_of(_CONTINENTAL_WORDS)})",
    # ¥1,299.00, USD 5k, 港币800元
    rf"{_START}(?P<sign>{_SIGN})\s*(?P<signed>{_SPACED}|{_NUMBER})(?:\s*(?P<signed_scale>{_SCALE}))?{_NOT_MORE}"
    rf"(?:\s*(?P<signed_unit>{_UNIT}))?",
    # 300多块, 1.5万元, 1万2千元, 20块5, 3块8毛5
    rf"{_START}(?:(?P<mixed>{_MIXED})|(?P<counted>{_NUMBER})(?:\s*(?P<counted_scale>{_SCALE}))?)[多来几]?\s*"
    rf"(?P<unit>{_UNIT}){_coins_behind('counted', _DIGITS_OR_NUMERALS, '元块个天次分')}",
    # 两千块, 人民币三百, 两块五
    rf"(?P<before>{_any_of(_NAMES)})?{_NUMERALS}(?P<chinese>[{CHINESE_NUMERALS}半]{{1,12}})[多来几]?\s*"
    rf"(?(before)(?P<named_unit>{_UNIT})?|(?P<chinese_unit>{_UNIT}))"
    rf"{_coins_behind('chinese', '一二三四五六七八九', '个天次分')}",
    # 三千五, 两万多
    rf"{_NUMERALS}(?P<bare_chinese>(?:[一二三四五六七八九两俩十]{{1,3}}[百千万亿]){{1,4}}[{CHINESE_NUMERALS}]{{0,4}})"
    rf"[多来几]?+(?!{_OTHER_UNIT}|[{CHINESE_NUMERALS}不分])",
    # 2万5, 5k, 1w2
    rf"{_START}(?P<bare_mixed>{_MIXED}){_NOT_MORE}(?![{CHINESE_NUMERALS}]|{_OTHER_UNIT})",
    rf"{_START}(?P<scaled>{_NUMBER})\s?(?P<scale>[kw千万亿])(?P<next>[1-9])?(?![{CHINESE_NUMERALS}]|(?<=[kw\d])[a-z])"
    rf"{_NOT_MORE}(?!{_OTHER_UNIT})",
    # 充值500, paid 89.99
    rf"(?:{_VERB}){_BETWEEN}(?P<paid>(?:\d{{1,3}}(?:,\d{{3}})+|\d{{1,7}})(?:\.\d{{1,2}})?){_NOT_MORE}"
    rf"(?!{_OTHER_UNIT}|\s*[多来几]?(?:{_UNIT}|{_SCALE}|[毛角分])|[a-z]| \d{{3}}\b)",
)
_MONEY: Final = re.compile(f"{_BEGINS}(?:{'|'.join(_WRITINGS)})")
# "一分钱都没到账" says that nothing came, not how much.
_NOTHING_AT_ALL: Final = r"(?!钱?[都也没不])"
_COINS: Final = re.compile(
    rf"(?P<coins>(?<![\d.])\d{{1,4}}(?:\.\d)?|{_NUMERALS}[{CHINESE_NUMERALS}])\s*(?P<coin>[毛角]钱?|分钱){_NOTHING_AT_ALL}"
    r"|(?<!\w)(?<!\d[.,])(?P<pence>\d{1,2})(?:\s?(?P<cent>cents?)|\s?pence|p)(?![a-z0-9])"
)
_TOGETHER: Final = re.compile(r"一块(?:[儿付充转去用买吃提办来做]|钱?[都也没])")
_MONEY_MARK: Final = re.compile(rf"\d|[{CHINESE_NUMERALS}拾佰仟]")
# Bankers' numerals, as on receipts: 人民币叁仟元整.
_BANKERS: Final = str.maketrans("壹贰貳叁参肆伍陆柒捌玖拾佰仟", "一二二三三四五六七八九十百千")
# A full-width comma between half-width digits parts two clauses ("充值500，100块没到"), unless cents follow.
_CLAUSE: Final = re.compile(r"(?<=[0-9])，(?=[0-9])(?!\d{3}\.\d\d(?!\d))")

_SPELT_UNITS: Final = (
    *("dollar", "dollars", "buck", "bucks", "pound", "pounds", "quid", "euro", "euros", "yuan", "rmb", "ringgit"),
    *("baht", "rupees", "pesos", "yen", "grand"),
)
_SPELT_MARKS: Final = frozenset(map(stem, _SPELT_UNITS))
_SPELT_UNIT: Final = re.compile(
    rf"(?<=\s)(?:{_any_of(_SPELT_UNITS)})"
    r"(?!\s+(?:total|piano|opening|father|mother|son|daughter|child|parents?|prize|plan|scheme|idea|hotel|tour|theft))"
)
_SPELT_SCALES: Final = ("hundred", "thousand", "million", "lakh", "couple")
_SPELT_WORDS: Final = (*ENGLISH_NUMBERS, *_SPELT_SCALES, "half")
_SPELT_BEFORE: Final = re.compile(
    r"(?<![a-z])(?<!few )(?<!several )(?<!some )(?<!many )"
    rf"(?:(?:{_any_of(_SPELT_WORDS)})[\s-]+|a\s+(?=(?:{_any_of(_SPELT_SCALES)})|\Z))"
    rf"(?:(?:{_any_of((*_SPELT_WORDS, 'a', 'and', 'of'))})[\s-]+)*\Z"
)
_DIGITS_BEFORE: Final = re.compile(rf"{_LEFT}{_NUMBER}\s+\Z")
_LONGEST_SPELT: Final = 80


def amounts(reading: Reading, language: Language) -> list[Amount]:
    """Every amount in the text, in order. `$` is USD; without any currency a Chinese text means CNY."""
    folded, tokens = reading.folded, reading.tokens
    spelt = [] if _SPELT_MARKS.isdisjoint(tokens) else list(_spelt(folded))
    if not _MONEY_MARK.search(folded):
        return spelt
    if not {"佰", "仟", "拾"}.isdisjoint(tokens):
        folded = folded.translate(_BANKERS)
    if "，" in reading.text:
        for comma in _CLAUSE.finditer(reading.text):
            folded = f"{folded[: comma.start()]};{folded[comma.end() :]}"
    usual = "CNY" if language is Language.ZH else None
    found = [amount for match in _MONEY.finditer(folded) if (amount := _amount(match, usual))]
    found += [amount for match in _COINS.finditer(folded) if (amount := _coins(match))]
    return found + spelt


def _amount(match: re.Match[str], usual: str | None) -> Amount | None:
    start, end = match.span()
    currency = usual
    value: Decimal | None
    if match["point_signed"] or match["point_counted"]:
        value = arabic(re.sub(r"\.(?=\d{3})", "", match["point_signed"] or match["point_counted"]))
        currency = _CODE_OF[match["point_sign"] or match["point_unit"]]
    elif match["signed"]:
        value = arabic(match["signed"], match["signed_scale"])
        currency = _currency(match["sign"], match["signed_unit"])
    elif match["unit"]:
        value = mixed(match["mixed"]) if match["mixed"] else arabic(match["counted"], match["counted_scale"])
        value, currency = (
            _with_coins(value, match["counted_tenth"], match["counted_hundredth"]),
            _CODE_OF[match["unit"]],
        )
    elif match["chinese"]:
        value = _numerals(match["chinese"])
        currency = _currency(match["before"] or match["chinese_unit"], match["named_unit"])
        value = _with_coins(value, match["chinese_tenth"], match["chinese_hundredth"])
        if value == 1 and _TOGETHER.match(match.string, start):  # "和朋友一块付的": together
            return None
    elif match["bare_chinese"]:
        value = chinese(match["bare_chinese"])
    elif match["bare_mixed"]:
        value = mixed(match["bare_mixed"])
    elif match["scaled"]:
        if match["scale"] == "w" and usual is None:  # a week or a watt, but for Chinese customers
            return None
        value = arabic(match["scaled"], match["scale"])
        if match["next"]:  # 2w5: the digit behind the scale counts in the next lower unit
            value += int(match["next"]) * SCALES[match["scale"]] // 10
    else:
        value = arabic(match["paid"])
        start = match.start("paid")
    return None if value is None else Amount(value, currency, start, end)


def _currency(sign: str, unit: str | None) -> str:
    """That of the sign, unless the unit behind the number says more: `¥300 yen`, `$500 AUD`, `港币800元`."""
    return _CODE_OF[sign if unit is None or unit in _SHARED else unit]


def _numerals(written: str) -> Decimal | None:
    """`三千` -> 3000, `半` -> 0.5, `三半` -> 3.5."""
    whole = written.removesuffix("半")
    value = chinese(whole) if whole else Decimal(0)
    return value if value is None or whole == written else value + Decimal("0.5")


def _with_coins(value: Decimal | None, tenth: str | None, hundredth: str | None) -> Decimal | None:
    """`两块五`, `3块8毛5`: the digits behind the unit are tenths and hundredths."""
    if value is None:
        return None
    for digit, part in ((tenth, 10), (hundredth, 100)):
        if digit is not None:
            value += (Decimal(5) if digit == "半" else _number(digit) or Decimal(0)) / part
    return value


def _coins(match: re.Match[str]) -> Amount | None:
    if match["pence"]:
        return Amount(Decimal(match["pence"]) / 100, "USD" if match["cent"] else "GBP", match.start(), match.end())
    value = _number(match["coins"])
    part = 100 if match["coin"] == "分钱" else 10
    return None if value is None else Amount(value / part, "CNY", match.start(), match.end())


def _number(written: str) -> Decimal | None:
    return Decimal(written) if written[0].isascii() else chinese(written)


def _spelt(folded: str) -> Iterator[Amount]:
    """`twenty quid`, `two grand`, `a hundred dollars`. "A dollar" tells no amount, "a grand" does."""
    for unit in _SPELT_UNIT.finditer(folded):
        thousands = unit[0] == "grand"
        begin = max(0, unit.start() - _LONGEST_SPELT)
        before = _SPELT_BEFORE.search(folded, begin, unit.start())
        if before is not None:
            words = re.findall(r"[a-z]+", before[0])
            value = english(words) or (Decimal(1) if thousands and words[-1] == "a" else None)
        elif thousands and (before := _DIGITS_BEFORE.search(folded, begin, unit.start())):
            value = arabic(before[0].strip())
        else:
            continue
        if before is not None and value is not None:
            if thousands:
                value *= 1000
            yield Amount(value, _CODE_OF.get(unit[0]), before.start(), unit.end())


def written_out(value: Decimal) -> str:
    """The decimal string of an amount, with the cents that were written: `1299.00`, `2000`, `2.5`."""
    return f"{value:f}"
