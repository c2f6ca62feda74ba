"""`forecast`: arrivals and agents of a day to come, by half-hour, and how far such forecasts were off."""

from __future__ import annotations

import argparse
import asyncio
import csv
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any, Final

from sqlalchemy.exc import DBAPIError

from services.sla_timer.config import load_policies
from services.sla_timer.domain.arrivals import DayKind
from services.sla_timer.domain.policies import Policies
from services.sla_timer.forecasts import (
    HELD_OUT_DAYS,
    MOST_HELD_OUT_DAYS,
    Asked,
    CannotForecast,
    DayForecast,
    ForecastRow,
    forecast_of,
)
from services.sla_timer.settings import Settings
from shared.database import Database
from shared.taxonomy import Channel, Queue
from shared.yaml_files import ConfigError


def register(commands: argparse._SubParsersAction[Any]) -> None:
    forecast = commands.add_parser(
        "forecast",
        help="arrivals and agents of a day to come, by half-hour",
        description="What is expected in each half-hour of a day, the agents it needs, and how far forecasts of days "
        "that are over were off. Reads sla_timer.arrivals of DATABASE_URL.",
    )
    forecast.add_argument("--brand", help="default: all brands together, on the calendar of '*'")
    forecast.add_argument("--queue", choices=[queue.value for queue in Queue], metavar="QUEUE", help="default: all")
    forecast.add_argument(
        "--channel", choices=[channel.value for channel in Channel], metavar="CHANNEL", help="default: all"
    )
    forecast.add_argument("--day", type=_day, metavar="YYYY-MM-DD", help="default: tomorrow, in the brand's zone")
    forecast.add_argument(
        "--held-out",
        type=_held_out,
        default=HELD_OUT_DAYS,
        metavar="DAYS",
        help=f"measure the error on so many past days, up to {MOST_HELD_OUT_DAYS} (default: {HELD_OUT_DAYS})",
    )
    output = forecast.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="one JSON object")
    output.add_argument("--csv", action="store_true", help="the half-hours only")
    forecast.set_defaults(run=_run)


def _day(value: str) -> date:
    try:
        return date.fromisoformat(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{value!r} is not a day like 2026-11-23") from None


def _held_out(value: str) -> int:
    days = int(value)
    if not 0 <= days <= MOST_HELD_OUT_DAYS:
        raise argparse.ArgumentTypeError(f"{days} is not between 0 and {MOST_HELD_OUT_DAYS}")
    return days


def _run(chosen: argparse.Namespace) -> int:
    asked = Asked(
        brand=chosen.brand,
        queue=Queue(chosen.queue) if chosen.queue else None,
        channel=Channel(chosen.channel) if chosen.channel else None,
        day=chosen.day,
        held_out_days=chosen.held_out,
    )
    settings = Settings()
    try:
        found = asyncio.run(_forecast(settings, _policies(settings), asked, datetime.now(UTC)))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    except CannotForecast as error:
        print(f"{asked}: {error}", file=sys.stderr)
        return 1
    except (OSError, DBAPIError) as error:
        print(f"the database of DATABASE_URL cannot be read: {error}", file=sys.stderr)
        return 1
    if chosen.json:
        print(found.model_dump_json(indent=2))
    elif chosen.csv:
        writer = csv.DictWriter(sys.stdout, tuple(ForecastRow.model_fields), lineterminator="\n")
        writer.writeheader()
        writer.writerows(row.model_dump(mode="json") for row in found.rows)
    else:
        print("\n".join(_lines(found)))
    return 0


def _policies(settings: Settings) -> Policies:
    return load_policies(settings.policy_files)


async def _forecast(settings: Settings, policies: Policies, asked: Asked, now: datetime) -> DayForecast:
    database = Database(settings, service="sla_timer")
    try:
        return await forecast_of(database, policies, asked, now)
    finally:
        await database.close()


_KINDS: Final = {DayKind.PLAIN: "a plain day", DayKind.HOLIDAY: "a holiday", DayKind.MAKE_UP: "a make-up day"}


def _lines(found: DayForecast) -> Iterator[str]:
    """For people."""
    asked = Asked(found.brand, found.queue, found.channel)
    yield f"{asked}: {found.day:%a} {found.day}, {_KINDS[found.kind]}; half-hours in {found.zone}"
    clock_changes = len({row.start.utcoffset() for row in found.rows}) > 1
    width = len("00:00 +0000") if clock_changes else len("00:00")
    yield f"{'':{width}}  {'expected':>8}  {'8 of 10':>9}  {'agents':>6}  {'scheduled':>9}"
    for row in found.rows:
        at = f"{row.start:%H:%M %z}" if clock_changes else f"{row.start:%H:%M}"
        between = f"{row.low}-{row.high}"
        yield f"{at}  {row.expected:>8.1f}  {between:>9}  {row.agents_needed:>6}  {row.agents_scheduled:>9}"
    yield f"{'all':{width}}  {found.expected:>8.1f}"
    yield f"learned from {found.known_days} days, {found.known_from} to {found.known_until}"
    if found.accuracy is None:
        yield "how far off it may be is not measured: no days could be held out"
        return
    held = found.accuracy
    yield f"{held.held_out_days} days held out, off by (beside: as a week before)"
    yield f"  by half-hour  {held.half_hour_error:>6.1%}  ({held.naive_half_hour_error:.1%})"
    yield f"  by day        {held.day_error:>6.1%}  ({held.naive_day_error:.1%})"
    yield f"  bias          {held.bias:>+6.1%}"
    yield f"  {held.within_low_and_high:.0%} of their half-hours came within their 8 of 10"
