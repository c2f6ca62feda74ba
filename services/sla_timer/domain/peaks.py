"""When a peak of arrivals begins and ends in a brand's queue, on one channel or on all together.

Two reasons make a peak: a window that a lead has configured, and arrivals that run well above what is usual at this
time of the week (`arrivals.py` says what is usual). A peak by arrivals ends only once they are back under a lower mark,
so that it does not flicker.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from services.sla_timer.domain.arrivals import expected
from shared.calendars import Calendar
from shared.events import PeakCause, PeakEvent, PeakKind
from shared.events.base import BrandCode
from shared.taxonomy import Channel, Queue


class PeakWindow(BaseModel):
    """A time at which a peak is known to come: the working time of a calendar."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    brand: Literal["*"] | BrandCode = "*"
    queue: Literal["*"] | Queue = "*"
    channel: Literal["*"] | Channel = "*"
    calendar: str

    def covers(self, place: Place) -> bool:
        """A window for all channels is a peak of all together; one for a channel is a peak of that channel."""
        return (
            self.brand in ("*", place.brand)
            and self.queue in ("*", place.queue)
            and (place.channel is None if self.channel == "*" else place.channel == self.channel)
        )


class PeakRules(BaseModel):
    """`peaks` of `sla.yaml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    window_minutes: Annotated[int, Field(ge=1, le=240)] = 15
    factor: Annotated[float, Field(gt=1, description="begins at so many times the expected arrivals")] = 2.0
    ends_below_factor: Annotated[float, Field(ge=1)] = 1.5
    least_arrivals: Annotated[int, Field(ge=1, description="fewer in the window are never a peak")] = 10
    learned_weeks: Annotated[int, Field(ge=1, le=52, description="what is usual is learned from so many weeks")] = 8
    calendars: dict[Literal["*"] | BrandCode, str] = Field(
        default_factory=dict, description="by brand: the calendar in whose zone and with whose holidays its week counts"
    )
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
    """Where arrivals are counted: a brand's queue, on one channel, or on all together (none)."""

    brand: str
    queue: Queue
    channel: Channel | None = None

    @property
    def all_channels(self) -> Place:
        return Place(self.brand, self.queue)


@dataclass(frozen=True, slots=True)
class Arrivals:
    """In one window: those seen, and those that are usual at this time of the week."""

    seen: int = 0
    expected: float = 0.0


@dataclass(frozen=True, slots=True)
class Active:
    """A peak that is going on."""

    began_at: datetime
    cause: PeakCause | None = None


Counts = Mapping[Place, int]
"""Arrivals in one window by place."""


def with_totals(counts: Iterable[tuple[Place, int]]) -> Counts:
    """Counts by channel, and of all channels of each queue together."""
    found: Counter[Place] = Counter()
    for place, count in counts:
        found[place] += count
        found[place.all_channels] += count
    return found


def arrivals_of(seen: Counts, comparable: Mapping[str, Sequence[Counts]]) -> dict[Place, Arrivals]:
    """By place. `comparable`: by brand, the counts of the windows that its own is compared with. A place that is new
    expects none: `least_arrivals` guards it.
    """
    places = {*seen, *(place for windows in comparable.values() for counts in windows for place in counts)}
    return {
        place: Arrivals(
            seen.get(place, 0), expected([counts.get(place, 0) for counts in comparable.get(place.brand, ())])
        )
        for place in places
    }


def is_peak(arrivals: Arrivals, rules: PeakRules, *, already: bool) -> bool:
    """Whether these arrivals alone make a peak, or keep one going (`already`)."""
    factor = rules.ends_below_factor if already else rules.factor
    return arrivals.seen >= rules.least_arrivals and arrivals.seen >= factor * arrivals.expected


def evaluate(
    at: datetime,
    counted: Mapping[Place, Arrivals],
    active: Mapping[Place, Active],
    rules: PeakRules,
    calendars: Mapping[str, Calendar],
    staff_needed: Callable[[Place], int | None] = lambda place: None,
) -> list[PeakEvent]:
    """Which peaks begin and end at `at`. A queue's peak is one of all its channels: none of them begins another then.

    `staff_needed`: agents for what arrives at a place.
    """
    configured = [window for window in rules.windows if calendars[window.calendar].is_open(at)]
    events = []
    whole: set[Place] = set()
    for place in sorted({*counted, *active}, key=_in_order):  # all channels together before each of them
        arrivals = counted.get(place, Arrivals())
        known = active.get(place)
        cause = None
        if any(window.covers(place) for window in configured):
            cause = PeakCause.CONFIGURED
        elif is_peak(arrivals, rules, already=known is not None) and (known or place.all_channels not in whole):
            cause = PeakCause.ARRIVALS
        if cause is not None and place.channel is None:
            whole.add(place)
        if (cause is None) == (known is None):
            continue
        began_at = at if known is None else known.began_at
        events.append(
            PeakEvent(
                brand=place.brand,
                queue=place.queue,
                channel=place.channel,
                kind=PeakKind.BEGAN if known is None else PeakKind.ENDED,
                began_at=began_at,
                at=at,
                cause=cause if known is None else known.cause,
                window_seconds=rules.window_minutes * 60,
                expected_arrivals=arrivals.expected,
                seen_arrivals=arrivals.seen,
                staff_needed=staff_needed(place),
            )
        )
    return events


def _in_order(place: Place) -> tuple[str, str, str]:
    return (place.brand, place.queue, place.channel or "")


def next_evaluation(now: datetime) -> datetime:
    """The next full minute: every replica and every restart asks at the same instants."""
    return now.replace(second=0, microsecond=0) + timedelta(minutes=1)
