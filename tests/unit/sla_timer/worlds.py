"""Small worlds to simulate: the policies as shipped, with peaks that a few tickets can make."""

from __future__ import annotations

from datetime import date, timedelta
from functools import cache
from typing import Any, Final

from services.sla_timer.config import load_policy_file
from services.sla_timer.domain.policies import PolicyFile
from services.sla_timer.settings import Settings
from services.sla_timer.simulation.world import Setting
from shared.calendars import Calendar, load_calendars

LUNAR_NEW_YEAR: Final = date(2026, 2, 9)  # a make-up day on the Saturday, then the holidays
SPRING: Final = date(2026, 3, 2)  # the clocks of New York are put forward on the Sunday
AUTUMN: Final = date(2026, 10, 26)  # and back on this one


@cache
def _shipped() -> tuple[PolicyFile, dict[str, Calendar]]:
    files = Settings().policy_files
    file = load_policy_file(files)
    peaks = file.peaks.model_copy(update={"least_arrivals": 3, "window_minutes": 60})
    return file.model_copy(update={"peaks": peaks}), dict(load_calendars(files.calendars))


def small_world(**changes: Any) -> Setting:
    """One week of some dozens of tickets; every costly check is made every third time."""
    file, calendars = _shipped()
    given: dict[str, Any] = {
        "weeks": 1,
        "first": AUTUMN,
        "tickets_per_week": 30.0,
        "agents_factor": 0.5,  # or every promise would be kept
        "look_every": timedelta(minutes=15),
        "sample_every": 3,
    }
    return Setting(file, calendars, **given | changes)
