"""The surroundings themselves: what the other tests take for granted of brokers and databases."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from deploy.brokers import Broker
from deploy.kafka.probe import answers
from shared import topics
from shared.admin import partitions
from shared.database import SERVICES
from tests.support.surroundings import Kafka


async def test_every_topic_is_there_with_its_partitions(each_kafka: Kafka) -> None:
    present = await partitions(each_kafka.settings)
    assert {topic.name: topic.partitions for topic in topics.ALL}.items() <= present.items()


async def test_an_idempotent_producer_and_a_group_lose_nothing(each_kafka: Kafka) -> None:
    """Two members share 6 partitions: one reads and commits half, leaves, the other reads exactly the rest."""
    topic = f"test.{uuid.uuid4().hex}"
    await _create_topic(each_kafka.bootstrap_servers, topic, partitions=6)
    producer = AIOKafkaProducer(
        bootstrap_servers=each_kafka.bootstrap_servers, acks="all", enable_idempotence=True, linger_ms=2
    )
    await producer.start()
    try:
        sent = [str(number).encode() for number in range(300)]
        for acknowledged in [await producer.send(topic, value, key=value) for value in sent]:
            await acknowledged
    finally:
        await producer.stop()

    seen: list[bytes] = []
    for at_most in (150, 300):  # the second member finds what the first did not commit
        consumer = AIOKafkaConsumer(
            topic,
            bootstrap_servers=each_kafka.bootstrap_servers,
            group_id=topic,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )
        await consumer.start()
        try:
            while len(seen) < at_most:
                batches = await consumer.getmany(timeout_ms=1000, max_records=at_most - len(seen))
                seen += [record.value for records in batches.values() for record in records]
            await consumer.commit()
        finally:
            await consumer.stop()
    assert sorted(seen) == sorted(sent)


@pytest.mark.real_kafka
async def test_a_missing_topic_is_not_made_by_asking_for_it(kafka: Kafka) -> None:
    """Else a topic would come to be by a typing slip, with one partition. (Services look before they ask, anywhere.)"""
    if not kafka.is_real:
        pytest.skip("the embedded broker makes a topic that a client asks for, and cannot be told not to")
    name = f"test.{uuid.uuid4().hex}"
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers)
    await producer.start()
    try:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await producer.partitions_for(name)
    finally:
        await producer.stop()
    assert name not in await partitions(kafka.settings)


@pytest.mark.real_kafka
async def test_apache_kafka_keeps_acknowledged_records_over_kill_9(
    kafka: Kafka, own_broker: Callable[..., Broker]
) -> None:
    if not kafka.is_real:
        pytest.skip("the embedded broker keeps its log in memory, and says so")
    broker = own_broker()
    address = broker.bootstrap_servers
    await _create_topic(address, "kept", partitions=1)
    producer = AIOKafkaProducer(bootstrap_servers=address, acks="all")
    await producer.start()
    try:
        await producer.send_and_wait("kept", b"acknowledged")
    finally:
        await producer.stop()

    broker.kill()
    assert not answers(address)
    broker.start()

    assert broker.bootstrap_servers == address
    consumer = AIOKafkaConsumer("kept", bootstrap_servers=address, auto_offset_reset="earliest")
    await consumer.start()
    try:
        assert (await consumer.getone()).value == b"acknowledged"
    finally:
        await consumer.stop()


async def test_a_database_has_a_schema_per_service_and_is_nobody_elses(
    database: str, new_database: Callable[[], Awaitable[str]]
) -> None:
    other = await new_database()
    connection = await asyncpg.connect(database)
    try:
        schemas = {row["nspname"] for row in await connection.fetch("SELECT nspname FROM pg_namespace")}
        assert set(SERVICES) <= schemas
        await connection.execute("CREATE TABLE mark_of_this_test ()")
    finally:
        await connection.close()
    connection = await asyncpg.connect(other)
    try:
        assert await connection.fetchval("SELECT to_regclass('mark_of_this_test')") is None
    finally:
        await connection.close()


async def _create_topic(bootstrap_servers: str, name: str, partitions: int) -> None:
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    await client.start()
    try:
        response = await client.create_topics([NewTopic(name, partitions, 1)])
        assert [code for _, code, _ in response.topic_errors] == [0]
    finally:
        await client.close()
