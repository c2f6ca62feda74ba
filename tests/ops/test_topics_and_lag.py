"""`topics` and `lag`, and that what they take for granted is what the services do."""

from __future__ import annotations

import importlib
import os
import uuid
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from aiokafka.admin import NewTopic

from deploy.brokers import Broker
from deploy.embedded.broker import EmbeddedBroker
from deploy.ops import groups
from shared.admin import Admin, describe
from shared.database import SERVICES
from shared.settings import CommonSettings
from tests.contract.asyncapi import PLACEHOLDERS
from tests.ops.conftest import Installation, message, ops
from tests.support.waiting import eventually


@pytest.mark.parametrize("service", SERVICES)
def test_groups_are_those_of_the_service(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in PLACEHOLDERS.items():
        if name not in os.environ:
            monkeypatch.setenv(name, value)
    wired = importlib.import_module(f"services.{service}.app").build()
    found = {item.group: set(item.topics) for item in wired.subscriptions}
    assert found == {group: {topic.name for topic in read} for group, read in groups.GROUPS[service].items()}


async def test_topics_are_made_compared_and_brought_to_what_they_should_be(own_broker: Callable[..., Broker]) -> None:
    broker = own_broker()
    if isinstance(broker, EmbeddedBroker):
        pytest.skip("the embedded broker keeps no settings of topics")
    settings = {"KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers}
    common = CommonSettings(kafka_bootstrap_servers=broker.bootstrap_servers)
    async with Admin(common) as admin:
        await admin.client.create_topics(
            [
                NewTopic("tickets.messages", 2, 1, topic_configs={"retention.ms": "1000", "segment.ms": "700000"}),
                NewTopic("sla.events", 9, 1, topic_configs={"cleanup.policy": "compact"}),
            ]
        )
    verified = await ops(settings, "topics", "verify")
    assert verified.status == 1
    assert "tickets.messages: partitions is 2, should be 6" in verified.out
    assert "tickets.messages: retention.ms is 1000, should be 2592000000" in verified.out
    assert "sla.events: cleanup.policy is compact, should be delete" in verified.out
    assert "channel.messages: missing" in verified.out

    assert (await ops(settings, "topics", "create", "--dry-run")).status == 0
    assert (await ops(settings, "topics", "create")).status == 1, "nobody agreed"
    assert set(await describe(common, ["channel.messages", "sla.events"])) == {"sla.events"}

    missing_only = await ops(settings, "topics", "create", "--missing-only", "--yes")
    assert missing_only.status == 0, missing_only.err
    assert (await describe(common, ["tickets.messages"]))["tickets.messages"].partitions == 2

    created = await ops(settings, "topics", "create", "--yes")
    assert created.status == 1, "nine partitions cannot become six"
    assert "Kafka cannot take partitions away" in created.err
    assert "changed 4 things" in created.err, created.err
    found = await describe(common, ["tickets.messages", "sla.events", "dead.letters"])
    assert found["tickets.messages"].partitions == 6
    assert found["tickets.messages"].configs["retention.ms"] == "2592000000"
    assert found["tickets.messages"].own["segment.ms"] == "700000", "what others set on the topic must stay"
    assert found["sla.events"].configs["cleanup.policy"] == "delete"
    assert found["dead.letters"].configs["min.insync.replicas"] == "1"
    left = await ops(settings, "topics", "verify", "--json")
    assert left.json == [{"topic": "sla.events", "what": "partitions", "is": "9", "should_be": "6"}]
    assert "replication is 1, should be 3" in (await ops(settings, "topics", "verify", "--replication", "3")).out


async def test_lag_with_the_service_down(running: Installation) -> None:
    running.stack.stop_service("classifier")
    who = uuid.uuid4().hex[:8]
    await running.publish(
        [message(f"{who}-{number}", "怎么提现", datetime.now(UTC).isoformat()) for number in range(5)]
    )

    async def waiting() -> list[dict[str, object]]:
        said = await running.ops("lag", "--service", "classifier", "--most-records", "4", "--json")
        assert said.status == 1, said.err
        found = said.json
        assert found["members"] == {"classifier.tickets.messages": [], "classifier.tickets.activity": []}
        return [item for item in found["partitions"] if item["lag"]]

    behind = await eventually(waiting, 60)
    assert sum(int(str(item["lag"])) for item in behind) == 5
    assert all(0 < float(str(item["oldest_age_seconds"])) < 300 for item in behind)
    assert (await running.ops("lag", "--service", "classifier", "--most-age", "1h")).status == 0
    shown = await running.ops("lag", "--service", "classifier")
    assert "nobody consumes in classifier.tickets.activity, classifier.tickets.messages" in shown.err
    running.stack.start_service("classifier")
    caught_up = ("lag", "--service", "classifier", "--most-records", "0", "--json")

    async def done() -> bool:
        said = await running.ops(*caught_up)
        assert said.status == 0
        assert said.json["members"]["classifier.tickets.messages"], "who consumes is named"
        return True

    await eventually(done, 60, 0.3)


async def test_a_broker_that_is_away_is_named() -> None:
    said = await ops({"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}, "lag")
    assert said.status == 3
    assert "KAFKA_BOOTSTRAP_SERVERS" in said.err
