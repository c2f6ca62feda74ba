"""What is expected now, for Prometheus: arrivals of this half-hour as they were forecast, and the agents they need.

A forecast takes seconds of arithmetic, and knows no more at noon than it did at midnight: it is made once for a brand's
day, in a thread, one brand after the other.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final

from services.sla_timer import storage
from services.sla_timer.domain.policies import Policies
from services.sla_timer.domain.staffing import HALF_HOUR
from services.sla_timer.forecasts import Asked, CannotForecast, DayForecast, ForecastRow, forecast_of
from services.sla_timer.in_force import PoliciesInForce
from shared import metrics
from shared.database import Database
from shared.labels import brand_label
from shared.measuring import Gone, Reading

logger = logging.getLogger(__name__)

_TRY_AGAIN: Final = timedelta(hours=1)
_PER_HOUR: Final = timedelta(hours=1) / HALF_HOUR


@dataclass(frozen=True, slots=True)
class _Made:
    """A brand's forecast of `day` (in its zone), or that there is none yet because too little is known."""

    day: date
    policies: Policies
    at: datetime
    forecast: DayForecast | None

    def holds(self, day: date, policies: Policies, now: datetime) -> bool:
        return (self.day, self.policies) == (day, policies) and (
            self.forecast is not None or now < self.at + _TRY_AGAIN
        )


class Outlook:
    def __init__(self, database: Database, in_force: PoliciesInForce) -> None:
        self._database = database
        self._in_force = in_force
        self._made: dict[str, _Made] = {}
        self._arrivals = Reading(metrics.FORECAST_ARRIVALS, Gone.REMOVED)
        self._staff = Reading(metrics.STAFF_NEEDED, Gone.REMOVED)

    async def forecast(self, now: datetime | None = None) -> None:
        """Make the forecasts of today that are not made yet."""
        now = now or datetime.now(UTC)
        policies = self._in_force.policies
        async with self._database.transaction() as connection:
            brands = [brand for brand in await storage.first_arrivals(connection) if brand_label(brand) == brand]
        self._made = {brand: made for brand, made in self._made.items() if brand in brands}
        for brand in brands:
            day = policies.zone_calendar(brand).local(now).date()
            made = self._made.get(brand)
            if made is None or not made.holds(day, policies, now):
                self._made[brand] = _Made(day, policies, now, await self._of(brand, day, policies, now))
                self.show(now)

    def show(self, now: datetime | None = None) -> None:
        """Set the gauges for the half-hour of now. A brand of which too little is known has none."""
        now = now or datetime.now(UTC)
        rows = {
            brand: row for brand, made in self._made.items() if made.forecast and (row := _row_at(made.forecast, now))
        }
        self._arrivals.show(
            {
                (brand, bound): value * _PER_HOUR
                for brand, row in rows.items()
                for bound, value in (("expected", row.expected), ("low", row.low), ("high", row.high))
            }
        )
        self._staff.show({(brand,): row.agents_needed for brand, row in rows.items()})

    async def show_now(self) -> None:
        self.show()

    async def _of(self, brand: str, day: date, policies: Policies, now: datetime) -> DayForecast | None:
        try:
            return await forecast_of(self._database, policies, Asked(brand=brand, day=day), now)
        except CannotForecast as error:
            logger.info("no forecast for %s yet: %s", brand, error)
            return None


def _row_at(forecast: DayForecast, now: datetime) -> ForecastRow | None:
    return next((row for row in forecast.rows if row.start <= now < row.start + HALF_HOUR), None)
