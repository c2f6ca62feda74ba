"""The hours of the week, for Prometheus: how many tickets arrive in each, and how long they wait for a first response.

Counted as the report by hour counts them (`reports.py`): in the brand's own zone, by the hour in which the ticket was
opened, over the last four weeks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from statistics import fmean
from typing import Final

from sqlalchemy import DateTime, Text, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from services.sla_timer import storage
from services.sla_timer.domain.reports import HOURS_OF_DAY, hour_label
from services.sla_timer.in_force import PoliciesInForce
from shared import metrics
from shared.database import Database
from shared.labels import brand_label
from shared.measuring import Gone, Reading

WEEKS: Final = 4
_HOURS_OF_WEEK: Final = 7 * HOURS_OF_DAY
_FIRST_WEEKDAY: Final = 3  # hour 0 of 1970 was on a Thursday; Monday is 0
_STATEMENT_MOST_MILLISECONDS: Final = 20_000

# Local hours since 1970, as in reports.py.
_HOURS: Final = "floor(date_part('epoch', timezone(zones.zone, {at})) / 3600)::int"
_ZONES: Final = "unnest(CAST(:brands AS text[]), CAST(:zones AS text[])) AS zones (brand, zone)"
_ARRIVALS: Final = text(
    f"SELECT brand, hours, count(*) AS arrived FROM (SELECT brand, {_HOURS.format(at='at')} AS hours "  # noqa: S608 - texts of our own
    f"FROM {_ZONES} JOIN sla_timer.arrivals USING (brand) WHERE at >= :since AND at < :until OFFSET 0) AS hourly "
    "GROUP BY brand, hours"
)
_RESPONSES: Final = text(
    f"SELECT brand, (hours + {_FIRST_WEEKDAY * HOURS_OF_DAY}) % {_HOURS_OF_WEEK} AS hour, "  # noqa: S608 - texts of our own
    "percentile_disc(0.9) WITHIN GROUP (ORDER BY used_seconds) AS p90 FROM ("
    f"SELECT brand, used_seconds, {_HOURS.format(at='started_at')} AS hours FROM {_ZONES} "
    "JOIN sla_timer.clocks USING (brand) WHERE target = 'first_response' AND state = 'met' "
    "AND started_at >= :since AND started_at < :until OFFSET 0) AS hourly GROUP BY 1, 2"
)
_PARAMETERS: Final = (
    bindparam("brands", type_=ARRAY(Text())),
    bindparam("zones", type_=ARRAY(Text())),
    bindparam("since", type_=DateTime(timezone=True)),
    bindparam("until", type_=DateTime(timezone=True)),
)


class HoursOfWeek:
    def __init__(self, database: Database, in_force: PoliciesInForce) -> None:
        self._database = database
        self._in_force = in_force
        self._arrivals = Reading(metrics.HOUR_OF_WEEK_ARRIVALS, Gone.REMOVED)
        self._responses = Reading(metrics.HOUR_OF_WEEK_RESPONSE_SECONDS, Gone.REMOVED)

    async def measure(self, now: datetime | None = None) -> None:
        now = now or datetime.now(UTC)
        policies = self._in_force.policies
        async with self._database.transaction() as connection:
            await connection.execute(
                text("SELECT set_config('statement_timeout', :most, true)"), {"most": str(_STATEMENT_MOST_MILLISECONDS)}
            )
            first = await storage.first_arrivals(connection)
            first = {brand: at for brand, at in first.items() if brand_label(brand) == brand}
            calendars = {brand: policies.zone_calendar(brand) for brand in first}
            asked = {
                "brands": list(calendars),
                "zones": [calendar.zone for calendar in calendars.values()],
                "since": now.replace(minute=0, second=0, microsecond=0) - timedelta(weeks=WEEKS, hours=1),
                "until": now,
            }
            counted = await _arrivals(connection, asked)
            responses = await connection.execute(_RESPONSES.bindparams(*_PARAMETERS), asked)
        self._responses.show({(row.brand, *_cell(row.hour)): row.p90 for row in responses})
        self._arrivals.show(
            {
                (brand, *_cell(hour)): mean
                for brand, calendar in calendars.items()
                for hour, mean in means(
                    counted[brand], _hours(calendar.local(first[brand])), _hours(calendar.local(now))
                ).items()
            }
        )


async def _arrivals(connection: AsyncConnection, asked: Mapping[str, object]) -> Mapping[str, Mapping[int, int]]:
    counted: defaultdict[str, dict[int, int]] = defaultdict(dict)
    for row in await connection.execute(_ARRIVALS.bindparams(*_PARAMETERS), asked):
        counted[row.brand][row.hours] = row.arrived
    return counted


def means(counted: Mapping[int, int], first: int, now: int) -> dict[int, float]:
    """Arrivals by hour of the week (0 is Monday's first), mean of the hours that are known: those of the last weeks,
    not before `first`. All hours are local ones since 1970. The running hour counts only where no other is known.
    """
    by_hour: defaultdict[int, list[int]] = defaultdict(list)
    for hours in range(max(first, now - WEEKS * _HOURS_OF_WEEK), now):
        by_hour[_of_week(hours)].append(counted.get(hours, 0))
    by_hour.setdefault(_of_week(now), [counted.get(now, 0)])
    return {hour: fmean(counts) for hour, counts in by_hour.items()}


def _of_week(hours: int) -> int:
    return (hours + _FIRST_WEEKDAY * HOURS_OF_DAY) % _HOURS_OF_WEEK


def _hours(local: datetime) -> int:
    return int(local.replace(tzinfo=UTC).timestamp() // 3600)


def _cell(hour_of_week: int) -> tuple[str, str]:
    """Labels that sort as the week goes: `1 Mon`, `09`."""
    weekday, hour = hour_label(hour_of_week).split()
    return (f"{hour_of_week // HOURS_OF_DAY + 1} {weekday}", hour)
