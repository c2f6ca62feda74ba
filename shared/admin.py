"""Topics as `shared.topics` says, made and checked. `python -m shared.admin` makes what is missing."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Iterable, Mapping

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import for_code

from shared import topics
from shared.broker import ssl_context
from shared.settings import CommonSettings

logger = logging.getLogger(__name__)
_TOPIC_ALREADY_EXISTS = 36


class TopicsMissing(Exception):
    """Topics that a service reads or writes are not there; `python -m shared.admin` makes them."""


def _client(settings: CommonSettings) -> AIOKafkaAdminClient:
    return AIOKafkaAdminClient(
        bootstrap_servers=settings.kafka_bootstrap_servers,
        client_id="switchyard-admin",
        security_protocol=settings.kafka_security_protocol,
        ssl_context=ssl_context(settings),
        sasl_mechanism=settings.kafka_sasl_mechanism,
        sasl_plain_username=settings.kafka_sasl_username,
        sasl_plain_password=settings.kafka_sasl_password and settings.kafka_sasl_password.get_secret_value(),
    )


async def partitions(settings: CommonSettings) -> dict[str, int]:
    """Topics that exist, with their number of partitions."""
    client = _client(settings)
    try:
        await client.start()
        described = await client.describe_topics()
    finally:
        await client.close()
    return {item["topic"]: len(item["partitions"]) for item in described if not item["error_code"]}


async def create_topics(
    settings: CommonSettings,
    *,
    wanted: Iterable[topics.Topic] = topics.ALL,
    replication: int = 1,
    partitions_of: Mapping[str, int] | None = None,
) -> list[str]:
    """Make the topics that are missing and return their names. Existing ones are left as they are."""
    existing = await partitions(settings)
    missing = [topic for topic in wanted if topic.name not in existing]
    if not missing:
        return []
    client = _client(settings)
    try:
        await client.start()
        response = await client.create_topics(
            [
                NewTopic(
                    topic.name,
                    num_partitions=(partitions_of or {}).get(topic.name, topic.partitions),
                    replication_factor=replication,
                    topic_configs={"retention.ms": str(int(topic.retention.total_seconds() * 1000))},
                )
                for topic in missing
            ]
        )
    finally:
        await client.close()
    for name, code, message in response.topic_errors:
        if code not in (0, _TOPIC_ALREADY_EXISTS):  # somebody else may have made it in the meantime
            raise for_code(code)(f"topic {name} could not be made: {message}")
    return [topic.name for topic in missing]


async def verify_topics(settings: CommonSettings, names: Iterable[str]) -> None:
    """Raise TopicsMissing unless all of these exist."""
    missing = sorted(set(names) - set(await partitions(settings)))
    if missing:
        raise TopicsMissing(f"missing topics: {', '.join(missing)}; make them with `python -m shared.admin`")


def main() -> int:
    made = asyncio.run(create_topics(CommonSettings()))
    sys.stdout.write(f"made {len(made)} topics{': ' if made else ''}{', '.join(made)}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
