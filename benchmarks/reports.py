"""How long a report takes over a million promises, on the embedded PostgreSQL of this machine.

The promises are made in the database, by a seed: thirteen weeks with rush hours at lunch and in the evening, in which
answers take longer; six brands, ten channels' worth of targets, one promise in fifty cancelled, some still open. The
baseline is the bare read of the same rows (`count(*)` over the columns that a report needs): what no report can beat.
`BENCH_CLOCKS` says how many promises, `BENCH_PICTURE` a file to which the heat map of one brand's chat is drawn.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import asyncpg

from benchmarks.figures import Figure, note, report
from deploy.embedded.postgres import EmbeddedPostgres
from deploy.migrations import upgrade_all
from services.sla_timer.domain.reports import By, Question
from services.sla_timer.heat_map import draw
from services.sla_timer.reports import read
from services.sla_timer.settings import Settings
from shared.database import Database
from shared.events import Target
from shared.taxonomy import Channel, Priority

CLOCKS: Final = int(os.environ.get("BENCH_CLOCKS", "1000000"))
PICTURE: Final = os.environ.get("BENCH_PICTURE", "")

ZONE: Final = "Asia/Shanghai"
SINCE: Final = datetime(2026, 8, 23, 16, tzinfo=UTC)  # a Monday 00:00 in Shanghai
WEEKS: Final = 13
UNTIL: Final = SINCE + timedelta(weeks=WEEKS)
_STATEMENT_MOST: Final = timedelta(minutes=10)

# Arrivals by hour of a working day, and how much of them comes on each weekday.
_DAY: Final = (2, 1, 1, 1, 1, 2, 4, 8, 14, 20, 24, 32, 40, 30, 22, 20, 20, 22, 26, 38, 46, 40, 22, 8)
_WEEK: Final = (1.15, 1.0, 0.95, 1.0, 1.1, 0.8, 0.7)

_TABLE: Final = (
    "CREATE TEMP TABLE tickets (number int, ticket_id uuid, started_at timestamptz, load float8, brand text, "
    "channel text, queue text, priority text, slower int)"
)
_TICKETS: Final = """
INSERT INTO tickets
SELECT number, gen_random_uuid() AS ticket_id,
  $1::timestamptz + week * interval '7 days' + hour * interval '1 hour' + random() * interval '1 hour' AS started_at,
  ($2::float8[])[hour + 1] AS load, brand, channel, queue, priority,
  CASE WHEN channel IN ('app_chat', 'wechat', 'phone') THEN 1 ELSE 12 END AS slower
FROM (
  SELECT number, width_bucket(random(), $3::float8[]) AS hour, floor(random() * $4)::int AS week,
    (ARRAY['upay', 'upay', 'upay', 'upay_wallet', 'upay_wallet', 'u_wallet', 'u_wallet_app', 'topay', 'tp_wallet'])
      [1 + floor(random() * 9)::int] AS brand,
    (ARRAY['app_chat', 'app_chat', 'app_chat', 'wechat', 'phone', 'email', 'web_form'])
      [1 + floor(random() * 7)::int] AS channel,
    (ARRAY['payments', 'payments', 'payments', 'access', 'access', 'refunds', 'security', 'general', 'technical'])
      [1 + floor(random() * 9)::int] AS queue,
    (ARRAY['P1', 'P2', 'P2', 'P3', 'P3', 'P3', 'P4'])[1 + floor(random() * 7)::int] AS priority
  FROM generate_series(1, $5::int) AS number
) AS drawn
"""
# A response takes a log-normal time whose middle grows with the load of the hour and falls with the urgency.
_CLOCKS: Final = """
INSERT INTO sla_timer.clocks (clock_id, ticket_id, target, generation, state, brand, channel, queue, category, priority,
  agent_group, policy, calendar, policy_version, calendar_version, target_seconds, marks, started_at, due_at, ended_at,
  breached_at, used_seconds, course, alarms, told)
SELECT gen_random_uuid(), ticket_id, target, 1,
  CASE WHEN lot < 0.02 THEN 'cancelled' WHEN is_open THEN 'running' ELSE 'met' END,
  brand, channel, queue, 'top_up', priority,
  CASE WHEN lot >= 0.02 AND NOT is_open THEN (ARRAY['day', 'evening', 'second line'])[1 + number % 3] END,
  'default/' || priority, 'always', 'v1', 'v1', target_seconds, '[]', started_at,
  started_at + target_seconds * interval '1 second',
  CASE WHEN NOT is_open THEN started_at + wall * interval '1 second' END,
  CASE WHEN wall > target_seconds THEN started_at + target_seconds * interval '1 second' END,
  CASE WHEN lot >= 0.02 AND NOT is_open THEN floor(wall)::int END,
  '[{"at": "2026-08-24T00:00:00+00:00", "kind": "started"}, {"at": "2026-08-24T00:00:00+00:00", "kind": "met"}]',
  '[]', 2
FROM (
  SELECT *, lot >= 0.02 AND (lot < 0.025 OR started_at + wall * interval '1 second' > $1) AS is_open
  FROM (
    SELECT tickets.*, targets.target, random() AS lot,
      slower * long * (ARRAY[120, 300, 600, 1200])[right(priority, 1)::int] AS target_seconds,
      slower * long * (ARRAY[50, 110, 210, 380])[right(priority, 1)::int] * (0.55 + 3.2 * load * load)
        * exp(0.55 * sqrt(-2 * ln(1 - random())) * cos(2 * pi() * random())) AS wall
    FROM tickets
    CROSS JOIN (VALUES ('first_response', 1), ('next_response', 2), ('resolution', 60)) AS targets (target, long)
  ) AS timed
) AS ended
"""
# Lunch and evening of one queue, as a lead has configured them, and three evenings of a campaign.
_PEAKS: Final = """
INSERT INTO sla_timer.peaks (brand, queue, channel, began_at, ended_at, cause, expected_arrivals, seen_arrivals)
SELECT brand, queue, '*', began_at, began_at + length, cause, 20, 50 FROM (
  SELECT brand, queue, $1::timestamptz + day * interval '1 day' + span.start AS began_at, span.length,
    'configured' AS cause
  FROM generate_series(0, $2::int * 7 - 1) AS day,
    (VALUES (interval '11 hours 30 minutes', interval '2 hours'), (interval '19 hours', interval '150 minutes'))
      AS span (start, length),
    (VALUES ('upay', 'payments'), ('upay', 'access'), ('upay', 'refunds'), ('upay_wallet', 'payments'))
      AS place (brand, queue)
  UNION ALL
  SELECT 'upay', queue, $1::timestamptz + day * interval '1 day' + interval '15 hours', interval '90 minutes',
    'arrivals'
  FROM (VALUES (4), (11), (46)) AS campaign (day), (VALUES ('payments'), ('general'), ('access')) AS place (queue)
) AS all_peaks
"""
_BARE: Final = (
    "SELECT count(started_at) + count(ended_at) + count(used_seconds) + count(state) + count(target) + count(queue) "
    "FROM sla_timer.clocks WHERE started_at >= $1 AND started_at < $2"
)


async def fill(url: str, clocks: int, *, seed: float = 0.4) -> None:
    """`clocks` promises (three a ticket) and their peaks, into a migrated database."""
    weights = [_DAY[hour] * share for share in _WEEK for hour in range(24)]
    busiest, total = max(weights), sum(weights)
    bounds = [sum(weights[:index]) / total for index in range(1, len(weights))]
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(f"SELECT setseed({seed})")
        await connection.execute("SET max_parallel_workers_per_gather = 0")
        loads = [weight / busiest for weight in weights]
        await connection.execute(_TABLE)
        await connection.execute(_TICKETS, SINCE, loads, bounds, WEEKS, -(-clocks // 3))
        await connection.execute(_CLOCKS, UNTIL)
        await connection.execute(_PEAKS, SINCE, WEEKS)
        await connection.execute("VACUUM ANALYZE sla_timer.clocks, sla_timer.peaks")
    finally:
        await connection.close()


async def run(directory: Path) -> None:
    with EmbeddedPostgres(directory / "postgres") as server:
        url = server.create_database("bench_reports")
        await upgrade_all(url)
        await fill(url, CLOCKS)
        note(f"{CLOCKS:,} promises in {WEEKS} weeks")
        connection = await asyncpg.connect(url)
        bare = min([await _timed(connection.fetchval(_BARE, SINCE, UNTIL)) for _ in range(3)])
        await connection.close()
        database = Database(Settings(database_url=url, database_statement_timeout_seconds=600), service="sla_timer")
        try:
            for by in By:
                asked = Question(SINCE, UNTIL, ZONE, by)
                seconds = await _timed(read(database, asked, now=UNTIL, statement_most=_STATEMENT_MOST))
                report(Figure("reports", f"all promises by {by}", seconds, "s", bare))
            if PICTURE:
                chat = Question(
                    SINCE, UNTIL, ZONE, By.HOUR, (Target.FIRST_RESPONSE,), "upay", None, Channel.APP_CHAT, Priority.P2
                )
                draw(await read(database, chat, now=UNTIL, statement_most=_STATEMENT_MOST), Path(PICTURE))
                note(f"picture: {PICTURE}")
        finally:
            await database.close()


async def _timed(work: Awaitable[object]) -> float:
    begun = time.perf_counter()
    await work
    return time.perf_counter() - begun


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="switchyard-bench-") as directory:
        asyncio.run(run(Path(directory)))
