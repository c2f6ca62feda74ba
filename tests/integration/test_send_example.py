"""examples/send_kafka.py, run as a channel's developer would run it."""

from __future__ import annotations

import asyncio
import sys
import uuid

from deploy.audit import read_all
from deploy.processes import REPOSITORY
from shared import topics
from shared.cloudevents import decode
from shared.events import ChannelMessage
from tests.support.surroundings import Kafka


async def test_the_example_publishes_a_message_that_keeps_the_contract(kafka: Kafka) -> None:
    text = f"充值没到账 {uuid.uuid4()}"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "examples/send_kafka.py",
        "--bootstrap-servers",
        kafka.bootstrap_servers,
        "--text",
        text,
        cwd=REPOSITORY,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, complained = await process.communicate()
    assert process.returncode == 0, complained.decode()
    name = topics.CHANNEL_MESSAGES.name
    (record,) = [
        item for item in (await read_all(kafka.settings, [name]))[name] if text.encode() in (item.value or b"")
    ]
    event = decode(record, topics.CHANNEL_MESSAGES.carries).event
    assert isinstance(event, ChannelMessage)
    assert record.key == event.key.encode()
    assert said.decode().startswith(f"sent {event.message_id} to {name}[{record.partition}]@{record.offset}")
