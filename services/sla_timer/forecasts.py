"""The forecast of a day, and the agents it needs: read out of `sla_timer.arrivals`, changes nothing.

How arrivals are forecast: `domain/forecast.py`; how many agents they need: `domain/staffing.py`. Each channel is
forecast and staffed by itself, since each has rules of its own, and the channels are added up.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import DateTime, bindparam, text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.sla_timer.domain.arrivals import DayKind, day_kind
from services.sla_timer.domain.forecast import (
    KNOWN_DAYS_BEFORE,
    LEAST_DAYS,
    MOST_DAYS,
    Backtest,
    History,
    added_up,
    backtest,
    forecast,
    half_hours_of,
)
from services.sla_timer.domain.policies import ANY, Policies
from services.sla_timer.domain.staffing import HALF_HOUR
from shared.calendars import Calendar
from shared.database import Database
from shared.events import Target
from shared.taxonomy import Channel, Queue

HELD_OUT_DAYS: Final = 14
MOST_HELD_OUT_DAYS: Final = 60

_DAY: Final = timedelta(days=1)


class CannotForecast(ValueError):
    """The message says why, and what to do about it."""


@dataclass(frozen=True, slots=True)
class Asked:
    """`brand`, `queue`, `channel`: none means all of them together. `day`: none means tomorrow, in the brand's zone."""

    brand: str | None = None
    queue: Queue | None = None
    channel: Channel | None = None
    day: date | None = None
    held_out_days: int = HELD_OUT_DAYS

    def __str__(self) -> str:
        return ", ".join(
            (self.brand or "all brands", f"queue {self.queue or 'any'}", f"channel {self.channel or 'any'}")
        )


class ForecastRow(BaseModel):
    """One half-hour. `low` to `high`: in which 8 of 10 such half-hours came, the days held out say."""

    model_config = ConfigDict(frozen=True)

    start: datetime
    expected: float
    low: int
    high: int
    agents_needed: Annotated[int, Field(description="at work at once, all channels that are open then")]
    agents_scheduled: Annotated[int, Field(description="with breaks, training and illness allowed for")]


class Accuracy(BaseModel):
    """How far off forecasts of days that are over were, made as this one. Errors are shares of what came (WAPE)."""

    model_config = ConfigDict(frozen=True)

    held_out_days: int
    half_hour_error: float
    day_error: float
    bias: Annotated[float, Field(description="above 0: more was forecast than came")]
    naive_half_hour_error: Annotated[float, Field(description="of the same half-hour a week before")]
    naive_day_error: float
    within_low_and_high: Annotated[float, Field(description="share of half-hours that came between low and high")]


class DayForecast(BaseModel):
    model_config = ConfigDict(frozen=True)

    brand: str | None
    queue: Queue | None
    channel: Channel | None
    day: date
    kind: DayKind
    zone: str
    known_from: date
    known_until: Annotated[date, Field(description="the last day that the forecast knows; it is complete")]
    known_days: int
    rows: tuple[ForecastRow, ...]
    expected: Annotated[float, Field(description="arrivals of the whole day")]
    accuracy: Accuracy | None = Field(description="none while too few days are known to hold any out")


# `origin` is a local midnight: half-hours then begin as on the wall's clock in every zone, Nepal's included.
_COUNT: Final = text(
    "SELECT channel, date_bin('30 minutes', at, :origin) AS half_hour, count(*) AS arrived FROM sla_timer.arrivals "
    "WHERE at >= :origin AND at < :until AND (CAST(:brand AS text) IS NULL OR brand = :brand) "
    "AND (CAST(:queue AS text) IS NULL OR queue = :queue) AND (CAST(:channel AS text) IS NULL OR channel = :channel) "
    "GROUP BY 1, 2"
).bindparams(bindparam("origin", type_=DateTime(timezone=True)), bindparam("until", type_=DateTime(timezone=True)))

Counts = Mapping[Channel, Mapping[datetime, int]]
"""Arrivals by channel and by the beginning of the half-hour (UTC); what is missing is none."""


async def counts_by_half_hour(connection: AsyncConnection, asked: Asked, since: datetime, until: datetime) -> Counts:
    """`since` is a local midnight."""
    rows = await connection.execute(
        _COUNT,
        {"origin": since, "until": until, "brand": asked.brand, "queue": asked.queue, "channel": asked.channel},
    )
    counts: dict[Channel, dict[datetime, int]] = defaultdict(dict)
    for row in rows:
        counts[Channel(row.channel)][row.half_hour.astimezone(UTC)] = row.arrived
    return counts


async def forecast_of(database: Database, policies: Policies, asked: Asked, now: datetime) -> DayForecast:
    """Raises CannotForecast for a day too far away, and when too few days are known."""
    calendar = policies.zone_calendar(asked.brand or ANY)
    today = calendar.local(now).date()
    day = asked.day or today + _DAY
    if not -MOST_DAYS <= (day - today).days <= MOST_DAYS:
        raise CannotForecast(f"the day is more than {MOST_DAYS} days away; ask for a nearer one")
    # A past day is forecast as it would have been on its eve.
    known_until = min(today - _DAY, day - KNOWN_DAYS_BEFORE)
    since = half_hours_of(known_until - (MOST_DAYS - 1) * _DAY, calendar)[0]
    until = half_hours_of(known_until, calendar)[-1] + HALF_HOUR
    async with database.transaction() as connection:
        counts = await counts_by_half_hour(connection, asked, since, until)
    # Seconds of arithmetic: not on the thread on which deadlines fire.
    return await asyncio.to_thread(_forecast_of, counts, policies, calendar, asked, day, known_until)


def _forecast_of(
    counts: Counts, policies: Policies, calendar: Calendar, asked: Asked, day: date, known_until: date
) -> DayForecast:
    histories = _histories(counts, calendar, known_until)
    known_from = min(min(history.days) for history in histories.values())
    known_days = (known_until - known_from).days + 1
    by_channel = {channel: forecast(history, day, known_until) for channel, history in histories.items()}
    tested = backtest(list(histories.values()), asked.held_out_days)
    expected = added_up(list(by_channel.values()))
    rows = []
    for number, start in enumerate(half_hours_of(day, calendar)):
        # As they are shown: what is no arrival in a week of such half-hours needs nobody.
        arrivals = {channel: round(series[number], 2) for channel, series in by_channel.items()}
        needed, scheduled = _agents(arrivals, start, policies, asked.brand)
        low, high = tested.band.around(expected[number])
        rows.append(
            ForecastRow(
                start=calendar.local(start),
                expected=round(expected[number], 2),
                low=low,
                high=high,
                agents_needed=needed,
                agents_scheduled=scheduled,
            )
        )
    return DayForecast(
        brand=asked.brand,
        queue=asked.queue,
        channel=asked.channel,
        day=day,
        kind=day_kind(day, calendar),
        zone=calendar.zone,
        known_from=known_from,
        known_until=known_until,
        known_days=known_days,
        rows=tuple(rows),
        expected=round(sum(expected), 2),
        accuracy=_accuracy(tested),
    )


def _histories(counts: Counts, calendar: Calendar, known_until: date) -> Mapping[Channel, History]:
    """A channel's history begins on the day after its first arrival: of that day, only a part may have been counted."""
    histories = {}
    for channel, by_half_hour in sorted(counts.items()):
        first = calendar.local(min(by_half_hour)).date() + _DAY
        if first <= known_until:
            histories[channel] = History.of(by_half_hour, first, known_until, calendar)
    known_days = max((len(history.days) for history in histories.values()), default=0)
    if not counts:
        raise CannotForecast(
            f"no arrivals are known until {known_until}: check the names, and that the database is the right one"
        )
    if known_days < LEAST_DAYS:
        raise CannotForecast(
            f"arrivals of {known_days} complete days are known until {known_until}, and a forecast needs {LEAST_DAYS}; "
            f"ask again in {LEAST_DAYS - known_days} days"
        )
    return histories


def _agents(
    arrivals: Mapping[Channel, float], start: datetime, policies: Policies, brand: str | None
) -> tuple[int, int]:
    """Needed and scheduled, of the channels that work at some time of this half-hour."""
    needed = scheduled = 0
    for channel, expected in arrivals.items():
        if _works(channel, start, policies, brand):
            rules = policies.staffing_of(channel)
            agents = rules.agents_needed(expected)
            needed += agents
            scheduled += rules.agents_scheduled(agents)
    return needed, scheduled


def _works(channel: Channel, start: datetime, policies: Policies, brand: str | None) -> bool:
    """On the calendar on which an ordinary ticket's first response is counted; without one, at any time."""
    terms = policies.terms(brand or ANY, channel, None, policies.provisional_priority, Target.FIRST_RESPONSE)
    return terms is None or policies.calendar(terms).business_elapsed(start, start + HALF_HOUR) > 0


def _accuracy(tested: Backtest) -> Accuracy | None:
    figures = (
        tested.half_hour_error,
        tested.day_error,
        tested.bias,
        tested.naive_half_hour_error,
        tested.naive_day_error,
        tested.coverage,
    )
    if any(figure is None for figure in figures):
        return None
    half_hour, of_day, bias, naive_half_hour, naive_day, within = (round(figure or 0.0, 4) for figure in figures)
    return Accuracy(
        held_out_days=len(tested.days),
        half_hour_error=half_hour,
        day_error=of_day,
        bias=bias,
        naive_half_hour_error=naive_half_hour,
        naive_day_error=naive_day,
        within_low_and_high=within,
    )
