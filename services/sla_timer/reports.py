"""Reads a report out of the tables of schema `sla_timer`; changes nothing. What is counted how: `domain/reports.py`."""

from __future__ import annotations

import asyncio
import sys
from array import array
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Text, TextClause, bindparam, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from services.sla_timer.domain.policies import ANY, Policies
from services.sla_timer.domain.reports import (
    HOURS_OF_DAY,
    Backlog,
    By,
    Figures,
    Percentiles,
    Question,
    Report,
    ReportQuery,
    Row,
    TargetRange,
    WrongQuestion,
    assemble,
    by_hour_of_week,
    full_hours,
    hour_label,
    sweep,
)
from shared.database import Database
from shared.events import Target

_SORT_MEMORY: Final = "64MB"


class TooLarge(Exception):
    """The database has worked on the report for as long as it may."""

    def __init__(self, most: timedelta) -> None:
        super().__init__(
            f"the report took longer than {most.total_seconds():g} s; ask for a shorter period, a brand or a queue"
        )


# One view of the data for all statements of a report, and no way to write. First in its transaction.
_ONE_VIEW: Final = text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
_LIMITS: Final = text(
    "SELECT set_config('work_mem', :memory, true), "
    "set_config('statement_timeout', CAST(CAST(:milliseconds AS integer) AS text), true)"
)

_FILTERS: Final = (
    "(:brand IS NULL OR clocks.brand = :brand) AND (:queue IS NULL OR clocks.queue = :queue) "
    "AND (:channel IS NULL OR clocks.channel = :channel) AND (:priority IS NULL OR clocks.priority = :priority)"
)

# What promises are grouped by. By hour there are two keys, hour and weekday (Monday 0): the hours of the local time
# since 1970 are worked out once (OFFSET 0 keeps the planner from doing it for each key); that day was a Thursday.
_KEYS: Final = {
    By.QUEUE: "queue",
    By.CHANNEL: "channel",
    By.PRIORITY: "priority",
    By.BRAND: "brand",
    By.AGENT_GROUP: "agent_group",
    By.PEAK: "CASE WHEN in_peak THEN 'in_peak' ELSE 'out_of_peak' END",
}
_KEYED_BY_HOUR: Final = (
    "hourly AS (SELECT *, floor(date_part('epoch', timezone(:zone, started_at)) / 3600)::int AS hours "
    "FROM clocks OFFSET 0), "
    "keyed AS (SELECT *, hours % 24 AS first, (hours / 24 + 3) % 7 AS second FROM hourly)"
)


def _figures_sql(name: str, condition: str) -> str:
    """Columns `<name>_...` over the promises that meet `condition`. Percentiles pass over those not answered (NULL)."""
    return (
        f"count(*) FILTER (WHERE judged AND {condition}) AS {name}_judged, "
        f"count(*) FILTER (WHERE answered AND {condition}) AS {name}_answered, "
        f"count(*) FILTER (WHERE answered AND NOT breached AND {condition}) AS {name}_within, "
        f"percentile_disc(ARRAY[0.5, 0.9, 0.99]) WITHIN GROUP (ORDER BY business_seconds) "
        f"FILTER (WHERE {condition}) AS {name}_business, "
        f"percentile_disc(ARRAY[0.5, 0.9, 0.99]) WITHIN GROUP (ORDER BY wall_seconds) "
        f"FILTER (WHERE {condition}) AS {name}_wall"
    )


# Peaks are put together to one multirange per place: a promise finds its own by binary search, and peaks that overlap
# are no harm.
_PEAKS_ON: Final = (
    "peaks_on AS MATERIALIZED ("
    "SELECT brand, queue, channel, range_agg(tstzrange(began_at, ended_at)) AS spans FROM sla_timer.peaks "
    "WHERE began_at < :until AND (ended_at IS NULL OR ended_at > greatest(began_at, :since)) "
    "GROUP BY brand, queue, channel)"
)
_STARTED: Final = (
    "clocks AS ("  # noqa: S608 - texts of our own, as in all below
    "SELECT array_position(CAST(:targets AS text[]), clocks.target) AS place, clocks.target_seconds, "
    "clocks.queue, clocks.channel, clocks.priority, clocks.brand, clocks.agent_group, "
    "clocks.started_at, clocks.state = 'met' AS answered, "
    "clocks.breached_at IS NOT NULL AS breached, clocks.ended_at IS NULL AS is_open, "
    "clocks.state = 'met' OR (clocks.ended_at IS NULL AND clocks.breached_at IS NOT NULL) AS judged, "
    "CASE WHEN clocks.state = 'met' THEN clocks.used_seconds END AS business_seconds, "
    "CASE WHEN clocks.state = 'met' "
    "THEN floor(date_part('epoch', clocks.ended_at - clocks.started_at))::int END AS wall_seconds, "
    "coalesce(of_all.spans @> clocks.started_at, false) "
    "OR coalesce(of_channel.spans @> clocks.started_at, false) AS in_peak "
    "FROM sla_timer.clocks "
    "LEFT JOIN peaks_on of_all "
    "ON of_all.brand = clocks.brand AND of_all.queue = clocks.queue AND of_all.channel = '*' "
    "LEFT JOIN peaks_on of_channel "
    "ON of_channel.brand = clocks.brand AND of_channel.queue = clocks.queue AND of_channel.channel = clocks.channel "
    "WHERE clocks.started_at >= :since AND clocks.started_at < :until "
    f"AND clocks.target = ANY(CAST(:targets AS text[])) AND {_FILTERS})"
)


def _promises_sql(by: By) -> TextClause:
    """One row per group, per hour of the day (by hour), and per target."""
    if by is By.HOUR:
        keyed, second, last = _KEYED_BY_HOUR, "second", "second"
        sets = "(place, first, second), (place, first), (place)"
    else:
        keyed, second, last = f"keyed AS (SELECT *, {_KEYS[by]} AS first FROM clocks)", "NULL::int AS second", "first"  # noqa: S608
        sets = "(place, first), (place)"
    return _filtered(
        f"WITH {_PEAKS_ON}, {_STARTED}, {keyed} "  # noqa: S608
        f"SELECT (CAST(:targets AS text[]))[place] AS target, first, {second}, grouping(first) = 1 AS is_total, "
        f"grouping({last}) = 1 AS is_sum, "
        f"{_figures_sql('overall', 'true')}, {_figures_sql('inside', 'in_peak')}, "
        f"{_figures_sql('outside', 'NOT in_peak')}, "
        "min(target_seconds) FILTER (WHERE judged) AS target_least, "
        "max(target_seconds) FILTER (WHERE judged) AS target_most, "
        "count(*) FILTER (WHERE is_open AND NOT breached) AS not_yet_due, "
        "count(*) FILTER (WHERE NOT is_open AND NOT answered) AS cancelled, "
        "count(*) FILTER (WHERE NOT is_open AND NOT answered AND breached) AS cancelled_after_breach "
        f"FROM keyed GROUP BY GROUPING SETS ({sets})"
    )


def _filtered(statement: str) -> TextClause:
    names = [name for name in ("brand", "queue", "channel", "priority", "zone") if f":{name}" in statement]
    return text(statement).bindparams(*(bindparam(name, type_=Text()) for name in names))


_PROMISES: Final = {by: _promises_sql(by) for by in By}

# Whole columns as bytes, eight a number: no object per clock until it is looked at, so a million stay 8 MB each.
_OPEN_SPANS: Final = _filtered(
    "WITH spans AS ("  # noqa: S608
    "SELECT (extract(epoch FROM started_at) * 1000000)::bigint AS start, "
    "(extract(epoch FROM ended_at) * 1000000)::bigint AS until FROM sla_timer.clocks "
    "WHERE target = 'resolution' AND started_at < :until AND (ended_at IS NULL OR ended_at > :since) "
    f"AND {_FILTERS}) "
    "SELECT string_agg(int8send(start), ''::bytea ORDER BY start) AS starts, "
    "string_agg(int8send(start), ''::bytea ORDER BY until, start) FILTER (WHERE until IS NOT NULL) AS ended_starts, "
    "string_agg(int8send(until), ''::bytea ORDER BY until, start) FILTER (WHERE until IS NOT NULL) AS ends FROM spans"
)


def question_of(asked: ReportQuery, policies: Policies) -> Question:
    """The question; one that names no zone is asked in that in which the week of its brand counts (`peaks.calendars` of
    the policies, `*` without a brand). Raises WrongQuestion.
    """
    return asked.question(policies.zone_calendar(asked.brand or ANY).zone)


async def read(database: Database, question: Question, *, now: datetime, statement_most: timedelta) -> Report:
    """The answer. Each of its two statements may take `statement_most`: the database cancels a longer one.

    Raises TooLarge when it did, and WrongQuestion for a zone that the database does not know.
    """
    try:
        async with database.transaction() as connection:
            await connection.execute(_ONE_VIEW)
            await connection.execute(
                _LIMITS, {"memory": _SORT_MEMORY, "milliseconds": statement_most // timedelta(milliseconds=1)}
            )
            rows = await _promises(connection, question)
            spans = await _open_spans(connection, question) if question.by is By.HOUR else None
    except DBAPIError as error:
        match getattr(error.orig, "sqlstate", None):
            case "57014":  # query_canceled
                raise TooLarge(statement_most) from None
            case "22023":  # invalid_parameter_value
                raise WrongQuestion("zone", "is not known to the database") from None
            case _:
                raise
    report = assemble(
        question,
        totals=[_row(row, question.by) for row in rows if row.is_total],
        rows=[_row(row, question.by) for row in rows if not row.is_sum],
        hours_of_day=[_row(row, question.by) for row in rows if row.is_sum and not row.is_total],
        now=now,
    )
    if spans is None:
        return report
    # Not on the event loop: the same process fires deadlines.
    backlog = await asyncio.to_thread(_backlog, question, spans, now)
    return report.model_copy(update={"backlog": backlog})


async def _promises(connection: AsyncConnection, question: Question) -> list[Any]:
    parameters = _parameters(question) | {"targets": [target.value for target in question.targets]}
    if question.by is By.HOUR:
        parameters["zone"] = question.zone
    return list(await connection.execute(_PROMISES[question.by], parameters))


async def _open_spans(connection: AsyncConnection, question: Question) -> tuple[bytes, bytes, bytes]:
    row = (await connection.execute(_OPEN_SPANS, _parameters(question))).one()
    return (row.starts or b"", row.ended_starts or b"", row.ends or b"")


def _parameters(question: Question) -> dict[str, Any]:
    return {
        "since": question.since,
        "until": question.until,
        "brand": question.brand,
        "queue": question.queue,
        "channel": question.channel,
        "priority": question.priority,
    }


def _backlog(question: Question, spans: tuple[bytes, bytes, bytes], now: datetime) -> Backlog:
    starts, ended_starts, ends = map(_numbers, spans)
    hours = sweep(starts, ended_starts, ends, full_hours(question, now), question.zone)
    return Backlog(hours=hours, hours_of_week=by_hour_of_week(hours))


def _numbers(column: bytes) -> array[int]:
    numbers = array("q", column)
    if sys.byteorder == "little":
        numbers.byteswap()  # PostgreSQL sends the highest byte first
    return numbers


def _row(row: Any, by: By) -> Row:
    hour_of_day = row.first if by is By.HOUR else None
    hour_of_week = None if row.second is None else row.second * HOURS_OF_DAY + row.first
    if hour_of_week is not None:
        group = hour_label(hour_of_week)
    else:
        group = row.first if hour_of_day is None else f"{hour_of_day:02d}"
    return Row(
        target=Target(row.target),
        group=group,
        hour_of_week=hour_of_week,
        hour_of_day=hour_of_day,
        overall=_figures(row, "overall"),
        in_peak=_figures(row, "inside"),
        out_of_peak=_figures(row, "outside"),
        target_seconds=TargetRange(least=row.target_least, most=row.target_most),
        not_yet_due=row.not_yet_due,
        cancelled=row.cancelled,
        cancelled_after_breach=row.cancelled_after_breach,
    )


def _figures(row: Any, name: str) -> Figures:
    found = row._mapping
    judged, within = found[f"{name}_judged"], found[f"{name}_within"]
    return Figures(
        judged=judged,
        answered=found[f"{name}_answered"],
        within_target=within,
        share_within_target=within / judged if judged else None,
        business_seconds=_percentiles(found[f"{name}_business"]),
        wall_seconds=_percentiles(found[f"{name}_wall"]),
    )


def _percentiles(found: list[int | None] | None) -> Percentiles:
    p50, p90, p99 = found or (None, None, None)
    return Percentiles(p50=p50, p90=p90, p99=p99)
