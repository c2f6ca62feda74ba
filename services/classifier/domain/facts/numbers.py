"""Numbers as customers write them: 1,299.00, 5k, 1.5万, 两千五, 三百."""

from __future__ import annotations

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
    "thousand": 1_000,
    "million": 1_000_000,
}
CHINESE_NUMERALS: Final = "零〇一二三四五六七八九十百千万亿两俩"


def arabic(written: str, scale: str | None = None) -> Decimal:
    """`1,299.00` -> 1299.00; `1.5` with scale `万` -> 15000."""
    number = Decimal(written.replace(",", ""))
    return number if not scale else plain(number * SCALES[scale])


def chinese(written: str) -> Decimal | None:
    """`两千五` -> 2500 (the last digit counts in the next lower unit), `三十` -> 30, `一二三` -> 123; else None."""
    if all(char in _DIGITS for char in written):
        return Decimal("".join(str(_DIGITS[char]) for char in written))
    total = section = digit = 0
    unit = 0  # of the last unit read
    after_zero = False
    for char in written:
        if char in _DIGITS:
            digit = _DIGITS[char]
            after_zero = digit == 0
        elif char in _SMALL_UNITS:
            unit = _SMALL_UNITS[char]
            section += (digit or 1) * unit
            digit = 0
        elif char in _LARGE_UNITS:
            unit = _LARGE_UNITS[char]
            total = (total + section + digit) * unit if total < unit else total + (section + digit) * unit
            section = digit = 0
        else:
            return None
    if digit and unit >= 100 and not after_zero and written[-2] in _SMALL_UNITS | _LARGE_UNITS:
        digit *= unit // 10
    return Decimal(total + section + digit)


def plain(number: Decimal) -> Decimal:
    """Without exponent and without needless zeros behind the point: 15000, not 1.5E+4."""
    whole = number.to_integral_value()
    return whole if whole == number else number.normalize()
