"""What a report asks and what it says: response times by group, and the backlog by hour. Pure; the SQL is in
`services/sla_timer/reports.py`.

A **promise** is one clock. It belongs to the period in which it started (`from <= started_at < to`).

- `judged`: answered, or breached and still open. Left out: what is open and not yet due, and what was cancelled.
- `answered`: the clock was met.
- `within_target`: answered and never breached. A promise that is broken and still open counts as not within.
- percentiles: over the answered promises one by one, never over averages. `pNN` is PostgreSQL's percentile_disc, the
  nearest rank: of n values in order the one at place ceil(NN/100 * n), so a time that some customer really waited.
- business seconds: working time on the promise's own calendar, pauses left out. Wall seconds: from its start to its
  answer on the wall clock, pauses and nights included, whole seconds.
- in peak: it started while a peak of its brand and queue was on, of all channels together or of its own channel.

The **backlog** at an instant is every resolution clock that had started and not ended by then; its age is wall time
since the clock started. It is looked at when a full hour begins on the zone's clock, never after now.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from math import ceil
from typing import Annotated, Any, Final
from zoneinfo import ZoneInfo, available_timezones

from pydantic import BaseModel, ConfigDict, Field

from shared.calendars import WEEKDAYS
from shared.events import Target
from shared.events.base import BrandCode
from shared.taxonomy import Channel, Priority, Queue

MOST_DAYS: Final = 400
"""The longest period of one report: as long as arrivals are kept, and a bound on what one question can cost."""
HOURS_OF_DAY: Final = 24
HOURS_OF_WEEK: Final = 7 * HOURS_OF_DAY

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_PER_SECOND: Final = 1_000_000
# Every offset in use today is a multiple of it, so a full hour of any zone lies on this grid of UTC.
_GRID: Final = timedelta(minutes=15)


class By(StrEnum):
    """What promises are grouped by."""

    HOUR = "hour"  # of the week, in the report's zone: when the promise started
    QUEUE = "queue"
    CHANNEL = "channel"
    PRIORITY = "priority"
    BRAND = "brand"
    AGENT_GROUP = "agent_group"  # of the agent who answered
    PEAK = "peak"


class WrongQuestion(ValueError):
    """A report that cannot be made: which field is wrong, and what to write."""

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(f"{field}: {detail}")
        self.field = field
        self.detail = detail


# --- the question ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Question:
    """What a report is about. `since <= started_at < until`; empty filters let everything pass."""

    since: datetime
    until: datetime
    zone: str
    by: By
    targets: tuple[Target, ...] = tuple(Target)
    brand: str | None = None
    queue: Queue | None = None
    channel: Channel | None = None
    priority: Priority | None = None


class ReportQuery(BaseModel):
    """A question as it is asked, over HTTP or on the command line."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    since: Annotated[str, Field(alias="from", max_length=40, description="date, or ISO time; included")]
    until: Annotated[str, Field(alias="to", max_length=40, description="date, or ISO time; not included")]
    by: By = By.HOUR
    target: Target | None = Field(default=None, description="one of them; without it, all")
    brand: BrandCode | None = None
    queue: Queue | None = None
    channel: Channel | None = None
    priority: Priority | None = None
    zone: Annotated[str, Field(max_length=64)] | None = Field(
        default=None, description="IANA zone; without it, that of the calendar of the brand"
    )

    def question(self, home_zone: str) -> Question:
        """`home_zone`: taken when the question names none. Raises WrongQuestion."""
        zone = self.zone or home_zone
        if zone not in available_timezones():
            raise WrongQuestion("zone", "is not an IANA time zone like Asia/Shanghai")
        since = moment("from", self.since, zone)
        until = moment("to", self.until, zone)
        if until <= since:
            raise WrongQuestion("to", "must be after `from`; a date means its midnight, which is not included")
        if until - since > timedelta(days=MOST_DAYS):
            raise WrongQuestion("to", f"a report covers {MOST_DAYS} days at most")
        return Question(
            since=since,
            until=until,
            zone=zone,
            by=self.by,
            targets=(self.target,) if self.target else tuple(Target),
            brand=self.brand,
            queue=self.queue,
            channel=self.channel,
            priority=self.priority,
        )


def moment(field: str, text: str, zone: str) -> datetime:
    """The instant (UTC) that a text means: a date is its midnight, and a time without offset is one of `zone`.

    Raises WrongQuestion for `field`.
    """
    try:
        at = datetime.fromisoformat(text.strip())
        return (at if at.tzinfo else at.replace(tzinfo=ZoneInfo(zone))).astimezone(UTC)
    except (ValueError, OverflowError):
        raise WrongQuestion(field, "is not a date or a time like 2026-11-01 or 2026-11-01T08:30+08:00") from None


# --- the answer ------------------------------------------------------------------------------------------------------


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, populate_by_name=True, serialize_by_alias=True)


class Percentiles(_Answer):
    """Whole seconds; none where nothing was answered."""

    p50: int | None = None
    p90: int | None = None
    p99: int | None = None


class Figures(_Answer):
    """How some promises were kept."""

    judged: int = 0
    answered: int = 0
    within_target: int = 0
    business_seconds: Percentiles = Percentiles()
    wall_seconds: Percentiles = Percentiles()
    share_within_target: float | None = Field(default=None, description="within_target / judged; none without any")


class TargetRange(_Answer):
    """The strictest and the loosest target among judged promises, business seconds."""

    least: int | None = None
    most: int | None = None


class Row(_Answer):
    """One target of one group."""

    target: Target
    group: str | None = Field(description="none: not known (not routed, no agent group), and in totals")
    hour_of_week: int | None = Field(default=None, description="by hour: 0 is Monday 00, 167 is Sunday 23")
    hour_of_day: int | None = None
    overall: Figures = Figures()
    in_peak: Figures = Figures()
    out_of_peak: Figures = Figures()
    target_seconds: TargetRange = TargetRange()
    not_yet_due: int = Field(default=0, description="open and not breached: not judged")
    cancelled: int = Field(default=0, description="fallen away: not judged, be it breached or not")
    cancelled_after_breach: int = 0

    @property
    def share_in_peak(self) -> float:
        """Of the judged promises; 0 without any."""
        return self.in_peak.judged / self.overall.judged if self.overall.judged else 0.0


class BacklogHour(_Answer):
    """The backlog when a full hour begins. Ages in whole seconds of wall time; none when nothing is open."""

    at: datetime
    open: int
    age_p50_seconds: int | None = None
    age_p90_seconds: int | None = None
    age_oldest_seconds: int | None = None


class BacklogWeekHour(_Answer):
    """The backlogs at the same hour of all weeks: nearest-rank percentiles over these samples, each of them exact.

    `typical` is the median sample, `worst` the highest.
    """

    hour_of_week: int
    group: str
    samples: int
    open_typical: int | None = None
    open_worst: int | None = None
    age_p50_seconds_typical: int | None = None
    age_p90_seconds_typical: int | None = None
    age_p90_seconds_worst: int | None = None
    age_oldest_seconds_worst: int | None = None


class Backlog(_Answer):
    hours: list[BacklogHour]
    hours_of_week: list[BacklogWeekHour]


class Filters(_Answer):
    brand: str | None
    queue: Queue | None
    channel: Channel | None
    priority: Priority | None


class Report(_Answer):
    """The answer to a Question. By hour: 168 rows a target, and the hours of the day and the backlog beside them."""

    made_at: datetime
    since: datetime = Field(alias="from")
    until: datetime = Field(alias="to")
    zone: str
    by: By
    targets: list[Target]
    filters: Filters
    rows: list[Row]
    totals: list[Row] = Field(description="over all groups of a target; percentiles over its single promises")
    hours_of_day: list[Row]
    backlog: Backlog | None


def hour_label(hour_of_week: int) -> str:
    """`Mon 09`."""
    weekday, hour = divmod(hour_of_week, HOURS_OF_DAY)
    return f"{WEEKDAYS[weekday].capitalize()} {hour:02d}"


def assemble(
    question: Question, totals: Iterable[Row], rows: Iterable[Row], hours_of_day: Iterable[Row], *, now: datetime
) -> Report:
    """The report without its backlog: groups in order, and nothing missing (a target without promises, an hour in
    which none began).
    """
    by_target = {row.target: row for row in totals}
    zone = ZoneInfo(question.zone)
    if question.by is By.HOUR:
        rows = _every_hour(question, {(row.target, row.hour_of_week): row for row in rows})
        hours_of_day = _every_hour_of_day(question, {(row.target, row.hour_of_day): row for row in hours_of_day})
    order = _order(question.by)
    position = {target: index for index, target in enumerate(question.targets)}
    return Report(
        made_at=now.astimezone(zone),
        since=question.since.astimezone(zone),
        until=question.until.astimezone(zone),
        zone=question.zone,
        by=question.by,
        targets=list(question.targets),
        filters=Filters(
            brand=question.brand, queue=question.queue, channel=question.channel, priority=question.priority
        ),
        rows=sorted(rows, key=lambda row: (position[row.target], row.hour_of_week or 0, order(row.group))),
        totals=[by_target.get(target) or Row(target=target, group=None) for target in question.targets],
        hours_of_day=list(hours_of_day),
        backlog=None,
    )


def _every_hour(question: Question, found: Mapping[tuple[Target, int | None], Row]) -> list[Row]:
    return [
        found.get((target, hour))
        or Row(target=target, group=hour_label(hour), hour_of_week=hour, hour_of_day=hour % HOURS_OF_DAY)
        for target in question.targets
        for hour in range(HOURS_OF_WEEK)
    ]


def _every_hour_of_day(question: Question, found: Mapping[tuple[Target, int | None], Row]) -> list[Row]:
    return [
        found.get((target, hour)) or Row(target=target, group=f"{hour:02d}", hour_of_day=hour)
        for target in question.targets
        for hour in range(HOURS_OF_DAY)
    ]


_IN_ORDER: Final[Mapping[By, Sequence[str]]] = {
    By.QUEUE: list(Queue),
    By.CHANNEL: list(Channel),
    By.PRIORITY: list(Priority),
    By.PEAK: ["in_peak", "out_of_peak"],
}


def _order(by: By) -> Any:
    """Sorts groups as the taxonomy has them, others by name; the unknown one comes last."""
    known = {name: index for index, name in enumerate(_IN_ORDER.get(by, ()))}
    return lambda group: (group is None, known.get(group or "", len(known)), group or "")


# --- the backlog -----------------------------------------------------------------------------------------------------


def nearest_rank(ascending: Sequence[int], share: float) -> int:
    """PostgreSQL's percentile_disc of sorted values, at least one: the first at or above which `share` of them lie."""
    return ascending[_place(len(ascending), share)]


def _place(count: int, share: float) -> int:
    return max(1, ceil(share * count)) - 1


def full_hours(question: Question, now: datetime) -> list[datetime]:
    """When a full hour begins on the zone's clock, within the period and not after now; UTC.

    An hour that the clock shows twice begins twice, and one that it skips does not begin.
    """
    zone = ZoneInfo(question.zone)
    at = _EPOCH + -((_EPOCH - question.since) // _GRID) * _GRID  # rounded up
    end = min(question.until, now + _MICROSECOND)
    found = []
    while at < end:
        if at.astimezone(zone).minute == 0:
            found.append(at)
        at += _GRID
    return found


def microseconds(at: datetime) -> int:
    """Since 1970."""
    return (at - _EPOCH) // _MICROSECOND


def sweep(
    starts: Sequence[int], ended_starts: Sequence[int], ends: Sequence[int], hours: Sequence[datetime], zone: str
) -> list[BacklogHour]:
    """The backlog at each of the ascending `hours`.

    starts: of all clocks, ascending; ends: of those that ended, ascending; ended_starts: the start of each of these, in
    the order of `ends`. All in microseconds since 1970. Time moves forward through both lists once, and what is open
    stays sorted by start, so each percentile is one look: O(clocks + hours) steps, however long tickets stay open.
    """
    shown = ZoneInfo(zone)
    open_starts = array("q")
    begun = ended = 0
    found = []
    for hour in hours:
        at = microseconds(hour)
        while begun < len(starts) and starts[begun] <= at:
            open_starts.append(starts[begun])
            begun += 1
        while ended < len(ends) and ends[ended] <= at:
            del open_starts[bisect_left(open_starts, ended_starts[ended])]
            ended += 1
        found.append(_backlog_hour(hour.astimezone(shown), at, open_starts))
    return found


def _backlog_hour(at: datetime, instant: int, open_starts: Sequence[int]) -> BacklogHour:
    count = len(open_starts)
    if not count:
        return BacklogHour(at=at, open=0)

    def age(share: float) -> int:
        # Ages rise as starts fall: the youngest stands last.
        return (instant - open_starts[count - 1 - _place(count, share)]) // _PER_SECOND

    return BacklogHour(
        at=at, open=count, age_p50_seconds=age(0.5), age_p90_seconds=age(0.9), age_oldest_seconds=age(1.0)
    )


def by_hour_of_week(hours: Iterable[BacklogHour]) -> list[BacklogWeekHour]:
    """168 rows, Monday 00 first; `at` of each hour must be in the report's zone."""
    samples: dict[int, list[BacklogHour]] = {hour: [] for hour in range(HOURS_OF_WEEK)}
    for sample in hours:
        samples[sample.at.weekday() * HOURS_OF_DAY + sample.at.hour].append(sample)
    return [_week_hour(hour, found) for hour, found in samples.items()]


def _week_hour(hour: int, samples: Sequence[BacklogHour]) -> BacklogWeekHour:
    def over(values: Iterable[int | None], share: float) -> int | None:
        ascending = sorted(value for value in values if value is not None)
        return nearest_rank(ascending, share) if ascending else None

    return BacklogWeekHour(
        hour_of_week=hour,
        group=hour_label(hour),
        samples=len(samples),
        open_typical=over((item.open for item in samples), 0.5),
        open_worst=over((item.open for item in samples), 1.0),
        age_p50_seconds_typical=over((item.age_p50_seconds for item in samples), 0.5),
        age_p90_seconds_typical=over((item.age_p90_seconds for item in samples), 0.5),
        age_p90_seconds_worst=over((item.age_p90_seconds for item in samples), 1.0),
        age_oldest_seconds_worst=over((item.age_oldest_seconds for item in samples), 1.0),
    )


# --- as people write it ----------------------------------------------------------------------------------------------


def duration_text(seconds: int) -> str:
    """`42s`, `4m 05s`, `2h 13m`, `310h`: the two largest units, what is below them left out. Never days, which are 24
    hours on the wall and a working day in a promise.
    """
    hours, rest = divmod(seconds, 3600)
    minutes, left = divmod(rest, 60)
    if hours >= 100:
        return f"{hours}h"
    if hours:
        return f"{hours}h {minutes:02d}m"
    return f"{minutes}m {left:02d}s" if minutes else f"{left}s"
