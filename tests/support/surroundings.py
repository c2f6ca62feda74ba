"""Where the tests get their broker and their PostgreSQL from, in which order, and where those keep their files."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from deploy.brokers import Broker, NoRealKafka, real_kafka
from deploy.containers import POSTGRES_IMAGE, docker_unavailable_reason
from deploy.embedded.broker import EmbeddedBroker
from deploy.embedded.postgres import EmbeddedPostgres
from shared.settings import CommonSettings


@dataclass(frozen=True)
class Kafka:
    """A running broker with all topics of `shared.topics`."""

    bootstrap_servers: str
    description: str
    is_real: bool

    @property
    def settings(self) -> CommonSettings:
        return CommonSettings(kafka_bootstrap_servers=self.bootstrap_servers)


@dataclass(frozen=True)
class BrokerChoice:
    """What the tests run on, decided before anything is started.

    given: KAFKA_BOOTSTRAP_SERVERS, of a broker that runs already. real: whether Apache Kafka can be had here.
    missing: what was tried in vain. required: REQUIRE_REAL_KAFKA, under which the embedded broker does not do.
    """

    given: str
    real: bool
    missing: str
    required: bool

    @classmethod
    def make(cls, directory: Path) -> BrokerChoice:
        given = os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "")
        required = os.environ.get("REQUIRE_REAL_KAFKA", "") not in ("", "0")
        try:
            real_kafka(directory)
        except NoRealKafka as error:
            return cls(given, real=False, missing=str(error), required=required)
        return cls(given, real=True, missing="", required=required)

    def broker(self, directory: Path, *, embedded: bool = False) -> Broker:
        """A broker of its own over `directory`, not started: Apache Kafka unless `embedded` or impossible here.

        Raises NoRealKafka where the embedded one would have to stand in although Apache Kafka is required.
        """
        if embedded:
            return EmbeddedBroker(directory)
        if self.real:
            return real_kafka(directory)
        if self.required:
            raise NoRealKafka(f"REQUIRE_REAL_KAFKA is set. {self.missing}")
        return EmbeddedBroker(directory)

    def report(self, directory: Path) -> str:
        """The line that says what the tests run on."""
        if self.given:
            return f"{self.given} (KAFKA_BOOTSTRAP_SERVERS)"
        try:
            return self.broker(directory).description + (f". {self.missing}" if self.missing else "")
        except NoRealKafka as error:
            return f"none. {error}"


def as_kafka(broker: Broker) -> Kafka:
    return Kafka(broker.bootstrap_servers, broker.description, is_real=not isinstance(broker, EmbeddedBroker))


def database_report() -> str:
    if os.environ.get("DATABASE_URL"):
        return "DATABASE_URL"
    return f"{POSTGRES_IMAGE} (Docker)" if docker_unavailable_reason() is None else "PostgreSQL 18 (embedded)"


@contextmanager
def postgres(directory: Path) -> Iterator[str]:
    """URL of a PostgreSQL where databases can be made: DATABASE_URL, else a container, else the embedded one."""
    if given := os.environ.get("DATABASE_URL"):
        yield given
    elif docker_unavailable_reason() is None:
        from testcontainers.community.postgres import PostgresContainer

        with PostgresContainer(
            POSTGRES_IMAGE, username="switchyard", password=uuid.uuid4().hex, driver=None
        ) as container:
            yield container.get_connection_url()
    else:
        with EmbeddedPostgres(directory) as server:
            yield server.url


async def create_database(server_url: str, *, template: str = "template1") -> str:
    """Make a database with a name of its own, as a copy of `template`, and return its URL."""
    name = f"switchyard_test_{uuid.uuid4().hex[:12]}"
    await _on_server(server_url, f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    return _url_of(server_url, name)


async def drop_database(server_url: str, url: str) -> None:
    """Drop the database at `url`, ending the sessions in it."""
    await _on_server(server_url, f'DROP DATABASE "{database_name(url)}" WITH (FORCE)')


def database_name(url: str) -> str:
    return url.split("?")[0].rsplit("/", 1)[1]


def _url_of(server_url: str, name: str) -> str:
    address, question_mark, query = server_url.partition("?")
    return address.rsplit("/", 1)[0] + f"/{name}{question_mark}{query}"


async def _on_server(server_url: str, statement: str) -> None:
    connection = await asyncpg.connect(server_url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
