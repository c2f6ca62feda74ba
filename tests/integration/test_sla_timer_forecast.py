"""The forecast out of a real database: arrivals in, the command's output and the HTTP answer looked at."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import uuid
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest
from sqlalchemy import text

from services.sla_timer.__main__ import main
from services.sla_timer.app import build
from services.sla_timer.config import load_policies
from services.sla_timer.domain.forecast import half_hours_of
from services.sla_timer.domain.staffing import StaffingRules
from services.sla_timer.forecasts import Asked, counts_by_half_hour
from services.sla_timer.settings import Settings
from shared.calendars import Calendar
from shared.database import Database
from shared.taxonomy import Channel, Queue
from tests.support.brands import write_brand
from tests.support.sla_timer import TOKEN
from tests.unit.sla_timer.traffic import Traffic

POLICIES = """\
rules:
  default:
    brand: "*"
    channel: "*"
    calendar: always
    targets:
      "*": {first_response: 1h, next_response: 30m, resolution: 4h}
  hotline:
    brand: "*"
    channel: phone
    calendar: hotline
    targets:
      "*": {first_response: 10m, next_response: 30m, resolution: 4h}
peaks:
  calendars: {"*": every_day}
staffing:
  "*": {handling: 5m, answer_within: 1h, share: 0.9, patience: null, shrinkage: 0.2}
  app_chat: {handling: 8m, answer_within: 30s, share: 0.8, at_once: 3, patience: 2m, shrinkage: 0.3}
"""
# The tests ask for tomorrow: not in a zone where tomorrow may become today while they run.
ZONE, OFFSET = ("Asia/Dubai", "+04:00") if datetime.now(UTC).hour in (15, 16) else ("Asia/Shanghai", "+08:00")
CALENDARS = f"""\
calendars:
  always: {{zone: UTC, week: 24/7}}
  every_day: {{zone: {ZONE}, week: {{mon-sun: 09:00-21:00}}}}
  hotline: {{zone: {ZONE}, week: {{mon-sun: 09:00-18:00}}}}
"""
DAYS = 70
CHAT, PHONE = Traffic(daily=300), Traffic(daily=80)
CHAT_RULES = StaffingRules(
    handling=timedelta(minutes=8), answer_within=timedelta(seconds=30), at_once=3, patience=timedelta(minutes=2)
)
PHONE_RULES = StaffingRules(
    handling=timedelta(minutes=5), answer_within=timedelta(hours=1), share=0.9, patience=None, shrinkage=0.2
)


@dataclass(frozen=True, slots=True)
class World:
    settings: Settings
    calendar: Calendar
    today: date

    @property
    def tomorrow(self) -> date:
        return self.today + timedelta(days=1)

    def means(self, traffic: Traffic, seed: int, day: date) -> float:
        first = self.today - timedelta(days=DAYS)
        means = traffic.means(seed, first, DAYS + 2, self.calendar)
        return sum(means[start] for start in half_hours_of(day, self.calendar))


async def insert(database: Database, brand: str, channel: Channel, queue: Queue, ats: Iterable[datetime]) -> None:
    rows = list(ats)
    async with database.transaction() as connection:
        await connection.execute(
            text(
                "INSERT INTO sla_timer.arrivals (ticket_id, brand, queue, channel, at) "
                "SELECT gen_random_uuid(), :brand, :queue, :channel, unnest(CAST(:ats AS timestamptz[]))"
            ),
            {"brand": brand, "queue": queue, "channel": channel, "ats": rows},
        )


def spread(counts: dict[datetime, int], until: datetime) -> Iterable[datetime]:
    """Each half-hour's arrivals, one after the other within it; none after `until`."""
    for start, count in counts.items():
        for number in range(count):
            at = start + timedelta(minutes=30) * number / count
            if at < until:
                yield at


@pytest.fixture(scope="module")
async def world(database: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """Ten weeks of two channels of a brand, and five days of another's."""
    directory: Path = tmp_path_factory.mktemp("forecast")
    sla, calendars = directory / "sla.yaml", directory / "calendars.yaml"
    sla.write_text(POLICIES, encoding="utf-8")
    calendars.write_text(CALENDARS, encoding="utf-8")
    settings = Settings(
        database_url=database,
        sla_timer_policies_file=sla,
        sla_timer_calendars_file=calendars,
        brands_directory=write_brand(directory / "brands"),
        sla_timer_api_token=TOKEN,
    )
    calendar = load_policies(settings.policy_files).zone_calendar("upay")
    now = datetime.now(UTC)
    today = calendar.local(now).date()
    first = today - timedelta(days=DAYS)
    engine = Database(settings, service="test")
    try:
        chat, phone = (traffic.counts(seed, first, DAYS + 1, calendar) for traffic, seed in ((CHAT, 1), (PHONE, 2)))
        await insert(engine, "upay", Channel.APP_CHAT, Queue.PAYMENTS, spread(chat, now))
        await insert(engine, "upay", Channel.PHONE, Queue.ACCESS, spread(phone, now))
        short = Traffic(daily=100).counts(3, today - timedelta(days=6), 6, calendar)
        await insert(engine, "topay", Channel.EMAIL, Queue.GENERAL, spread(short, now))
        yield World(settings, calendar, today)
    finally:
        await engine.close()


@pytest.fixture
def environment(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("DATABASE_URL", world.settings.database_url.get_secret_value())
    monkeypatch.setenv("SLA_TIMER_POLICIES_FILE", str(world.settings.sla_timer_policies_file))
    monkeypatch.setenv("BRANDS_DIRECTORY", str(world.settings.brands_directory))
    monkeypatch.setenv("SLA_TIMER_CALENDARS_FILE", str(world.settings.sla_timer_calendars_file))
    return world


async def run(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
    assert await asyncio.to_thread(main, ["forecast", *arguments]) == status
    captured = capsys.readouterr()
    return captured.out if status == 0 else captured.err


async def forecast(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    return json.loads(await run(capsys, *arguments, "--json"))


async def test_tomorrow_is_forecast_by_half_hour(environment: World, capsys: pytest.CaptureFixture[str]) -> None:
    found = await forecast(capsys, "--brand", "upay")
    tomorrow = environment.tomorrow
    assert (found["day"], found["kind"], found["zone"]) == (tomorrow.isoformat(), "plain", ZONE)
    starts = [datetime.fromisoformat(row["start"]) for row in found["rows"]]
    assert [start.astimezone(UTC) for start in starts] == list(half_hours_of(tomorrow, environment.calendar))
    assert starts[0].isoformat() == f"{tomorrow}T00:00:00{OFFSET}"
    # The first day may have begun before anything was counted, and today is not over.
    assert found["known_days"] == DAYS - 1
    assert found["known_until"] == (environment.today - timedelta(days=1)).isoformat()
    true = environment.means(CHAT, 1, tomorrow) + environment.means(PHONE, 2, tomorrow)
    assert found["expected"] == pytest.approx(true, rel=0.2)  # a day's luck is 5 %
    assert found["expected"] == pytest.approx(sum(row["expected"] for row in found["rows"]), abs=0.5)
    assert all(row["low"] <= row["expected"] <= row["high"] + 1 for row in found["rows"])
    accuracy = found["accuracy"]
    assert accuracy["held_out_days"] == 14
    assert accuracy["half_hour_error"] < 0.85 * accuracy["naive_half_hour_error"]
    assert accuracy["day_error"] < 0.15
    assert accuracy["within_low_and_high"] == pytest.approx(0.8, abs=0.05)


async def test_each_channel_is_staffed_by_its_own_rules_while_it_works(
    environment: World, capsys: pytest.CaptureFixture[str]
) -> None:
    both, chat, phone = [
        (await forecast(capsys, "--brand", "upay", "--held-out", "0", *more))["rows"]
        for more in ((), ("--channel", "app_chat"), ("--channel", "phone"))
    ]
    for row, of_chat, of_phone in zip(both, chat, phone, strict=True):
        assert row["expected"] == pytest.approx(of_chat["expected"] + of_phone["expected"], abs=0.011)
        assert row["agents_needed"] == of_chat["agents_needed"] + of_phone["agents_needed"]
        assert row["agents_scheduled"] == of_chat["agents_scheduled"] + of_phone["agents_scheduled"]
        assert of_chat["agents_needed"] == CHAT_RULES.agents_needed(of_chat["expected"])
        assert of_chat["agents_scheduled"] == CHAT_RULES.agents_scheduled(of_chat["agents_needed"])
        assert of_phone["expected"] > 0
        if time(9) <= datetime.fromisoformat(of_phone["start"]).time() < time(18):
            assert of_phone["agents_needed"] == PHONE_RULES.agents_needed(of_phone["expected"]) > 0
            assert of_phone["agents_scheduled"] == PHONE_RULES.agents_scheduled(of_phone["agents_needed"])
        else:
            assert (of_phone["agents_needed"], of_phone["agents_scheduled"]) == (0, 0)
    by_queue = await forecast(capsys, "--brand", "upay", "--queue", "access", "--held-out", "0")
    assert by_queue["rows"] == phone
    assert by_queue["accuracy"] is None


async def test_a_past_day_is_forecast_as_on_its_eve(environment: World, capsys: pytest.CaptureFixture[str]) -> None:
    day = environment.today - timedelta(days=10)
    found = await forecast(capsys, "--brand", "upay", "--day", day.isoformat(), "--held-out", "5")
    assert (found["day"], found["known_until"]) == (day.isoformat(), (day - timedelta(days=2)).isoformat())
    assert found["accuracy"]["held_out_days"] == 5
    # Another brand's arrivals are in the forecast of all brands together.
    everyone = await forecast(capsys)
    upay = await forecast(capsys, "--brand", "upay")
    assert everyone["expected"] > upay["expected"] + 50
    assert everyone["brand"] is None


async def test_for_people_and_for_spreadsheets(environment: World, capsys: pytest.CaptureFixture[str]) -> None:
    lines = (await run(capsys, "--brand", "upay", "--held-out", "3")).splitlines()
    assert lines[0].startswith(
        f"upay, queue any, channel any: {environment.tomorrow:%a} {environment.tomorrow}, a plain"
    )
    assert lines[1].split() == ["expected", "8", "of", "10", "agents", "scheduled"]
    assert [line.split()[0] for line in lines[2:50]] == [
        f"{hour:02}:{minute:02}" for hour in range(24) for minute in (0, 30)
    ]
    assert lines[50].startswith("all")
    assert lines[51].startswith(f"learned from {DAYS - 1} days, ")
    assert lines[52].startswith("3 days held out, off by")
    rows = list(csv.DictReader(io.StringIO(await run(capsys, "--brand", "upay", "--held-out", "0", "--csv"))))
    assert len(rows) == 48
    shown = [line.split() for line in lines[2:50]]
    assert [row["agents_needed"] for row in rows] == [each[3] for each in shown]
    assert [f"{float(row['expected']):.1f}" for row in rows] == [each[1] for each in shown]
    unmeasured = await run(capsys, "--brand", "upay", "--held-out", "0")
    assert "no days could be held out" in unmeasured


async def test_what_cannot_be_forecast_is_told(environment: World, capsys: pytest.CaptureFixture[str]) -> None:
    short = await run(capsys, "--brand", "topay", status=1)
    assert short.startswith("topay, queue any, channel any: arrivals of 5 complete days are known until ")
    assert "a forecast needs 14; ask again in 9 days" in short
    unknown = await run(capsys, "--brand", "u_pay", status=1)
    assert "no arrivals are known until" in unknown
    for day in ((environment.today + timedelta(days=401)).isoformat(), "0001-01-01"):
        assert "more than 400 days away" in await run(capsys, "--day", day, status=1)
    for wrong in (("--day", "soon"), ("--held-out", "61"), ("--queue", "nowhere")):
        with pytest.raises(SystemExit):
            main(["forecast", *wrong])
    assert "'soon' is not a day like 2026-11-23" in capsys.readouterr().err


async def test_a_database_that_is_away_is_told(
    environment: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    assert "cannot be read" in await run(capsys, status=1)


async def test_half_hours_are_those_of_the_wall_in_nepal_too(world: World) -> None:
    kathmandu = ZoneInfo("Asia/Kathmandu")  # 5 hours 45 minutes ahead

    def at(hour: int, minute: int, second: int = 0) -> datetime:
        return datetime(2026, 3, 2, hour, minute, second, tzinfo=kathmandu)

    database = Database(world.settings, service="test")
    try:
        brand = f"b{uuid.uuid4().hex[:8]}"
        arrived = [at(10, 0), at(10, 29, 59), at(10, 30), at(23, 59, 59)]
        await insert(database, brand, Channel.EMAIL, Queue.GENERAL, arrived)
        async with database.transaction() as connection:
            counts = await counts_by_half_hour(connection, Asked(brand), at(0, 0), at(23, 59, 59))
    finally:
        await database.close()
    assert counts == {Channel.EMAIL: {at(10, 0).astimezone(UTC): 2, at(10, 30).astimezone(UTC): 1}}


async def test_the_same_over_http(environment: World, capsys: pytest.CaptureFixture[str]) -> None:
    service = build(environment.settings)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=service.app()), base_url="http://sla-timer"
    ) as client:
        assert (await client.get("/v1/forecast")).status_code == 401
        client.headers["Authorization"] = f"Bearer {TOKEN}"
        answer = await client.get("/v1/forecast", params={"brand": "upay", "channel": "app_chat", "held_out": 7})
        assert answer.status_code == 200
        assert answer.json() == await forecast(capsys, "--brand", "upay", "--channel", "app_chat", "--held-out", "7")
        short = await client.get("/v1/forecast", params={"brand": "topay"})
        assert (short.status_code, short.json()["title"]) == (409, "Too little is known")
        assert "ask again in 9 days" in short.json()["detail"]
        assert (await client.get("/v1/forecast", params={"held_out": 1000})).status_code == 422
    await service.database.close()
