"""When it happened: dates and times of day in Chinese and English, resolved against the time of sending."""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Final

from services.classifier.domain.facts.numbers import CHINESE_NUMERALS, chinese


@dataclass(frozen=True, slots=True)
class Moment:
    """`value`: ISO date-time or ISO date where that could be told, else the words. `latest`: the latest it can mean."""

    value: str
    latest: datetime | None
    start: int
    end: int


_Match = re.Match[str]
_NUMBER: Final = rf"\d{{1,2}}|[{CHINESE_NUMERALS}]{{1,3}}"
_ENGLISH_NUMBERS: Final = {
    word: value
    for value, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    )
} | {"a": 1, "an": 1, "couple of": 2, "a couple of": 2}
_COUNT: Final = rf"\d{{1,3}}|[{CHINESE_NUMERALS}]{{1,3}}|半|" + "|".join(
    sorted(_ENGLISH_NUMBERS, key=len, reverse=True)
)
_MONTHS: Final = {
    name: number
    for number, name in enumerate(
        ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"), start=1
    )
}
_MONTH: Final = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*"
_WEEKDAYS: Final = (
    {"mon": 0, "tue": 1, "wed": 2, "thu": 3, "fri": 4, "sat": 5, "sun": 6}
    | {char: day for day, char in enumerate("一二三四五六日")}
    | {"天": 6}
)
_DAYS_AGO: Final = {
    "大前天": 3, "前天": 2, "前日": 2, "昨": 1, "今": 0, "当天": 0,
    "the day before yesterday": 2, "day before yesterday": 2, "yesterday": 1, "last night": 1,
    "today": 0, "this morning": 0, "this afternoon": 0, "this evening": 0, "tonight": 0,
}  # fmt: skip
_UNIT_SECONDS: Final = {
    "分钟": 60, "分": 60, "小时": 3600, "钟头": 3600, "天": 86400, "日": 86400, "周": 604800, "星期": 604800,
    "礼拜": 604800, "minute": 60, "min": 60, "hour": 3600, "hr": 3600, "day": 86400, "week": 604800,
}  # fmt: skip
# What is said without a number: older than these days, for all we know.
_VAGUE_DAYS: Final = {
    "上周": 1, "上星期": 1, "上礼拜": 1, "上月": 7, "上个月": 7, "去年": 60,
    "last week": 1, "last month": 7, "last year": 60, "months ago": 30, "weeks ago": 7, "days ago": 1,
}  # fmt: skip
_A_FEW_DAYS: Final = 2

_DAY: Final = re.compile(
    r"(?P<full>(?<!\d)(?P<y>20\d\d)\s*[年./-]\s*(?P<m>\d{1,2})\s*[月./-]\s*(?P<d>\d{1,2})(?:日|号)?(?!\d))"
    rf"|(?P<cn_date>(?:(?P<cy>20\d\d)年)?(?P<cm>{_NUMBER})月(?P<cd>{_NUMBER})[日号]?(?!\d))"
    r"|(?P<slashed>(?<![\d/])(?P<s1>\d{1,2})/(?P<s2>\d{1,2})(?:/(?P<sy>\d{4}|\d\d))?(?![\d/]))"
    rf"|(?P<en_date>\b(?P<em>{_MONTH})\.?\s+(?P<ed>\d{{1,2}})(?:st|nd|rd|th)?(?:,?\s+(?P<ey>20\d\d))?\b)"
    rf"|(?P<en_date2>\b(?P<ed2>\d{{1,2}})(?:st|nd|rd|th)?\s+(?:of\s+)?(?P<em2>{_MONTH})(?:,?\s+(?P<ey2>20\d\d))?\b)"
    rf"|(?P<ago>(?P<count>{_COUNT})\s*个?(?P<unit>分钟|小时|钟头|天|日|周|星期|礼拜|minute|min|hour|hr|day|week)s?\s*(?:之前|以前|前|ago\b))"
    r"|(?P<weekday>(?:上个?|这个?|本)?(?:周|星期|礼拜)(?P<wd>[一二三四五六日天])"
    r"|\b(?:last|on|this|since)\s+(?P<ewd>mon|tue|wed|thu|fri|sat|sun)[a-z]*)"
    r"|(?P<relative>大前天|前天|前日|昨(?=天|日|晚|夜|早)|今(?=天|日|早|晨|晚)"
    r"|(?:the )?day before yesterday|yesterday|last night"
    r"|today|this morning|this afternoon|this evening|tonight)[天日]?"
    r"|(?P<now>刚才|刚刚|just now|a moment ago|right now)"
    r"|(?P<vague>好几天|前几天|几天前|上个?月|上周|上星期|上个?礼拜|去年"
    r"|last week|last month|last year|(?:few days|days|weeks|months) ago)"
    rf"|(?P<day_only>(?<![\d月.-])(?P<dd>{_NUMBER})号(?!码|楼|线))"
)
_PERIODS: Final = {
    "凌晨": 0, "半夜": 0, "夜里": 12, "早上": 0, "清晨": 0, "早晨": 0, "上午": 0, "早": 0, "晨": 0, "中午": 12,
    "下午": 12, "傍晚": 12, "晚上": 12, "晚": 12, "夜": 12,
}  # fmt: skip
_CLOCK: Final = re.compile(
    rf"(?P<period>{'|'.join(sorted(_PERIODS, key=len, reverse=True))})?"
    rf"(?P<h>(?<!\d)\d{{1,2}}|[{CHINESE_NUMERALS}]{{1,3}})"
    rf"(?:[点时](?!间|候|段)(?:(?P<half>半)|(?P<quarter>[一三])刻"
    rf"|(?P<cmin>\d{{1,2}}|[{CHINESE_NUMERALS}]{{1,3}})分?)?(?:多|左右|钟)*|:(?P<min>\d\d)(?!\d)(?:\s*(?P<ap1>[ap])\.?m\b\.?)?)"
    r"|(?P<eh>(?<![\d.:])\d{1,2})\s*(?P<ap2>[ap])\.?m\b\.?"
)
_JOINED: Final = re.compile(
    r"(?:[的\s,，t]|at|around|about|大概|大约|差不多|晚上|上午|下午|早上|中午|凌晨|傍晚|天|日|号|晚|早|between|in the)*"
)
_MARK: Final = re.compile(
    r"\d|[点号月天周日昨今刚前年]|星期|礼拜|day|ago|night|morning|afternoon|evening|now|last|\bjan|\bfeb|\bmar|\bapr|\bmay|\bjun|\bjul|\baug|\bsep|\boct|\bnov|\bdec|mon|tue|wed|thu|fri|sat|sun"
)


def moment(text: str, folded: str, sent_at: datetime | None) -> Moment | None:
    """The first date the customer names, with the time of day next to it; else the first time of day."""
    if not _MARK.search(folded):
        return None
    day, clock = _DAY.search(folded), None
    if day is None:
        clock = _first_clock(folded, 0)
        return _moment(text, None, clock, sent_at) if clock else None
    after = _first_clock(folded, day.end())
    if after is not None and _JOINED.fullmatch(folded, day.end(), after.start()):
        clock = after
    else:
        before = _first_clock(folded, 0)
        if before is not None and before.end() <= day.start() and _JOINED.fullmatch(folded, before.end(), day.start()):
            clock = before
    return _moment(text, day, clock, sent_at)


def _first_clock(folded: str, position: int) -> _Match | None:
    return next((match for match in _CLOCK.finditer(folded, position) if _time_of(match, folded) is not None), None)


def _moment(text: str, day: _Match | None, clock: _Match | None, sent_at: datetime | None) -> Moment:
    parts = [part for part in (day, clock) if part is not None]
    start, end = min(part.start() for part in parts), max(part.end() for part in parts)
    words = text[start:end]
    at = _time_of(clock, clock.string) if clock is not None else None
    resolved = _resolve(day, sent_at) if day is not None else (sent_at and sent_at.date())
    if isinstance(resolved, datetime):
        return Moment(resolved.isoformat(timespec="minutes"), resolved, start, end)
    if isinstance(resolved, timedelta):  # vague: the words, and how old at least
        return Moment(words, sent_at - resolved if sent_at else None, start, end)
    if resolved is None:
        return Moment(words, None, start, end)
    if at is None:
        latest = sent_at and datetime.combine(resolved, time.max, sent_at.tzinfo)
        return Moment(resolved.isoformat(), latest, start, end)
    happened = datetime.combine(resolved, at, sent_at.tzinfo if sent_at else None)
    if day is None and sent_at is not None and happened > sent_at:
        happened -= timedelta(days=1)  # "at 11 pm", written in the morning
    return Moment(happened.isoformat(timespec="minutes"), happened if sent_at else None, start, end)


def _time_of(match: _Match, folded: str) -> time | None:
    written = match["h"] or match["eh"]
    hour, minute = _integer(written), 0
    if match["half"]:
        minute = 30
    elif match["quarter"]:
        minute = 15 if match["quarter"] == "一" else 45
    elif match["cmin"] or match["min"]:
        minute = _integer(match["cmin"] or match["min"])
    meridiem = match["ap1"] or match["ap2"]
    if meridiem == "p" and hour < 12:
        hour += 12
    elif meridiem == "a" and hour == 12:
        hour = 0
    elif (
        not meridiem and 0 < hour < 12 and _is_past_noon(match["period"] or _period_before(folded, match.start()), hour)
    ):
        hour += 12
    if hour == 24 and minute == 0:
        hour = 0
    return time(hour, minute) if hour < 24 and minute < 60 else None


def _is_past_noon(period: str, hour: int) -> bool:
    if _PERIODS.get(period) != 12:
        return False
    # "中午11点" is before noon, "夜里2点" after midnight.
    return not (period == "中午" and hour > 9) and not (period == "夜里" and hour < 6)


def _period_before(folded: str, position: int) -> str:
    """The part of the day written just before: `昨晚8点`, `昨天下午的三点`."""
    before = folded[max(0, position - 4) : position].rstrip("的 ")
    return next((period for period in sorted(_PERIODS, key=len, reverse=True) if before.endswith(period)), "")


def _integer(written: str) -> int:
    if written[0].isascii():
        return int(written)
    number = chinese(written)
    return 99 if number is None else int(number)


def _resolve(match: _Match, sent_at: datetime | None) -> date | datetime | timedelta | None:
    kind = next(name for name in _RESOLVERS if match[name] is not None)
    try:
        return _RESOLVERS[kind](match, sent_at)
    except (ValueError, OverflowError):  # "13月45号": the words stay
        return None


def _dated(year: str | None, month: int, day: int, sent_at: datetime | None) -> date | None:
    if year is not None:
        return date(int(year) + (2000 if len(year) == 2 else 0), month, day)
    if sent_at is None:
        return None
    # Without a year: the last time that this date was.
    today = sent_at.date()
    this_year = date(today.year, month, day)
    return this_year if this_year <= today + timedelta(days=1) else date(today.year - 1, month, day)


def _slashed(match: _Match, sent_at: datetime | None) -> date | None:
    first, second = int(match["s1"]), int(match["s2"])
    month, day = (second, first) if first > 12 else (first, second)
    return _dated(match["sy"], month, day, sent_at)


def _ago(match: _Match, sent_at: datetime | None) -> date | datetime | None:
    if sent_at is None:
        return None
    written = match["count"]
    count = 0.5 if written == "半" else _ENGLISH_NUMBERS.get(written) or _integer(written)
    seconds = _UNIT_SECONDS[match["unit"]] * count
    happened = sent_at - timedelta(seconds=seconds)
    return happened if _UNIT_SECONDS[match["unit"]] < 86400 else happened.date()


def _weekday(match: _Match, sent_at: datetime | None) -> date | None:
    if sent_at is None:
        return None
    wanted = _WEEKDAYS[match["wd"] or match["ewd"]]
    today = sent_at.date()
    back = (today.weekday() - wanted) % 7
    if match["wd"] and match[0].startswith("上"):
        return today - timedelta(days=today.weekday() + 7 - wanted)
    return today - timedelta(days=back or (7 if match[0].startswith("last") else 0))


def _day_only(match: _Match, sent_at: datetime | None) -> date | None:
    if sent_at is None:
        return None
    day, today = _integer(match["dd"]), sent_at.date()
    if day <= today.day:
        return today.replace(day=day)
    end_of_last = today.replace(day=1) - timedelta(days=1)
    if day > monthrange(end_of_last.year, end_of_last.month)[1]:
        return None
    return end_of_last.replace(day=day)


def _relative(match: _Match, sent_at: datetime | None) -> date | None:
    if sent_at is None:
        return None
    return sent_at.date() - timedelta(days=_DAYS_AGO[match["relative"]])


def _vague(match: _Match, _: datetime | None) -> timedelta:
    words = match["vague"].removesuffix("前")
    return timedelta(days=_VAGUE_DAYS.get(words, _A_FEW_DAYS))


_RESOLVERS: Final[dict[str, Callable[[_Match, datetime | None], date | datetime | timedelta | None]]] = {
    "full": lambda match, sent_at: _dated(match["y"], int(match["m"]), int(match["d"]), sent_at),
    "cn_date": lambda match, sent_at: _dated(match["cy"], _integer(match["cm"]), _integer(match["cd"]), sent_at),
    "slashed": _slashed,
    "en_date": lambda match, sent_at: _dated(match["ey"], _MONTHS[match["em"][:3]], int(match["ed"]), sent_at),
    "en_date2": lambda match, sent_at: _dated(match["ey2"], _MONTHS[match["em2"][:3]], int(match["ed2"]), sent_at),
    "ago": _ago,
    "weekday": _weekday,
    "relative": _relative,
    "now": lambda _, sent_at: sent_at,
    "vague": _vague,
    "day_only": _day_only,
}
