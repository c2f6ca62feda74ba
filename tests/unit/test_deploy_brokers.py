"""Which broker a machine gets, and what is said when it cannot be Apache Kafka."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy import brokers
from deploy.brokers import NoRealKafka, best_broker, real_kafka
from deploy.containers import DockerKafka
from deploy.embedded.broker import EmbeddedBroker
from deploy.kafka import native
from deploy.kafka.native import NativeKafka
from tests.support.surroundings import BrokerChoice


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine without Docker engine and Java, unless a test gives it one."""
    monkeypatch.setattr(brokers, "docker_unavailable_reason", lambda: "no Docker engine answers")
    monkeypatch.setattr(brokers, "unavailable_reason", lambda: "no `java` on the PATH")
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    monkeypatch.delenv("REQUIRE_REAL_KAFKA", raising=False)
    return monkeypatch


def test_docker_comes_before_java(machine: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine.setattr(brokers, "unavailable_reason", lambda: None)
    assert isinstance(real_kafka(tmp_path), NativeKafka)
    machine.setattr(brokers, "docker_unavailable_reason", lambda: None)
    assert isinstance(real_kafka(tmp_path), DockerKafka)


@pytest.mark.usefixtures("machine")
def test_without_both_the_embedded_broker_stands_in_unless_that_is_forbidden(tmp_path: Path) -> None:
    assert isinstance(best_broker(tmp_path), EmbeddedBroker)
    with pytest.raises(NoRealKafka, match=r"Docker: no Docker engine answers.*Java and Maven: no `java` on the PATH"):
        best_broker(tmp_path, require_real=True)


@pytest.mark.parametrize(
    ("required", "expected"),
    [
        ("", "embedded broker (noida-db; its log is in memory and lost by kill -9). Apache Kafka cannot run here."),
        ("0", "embedded broker (noida-db; its log is in memory and lost by kill -9). Apache Kafka cannot run here."),
        ("1", "none. REQUIRE_REAL_KAFKA is set. Apache Kafka cannot run here."),
    ],
)
def test_the_tests_say_what_they_run_on(
    machine: pytest.MonkeyPatch, tmp_path: Path, required: str, expected: str
) -> None:
    machine.setenv("REQUIRE_REAL_KAFKA", required)
    assert BrokerChoice.make(tmp_path).report(tmp_path).startswith(expected)


def test_a_broker_that_is_given_comes_first(machine: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine.setenv("KAFKA_BOOTSTRAP_SERVERS", "kafka.test:9092")
    assert BrokerChoice.make(tmp_path).report(tmp_path) == "kafka.test:9092 (KAFKA_BOOTSTRAP_SERVERS)"


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ('openjdk version "17.0.15" 2025-04-15', None),
        ('openjdk version "25" 2025-09-16', None),
        ('java version "11.0.2" 2019-01-15', "Java 17 or newer is needed, `java` is 11"),
        ('java version "1.8.0_292"', "Java 17 or newer is needed, `java` is 8"),
        ("Unable to locate a Java Runtime.", "`java -version` does not work: Unable to locate a Java Runtime."),
        (None, "no `java` on the PATH (Java 17 or newer is needed)"),
    ],
)
def test_java_is_asked_for_its_version(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, told: str | None, reason: str | None
) -> None:
    if told is not None:
        _program(tmp_path / "java", f"echo '{told}' >&2")
    monkeypatch.setattr(native, "_LIBRARIES", tmp_path / "libraries")
    native._jars().mkdir(parents=True)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert _unavailable_reason() == reason


def test_maven_is_needed_until_the_jars_are_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _program(tmp_path / "java", "echo 'openjdk version \"17\"' >&2")
    monkeypatch.setattr(native, "_LIBRARIES", tmp_path / "libraries")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    jars = native._jars()

    _program(tmp_path / "mvn", "echo '[ERROR] cannot reach any repository'; exit 1")
    assert _unavailable_reason() == "Maven cannot collect Kafka's jars:\n[ERROR] cannot reach any repository"
    assert not jars.exists()

    collect = (
        'for word; do case "$word" in -DoutputDirectory=*) mkdir -p "${word#*=}"; touch "${word#*=}/a.jar";; esac; done'
    )
    _program(tmp_path / "mvn", collect)
    assert _unavailable_reason() is None
    assert [path.name for path in jars.iterdir()] == ["a.jar"]
    assert sorted(path.name for path in jars.parent.iterdir()) == [jars.name, "lock"]

    _program(tmp_path / "mvn", "exit 1")
    assert _unavailable_reason() is None


def _unavailable_reason() -> str | None:
    native.unavailable_reason.cache_clear()
    try:
        return native.unavailable_reason()
    finally:
        native.unavailable_reason.cache_clear()


def _program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
