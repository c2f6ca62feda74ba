"""Apache Kafka from its Docker image, and whether a Docker engine answers at all.

Through testcontainers, whose reaper removes the container also when this process is killed. The broker listens on a
fixed port of the host, so that a restarted one is where its clients look for it.
"""

from __future__ import annotations

import subprocess
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from deploy.kafka.native import kafka_version
from deploy.kafka.probe import answers
from deploy.processes import ProgramFailed, free_port

if TYPE_CHECKING:
    from testcontainers.core.container import DockerContainer

POSTGRES_IMAGE: Final = "postgres:18"
_START_TIMEOUT_SECONDS: Final = 120.0
_STOP_TIMEOUT_SECONDS: Final = 30
_PING_TIMEOUT_SECONDS: Final = 10.0
_PORT: Final = 9092
_INTERNAL_PORT: Final = 9094


def docker_unavailable_reason() -> str | None:
    """Why no container can be run here, or None when a Docker engine answers."""
    # In a process of its own: a client that finds no engine leaks its socket, and one that hangs can be ended.
    check = "import testcontainers.core.container, docker; docker.from_env(timeout=3).ping()"
    try:
        result = subprocess.run(
            [sys.executable, "-c", check],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_PING_TIMEOUT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return f"the Docker engine did not answer within {_PING_TIMEOUT_SECONDS:g} s"
    if result.returncode:
        last_line = result.stderr.strip().splitlines()[-1]
        return last_line if last_line.startswith("ModuleNotFoundError") else "no Docker engine answers"
    return None


class DockerKafka:
    """One KRaft node in a container. Raises ProgramFailed when it does not answer in time."""

    def __init__(self) -> None:
        self._container: DockerContainer | None = None
        self._address = ""

    @property
    def description(self) -> str:
        return f"Apache Kafka {kafka_version()} (Docker)"

    @property
    def bootstrap_servers(self) -> str:
        if not self._address:
            raise RuntimeError("the Kafka container has no address before its first start()")
        return self._address

    def start(self) -> None:
        """Start, with the data of the last start(), and return once an admin client is answered."""
        if self._container is None:
            self._container = self._create(free_port())
            self._container.start()
        else:
            self._container.get_wrapped_container().start()
        deadline = time.monotonic() + _START_TIMEOUT_SECONDS
        while not answers(self.bootstrap_servers):
            if time.monotonic() > deadline:
                log = b"".join(self._container.get_logs()).decode(errors="replace")[-2000:]
                self.remove()
                raise ProgramFailed(f"{self.description} did not answer within {_START_TIMEOUT_SECONDS:g} s:\n{log}")
            time.sleep(0.2)

    def stop(self) -> None:
        """Controlled shutdown; the container and its data stay for the next start(). Idempotent."""
        if self._container is not None:
            self._container.get_wrapped_container().stop(timeout=_STOP_TIMEOUT_SECONDS)

    def kill(self) -> None:
        """kill -9; start() recovers the log."""
        if self._container is not None:
            self._container.get_wrapped_container().kill()

    def restart(self) -> None:
        """Stop and start again on the same port and data."""
        self.stop()
        self.start()

    def remove(self) -> None:
        """Remove the container and its data. Idempotent."""
        if self._container is not None:
            self._container.stop()
            self._container = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def _create(self, host_port: int) -> DockerContainer:
        from testcontainers.core.container import DockerContainer

        container = DockerContainer(f"apache/kafka:{kafka_version()}")
        self._address = f"{container.get_docker_client().host()}:{host_port}"
        return container.with_bind_ports(_PORT, host_port).with_envs(
            KAFKA_PROCESS_ROLES="broker,controller",
            KAFKA_NODE_ID="1",
            KAFKA_CONTROLLER_QUORUM_VOTERS=f"1@localhost:{_INTERNAL_PORT}",
            KAFKA_CONTROLLER_LISTENER_NAMES="CONTROLLER",
            KAFKA_LISTENERS=f"PLAINTEXT://:{_PORT},CONTROLLER://:{_INTERNAL_PORT}",
            KAFKA_ADVERTISED_LISTENERS=f"PLAINTEXT://{self._address}",
            KAFKA_LISTENER_SECURITY_PROTOCOL_MAP="PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            KAFKA_AUTO_CREATE_TOPICS_ENABLE="false",
            KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS="0",
            KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS="4",
            KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR="1",
            KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR="1",
            KAFKA_TRANSACTION_STATE_LOG_MIN_ISR="1",
            KAFKA_SHARE_COORDINATOR_STATE_TOPIC_REPLICATION_FACTOR="1",
            KAFKA_SHARE_COORDINATOR_STATE_TOPIC_MIN_ISR="1",
        )
