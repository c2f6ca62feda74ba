"""Reports over clocks that are known, on real PostgreSQL: every figure against a count in plain Python; the command
line; the sla_timer's API.
"""

from __future__ import annotations

import asyncio
import csv
import io
import json
import random
import struct
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from math import ceil
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import asyncpg
import httpx
import pytest

from services.sla_timer import http
from services.sla_timer.__main__ import main
from services.sla_timer.app import build
from services.sla_timer.commands import report as report_command
from services.sla_timer.domain.reports import (
    HOURS_OF_WEEK,
    By,
    Figures,
    Percentiles,
    Question,
    Report,
    Row,
    WrongQuestion,
    hour_label,
)
from services.sla_timer.heat_map import HEIGHT_PIXELS, WIDTH_PIXELS, Time
from services.sla_timer.reports import TooLarge, read
from services.sla_timer.settings import Settings
from shared.database import Database
from shared.events import Target
from shared.taxonomy import Channel, Priority, Queue
from tests.support.sla_timer import TOKEN, settings_for

SINCE = datetime(2026, 10, 25, 16, tzinfo=UTC)  # Monday 00:00 in Shanghai; New York puts its clock back within
UNTIL = SINCE + timedelta(days=10)
NOW = UNTIL + timedelta(days=30)
SHANGHAI = "Asia/Shanghai"
BRANDS = ("upay", "topay")
QUEUES = (Queue.PAYMENTS, Queue.REFUNDS)
CHANNELS = (Channel.APP_CHAT, Channel.EMAIL)
MOST = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Known:
    """One clock, as a test writes it."""

    target: Target
    brand: str
    queue: Queue | None
    channel: Channel
    priority: Priority
    state: str
    started_at: datetime
    ended_at: datetime | None
    breached_at: datetime | None
    used_seconds: int | None
    target_seconds: int
    agent_group: str | None


@dataclass(frozen=True, slots=True)
class Peak:
    brand: str
    queue: Queue
    channel: str
    began_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class World:
    settings: Settings
    clocks: tuple[Known, ...]
    peaks: tuple[Peak, ...]

    async def ask(self, by: By, **changes: Any) -> Report:
        question = Question(**{"since": SINCE, "until": UNTIL, "zone": SHANGHAI, "by": by, **changes})
        return await self.answer(question)

    async def answer(self, question: Question, *, now: datetime = NOW, most: timedelta = MOST) -> Report:
        database = Database(self.settings, service="sla_timer")
        try:
            return await read(database, question, now=now, statement_most=most)
        finally:
            await database.close()


def clocks_of(lots: random.Random, count: int) -> Iterable[Known]:
    for _ in range(count):
        target = lots.choice(list(Target))
        started_at = SINCE + timedelta(seconds=lots.randrange(-200_000, 1_100_000), microseconds=lots.randrange(10**6))
        if lots.random() < 0.05:
            started_at = lots.choice([SINCE, UNTIL, SINCE + timedelta(hours=30)])
        wall = timedelta(seconds=int(lots.lognormvariate(7, 1.5)), microseconds=lots.randrange(10**6))
        target_seconds = lots.choice([600, 3600])
        state = lots.choice(["met"] * 6 + ["running", "paused", "cancelled"])
        used = lots.randrange(int(wall.total_seconds()) + 1) if state == "met" else None
        breached = lots.random() < 0.3 if used is None else used > target_seconds
        yield Known(
            target=target,
            brand=lots.choice(BRANDS),
            queue=lots.choice([*QUEUES, *QUEUES, None]),
            channel=lots.choice(CHANNELS),
            priority=lots.choice(list(Priority)),
            state=state,
            started_at=started_at,
            ended_at=started_at + wall if state in ("met", "cancelled") else None,
            breached_at=started_at + timedelta(seconds=target_seconds) if breached else None,
            used_seconds=used,
            target_seconds=target_seconds,
            agent_group=lots.choice(["day", "night", None]) if state == "met" else None,
        )


def peaks_of(lots: random.Random) -> Iterable[Peak]:
    for brand in BRANDS:
        for queue in QUEUES:
            for channel in ("*", Channel.EMAIL.value):
                at = SINCE - timedelta(hours=lots.randrange(0, 40))
                while at < UNTIL:
                    length = timedelta(hours=lots.choice([1, 3, 9]))
                    yield Peak(brand, queue, channel, at, at + length)
                    at += length + timedelta(hours=lots.choice([0, 5, 30]))
    yield Peak("upay", Queue.SECURITY, "*", UNTIL - timedelta(hours=1), None)


async def store(url: str, clocks: Sequence[Known], peaks: Sequence[Peak]) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.executemany(
            "INSERT INTO sla_timer.clocks (clock_id, ticket_id, target, generation, state, brand, channel, queue, "
            "priority, policy, calendar, policy_version, calendar_version, target_seconds, marks, started_at, "
            "ended_at, breached_at, used_seconds, agent_group, course, alarms, told) VALUES ($1, $1, $2, 1, $3, $4, "
            "$5, $6, $7, 'p', 'always', 'v', 'v', $8, '[]', $9, $10, $11, $12, $13, '[]', '[]', 1)",
            [
                (uuid.uuid4(), item.target, item.state, item.brand, item.channel, item.queue, item.priority,
                 item.target_seconds, item.started_at, item.ended_at, item.breached_at, item.used_seconds,
                 item.agent_group)
                for item in clocks
            ],
        )  # fmt: skip
        await connection.executemany(
            "INSERT INTO sla_timer.peaks (brand, queue, channel, began_at, ended_at, expected_arrivals, seen_arrivals) "
            "VALUES ($1, $2, $3, $4, $5, 10, 30)",
            [(item.brand, item.queue, item.channel, item.began_at, item.ended_at) for item in peaks],
        )
    finally:
        await connection.close()


@pytest.fixture(scope="module")
async def world(database: str, tmp_path_factory: pytest.TempPathFactory) -> World:
    lots = random.Random(20261125)
    clocks, peaks = tuple(clocks_of(lots, 6000)), tuple(peaks_of(lots))
    await store(database, clocks, peaks)
    return World(settings_for(tmp_path_factory.mktemp("sla_timer"), database), clocks, peaks)


# --- the same in plain Python ----------------------------------------------------------------------------------------


def in_peak(clock: Known, peaks: Iterable[Peak]) -> bool:
    return any(
        (peak.brand, peak.queue) == (clock.brand, clock.queue)
        and peak.channel in ("*", clock.channel)
        and peak.began_at <= clock.started_at
        and (peak.ended_at is None or clock.started_at < peak.ended_at)
        for peak in peaks
    )


def percentiles(values: Iterable[int]) -> Percentiles:
    ascending = sorted(values)
    if not ascending:
        return Percentiles()
    p50, p90, p99 = (ascending[ceil(percent * len(ascending) / 100) - 1] for percent in (50, 90, 99))
    return Percentiles(p50=p50, p90=p90, p99=p99)


def figures(clocks: Sequence[Known]) -> Figures:
    met = [item for item in clocks if item.state == "met"]
    late = [item for item in clocks if item.state in ("running", "paused") and item.breached_at]
    within = [item for item in met if item.breached_at is None]
    judged = len(met) + len(late)
    return Figures(
        judged=judged,
        answered=len(met),
        within_target=len(within),
        share_within_target=len(within) / judged if judged else None,
        business_seconds=percentiles(item.used_seconds for item in met if item.used_seconds is not None),
        wall_seconds=percentiles(
            int((item.ended_at - item.started_at).total_seconds()) for item in met if item.ended_at
        ),
    )


def check(row: Row, clocks: Sequence[Known], peaks: Sequence[Peak]) -> None:
    inside = [item for item in clocks if in_peak(item, peaks)]
    outside = [item for item in clocks if not in_peak(item, peaks)]
    assert row.overall == figures(clocks)
    assert row.in_peak == figures(inside)
    assert row.out_of_peak == figures(outside)
    open_in_time = [item for item in clocks if item.state in ("running", "paused") and item.breached_at is None]
    cancelled = [item for item in clocks if item.state == "cancelled"]
    assert row.not_yet_due == len(open_in_time)
    assert row.cancelled == len(cancelled)
    assert row.cancelled_after_breach == sum(item.breached_at is not None for item in cancelled)
    judged = [item for item in clocks if item.state == "met" or (item.state != "cancelled" and item.breached_at)]
    assert row.target_seconds.least == min((item.target_seconds for item in judged), default=None)
    assert row.target_seconds.most == max((item.target_seconds for item in judged), default=None)


def of_period(clocks: Iterable[Known], target: Target) -> list[Known]:
    return [item for item in clocks if SINCE <= item.started_at < UNTIL and item.target is target]


GROUP_OF: dict[By, Callable[[Known, Sequence[Peak]], str | None]] = {
    By.QUEUE: lambda clock, _: clock.queue,
    By.CHANNEL: lambda clock, _: clock.channel,
    By.PRIORITY: lambda clock, _: clock.priority,
    By.BRAND: lambda clock, _: clock.brand,
    By.AGENT_GROUP: lambda clock, _: clock.agent_group,
    By.PEAK: lambda clock, peaks: "in_peak" if in_peak(clock, peaks) else "out_of_peak",
}


@pytest.mark.parametrize("by", GROUP_OF)
async def test_every_figure_of_every_group_is_that_of_a_count_in_plain_python(world: World, by: By) -> None:
    report = await world.ask(by)
    group_of = GROUP_OF[by]
    for target in Target:
        clocks = of_period(world.clocks, target)
        assert len(clocks) > 900
        rows = {row.group: row for row in report.rows if row.target is target}
        assert set(rows) == {group_of(clock, world.peaks) for clock in clocks}
        for group, row in rows.items():
            check(row, [clock for clock in clocks if group_of(clock, world.peaks) == group], world.peaks)
    for row in report.totals:
        check(row, of_period(world.clocks, row.target), world.peaks)
    assert report.backlog is None


@pytest.mark.parametrize("zone", [SHANGHAI, "America/New_York", "Asia/Kathmandu"])
async def test_hours_of_the_week_are_those_of_the_zone(world: World, zone: str) -> None:
    report = await world.ask(By.HOUR, zone=zone, targets=(Target.FIRST_RESPONSE,))
    clocks = of_period(world.clocks, Target.FIRST_RESPONSE)
    local = {clock: clock.started_at.astimezone(ZoneInfo(zone)) for clock in clocks}
    assert [row.hour_of_week for row in report.rows] == list(range(HOURS_OF_WEEK))
    for row in report.rows:
        weekday, hour = divmod(row.hour_of_week or 0, 24)
        assert row.group == hour_label(row.hour_of_week or 0)
        check(
            row, [item for item in clocks if (local[item].weekday(), local[item].hour) == (weekday, hour)], world.peaks
        )
    assert [row.hour_of_day for row in report.hours_of_day] == list(range(24))
    for row in report.hours_of_day:
        check(row, [item for item in clocks if local[item].hour == row.hour_of_day], world.peaks)
    check(report.totals[0], clocks, world.peaks)


async def test_filters_let_through_what_they_name(world: World) -> None:
    wanted = {"brand": "upay", "queue": Queue.REFUNDS, "channel": Channel.EMAIL, "priority": Priority.P2}
    for names in (["brand"], ["queue"], ["channel"], ["priority"], list(wanted)):
        filters = {name: wanted[name] for name in names}
        report = await world.ask(By.BRAND, **filters)
        assert report.filters.model_dump(exclude_none=True) == filters
        for row in report.totals:
            passing = [
                clock
                for clock in of_period(world.clocks, row.target)
                if all(getattr(clock, name) == value for name, value in filters.items())
            ]
            assert passing
            check(row, passing, world.peaks)


async def test_a_clock_belongs_to_the_period_in_which_it_started_by_the_microsecond(
    new_database: Callable[[], Awaitable[str]], tmp_path: Path
) -> None:
    one = next(clock for clock in clocks_of(random.Random(1), 100) if clock.state == "met")
    microsecond = timedelta(microseconds=1)
    starts = [SINCE - microsecond, SINCE, UNTIL - microsecond, UNTIL]
    clocks = [replace(one, started_at=start, ended_at=start + timedelta(hours=1)) for start in starts]
    assert one.queue is not None
    peak = Peak(one.brand, one.queue, "*", SINCE, UNTIL - microsecond)  # over when the third began
    settings = settings_for(tmp_path, await new_database())
    await store(settings.database_url.get_secret_value(), clocks, [peak])
    report = await World(settings, tuple(clocks), (peak,)).ask(By.BRAND, targets=(one.target,))
    (row,) = report.rows
    assert (row.overall.answered, row.in_peak.answered, row.out_of_peak.answered) == (2, 1, 1)


async def test_a_period_without_promises_is_a_report_too(world: World) -> None:
    empty = Question(SINCE - timedelta(days=40), SINCE - timedelta(days=39), SHANGHAI, By.QUEUE)
    report = await world.answer(empty)
    assert report.rows == []
    assert [(row.overall.judged, row.overall.share_within_target) for row in report.totals] == [(0, None)] * 4
    by_hour = await world.answer(replace(empty, by=By.HOUR))
    assert len(by_hour.rows) == 4 * HOURS_OF_WEEK
    assert by_hour.backlog is not None
    assert [hour.open for hour in by_hour.backlog.hours] == [0] * 24


@pytest.mark.parametrize("filters", [{}, {"queue": Queue.PAYMENTS, "brand": "topay"}])
async def test_the_backlog_of_every_hour_is_that_of_a_count(world: World, filters: dict[str, Any]) -> None:
    question = Question(since=SINCE, until=UNTIL, zone=SHANGHAI, by=By.HOUR, **filters)
    now = UNTIL - timedelta(hours=7, minutes=20)
    report = await world.answer(question, now=now)
    assert report.backlog is not None
    tickets = [
        clock
        for clock in world.clocks
        if clock.target is Target.RESOLUTION and all(getattr(clock, name) == value for name, value in filters.items())
    ]
    expected_hours = [SINCE + timedelta(hours=hour) for hour in range(10 * 24 - 7)]
    assert [hour.at for hour in report.backlog.hours] == expected_hours
    for hour in report.backlog.hours:
        ages = sorted(
            int((hour.at - clock.started_at).total_seconds())
            for clock in tickets
            if clock.started_at <= hour.at and (clock.ended_at is None or clock.ended_at > hour.at)
        )
        assert hour.open == len(ages) > 0
        assert hour.age_p50_seconds == ages[ceil(len(ages) / 2) - 1]
        assert hour.age_p90_seconds == ages[ceil(9 * len(ages) / 10) - 1]
        assert hour.age_oldest_seconds == ages[-1]
    monday = report.backlog.hours_of_week[0]
    sizes = sorted(report.backlog.hours[week * 168].open for week in (0, 1))
    assert (monday.samples, monday.open_typical, monday.open_worst) == (2, sizes[0], sizes[1])


async def test_a_report_changes_nothing_and_ends_when_it_takes_too_long(world: World) -> None:
    question = Question(SINCE, UNTIL, SHANGHAI, By.HOUR)
    with pytest.raises(TooLarge, match=r"0\.001 s"):
        await world.answer(question, most=timedelta(milliseconds=1))
    with pytest.raises(WrongQuestion) as refused:
        await world.answer(replace(question, zone="Nowhere/At_All"))
    assert refused.value.field == "zone"


# --- the command line ------------------------------------------------------------------------------------------------


@pytest.fixture
def command(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """`report` in the installation of `world`; its period unless the arguments say another."""
    monkeypatch.setenv("DATABASE_URL", world.settings.database_url.get_secret_value())
    monkeypatch.setenv("SLA_TIMER_POLICIES_FILE", str(world.settings.sla_timer_policies_file))
    monkeypatch.setenv("BRANDS_DIRECTORY", str(world.settings.brands_directory))
    monkeypatch.setenv("SLA_TIMER_CALENDARS_FILE", str(world.settings.sla_timer_calendars_file))

    def run(*arguments: str) -> tuple[int, str, str]:
        period = ["--from", "2026-10-26", "--to", "2026-11-05", "--zone", SHANGHAI]
        status = main(["report", *period, *arguments])
        out, err = capsys.readouterr()
        return status, out, err

    return run


async def in_thread(run: Callable[..., tuple[int, str, str]], *arguments: str) -> tuple[int, str, str]:
    """The command has a loop of its own, so it runs beside this one."""
    return await asyncio.to_thread(run, *arguments)


async def test_the_command_prints_json_csv_and_a_table_of_the_same_figures(
    world: World, command: Callable[..., tuple[int, str, str]]
) -> None:
    expected = await world.ask(By.QUEUE)
    status, out, _ = await in_thread(command, "--by", "queue", "--json")
    found = Report.model_validate_json(out)
    assert status == 0
    assert (found.rows, found.totals) == (expected.rows, expected.totals)
    assert (found.since, found.until) == (SINCE, UNTIL)

    status, out, _ = await in_thread(command, "--by", "queue", "--csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert status == 0
    assert [
        (row["target"], row["group"], row["judged"], row["business_p90_seconds"], row["out_of_peak_wall_p99_seconds"])
        for row in rows
        if row["section"] == "promises"
    ] == [
        (
            row.target,
            row.group or "",
            str(row.overall.judged),
            str(row.overall.business_seconds.p90),
            str(row.out_of_peak.wall_seconds.p99 or ""),
        )
        for row in expected.rows
    ]

    status, out, _ = await in_thread(command, "--by", "queue", "--target", "resolution")
    (payments,) = (line.split() for line in out.splitlines() if line.startswith("payments"))
    row = next(row for row in expected.rows if (row.target, row.group) == (Target.RESOLUTION, "payments"))
    assert status == 0
    assert payments[1:4] == [
        f"{row.overall.judged:,}", f"{row.overall.answered:,}", f"{row.overall.share_within_target:.1%}"
    ]  # fmt: skip
    assert "first response" not in out


async def test_the_command_shows_168_hours_and_the_backlog(command: Callable[..., tuple[int, str, str]]) -> None:
    status, out, _ = await in_thread(command, "--target", "first_response")
    lines = out.splitlines()
    assert status == 0
    assert sum(line.startswith(("Mon ", "Sun ")) for line in lines) == 2 * 2 * 24  # promises and backlog
    assert "backlog when an hour begins" in out
    _, out, _ = await in_thread(command, "--json")
    assert len(json.loads(out)["backlog"]["hours"]) == 240


async def test_the_command_draws_the_week(command: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    path = tmp_path / "week.png"
    status, out, _ = await in_thread(command, "--png", str(path), "--time", "wall", "--queue", "payments")
    assert (status, out.strip()) == (0, str(path))
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", content[16:24]) == (WIDTH_PIXELS, HEIGHT_PIXELS)


async def test_the_picture_is_of_first_responses_in_business_time_unless_said(
    command: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[list[Target], Time]] = []
    monkeypatch.setattr(report_command, "draw", lambda report, _, time: drawn.append((report.targets, time)))
    await in_thread(command, "--png", "week.png")
    await in_thread(command, "--png", "week.png", "--by", "hour", "--target", "resolution", "--time", "wall")
    assert drawn == [([Target.FIRST_RESPONSE], Time.BUSINESS), ([Target.RESOLUTION], Time.WALL)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--to", "2026-10-26"], "--to: must be after"),
        (["--zone", "Mars/Olympus"], "--zone: is not an IANA time zone"),
        (["--brand", "No Brand"], "--brand: "),
        (["--time", "wall"], "--time: is for the picture"),
        (["--png", "week.png", "--by", "queue"], "--by: the picture shows the hours of the week"),
    ],
)
async def test_the_command_names_what_cannot_be_asked(
    command: Callable[..., tuple[int, str, str]], arguments: list[str], said: str
) -> None:
    status, out, err = await in_thread(command, *arguments)
    assert (status, out) == (2, "")
    assert said in err


async def test_the_command_says_that_the_database_is_away(
    command: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    status, _, err = await in_thread(command, "--by", "queue")
    assert status == 1
    assert "the database of DATABASE_URL cannot be read" in err


# --- the API ---------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def api(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    service = build(settings)
    transport = httpx.ASGITransport(app=service.app())
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://sla-timer", headers=headers) as client:
        try:
            yield client
        finally:
            await service.database.close()


PERIOD = {"from": "2026-10-26", "to": "2026-11-05", "zone": SHANGHAI}


async def test_the_api_answers_what_the_command_prints(world: World) -> None:
    expected = await world.ask(By.CHANNEL, brand="upay", targets=(Target.RESOLUTION,))
    async with api(world.settings) as client:
        answer = await client.get(
            "/v1/report", params=PERIOD | {"by": "channel", "brand": "upay", "target": "resolution"}
        )
        assert answer.status_code == 200
        found = answer.json()
        assert found["rows"] == expected.model_dump(mode="json")["rows"]
        assert set(found) == set(expected.model_dump(mode="json"))
        anonymous = await client.get("/v1/report", params=PERIOD, headers={"Authorization": "Bearer wrong"})
        assert anonymous.status_code == 401


async def test_the_zone_is_that_of_the_brand_where_none_is_named(database: str, tmp_path: Path) -> None:
    files = settings_for(tmp_path, database)
    files.sla_timer_calendars_file.write_text(
        "calendars:\n  always: {zone: UTC, week: 24/7}\n  office: {zone: America/New_York, week: 24/7}\n"
    )
    policies = files.sla_timer_policies_file.read_text().replace(
        "peaks: {", "peaks: {calendars: {'*': always, topay: office}, "
    )
    files.sla_timer_policies_file.write_text(policies)
    days = {"from": "2026-10-26", "to": "2026-10-27", "by": "brand"}
    async with api(files) as client:
        for brand, zone, since in (
            ("upay", "UTC", "2026-10-26T00:00:00Z"),
            ("topay", "America/New_York", "2026-10-26T00:00:00-04:00"),
            (None, "UTC", "2026-10-26T00:00:00Z"),
        ):
            found = (await client.get("/v1/report", params=days | ({"brand": brand} if brand else {}))).json()
            assert (found["zone"], found["from"]) == (zone, since)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"from": None}, "query.from"),
        ({"to": "soon"}, "query.to"),
        ({"to": "2028-01-01"}, "query.to"),
        ({"by": "weather"}, "query.by"),
        ({"target": "luck"}, "query.target"),
        ({"queue": "nowhere"}, "query.queue"),
        ({"zone": "Mars/Olympus"}, "query.zone"),
        ({"surprise": "1"}, "query.surprise"),
    ],
)
async def test_the_api_names_the_field_that_is_wrong(
    settings: Settings, changes: dict[str, str | None], field: str
) -> None:
    wanted = {name: value for name, value in (PERIOD | changes).items() if value is not None}
    async with api(settings) as client:
        answer = await client.get("/v1/report", params=wanted)
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [field]


@pytest.fixture
async def settings(new_database: Callable[[], Awaitable[str]], tmp_path: Path) -> Settings:
    return settings_for(tmp_path, await new_database())


async def test_a_report_that_takes_too_long_says_what_to_ask_instead(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "_REPORT_STATEMENT_MOST", timedelta(milliseconds=1))
    async with api(world.settings) as client:
        answer = await client.get("/v1/report", params=PERIOD)
    assert answer.status_code == 503
    assert "ask for a shorter period" in answer.json()["detail"]


async def test_reports_leave_connections_to_the_deadlines(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    started, go_on = asyncio.Semaphore(0), asyncio.Event()

    async def slow(*_: Any, **__: Any) -> Report:
        started.release()
        await go_on.wait()
        raise TooLarge(MOST)

    monkeypatch.setattr(http, "read", slow)
    async with api(settings) as client:
        making = [asyncio.create_task(client.get("/v1/report", params=PERIOD)) for _ in range(2)]
        for _ in making:
            await started.acquire()
        async with asyncio.timeout(30):  # a third that waits for the others would wait for ever
            refused = await client.get("/v1/report", params=PERIOD)
        go_on.set()
        await asyncio.gather(*making)
    assert refused.status_code == 503
    assert refused.headers["Retry-After"]
    assert "other reports" in refused.json()["detail"]
