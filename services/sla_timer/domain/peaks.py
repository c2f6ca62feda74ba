"""When a peak of arrivals begins and ends in a brand's queue.

Two reasons make a peak: a window that a lead has configured, and arrivals that run well above what is usual at this
time of the week. A peak by arrivals ends only once they are back under a lower mark, so that it does not flicker.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from shared.calendars import Calendar
from shared.events import PeakEvent, PeakKind
from shared.events.base import BrandCode
from shared.taxonomy import Queue

LEARNED_WEEKS = 4


class PeakWindow(BaseModel):
    """A time at which a peak is known to come: the working time of a calendar."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    brand: Literal["*"] | BrandCode = "*"
    queue: Literal["*"] | Queue = "*"
    calendar: str

    def covers(self, place: Place) -> bool:
        return self.brand in ("*", place.brand) and self.queue in ("*", place.queue)


class PeakRules(BaseModel):
    """`peaks` of `sla.yaml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    window_minutes: Annotated[int, Field(ge=1, le=240)] = 15
    factor: Annotated[float, Field(gt=1, description="begins at so many times the expected arrivals")] = 2.0
    ends_below_factor: Annotated[float, Field(ge=1)] = 1.5
    least_arrivals: Annotated[int, Field(ge=1, description="fewer in the window are never a peak")] = 10
    windows: tuple[PeakWindow, ...] = ()

    @model_validator(mode="after")
    def _has_a_lower_mark(self) -> Self:
        if self.ends_below_factor > self.factor:
            raise ValueError("ends_below_factor must not be above factor, or a peak would end as it begins")
        return self

    @property
    def window(self) -> timedelta:
        return timedelta(minutes=self.window_minutes)


class Place(NamedTuple):
    """Where arrivals are counted."""

    brand: str
    queue: Queue


@dataclass(frozen=True, slots=True)
class Arrivals:
    """In one window: those seen, and those expected from the same time of the week in the weeks before."""

    seen: int = 0
    expected: float = 0.0


def learned_windows(at: datetime, window: timedelta) -> list[tuple[datetime, datetime]]:
    """The same window in each of the last weeks. By 168 hours: daylight saving shifts it by one."""
    return [(at - window - timedelta(weeks=back), at - timedelta(weeks=back)) for back in range(1, LEARNED_WEEKS + 1)]


def is_peak(arrivals: Arrivals, rules: PeakRules, *, already: bool) -> bool:
    """Whether these arrivals alone make a peak, or keep one going (`already`)."""
    factor = rules.ends_below_factor if already else rules.factor
    return arrivals.seen >= rules.least_arrivals and arrivals.seen >= factor * arrivals.expected


def evaluate(
    at: datetime,
    counted: Mapping[Place, Arrivals],
    active: Mapping[Place, datetime],
    rules: PeakRules,
    calendars: Mapping[str, Calendar],
) -> list[PeakEvent]:
    """Which peaks begin and end at `at`. `active`: peaks going on, and when each began."""
    configured = [window for window in rules.windows if calendars[window.calendar].is_open(at)]
    events = []
    for place in sorted({*counted, *active}):
        arrivals = counted.get(place, Arrivals())
        on = any(window.covers(place) for window in configured) or is_peak(arrivals, rules, already=place in active)
        if on != (place in active):
            kind = PeakKind.BEGAN if on else PeakKind.ENDED
            events.append(_event(place, kind, at, active.get(place, at), arrivals, rules))
    return events


def _event(
    place: Place, kind: PeakKind, at: datetime, began_at: datetime, arrivals: Arrivals, rules: PeakRules
) -> PeakEvent:
    return PeakEvent(
        brand=place.brand,
        queue=place.queue,
        kind=kind,
        began_at=began_at,
        at=at,
        window_seconds=rules.window_minutes * 60,
        expected_arrivals=arrivals.expected,
        seen_arrivals=arrivals.seen,
    )


def arrivals_of(
    seen: Iterable[tuple[Place, int]], learned: Iterable[tuple[Place, int]], weeks: int
) -> dict[Place, Arrivals]:
    """Counts by place; `learned` over `weeks` weeks. A new place expects none: `least_arrivals` guards it."""
    before: Counter[Place] = Counter()
    for place, count in learned:
        before[place] += count
    now = dict(seen)
    return {place: Arrivals(now.get(place, 0), before[place] / max(1, weeks)) for place in {*now, *before}}


def next_evaluation(now: datetime) -> datetime:
    """The next full minute: every replica and every restart asks at the same instants."""
    return now.replace(second=0, microsecond=0) + timedelta(minutes=1)
