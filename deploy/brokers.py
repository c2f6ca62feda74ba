"""Which broker this machine can have: Apache Kafka by Docker, Apache Kafka by Java and Maven, or the embedded one."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from deploy.containers import DockerKafka, docker_unavailable_reason
from deploy.embedded.broker import EmbeddedBroker
from deploy.kafka.native import NativeKafka, unavailable_reason


class Broker(Protocol):
    """A broker that this process starts and stops. As a context manager it is started, and ended with all it holds."""

    @property
    def description(self) -> str:
        """What it is, for a person."""

    @property
    def bootstrap_servers(self) -> str:
        """host:port, the same over restarts."""

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def kill(self) -> None: ...
    def restart(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class NoRealKafka(RuntimeError):
    """Apache Kafka cannot run on this machine; the message says what was tried and why it failed."""


def real_kafka(directory: Path) -> Broker:
    """Apache Kafka, not started yet: a container if an engine answers, else natively over `directory`.

    Raises NoRealKafka.
    """
    no_docker = docker_unavailable_reason()
    if no_docker is None:
        return DockerKafka()
    not_native = unavailable_reason()
    if not_native is None:
        return NativeKafka(directory)
    raise NoRealKafka(f"Apache Kafka cannot run here. Docker: {no_docker}. Java and Maven: {not_native}.")


def best_broker(directory: Path, *, require_real: bool = False) -> Broker:
    """Apache Kafka where it can run, else the embedded broker; not started. Raises NoRealKafka if that must not be."""
    try:
        return real_kafka(directory)
    except NoRealKafka:
        if require_real:
            raise
        return EmbeddedBroker(directory)
