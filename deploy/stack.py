"""The five services as processes, with their surroundings: what the demo, the chaos tests and the benchmarks run.

The services are started as users start them (`python -m services.<name>`), so what is measured and broken here is the
real thing.
"""

from __future__ import annotations

import asyncio
import functools
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Protocol

import httpx

from deploy.embedded.broker import EmbeddedBroker
from deploy.embedded.postgres import EmbeddedPostgres
from deploy.migrations import upgrade_all
from deploy.processes import HOST, REPOSITORY, Program, free_port
from shared.admin import create_topics
from shared.database import SERVICES
from shared.settings import CommonSettings

_READY_SECONDS: Final = 90.0
_DATABASE: Final = "switchyard"
_EMBEDDED_PAUSE_MS: Final = "40"  # it does not wait for records: see ADR 0002


class Startable(Protocol):
    """What a stack asks of its broker: any of `deploy.brokers`, or an `ExternalBroker`."""

    @property
    def bootstrap_servers(self) -> str: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...


class ExternalBroker:
    """A broker that runs already, at `bootstrap_servers`."""

    def __init__(self, bootstrap_servers: str) -> None:
        self.bootstrap_servers = bootstrap_servers

    def start(self) -> None:
        """It runs."""

    def stop(self) -> None:
        """It goes on running."""


class Stack:
    """Use as an async context manager, or call `start` and `stop`. Everything lives below `directory`.

    `environment`: settings for all services; `of_service`: further ones for a single service.
    """

    def __init__(
        self,
        directory: Path,
        broker: Startable,
        *,
        environment: Mapping[str, str] | None = None,
        of_service: Mapping[str, Mapping[str, str]] | None = None,
        services: tuple[str, ...] = SERVICES,
    ) -> None:
        self.directory = directory
        self.broker = broker
        self.postgres = EmbeddedPostgres(directory / "postgres")
        self.services = services
        self.ports = {service: free_port() for service in services}
        self.database_url = ""
        self._environment = dict(environment or {})
        self._of_service = {name: dict(values) for name, values in (of_service or {}).items()}
        self._programs = {
            service: Program(service, directory / service, stop_timeout_seconds=45) for service in services
        }

    async def __aenter__(self) -> Stack:
        try:
            await self.start()
        except BaseException:
            self.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stop()

    @property
    def settings(self) -> CommonSettings:
        """Settings that reach this stack's broker and database."""
        return CommonSettings(
            kafka_bootstrap_servers=self.broker.bootstrap_servers,
            database_url=self.database_url,
        )

    def url(self, service: str) -> str:
        return f"http://{HOST}:{self.ports[service]}"

    async def start(self, said: Callable[[str], None] = lambda _: None) -> None:
        """Bring everything up and return once every service is ready. `said` is told of each step.

        Raises ProgramFailed with the end of the log of what did not start.
        """
        said("PostgreSQL")
        self.postgres.start()
        self.database_url = self.postgres.create_database(_DATABASE)
        said("broker")
        self.broker.start()
        said("migrations and topics")
        await upgrade_all(self.database_url)
        await create_topics(self.settings)
        said("five services")
        for service in self.services:
            self.start_service(service)
        await self.wait_until_ready(*self.services)

    def stop(self) -> None:
        """Stop the services (each drains), then the broker, then PostgreSQL."""
        for program in self._programs.values():
            program.stop()
        self.broker.stop()
        self.postgres.stop()

    def start_service(self, service: str) -> None:
        self._programs[service].start(
            [sys.executable, "-m", f"services.{service}"],
            environment=self.environment_of(service),
            working_directory=REPOSITORY,
        )

    def environment_of(self, service: str) -> dict[str, str]:
        """The whole environment that it is started with."""
        return {
            **os.environ,
            "KAFKA_BOOTSTRAP_SERVERS": self.broker.bootstrap_servers,
            "DATABASE_URL": self.database_url,
            "HTTP_HOST": HOST,
            "HTTP_PORT": str(self.ports[service]),
            **({"KAFKA_FETCH_PAUSE_MS": _EMBEDDED_PAUSE_MS} if isinstance(self.broker, EmbeddedBroker) else {}),
            **({"DESK_SLA_TIMER_URL": self.url("sla_timer")} if "sla_timer" in self.ports else {}),
            **({"NOTIFIER_GATEWAY_URL": f"{self.url('intake')}/v1/replies"} if "intake" in self.ports else {}),
            **self._environment,
            **self._of_service.get(service, {}),
        }

    def kill_service(self, service: str) -> None:
        """kill -9."""
        self._programs[service].kill()

    def stop_service(self, service: str) -> int | None:
        """SIGTERM, and wait for the drain. Returns the exit status, negative when it had to be killed."""
        return self._programs[service].stop()

    def pid(self, service: str) -> int | None:
        return self._programs[service].pid

    def log(self, service: str) -> Path:
        return self._programs[service].log

    async def wait_until_ready(self, *services: str) -> None:
        """Until `/readyz` of each answers 200. Raises ProgramFailed."""
        for service in services:
            ready = functools.partial(self._is_ready, service)
            await asyncio.to_thread(self._programs[service].wait_until, ready, _READY_SECONDS)

    def _is_ready(self, service: str) -> bool:
        try:
            return httpx.get(f"{self.url(service)}/readyz", timeout=5, trust_env=False).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False
