"""Surroundings for every tier: the broker, PostgreSQL, a fresh database. Nothing starts unless a test asks for it.

kafka          the session's broker, with all topics; use fresh ids and consumer groups, it is shared
each_kafka     the same, once on Apache Kafka and once on the embedded broker
own_broker     starts a broker of the test's own, to be killed or to have empty topics
database       URL of a fresh, migrated database; one per test module
new_database   makes further ones
run_directory  where programs of this run keep their files
"""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

from deploy import processes
from deploy.brokers import Broker, NoRealKafka
from deploy.migrations import upgrade_all
from deploy.processes import RUN_DIRECTORY
from shared.admin import create_topics
from tests.support import surroundings
from tests.support.surroundings import BrokerChoice, Kafka, as_kafka, create_database, database_name, drop_database

# How long examples take to make says more of the machine than of the code: no reason to fail.
settings.register_profile("switchyard", suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("switchyard")

# A broker of minutes does not earn back what optimising its code costs. Demo and benchmarks keep the default.
os.environ.setdefault("KAFKA_JVM_PERFORMANCE_OPTS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")
_MOST_WORKERS = 4
_NEED_NOTHING = ("tests/unit", "tests/property", "tests/contract")
_SHARE_AN_INSTALLATION = ("tests/ops/",)
_NEED_A_BROKER = {"kafka", "embedded_kafka", "each_kafka", "own_broker"}
_NEED_POSTGRES = {"database_server", "migrated_template", "database", "new_database"}


@cache
def _choice() -> BrokerChoice:
    return BrokerChoice.make(RUN_DIRECTORY)


def _broker_line() -> str:
    return f"broker: {_choice().report(RUN_DIRECTORY)}"


def _database_line() -> str:
    return f"database: {surroundings.database_report()}"


def pytest_report_header(config: pytest.Config) -> list[str]:
    """With several workers: what they run on. They alone collect the tests, so it is said whenever it may matter."""
    if not config.getoption("numprocesses") or all(arg.startswith(_NEED_NOTHING) for arg in config.args):
        return []
    return [_broker_line(), _database_line()]


def pytest_report_collectionfinish(items: Sequence[pytest.Item]) -> list[str]:
    """Say on what the collected tests will run; nothing for tests that need neither broker nor database."""
    needed = {name for item in items for name in getattr(item, "fixturenames", ())}
    lines = []
    if needed & _NEED_A_BROKER:
        lines.append(_broker_line())
    if needed & _NEED_POSTGRES:
        lines.append(_database_line())
    return lines


def pytest_xdist_auto_num_workers() -> int:
    """For `-n auto`. Each has a broker and a PostgreSQL of its own: many are too many, whatever the cores."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return min(cores, _MOST_WORKERS)


class TogetherWhatShares(LoadScopeScheduling):  # type: ignore[misc]
    """Hands tests to workers by what they share: a module's fixtures, an installation. In their order: the first tiers
    have the longest tests, and the last ones fill what is left.
    """

    def _split_scope(self, nodeid: str) -> str:
        module: str = nodeid.partition("::")[0]
        return next((directory for directory in _SHARE_AN_INSTALLATION if module.startswith(directory)), module)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> TogetherWhatShares:
    config.option.loadscopereorder = False  # it would have modules with few tests, which are the longest, wait
    return TogetherWhatShares(config, log)


@pytest.fixture(scope="session")
def run_directory() -> Iterator[Path]:
    with processes.run_directory("tests") as directory:
        yield directory


def _broker(directory: Path, *, embedded: bool = False) -> Broker:
    try:
        return _choice().broker(directory, embedded=embedded)
    except NoRealKafka as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture(scope="session")
async def kafka(run_directory: Path) -> AsyncIterator[Kafka]:
    if given := _choice().given:
        running = Kafka(given, "KAFKA_BOOTSTRAP_SERVERS", is_real=True)
        await create_topics(running.settings)
        yield running
        return
    with _broker(run_directory / "kafka") as broker:
        running = as_kafka(broker)
        await create_topics(running.settings)
        yield running


@pytest.fixture(scope="session")
async def embedded_kafka(run_directory: Path) -> AsyncIterator[Kafka]:
    with _broker(run_directory / "embedded-kafka", embedded=True) as broker:
        running = as_kafka(broker)
        await create_topics(running.settings)
        yield running


@pytest.fixture(scope="session", params=["kafka", "embedded_kafka"], ids=["real", "embedded"])
def each_kafka(request: pytest.FixtureRequest) -> Kafka:
    """What a test asserts here holds on Apache Kafka and on the embedded broker, which so cannot drift."""
    running = request.getfixturevalue(request.param)
    assert isinstance(running, Kafka)
    if request.param == "kafka" and not running.is_real:
        pytest.skip(_choice().missing)
    return running


@pytest.fixture
def own_broker(run_directory: Path) -> Iterator[Callable[..., Broker]]:
    """`own_broker()` starts a broker like the session's, `own_broker(embedded=True)` the embedded one; no topics."""
    with ExitStack() as started:

        def start(*, embedded: bool = False) -> Broker:
            directory = run_directory / "own-brokers" / uuid.uuid4().hex[:12]
            return started.enter_context(_broker(directory, embedded=embedded))

        yield start


@pytest.fixture(scope="session")
def database_server(run_directory: Path) -> Iterator[str]:
    """URL of the session's PostgreSQL, where databases can be made; tests use `database`."""
    with surroundings.postgres(run_directory / "postgres") as url:
        yield url


@pytest.fixture(scope="session")
async def migrated_template(database_server: str) -> AsyncIterator[str]:
    """Name of a database with every migration, to be copied: the migrations run once, each test gets what they made."""
    url = await create_database(database_server)
    await upgrade_all(url)
    yield database_name(url)
    await drop_database(database_server, url)


@pytest.fixture(scope="module")
async def database(database_server: str, migrated_template: str) -> AsyncIterator[str]:
    url = await create_database(database_server, template=migrated_template)
    yield url
    await drop_database(database_server, url)


@pytest.fixture
async def new_database(database_server: str, migrated_template: str) -> AsyncIterator[Callable[[], Awaitable[str]]]:
    made: list[str] = []

    async def make() -> str:
        made.append(await create_database(database_server, template=migrated_template))
        return made[-1]

    yield make
    for url in made:
        await drop_database(database_server, url)
