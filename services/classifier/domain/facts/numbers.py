"""Numbers as customers write them: 1,299.00, 1.299,00, 5k, 1.5万, 1万2千, 两千五, 两三百, fifteen hundred."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

_DIGITS: Final = {char: value for value, char in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2, "俩": 2}
_SMALL_UNITS: Final = {"十": 10, "百": 100, "千": 1000}
_LARGE_UNITS: Final = {"万": 10_000, "亿": 100_000_000}
SCALES: Final = {
    "k": 1_000,
    "w": 10_000,
    "m": 1_000_000,
    "百": 100,
    "千": 1_000,
    "万": 10_000,
    "亿": 100_000_000,
    "grand": 1_000,
    "thousand": 1_000,
    "lakh": 100_000,
    "million": 1_000_000,
    "crore": 10_000_000,
}
CHINESE_NUMERALS: Final = "零〇一二三四五六七八九十百千万亿两俩廿"
ENGLISH_NUMBERS: Final = {
    word: value
    for value, word in enumerate(
        (
            *(
                "zero",
                "one",
                "two",
                "three",
                "four",
                "five",
                "six",
                "seven",
                "eight",
                "nine",
                "ten",
                "eleven",
                "twelve",
            ),
            *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
        )
    )
} | {"thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90}
_MIXED_PART: Final = re.compile(r"(\d+)([亿万千百]?)")


def arabic(written: str, scale: str | None = None) -> Decimal:
    """`1,299.00`, `1 299,00` and `1.299,00` -> 1299.00; `1.5` with scale `万` -> 15000."""
    if written[-3:-2] == ",":  # before two digits a comma is a decimal one
        written = written.replace(".", "").replace(",", ".")
    number = Decimal(written.replace(",", "").replace(" ", ""))
    return number if not scale else plain(number * SCALES[scale])


def mixed(written: str) -> Decimal:
    """Digits between Chinese units: `1万2千` -> 12000, `2万5` -> 25000, `1万5000` -> 15000."""
    total, last = 0, 0
    for digits, unit in _MIXED_PART.findall(written):
        if unit:
            last = SCALES[unit]
            total += int(digits) * last
        else:  # a single digit counts in the next lower unit
            total += int(digits) * (last // 10 if len(digits) == 1 else 1)
    return Decimal(total)


def chinese(written: str) -> Decimal | None:
    """`两千五` -> 2500 (the last digit counts in the next lower unit), `三十` -> 30, `一二三` -> 123; else None.

    Of a range (`两三百`, `五六千`) the least: 200, 5000.
    """
    if all(char in _DIGITS for char in written):
        values = [_DIGITS[char] for char in written]
        return Decimal(values[0] if _is_range(values) else "".join(map(str, values)))
    total = section = digit = 0
    unit = 0  # of the last unit read
    behind_unit = after_unit = False
    for char in written.replace("廿", "二十"):
        if char in _DIGITS:
            if digit == 0:
                digit, behind_unit = _DIGITS[char], after_unit
            after_unit = False
            continue
        if char in _SMALL_UNITS:
            unit = _SMALL_UNITS[char]
            section += (digit or 1) * unit
        elif char in _LARGE_UNITS:
            unit = _LARGE_UNITS[char]
            total = (total + section + digit) * unit if total < unit else total + (section + digit) * unit
            section = 0
        else:
            return None
        digit, after_unit = 0, True
    if digit and unit >= 100 and behind_unit:
        digit *= unit // 10
    return Decimal(total + section + digit)


def _is_range(values: list[int]) -> bool:
    """`两三`, `三五`: two or three, three to five."""
    return len(values) == 2 and values[0] > 0 and (values[1] == values[0] + 1 or values == [3, 5])


def english(words: list[str]) -> Decimal | None:
    """`two thousand five hundred` -> 2500, `fifteen hundred` -> 1500, `half a million` -> 500000; else None."""
    total = section = 0
    half = "half" in words
    for word in words:
        if word in ENGLISH_NUMBERS:
            section += ENGLISH_NUMBERS[word]
        elif word == "couple":
            section += 2
        elif word == "hundred":
            section = (section or 1) * 100
        elif word in SCALES:
            total += (section or 1) * SCALES[word]
            section = 0
    number = Decimal(total + section)
    if half:
        number /= 2
    return plain(number) if number else None


def plain(number: Decimal) -> Decimal:
    """Without exponent and without needless zeros behind the point: 15000, not 1.5E+4."""
    whole = number.to_integral_value()
    return whole if whole == number else number.normalize()
