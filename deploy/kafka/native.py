"""Apache Kafka run natively: one KRaft node (broker and controller) out of Kafka's own jars, on Java 17 or newer.

Maven collects the jars once into `.run/kafka-libs/`; after that neither Maven nor a network is needed.
Data survives kill -9 of the process, as Kafka's does.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import time
import uuid
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from deploy.kafka.probe import answers
from deploy.kafka.secured import Security
from deploy.processes import HOST, RUN_DIRECTORY, DirectoryInUse, Program, ProgramFailed, claimed, free_port
from shared.settings import CommonSettings

_HERE: Final = Path(__file__).resolve().parent
_POM: Final = _HERE / "pom.xml"
_LIBRARIES: Final = RUN_DIRECTORY / "kafka-libs"
_JAVA_AT_LEAST: Final = 17
_JVM_OPTIONS: Final = "KAFKA_JVM_PERFORMANCE_OPTS"  # as Kafka's own scripts take them
_START_TIMEOUT_SECONDS: Final = 180.0
_HANDSHAKE_PAUSE_SECONDS: Final = 0.5
_RESOLVE_TIMEOUT_SECONDS: Final = 300.0

# Small and quick: a group's first rebalance does not wait for stragglers, internal topics have few partitions.
_PROPERTIES: Final = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller_port}
controller.listener.names=CONTROLLER
log.dirs=data
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
"""
# After kill -9 the controller lets the broker back in once its old session has ended: 9 s by default, which a secured
# broker keeps, for nobody kills it and its start takes longer.
_PLAINTEXT: Final = """\
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}
advertised.listeners=PLAINTEXT://{host}:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
"""


class NativeKafka:
    """One Apache Kafka over `directory`: data, log, configuration and ports stay there over restarts.

    `security`: asks clients for certificate, user and rights; without it everybody may everything, from this machine.
    Raises ProgramFailed, with the reason, when it cannot run here (see `unavailable_reason`) or does not start, and
    DirectoryInUse when a living process runs on the directory.
    """

    def __init__(self, directory: Path, *, security: Security | None = None) -> None:
        self.directory = directory.absolute()
        self.security = security
        self._port = 0
        self._properties = self.directory / "server.properties"
        self._program = Program("kafka", self.directory)

    @property
    def description(self) -> str:
        return f"Apache Kafka {kafka_version()} (native)"

    @property
    def bootstrap_servers(self) -> str:
        if not self._port:
            raise RuntimeError("the native Kafka has no address before its first start()")
        return f"{HOST}:{self._port}"

    @property
    def settings(self) -> CommonSettings:
        """Settings of a client that may everything here."""
        if self.security is not None:
            return self.security.admin_settings(self.bootstrap_servers)
        return CommonSettings(kafka_bootstrap_servers=self.bootstrap_servers)

    @property
    def pid(self) -> int | None:
        return self._program.pid

    def start(self) -> None:
        """Start, with freshly formatted storage when there is none, and return once an admin client is answered."""
        reason = unavailable_reason()
        if reason is not None:
            raise ProgramFailed(f"Apache Kafka cannot run here: {reason}")
        self._program.claim()
        try:
            if not self._port:
                self._configure()
            self._format()
            self._program.start(
                [*_java("-Xms256m", "-Xmx512m"), "kafka.Kafka", self._properties], working_directory=self.directory
            )
        except BaseException:
            self._program.stop()
            raise
        self._program.wait_until(self._answers, _START_TIMEOUT_SECONDS)

    def stop(self) -> None:
        """Controlled shutdown. Idempotent."""
        self._program.stop()

    def kill(self) -> None:
        """kill -9; start() recovers the log."""
        self._program.kill()

    def restart(self) -> None:
        """Stop, if it runs, and start again on the same ports and data."""
        self.stop()
        self.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _answers(self) -> bool:
        if answers(self.bootstrap_servers, self.settings):
            return True
        if self.security is not None:
            time.sleep(_HANDSHAKE_PAUSE_SECONDS)  # asking takes both sides work that the start is waiting for
        return False

    def _configure(self) -> None:
        self._port, controller_port = free_port(), free_port()
        listeners = (
            _PLAINTEXT.format(host=HOST, port=self._port, controller_port=controller_port)
            if self.security is None
            else self.security.properties(port=self._port, controller_port=controller_port)
        )
        self._properties.touch(mode=0o600)  # it may hold a password
        self._properties.write_text(_PROPERTIES.format(host=HOST, controller_port=controller_port) + listeners)

    def _format(self) -> None:
        """Write the storage's identity; storage that has one keeps it."""
        if (self.directory / "data" / "meta.properties").exists():
            return
        shutil.rmtree(self.directory / "data", ignore_errors=True)  # half formatted by a killed run
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        result = subprocess.run(
            [
                *(*_java(), "kafka.tools.StorageTool", "format", f"--cluster-id={cluster_id}"),
                *("--config", self._properties, *(self.security.format_options if self.security else ())),
            ],
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_START_TIMEOUT_SECONDS,
        )
        if result.returncode:
            raise ProgramFailed(f"Kafka's storage could not be formatted:\n{result.stdout}{result.stderr}")


def kafka_version() -> str:
    """The version that pom.xml names."""
    version = ElementTree.parse(_POM).findtext("{*}properties/{*}kafka.version")  # noqa: S314 - our own file
    assert version, f"{_POM} names no kafka.version"
    return version


@functools.cache
def unavailable_reason() -> str | None:
    """Why Apache Kafka cannot run natively here, or None when it can. The first call may let Maven collect the jars."""
    return _java_missing() or _jars_missing()


def _java_missing() -> str | None:
    if shutil.which("java") is None:
        return f"no `java` on the PATH (Java {_JAVA_AT_LEAST} or newer is needed)"
    told = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False, timeout=30).stderr
    version = re.search(r'version "(?:1\.)?(\d+)', told)
    if version is None:
        return f"`java -version` does not work: {told.strip() or 'it says nothing'}"
    if int(version[1]) < _JAVA_AT_LEAST:
        return f"Java {_JAVA_AT_LEAST} or newer is needed, `java` is {version[1]}"
    return None


def _jars_missing() -> str | None:
    if _jars().exists():
        return None
    if shutil.which("mvn") is None:
        return f"no `mvn` on the PATH to collect Kafka's jars into {_jars()}"
    deadline = time.monotonic() + _RESOLVE_TIMEOUT_SECONDS
    while True:
        try:
            with claimed(_LIBRARIES / "lock"):
                return None if _jars().exists() else _collect_jars()
        except DirectoryInUse as in_use:
            if time.monotonic() > deadline:
                return str(in_use)
            time.sleep(0.2)  # another run is collecting them right now


def _collect_jars() -> str | None:
    """Let Maven copy the jars beside their place and move them there whole; a killed run leaves no half of them."""
    with tempfile.TemporaryDirectory(dir=_LIBRARIES) as unfinished:
        command = [
            *("mvn", "--batch-mode", "--no-transfer-progress", "--quiet", f"--file={_POM}"),
            *("dependency:copy-dependencies", f"-DoutputDirectory={unfinished}/jars", "-DincludeScope=runtime"),
        ]
        try:
            result = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=_RESOLVE_TIMEOUT_SECONDS,
            )
        except subprocess.TimeoutExpired:
            return f"Maven did not collect Kafka's jars within {_RESOLVE_TIMEOUT_SECONDS:g} s"
        if result.returncode:
            last_lines = "\n".join((result.stdout + result.stderr).strip().splitlines()[:5])
            return f"Maven cannot collect Kafka's jars:\n{last_lines}"
        Path(unfinished, "jars").rename(_jars())
    return None


def _jars() -> Path:
    """Where they are, by what pom.xml asks for: another dependency is another folder."""
    return _LIBRARIES / f"{kafka_version()}-{hashlib.sha256(_POM.read_bytes()).hexdigest()[:8]}"


def client_command(main_class: str) -> list[str | Path]:
    """The command of one of Kafka's own clients, without its arguments."""
    return [*_java(), main_class]


def _java(*options: str) -> list[str | Path]:
    logging = f"-Dlog4j2.configurationFile={(_HERE / 'log4j2.properties').as_uri()}"
    return ["java", *os.environ.get(_JVM_OPTIONS, "").split(), *options, logging, "-cp", f"{_jars()}/*"]
