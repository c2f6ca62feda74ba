"""`dead-letters`, on a real broker with the services behind it."""

from __future__ import annotations

import asyncio
import json
import resource
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from aiokafka import AIOKafkaProducer

from deploy.audit import read_all
from deploy.brokers import Broker
from deploy.ops.letters import REPLAY_OF, flaws_of
from shared import topics
from shared.admin import create_topics
from shared.cloudevents import Outgoing, decode, trace_of
from shared.delivery import VALUE_MOST_CHARACTERS
from shared.events import DeadLetter, DeadLetterHandled, DeadLetterReason
from shared.settings import CommonSettings
from tests.ops.conftest import Installation, Said, message, ops
from tests.support.waiting import eventually

GROUP: Final = "notifier.sla.events"
_SECRET_CUT = "card number [card] was charged"


def letter(number: int, **changes: Any) -> DeadLetter:
    now = datetime.now(UTC)
    return DeadLetter.model_validate(
        {
            "service": "notifier",
            "group": GROUP,
            "reason": DeadLetterReason.HANDLER_FAILED,
            "detail": "KeyError in on_sla (handlers.py:7)",
            "topic": "notifications.outcomes",
            "partition": number % 6,
            "offset": number,
            "record_key": f"k-{number}",
            "value": '{"a":1}',
            "recorded_at": now,
            "failed_at": now,
            **changes,
        }
    )


async def put(bootstrap_servers: str, letters: list[DeadLetter]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap_servers, acks="all", linger_ms=20)
    await producer.start()
    try:
        for start in range(0, len(letters), 2000):
            sent = []
            for item in (Outgoing("dead.letters", one, trace_of(one)) for one in letters[start : start + 2000]):
                headers = [(name, value.encode()) for name, value in item.headers("test").items()]
                sent.append(await producer.send(item.topic, item.body(), key=item.key.encode(), headers=headers))
            await asyncio.gather(*sent)
    finally:
        await producer.stop()


async def listed(installation: Installation, *arguments: str) -> list[dict[str, Any]]:
    said = await installation.ops("dead-letters", "list", "--json", "--limit", "0", *arguments)
    assert said.status == 0, said.err
    return [json.loads(line) for line in said.out.splitlines()]


async def test_a_mended_record_is_replayed_once_and_is_open_no_more(running: Installation, tmp_path: Path) -> None:
    who = uuid.uuid4().hex[:8]
    key, bad = message(who, "充值没到账", "yesterday")
    await running.publish([(key, bad)])
    (open_one,) = await eventually(lambda: listed(running, "--key", key.decode()), 60)
    assert (open_one["reason"], open_one["topic"], open_one["not_as_it_was"]) == ("invalid", "channel.messages", [])
    # No customer's words, unless they are asked for.
    shown = await running.ops("dead-letters", "show", open_one["id"][:8])
    assert "充值没到账" not in shown.out + shown.err
    assert "充值没到账" in (await running.ops("dead-letters", "show", open_one["id"], "--value")).out

    # As it was it fails again, and becomes a new dead letter that says so.
    said = await running.ops("dead-letters", "replay", "--id", open_one["id"], "--yes")
    assert said.status == 0, said.err
    (again,) = await eventually(lambda: listed(running, "--key", key.decode()), 60)
    assert again["id"] != open_one["id"]
    assert again["replay_of"] == open_one["id"]

    mended = tmp_path / "mended.json"
    mended.write_text(json.dumps({**json.loads(bad), "sent_at": datetime.now(UTC).isoformat()}))
    replay = ("dead-letters", "replay", "--id", again["id"][:13], "--value-file", mended, "--why", "a time was missing")
    untold = await running.ops(*replay)
    assert untold.status == 1, "without a terminal and without --yes nothing may change"
    assert "--yes" in untold.err
    assert (await running.ops(*replay, "--dry-run")).status == 0
    assert len(await listed(running, "--key", key.decode())) == 1
    assert (await running.ops(*replay, "--yes")).status == 0
    assert await listed(running, "--key", key.decode()) == []
    handled = await listed(running, "--key", key.decode(), "--handled")
    assert [item["handled"] for item in handled] == ["replayed", "replayed"]

    async def ticket() -> int:
        count: int = await running.value("SELECT count(*) FROM intake.conversations WHERE customer_id = $1", who)
        return count

    assert await eventually(ticket, 60) == 1
    records = (await read_all(running.settings, [topics.DEAD_LETTERS.name]))[topics.DEAD_LETTERS.name]
    kept = [
        DeadLetterHandled.model_validate_json(item.value or b"")
        for item in records
        if b"handled" in dict(item.headers)["ce_type"]
    ]
    (latest,) = [item for item in kept if str(item.letter_id) == again["id"]]
    assert (latest.why, latest.edited, latest.action) == ("a time was missing", True, "replayed")
    assert latest.by


async def test_a_replayed_record_that_had_its_effect_is_a_duplicate(running: Installation) -> None:
    """The same key, headers, partition and body: whoever had taken it in drops it."""
    who = uuid.uuid4().hex[:8]
    await running.publish([message(who, "密码忘了", datetime.now(UTC).isoformat())])
    tickets = (
        "SELECT ticket_id FROM intake.tickets JOIN intake.conversations USING (conversation_id) WHERE customer_id = $1"
    )
    (row,) = await eventually(lambda: running.rows(tickets, who), 60)
    (record,) = [
        item
        for item in (await read_all(running.settings, ["tickets.messages"]))["tickets.messages"]
        if item.key == str(row["ticket_id"]).encode()
    ]
    event = decode(record, topics.TICKETS_MESSAGES.carries).event
    failed = letter(
        record.offset,
        topic="tickets.messages",
        partition=record.partition,
        service="classifier",
        group=f"classifier.{who}",
        record_key=str(row["ticket_id"]),
        headers={name: value.decode() for name, value in record.headers},
        value=(record.value or b"").decode(),
    )
    # Two groups failed on it: it is published once.
    await put(
        running.stack.broker.bootstrap_servers,
        [failed, failed.model_copy(update={"service": "desk", "group": f"desk.{who}"})],
    )
    await eventually(lambda: listed(running, "--key", str(row["ticket_id"])), 30)
    said = await running.ops("dead-letters", "replay", "--key", str(row["ticket_id"]), "--yes")
    assert "replayed 2 dead letters (1 records)" in said.err, said.err

    records = [
        item
        for item in (await read_all(running.settings, ["tickets.messages"]))["tickets.messages"]
        if item.key == str(row["ticket_id"]).encode()
    ]
    assert len(records) == 2
    first, second = records
    assert (first.value, first.partition, first.key) == (second.value, second.partition, second.key)
    replayed = dict(second.headers)
    assert uuid.UUID(replayed.pop(REPLAY_OF).decode())
    assert replayed == dict(first.headers)
    await running.settled()
    of_ticket = "SELECT count(*) FROM desk.history WHERE ticket_id = $1 AND kind = 'message'"
    assert await running.value(of_ticket, row["ticket_id"]) == 1
    assert await running.value("SELECT count(*) FROM classifier.decisions WHERE cause_id = $1", event.event_id) == 1


async def test_what_is_not_kept_as_it_was_is_named_and_left_out(running: Installation) -> None:
    key = uuid.uuid4().hex
    await put(
        running.stack.broker.bootstrap_servers, [letter(1, record_key=key, value=json.dumps({"text": _SECRET_CUT}))]
    )
    (open_one,) = await eventually(lambda: listed(running, "--key", key), 30)
    assert open_one["not_as_it_was"] == ["secrets were cut from the value"]
    said = await running.ops("dead-letters", "replay", "--key", key, "--yes")
    assert said.status == 1
    assert "secrets were cut" in said.err
    assert len(await listed(running, "--key", key)) == 1
    discarded = await running.ops("dead-letters", "discard", "--key", key, "--why", "a test", "--yes")
    assert discarded.status == 0, discarded.err
    assert await listed(running, "--key", key) == []


def test_flaws() -> None:
    assert flaws_of(letter(1)) == ()
    assert flaws_of(letter(1, value='{"path": "C:\\\\xab"}')) == ()  # JSON that holds a backslash, kept to the byte
    assert "UTF-8" in flaws_of(letter(1, value="\\xff\\xfe{}"))[0]
    assert "cut at" in flaws_of(letter(1, value="x" * VALUE_MOST_CHARACTERS))[0]
    assert "key" in flaws_of(letter(1, record_key="upay/phone/[card]"))[0]
    assert "headers" in flaws_of(letter(1, headers={"note": "[pin]"}))[0]


async def test_a_change_needs_to_be_told_which(running: Installation) -> None:
    said: Said = await running.ops("dead-letters", "discard", "--why", "all", "--yes")
    assert said.status == 2
    assert "--every" in said.err


async def test_a_hundred_megabytes_of_dead_letters_do_not_fill_memory(own_broker: Callable[..., Broker]) -> None:
    """On a broker of their own: whoever counts all records would count these with them."""
    bootstrap_servers = own_broker().bootstrap_servers
    settings = {"KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers}
    await create_topics(CommonSettings(kafka_bootstrap_servers=bootstrap_servers))
    count, characters, most_kib = 25_000, 4_000, 60 * 1024
    value = json.dumps({"text": "x" * characters})
    for start in range(0, count, 1_000):
        await put(
            bootstrap_servers,
            [letter(number, record_key=f"k{number}", value=value) for number in range(start, start + 1_000)],
        )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    said = await ops(settings, "dead-letters", "list", "--limit", "1")
    assert f"{count} open" in said.err
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kib < most_kib, f"grew by {grown_kib} KiB"
    discarded = await ops(settings, "dead-letters", "discard", "--key", "k", "--why", "a test of size", "--yes")
    assert f"discarded {count}" in discarded.err
    left = await ops(settings, "dead-letters", "list", "--json", "--limit", "0")
    assert (left.status, left.out) == (0, "")
