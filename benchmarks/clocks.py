"""How late promises are told of when they break, how fast a surge of them is worked off, how fast due times are found.

Real PostgreSQL, and replicas of the service in processes of their own with all their tasks but the outbox's relay (no
broker is needed: what is told stays in the outbox and is counted there). Lateness is from the due time to the commit of
the event, by PostgreSQL's own time stamps; how long a commit takes to be acknowledged after its stamp is a figure of
its own. Every phase checks that each breach was told exactly once.

Baselines, in the same run: sweeps every 60 seconds and every 5 minutes over a copy of the same deadlines (they only
delete what is due: the least that a sweep can do), a loop that fires one deadline after the other, and a walk from day
to day over the calendar.

BENCH_OPEN=10000,100000,1000000   open clocks; the 5-minute sweep runs from a million on
BENCH_SURGE=50000                 deadlines that come due within one second
"""

from __future__ import annotations

import asyncio
import math
import multiprocessing
import os
import random
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import asyncpg
import psutil

from benchmarks.clock_rows import Copy, Outcome, Template, copy_tickets, make_template, outcome_of
from benchmarks.figures import Figure, note, report
from benchmarks.walking import walked_deadline
from deploy.embedded.postgres import EmbeddedPostgres
from deploy.migrations import upgrade_all
from services.sla_timer.app import build
from services.sla_timer.handlers import Handlers
from services.sla_timer.in_force import PoliciesInForce
from services.sla_timer.measures import Measures
from services.sla_timer.settings import Settings
from shared.calendars import Calendar, Period
from shared.database import Database
from shared.taxonomy import Priority

OPEN: Final = tuple(sorted(map(int, os.environ.get("BENCH_OPEN", "10000,100000,1000000").split(","))))
SURGE: Final = int(os.environ.get("BENCH_SURGE", "50000"))

_POLICIES: Final = """\
rules:
  default:
    calendar: always
    warnings: [0.8]
    targets:
      P1: {first_response: 1h, next_response: 1h, resolution: 30d}
      "*": {first_response: 20d, next_response: 20d, resolution: 40d}
own_promises: false
"""
_CALENDARS: Final = "calendars:\n  always: {zone: UTC, week: 24/7}\n"

_PER_SECOND: Final = 20  # deadlines that come due while idle
_SHORT_SECONDS: Final = 60
_LONG_SECONDS: Final = 300
_LONG_FROM: Final = 1_000_000
_COPIED_AT_ONCE: Final = 20_000
_WARM_UP: Final = 100
_ONE_BY_ONE: Final = 2_000
_DRAIN_TIMEOUT_SECONDS: Final = 300
_SHARES: Final = (("p50", 0.5), ("p99", 0.99), ("max", 1.0))


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that this share of all does not exceed."""
    return ordered[math.ceil(share * len(ordered)) - 1]


# --- the service in processes of its own -----------------------------------------------------------------------------


def settings_for(directory: Path, url: str) -> Settings:
    sla, calendars = directory / "sla.yaml", directory / "calendars.yaml"
    if not sla.exists():
        sla.write_text(_POLICIES, encoding="utf-8")
        calendars.write_text(_CALENDARS, encoding="utf-8")
    return Settings(database_url=url, sla_timer_policies_file=sla, sla_timer_calendars_file=calendars)


def run_replica(directory: Path, url: str, ready: Callable[[], None]) -> None:
    """The service as `services/sla_timer/app.py` wires it, without broker and HTTP. Until it is killed."""
    asyncio.run(_replica(settings_for(directory, url), ready))


async def _replica(settings: Settings, ready: Callable[[], None]) -> None:
    service = build(settings)
    async with asyncio.TaskGroup() as group:
        for name, task in service.tasks.items():
            if name != "outbox":
                group.create_task(_awaited(task))
        await service.database.ping()
        ready()


async def _awaited(task: Callable[[], Awaitable[None]]) -> None:
    await task()


@asynccontextmanager
async def replicas(directory: Path, url: str, number: int) -> AsyncIterator[None]:
    context = multiprocessing.get_context("spawn")
    events = [context.Event() for _ in range(number)]
    processes = [context.Process(target=run_replica, args=(directory, url, event.set)) for event in events]
    for process in processes:
        process.start()
    try:
        for event in events:
            if not await asyncio.to_thread(event.wait, 60):
                raise RuntimeError("a replica has not started within 60 seconds")
        yield
        if not all(process.is_alive() for process in processes):
            raise RuntimeError("a replica ended in the middle of the benchmark")
    finally:
        for process in processes:
            process.kill()
            process.join()


# --- sweeps ----------------------------------------------------------------------------------------------------------


class Sweep:
    """Wakes up at an interval and takes what is due from a copy of the deadlines."""

    def __init__(self, url: str, interval_seconds: int) -> None:
        self._url = url
        self.interval_seconds = interval_seconds
        self._table = f"sweep_{interval_seconds}"
        self.lateness_ms: list[float] = []

    async def run(self, begin: datetime, seconds: int) -> None:
        """At the end of every interval from `begin` on, for so long. The copy must be there (`copy`)."""
        connection = await asyncpg.connect(self._url)
        try:
            for wake in range(self.interval_seconds, seconds + 1, self.interval_seconds):
                await sleep_until(begin + timedelta(seconds=wake))
                rows = await connection.fetch(f"DELETE FROM {self._table} WHERE due_at <= now() RETURNING due_at")
                committed_at = datetime.now(UTC)
                self.lateness_ms += [(committed_at - row["due_at"]) / timedelta(milliseconds=1) for row in rows]
            self.lateness_ms.sort()
        finally:
            await connection.close()

    async def copy(self, connection: asyncpg.Connection) -> None:
        await connection.execute(
            f"DROP TABLE IF EXISTS {self._table}; "
            f"CREATE TABLE {self._table} AS SELECT id, due_at FROM sla_timer.deadlines WHERE kind = 'clocks'; "
            f"CREATE INDEX ON {self._table} (due_at)"
        )


async def sleep_until(at: datetime) -> None:
    await asyncio.sleep(max(0.0, (at - datetime.now(UTC)).total_seconds()))


# --- phases ----------------------------------------------------------------------------------------------------------


@dataclass
class Bench:
    """`urgent`: a ticket whose first response is due within the hour; `calm`: one that is due in weeks."""

    url: str
    connection: asyncpg.Connection
    urgent: Template
    calm: Template
    copying_seconds: float = 0.001
    """What one ticket took to copy, the last time many were."""

    async def open_up_to(self, clocks: int) -> None:
        """Have at least so many clocks open, due in the next weeks."""
        there = await self.connection.fetchval("SELECT count(*) FROM sla_timer.clocks WHERE ended_at IS NULL")
        wanted = max(0, clocks - there) // self.calm.clocks
        begun = time.perf_counter()
        chance = random.Random(clocks)
        for first in range(0, wanted, _COPIED_AT_ONCE):
            # Opened in the last ten days.
            due_times = [
                datetime.now(UTC) + timedelta(days=10, seconds=chance.uniform(0, 10 * 86_400))
                for _ in range(min(_COPIED_AT_ONCE, wanted - first))
            ]
            await copy_tickets(self.connection, self.calm, due_times)
        if wanted:
            self.copying_seconds = (time.perf_counter() - begun) / wanted
        await self.settle_down()
        note(
            f"{clocks} clocks are open ({wanted} tickets copied in {time.perf_counter() - begun:.0f} s); "
            f"load of the machine {os.getloadavg()[0]:.1f}"
        )

    async def settle_down(self) -> None:
        """What loading left to do is done before anything is measured."""
        await self.connection.execute("VACUUM ANALYZE")
        await self.connection.execute("CHECKPOINT")

    async def warm_up(self) -> None:
        """Firing has happened before, as in a service that has run for a while."""
        begin = datetime.now(UTC) + timedelta(seconds=1)
        made = await copy_tickets(
            self.connection, self.urgent, [begin + timedelta(milliseconds=20 * index) for index in range(_WARM_UP)]
        )
        await self.told(made, begin + timedelta(seconds=2))

    async def told(self, expected: Sequence[Copy], end: datetime) -> Outcome:
        """Wait for the end and until nothing is due, see that all was told exactly once, and empty the outbox."""
        await sleep_until(end)
        async with asyncio.timeout(_DRAIN_TIMEOUT_SECONDS):
            while await self.connection.fetchval(  # noqa: ASYNC110 - another process fires
                "SELECT EXISTS (SELECT FROM sla_timer.deadlines WHERE kind = 'clocks' AND due_at <= now())"
            ):
                await asyncio.sleep(0.2)
        outcome = await outcome_of(self.connection, expected)
        await self.connection.execute("TRUNCATE sla_timer.outbox")
        return outcome

    async def idle(self, seconds: int, sweeps: Sequence[Sweep]) -> Outcome:
        """A quiet, steady stream of deadlines."""
        begin = datetime.now(UTC) + timedelta(seconds=10)
        spacing = timedelta(seconds=1) / _PER_SECOND
        chance = random.Random(seconds)
        due_times = [begin + spacing * (index + chance.random()) for index in range(seconds * _PER_SECOND)]
        made = await copy_tickets(self.connection, self.urgent, due_times)
        for sweep in sweeps:
            await sweep.copy(self.connection)
        await self.connection.execute("CHECKPOINT")
        _must_lie_ahead(begin)
        await asyncio.gather(*(sweep.run(begin, seconds) for sweep in sweeps))
        return await self.told(made, begin + timedelta(seconds=seconds))

    async def surge(self) -> tuple[Outcome, float]:
        """All within one second. Returns the rate at which they were worked off, too."""
        begin = datetime.now(UTC) + timedelta(seconds=15 + 2 * SURGE * self.copying_seconds)
        due_times = [begin + timedelta(seconds=index / SURGE) for index in range(SURGE)]
        made = [
            copy
            for first in range(0, SURGE, _COPIED_AT_ONCE)
            for copy in await copy_tickets(self.connection, self.urgent, due_times[first : first + _COPIED_AT_ONCE])
        ]
        await self.connection.execute("CHECKPOINT")
        _must_lie_ahead(begin)
        outcome = await self.told(made, begin + timedelta(seconds=1))
        return outcome, SURGE / (outcome.last_at - begin).total_seconds()

    async def one_by_one(self) -> float:
        """Deadlines per second of a loop that fires one after the other, each in a transaction: a plain job queue. No
        replica may run.
        """
        number = min(SURGE, _ONE_BY_ONE)
        made = await copy_tickets(self.connection, self.urgent, [datetime.now(UTC)] * number)
        begun = time.perf_counter()
        while await self._fire_one():
            pass
        seconds = time.perf_counter() - begun
        await outcome_of(self.connection, made)
        return number / seconds

    async def _fire_one(self) -> bool:
        run = self.connection
        async with run.transaction():
            ticket_id = await run.fetchval(
                "SELECT subject FROM sla_timer.deadlines WHERE kind = 'clocks' AND due_at <= now() "
                "ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED"
            )
            if ticket_id is None:
                return False
            await run.fetchrow("SELECT * FROM sla_timer.tickets WHERE ticket_id = $1 FOR UPDATE", ticket_id)
            first, second = await run.fetch(
                "SELECT * FROM sla_timer.clocks WHERE ticket_id = $1 AND ended_at IS NULL ORDER BY due_at", ticket_id
            )
            await run.execute(
                "UPDATE sla_timer.clocks SET breached_at = due_at, told = told + 1 WHERE clock_id = $1",
                first["clock_id"],
            )
            await run.execute(
                "INSERT INTO sla_timer.outbox (topic, type, body, traceparent, stored_at) "
                "VALUES ('sla.events', 'switchyard.sla.event.v2', convert_to(jsonb_build_object('clock_id', $1::uuid, "
                "'ticket_id', $2::uuid, 'kind', 'breached', 'brand', $3::text, 'channel', $4::text, "
                "'policy', $5::text, 'at', $6::timestamptz)::text, 'UTF8'), '', now())",
                first["clock_id"],
                ticket_id,
                first["brand"],
                first["channel"],
                first["policy"],
                first["due_at"],
            )
            await run.execute(
                "UPDATE sla_timer.deadlines SET due_at = $2, planned_at = $2 WHERE id = $1", ticket_id, second["due_at"]
            )
            await run.execute(
                "UPDATE sla_timer.tickets SET alarm_at = $2, changed_at = now() WHERE ticket_id = $1",
                ticket_id,
                second["due_at"],
            )
        return True

    async def acknowledged_ms(self) -> list[float]:
        """How long after its time stamp a commit is acknowledged, i.e. on disk; sorted."""
        await self.connection.execute("CREATE TABLE committed (at timestamptz)")
        found = []
        for _ in range(300):
            async with self.connection.transaction():
                await self.connection.execute("INSERT INTO committed VALUES (now())")
                transaction = await self.connection.fetchval("SELECT pg_current_xact_id()::xid")
            acknowledged_at = datetime.now(UTC)
            stamped_at = await self.connection.fetchval("SELECT pg_xact_commit_timestamp($1)", transaction)
            found.append((acknowledged_at - stamped_at) / timedelta(milliseconds=1))
        return sorted(found)


def _must_lie_ahead(begin: datetime) -> None:
    if datetime.now(UTC) >= begin:
        raise RuntimeError("loading took longer than the time left before the first deadline; use a quieter machine")


# --- deadlines per second --------------------------------------------------------------------------------------------


def deadlines_per_second() -> None:
    """On an office calendar with public holidays and a lunch break, starts over a year, targets up to three days."""
    office = (Period.parse("09:00-12:00"), Period.parse("13:00-18:00"))
    calendar = Calendar(
        "office",
        "Asia/Shanghai",
        (office,) * 5 + ((), ()),
        holidays=("CN",),
        extra_working_days=frozenset({date(2026, 9, 20), date(2026, 10, 10)}),
    )
    zone = ZoneInfo(calendar.zone)
    chance = random.Random(1)
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    asked = [
        (begin + timedelta(seconds=chance.randrange(330 * 86_400)), chance.randrange(60, 3 * calendar.day_seconds))
        for _ in range(100_000)
    ]
    fewer = asked[:5_000]
    if [calendar.deadline(*item) for item in fewer] != [walked_deadline(calendar, zone, *item) for item in fewer]:
        raise RuntimeError("the walk from day to day comes to other due times")
    value = _rate(lambda: [calendar.deadline(start, target) for start, target in asked], len(asked))
    baseline = _rate(lambda: [walked_deadline(calendar, zone, start, target) for start, target in fewer], len(fewer))
    report(
        Figure(
            "clocks", "deadlines_per_second on one core, beside walking from day to day", value, "deadlines/s", baseline
        )
    )


def _rate(work: Callable[[], object], count: int) -> float:
    """By the CPU time of the best of five turns: other programs on the machine are not its affair."""
    seconds = []
    for _ in range(5):
        begun = time.process_time()
        work()
        seconds.append(time.process_time() - begun)
    return count / min(seconds)


# --- the run ---------------------------------------------------------------------------------------------------------


async def run(directory: Path, postgres: EmbeddedPostgres) -> None:
    url = await _database(postgres)
    settings = settings_for(directory, url)
    connection = await asyncpg.connect(url)
    database = Database(settings, service="sla_timer")
    try:
        in_force = PoliciesInForce(settings.policy_files, database)
        await in_force.announce()
        handlers = Handlers(database, in_force, Measures(), group="bench")
        now = datetime.now(UTC)
        urgent = await make_template(connection, handlers, now - timedelta(minutes=55), Priority.P1)
        calm = await make_template(connection, handlers, now - timedelta(days=5), Priority.P3)
        bench = Bench(url, connection, urgent, calm)
        async with replicas(directory, url, 1):
            for clocks in OPEN:
                usual = await _idle(bench, clocks)
            await bench.warm_up()
            alone = await bench.surge()
        async with replicas(directory, url, 2):
            await bench.warm_up()
            together = await bench.surge()
        one_by_one = await bench.one_by_one()
        for (outcome, rate), what in ((alone, "1 replica"), (together, "2 replicas")):
            place = f"surge of {SURGE} in a second, {what}, {OPEN[-1]} open clocks"
            report(Figure("clocks", f"drain rate, {place}, beside one by one", rate, "deadlines/s", one_by_one))
            _report_lateness(outcome.lateness_ms, usual.lateness_ms, place, "a 60 s sweep")
        acknowledged = await bench.acknowledged_ms()
        for name, share in _SHARES:
            report(
                Figure("clocks", f"commit acknowledged after its stamp, {name}", percentile(acknowledged, share), "ms")
            )
    finally:
        await database.close()
        await connection.close()


async def _idle(bench: Bench, clocks: int) -> Sweep:
    """One size. Returns the 60-second sweep that ran beside it."""
    await bench.open_up_to(clocks)
    await bench.warm_up()
    is_long = clocks >= _LONG_FROM
    sweeps = [Sweep(bench.url, _SHORT_SECONDS), *([Sweep(bench.url, _LONG_SECONDS)] if is_long else [])]
    outcome = await bench.idle(_LONG_SECONDS if is_long else _SHORT_SECONDS, sweeps)
    for sweep in sweeps:
        if len(sweep.lateness_ms) != len(outcome.lateness_ms):
            raise RuntimeError(f"the sweep found {len(sweep.lateness_ms)} of {len(outcome.lateness_ms)} deadlines")
        _report_lateness(
            outcome.lateness_ms,
            sweep.lateness_ms,
            f"idle, {clocks} open clocks",
            f"a {sweep.interval_seconds} s sweep",
        )
    return sweeps[0]


def _report_lateness(lateness_ms: Sequence[float], baseline_ms: Sequence[float], place: str, beside: str) -> None:
    for name, share in _SHARES:
        value, baseline = percentile(lateness_ms, share), percentile(baseline_ms, share)
        report(Figure("clocks", f"lateness {name}, {place}, beside {beside}", value, "ms", baseline))


async def _database(postgres: EmbeddedPostgres) -> str:
    """A migrated database on a server that keeps the time of every commit."""
    connection = await asyncpg.connect(postgres.url)
    await connection.execute("ALTER SYSTEM SET track_commit_timestamp = on")
    await connection.close()
    postgres.restart()
    url = postgres.create_database("bench")
    await upgrade_all(url)
    return url


def main() -> None:
    note(f"{psutil.cpu_count()} cores, {', '.join(map(str, OPEN))} open clocks, a surge of {SURGE}")
    deadlines_per_second()
    with tempfile.TemporaryDirectory(prefix="switchyard-bench-") as name:
        directory = Path(name)
        with EmbeddedPostgres(directory / "postgres") as postgres:
            asyncio.run(run(directory, postgres))
