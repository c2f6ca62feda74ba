"""`report`: response times and the backlog, as a table, JSON, CSV, or the heat map of a week."""

from __future__ import annotations

import argparse
import asyncio
import csv
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, TextIO

from pydantic import ValidationError
from sqlalchemy.exc import DBAPIError

from services.sla_timer.config import load_policies
from services.sla_timer.domain.reports import (
    Backlog,
    By,
    Figures,
    Question,
    Report,
    ReportQuery,
    Row,
    WrongQuestion,
    duration_text,
)
from services.sla_timer.heat_map import Time, draw, duration_short
from services.sla_timer.pictures import CannotDraw
from services.sla_timer.reports import TooLarge, question_of, read
from services.sla_timer.settings import Settings
from shared.database import Database
from shared.events import Target
from shared.taxonomy import Channel, Priority, Queue
from shared.yaml_files import ConfigError

_UNUSABLE: Final = 1
_WRONG_QUESTION: Final = 2
# A person waits for it, and nobody else does: the limit of the running service would be too short for years of clocks.
_STATEMENT_MOST: Final = timedelta(minutes=10)


def register(commands: argparse._SubParsersAction[Any]) -> None:
    report = commands.add_parser(
        "report",
        help="response times by hour of week, queue, channel, ..., and the backlog",
        description="How promises were kept: exact percentiles of business and wall time, the share within target, in "
        "and out of peak; by hour also the backlog. Reads the database of DATABASE_URL. docs/reports.md says what is "
        "counted how.",
    )
    time_help = "date (its midnight) or ISO time; without an offset, in the zone"
    report.add_argument("--from", required=True, dest="since", metavar="TIME", help=f"{time_help}; included")
    report.add_argument("--to", required=True, dest="until", metavar="TIME", help="the same; not included")
    report.add_argument("--by", choices=list(map(str, By)), default=None, help="hour (of the week) unless said")
    report.add_argument("--target", choices=list(map(str, Target)), help="default: all; first_response in the picture")
    report.add_argument("--brand", metavar="BRAND")
    report.add_argument("--queue", choices=list(map(str, Queue)), metavar="QUEUE")
    report.add_argument("--channel", choices=list(map(str, Channel)), metavar="CHANNEL")
    report.add_argument("--priority", choices=list(map(str, Priority)))
    report.add_argument("--zone", metavar="ZONE", help="IANA zone; default: that of the calendar of the brand")
    report.add_argument("--time", choices=list(map(str, Time)), help="of the picture; default: business")
    output = report.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="one JSON object, times in seconds")
    output.add_argument("--csv", action="store_true", help="one row per target and group, times in seconds")
    output.add_argument("--png", type=Path, metavar="FILE", help="draw the heat map of p90 by hour of the week")
    report.set_defaults(run=_run)


def _run(chosen: argparse.Namespace) -> int:
    try:
        if chosen.time and not chosen.png:
            raise WrongQuestion("--time", "is for the picture; tables show both")
        if chosen.png and chosen.by not in (None, By.HOUR):
            raise WrongQuestion("--by", "the picture shows the hours of the week: leave it out")
        settings = Settings(database_statement_timeout_seconds=_STATEMENT_MOST.total_seconds())
        question = _question(chosen, settings)
        found = asyncio.run(_read(settings, question))
        if chosen.png:
            draw(found, chosen.png, Time(chosen.time or Time.BUSINESS))
            print(chosen.png)
        elif chosen.json:
            print(found.model_dump_json(indent=2))
        elif chosen.csv:
            write_csv(found, sys.stdout)
        else:
            print("\n".join(lines(found)))
    except WrongQuestion as error:
        print(f"report: {error}", file=sys.stderr)
        return _WRONG_QUESTION
    except (ConfigError, CannotDraw, TooLarge) as error:
        print(error, file=sys.stderr)
        return _UNUSABLE
    except (OSError, DBAPIError) as error:
        print(f"the database of DATABASE_URL cannot be read: {error}", file=sys.stderr)
        return _UNUSABLE
    return 0


def _question(chosen: argparse.Namespace, settings: Settings) -> Question:
    """Raises WrongQuestion and ConfigError."""
    wanted = {name: getattr(chosen, name) for name in ReportQuery.model_fields}
    wanted["by"] = chosen.by or By.HOUR
    if chosen.png:
        wanted["target"] = chosen.target or Target.FIRST_RESPONSE
    try:
        asked = ReportQuery.model_validate(wanted)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise WrongQuestion(f"--{first['loc'][0]}", first["msg"]) from None
    try:
        return question_of(asked, load_policies(settings.policy_files))
    except WrongQuestion as error:
        raise WrongQuestion(f"--{error.field}", error.detail) from None


async def _read(settings: Settings, question: Question) -> Report:
    database = Database(settings, service="sla_timer")
    try:
        return await read(database, question, now=datetime.now(UTC), statement_most=_STATEMENT_MOST)
    finally:
        await database.close()


# --- for people ------------------------------------------------------------------------------------------------------

_NOTHING: Final = "-"
_PROMISE_HEADINGS: Final = (
    ("", ("",)),
    ("", ("judged", "answered", "within")),
    ("business time", ("p50", "p90", "p99")),
    ("wall time", ("p50", "p90", "p99")),
    ("in peak", ("judged", "p90", "within")),
    ("out of peak", ("judged", "p90", "within")),
)
_BACKLOG_HEADINGS: Final = (
    ("", ("",)),
    ("", ("hours",)),
    ("open tickets", ("typical", "worst")),
    ("age p50", ("typical",)),
    ("age p90", ("typical", "worst")),
    ("oldest", ("worst",)),
)
Headings = Sequence[tuple[str, Sequence[str]]]


def lines(report: Report) -> Iterator[str]:
    """The report as text: a table for each target, and by hour one for the backlog."""
    filters = [value for value in report.filters.model_dump(mode="json").values() if value]
    yield (
        f"Promises that started from {report.since:%Y-%m-%d %H:%M} to {report.until:%Y-%m-%d %H:%M} ({report.zone}), "
        f"{', '.join(filters) or 'all of them'}; by {_BY_TEXT[report.by]}"
    )
    yield "judged: answered, or broken and still open; p90 in and out of peak: business time; more in docs/reports.md"
    for total in report.totals:
        rows = [row for row in report.rows if row.target is total.target]
        yield ""
        yield from _promise_lines(total, rows)
    if report.backlog is not None:
        yield ""
        yield from _backlog_lines(report.backlog)


_BY_TEXT: Final = {
    By.HOUR: "hour of the week",
    By.QUEUE: "queue",
    By.CHANNEL: "channel",
    By.PRIORITY: "priority",
    By.BRAND: "brand",
    By.AGENT_GROUP: "group of the agent who answered",
    By.PEAK: "peak",
}


def _promise_lines(total: Row, rows: Sequence[Row]) -> Iterator[str]:
    name = total.target.value.replace("_", " ")
    if not (total.overall.judged or total.not_yet_due or total.cancelled):
        yield f"{name}: no promises in this period"
        return
    yield f"{name}{_target_text(total)}{_left_out(total)}"
    cells = [_promise_cells(row.group or "not known", row) for row in rows]
    yield from table(_PROMISE_HEADINGS, [*cells, _promise_cells("all", total)])


def _target_text(row: Row) -> str:
    least, most = row.target_seconds.least, row.target_seconds.most
    if least is None or most is None:
        return ""
    return f", target {duration_short(least)}" + ("" if least == most else f" to {duration_short(most)}")


def _left_out(row: Row) -> str:
    parts = [f"{row.not_yet_due:,} not yet due" if row.not_yet_due else ""]
    if row.cancelled:
        breached = f", {row.cancelled_after_breach:,} of them after the breach" if row.cancelled_after_breach else ""
        parts.append(f"{row.cancelled:,} cancelled{breached}")
    text = "; ".join(part for part in parts if part)
    return f" (not judged: {text})" if text else ""


def _promise_cells(label: str, row: Row) -> list[str]:
    return [
        label,
        _count(row.overall.judged or None),
        _count(row.overall.answered or None),
        _share(row.overall),
        *map(_duration, row.overall.business_seconds.model_dump().values()),
        *map(_duration, row.overall.wall_seconds.model_dump().values()),
        *_short(row.in_peak),
        *_short(row.out_of_peak),
    ]


def _short(figures: Figures) -> tuple[str, str, str]:
    return _count(figures.judged or None), _duration(figures.business_seconds.p90), _share(figures)


def _backlog_lines(backlog: Backlog) -> Iterator[str]:
    yield (
        "backlog when an hour begins, wall time (typical: the median of the same hour of all weeks; worst: the most of "
        "them; every single value is exact)"
    )
    if not backlog.hours:
        yield "no full hour has begun in this period"
        return
    yield from table(
        _BACKLOG_HEADINGS,
        [
            [
                row.group,
                _count(row.samples),
                _count(row.open_typical),
                _count(row.open_worst),
                _duration(row.age_p50_seconds_typical),
                _duration(row.age_p90_seconds_typical),
                _duration(row.age_p90_seconds_worst),
                _duration(row.age_oldest_seconds_worst),
            ]
            for row in backlog.hours_of_week
        ],
    )


def table(headings: Headings, rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Aligned text: the first column to the left, the others to the right; groups of columns apart, under their names.

    A group's last column takes what its name needs beyond its columns.
    """
    columns = [column for _, group in headings for column in group]
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    ends = []
    position = 0
    for name, group in headings:
        position += len(group)
        ends.append(position)
        spare = len(name) - sum(widths[position - len(group) : position]) - 2 * (len(group) - 1)
        widths[position - 1] += max(0, spare)
    starts = [0, *ends[:-1]]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        groups = ("  ".join(padded[start:end]) for start, end in zip(starts, ends, strict=True))
        return "   ".join(groups).rstrip()

    names = (
        name.center(sum(widths[start:end]) + 2 * (end - start - 1))
        for (name, _), start, end in zip(headings, starts, ends, strict=True)
    )
    yield "   ".join(names).rstrip()
    yield line(columns)
    yield from (line(row) for row in rows)


def _count(value: int | None) -> str:
    return _NOTHING if value is None else f"{value:,}"


def _share(figures: Figures) -> str:
    return _NOTHING if figures.share_within_target is None else f"{figures.share_within_target:.1%}"


def _duration(seconds: int | None) -> str:
    return _NOTHING if seconds is None else duration_text(seconds)


# --- for programs ----------------------------------------------------------------------------------------------------

_FIGURES: Final = ("overall", "in_peak", "out_of_peak")


def write_csv(report: Report, file: TextIO) -> None:
    """One header. Rows of section `promises`, of `all` (the totals), and by hour of `hour_of_day` and `backlog` (each
    hour of the period); what a section does not have stays empty.
    """
    promises = [
        *(("promises", row) for row in report.rows),
        *(("all", row) for row in report.totals),
        *(("hour_of_day", row) for row in report.hours_of_day),
    ]
    backlog = report.backlog.hours if report.backlog else ()
    rows = [{"section": section, **_flat(row)} for section, row in promises]
    rows += [{"section": "backlog", **hour.model_dump(mode="json")} for hour in backlog]
    writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def _flat(row: Row) -> dict[str, Any]:
    flat: dict[str, Any] = {"target": row.target.value, "group": row.group, "hour_of_week": row.hour_of_week}
    for name in _FIGURES:
        figures: Figures = getattr(row, name)
        prefix = "" if name == "overall" else f"{name}_"
        flat[f"{prefix}judged"] = figures.judged
        flat[f"{prefix}answered"] = figures.answered
        flat[f"{prefix}within_target"] = figures.within_target
        flat[f"{prefix}share_within_target"] = figures.share_within_target
        for time in ("business", "wall"):
            for share, seconds in getattr(figures, f"{time}_seconds").model_dump().items():
                flat[f"{prefix}{time}_{share}_seconds"] = seconds
    return flat | {
        "target_least_seconds": row.target_seconds.least,
        "target_most_seconds": row.target_seconds.most,
        "not_yet_due": row.not_yet_due,
        "cancelled": row.cancelled,
        "cancelled_after_breach": row.cancelled_after_breach,
    }
