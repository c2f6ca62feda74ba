"""`simulate`: weeks of made-up traffic through the real decisions, with every invariant checked."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from time import perf_counter
from typing import Any, Final

from services.sla_timer.commands.policies import add_files, files_of
from services.sla_timer.commands.report import table
from services.sla_timer.config import load_policies, load_policy_file
from services.sla_timer.domain.reports import Figures, duration_text
from services.sla_timer.pictures import CannotDraw
from services.sla_timer.simulation.figures import SimulationFigures, TargetFigures, figures_of, lines
from services.sla_timer.simulation.invariants import Broken
from services.sla_timer.simulation.picture import draw
from services.sla_timer.simulation.world import FIRST_DAY, TICKETS_PER_WEEK, Setting, simulate
from shared.calendars import load_calendars
from shared.yaml_files import ConfigError

_UNUSABLE: Final = 1
_BROKEN: Final = 3
_MOST_WEEKS: Final = 52


def register(commands: argparse._SubParsersAction[Any]) -> None:
    simulation = commands.add_parser(
        "simulate",
        help="weeks of made-up traffic in virtual time, every invariant checked",
        description="Weeks of made-up traffic, agents and customers drive the real decisions in virtual time; every "
        "step is checked. Prints a table; the same seed prints the same one. docs/simulation.md says how to read it.",
    )
    simulation.add_argument("--seed", type=int, default=1, metavar="N", help="default: 1")
    simulation.add_argument("--weeks", type=_weeks, default=4, metavar="N", help="default: 4")
    simulation.add_argument(
        "--from", dest="first", type=_day, default=FIRST_DAY, metavar="YYYY-MM-DD", help=f"default: {FIRST_DAY}"
    )
    simulation.add_argument(
        "--tickets-per-week",
        type=_positive,
        default=TICKETS_PER_WEEK,
        metavar="N",
        help=f"of a plain week; default: {TICKETS_PER_WEEK:g}",
    )
    simulation.add_argument(
        "--agents-factor",
        type=_positive,
        default=1.0,
        metavar="X",
        help="times the agents that a lead would plan: 0.8 is one in five fewer",
    )
    add_files(simulation)
    simulation.add_argument("--json", action="store_true", help="one JSON object, times in seconds")
    simulation.add_argument("--png", type=Path, metavar="FILE", help="draw the picture as well")
    simulation.set_defaults(run=_run)


def _day(value: str) -> date:
    try:
        return date.fromisoformat(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{value!r} is not a day like {FIRST_DAY}") from None


def _weeks(value: str) -> int:
    weeks = int(value)
    if not 1 <= weeks <= _MOST_WEEKS:
        raise argparse.ArgumentTypeError(f"{weeks} is not between 1 and {_MOST_WEEKS}")
    return weeks


def _positive(value: str) -> float:
    number = float(value)
    if not 0 < number < 1e6:
        raise argparse.ArgumentTypeError(f"{value} is not above 0 and below a million")
    return number


def _run(chosen: argparse.Namespace) -> int:
    files = files_of(chosen)
    try:
        load_policies(files)
        setting = Setting(
            file=load_policy_file(files),
            calendars=load_calendars(files.calendars),
            seed=chosen.seed,
            weeks=chosen.weeks,
            first=chosen.first,
            tickets_per_week=chosen.tickets_per_week,
            agents_factor=chosen.agents_factor,
        )
        begun = perf_counter()
        run = simulate(setting)
        figures = figures_of(run)
        took_seconds = perf_counter() - begun
        if chosen.png:
            draw(run, chosen.png)
    except (ConfigError, CannotDraw) as error:
        print(error, file=sys.stderr)
        return _UNUSABLE
    except Broken as error:
        print(f"an invariant does not hold (docs/simulation.md says what to do)\n{error}", file=sys.stderr)
        return _BROKEN
    speed = (
        f"{figures.virtual_seconds:,.0f} virtual seconds in {took_seconds:.1f} s, "
        f"{figures.virtual_seconds / took_seconds:,.0f} a second"
    )
    if chosen.json:
        print(figures.model_dump_json(indent=2))
        print(speed, file=sys.stderr)  # it differs from run to run, and the figures do not
    else:
        print("\n".join([*_text(figures), speed]))
        if chosen.png:
            print(chosen.png)
    return 0


# --- for people ------------------------------------------------------------------------------------------------------

_HEADINGS: Final = (
    ("", ("",)),
    ("promises", ("in time", "late", "broken, open", "not due", "cancelled")),
    ("", ("within",)),
    ("business time", ("p50", "p90", "p99")),
    ("wall time", ("p50", "p90", "p99")),
    ("in peak", ("judged", "p90", "within")),
    ("out of peak", ("judged", "p90", "within")),
)


def _text(figures: SimulationFigures) -> Iterator[str]:
    command, period, *rest = lines(figures)
    yield command
    yield period
    yield ""
    yield from table(_HEADINGS, [_cells(row) for row in figures.targets])
    yield from rest


def _cells(row: TargetFigures) -> list[str]:
    counts = (row.met_in_time, row.met_late, row.breached_and_open, row.not_yet_due, row.cancelled)
    return [
        row.target.value.replace("_", " "),
        *(f"{count:,}" for count in counts),
        _share(row.overall),
        *map(_duration, row.overall.business_seconds.model_dump().values()),
        *map(_duration, row.overall.wall_seconds.model_dump().values()),
        *_short(row.in_peak),
        *_short(row.out_of_peak),
    ]


def _short(figures: Figures) -> tuple[str, str, str]:
    return f"{figures.judged:,}", _duration(figures.business_seconds.p90), _share(figures)


def _share(figures: Figures) -> str:
    return "-" if figures.share_within_target is None else f"{figures.share_within_target:.1%}"


def _duration(seconds: int | None) -> str:
    return "-" if seconds is None else duration_text(seconds)
