"""A producer's side of the contract, by its examples: good records count, rubbish is answered, each by itself."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import uuid
from collections.abc import Awaitable, Callable

import pytest
from aiokafka import AIOKafkaProducer

from deploy.audit import read_all
from deploy.kafka import native
from deploy.processes import REPOSITORY
from services.intake.app import build
from services.intake.settings import Settings
from shared import topics
from tests.support.surroundings import Kafka
from tests.support.waiting import eventually

TOPIC = topics.CHANNEL_MESSAGES.name


def good(**fields: object) -> bytes:
    whole = {
        "brand": "upay_wallet",
        "channel": "app_chat",
        "message_id": uuid.uuid4().hex,
        "customer": {"id": "u-1"},
        "text": "充值没到账",
        "sent_at": "2026-11-23T12:00:00+08:00",
    }
    return json.dumps({**whole, **fields}, ensure_ascii=False).encode()


RUBBISH = {
    b"\xff\xfe{": "malformed",
    b"": "malformed",
    b"[]": "invalid",
    good(sent_at="2026-11-26T12:00:00"): "invalid",
    good(brand="Not a code", text="卡号 4111111111111111"): "invalid",
    good(sent_at="1600-01-01T00:00:00Z"): "refused",
}


async def run(*command: str, fed: bytes = b"") -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=REPOSITORY,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, complained = await process.communicate(fed)
    assert b"Traceback" not in complained, complained.decode()
    assert process.returncode in (0, 1), complained.decode()
    return process.returncode, said.decode()


async def dead_letters(kafka: Kafka, key: str) -> list[str]:
    status, said = await run(
        sys.executable,
        "examples/dead_letters.py",
        "--bootstrap-servers",
        kafka.bootstrap_servers,
        "--key",
        key,
        "--once",
    )
    assert status == (1 if said else 0)
    return said.splitlines()


async def test_rubbish_is_answered_per_record_and_what_stands_between_is_processed(
    kafka: Kafka, new_database: Callable[[], Awaitable[str]]
) -> None:
    key = f"{uuid.uuid4().hex}/app_chat/u-1"
    assert await dead_letters(kafka, key) == []
    kept = [uuid.uuid4().hex for _ in RUBBISH]
    settings = Settings(kafka_bootstrap_servers=kafka.bootstrap_servers, database_url=await new_database())
    service = build(settings)
    app = service.app()
    async with (
        app.router.lifespan_context(app),
        AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers, acks="all") as producer,
    ):
        for rubbish, message_id in zip(RUBBISH, kept, strict=True):
            await producer.send_and_wait(TOPIC, rubbish, key=key.encode())
            await producer.send_and_wait(TOPIC, good(message_id=message_id), key=key.encode())

        async def all_answered() -> list[str]:
            lines = await dead_letters(kafka, key)
            return lines if len(lines) >= len(RUBBISH) else []

        lines = await eventually(all_answered, timeout_seconds=60)
        accepted = (await read_all(kafka.settings, [topics.TICKETS_MESSAGES.name]))[topics.TICKETS_MESSAGES.name]
    told = [re.fullmatch(r"channel\.messages\[\d+\]@(\d+)  (\S+)  (\w+)  (.+)", line) for line in lines]
    assert [line and line[3] for line in told] == list(RUBBISH.values())
    assert {line and line[2] for line in told} == {key}
    assert "sent_at" in lines[3]
    assert "brand" in lines[4]
    assert "4111" not in "".join(lines)
    assert set(kept) <= {json.loads(record.value or b"{}")["message_id"] for record in accepted}


@pytest.mark.parametrize("option", ["--property", "--reader-property"], ids=["before-4.2", "since-4.2"])
async def test_kafkas_own_console_producer_keeps_the_contract(kafka: Kafka, option: str) -> None:
    if why_not := native.unavailable_reason():
        pytest.skip(f"there is no client of Apache Kafka here: {why_not}")
    message_id = uuid.uuid4().hex
    status, _ = await run(
        *map(str, native.client_command("org.apache.kafka.tools.ConsoleProducer")),
        "--bootstrap-server",
        kafka.bootstrap_servers,
        "--topic",
        TOPIC,
        option,
        "parse.key=true",
        fed=b"upay_wallet/app_chat/u-1\t" + good(message_id=message_id) + b"\n",
    )
    assert status == 0
    records = (await read_all(kafka.settings, [TOPIC]))[TOPIC]
    (record,) = [record for record in records if message_id.encode() in (record.value or b"")]
    assert record.key == b"upay_wallet/app_chat/u-1"
