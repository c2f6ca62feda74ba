"""`backup` and `restore`, with the log of Kafka going on."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg

from deploy.audit import Audit
from deploy.ops.backup import DUMP, MANIFEST
from shared.database import SERVICES
from tests.ops.conftest import Installation, message, ops


async def agent_works(running: Installation, most: int) -> list[str]:
    """A lead claims, answers and resolves up to `most` tickets; returns their ids."""
    done: list[str] = []
    async with running.desk() as desk:
        for queue in ("payments", "security", "access", "technical", "general", "triage", "refunds"):
            while len(done) < most:
                claimed = await desk.post(f"/queues/{queue}/claim", json={})
                if claimed.status_code == 204:
                    break
                assert claimed.status_code == 200, claimed.text
                ticket = claimed.json()
                place = f"/tickets/{ticket['ticket_id']}"
                assert (await desk.post(f"{place}/reply", json={"text": "已处理"})).is_success
                for point in ticket["points"]:
                    assert (await desk.put(f"{place}/points/{point['point_id']}", json={"done": True})).is_success
                assert (await desk.post(f"{place}/resolve", json={})).is_success
                done.append(ticket["ticket_id"])
    return done


async def end_state(running: Installation) -> dict[str, Any]:
    """What must be the same whether the database was lost in between or not."""
    tickets = await running.rows("SELECT ticket_id, state, queue, priority, merged_into FROM desk.tickets")
    threads = await running.rows(
        "SELECT brand, channel, message_id, ticket_id, sequence, disposition FROM intake.messages"
    )
    clocks = await running.rows("SELECT clock_id, target, state, due_at FROM sla_timer.clocks")
    done = await running.rows("SELECT notification_id, state FROM notifier.notifications WHERE finished_at IS NOT NULL")
    open_ones = await running.rows("SELECT conversation_id, ticket_id, is_open FROM intake.tickets")
    return {
        name: sorted(tuple(map(str, row.values())) for row in rows)
        for name, rows in {
            "tickets": tickets,
            "threads": threads,
            "clocks": clocks,
            "notifications": done,
            "intake": open_ones,
        }.items()
    }


def doubled_effects(found: Audit) -> list[str]:
    """After a restore an event is decided again, at another time: the same id with another time is a repetition."""
    return [line for line in found.doubled_detail if "with two contents" not in line]


async def test_a_lost_database_is_restored_and_what_came_since_is_taken_again(
    running: Installation, tmp_path: Path
) -> None:
    await running.write(30, "before")
    await running.settled()
    await agent_works(running, 6)
    await running.settled()
    directory = tmp_path / "backup"
    taken = await running.ops("backup", directory, "--json")
    assert taken.status == 0, taken.err
    manifest = json.loads((directory / MANIFEST).read_text())
    assert manifest["rows"]["intake.messages"] == await running.value("SELECT count(*) FROM intake.messages")
    assert (directory / DUMP).stat().st_mode & 0o077 == 0, "what customers wrote is for its owner only"
    assert (await running.ops("backup", directory)).status == 2, "an earlier backup is not written over"

    # More traffic: new customers, customers of before again, agents' work, and a message over HTTP, of which Kafka
    # has nothing but what intake made of it.
    await running.write(20, "after")
    now = datetime.now(UTC).isoformat()
    await running.publish([message(f"before-{number}", "还没到账", now) for number in range(10)])
    over_http = {
        "brand": "upay_wallet",
        "channel": "app_chat",
        "message_id": "http-1",
        "customer": {"id": "http"},
        "text": "My top-up has not arrived",
        "sent_at": now,
    }
    async with _intake(running) as intake:
        first = await intake.post("/v1/messages", json=over_http)
        assert first.status_code == 202, first.text
    await running.settled()
    await agent_works(running, 6)
    await running.settled()
    expected = await end_state(running)
    hooks = Counter(running.receivers.webhooks)

    # Lost.
    refused = await running.ops("restore", directory, "--force", "--yes")
    assert refused.status == 1, "services run"
    assert "stop all services first" in refused.err
    for service in SERVICES:
        running.stack.stop_service(service)
    connection = await asyncpg.connect(running.stack.database_url)
    for service in SERVICES:
        await connection.execute(f"DROP SCHEMA {service} CASCADE")
    await connection.close()

    told = await running.ops("restore", directory, "--dry-run")
    assert told.status == 0, told.err
    assert "dry run" in told.err
    restored = await running.ops("restore", directory, "--yes")
    assert restored.status == 0, restored.err
    assert "31 messages that intake had accepted" in restored.err, restored.err
    again = await running.ops("restore", directory, "--yes")
    assert again.status == 1, "the database is not empty any more"
    assert "--force" in again.err
    for service in SERVICES:
        running.stack.start_service(service)
    await running.stack.wait_until_ready(*SERVICES)
    found = await running.settled()
    assert found.lost_detail == []
    assert doubled_effects(found) == []
    assert await end_state(running) == expected
    # Nobody was told anything twice: the receivers know each notification by its id.
    assert running.receivers.webhooks == hooks
    # The provider that sends again gets the same ticket.
    async with _intake(running) as intake:
        repeated = await intake.post("/v1/messages", json=over_http)
    assert repeated.json()["ticket_id"] == first.json()["ticket_id"]
    # And who writes again is in his ticket of before, though the database that knew it was lost.
    await running.publish([message("after-3", "还在等", datetime.now(UTC).isoformat())])
    await running.settled()
    customers = (
        "SELECT count(*) FROM intake.tickets JOIN intake.conversations USING (conversation_id) "
        "WHERE customer_id = 'after-3'"
    )
    assert await running.value(customers) == 1


async def test_a_damaged_backup_is_refused_and_the_database_stays(tmp_path: Path, database: str) -> None:
    settings = {"DATABASE_URL": database, "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    directory = tmp_path / "backup"
    taken = await ops(settings, "backup", directory)
    assert taken.status == 0, taken.err
    assert "Kafka did not answer" in taken.err
    restore = ("restore", directory, "--rewind-to", "nowhere", "--yes")
    assert (await ops(settings, *restore)).status == 0, "an empty database may be restored over"
    dump = directory / DUMP
    whole = dump.read_bytes()
    dump.write_bytes(whole[:-20] + bytes(20))
    damaged = await ops(settings, *restore)
    assert damaged.status == 2
    assert "damaged" in damaged.err
    # A dump that pg_restore cannot finish: what was there is there again.
    dump.write_bytes(whole[: len(whole) // 2])
    manifest = json.loads((directory / MANIFEST).read_text())
    manifest["sha256"] = await asyncio.to_thread(_checksum, dump)
    (directory / MANIFEST).write_text(json.dumps(manifest))
    broken = await ops(settings, *restore)
    assert broken.status == 1, broken.err
    assert "pg_restore failed" in broken.err
    connection = await asyncpg.connect(database)
    assert await connection.fetchval("SELECT count(*) FROM desk.tickets") == 0
    assert await connection.fetchval("SELECT to_regnamespace('desk_before_restore')") is None
    await connection.close()


def _checksum(path: Path) -> str:
    from deploy.ops.backup import checksum

    return checksum(path)


def _intake(running: Installation) -> Any:
    import httpx

    return httpx.AsyncClient(
        base_url=running.stack.url("intake"),
        headers={"Authorization": f"Bearer {running.credentials.channel}"},
        timeout=30,
        trust_env=False,
    )
