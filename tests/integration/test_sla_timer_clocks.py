"""Clocks on real PostgreSQL: events in, the outbox and the rows looked at; no broker."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text

from services.sla_timer.app import build
from services.sla_timer.domain.clocks import State
from services.sla_timer.settings import Settings
from services.sla_timer.storage import clocks_of
from shared import metrics
from shared.events import ActivityKind, Event, PeakKind, SlaEvent, SlaKind, Target
from shared.events.tickets import Disposition
from shared.taxonomy import Channel, Priority, Queue
from tests.support.sla_timer import TOKEN, Replica, act, message, replicas, routed, settings_for
from tests.support.waiting import eventually

FIRST, NEXT, RESOLUTION = Target.FIRST_RESPONSE, Target.NEXT_RESPONSE, Target.RESOLUTION


@pytest.fixture
async def settings(new_database: Callable[[], Awaitable[str]], tmp_path: Path) -> Settings:
    return settings_for(tmp_path, await new_database())


@pytest.fixture
async def replica(settings: Settings) -> AsyncIterator[Replica]:
    async with replicas(settings) as (replica,):
        yield replica


def ago(seconds: float) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=seconds)


def kinds(events: list[SlaEvent], target: Target) -> list[SlaKind]:
    return [event.kind for event in events if event.target is target]


async def test_a_ticket_from_its_opening_to_its_resolution(replica: Replica) -> None:
    ticket = uuid.uuid4()
    opening = message(ticket, ago(60))
    await replica.take(opening)
    await replica.take(routed(opening, Priority.P3))
    await replica.take(act(ticket, ActivityKind.CLAIMED, ago(50)), act(ticket, ActivityKind.REPLIED, ago(45)))
    await replica.take(act(ticket, ActivityKind.WAITING_ON_CUSTOMER, ago(40)))
    await replica.take(message(ticket, ago(20), opening.opened_at))
    await replica.take(act(ticket, ActivityKind.REPLIED, ago(15)), act(ticket, ActivityKind.RESOLVED, ago(10)))
    told = await replica.told(ticket)
    assert kinds(told, FIRST) == [SlaKind.STARTED, SlaKind.MET]
    assert kinds(told, NEXT) == [SlaKind.STARTED, SlaKind.MET]
    assert kinds(told, RESOLUTION) == [SlaKind.STARTED, SlaKind.PAUSED, SlaKind.RESUMED, SlaKind.MET]
    used = {event.target: event.business_seconds for event in told if event.kind is SlaKind.MET}
    assert used == {FIRST: 15, NEXT: 5, RESOLUTION: 30}  # 50 seconds, of which 20 were paused
    assert told[-1].queue is Queue.PAYMENTS
    assert await replica.deadlines() == 0
    async with replica.database.transaction() as connection:
        stored = (await clocks_of(connection, [ticket]))[ticket]
    assert {clock.state for clock in stored.values()} == {State.MET}


async def test_redelivered_events_change_nothing(replica: Replica) -> None:
    ticket = uuid.uuid4()
    opening = message(ticket, ago(60))
    story: list[Event] = [
        opening,
        routed(opening, Priority.P3),
        act(ticket, ActivityKind.REPLIED, ago(45)),
        message(ticket, ago(20), opening.opened_at),
    ]
    await replica.take(*story)
    told, rows = await replica.told(), await everything(replica)
    for event in story:
        await replica.take(event)
    await replica.take(*reversed(story), *story)
    assert await replica.told() == told
    assert await everything(replica) == rows


async def everything(replica: Replica) -> list[object]:
    async with replica.database.transaction() as connection:
        return [
            list(await connection.execute(text(f"SELECT * FROM sla_timer.{table} ORDER BY 1, 2")))
            for table in ("tickets", "happenings", "clocks", "arrivals", "deadlines")
        ]


async def test_what_comes_before_its_tickets_opening_is_kept(replica: Replica) -> None:
    ticket = uuid.uuid4()
    opening = message(ticket, ago(60))
    await replica.take(act(ticket, ActivityKind.REPLIED, ago(45)))
    assert await replica.told() == []
    await replica.take(opening)
    told = await replica.told(ticket)
    assert kinds(told, FIRST) == [SlaKind.STARTED, SlaKind.MET]
    # A routing introduces a ticket too: its message may come later.
    other = message(uuid.uuid4(), ago(30))
    await replica.take(routed(other, Priority.P3))
    assert kinds(await replica.told(other.ticket_id), FIRST) == [SlaKind.STARTED]
    before = len(await replica.told())
    await replica.take(other)
    assert len(await replica.told()) == before


async def test_any_order_of_arrival_ends_the_same(replica: Replica) -> None:
    """Many tickets with the same story, each in an order of its own."""
    order = random.Random(7)
    begun = ago(600)
    tickets = [uuid.uuid4() for _ in range(30)]
    arriving: list[Event] = []
    for ticket in tickets:
        opening = message(ticket, begun)
        story = [
            opening,
            routed(opening, Priority.P3),
            act(ticket, ActivityKind.REPLIED, begun + timedelta(seconds=60)),
            act(ticket, ActivityKind.WAITING_ON_CUSTOMER, begun + timedelta(seconds=90)),
            message(ticket, begun + timedelta(seconds=200), begun),
            act(ticket, ActivityKind.RESOLVED, begun + timedelta(seconds=300)),
            message(
                ticket,
                begun + timedelta(seconds=290),
                begun,
                disposition=Disposition.REOPENED,
                accepted_at=begun + timedelta(seconds=310),
            ),
            act(ticket, ActivityKind.CORRECTED, begun + timedelta(seconds=320), queue=Queue.CREDIT),
        ]
        order.shuffle(story)
        arriving += story
    order.shuffle(arriving)
    while arriving:
        await replica.take(*(arriving.pop() for _ in range(min(len(arriving), order.randint(1, 40)))))
    async with replica.database.transaction() as connection:
        found = await clocks_of(connection, sorted(tickets))
    outcomes = {
        tuple(
            sorted(
                (clock.target, clock.generation, clock.state, clock.used_seconds, clock.started_at, clock.queue)
                for clock in clocks.values()
            )
        )
        for clocks in found.values()
    }
    assert len(found) == 30
    (outcome,) = outcomes
    assert [(item[0], item[1], item[2], item[3]) for item in outcome] == [
        (FIRST, 1, State.MET, 60),
        (NEXT, 1, State.CANCELLED, None),  # resolved without another answer
        (NEXT, 2, State.RUNNING, None),  # and the message that reopened it is owed one
        (RESOLUTION, 1, State.MET, 190),
        (RESOLUTION, 2, State.RUNNING, None),
    ]


async def test_it_warns_and_breaches_at_the_due_time_once_on_any_of_three_replicas(settings: Settings) -> None:
    async with replicas(settings, 3) as team:
        runners = [asyncio.create_task(replica.runner().run()) for replica in team]
        try:
            openings = [message(uuid.uuid4(), datetime.now(UTC)) for _ in range(60)]
            for index, opening in enumerate(openings):
                await team[index % 3].take(opening, routed(opening, Priority.P1))

            async def all_breached() -> bool:
                told = await team[0].told()
                return sum(event.kind is SlaKind.BREACHED for event in told) >= 2 * len(openings)

            await eventually(all_breached)
        finally:
            for runner in runners:
                runner.cancel()
            await asyncio.gather(*runners, return_exceptions=True)
        told = await team[0].told()
        rang = [event for event in told if event.kind in (SlaKind.WARNING, SlaKind.BREACHED)]
        assert set(Counter((event.clock_id, event.kind) for event in rang).values()) == {1}
        assert len(rang) == 4 * len(openings)  # a warning and a breach of each first response and resolution
        for event in rang:
            assert event.fired_at is not None
            assert event.fired_at >= event.at
            expected = event.started_at + timedelta(seconds=event.target_seconds * (event.warning_share or 1))
            assert event.at == expected
        assert await team[0].deadlines() == 0


async def test_what_came_due_while_nobody_ran_fires_at_once_and_says_how_late(settings: Settings) -> None:
    ticket = uuid.uuid4()
    async with replicas(settings) as (first,):
        opening = message(ticket, datetime.now(UTC))
        await first.take(opening, routed(opening, Priority.P1))
    due_at = opening.sent_at + timedelta(seconds=1)

    async def is_overdue() -> bool:
        return datetime.now(UTC) > due_at + timedelta(milliseconds=100)

    await eventually(is_overdue)  # nobody runs
    async with replicas(settings) as (second,):
        assert await second.firing.on_due() == 1
        (breach,) = [event for event in await second.told(ticket) if event.kind is SlaKind.BREACHED]
        assert breach.at == breach.due_at == due_at
        assert breach.fired_at is not None
        assert breach.lateness_ms == (breach.fired_at - due_at) // timedelta(milliseconds=1)
        assert breach.lateness_ms >= 100
        await second.firing.on_due()
        assert kinds(await second.told(ticket), FIRST).count(SlaKind.BREACHED) == 1


async def test_a_promise_is_watched_while_the_classifier_is_down(replica: Replica) -> None:
    opening = message(uuid.uuid4(), ago(2000))
    await replica.take(opening)
    told = await replica.told(opening.ticket_id)
    assert kinds(told, FIRST) == [SlaKind.STARTED, SlaKind.WARNING]  # half of the hour of a P3 has gone by
    assert told[0].priority is Priority.P3
    assert told[0].queue is None
    await replica.take(routed(opening, Priority.P2, Queue.ACCESS, decided_at=datetime.now(UTC)))
    later = (await replica.told(opening.ticket_id))[len(told) :]
    assert kinds(later, FIRST) == [SlaKind.REPLANNED, SlaKind.BREACHED]
    assert later[0].queue is Queue.ACCESS


async def test_handlers_and_runners_never_wait_for_each_other_in_a_circle(settings: Settings) -> None:
    """Replies race with deadlines on the same tickets: a deadlock would be an error, a double effect a wrong count."""
    async with replicas(settings, 4) as team:
        openings = [message(uuid.uuid4(), datetime.now(UTC)) for _ in range(150)]
        await team[0].take(*openings, *(routed(opening, Priority.P1) for opening in openings))
        runners = [asyncio.create_task(replica.runner().run()) for replica in team[:2]]
        order = random.Random(3)

        async def reply_all(replica: Replica) -> None:
            # Until every first response has been breached or met, each ticket is answered again and again.
            while datetime.now(UTC) < openings[0].sent_at + timedelta(seconds=1.3):
                some = order.sample(openings, 40)
                await replica.take(
                    *(act(item.ticket_id, ActivityKind.REPLIED, datetime.now(UTC)) for item in some),
                    *(message(item.ticket_id, datetime.now(UTC), item.opened_at) for item in some),
                )

        try:
            await asyncio.gather(*(reply_all(replica) for replica in team[2:]))
            assert not any(runner.done() for runner in runners)
        finally:
            for runner in runners:
                runner.cancel()
            await asyncio.gather(*runners, return_exceptions=True)
        told = await team[0].told()
        rang = Counter(
            (event.clock_id, event.kind) for event in told if event.kind in (SlaKind.WARNING, SlaKind.BREACHED)
        )
        assert set(rang.values()) <= {1}
        steps: dict[uuid.UUID, list[int]] = {}
        for event in told:
            steps.setdefault(event.clock_id, []).append(event.step)
        assert all(found == list(range(1, len(found) + 1)) for found in steps.values())


async def test_an_edited_policy_replans_open_promises_and_leaves_history(settings: Settings) -> None:
    ended, going = message(uuid.uuid4(), ago(100)), message(uuid.uuid4(), ago(100))
    async with replicas(settings) as (before,):
        await before.take(ended, going, act(ended.ticket_id, ActivityKind.RESOLVED, ago(50)))
        told = len(await before.told())
    policies = settings.sla_timer_policies_file
    policies.write_text(
        policies.read_text(encoding="utf-8").replace('"*": {first_response: 1h', '"*": {first_response: 2h')
    )
    async with replicas(settings) as (after,):
        await after.firing.replan()
        (event,) = (await after.told())[told:]
        assert (event.ticket_id, event.target, event.kind) == (going.ticket_id, FIRST, SlaKind.REPLANNED)
        assert event.due_at == going.sent_at + timedelta(hours=2)
        await after.firing.replan()
        assert len(await after.told()) == told + 1


# --- peaks, and what leads look at -----------------------------------------------------------------------------------


async def test_arrivals_are_counted_once_and_a_surge_begins_a_peak(replica: Replica) -> None:
    openings = [message(uuid.uuid4(), ago(120)) for _ in range(12)]
    counted = metrics.ARRIVALS.labels("upay", Queue.PAYMENTS, Channel.APP_CHAT)._value.get()
    for _ in range(2):
        await replica.take(*(routed(opening, Priority.P3) for opening in openings))
    assert metrics.ARRIVALS.labels("upay", Queue.PAYMENTS, Channel.APP_CHAT)._value.get() == counted + 12
    await replica.take(routed(openings[0], Priority.P3, Queue.REFUNDS, revision=2))
    for _ in range(2):
        await look_at_arrivals(replica)
    (began,) = await replica.peaks()
    assert (began.brand, began.queue, began.kind, began.seen_arrivals) == ("upay", Queue.PAYMENTS, PeakKind.BEGAN, 12)
    # Twenty minutes on, nobody has come any more.
    async with replica.database.transaction() as connection:
        await connection.execute(text("UPDATE sla_timer.arrivals SET at = at - '20 minutes'::interval"))
    await look_at_arrivals(replica)
    _, ended = await replica.peaks()
    assert (ended.kind, ended.began_at, ended.seen_arrivals) == (PeakKind.ENDED, began.began_at, 0)


async def look_at_arrivals(replica: Replica) -> None:
    await replica.firing.schedule_peaks()
    async with replica.database.transaction() as connection:
        await connection.execute(text("UPDATE sla_timer.deadlines SET due_at = now() WHERE kind = 'peaks'"))
    assert await replica.firing.on_due() == 1


async def test_what_is_usual_at_this_time_of_the_week_is_no_peak(replica: Replica) -> None:
    at = ago(120)
    usual = [message(uuid.uuid4(), at - timedelta(weeks=week)) for week in (1, 2) for _ in range(12)]
    await replica.take(*(routed(opening, Priority.P3) for opening in usual))
    await replica.take(*(routed(message(uuid.uuid4(), at), Priority.P3) for _ in range(12)))
    await look_at_arrivals(replica)
    assert await replica.peaks() == []


async def test_leads_see_clocks_and_hours(settings: Settings, replica: Replica) -> None:
    now = datetime.now(UTC)
    opened_at = now - timedelta(seconds=1000)
    openings = [message(uuid.uuid4(), opened_at) for _ in range(10)]
    replies = [
        act(opening.ticket_id, ActivityKind.REPLIED, opened_at + timedelta(seconds=10 * (index + 1)))
        for index, opening in enumerate(openings)
    ]
    await replica.take(*openings, *(routed(opening, Priority.P3) for opening in openings), *replies)
    async with AsyncExitStack() as stack:
        service = build(settings)
        stack.push_async_callback(service.database.close)
        client = await stack.enter_async_context(
            httpx.AsyncClient(transport=httpx.ASGITransport(app=service.app()), base_url="http://sla-timer")
        )
        assert (await client.get("/v1/peaks")).status_code == 401
        assert (await client.get("/v1/peaks", headers={"Authorization": "Bearer wrong"})).status_code == 401
        client.headers["Authorization"] = f"Bearer {TOKEN}"
        hours = (await client.get("/v1/peaks")).json()
        assert sum(row["arrivals"] for row in hours["arrivals"]) == 10
        (row,) = hours["first_response"]
        assert (row["answered"], row["p50_seconds"], row["p90_seconds"], row["within_target"]) == (10, 50, 90, 10)
        overview = (await client.get("/v1/clocks")).json()
        assert overview["open"] == {
            "first_response": 0,
            "next_response": 0,
            "periodic_update": 0,
            "resolution": 10,
        }
        assert len(overview["next_due"]) == 10
        ticket = (await client.get("/v1/clocks", params={"ticket_id": str(openings[0].ticket_id)})).json()
        assert [(clock["target"], clock["state"]) for clock in ticket["clocks"]] == [
            ("first_response", "met"),
            ("resolution", "running"),
        ]
        assert (await client.get("/v1/clocks", params={"ticket_id": "none"})).status_code == 422


async def test_without_a_token_it_answers_nobody(settings: Settings) -> None:
    service = build(settings.model_copy(update={"sla_timer_api_token": None}))
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=service.app()), base_url="http://sla-timer"
    ) as client:
        answer = await client.get("/v1/clocks", headers={"Authorization": "Bearer anything"})
    assert answer.status_code == 403
    await service.database.close()


async def test_what_has_ended_is_forgotten_in_time_and_what_is_open_never(replica: Replica) -> None:
    ended, going = message(uuid.uuid4(), ago(100)), message(uuid.uuid4(), ago(100))
    await replica.take(ended, going, routed(ended, Priority.P3), act(ended.ticket_id, ActivityKind.RESOLVED, ago(50)))
    day = timedelta(days=1)
    await replica.firing.forget(day, day)
    assert len((await everything(replica))[0]) == 2  # type: ignore[arg-type]
    await replica.firing.forget(-day, -day)
    tickets, happenings, clocks, arrivals, _ = await everything(replica)
    assert [row.ticket_id for row in tickets] == [going.ticket_id]  # type: ignore[attr-defined]
    assert (happenings, arrivals) == ([], [])
    assert {row.ticket_id for row in clocks} == {going.ticket_id}  # type: ignore[attr-defined]
