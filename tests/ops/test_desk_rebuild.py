"""`desk rebuild`: the desk shows the same queues, tickets and histories as before."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.ops.conftest import Installation, message
from tests.ops.test_backup_and_restore import agent_works

# What the present time is part of.
_NOT_COMPARED = ("peaks",)


async def shown(running: Installation, tickets: list[str]) -> dict[str, Any]:
    """What the desk's API says of its queues and of each of these tickets."""
    found: dict[str, Any] = {}
    async with running.desk() as desk:
        queues = (await desk.get("/queues")).json()["queues"]
        found["queues"] = [{key: value for key, value in queue.items() if key not in _NOT_COMPARED} for queue in queues]
        for ticket_id in tickets:
            answer = await desk.get(f"/tickets/{ticket_id}")
            assert answer.status_code == 200, answer.text
            found[ticket_id] = answer.json()
    return found


async def all_tickets(running: Installation) -> list[str]:
    return [str(row[0]) for row in await running.rows("SELECT ticket_id FROM desk.tickets ORDER BY 1")]


async def test_the_desk_shows_the_same_as_before(running: Installation) -> None:
    who = uuid.uuid4().hex[:8]
    await running.write(
        16, who, ("充值没到账，钱扣了；另外发票怎么开", "my card was lost", "密码忘了登不上", "怎么提现")
    )
    await running.settled()
    await agent_works(running, 5)
    async with running.desk() as desk:  # one waits on its customer, one is held with a point ticked off, one is moved
        held: list[dict[str, Any]] = []
        for queue in ("payments", "security", "access", "technical", "general", "triage", "refunds"):
            while len(held) < 3 and (claimed := await desk.post(f"/queues/{queue}/claim", json={})).status_code == 200:
                held.append(claimed.json())
        assert len(held) == 3
        assert (await desk.post(f"/tickets/{held[0]['ticket_id']}/wait", json={})).is_success
        ticked = held[1]["points"][0]["point_id"]
        place = f"/tickets/{held[1]['ticket_id']}"
        assert (await desk.put(f"{place}/points/{ticked}", json={"done": True})).is_success
        moved = {"queue": "complaints"}
        assert (await desk.post(f"/tickets/{held[2]['ticket_id']}/reroute", json=moved)).is_success
        key = {"Idempotency-Key": uuid.uuid4().hex}
        first = await desk.post(f"{place}/reply", json={"text": "请稍等"}, headers=key)
        assert first.is_success, first.text
    # Customers of resolved and of waiting tickets write again, one only to thank.
    texts = ("谢谢", "还没好", "thank you", "再看一下")
    now = datetime.now(UTC).isoformat()
    await running.publish([message(f"{who}-{number}", texts[number % 4], now) for number in range(8)])
    await running.settled()
    # One ticket is older than what the topics hold: its opening is gone from them.
    old = uuid.uuid4()
    long_ago = datetime.now(UTC) - timedelta(days=60)
    await running.rows(
        "INSERT INTO desk.tickets (ticket_id, state, acted_here, sequence, revision, text_sequence, clocks, breached, "
        "queue, brand, claimed_by, resolved_at, state_at) "
        "VALUES ($1, 'resolved', true, 1, 1, 1, '{}', false, 'payments', 'u_wallet', 'lead', $2, $2)",
        old,
        long_ago,
    )
    await running.rows(
        "INSERT INTO desk.history (event_id, ticket_id, at, kind, payload) VALUES ($1, $2, $3, 'resolved', '{}')",
        uuid.uuid4(),
        old,
        long_ago,
    )
    tickets = await all_tickets(running)
    before = await shown(running, tickets)
    raw = await running.rows("SELECT to_jsonb(tickets) FROM desk.tickets ORDER BY ticket_id")

    refused = await running.ops("desk", "rebuild", "--yes")
    assert refused.status == 1
    assert "stop desk first" in refused.err
    running.stack.stop_service("desk")
    told = await running.ops("desk", "rebuild", "--dry-run")
    assert told.status == 0, told.err
    assert "1 stay" in told.err
    assert await running.rows("SELECT to_jsonb(tickets) FROM desk.tickets ORDER BY ticket_id") == raw
    # The read model is wrong: that is what a rebuild is for.
    await running.rows("UPDATE desk.tickets SET text = 'rubbish', open_points = 99 WHERE ticket_id <> $1", old)
    await running.rows("DELETE FROM desk.links")
    done = await running.ops("desk", "rebuild", "--yes")
    assert done.status == 0, done.err
    assert "Start the desk" in done.err
    running.stack.start_service("desk")
    await running.stack.wait_until_ready("desk")
    await running.settled()
    after = await shown(running, tickets)
    assert await all_tickets(running) == tickets
    for name, was in before.items():
        assert after[name] == was, name
    async with running.desk() as desk:  # the key is known: the reply is not sent again
        again = await desk.post(f"{place}/reply", json={"text": "请稍等"}, headers=key)
        assert again.is_success
    replies = "SELECT count(*) FROM desk.history WHERE ticket_id = $1 AND kind = 'replied'"
    assert await running.value(replies, uuid.UUID(held[1]["ticket_id"])) == 1


async def test_a_rebuild_that_was_broken_off_begins_with_what_was_there_before(running: Installation) -> None:
    running.stack.stop_service("desk")
    tickets = await all_tickets(running)
    await running.rows("CREATE SCHEMA desk_rebuild")
    for table in ("tickets", "history", "points", "links", "peaks"):
        await running.rows(f"CREATE TABLE desk_rebuild.{table} AS TABLE desk.{table}")
    await running.rows("TRUNCATE desk.tickets, desk.history, desk.points")
    done = await running.ops("desk", "rebuild", "--yes")
    assert done.status == 0, done.err
    assert "broken off" in done.err
    assert await all_tickets(running) == tickets
    assert await running.value("SELECT to_regnamespace('desk_rebuild')") is None
