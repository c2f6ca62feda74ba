"""The desk on a real broker and PostgreSQL: claims in order, actions to `tickets.activity`, other tools, take-back."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from shared import metrics
from shared.events import (
    ActivityKind,
    DecisionTrace,
    NotificationKind,
    NotificationOutcome,
    NotificationStatus,
    Output,
    PeakEvent,
    PeakKind,
    PolicyChanged,
    ReleaseReason,
    SlaKind,
    derive_id,
)
from shared.taxonomy import Channel, Priority, Queue
from tests.support.desk import BOSS, ELSE, MEI, PAY, TOM, WALL, World, running_desk
from tests.support.surroundings import Kafka
from tests.support.waiting import eventually
from tests.unit.desk.samples import T0, activity, at, clock_event, message, minutes, points_in, routed

Worlds = Callable[..., AbstractAsyncContextManager[World]]


@pytest.fixture
def desk_of(kafka: Kafka, new_database: Callable[[], Awaitable[str]], tmp_path: Path) -> Worlds:
    @asynccontextmanager
    async def start(**changes: Any) -> AsyncIterator[World]:
        async with running_desk(kafka, await new_database(), tmp_path, **changes) as world:
            yield world

    return start


@pytest.fixture
async def world(desk_of: Worlds) -> AsyncIterator[World]:
    async with desk_of() as running:
        yield running


# --- claiming ------------------------------------------------------------------------------------------------------


async def test_tickets_are_claimed_in_queue_order(world: World) -> None:
    tickets = [
        world.ticket(priority=Priority.P3, decided_at=at(-130)),  # rank -10: waited out its 2 hours
        world.ticket(priority=Priority.P1, decided_at=at(-5)),  # rank -5
        world.ticket(priority=Priority.P2, decided_at=at(-19)),  # rank -4
        world.ticket(priority=Priority.P1, decided_at=at(-3)),  # rank -3
        world.ticket(priority=Priority.P4, decided_at=at(-482)),  # rank -2
        world.ticket(priority=Priority.P3, decided_at=at(-4)),  # rank 116
        world.ticket(priority=Priority.P1, decided_at=at(-60), queue=Queue.SECURITY),  # elsewhere
    ]
    await world.waiting(*reversed(tickets))
    claimed = [(await world.claim())["ticket_id"] for _ in range(6)]
    assert claimed == [str(ticket.ticket_id) for ticket in tickets[:6]]
    empty = await world.post("/v1/queues/payments/claim")
    assert (empty.status_code, empty.content) == (204, b"")


async def test_twenty_at_once_get_twenty_tickets(world: World) -> None:
    tickets = [world.ticket(decided_at=at(number)) for number in range(20)]
    await world.waiting(*tickets)
    answers = await asyncio.gather(
        *(world.post("/v1/queues/payments/claim", (MEI, TOM)[number % 2]) for number in range(20))
    )
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["ticket_id"] for answer in answers} == {str(ticket.ticket_id) for ticket in tickets}


async def test_a_ticket_that_a_batch_holds_is_waited_for_and_not_passed_over(world: World) -> None:
    """A batch of events locks all that waits, and takes the first away: claimers wait, and get the second and third."""
    first, second, third = (world.ticket(decided_at=at(number)) for number in range(3))
    await world.waiting(first, second, third)
    batch = await asyncpg.connect(world.database_url)
    watch = await asyncpg.connect(world.database_url)
    try:
        holding = batch.transaction()
        await holding.start()
        await batch.execute("SELECT FROM desk.tickets ORDER BY ticket_id FOR UPDATE")
        await batch.execute("UPDATE desk.tickets SET state = 'resolved' WHERE ticket_id = $1", first.ticket_id)
        claims = [asyncio.create_task(world.claim(token)) for token in (MEI, TOM)]

        async def both_wait() -> bool:
            return bool(
                await watch.fetchval(
                    "SELECT count(*) = 2 FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
                    "AND application_name = 'switchyard-desk' AND datname = current_database()"
                )
            )

        await eventually(both_wait)
        await holding.commit()
        claimed = [(await claim)["ticket_id"] for claim in claims]
    finally:
        await batch.close()
        await watch.close()
    assert sorted(claimed) == sorted([str(second.ticket_id), str(third.ticket_id)])


async def test_a_repeated_claim_gets_the_same_ticket(world: World) -> None:
    assert (await world.post("/v1/queues/payments/claim", key="early")).status_code == 204
    tickets = [world.ticket(decided_at=at(number)) for number in range(3)]
    await world.waiting(*tickets)
    answers = await asyncio.gather(*(world.post("/v1/queues/payments/claim", key="one") for _ in range(6)))
    assert {answer.json()["ticket_id"] for answer in answers} == {str(tickets[0].ticket_id)}
    # The key whose claim found nothing did nothing: sent again it is tried again. Another agent's key is another.
    assert (await world.claim(key="early"))["ticket_id"] == str(tickets[1].ticket_id)
    assert (await world.claim(TOM, key="one"))["ticket_id"] == str(tickets[2].ticket_id)
    reused = await world.post(f"/v1/tickets/{tickets[0].ticket_id}/resolve", key="one")
    assert (reused.status_code, reused.json()["errors"][0]["field"]) == (422, "Idempotency-Key")
    await world.activities(tickets[0].ticket_id, [ActivityKind.CLAIMED])


# --- actions -------------------------------------------------------------------------------------------------------


async def test_every_action_leaves_through_tickets_activity(world: World) -> None:
    duplicates = _duplicates()
    ticket = world.ticket()
    path = f"/v1/tickets/{ticket.ticket_id}"
    await world.waiting(ticket)
    await world.claim()
    replied = await world.post(f"{path}/reply", body={"text": "卡号 4111 1111 1111 1111 已收到"}, key="r1")
    assert replied.json()["state"] == "claimed"
    assert (await world.post(f"{path}/wait", body={"note": "asked for the order"})).json()["state"] == (
        "waiting_on_customer"
    )
    assert (await world.post(f"{path}/resolve")).json()["state"] == "resolved"
    assert (await world.post(f"{path}/reopen")).json()["claimed_by"] == "mei"
    assert (await world.post(f"{path}/release")).json()["state"] == "queued"
    await world.claim()
    moved = (await world.post(f"{path}/reroute", body={"category": "dispute", "priority": "P1"})).json()
    assert (moved["queue"], moved["category"], moved["priority"], moved["state"]) == (
        "refunds",
        "dispute",
        "P1",
        "queued",
    )
    kinds = [
        ActivityKind.CLAIMED,
        ActivityKind.REPLIED,
        ActivityKind.WAITING_ON_CUSTOMER,
        ActivityKind.RESOLVED,
        ActivityKind.REOPENED,
        ActivityKind.RELEASED,
        ActivityKind.CLAIMED,
        ActivityKind.CORRECTED,
    ]
    told = await world.activities(ticket.ticket_id, kinds)
    assert told[1].text == "卡号 [card] 已收到"
    assert told[5].release_reason is ReleaseReason.AGENT
    assert (told[7].queue, told[7].priority) == (Queue.REFUNDS, Priority.P1)
    assert {(item.agent, item.agent_group) for item in told} == {("mei", "wallets")}

    # Its own echoes change nothing: every act stands in the history once, and the state is what the last one left.
    # A rating that comes after a repetition of one of them says that the desk has taken that in too.
    await world.publish(told[3], activity(ticket.ticket_id, ActivityKind.RATED, at(0)))
    await world.heard(ticket.ticket_id, "rated")

    async def known() -> bool:
        return _duplicates() >= duplicates + len(kinds) + 1  # the echoes and the repetition

    await eventually(known)
    detail = await world.ticket_now(ticket.ticket_id)
    assert [item["kind"] for item in detail["history"] if item["kind"] != "rated"] == ["routed", *kinds]
    assert (detail["state"], detail["queue"]) == ("queued", "refunds")
    assert "4111" not in str(detail)
    assert detail["decision"]["trace"]["decided_by"] == "model"


def _duplicates() -> float:
    labels = {"group": "desk.tickets.activity"}
    return metrics.REGISTRY.get_sample_value("switchyard_records_duplicate_total", labels) or 0


async def test_a_repeated_action_is_done_once(world: World) -> None:
    ticket = world.ticket()
    await world.waiting(ticket)
    await world.claim()
    answers = await asyncio.gather(
        *(world.post(f"/v1/tickets/{ticket.ticket_id}/reply", body={"text": "请稍等"}, key="same") for _ in range(5))
    )
    assert [answer.status_code for answer in answers] == [200] * 5
    assert [item["kind"] for item in answers[0].json()["history"]].count("replied") == 1
    other = await world.post(f"/v1/tickets/{ticket.ticket_id}/reply", body={"text": "别的"}, key="same")
    assert other.status_code == 422
    told = await world.activities(ticket.ticket_id, [ActivityKind.CLAIMED, ActivityKind.REPLIED])
    assert told[1].activity_id == f"desk:{derive_id('desk.request', 'mei', 'same')}"


async def test_a_refusal_says_which_state_or_who_holds_it(world: World) -> None:
    ticket = world.ticket()
    path = f"/v1/tickets/{ticket.ticket_id}"
    await world.waiting(ticket)
    early = await world.post(f"{path}/reply", body={"text": "hello"})
    assert (early.status_code, early.json()["errors"][0]["detail"]) == (409, "not_claimed")
    await world.claim()
    other = await world.post(f"{path}/resolve", TOM)
    assert (other.status_code, other.json()["errors"][0]["detail"]) == (409, "claimed_by_another")
    assert "mei" in other.json()["detail"]
    assert other.headers["content-type"] == "application/problem+json"
    assert (await world.post(f"{path}/resolve", BOSS)).json()["claimed_by"] == "boss"
    again = await world.post(f"{path}/wait", BOSS)
    assert (again.status_code, again.json()["errors"][0]["detail"]) == (409, "wrong_state")
    assert "resolved" in again.json()["detail"]
    # A refused request with a key did nothing and is not remembered: it works once the state allows it.
    assert (await world.post(f"{path}/release", BOSS, key="later")).status_code == 409
    assert (await world.post(f"{path}/reopen", BOSS)).status_code == 200
    assert (await world.post(f"{path}/release", BOSS, key="later")).status_code == 200


@pytest.mark.parametrize(
    ("action", "body", "field"),
    [
        ("reply", {}, "text"),
        ("reply", {"text": "   "}, "text"),
        ("reply", {"text": "x" * 20_001}, "text"),
        ("reroute", {"queue": "nowhere"}, "queue"),
        ("reroute", {"note": "somewhere"}, "body"),
        ("resolve", {"text": "wrong name"}, "text"),
        ("merge", {"note": "where to?"}, "into"),
        ("merge", {"into": "nonsense"}, "into"),
    ],
)
async def test_a_wrong_body_names_its_field(world: World, action: str, body: dict[str, Any], field: str) -> None:
    answer = await world.post(f"/v1/tickets/{uuid.uuid4()}/{action}", body=body)
    assert answer.status_code == 422
    assert field in answer.json()["errors"][0]["field"]


# --- merging -------------------------------------------------------------------------------------------------------


async def test_a_merged_ticket_is_resolved_and_the_other_goes_on_for_both(world: World) -> None:
    chat, mail = world.ticket(decided_at=at(1)), world.ticket(decided_at=at(2))
    path = f"/v1/tickets/{chat.ticket_id}"
    await world.waiting(chat, mail)
    await world.claim()
    await world.claim(TOM)
    assert (await world.post(f"/v1/tickets/{mail.ticket_id}/wait", TOM)).status_code == 200
    body = {"into": str(mail.ticket_id), "note": "同一件事"}
    assert (await world.post(f"{path}/merge", TOM, body=body)).json()["errors"][0]["detail"] == "claimed_by_another"
    answers = [await world.post(f"{path}/merge", body=body, key="once") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    merged = answers[1].json()
    assert (merged["state"], merged["merged_into"]) == ("resolved", str(mail.ticket_id))
    last = merged["history"][-1]
    assert (last["kind"], last["payload"]["merged_into"]) == ("merged", str(mail.ticket_id))
    other = await world.ticket_now(mail.ticket_id)
    # It waited on the customer: what he wrote in the merged one is for its agents to read now.
    assert (other["state"], other["merged_here"], other["merged_into"]) == ("queued", [str(chat.ticket_id)], None)
    told = await world.activities(chat.ticket_id, [ActivityKind.CLAIMED, ActivityKind.MERGED])
    assert (told[1].merged_into, told[1].agent_group, told[1].text) == (mail.ticket_id, "wallets", "同一件事")

    refused = await world.post(f"{path}/reopen", BOSS)
    assert (refused.status_code, refused.json()["errors"][0]["detail"]) == (409, "merged")
    assert str(mail.ticket_id) in refused.json()["detail"]
    # Its customer is heard all the same; thanks alone changes nothing.
    await world.publish(message(chat.ticket_id, 2, brand=world.brand, text="谢谢"))
    await world.heard(chat.ticket_id, "message")
    assert (await world.ticket_now(chat.ticket_id))["merged_into"] == str(mail.ticket_id)
    await world.publish(message(chat.ticket_id, 3, brand=world.brand, text="还没到账", disposition="reopened"))
    await world.comes_to(chat.ticket_id, "queued")
    assert (await world.ticket_now(chat.ticket_id))["merged_into"] is None
    assert (await world.ticket_now(mail.ticket_id))["merged_here"] == []


async def test_a_merge_that_leads_nowhere_is_refused_with_the_reason(world: World) -> None:
    tickets = [world.ticket(decided_at=at(number)) for number in range(3)]
    foreign = routed(uuid.uuid4(), brand="another_brand")
    await world.waiting(*tickets)
    await world.publish(foreign)

    async def known() -> bool:
        return (await world.get(f"/v1/tickets/{foreign.ticket_id}", ELSE)).status_code == 200

    await eventually(known)
    first, second, third = (ticket.ticket_id for ticket in tickets)
    for _ in tickets:
        await world.claim()

    async def merged(one: uuid.UUID, other: uuid.UUID, token: str = MEI) -> tuple[int, str, str]:
        answer = await world.post(f"/v1/tickets/{one}/merge", token, body={"into": str(other)})
        if answer.status_code == 200:
            return 200, "", ""
        return answer.status_code, answer.json()["errors"][0]["field"], answer.json()["errors"][0]["detail"]

    assert await merged(first, first) == (422, "into", "same_ticket")
    assert await merged(first, uuid.uuid4()) == (422, "into", "no_such_ticket")
    assert await merged(first, foreign.ticket_id) == (422, "into", "no_such_ticket")  # not theirs to see
    assert await merged(first, second) == (200, "", "")
    assert await merged(second, first) == (409, "state", "merged")
    assert await merged(third, first) == (409, "state", "merged")
    assert await merged(third, second, BOSS) == (200, "", "")  # a lead may, like resolving
    assert await merged(second, third) == (409, "state", "merged")
    assert (await world.ticket_now(second))["merged_here"] == [str(first), str(third)]


async def test_two_who_merge_a_pair_into_each_other_at_once_make_no_circle(world: World) -> None:
    pairs = [(world.ticket(decided_at=at(number)), world.ticket(decided_at=at(number))) for number in range(5)]
    await world.waiting(*(ticket for pair in pairs for ticket in pair))
    for _ in range(10):
        await world.claim()
    for one, other in pairs:
        answers = await asyncio.gather(
            world.post(f"/v1/tickets/{one.ticket_id}/merge", body={"into": str(other.ticket_id)}),
            world.post(f"/v1/tickets/{other.ticket_id}/merge", BOSS, body={"into": str(one.ticket_id)}),
        )
        assert sorted(answer.status_code for answer in answers) == [200, 409]


async def test_a_merge_by_another_tool_takes_the_other_ticket_up(world: World) -> None:
    ticket, other = world.ticket(decided_at=at(1)), world.ticket(decided_at=at(2))
    await world.waiting(ticket, other)
    await world.publish(activity(other.ticket_id, ActivityKind.RESOLVED, at(5), "kafka"))
    await world.comes_to(other.ticket_id, "resolved")
    await world.publish(activity(ticket.ticket_id, ActivityKind.MERGED, at(6), "kafka", merged_into=other.ticket_id))
    await world.comes_to(ticket.ticket_id, "resolved")
    shown = await world.ticket_now(other.ticket_id)
    assert (shown["state"], shown["enqueued_at"], shown["merged_here"]) == (
        "queued",
        "2026-03-02T09:06:00Z",
        [str(ticket.ticket_id)],
    )


# --- points --------------------------------------------------------------------------------------------------------

TWO_MATTERS = points_in("充值没到账。怎么提现", missing_funds="充值没到账。", withdrawal="怎么提现")
ONE_MATTER = points_in("卡也绑不上", card_binding="卡也绑不上")


async def test_the_points_of_all_messages_are_listed_once_in_their_order(world: World) -> None:
    first = world.ticket(**TWO_MATTERS)
    ticket_id = first.ticket_id
    second = routed(ticket_id, brand=world.brand, revision=2, sequence=2, decided_at=at(1), **ONE_MATTER)
    await world.waiting(second)
    await world.publish(first)  # another queue's topic may be slower

    async def both() -> bool:
        return len((await world.ticket_now(ticket_id))["points"]) == 3

    await eventually(both)
    await world.claim()
    shown = await world.ticket_now(ticket_id)
    assert [(point["sequence"], point["start"], point["end"], point["text"]) for point in shown["points"]] == [
        (1, 0, 6, "充值没到账。"),
        (1, 6, 10, "怎么提现"),
        (2, 0, 5, "卡也绑不上"),
    ]
    assert [point["category"] for point in shown["points"]] == ["missing_funds", "withdrawal", "card_binding"]
    assert {point["message_event_id"] for point in shown["points"]} == {str(first.cause_id), str(second.cause_id)}
    assert shown["open_points"] == 3
    ticked = (await world.tick(ticket_id, shown["points"][1]["point_id"])).json()

    # What comes again changes nothing: redeliveries, and an agent's correction, which tells of the message once more.
    thanks = routed(ticket_id, brand=world.brand, revision=3, sequence=3, **points_in("谢谢", other="谢谢"))
    correction = routed(
        ticket_id,
        brand=world.brand,
        revision=4,
        sequence=2,
        cause_id=uuid.uuid4(),
        trace=DecisionTrace(decided_by="agent:mei", model="test"),
        **ONE_MATTER,
    )
    await world.publish(first, second, thanks)
    await world.waiting(correction)
    after = await world.ticket_now(ticket_id)
    assert (after["points"], after["open_points"]) == (ticked["points"], 2)


async def test_points_are_ticked_off_and_opened_again(world: World) -> None:
    ticket = world.ticket(**TWO_MATTERS)
    await world.waiting(ticket)
    claimed = await world.claim()
    one, other = (point["point_id"] for point in claimed["points"])
    assert [point["done_at"] for point in claimed["points"]] == [None, None]

    ticked = (await world.tick(ticket.ticket_id, one)).json()
    assert ticked["open_points"] == 1
    assert [point["done_by"] for point in ticked["points"]] == ["mei", None]
    assert ticked["points"][0]["done_at"] >= claimed["history"][-1]["at"]
    assert ticked["claim_expires_at"] > claimed["claim_expires_at"]  # a sign of life
    again = (await world.tick(ticket.ticket_id, one, BOSS)).json()
    assert again == ticked  # it stays who ticked it off first, and when

    listed = (await world.get("/v1/tickets?queue=payments")).json()["tickets"]
    assert [item["open_points"] for item in listed] == [1]
    await _payments_have(world, open_points=1)

    opened = (await world.tick(ticket.ticket_id, one, BOSS, done=False)).json()
    assert (opened["open_points"], opened["points"][0]["done_at"], opened["points"][0]["done_by"]) == (2, None, None)
    assert opened["claim_expires_at"] == ticked["claim_expires_at"]  # not the holder's
    assert (await world.tick(ticket.ticket_id, one, done=False)).json() == opened
    await _payments_have(world, open_points=2)

    left_open = _left_open()
    await world.tick(ticket.ticket_id, other)
    resolved = (await world.post(f"/v1/tickets/{ticket.ticket_id}/resolve", key="end")).json()
    assert (resolved["state"], resolved["open_points"]) == ("resolved", 1)
    assert (await world.post(f"/v1/tickets/{ticket.ticket_id}/resolve", key="end")).json() == resolved
    assert _left_open() == left_open + 1
    # Forgotten rather than left: who resolved it may still tick it off.
    assert (await world.tick(ticket.ticket_id, one)).json()["open_points"] == 0
    await world.activities(ticket.ticket_id, [ActivityKind.CLAIMED, ActivityKind.RESOLVED])


async def test_many_at_once_tick_a_point_off_once(world: World) -> None:
    ticket = world.ticket(**TWO_MATTERS)
    await world.waiting(ticket)
    points = [point["point_id"] for point in (await world.claim())["points"]]
    answers = await asyncio.gather(
        *(world.tick(ticket.ticket_id, points[number % 2], (MEI, BOSS)[number % 3 % 2]) for number in range(12))
    )
    assert {answer.status_code for answer in answers} == {200}
    listed = (await world.get("/v1/tickets")).json()["tickets"]
    assert [item["open_points"] for item in listed] == [0]
    done = {(point["done_by"], point["done_at"]) for answer in answers for point in answer.json()["points"]}
    assert len(done - {(None, None)}) == 2


async def test_a_tick_is_allowed_as_other_acts_are(world: World) -> None:
    ticket, other = world.ticket(decided_at=at(1), **TWO_MATTERS), world.ticket(decided_at=at(2), **ONE_MATTER)
    ticket_id = ticket.ticket_id
    await world.waiting(ticket, other)
    point = (await world.ticket_now(ticket_id))["points"][0]["point_id"]
    foreign = (await world.ticket_now(other.ticket_id))["points"][0]["point_id"]

    async def refused(point_id: str, token: str = MEI, done: Any = True) -> tuple[int, str]:
        answer = await world.tick(ticket_id, point_id, token, done=done)
        assert answer.headers["content-type"] == "application/problem+json"
        told = answer.json()
        return answer.status_code, told["errors"][0]["detail"] if told.get("errors") else told["detail"]

    assert await refused(point) == (409, "not_claimed")
    await world.claim()
    assert await refused(point, TOM) == (409, "claimed_by_another")
    assert (await refused(point, WALL))[0] == 403
    assert await refused(point, ELSE) == (404, f"there is no ticket {ticket_id}, or none that your token may see")
    for unknown in (foreign, str(uuid.uuid4())):
        assert await refused(unknown) == (404, f"ticket {ticket_id} has no point {unknown}: see its `points`")
    for wrong in ("yes", 1, None):
        assert (await refused(point, done=wrong))[0] == 422
    assert (await world.ticket_now(ticket_id))["open_points"] == 2
    assert (await world.tick(ticket_id, point, BOSS)).json()["points"][0]["done_by"] == "boss"


async def test_a_surviving_ticket_shows_the_points_of_those_merged_into_it(world: World) -> None:
    """`chat` into `mail` into `form`: points stay with their ticket, and are seen where the work goes on."""
    chat, mail, form = (
        world.ticket(decided_at=at(minute), **points)
        for minute, points in ((1, TWO_MATTERS), (2, ONE_MATTER), (3, points_in("退款呢", refund="退款呢")))
    )
    await world.waiting(chat, mail, form)
    for _ in range(3):
        await world.claim()
    for one, into in ((chat, mail), (mail, form)):
        merged = await world.post(f"/v1/tickets/{one.ticket_id}/merge", body={"into": str(into.ticket_id)})
        assert merged.status_code == 200
    shown = await world.ticket_now(form.ticket_id)
    assert [(point["ticket_id"], point["text"]) for point in shown["points"]] == [
        (str(form.ticket_id), "退款呢"),
        (str(chat.ticket_id), "充值没到账。"),  # merged first
        (str(chat.ticket_id), "怎么提现"),
        (str(mail.ticket_id), "卡也绑不上"),
    ]
    assert shown["open_points"] == 4
    listed = (await world.get("/v1/tickets?state=claimed")).json()["tickets"]
    assert [(item["ticket_id"], item["open_points"]) for item in listed] == [(str(form.ticket_id), 4)]
    await _payments_have(world, open_points=4)

    point = shown["points"][1]["point_id"]
    elsewhere = await world.tick(chat.ticket_id, point)
    assert (elsewhere.status_code, elsewhere.json()["errors"][0]["detail"]) == (409, "merged")
    ticked = (await world.tick(form.ticket_id, point)).json()
    assert (ticked["open_points"], ticked["points"][1]["done_by"]) == (3, "mei")
    await _payments_have(world, open_points=3)

    # The merge ends, and the ticket has its points again, one of them ticked off.
    await world.publish(message(chat.ticket_id, 2, brand=world.brand, text="还没到账", disposition="reopened"))
    await world.comes_to(chat.ticket_id, "queued")
    back = await world.ticket_now(chat.ticket_id)
    assert ([point["done_by"] for point in back["points"]], back["open_points"]) == (["mei", None], 1)
    assert (await world.ticket_now(form.ticket_id))["open_points"] == 2
    gone = await world.tick(form.ticket_id, point)
    assert gone.status_code == 404


async def test_tickets_that_other_tools_merged_in_a_circle_show_each_others_points(world: World) -> None:
    one, other = world.ticket(**TWO_MATTERS), world.ticket(**ONE_MATTER)
    await world.waiting(one, other)
    for merged, into in ((one, other), (other, one)):
        await world.publish(activity(merged.ticket_id, ActivityKind.MERGED, at(6), "kafka", merged_into=into.ticket_id))
        await world.heard(merged.ticket_id, "merged")
    for ticket, into in ((one, other), (other, one)):
        shown = await world.ticket_now(ticket.ticket_id)
        assert (shown["merged_into"], shown["open_points"]) == (str(into.ticket_id), 3)


async def _payments_have(world: World, *, open_points: int) -> None:
    """As the live queues tell everyone."""

    async def there() -> bool:
        queues = (await world.get("/v1/queues", WALL)).json()["queues"]
        return bool(next(item for item in queues if item["queue"] == "payments")["open_points"] == open_points)

    await eventually(there)


def _left_open() -> float:
    return metrics.REGISTRY.get_sample_value("switchyard_points_left_open_total", {"queue": "payments"}) or 0


# --- other tools, customers, clocks --------------------------------------------------------------------------------


async def test_what_other_tools_do_is_taken_in_also_before_the_ticket_is_known(world: World) -> None:
    ticket = world.ticket()
    await world.publish(activity(ticket.ticket_id, ActivityKind.CLAIMED, at(1), "kafka", brand=world.brand))
    await world.comes_to(ticket.ticket_id, "claimed")
    await world.waiting(ticket)
    detail = (await world.get(f"/v1/tickets/{ticket.ticket_id}")).json()
    assert (detail["state"], detail["claimed_by"], detail["queue"]) == ("claimed", "kafka", "payments")
    assert (await world.post("/v1/queues/payments/claim")).status_code == 204
    await world.publish(
        activity(ticket.ticket_id, ActivityKind.RESOLVED, at(3), "kafka"),
        activity(ticket.ticket_id, ActivityKind.RELEASED, at(2), "kafka"),  # late, and overtaken
    )
    await world.heard(ticket.ticket_id, "released")
    assert (await world.ticket_now(ticket.ticket_id))["state"] == "resolved"


async def test_what_a_customer_writes_puts_his_ticket_back_at_its_place(world: World) -> None:
    first, second = world.ticket(decided_at=at(1)), world.ticket(decided_at=at(2))
    await world.waiting(first, second)
    await world.claim()
    await world.post(f"/v1/tickets/{first.ticket_id}/wait")
    await world.publish(message(first.ticket_id, 2, brand=world.brand, text="这是订单号"))
    await world.comes_to(first.ticket_id, "queued")
    claimed = await world.claim(TOM)
    assert (claimed["ticket_id"], claimed["text"]) == (str(first.ticket_id), "这是订单号")
    await world.post(f"/v1/tickets/{first.ticket_id}/resolve", TOM)
    await world.publish(message(first.ticket_id, 3, brand=world.brand, disposition="reopened"))
    await world.comes_to(first.ticket_id, "queued")
    # A new wait: behind the one that has been waiting all the time.
    assert [(await world.claim())["ticket_id"] for _ in range(2)] == [str(second.ticket_id), str(first.ticket_id)]


async def test_promises_outcomes_and_peaks_are_shown(world: World) -> None:
    ticket = world.ticket()
    await world.waiting(ticket)
    outcome = NotificationOutcome(
        notification_id=uuid.uuid4(),
        ticket_id=ticket.ticket_id,
        brand=world.brand,
        kind=NotificationKind.ACKNOWLEDGEMENT,
        output=Output.MAIL,
        status=NotificationStatus.DELIVERED,
        attempt=1,
        at=at(1),
    )
    peak = PeakEvent(
        brand=world.brand,
        queue=Queue.PAYMENTS,
        kind=PeakKind.BEGAN,
        began_at=T0,
        at=T0,
        window_seconds=900,
        expected_arrivals=3,
        seen_arrivals=30,
        staff_needed=7,
    )
    started = clock_event(ticket.ticket_id, SlaKind.STARTED, 1, brand=world.brand)
    await world.publish(outcome, peak, started)
    await world.heard(ticket.ticket_id, "notification.delivered")
    await world.heard(ticket.ticket_id, "sla.started")

    async def payments() -> Any:
        queues = (await world.get("/v1/queues", WALL)).json()["queues"]
        assert [item["queue"] for item in queues] == list(Queue)
        return next(item for item in queues if item["queue"] == "payments")

    async def in_peak() -> bool:
        return bool((await payments())["peaks"])

    await eventually(in_peak)
    shown = await payments()
    assert shown["peaks"][0]["staff_needed"] == 7
    assert shown["by_priority"] == {"P1": 0, "P2": 0, "P3": 1, "P4": 0}
    assert (shown["waiting"], shown["claimed"], shown["breached"]) == (1, 0, 0)
    assert shown["next_due_at"] == "2026-03-02T09:10:00Z"
    assert shown["oldest_enqueued_at"] == "2026-03-02T09:00:00Z"

    await world.publish(clock_event(ticket.ticket_id, SlaKind.BREACHED, 2, brand=world.brand, breached=True))
    await world.publish(peak.model_copy(update={"kind": PeakKind.ENDED, "at": at(30)}))
    await world.heard(ticket.ticket_id, "sla.breached")

    async def calm() -> bool:
        return not (await payments())["peaks"]

    await eventually(calm)
    shown = await payments()
    assert (shown["breached"], shown["next_due_at"]) == (1, None)


async def test_a_peak_of_one_channel_begins_and_ends_by_itself(world: World) -> None:
    def peak(channel: Channel | None, kind: PeakKind, minute: float, staff: int | None = None) -> PeakEvent:
        return PeakEvent(
            brand=world.brand,
            queue=Queue.PAYMENTS,
            channel=channel,
            kind=kind,
            began_at=T0,
            at=at(minute),
            window_seconds=900,
            expected_arrivals=3,
            seen_arrivals=30,
            staff_needed=staff,
        )

    async def shown(expected: list[tuple[str | None, int | None]]) -> None:
        async def there() -> bool:
            queues = (await world.get("/v1/queues", WALL)).json()["queues"]
            peaks = next(item["peaks"] for item in queues if item["queue"] == "payments")
            return [(peak["channel"], peak["staff_needed"]) for peak in peaks] == expected

        await eventually(there)

    await world.publish(
        peak(Channel.EMAIL, PeakKind.BEGAN, 0, 2),
        peak(None, PeakKind.BEGAN, 0, 7),
        peak(Channel.APP_CHAT, PeakKind.BEGAN, 0, 5),
    )
    await shown([(None, 7), ("app_chat", 5), ("email", 2)])
    await world.publish(peak(Channel.EMAIL, PeakKind.ENDED, 30))
    await shown([(None, 7), ("app_chat", 5)])
    await world.publish(peak(None, PeakKind.ENDED, 31))
    await shown([("app_chat", 5)])


async def test_a_change_of_the_policies_is_of_no_ticket_and_no_dead_letter(world: World) -> None:
    ticket = world.ticket()
    await world.waiting(ticket)
    taken, dead = _counted("records_consumed"), _counted("dead_letters")
    await world.publish(
        clock_event(ticket.ticket_id, SlaKind.BREACHED, 2, brand=world.brand, breached=True),
        PolicyChanged(policy_version="p-2", previous_version="p-1", at=T0),
        clock_event(ticket.ticket_id, SlaKind.ESCALATED, 3, brand=world.brand, breached=True),
    )

    async def all_taken() -> bool:
        return _counted("records_consumed") >= taken + 3

    await eventually(all_taken)
    assert _counted("dead_letters") == dead
    detail = await world.ticket_now(ticket.ticket_id)
    assert {item["kind"] for item in detail["history"]} == {"routed", "sla.breached", "sla.escalated"}
    assert detail["clocks"]["first_response"]["kind"] == "breached"


def _counted(name: str) -> float:
    """The counter of this name over what `sla.events` brought the desk."""
    return sum(
        sample.value
        for family in metrics.REGISTRY.collect()
        for sample in family.samples
        if sample.name == f"switchyard_{name}_total" and sample.labels["group"] == "desk.sla.events"
    )


async def test_a_silent_agents_ticket_returns_to_its_place(desk_of: Worlds) -> None:
    before = _taken_back()
    async with desk_of(desk_take_back_minutes=0.005) as world:  # 0.3 s
        ticket = world.ticket()
        await world.waiting(ticket)
        claimed = await world.claim()
        await world.comes_to(ticket.ticket_id, "queued")
        back = await world.ticket_now(ticket.ticket_id)
        assert (back["claimed_by"], back["rank_at"]) == (None, claimed["rank_at"])
        told = await world.activities(ticket.ticket_id, [ActivityKind.CLAIMED, ActivityKind.RELEASED])
        assert (told[1].agent, told[1].release_reason) == ("switchyard", ReleaseReason.TAKE_BACK)
        assert (told[0].agent_group, told[1].agent_group) == ("wallets", None)
        assert (told[1].at - told[0].at) >= minutes(0.005)
        assert _taken_back() == before + 1


def _taken_back() -> float:
    labels = {"brand": "other", "queue": "payments"}  # the brands of tests have no file
    return metrics.REGISTRY.get_sample_value("switchyard_take_backs_total", labels) or 0


# --- who may see and do what ---------------------------------------------------------------------------------------


async def test_tokens_decide_who_sees_and_does_what(world: World) -> None:
    ticket = world.ticket(queue=Queue.REFUNDS)
    await world.waiting(ticket)
    path = f"/v1/tickets/{ticket.ticket_id}"
    nobody = await world.client.get(path)
    assert (nobody.status_code, nobody.headers["www-authenticate"]) == (401, "Bearer")
    assert (await world.get(path, "wrong-token")).status_code == 401
    assert (await world.get(path, WALL)).status_code == 200
    for foreign in (PAY, ELSE):  # a queue, a brand that is not theirs: as if there were no such ticket
        assert (await world.get(path, foreign)).status_code == 404
        assert (await world.post(f"{path}/resolve", foreign)).status_code == 404
    assert (await world.post("/v1/queues/refunds/claim", PAY)).status_code == 403
    assert (await world.post("/v1/queues/refunds/claim", ELSE)).status_code == 204
    assert (await world.post("/v1/queues/refunds/claim", WALL)).status_code == 403
    assert (await world.post(f"{path}/release", WALL)).status_code == 403
    assert (await world.get("/v1/tickets?queue=refunds", PAY)).status_code == 403
    assert (await world.get("/v1/tickets", PAY)).json()["tickets"] == []
    assert [item["queue"] for item in (await world.get("/v1/queues", PAY)).json()["queues"]] == ["payments"]
    assert all(item["waiting"] == 0 for item in (await world.get("/v1/queues", ELSE)).json()["queues"])
    me = (await world.get("/v1/me", PAY)).json()
    assert (me["id"], me["role"], me["queues"]) == ("pay", "agent", ["payments"])


async def test_what_an_agent_holds_stays_his_to_see_wherever_it_is_moved(world: World) -> None:
    ticket = world.ticket()
    await world.waiting(ticket)
    await world.claim(PAY)
    moved = routed(ticket.ticket_id, brand=world.brand, revision=2, sequence=2, queue=Queue.SECURITY, decided_at=at(9))
    await world.waiting(moved)
    assert (await world.get(f"/v1/tickets/{ticket.ticket_id}", PAY)).status_code == 200
    given = await world.post(f"/v1/tickets/{ticket.ticket_id}/release", PAY)
    assert (given.status_code, given.json()["queue"]) == (200, "security")
    assert (await world.get(f"/v1/tickets/{ticket.ticket_id}", PAY)).status_code == 404


async def test_a_token_that_asks_too_fast_is_slowed_down(desk_of: Worlds) -> None:
    async with desk_of(desk_requests_per_second=0.01, desk_requests_burst=3) as world:
        answers = [await world.get("/v1/me", MEI) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert int(answers[3].headers["retry-after"]) > 1
        assert (await world.get("/v1/me", TOM)).status_code == 200


async def test_lists_come_in_queue_order_page_by_page(world: World) -> None:
    tickets = [world.ticket(decided_at=at(number)) for number in range(7)]
    await world.waiting(*tickets, world.ticket(queue=Queue.CREDIT))
    await world.claim(TOM)
    found: list[str] = []
    cursor = ""
    pages = 0
    while cursor is not None:
        page = (await world.get(f"/v1/tickets?queue=payments&limit=3{cursor and f'&cursor={cursor}'}")).json()
        found += [item["ticket_id"] for item in page["tickets"]]
        cursor = page["cursor"]
        pages += 1
    assert (found, pages) == ([str(ticket.ticket_id) for ticket in tickets], 3)
    held = (await world.get("/v1/tickets?claimed_by=me", TOM)).json()["tickets"]
    assert [item["ticket_id"] for item in held] == found[:1]
    queued = (await world.get("/v1/tickets?queue=payments&state=queued")).json()["tickets"]
    assert [item["ticket_id"] for item in queued] == found[1:]
    for wrong in ("abc", "e30=", "MjAyNi0wMS0wMXwyMDI2LTAxLTAxfHg="):
        assert (await world.get(f"/v1/tickets?cursor={wrong}")).status_code == 422


async def test_the_page_is_served_with_a_strict_policy(world: World) -> None:
    for path, media_type in (
        ("/", "text/html"),
        ("/static/queues.css", "text/css"),
        ("/static/queues.js", "text/javascript"),
        ("/static/icon.svg", "image/svg+xml"),
    ):
        answer = await world.client.get(path)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(media_type)
        assert "script-src 'self'" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.content
