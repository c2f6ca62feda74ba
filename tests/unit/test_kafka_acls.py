"""Rights on Kafka follow from what is declared, and what is declared is what the services do."""

from __future__ import annotations

import importlib
import os

import pytest
from confluent_kafka.admin import AclBinding, AclOperation, AclPermissionType, ResourcePatternType, ResourceType

from deploy.kafka.acls import PRINCIPALS, Operation, Resource, acls_of, readers_of, writers_of
from deploy.kafka.authorization import binding_of, describe, differences
from shared import topics
from shared.database import SERVICES
from shared.service import Service
from tests.contract.asyncapi import PLACEHOLDERS

QUEUES = frozenset(topic.name for topic in topics.QUEUES)
EVERY = frozenset(topic.name for topic in topics.ALL)

# Written out: a slip in shared/topics.py must not become a right.
MAY_WRITE = {
    "intake": {"tickets.messages", "dead.letters"},
    "classifier": {*QUEUES, "dead.letters"},
    "sla_timer": {"sla.events", "peaks.events", "dead.letters"},
    "notifier": {"notifications.outcomes", "dead.letters"},
    "desk": {"tickets.activity", "dead.letters"},
    "channels": {"channel.messages"},
    "agents": {"tickets.activity"},
    "operations": EVERY,
    "keda": set[str](),
}
MAY_READ = {
    "intake": {"channel.messages", "tickets.activity"},
    "classifier": {"tickets.messages", "tickets.activity"},
    "sla_timer": {"tickets.messages", "tickets.activity", *QUEUES},
    "notifier": {"tickets.messages", "tickets.activity", *QUEUES, "sla.events"},
    "desk": EVERY - {"channel.messages", "dead.letters"},
    "channels": set[str](),
    "agents": QUEUES,
    "operations": EVERY,
    "keda": set[str](),
}


@pytest.fixture
def wired(monkeypatch: pytest.MonkeyPatch) -> dict[str, Service]:
    """Every service as its `app.py` wires it, not started."""
    for name, value in PLACEHOLDERS.items():
        monkeypatch.setenv(name, os.environ.get(name, value))
    return {service: importlib.import_module(f"services.{service}.app").build() for service in SERVICES}


def test_what_is_declared_is_what_the_services_do(wired: dict[str, Service]) -> None:
    for service, built in wired.items():
        consumed = {name for subscription in built.subscriptions for name in subscription.topics}
        # `shared.delivery` publishes dead letters for every service that consumes.
        published = {topic.name for topic in built.publishes} | ({topics.DEAD_LETTERS.name} if consumed else set())
        assert consumed == {topic.name for topic in topics.ALL if service in readers_of(topic)}, service
        assert published == {topic.name for topic in topics.ALL if service in writers_of(topic)}, service


def test_every_group_is_its_services_own(wired: dict[str, Service]) -> None:
    granted = {acl.name: acl.principal for acl in acls_of() if acl.resource is Resource.GROUP and "." in acl.name}
    assert not any(one != other and other.startswith(one) for one in granted for other in granted)
    for service, built in wired.items():
        assert built.subscriptions
        assert all(subscription.group.startswith(f"{service}.") for subscription in built.subscriptions)


@pytest.mark.parametrize("principal", PRINCIPALS)
def test_nobody_may_more_than_is_written_here(principal: str) -> None:
    of_topics = [acl for acl in acls_of() if acl.principal == principal and acl.resource is Resource.TOPIC]
    for operation, allowed in ((Operation.WRITE, MAY_WRITE), (Operation.READ, MAY_READ)):
        assert {acl.name for acl in of_topics if acl.operation is operation} == allowed[principal]
    others = {acl.operation for acl in of_topics} - {Operation.READ, Operation.WRITE}
    assert others <= {"keda": {Operation.DESCRIBE}}.get(principal, set()) or principal == "operations"


def test_only_groups_are_granted_by_their_beginning_and_only_people_see_the_cluster() -> None:
    granted = acls_of()
    assert len(set(granted)) == len(granted)
    assert all(acl.name not in ("*", "") for acl in granted)
    assert {acl.resource for acl in granted if acl.is_prefix} == {Resource.GROUP}
    assert {(acl.principal, acl.operation) for acl in granted if acl.resource is Resource.CLUSTER} == {
        ("operations", Operation.DESCRIBE)
    }


def test_an_unknown_reader_is_no_principal() -> None:
    from dataclasses import replace

    strange = replace(topics.SLA_EVENTS, consumers=("a dashboard",))
    with pytest.raises(ValueError, match=r"sla\.events: 'a dashboard' is no principal"):
        acls_of([strange])


def test_a_cluster_is_compared_with_what_is_declared() -> None:
    declared = [binding_of(acl) for acl in acls_of()]
    assert differences(acls_of(), declared).none
    stray = {
        "User:intake may WRITE topic sla.events": allow("User:intake", "sla.events"),
        "User:* may WRITE topic sla.events": allow("User:*", "sla.events"),
        "User:intake may WRITE topic sla.events from 10.0.0.1": allow("User:intake", "sla.events", host="10.0.0.1"),
    }
    theirs = allow("User:warehouse", "sla.events")
    found = differences(acls_of(), [*declared[1:], *stray.values(), theirs])
    assert not found.none
    assert [describe(one) for one in found.missing] == [str(acls_of()[0])]
    assert {describe(one) for one in found.surplus} == set(stray)
    assert found.foreign == (theirs,)


def allow(principal: str, topic: str, *, host: str = "*") -> AclBinding:
    return AclBinding(
        ResourceType.TOPIC,
        topic,
        ResourcePatternType.LITERAL,
        principal,
        host,
        AclOperation.WRITE,
        AclPermissionType.ALLOW,
    )
