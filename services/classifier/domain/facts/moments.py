"""When it happened: dates and times of day in Chinese and English, resolved against the time of sending."""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from typing import Final

from services.classifier.domain.facts.numbers import ENGLISH_NUMBERS, chinese
from services.classifier.domain.text import Reading, stem


@dataclass(frozen=True, slots=True)
class Moment:
    """`value`: ISO date-time or ISO date where that could be told, else the words. `latest`: the latest it can mean."""

    value: str
    latest: datetime | None
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Roughly:
    """No day could be told; `latest`: the last one that it can have been."""

    latest: date


_Match = re.Match[str]
_NUMERALS: Final = "零〇一二三四五六七八九十两廿"
_NUMBER: Final = rf"(?<!\d)\d{{1,2}}|[{_NUMERALS}]{{1,3}}"
_COUNTS: Final = ENGLISH_NUMBERS | {
    "a": 1,
    "an": 1,
    "couple": 2,
    "couple of": 2,
    "a couple": 2,
    "a couple of": 2,
    "半": 0.5,
    "half an": 0.5,
}
_COUNT: Final = (
    rf"(?<![\d.])\d{{1,3}}(?:\.\d)?|[{_NUMERALS}]{{1,3}}|半|(?<![a-z])(?:"
    + "|".join(sorted((word for word in _COUNTS if word.isascii()), key=len, reverse=True))
    + r")\s"
)
_MONTHS: Final = {
    name: number
    for number, name in enumerate(
        ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"), start=1
    )
}
_MONTH: Final = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    r"|nov(?:ember)?|dec(?:ember)?)"
)
_WEEKDAYS: Final = (
    {"mon": 0, "tue": 1, "wed": 2, "thu": 3, "fri": 4, "sat": 5, "sun": 6}
    | {char: day for day, char in enumerate("一二三四五六日")}
    | {"天": 6}
)
_WEEKDAY: Final = r"(?:mon|tues|wednes|thurs|fri|satur|sun)day"
_DAYS_AGO: Final = {
    "大前天": 3, "前天": 2, "前日": 2, "前晚": 2, "昨": 1, "寻": 1, "琴": 1, "今": 0,
    "the day before yesterday": 2, "day before yesterday": 2, "yesterday": 1, "last night": 1, "last evening": 1,
    "today": 0, "this morning": 0, "this afternoon": 0, "this evening": 0, "tonight": 0,
}  # fmt: skip
_UNIT_SECONDS: Final = {
    "分钟": 60, "分": 60, "小时": 3600, "钟头": 3600, "钟": 3600, "天": 86400, "日": 86400, "周": 604800,
    "星期": 604800, "礼拜": 604800, "minute": 60, "min": 60, "hour": 3600, "hr": 3600, "day": 86400, "week": 604800,
}  # fmt: skip
_UNIT_MONTHS: Final = {"月": 1, "年": 12, "month": 1, "year": 12}
_DAYS_OF_A_MONTH: Final = 30
# Days that have a name and one date each year (month, day); only with "that day", as they also name campaigns.
_NAMED_DAYS: Final = {
    "元旦": (1, 1), "情人": (2, 14), "五一": (5, 1), "劳动": (5, 1), "六一": (6, 1), "儿童": (6, 1), "国庆": (10, 1),
    "双十一": (11, 11), "双11": (11, 11), "双十二": (12, 12), "双12": (12, 12), "平安夜": (12, 24), "圣诞": (12, 25),
    "valentine's day": (2, 14), "halloween": (10, 31), "christmas eve": (12, 24), "christmas": (12, 25),
    "boxing day": (12, 26), "new year's eve": (12, 31), "new year's day": (1, 1),
}  # fmt: skip
_CHINESE_NAMED, _ENGLISH_NAMED = (
    "|".join(name for name in _NAMED_DAYS if name.isascii() is ascii_only) for ascii_only in (False, True)
)
_THING_WITH_A_NUMBER: Final = "码楼线店窗机卡门柜员信商桌房站仓选单库"
_THING_THAT_COUNTS: Final = (
    r"(?:attempt|try|time|floor|call|page|party|day|step|screen|line|one|message|e?mail|payment|transaction|contact)"
)

# Where anything below can begin: a look at one character, before two dozen patterns are tried.
_BEGINS: Final = rf"(?:(?=[\d{_NUMERALS}半去前今上这本周星礼大昨寻琴刚啱头好几元情劳儿国双平圣])|(?<![a-z])(?=[a-z]))"
_DAY: Final = re.compile(
    rf"{_BEGINS}(?:"
    r"(?P<full>(?<!\d)(?P<y>20\d\d)\s*[年./-]\s*(?P<m>\d{1,2})\s*[月./-]\s*(?P<d>\d{1,2})(?:日|号)?(?!\d))"
    r"|(?P<compact>(?<![\w*-])(?P<ky>20\d\d)(?P<km>0[1-9]|1[0-2])(?P<kd>0[1-9]|[12]\d|3[01])(?![\da-z*-]))"
    rf"|(?P<cn_date>(?:(?P<cy>20\d\d)年|(?P<cr>去年|前年|今年)的?)?(?P<cm>{_NUMBER})月(?P<cd>{_NUMBER})[日号]?(?!\d))"
    r"|(?P<pointed>(?<![\d.])(?P<pm>\d{1,2})\.(?P<pd>\d{1,2})[日号])"
    r"|(?P<slashed>(?<![\d/.-])(?!24/7)(?P<s1>\d{1,2})(?P<sep>[/.-])(?P<s2>\d{1,2})"
    r"(?:(?P=sep)(?P<sy>20\d\d|(?<=/)\d\d)|(?<=/\d)|(?<=/\d\d))(?![\d/]|[.-]\d|\s+of\b))"
    rf"|(?P<en_date>\b(?P<em>{_MONTH})\b\.?\s+(?P<ed>\d{{1,2}})(?:st|nd|rd|th)?(?:,?\s+(?P<ey>20\d\d))?\b(?!\s+times))"
    rf"|(?P<en_date2>\b(?P<ed2>\d{{1,2}})(?:st|nd|rd|th)?\s+(?:of\s+)?(?P<em2>{_MONTH})\b(?:,?\s+(?P<ey2>20\d\d))?)"
    rf"|(?P<ago>(?P<count>{_COUNT})\s*(?P<half>个半)?个?\s*"
    r"(?P<unit>分钟|小时|钟头|钟|分|天|日|周|星期|礼拜|(?<=[个半])月|年|minute|min|hour|hr|day|week|month|year)"
    r"s?\s*(?:之前|以前|前|ago\b))"
    r"|(?P<weekday>(?<![下每至到一两])(?<![下每]个)(?P<back>上{1,2}个?|这个?|本)?(?:周|星期|礼拜)(?P<wd>[一二三四五六日天])(?![次到至])"
    rf"|\b(?P<eback>last|on|this|since|from)\s+(?P<ewd>{_WEEKDAY}|mon|tues?|wed|thu(?:rs?)?|fri|sat|sun)\b"
    r"|\b(?<!next )(?<!every )(?<!each )(?<!by )(?<!until )(?<!till )(?<!before )(?<!coming )(?<!to )(?<!black )"
    rf"(?<!cyber )(?P<bwd>{_WEEKDAY})\b(?!\s*(?:-|to\b|through\b)))"
    r"|(?P<relative>大前天|前[天日晚]|昨(?=[天日儿晚夜早下上])|[寻琴](?=[日晚])|今(?=[天日儿早晚晨朝下])"
    r"|(?:the )?day before yesterday|yesterday|last (?:night|evening)"
    r"|\btoday|this (?:morning|afternoon|evening)|tonight)[天日儿]?"
    r"|(?P<now>刚才|刚刚|刚(?=[被付转充扣提买收打])|啱啱|头先|just now|a moment ago|right now)"
    rf"|(?P<of_month>(?P<which>上个?月|这个?月|本月)的?(?P<od>{_NUMBER})[日号])"
    r"|(?P<vague>好几天前?|前几天|前两天|几天(?:之|以)?前|几个?(?:小时|钟头)前|几分钟前|上{1,2}个?月|上{1,2}(?:周|星期|个?礼拜)"
    rf"|(?:去年|前年)(?:(?:{_NUMBER})月)?|last (?:week|month|year)"
    r"|(?:a )?(?:(?:few|several|many|some) )?(?:minutes|hours|days|weeks|months|years) ago)"
    rf"|(?P<month>(?:(?P<my>20\d\d)年)?(?P<mm>{_NUMBER})(?:月份|月(?![\d{_NUMERALS}月次内后期前])))"
    rf"|(?P<en_month>\bin (?P<emm>{_MONTH})\b(?:\s+(?P<emy>20\d\d))?)"
    rf"|(?P<day_only>(?<![\d月.\-#第单编尾])(?:(?P<dd>{_NUMBER})号)(?![{_THING_WITH_A_NUMBER}]))"
    rf"|(?P<en_day>\b(?:on|since|from) the (?P<edd>\d{{1,2}})(?:st|nd|rd|th)\b(?!\s+{_THING_THAT_COUNTS}))"
    rf"|(?P<named>(?P<cn_named>{_CHINESE_NAMED})节?(?:那|当)[天日]|\bon (?P<en_named>{_ENGLISH_NAMED})(?: day)?\b))",
    re.ASCII,  # a word ends where Chinese begins: "Nov 3付款"
)
_AFTERNOONS: Final = ("下午", "下昼", "晏昼", "傍晚", "中午")
_EVENINGS: Final = ("晚上", "晚间", "夜晚", "晚", "夜")
_NIGHTS: Final = ("半夜", "夜里", "深夜", "午夜")
_MORNINGS: Final = ("凌晨", "早上", "清晨", "早晨", "清早", "朝早", "上午", "上昼", "早", "晨", "朝")
_PERIODS: Final = sorted((*_AFTERNOONS, *_EVENINGS, *_NIGHTS, *_MORNINGS), key=len, reverse=True)
_PERIOD: Final = "|".join(_PERIODS)
_ENGLISH_PERIODS: Final = {
    "morning": "上午",
    "afternoon": "下午",
    "evening": "晚上",
    "night": "晚上",
    "tonight": "晚上",
}
_CLOCK: Final = re.compile(
    rf"(?:(?=[\d{_NUMERALS}{''.join({period[0]: None for period in _PERIODS})}])|(?<![a-z])(?=[an]))(?:"
    rf"(?P<period>{_PERIOD})?(?P<h>(?<![\d:])\d{{1,2}}|[{_NUMERALS}]{{1,3}})"
    rf"(?:[点时](?!间|候|段)(?:(?P<half>半)|(?P<quarter>[一三])刻|(?P<cmin>\d{{1,2}}|[{_NUMERALS}]{{1,3}})分?)?(?P<about>(?:多|左右|钟|许)*)"
    r"|:(?P<min>\d\d)(?::\d\d(?:\.\d{1,9})?)?(?!\d)(?:\s*(?P<ap1>[ap])(?:\.\s?m\b\.?|m\b))?)"
    r"|(?P<eh>(?<![\d.:])\d{1,2})(?:\.(?P<emin>\d\d))?\s*(?P<ap2>[ap])(?:\.\s?m\b\.?|m\b)"
    r"|\b(?:at|around|about)\s+(?P<bh>\d{1,2})(?:\s*o'?clock)?(?!\w|[:/.,]\d|\s*[%$€£]|\s+\w+s\b)"
    r"|\b(?P<noon>noon)\b)",
    re.ASCII,
)
_JOINED: Final = re.compile(
    rf"(?:[的\s,，t]|at|around|about|on|大概|大约|差不多|{_PERIOD}|天|日|号|between|in the"
    r"|morning|afternoon|evening|night)*"
)
_PART_OF_DAY: Final = re.compile(rf"的?(?:{_PERIOD})|\s+(?:morning|afternoon|evening|night)\b", re.ASCII)
_PART_BEHIND: Final = re.compile(r"\s+(?:in the|at|this|yesterday)\s+(morning|afternoon|evening|night)\b", re.ASCII)
_ENGLISH_PERIOD: Final = re.compile("tonight|morning|afternoon|evening|night")
_ZONE: Final = re.compile(r"\s?(?:z|utc|gmt)\b|(?P<sign>[+-])(?P<hours>\d\d):?(?P<minutes>\d\d)(?!\d)", re.ASCII)
# "有3点建议" and "这两点" tell how many.
_COUNTED_POINTS: Final = re.compile(r"[要建问意原需疑]")
_COUNTED_BEFORE: Final = ("有", "这", "那", "第", "几", "以上", "以下", "如下")
_MARKS: Final = frozenset(
    {
        *map(stem, ("ago", "yesterday", "today", "tonight", "night", "morning", "afternoon", "evening", "now", "last")),
        *map(stem, ("mornings", "evenings")),
        *map(
            stem, ("noon", "on", "since", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
        ),
        *map(stem, ("january", "february", "march", "april", "may", "june", "july", "august", "september", "october")),
        *map(
            stem, ("november", "december", "jan", "feb", "mar", "apr", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
        ),
        *"点号月天周日昨今刚前年寻琴啱头时星礼",
    }
)

Span = tuple[int, int]


def moment(
    reading: Reading, sent_at: datetime | None, *, digits: bool = True, taken: Sequence[Span] = ()
) -> Moment | None:
    """The first date the customer names, with the time of day next to it; else the first time of day.

    `digits`: whether the text has any. `taken`: places that tell something else (a phone number, an order number), in
    which no date is looked for.
    """
    text, folded = reading.text, reading.folded
    if not digits and _MARKS.isdisjoint(reading.tokens):
        return None
    day = next((match for match in _DAY.finditer(folded) if _is_day(match, sent_at, taken)), None)
    if day is None:
        clock = _first_clock(folded, 0, taken)
        return _moment(text, None, clock, sent_at) if clock else None
    clock = _first_clock(folded, day.end(), taken, day)
    if clock is None or not _JOINED.fullmatch(folded, day.end(), clock.start()):
        clock = _first_clock(folded, 0, taken, day)
        if clock and not (clock.end() <= day.start() and _JOINED.fullmatch(folded, clock.end(), day.start())):
            clock = None
    return _moment(text, day, clock, sent_at)


def _is_day(match: _Match, sent_at: datetime | None, taken: Sequence[Span]) -> bool:
    if any(start < match.end() and match.start() < end for start, end in taken):
        return False
    if match["slashed"] is None:
        return True
    return any(_exists(month, day) for month, day in _readings(match))  # "50/50" is none


def _first_clock(folded: str, position: int, taken: Sequence[Span], day: _Match | None = None) -> _Match | None:
    for match in _CLOCK.finditer(folded, position):
        if any(start < match.end() and match.start() < end for start, end in taken):
            continue
        if _is_clock(match, day) and _time_of(match, day) is not None:
            return match
    return None


def _is_clock(match: _Match, day: _Match | None) -> bool:
    """Whether it tells a time: "有一点慢", "两点建议", "早一点" and "at 3" by themselves do not."""
    if match["bh"]:
        return bool(_part_of_day(match, day))
    plain = match["h"] and not (match["min"] or match["cmin"] or match["half"] or match["quarter"] or match["about"])
    if not plain:
        return True
    period = match["period"] or _period_before(match.string, match.start())
    if match["h"] == "一" and day is None:
        return len(period) > 1
    if period:
        return True
    if match["h"] == "一":
        return False
    return day is not None or not (
        _COUNTED_POINTS.match(match.string, match.end()) or match.string.endswith(_COUNTED_BEFORE, 0, match.start())
    )


def _moment(text: str, day: _Match | None, clock: _Match | None, sent_at: datetime | None) -> Moment:
    parts = [part for part in (day, clock) if part is not None]
    start, end = min(part.start() for part in parts), max(part.end() for part in parts)
    zone = _ZONE.match(clock.string, clock.end()) if day and day["full"] and clock and clock["min"] else None
    if zone is not None:
        end = zone.end()
    elif part := (_PART_OF_DAY if day and end == day.end() else _PART_BEHIND).match(parts[0].string, end):
        end = part.end()
    words = text[start:end]
    resolved = _resolve(day, sent_at) if day is not None else (sent_at and sent_at.date())
    if isinstance(resolved, datetime):
        return Moment(resolved.isoformat(timespec="minutes"), resolved, start, end)
    if isinstance(resolved, _Roughly):
        return Moment(words, sent_at and datetime.combine(resolved.latest, time.max, sent_at.tzinfo), start, end)
    if resolved is None:
        return Moment(words, None, start, end)
    told = _time_of(clock, day) if clock is not None else None
    if told is None:
        latest = sent_at and datetime.combine(resolved, time.max, sent_at.tzinfo)
        return Moment(resolved.isoformat(), latest, start, end)
    at, past_midnight = told
    happened = datetime.combine(resolved, at, sent_at.tzinfo if sent_at else None)
    if zone is not None:
        happened = happened.replace(tzinfo=_offset(zone))
        happened = happened.astimezone(sent_at.tzinfo) if sent_at else happened
    if past_midnight:  # "昨晚一点" is one o'clock today; "今天半夜两点", told in the morning, was today
        happened += timedelta(days=1)
        if sent_at is not None and happened > sent_at:
            happened -= timedelta(days=1)
    if day is None and sent_at is not None and happened > sent_at:
        happened -= timedelta(days=1)  # "at 11 pm", written in the morning
    return Moment(happened.isoformat(timespec="minutes"), happened if sent_at else None, start, end)


def _offset(zone: _Match) -> timezone:
    if zone["sign"] is None:
        return UTC
    offset = timedelta(hours=min(23, int(zone["hours"])), minutes=min(59, int(zone["minutes"])))
    return timezone(-offset if zone["sign"] == "-" else offset)


def _time_of(match: _Match, day: _Match | None) -> tuple[time, bool] | None:
    """The time of day, and whether it is one behind the midnight of the evening that is spoken of; None: no time."""
    if match["noon"]:
        return time(12), False
    hour, minute = _integer(match["h"] or match["eh"] or match["bh"]), 0
    if match["half"]:
        minute = 30
    elif match["quarter"]:
        minute = 15 if match["quarter"] == "一" else 45
    elif written := match["cmin"] or match["min"] or match["emin"]:
        minute = _integer(written)
    past_midnight = False
    meridiem = match["ap1"] or match["ap2"]
    if meridiem:
        if hour > 12:
            meridiem = None
        else:
            hour = hour % 12 + (12 if meridiem == "p" else 0)
    else:
        hour, past_midnight = _by_part_of_day(hour, _part_of_day(match, day))
    return (time(hour % 24, minute), past_midnight) if hour < 25 - (minute > 0) and minute < 60 else None


def _by_part_of_day(hour: int, period: str) -> tuple[int, bool]:
    """`下午`, 3 -> 15; `晚上`, 12 -> 0 of the next day; `半夜`, 2 -> 2 of the next day; `中午`, 11 -> 11."""
    if period == "凌晨":
        return hour % 12 if hour <= 12 else hour, False
    if period in _AFTERNOONS:
        return (hour, False) if hour == 12 or hour > 12 or (period == "中午" and hour > 9) else (hour + 12, False)
    if period in _EVENINGS or period in _NIGHTS:
        small = 5 if period in _NIGHTS else 4
        if hour == 12 or 0 <= hour <= small:
            return hour % 12, True
        return (hour + 12 if hour < 12 else hour), False
    return hour, False


def _part_of_day(match: _Match, day: _Match | None) -> str:
    """The part of the day told with a time, by its Chinese name: `昨晚8点`, `昨天下午的三点`, `last night at 8`."""
    folded = match.string
    if period := match["period"] or _period_before(folded, match.start()):
        return period
    if day is not None:
        start, end = min(day.start(), match.start()), max(day.end(), match.end())
        if end - start < 60 and (english := _ENGLISH_PERIOD.search(folded, start, end)):
            return _ENGLISH_PERIODS[english[0]]
    behind = _PART_BEHIND.match(folded, match.end())
    return _ENGLISH_PERIODS[behind[1]] if behind else ""


def _period_before(folded: str, position: int) -> str:
    before = folded[max(0, position - 4) : position].rstrip("的 ")
    return next((period for period in _PERIODS if before.endswith(period)), "")


def _integer(written: str) -> int:
    if written[0].isascii():
        return int(written)
    number = chinese(written)
    return 99 if number is None else int(number)


def _resolve(match: _Match, sent_at: datetime | None) -> date | datetime | _Roughly | None:
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


def _chinese_date(match: _Match, sent_at: datetime | None) -> date | None:
    month, day = _integer(match["cm"]), _integer(match["cd"])
    if match["cr"] is None:
        return _dated(match["cy"], month, day, sent_at)
    return None if sent_at is None else date(sent_at.year - {"今年": 0, "去年": 1, "前年": 2}[match["cr"]], month, day)


def _readings(match: _Match) -> list[tuple[int, int]]:
    """(month, day), both ways; with points between them the day comes first."""
    first, second = int(match["s1"]), int(match["s2"])
    return [(second, first)] if match["sep"] == "." else [(first, second), (second, first)]


def _exists(month: int, day: int) -> bool:
    return 1 <= month <= 12 and 1 <= day <= monthrange(2024, month)[1]


def _slashed(match: _Match, sent_at: datetime | None) -> date | None:
    """`3/11` is 11 March to one and 3 November to another: people write of what is not long ago, so the later one that
    has been. Without a time of sending, only what can be read in one way.
    """
    dates = {
        read
        for month, day in _readings(match)
        if _exists(month, day) and (read := _dated(match["sy"], month, day, sent_at))
    }
    if sent_at is None:
        return dates.pop() if len(dates) == 1 else None
    past = [read for read in dates if read <= sent_at.date() + timedelta(days=1)]
    return max(past) if past else min(dates, default=None)


def _ago(match: _Match, sent_at: datetime | None) -> date | datetime | _Roughly | None:
    if sent_at is None:
        return None
    written, unit = match["count"].strip(), match["unit"]
    count = _COUNTS.get(written) or (float(written) if written[0].isascii() else _integer(written))
    if match["half"]:
        count += 0.5
    if unit in _UNIT_MONTHS:
        return _months_before(sent_at.date(), count * _UNIT_MONTHS[unit])
    happened = sent_at - timedelta(seconds=_UNIT_SECONDS[unit] * count)
    if len(written) == 2 and written[0] in _NUMERALS and count < 10:  # "两三天前"
        return _Roughly(happened.date())
    return happened if _UNIT_SECONDS[unit] < 86400 else happened.date()


def _months_before(today: date, months: float) -> date:
    """The same day of an earlier month, or that month's last; half a month is fifteen days."""
    whole = int(months)
    year, month = divmod(today.year * 12 + today.month - 1 - whole, 12)
    there = date(year, month + 1, min(today.day, monthrange(year, month + 1)[1]))
    return there - timedelta(days=round((months - whole) * _DAYS_OF_A_MONTH))


def _weekday(match: _Match, sent_at: datetime | None) -> date | None:
    if sent_at is None:
        return None
    wanted = _WEEKDAYS[match["wd"] or (match["ewd"] or match["bwd"])[:3]]
    today = sent_at.date()
    weeks = (match["back"] or "").count("上")
    if weeks:
        return today - timedelta(days=today.weekday() + 7 * weeks - wanted)
    back = (today.weekday() - wanted) % 7
    return today - timedelta(days=back or (7 if match["eback"] == "last" else 0))


def _of_month(match: _Match, sent_at: datetime | None) -> date | None:
    if sent_at is None:
        return None
    first = sent_at.date().replace(day=1)
    if match["which"].startswith("上"):
        first = (first - timedelta(days=1)).replace(day=1)
    return first.replace(day=_integer(match["od"]))


def _day_only(match: _Match, sent_at: datetime | None) -> date | None:
    if sent_at is None:
        return None
    day, today = _integer(match["dd"] or match["edd"]), sent_at.date()
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


def _vague(match: _Match, sent_at: datetime | None) -> _Roughly | None:
    """What is said without a number: how old it is at least."""
    if sent_at is None:
        return None
    words, today = match["vague"], sent_at.date()
    first_of_month = today.replace(day=1)
    if "上" in words or words.startswith("last"):
        if "月" in words or "month" in words:
            before = first_of_month - timedelta(days=1)
            return _Roughly(before if "上上" not in words else before.replace(day=1) - timedelta(days=1))
        if "year" not in words:
            return _Roughly(today - timedelta(days=today.weekday() + 1 + 7 * ("上上" in words)))
    if "去年" in words or words == "last year":
        return _Roughly(date(today.year - 1, 12, 31))
    if "前年" in words:
        return _Roughly(date(today.year - 2, 12, 31))
    days = next((days for word, days in _AT_LEAST_DAYS.items() if word in words), 0)
    return _Roughly(today - timedelta(days=days))


_AT_LEAST_DAYS: Final = {"前两天": 1, "天": 2, "day": 2, "week": 14, "month": 60, "year": 730}


def _in_month(match: _Match, sent_at: datetime | None) -> _Roughly | None:
    """`10月份`, `in October`: the words, and its last day at the latest."""
    if sent_at is None:
        return None
    month = _MONTHS[match["emm"][:3]] if match["emm"] else _integer(match["mm"])
    first = _dated(match["my"] or match["emy"], month, 1, sent_at)
    return None if first is None else _Roughly(min(sent_at.date(), first.replace(day=monthrange(first.year, month)[1])))


def _named(match: _Match, sent_at: datetime | None) -> date | None:
    return _dated(None, *_NAMED_DAYS[match["cn_named"] or match["en_named"]], sent_at)


_RESOLVERS: Final[dict[str, Callable[[_Match, datetime | None], date | datetime | _Roughly | None]]] = {
    "full": lambda match, sent_at: _dated(match["y"], int(match["m"]), int(match["d"]), sent_at),
    "compact": lambda match, sent_at: _dated(match["ky"], int(match["km"]), int(match["kd"]), sent_at),
    "cn_date": _chinese_date,
    "pointed": lambda match, sent_at: _dated(None, int(match["pm"]), int(match["pd"]), sent_at),
    "slashed": _slashed,
    "en_date": lambda match, sent_at: _dated(match["ey"], _MONTHS[match["em"][:3]], int(match["ed"]), sent_at),
    "en_date2": lambda match, sent_at: _dated(match["ey2"], _MONTHS[match["em2"][:3]], int(match["ed2"]), sent_at),
    "ago": _ago,
    "weekday": _weekday,
    "relative": _relative,
    "now": lambda _, sent_at: sent_at,
    "vague": _vague,
    "month": _in_month,
    "en_month": _in_month,
    "of_month": _of_month,
    "day_only": _day_only,
    "en_day": _day_only,
    "named": _named,
}
