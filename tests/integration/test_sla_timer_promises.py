"""Promises on real PostgreSQL: policies edited while it runs, an outage, a restarted database, merged tickets, history
that can be computed again.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text

from deploy.embedded.postgres import EmbeddedPostgres
from deploy.migrations import upgrade_all
from services.sla_timer.__main__ import main
from services.sla_timer.domain.clocks import Clock, State
from services.sla_timer.settings import Settings
from services.sla_timer.storage import clocks_of
from shared import metrics
from shared.events import ActivityKind, EscalationLevel, SlaKind, Target
from shared.events.tickets import Disposition
from shared.taxonomy import Category, Priority
from tests.support.brands import write_brand
from tests.support.sla_timer import TOKEN, Replica, act, message, replicas, routed, running, settings_for
from tests.support.waiting import eventually

FIRST, NEXT, UPDATE, RESOLUTION = Target


@pytest.fixture
async def settings(new_database: Callable[[], Awaitable[str]], tmp_path: Path) -> Settings:
    return settings_for(tmp_path, await new_database(), sla_timer_reload_seconds=0.05)


@pytest.fixture
async def replica(settings: Settings) -> AsyncIterator[Replica]:
    async with replicas(settings) as (replica,):
        await replica.firing.start()
        yield replica


def ago(seconds: float) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=seconds)


def edit(settings: Settings, old: str, new: str) -> None:
    path = settings.sla_timer_policies_file
    source = path.read_text(encoding="utf-8")
    assert old in source
    path.write_text(source.replace(old, new), encoding="utf-8")


async def clocks(replica: Replica, ticket_id: uuid.UUID) -> dict[tuple[Target, int], Clock]:
    async with replica.database.transaction() as connection:
        found = (await clocks_of(connection, [ticket_id])).get(ticket_id, {})
    return {(clock.target, clock.generation): clock for clock in found.values()}


# --- policies edited while it runs -----------------------------------------------------------------------------------


async def test_an_edit_takes_effect_without_a_restart_and_is_an_event(settings: Settings, replica: Replica) -> None:
    opening, ended = message(uuid.uuid4(), ago(60)), message(uuid.uuid4(), ago(60))
    await replica.take(opening, ended, act(ended.ticket_id, ActivityKind.RESOLVED, ago(50)))
    history = await clocks(replica, ended.ticket_id)
    before = replica.in_force.policies.version
    assert await replica.policy_changes() == []  # the first policies of an installation are no change
    watching = asyncio.create_task(replica.in_force.watch(settings.sla_timer_reload_seconds, replica.firing.replan))
    try:
        edit(settings, '"*": {first_response: 1h', '"*": {first_response: 2h')

        async def replanned() -> bool:
            clock = (await clocks(replica, opening.ticket_id))[FIRST, 1]
            return clock.due_at == opening.sent_at + timedelta(hours=2)

        await eventually(replanned)
    finally:
        watching.cancel()
    (change,) = await replica.policy_changes()
    assert (change.previous_version, change.policy_version) == (before, replica.in_force.policies.version)
    assert (change.added, change.removed, change.changed, change.calendars) == ((), (), ("default",), ())
    assert (await clocks(replica, opening.ticket_id))[FIRST, 1].terms.policy_version == change.policy_version
    assert await clocks(replica, ended.ticket_id) == history
    # A second replica, and a restart, have nothing to tell.
    async with replicas(settings) as (second,):
        await second.firing.start()
        assert await second.policy_changes() == [change]


async def test_a_file_that_cannot_be_used_changes_nothing_and_says_so(
    settings: Settings, replica: Replica, caplog: pytest.LogCaptureFixture
) -> None:
    version = replica.in_force.policies.version
    edit(settings, "P1: {first_response: 1s", "P1: {first_response: 1x")
    assert replica.in_force.reload() is False
    assert replica.in_force.policies.version == version
    assert f"{settings.sla_timer_policies_file}:8: rules.default.targets.P1.first_response" in caplog.text
    assert metrics.POLICIES_REJECTED.labels("sla_timer")._value.get() == 1
    assert replica.in_force.reload() is False  # said once
    assert caplog.text.count("cannot be used") == 1
    edit(settings, "P1: {first_response: 1x", "P1: {first_response: 9s")
    assert replica.in_force.reload() is True
    assert metrics.POLICIES_REJECTED.labels("sla_timer")._value.get() == 0


async def test_an_edit_of_a_brands_file_counts_as_one_of_the_policies(settings: Settings, replica: Replica) -> None:
    targets = {"*": {"first_response": "3h", "next_response": "3h", "resolution": "4h"}}
    write_brand(settings.brands_directory, promises={"chat": {"channel": "app_chat", "targets": targets}})
    assert replica.in_force.reload() is True
    change = await replica.in_force.announce()
    assert change is not None
    assert (change.added, change.removed, change.changed) == (("some_brand_chat",), (), ())
    write_brand(settings.brands_directory, "another")  # promises nothing of its own
    assert replica.in_force.reload() is False
    (settings.brands_directory / "some_brand.yaml").unlink()
    assert replica.in_force.reload() is True
    change = await replica.in_force.announce()
    assert change is not None
    assert change.removed == ("some_brand_chat",)
    (settings.brands_directory / "another.yaml").rename(settings.brands_directory / "misnamed.yaml")
    assert replica.in_force.reload() is False
    assert metrics.POLICIES_REJECTED.labels("sla_timer")._value.get() == 1


async def test_an_edit_of_peaks_alone_is_no_change_of_the_promises(settings: Settings, replica: Replica) -> None:
    since, version = replica.in_force.policies.since, replica.in_force.policies.version
    edit(settings, "least_arrivals: 10", "least_arrivals: 3")
    assert replica.in_force.reload() is False
    policies = replica.in_force.policies
    assert (policies.peaks.least_arrivals, policies.since, policies.version) == (3, since, version)


async def test_a_calendar_of_yesterday_explains_what_was_promised_yesterday(
    settings: Settings, replica: Replica, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hour on a calendar that worked round the clock; since then it works on Mondays only."""
    ticket = uuid.uuid4()
    opened_at = ago(7200)
    await replica.take(
        message(ticket, opened_at), act(ticket, ActivityKind.REPLIED, opened_at + timedelta(seconds=3000))
    )
    before = (await clocks(replica, ticket))[FIRST, 1]
    settings.sla_timer_calendars_file.write_text("calendars:\n  always: {zone: UTC, week: {mon: '09:00-10:00'}}\n")
    async with replicas(settings) as (second,):
        await second.firing.start()
        (change,) = await second.policy_changes()
        assert (change.changed, change.calendars) == ((), ("always",))
        await second.take(act(ticket, ActivityKind.RESOLVED, ago(1)))
        after = await clocks(second, ticket)
        assert after[FIRST, 1] == before
        assert before.used_seconds == 3000
        assert after[RESOLUTION, 1].terms.calendar_version != before.terms.calendar_version
    monkeypatch.setenv("DATABASE_URL", settings.database_url.get_secret_value())
    monkeypatch.setenv("SLA_TIMER_POLICIES_FILE", str(settings.sla_timer_policies_file))
    monkeypatch.setenv("SLA_TIMER_CALENDARS_FILE", str(settings.sla_timer_calendars_file))
    monkeypatch.setenv("BRANDS_DIRECTORY", str(settings.brands_directory))
    assert await asyncio.to_thread(main, ["explain", str(ticket)[:8]]) == 0
    told = capsys.readouterr().out
    assert f"Ticket {ticket}: upay, app_chat" in told
    assert "First response 1: met in time" in told
    assert f"calendar always {before.terms.calendar_version} (UTC)" in told
    assert "1h 00m 00s - 50m 00s used = 10m 00s to spare" in told
    assert await asyncio.to_thread(main, ["explain", str(uuid.uuid4())]) == 1
    assert "nothing has been promised about a ticket" in capsys.readouterr().err


# --- what happens ----------------------------------------------------------------------------------------------------


async def test_a_merged_ticket_owes_nothing_and_the_other_owes_for_both(replica: Replica) -> None:
    one, other = message(uuid.uuid4(), ago(100)), message(uuid.uuid4(), ago(90))
    await replica.take(one, other, act(one.ticket_id, ActivityKind.REPLIED, ago(80)))
    await replica.take(act(other.ticket_id, ActivityKind.MERGED, ago(10), merged_into=one.ticket_id))
    merged, going_on = await clocks(replica, other.ticket_id), await clocks(replica, one.ticket_id)
    assert {clock.state for clock in merged.values()} == {State.CANCELLED}
    assert going_on[NEXT, 1].state is State.RUNNING
    assert abs((going_on[NEXT, 1].started_at - ago(10)).total_seconds()) < 5
    # A merge that is heard of before the ticket it goes into: kept for it.
    third, fourth = message(uuid.uuid4(), ago(60)), message(uuid.uuid4(), ago(50))
    await replica.take(fourth, act(fourth.ticket_id, ActivityKind.MERGED, ago(5), merged_into=third.ticket_id))
    await replica.take(third, act(third.ticket_id, ActivityKind.REPLIED, ago(40)))
    assert (await clocks(replica, third.ticket_id))[NEXT, 1].state is State.RUNNING


async def test_a_thank_you_after_the_resolution_starts_no_promise_but_a_question_does(replica: Replica) -> None:
    ticket = uuid.uuid4()
    opening = message(ticket, ago(100))
    await replica.take(opening, act(ticket, ActivityKind.REPLIED, ago(90)), act(ticket, ActivityKind.RESOLVED, ago(80)))
    settled = await clocks(replica, ticket)
    await replica.take(message(ticket, ago(70), opening.opened_at, text="好的，谢谢！", sequence=2))
    assert await clocks(replica, ticket) == settled
    await replica.take(
        message(
            ticket,
            ago(60),
            opening.opened_at,
            text="谢谢，但是还没到账",
            sequence=3,
            disposition=Disposition.REOPENED,
        )
    )
    reopened = await clocks(replica, ticket)
    assert reopened[NEXT, 1].state is reopened[RESOLUTION, 2].state is State.RUNNING


async def test_an_automatic_acknowledgement_meets_no_promise(replica: Replica) -> None:
    ticket = uuid.uuid4()
    await replica.take(message(ticket, ago(100)))
    automatic = act(ticket, ActivityKind.REPLIED, ago(99)).model_copy(update={"agent": "switchyard"})
    await replica.take(automatic)
    assert (await clocks(replica, ticket))[FIRST, 1].state is State.RUNNING
    await replica.take(act(ticket, ActivityKind.REPLIED, ago(50), agent_group="payments"))
    first = (await clocks(replica, ticket))[FIRST, 1]
    assert (first.state, first.used_seconds, first.agent_group) == (State.MET, 50, "payments")


async def test_the_category_chooses_the_rule_and_a_breach_is_followed_by_calls(settings: Settings) -> None:
    settings.sla_timer_policies_file.write_text(
        """\
rules:
  default: {calendar: always, targets: {"*": {first_response: 1h, next_response: 1h, resolution: 4h}}}
  theft:
    category: account_security
    calendar: always
    warnings: [20s]
    escalations: [{to: lead, after: 10s}, {to: head, after: 20s}, {to: on_call, after: 1h}]
    targets: {P1: {first_response: 40s, next_response: 1m, periodic_update: 30m, resolution: 4h}}
""",
        encoding="utf-8",
    )
    async with replicas(settings) as (replica,):
        opening = message(uuid.uuid4(), ago(65))
        await replica.take(opening, routed(opening, Priority.P1, category=Category.ACCOUNT_SECURITY))
        told = [event for event in await replica.told() if event.target is FIRST]
        assert [(event.kind, event.escalation) for event in told] == [
            (SlaKind.STARTED, None),
            (SlaKind.WARNING, None),
            (SlaKind.BREACHED, None),
            (SlaKind.ESCALATED, EscalationLevel.LEAD),
            (SlaKind.ESCALATED, EscalationLevel.HEAD),
        ]
        assert told[1].warning_before_seconds == 20
        assert told[1].at == opening.sent_at + timedelta(seconds=20)
        assert {event.category for event in told} == {Category.ACCOUNT_SECURITY}
        assert {event.policy for event in told} == {"theft/P1"}


# --- on time, whatever happens ---------------------------------------------------------------------------------------


async def test_after_a_stop_of_an_hour_all_that_came_due_fires_at_once_and_is_marked_late(settings: Settings) -> None:
    async with replicas(settings, 2) as team:
        openings = [message(uuid.uuid4(), datetime.now(UTC)) for _ in range(1200)]
        await team[0].take(*openings, *(routed(opening, Priority.P1) for opening in openings))
        async with team[0].database.transaction() as connection:  # nobody was there for an hour
            await connection.execute(
                text(
                    "UPDATE sla_timer.clocks SET started_at = started_at - '1 hour'::interval, "
                    "due_at = due_at - '1 hour'::interval, alarms = (SELECT jsonb_agg(jsonb_set(alarm, '{at}', "
                    "to_jsonb((alarm->>'at')::timestamptz - '1 hour'::interval))) "
                    "FROM jsonb_array_elements(alarms) AS alarm)"
                )
            )
            for table, columns in (
                ("tickets", ("opened_at", "alarm_at")),
                ("happenings", ("at",)),
                ("deadlines", ("due_at", "planned_at")),
            ):
                moved = ", ".join(f"{column} = {column} - '1 hour'::interval" for column in columns)
                await connection.execute(text(f"UPDATE sla_timer.{table} SET {moved} WHERE true"))
        runners = [asyncio.create_task(replica.runner().run()) for replica in team]

        async def nothing_left() -> bool:
            return await team[0].deadlines() == 0

        try:
            await eventually(nothing_left)
        finally:
            for runner in runners:
                runner.cancel()
            await asyncio.gather(*runners, return_exceptions=True)
        breaches = [event for event in await team[0].told() if event.kind is SlaKind.BREACHED]
        assert len(breaches) == 2 * len(openings)
        assert set(Counter(event.clock_id for event in breaches).values()) == {1}
        assert all(event.lateness_ms is not None and 3_590_000 < event.lateness_ms < 3_700_000 for event in breaches)


async def test_a_restarted_database_delays_and_neither_loses_nor_doubles(tmp_path: Path) -> None:
    """PostgreSQL goes away while promises come due; the service finds it again by itself."""
    with EmbeddedPostgres(tmp_path / "postgres") as server:
        await upgrade_all(server.url, ("sla_timer",))
        settings = settings_for(tmp_path, server.url)
        async with replicas(settings) as (replica,):
            openings = [message(uuid.uuid4(), datetime.now(UTC)) for _ in range(300)]
            await replica.take(*openings, *(routed(opening, Priority.P1) for opening in openings))
            async with running(settings):  # without a broker: its deadlines fire into the outbox
                await asyncio.to_thread(server.restart)

                async with replicas(settings) as (watcher,):  # whose connections are new

                    async def all_fired() -> bool:
                        return await watcher.deadlines() == 0

                    await eventually(all_fired)
                    told = await watcher.told()
        rang = Counter((event.clock_id, event.kind) for event in told if event.kind is SlaKind.BREACHED)
        assert set(rang.values()) == {1}
        assert len(rang) == 2 * len(openings)


async def test_leads_read_the_explanation_over_http(settings: Settings, replica: Replica) -> None:
    ticket = uuid.uuid4()
    await replica.take(message(ticket, ago(60)), act(ticket, ActivityKind.REPLIED, ago(30)))
    async with running(settings) as service:
        transport = httpx.ASGITransport(app=service.app())
        async with httpx.AsyncClient(
            transport=transport, base_url="http://sla-timer", headers={"Authorization": f"Bearer {TOKEN}"}
        ) as client:
            found = await client.get(f"/v1/clocks/{ticket}/explanation")
            assert found.status_code == 200
            assert "First response 1: met in time" in found.text
            assert (await client.get(f"/v1/clocks/{uuid.uuid4()}/explanation")).status_code == 404
