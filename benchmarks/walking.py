"""The baseline for deadlines on a calendar: from day to day with the wall clock in hand, as one writes it at first.

Right where no period touches a change of the clock; the benchmark checks that both ways agree on what it measures.
"""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

from shared.calendars import Calendar


def walked_deadline(calendar: Calendar, zone: ZoneInfo, start: datetime, target_seconds: int) -> datetime:
    """The due time (UTC) of a target of business seconds."""
    left = timedelta(seconds=target_seconds)
    day = start.astimezone(zone).date() - timedelta(days=1)  # whose night shift may still be on
    while True:
        midnight = datetime.combine(day, time(), zone)
        for period in sorted(calendar.periods_of(day)):
            begin = max(start, (midnight + timedelta(seconds=period.start_seconds)).astimezone(UTC))
            end = (midnight + timedelta(seconds=period.end_seconds)).astimezone(UTC)
            if begin < end:
                if left <= end - begin:
                    return (begin + left).astimezone(UTC)
                left -= end - begin
        day += timedelta(days=1)
