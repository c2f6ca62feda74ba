"""A real Alertmanager, as Debian packages it, on a port of its own, and receivers of its webhooks.

Debian's is older than 0.26 and knows no `url_file`: `with_addresses` puts the addresses themselves into a
configuration, and changes nothing else.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import httpx
import pytest
import yaml

from deploy.processes import HOST, Program, free_port

BINARY: Final = "prometheus-alertmanager"
_PACKAGES: Final = {
    "promtool": "prometheus",
    "prometheus": "prometheus",
    "amtool": "prometheus-alertmanager",
    BINARY: "prometheus-alertmanager",
}
_READY_SECONDS: Final = 60.0


def need_programs(*programs: str) -> None:
    """Skip the calling test where one of these is not installed; fail it under REQUIRE_PROMETHEUS=1."""
    for program in programs:
        if shutil.which(program) is None:
            reason = f"There is no `{program}` on PATH: install Debian's package {_PACKAGES[program]}"
            if os.environ.get("REQUIRE_PROMETHEUS", "") not in ("", "0"):
                pytest.fail(f"REQUIRE_PROMETHEUS is set. {reason}", pytrace=False)
            pytest.skip(reason)


def with_addresses(configuration: str, addresses: Mapping[str, str]) -> str:
    """`configuration` (YAML) with `addresses` by receiver instead of the files that hold them."""
    content: Any = yaml.safe_load(configuration)
    for receiver in content["receivers"]:
        for webhook in receiver["webhook_configs"]:
            del webhook["url_file"]
            webhook["url"] = addresses[receiver["name"]]
    return yaml.safe_dump(content, sort_keys=False)


class Alertmanager:
    """One server, its data below `directory`. Use as a context manager."""

    def __init__(self, directory: Path, configuration: str) -> None:
        self.directory = directory
        self.configuration = configuration
        self.port = free_port()
        self._program = Program("alertmanager", directory)

    @property
    def address(self) -> str:
        """Host and port, as Prometheus is told it."""
        return f"{HOST}:{self.port}"

    def __enter__(self) -> Self:
        """Returns once it is ready. Raises ProgramFailed, with the end of its log, when it does not start."""
        self.directory.mkdir(parents=True, exist_ok=True)
        file = self.directory / "alertmanager.yml"
        file.write_text(self.configuration)
        self._program.start(
            [
                BINARY,
                f"--config.file={file}",
                f"--storage.path={self.directory / 'data'}",
                f"--web.listen-address={self.address}",
                "--cluster.listen-address=",
                "--log.level=warn",
            ],
            working_directory=self.directory,
        )
        self._program.wait_until(self._is_ready, _READY_SECONDS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._program.stop()

    async def post(self, alerts: Sequence[Mapping[str, str]]) -> None:
        """Have alerts of these labels fire, as Prometheus would."""
        async with self._client() as client:
            answer = await client.post("/api/v2/alerts", json=[{"labels": labels} for labels in alerts])
            answer.raise_for_status()

    async def alerts(self) -> list[dict[str, Any]]:
        """What fires, with `labels` and `status` (`state`: `active` or `suppressed`, `inhibitedBy`)."""
        async with self._client() as client:
            found: list[dict[str, Any]] = (await client.get("/api/v2/alerts")).json()
        return found

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=f"http://{self.address}", timeout=30, trust_env=False)

    def _is_ready(self) -> bool:
        try:
            answer = httpx.get(f"http://{self.address}/-/ready", timeout=5, trust_env=False)
        except httpx.TransportError:
            return False
        return answer.status_code == httpx.codes.OK


class Receivers:
    """What webhooks brought, by receiver, in their order."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._received: list[tuple[str, dict[str, Any]]] = []

    def addresses(self, *names: str) -> dict[str, str]:
        return {name: f"{self.url}/{name}" for name in names}

    def take(self, name: str, body: dict[str, Any]) -> None:
        self._received.append((name, body))

    def alerts(self, receiver: str, status: str, **labels: str) -> list[dict[str, Any]]:
        """Alerts of that status (`firing`, `resolved`) and labels that this receiver was told of."""
        return [
            alert
            for name, body in list(self._received)
            if name == receiver
            for alert in body["alerts"]
            if alert["status"] == status and labels.items() <= alert["labels"].items()
        ]


@contextmanager
def receivers() -> Iterator[Receivers]:
    """A server that takes the webhooks of every receiver, each at a path of its name."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            taken.take(self.path.strip("/"), body)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer((HOST, free_port()), Handler)
    taken = Receivers(f"http://{HOST}:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield taken
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
