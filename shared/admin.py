"""Topics as `shared.topics` says: compared, made, brought to what they should be.

`python -m shared.admin` makes what is missing; `python -m deploy.ops topics` also compares and changes.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Final, Self

from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import for_code

from shared import topics
from shared.broker import ssl_context
from shared.settings import CommonSettings

_TOPIC_ALREADY_EXISTS: Final = 36
_LOOKS: Final = 60
_LOOK_SECONDS: Final = 0.25
_SET_ON_THE_TOPIC: Final = 1
"""Source of a setting, as Kafka numbers them: set on the topic itself, not a default of the broker's."""


class TopicsMissing(Exception):
    """Topics that a service reads or writes are not there; `python -m shared.admin` makes them."""


class TopicRefused(Exception):
    """The broker did not make or change a topic: which, and what it said."""


def connection_options(settings: CommonSettings) -> dict[str, Any]:
    """How any client of aiokafka reaches the brokers and signs in."""
    return {
        "bootstrap_servers": settings.kafka_bootstrap_servers,
        "security_protocol": settings.kafka_security_protocol,
        "ssl_context": ssl_context(settings),
        "sasl_mechanism": settings.kafka_sasl_mechanism,
        "sasl_plain_username": settings.kafka_sasl_username,
        "sasl_plain_password": settings.kafka_sasl_password and settings.kafka_sasl_password.get_secret_value(),
    }


class Admin(AbstractAsyncContextManager["Admin"]):
    """An admin client for as long as it is entered. `client` is aiokafka's."""

    def __init__(self, settings: CommonSettings) -> None:
        self._settings = settings
        self.client: AIOKafkaAdminClient

    async def __aenter__(self) -> Self:
        self.client = AIOKafkaAdminClient(client_id="switchyard-admin", **connection_options(self._settings))
        try:
            await self.client.start()
        except BaseException:
            await self.client.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.close()


@dataclass(frozen=True, slots=True)
class Described:
    """A topic as the broker has it. `replication`: of the partition with the fewest replicas. `configs`: in force;
    `own`: those of them that are set on the topic itself.
    """

    partitions: int
    replication: int
    configs: Mapping[str, str]
    own: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Difference:
    """`what`: `missing`, `partitions`, `replication` or a setting's name."""

    topic: topics.Topic
    what: str
    is_now: str
    should_be: str

    @property
    def can_be_changed(self) -> bool:
        """Whether `change_topics` can do it. Partitions are never taken away, replicas need a reassignment."""
        if self.what == "partitions":
            return int(self.is_now) < int(self.should_be)
        return self.what != "replication"

    def __str__(self) -> str:
        if self.what == "missing":
            return f"{self.topic.name}: missing"
        return f"{self.topic.name}: {self.what} is {self.is_now}, should be {self.should_be}"


async def partitions(settings: CommonSettings) -> dict[str, int]:
    """Topics that exist, with their number of partitions."""
    async with Admin(settings) as admin:
        described = await admin.client.describe_topics()
    return {item["topic"]: len(item["partitions"]) for item in described if not item["error_code"]}


async def describe(settings: CommonSettings, names: Iterable[str]) -> dict[str, Described]:
    """Those of these topics that exist."""
    wanted = set(names)
    async with Admin(settings) as admin:
        found = {
            item["topic"]: item["partitions"]
            for item in await admin.client.describe_topics()
            if not item["error_code"] and item["topic"] in wanted
        }
        if not found:
            return {}
        configs = await _configs(admin.client, sorted(found))
    return {
        name: Described(
            partitions=len(parts),
            replication=min((len(part["replicas"]) for part in parts), default=0),
            configs={key: value for key, (value, _) in configs[name].items()},
            own={key: value for key, (value, is_own) in configs[name].items() if is_own},
        )
        for name, parts in found.items()
    }


async def _configs(client: AIOKafkaAdminClient, names: Sequence[str]) -> dict[str, dict[str, tuple[str, bool]]]:
    """Settings by topic: value, and whether it is set on the topic itself."""
    found: dict[str, dict[str, tuple[str, bool]]] = {name: {} for name in names}
    for answer in await client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in names]):
        for code, message, _, name, entries in answer.resources:
            if code:
                raise TopicRefused(f"the settings of topic {name} cannot be read: {message or for_code(code).__name__}")
            for key, value, _, source, *_ in entries:
                # Version 0 of the protocol says "is a default" where later ones name the source.
                is_own = source is False or (source is not True and source == _SET_ON_THE_TOPIC)
                found[name][key] = (value, is_own)
    return found


async def compare(
    settings: CommonSettings, *, wanted: Iterable[topics.Topic] = topics.ALL, replication: int | None = None
) -> list[Difference]:
    """How the broker's topics differ from what they should be; `replication` None: as the settings say."""
    replicas = replication or settings.kafka_replication_factor
    expected = list(wanted)
    found = await describe(settings, [topic.name for topic in expected])
    differences: list[Difference] = []
    for topic in expected:
        described = found.get(topic.name)
        if described is None:
            differences.append(Difference(topic, "missing", "", ""))
            continue
        if described.partitions != topic.partitions:
            differences.append(Difference(topic, "partitions", str(described.partitions), str(topic.partitions)))
        if described.replication != replicas:
            differences.append(Difference(topic, "replication", str(described.replication), str(replicas)))
        for key, value in topic.configs(replicas).items():
            if described.configs.get(key) != value:
                differences.append(Difference(topic, key, described.configs.get(key, "not set"), value))
    return differences


async def create_topics(
    settings: CommonSettings,
    *,
    wanted: Iterable[topics.Topic] = topics.ALL,
    replication: int | None = None,
    partitions_of: Mapping[str, int] | None = None,
) -> list[str]:
    """Make the topics that are missing and return their names. Existing ones are left as they are.

    `replication` None: as the settings say.
    """
    existing = await partitions(settings)
    missing = [topic for topic in wanted if topic.name not in existing]
    if not missing:
        return []
    replicas = replication or settings.kafka_replication_factor
    async with Admin(settings) as admin:
        response = await admin.client.create_topics(
            [
                NewTopic(
                    topic.name,
                    num_partitions=(partitions_of or {}).get(topic.name, topic.partitions),
                    replication_factor=replicas,
                    topic_configs=topic.configs(replicas),
                )
                for topic in missing
            ]
        )
    for name, code, message in response.topic_errors:
        if code not in (0, _TOPIC_ALREADY_EXISTS):  # somebody else may have made it in the meantime
            raise for_code(code)(f"topic {name} could not be made: {message}")
    return [topic.name for topic in missing]


async def change_topics(settings: CommonSettings, differences: Iterable[Difference]) -> list[Difference]:
    """Bring existing topics to what they should be; returns what was changed. What cannot be changed is left."""
    wanted = [item for item in differences if item.what != "missing" and item.can_be_changed]
    if not wanted:
        return []
    found = await describe(settings, {item.topic.name for item in wanted})
    more = {item.topic.name: NewPartitions(int(item.should_be)) for item in wanted if item.what == "partitions"}
    configs: dict[str, dict[str, str]] = {}
    for item in wanted:
        if item.what != "partitions":
            # This request of Kafka's replaces all that is set on the topic: what others have set there goes along.
            configs.setdefault(item.topic.name, dict(found[item.topic.name].own))[item.what] = item.should_be
    async with Admin(settings) as admin:
        if more:
            await admin.client.create_partitions(more)
        resources = [ConfigResource(ConfigResourceType.TOPIC, name, values) for name, values in configs.items()]
        for answer in await admin.client.alter_configs(resources) if resources else ():
            for code, message, _, name in answer.resources:
                if code:
                    raise TopicRefused(
                        f"the settings of topic {name} cannot be changed: {message or for_code(code).__name__}"
                    )
    await _seen(settings, wanted)
    return wanted


async def _seen(settings: CommonSettings, changed: Sequence[Difference]) -> None:
    """Until the brokers show what their controller has agreed to. Raises TopicRefused."""
    names = {item.topic.name for item in changed}
    for _ in range(_LOOKS):
        found = await describe(settings, names)
        stale = [item for item in changed if not _is_so(found.get(item.topic.name), item)]
        if not stale:
            return
        await asyncio.sleep(_LOOK_SECONDS)
    raise TopicRefused(f"the broker agreed to a change and does not show it: {stale[0]}")


def _is_so(described: Described | None, item: Difference) -> bool:
    if described is None:
        return False
    shown = str(described.partitions) if item.what == "partitions" else described.configs.get(item.what)
    return shown == item.should_be


async def verify_topics(settings: CommonSettings, names: Iterable[str]) -> None:
    """Raise TopicsMissing unless all of these exist."""
    missing = sorted(set(names) - set(await partitions(settings)))
    if missing:
        # Kafka does not tell a topic that is not there from one that the user may not see.
        user = settings.kafka_sasl_username
        unseen = f", or grant User:{user} its rights to them with `python -m deploy.ops acls apply`" if user else ""
        raise TopicsMissing(f"missing topics: {', '.join(missing)}; make them with `python -m shared.admin`{unseen}")


def main() -> int:
    made = asyncio.run(create_topics(CommonSettings()))
    sys.stdout.write(f"made {len(made)} topics{': ' if made else ''}{', '.join(made)}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
