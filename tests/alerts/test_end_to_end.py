"""A service is killed: its alert reaches the webhook of who is on call; it runs again: so does that.

Real service, Prometheus and Alertmanager, with the committed rules and configuration. Only their waits are shortened:
`for` and `interval` of rules, `group_wait`, `group_interval` and `repeat_interval` of routes. No expression, label or
annotation is touched.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from deploy.processes import HOST, REPOSITORY, Program, free_port
from shared.database import SERVICES
from tests.alerts.rule_files import RULES
from tests.alerts.test_alertmanager import CONFIGURATION, RECEIVERS
from tests.support.alertmanager import BINARY, Alertmanager, Receivers, need_programs, receivers, with_addresses
from tests.support.prometheus import Prometheus
from tests.support.surroundings import Kafka
from tests.support.waiting import eventually

_WAIT: Final = "1s"
_REPEAT: Final = "1h"
_LONG_SECONDS: Final = 90
_SERVICE: Final = "classifier"
_TOKEN: Final = "end-to-end"


def impatient_rules(written: str) -> str:
    content: Any = yaml.safe_load(written)
    for group in content["groups"]:
        group["interval"] = _WAIT
        for rule in group["rules"]:
            if "for" in rule:
                rule["for"] = _WAIT
    return yaml.safe_dump(content, sort_keys=False)


def impatient_routes(written: str) -> str:
    content: Any = yaml.safe_load(written)
    for route in (content["route"], *content["route"]["routes"]):
        route |= {"group_wait": _WAIT, "group_interval": _WAIT, "repeat_interval": _REPEAT}
    return yaml.safe_dump(content, sort_keys=False)


class Watched:
    """The classifier with all that watches it."""

    def __init__(self, directory: Path, environment: dict[str, str], told: Receivers) -> None:
        self.told = told
        self.port = free_port()
        self._directory = directory
        self._environment = {
            **os.environ,
            **environment,
            "HTTP_HOST": HOST,
            "HTTP_PORT": str(self.port),
            "METRICS_TOKEN": _TOKEN,
        }
        self._program = Program(_SERVICE, directory / _SERVICE)

    def start(self) -> None:
        self._program.start(
            [sys.executable, "-m", f"services.{_SERVICE}"],
            environment=self._environment,
            working_directory=REPOSITORY,
        )

    def kill(self) -> None:
        self._program.kill()

    def stop(self) -> None:
        self._program.stop()

    async def is_told(self, status: str, alert: str) -> dict[str, Any]:
        async def found() -> dict[str, Any] | None:
            alerts = self.told.alerts("pager", status, alertname=alert, service=_SERVICE)
            return alerts[-1] if alerts else None

        alert_told = await eventually(found, _LONG_SECONDS, 0.2)
        assert alert_told is not None
        return alert_told

    def configuration(self, alertmanager: str, prometheus_port: int) -> str:
        """Of Prometheus. The other services' jobs ask Prometheus itself, which answers as they would."""
        folder = self._directory / "rules"
        folder.mkdir(parents=True, exist_ok=True)
        for file in RULES:
            (folder / file.name).write_text(impatient_rules(file.read_text("utf-8")))
        jobs = {name: self.port if name == _SERVICE else prometheus_port for name in SERVICES}
        return json.dumps(
            {
                "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
                "rule_files": [f"{folder}/*.yml"],
                "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]},
                "scrape_configs": [
                    {
                        "job_name": name,
                        "authorization": {"credentials": _TOKEN},
                        "static_configs": [{"targets": [f"{HOST}:{port}"]}],
                    }
                    for name, port in jobs.items()
                ],
            }
        )


@pytest.fixture
def told() -> Iterator[Receivers]:
    need_programs("prometheus", BINARY)
    with receivers() as taken:
        yield taken


async def test_a_killed_service_pages_and_its_return_too(
    kafka: Kafka, database: str, run_directory: Path, told: Receivers
) -> None:
    directory = run_directory / "alerts"
    settings = kafka.settings
    watched = Watched(
        directory,
        {
            "KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers,
            "KAFKA_FETCH_PAUSE_MS": str(settings.kafka_fetch_pause_ms),
            "KAFKA_IDEMPOTENCE": str(settings.kafka_idempotence).lower(),
            "DATABASE_URL": database,
        },
        told,
    )
    routes = with_addresses(impatient_routes(CONFIGURATION.read_text()), told.addresses(*RECEIVERS))
    watched.start()
    try:
        with Alertmanager(directory / "alertmanager", routes) as manager:
            prometheus = Prometheus(directory / "prometheus", "")
            prometheus.config = watched.configuration(manager.address, prometheus.port)
            with prometheus:
                await _killed_and_started_again(watched, prometheus)
    finally:
        watched.stop()


async def _killed_and_started_again(watched: Watched, prometheus: Prometheus) -> None:
    async def works() -> bool:
        asked = await prometheus.query(f'max(switchyard_not_ready{{service="{_SERVICE}"}}) == 0')
        firing = await prometheus.query(f'ALERTS{{service="{_SERVICE}",severity="page"}}')
        return bool(asked) and not firing

    await eventually(works, _LONG_SECONDS, 0.2)
    assert not watched.told.alerts("pager", "firing", alertname="ServiceDown", service=_SERVICE)

    watched.kill()
    fired = await watched.is_told("firing", "ServiceDown")
    assert fired["labels"] == {
        "alertname": "ServiceDown",
        "severity": "page",
        "service": _SERVICE,
        "job": _SERVICE,
    }
    assert fired["annotations"]["summary"] == f"{_SERVICE} is down"
    assert fired["annotations"]["runbook"] == "docs/runbooks/service-down.md"

    # One call for the trouble: what only follows from it is not told.
    watched.start()
    resolved = await watched.is_told("resolved", "ServiceDown")
    assert resolved["labels"] == fired["labels"]

    async def still_watched() -> bool:
        names = {alert["labels"]["alertname"] for alert in watched.told.alerts("watchdog", "firing")}
        return names == {"Watchdog"}

    await eventually(still_watched, _LONG_SECONDS, 0.2)
    assert not watched.told.alerts("pager", "firing", alertname="MonitoringBroken")


async def test_a_service_without_what_it_stands_on_pages(run_directory: Path, told: Receivers) -> None:
    """Neither Kafka nor PostgreSQL is there: it runs, and says so."""
    directory = run_directory / "alerts-not-ready"
    nowhere = {
        "KAFKA_BOOTSTRAP_SERVERS": f"{HOST}:{free_port()}",
        "DATABASE_URL": f"postgresql://nobody@{HOST}:{free_port()}/nothing",
    }
    watched = Watched(directory, nowhere, told)
    routes = with_addresses(impatient_routes(CONFIGURATION.read_text()), told.addresses(*RECEIVERS))
    watched.start()
    try:
        with Alertmanager(directory / "alertmanager", routes) as manager:
            prometheus = Prometheus(directory / "prometheus", "")
            prometheus.config = watched.configuration(manager.address, prometheus.port)
            with prometheus:
                fired = await watched.is_told("firing", "ServiceNotReady")
    finally:
        watched.stop()
    assert fired["annotations"]["runbook"] == "docs/runbooks/service-not-ready.md"
    for check in ("broker", "database"):
        assert check in fired["annotations"]["description"]
