"""Throughput from `channel.messages` to `queues.*` with all five services, PostgreSQL and the broker on this machine.

The records of a wave wait in the topic before intake and classifier start, so the pipeline runs as fast as it can. The
clock is the records' own time stamps: from the first that intake publishes to the last that the classifier publishes.
After the first wave: what a ticket takes in each schema (tables with their indexes) and on the broker's disk.
Baseline: a bare aiokafka loop that consumes the same records and produces them to another topic, in the same run.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import asyncpg
import psutil
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from benchmarks.figures import Figure, note, report
from deploy.audit import read_all
from deploy.brokers import best_broker
from deploy.demo.receivers import Receivers
from deploy.demo.settings import Credentials, environment
from deploy.stack import Stack
from shared import topics
from shared.admin import create_topics
from shared.database import SERVICES
from shared.events import derive_id
from shared.topics import Topic

MESSAGES: Final = int(os.environ.get("BENCH_MESSAGES", "20000"))
_COPY: Final = Topic("bench.copy", "the bare loop's copy", "as read", (), (), (), timedelta(hours=1))
_TEXTS: Final = (
    "充值两百块一直没到账，钱已经扣了，帮忙查一下",
    "密码忘了登不进去，换了手机收不到验证码",
    "My payment to the coffee shop was declined twice, the app says error 5003",
    "昨天下午三点多给房东转账5000元，到现在对方没收到，订单号 20261122778899",
    "红包怎么提现，要手续费吗",
    "有人冒充客服让我转账，账户里少了800块，赶紧冻结！",
    "How do I change the phone number linked to my wallet?",
    "退款三天了还没有消息，商家说已经退了",
    "app 一打开就闪退，安卓14，版本 8.2.1",
    "绑卡的时候提示不支持该银行",
)
_CHANNELS: Final = ("app_chat", "wechat", "email", "phone", "web_form")
_BRANDS: Final = ("upay_wallet", "u_wallet", "upay", "topay")


def identity(wave: int, index: int) -> tuple[str, str, str]:
    """Brand, channel and message id of one message."""
    return _BRANDS[index % len(_BRANDS)], _CHANNELS[index % len(_CHANNELS)], f"bench-{wave}-{index}"


def records(wave: int) -> Iterator[tuple[bytes, bytes]]:
    """The messages of a wave, each of another customer: each opens a ticket."""
    sent_at = datetime.now(UTC).isoformat()
    for index in range(MESSAGES):
        brand, channel, message_id = identity(wave, index)
        customer = f"customer-{wave}-{index}"
        body = {
            "brand": brand,
            "channel": channel,
            "message_id": message_id,
            "customer": {"id": customer, "name": "林女士", "phone": "+8613800138000"},
            "text": _TEXTS[index % len(_TEXTS)],
            "sent_at": sent_at,
        }
        yield f"{brand}/{channel}/{customer}".encode(), json.dumps(body, ensure_ascii=False).encode()


async def publish(bootstrap_servers: str, wave: int) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap_servers, acks="all", linger_ms=2, max_batch_size=256 * 1024)
    await producer.start()
    try:
        futures = [await producer.send(topics.CHANNEL_MESSAGES.name, value, key=key) for key, value in records(wave)]
        await asyncio.gather(*futures)
    finally:
        await producer.stop()


async def bare_loop(bootstrap_servers: str, count: int) -> float:
    """Records per second of a consume-and-produce loop with batches, keyed pipelined sends and a commit per batch."""
    consumer = AIOKafkaConsumer(
        topics.CHANNEL_MESSAGES.name,
        bootstrap_servers=bootstrap_servers,
        group_id="bench.bare",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap_servers, acks="all", linger_ms=2, max_batch_size=256 * 1024)
    await consumer.start()
    await producer.start()
    try:
        done, begun = 0, 0.0
        while done < count:
            batch = await consumer.getmany(timeout_ms=200, max_records=500)
            begun = begun or time.perf_counter()
            futures = [
                await producer.send(_COPY.name, record.value, key=record.key)
                for part in batch.values()
                for record in part
            ]
            await asyncio.gather(*futures)
            if futures:
                await consumer.commit()
            done += len(futures)
        return done / (time.perf_counter() - begun)
    finally:
        await consumer.stop()
        await producer.stop()


def cpu_seconds(pid: int | None) -> float:
    """User and system time of a process and its living children."""
    if pid is None:
        return 0.0
    process = psutil.Process(pid)
    own = process.cpu_times()
    # Children that have ended are in children_user and children_system; PostgreSQL's sessions are living children.
    ended = own.children_user + own.children_system
    living = [member.cpu_times() for member in process.children(recursive=True)]
    return own.user + own.system + ended + sum(times.user + times.system for times in living)


async def routed_so_far(stack: Stack) -> int:
    connection = await asyncpg.connect(stack.database_url)
    try:
        count: int = await connection.fetchval("SELECT count(*) FROM classifier.decisions")
    finally:
        await connection.close()
    return count


async def measure(stack: Stack, wave: int, what: str, baseline: float) -> None:
    """Start intake and classifier on a full topic and report the rate, and the CPU of all that ran."""
    before = cpu_by_part(stack)
    stack.start_service("intake")
    stack.start_service("classifier")
    while await routed_so_far(stack) < (wave + 1) * MESSAGES:  # noqa: ASYNC110 - another process counts
        await asyncio.sleep(0.5)
    used = {part: seconds - before.get(part, 0.0) for part, seconds in cpu_by_part(stack).items()}
    report(
        Figure(
            "pipeline",
            f"tickets from channel.messages to queues.*, {what}",
            await rate(stack, wave),
            "tickets/s",
            baseline,
        )
    )
    for part, seconds in sorted(used.items(), key=lambda item: -item[1]):
        report(Figure("pipeline", f"CPU of {part}, {what}", seconds / MESSAGES * 1e6, "µs/ticket", 1e6 / baseline))


def cpu_by_part(stack: Stack) -> dict[str, float]:
    pids = {service: stack.pid(service) for service in stack.services}
    pids |= {"the broker": getattr(stack.broker, "pid", None), "PostgreSQL": stack.postgres.pid}
    return {part: cpu_seconds(pid) for part, pid in pids.items() if pid is not None}


async def rate(stack: Stack, wave: int) -> float:
    """Tickets per second of this wave, by the time stamps of its records. Raises RuntimeError when any is missing."""
    names = [topics.TICKETS_MESSAGES.name, *(topic.name for topic in topics.QUEUES)]
    mark = f'"bench-{wave}-'.encode()
    found = await read_all(stack.settings, names)
    accepted = [record.timestamp for record in found.pop(names[0]) if mark in (record.value or b"")]
    causes = {str(derive_id("ticket.message", *identity(wave, index))) for index in range(MESSAGES)}
    routed = [
        record.timestamp
        for records in found.values()
        for record in records
        if json.loads(record.value or b"{}")["cause_id"] in causes
    ]
    if (len(accepted), len(routed)) != (MESSAGES, MESSAGES):
        raise RuntimeError(f"sent {MESSAGES}, accepted {len(accepted)}, routed {len(routed)}: not a clean run")
    seconds: float = (max(routed) - min(accepted)) / 1000
    return MESSAGES / seconds


async def run(directory: Path) -> None:
    broker = best_broker(directory / "broker")
    note(f"{MESSAGES} messages a wave, {broker.description}, {psutil.cpu_count()} cores")
    credentials = Credentials()
    receivers = Receivers(credentials)
    settings = environment(credentials, receiver_url=receivers.url, mail_port=receivers.mail_port)
    stack = Stack(directory, broker, environment=settings)
    async with receivers.listening(), stack:
        stop_path(stack)
        await create_topics(stack.settings, wanted=[_COPY])
        await publish(broker.bootstrap_servers, 0)
        baseline = await bare_loop(broker.bootstrap_servers, MESSAGES)
        await measure(stack, 0, "all five services", baseline)
        await settled(stack)
        stop_path(stack)
        await measure_space(stack, directory / "broker")
        for service in ("sla_timer", "notifier", "desk"):
            stack.stop_service(service)
        await publish(broker.bootstrap_servers, 1)
        await measure(stack, 1, "intake and classifier alone", baseline)


async def settled(stack: Stack) -> None:
    """Wait until the other services have taken in the wave as well: hardly anything is published any more."""
    names = [topic.name for topic in topics.ALL]
    consumer = AIOKafkaConsumer(bootstrap_servers=stack.broker.bootstrap_servers)
    await consumer.start()
    await consumer.topics()
    try:
        before, written = -MESSAGES, 0
        while written - before > MESSAGES / 100:
            await asyncio.sleep(5)
            partitions = [
                TopicPartition(name, number) for name in names for number in consumer.partitions_for_topic(name) or ()
            ]
            before, written = written, sum((await consumer.end_offsets(partitions)).values())
    finally:
        await consumer.stop()


async def measure_space(stack: Stack, broker_directory: Path) -> None:
    """Bytes per ticket of one message. Baseline: the bytes of its record as the channel sent it."""
    sent = sum(len(key) + len(value) for key, value in records(0)) / MESSAGES
    connection = await asyncpg.connect(stack.database_url)
    try:
        sizes = await connection.fetch(
            "SELECT schemaname AS schema, sum(pg_total_relation_size(format('%I.%I', schemaname, tablename)))::bigint "
            "AS bytes FROM pg_tables WHERE schemaname = ANY($1) GROUP BY 1 ORDER BY 2 DESC",
            list(SERVICES),
        )
    finally:
        await connection.close()
    for size in sizes:
        report(Figure("pipeline", f"database of {size['schema']}", size["bytes"] / MESSAGES, "bytes/ticket", sent))
    if log := await asyncio.to_thread(log_bytes, broker_directory):
        report(Figure("pipeline", "log of the broker", log / MESSAGES, "bytes/ticket", sent))


def log_bytes(broker_directory: Path) -> int:
    """Of all topics on the broker's disk; 0 for a broker that keeps its log elsewhere."""
    return sum(path.stat().st_size for path in broker_directory.rglob("*.log"))


def stop_path(stack: Stack) -> None:
    stack.stop_service("intake")
    stack.stop_service("classifier")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="switchyard-bench-") as directory:
        asyncio.run(run(Path(directory)))
