"""Who may do what on Kafka, derived from what `shared.topics` declares. Pure: `deploy.kafka.authorization` applies it.

One principal per service and per kind of outsider; nobody may what is not listed. Reading and writing imply Describe
in Kafka, so it is not granted beside them. Idempotent producers need no right on the cluster: since Kafka 3.0 Write on
a topic is enough (KIP-679).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from shared import topics
from shared.database import SERVICES
from shared.topics import Topic

CHANNELS: Final = "channels"
AGENTS: Final = "agents"
OPERATIONS: Final = "operations"
KEDA: Final = "keda"
ADMIN: Final = "admin"
"""A super user: makes users and ACLs, and has no ACL itself."""
PRINCIPALS: Final = (*SERVICES, CHANNELS, AGENTS, OPERATIONS, KEDA)
"""Users that services and people sign in as. Brokers, and whoever manages users and ACLs, are super users."""

CLUSTER_NAME: Final = "kafka-cluster"  # what Kafka calls the one resource of that kind

_PEOPLE: Final = {"agents' tools": AGENTS, "people": OPERATIONS, "operators": OPERATIONS}
"""Who reads or writes a topic, where `shared.topics` names them otherwise than they sign in."""


class Resource(StrEnum):
    TOPIC = "TOPIC"
    GROUP = "GROUP"
    CLUSTER = "BROKER"  # as librdkafka names it


class Operation(StrEnum):
    READ = "READ"
    WRITE = "WRITE"
    CREATE = "CREATE"
    DELETE = "DELETE"
    ALTER = "ALTER"
    DESCRIBE = "DESCRIBE"
    DESCRIBE_CONFIGS = "DESCRIBE_CONFIGS"
    ALTER_CONFIGS = "ALTER_CONFIGS"


@dataclass(frozen=True, slots=True, order=True)
class Acl:
    """`principal` may do `operation` with the resource `name`, or with all whose names begin so, from any host."""

    principal: str
    resource: Resource
    name: str
    operation: Operation
    is_prefix: bool = False

    def __str__(self) -> str:
        named = f"{self.name}*" if self.is_prefix else self.name
        kind = "cluster" if self.resource is Resource.CLUSTER else f"{self.resource.lower()} {named}"
        return f"User:{self.principal} may {self.operation} {kind}"


def acls_of(declared: Sequence[Topic] = topics.ALL) -> tuple[Acl, ...]:
    """All of them, sorted. Raises ValueError for a producer or consumer that is no principal."""
    found = {
        *(acl for topic in declared for acl in _of_topic(topic)),
        *(_group(service, f"{service}.", Operation.READ) for service in SERVICES),
        # Tools of agents choose their groups below this; a group decides which of them gets which ticket.
        _group(AGENTS, f"{AGENTS}.", Operation.READ),
        *_of_operations(declared),
        *_of_keda(declared),
    }
    return tuple(sorted(found))


def writers_of(topic: Topic) -> frozenset[str]:
    """Principals that produce to `topic` because they are declared to."""
    return frozenset(_principals(topic.producers, topic))


def readers_of(topic: Topic) -> frozenset[str]:
    """Principals that consume `topic` because they are declared to."""
    return frozenset(_principals(topic.consumers, topic))


def _of_topic(topic: Topic) -> Iterator[Acl]:
    for principal in writers_of(topic):
        yield _topic(principal, topic, Operation.WRITE)
    for principal in readers_of(topic):
        yield _topic(principal, topic, Operation.READ)


def _of_operations(declared: Sequence[Topic]) -> Iterator[Acl]:
    """What `deploy.ops` needs. It may not write ACLs: who may, may everything."""
    yield Acl(OPERATIONS, Resource.CLUSTER, CLUSTER_NAME, Operation.DESCRIBE)  # lists groups, shows ACLs
    for topic in declared:
        for operation in (Operation.CREATE, Operation.ALTER, Operation.DESCRIBE_CONFIGS, Operation.ALTER_CONFIGS):
            yield _topic(OPERATIONS, topic, operation)
        yield _topic(OPERATIONS, topic, Operation.READ)  # to look at a record, and to move a group's offsets
        if topic.dead_letters:
            yield _topic(OPERATIONS, topic, Operation.WRITE)  # a replay goes where the record came from
    for prefix in (*SERVICES, OPERATIONS):
        yield _group(OPERATIONS, f"{prefix}.", Operation.READ)


def _of_keda(declared: Sequence[Topic]) -> Iterator[Acl]:
    """It asks for the offsets of groups and topics, and for nothing else."""
    for topic in declared:
        if readers_of(topic) & set(SERVICES):
            yield _topic(KEDA, topic, Operation.DESCRIBE)
    for service in SERVICES:
        yield _group(KEDA, f"{service}.", Operation.DESCRIBE)


def _topic(principal: str, topic: Topic, operation: Operation) -> Acl:
    return Acl(principal, Resource.TOPIC, topic.name, operation)


def _group(principal: str, prefix: str, operation: Operation) -> Acl:
    """Groups are named `<service>.<family>`: all of a service's begin with its name and a dot, and nobody else's do."""
    return Acl(principal, Resource.GROUP, prefix, operation, is_prefix=True)


def _principals(names: Iterable[str], topic: Topic) -> Iterator[str]:
    for name in names:
        principal = _PEOPLE.get(name, name)
        if principal not in PRINCIPALS:
            raise ValueError(f"{topic.name}: {name!r} is no principal; known are {', '.join(sorted(PRINCIPALS))}")
        yield principal
