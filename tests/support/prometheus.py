"""A real Prometheus, as Debian packages it, on a port of its own.

Tests that need it skip with `unavailable_reason()` where it is not installed; with REQUIRE_PROMETHEUS=1 that is a
failure (`need_prometheus`).
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import httpx
import pytest

from deploy.processes import HOST, Program, free_port

_READY_SECONDS: Final = 60.0


class QueryFailed(RuntimeError):
    """Prometheus refused a query; the message holds its words and the query."""


class Prometheus:
    """One server, its data below `directory`, with `config` as its configuration file (YAML).

    Paths in `config` (rule files) may be absolute or below `directory`. Use as a context manager, or call `start` and
    `stop`.
    """

    def __init__(self, directory: Path, config: str) -> None:
        self.directory = directory
        self.config = config
        self.port = free_port()
        self._program = Program("prometheus", directory)

    @staticmethod
    def unavailable_reason() -> str | None:
        """Why no Prometheus can be run here, or None."""
        if shutil.which("prometheus") is None:
            return "There is no `prometheus` on PATH: install Debian's package of that name"
        return None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def log(self) -> Path:
        return self._program.log

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Return once it answers queries. Raises ProgramFailed, with the end of its log, when it does not start."""
        self.directory.mkdir(parents=True, exist_ok=True)
        file = self.directory / "prometheus.yml"
        file.write_text(self.config)
        self._program.start(
            [
                "prometheus",
                f"--config.file={file}",
                f"--storage.tsdb.path={self.directory / 'data'}",
                f"--web.listen-address={HOST}:{self.port}",
                "--web.enable-lifecycle",
                "--log.level=warn",
            ],
            working_directory=self.directory,
        )
        self._program.wait_until(self._is_ready, _READY_SECONDS)

    def stop(self) -> None:
        self._program.stop()

    async def reload(self, config: str) -> None:
        """Take `config` in place of the one before, without a restart. Raises httpx.HTTPStatusError for a bad one."""
        self.config = config
        (self.directory / "prometheus.yml").write_text(config)
        async with self._client() as client:
            (await client.post("/-/reload")).raise_for_status()

    async def query(self, expression: str, at: float | None = None) -> list[dict[str, Any]]:
        """The result of an instant query, `at` a Unix time or now: `{"metric": {label: value}, "value": [time, "n"]}`
        per series (a scalar comes as one series without labels). Raises QueryFailed.
        """
        parameters = {"query": expression, **({} if at is None else {"time": str(at)})}
        result: Any = await self._ask("/api/v1/query", parameters, expression)
        if result["resultType"] in ("scalar", "string"):
            return [{"metric": {}, "value": result["result"]}]
        return list(result["result"])

    async def query_range(self, expression: str, start: float, end: float, step_seconds: float) -> list[dict[str, Any]]:
        """The result of a range query: `{"metric": {...}, "values": [[time, "n"], ...]}` per series.

        Raises QueryFailed.
        """
        parameters = {"query": expression, "start": str(start), "end": str(end), "step": str(step_seconds)}
        result: Any = await self._ask("/api/v1/query_range", parameters, expression)
        return list(result["result"])

    async def get(self, path: str, **parameters: str) -> Any:
        """`data` of any other answer of the HTTP API, such as `/api/v1/targets` or `/api/v1/alerts`."""
        return await self._ask(path, parameters, path)

    async def _ask(self, path: str, parameters: dict[str, str], what: str) -> Any:
        async with self._client() as client:
            answer = (await client.get(path, params=parameters)).json()
        if answer["status"] != "success":
            raise QueryFailed(f"{answer.get('error')}: {what}")
        return answer["data"]

    def _client(self) -> httpx.AsyncClient:
        # It speaks plain HTTP; reading the certificates that it has no use for takes longer than a query.
        return httpx.AsyncClient(base_url=self.url, timeout=30, trust_env=False, verify=False)

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/-/ready", timeout=5, trust_env=False).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False


def need_prometheus() -> None:
    """Skip the calling test or fixture where there is no Prometheus; fail it under REQUIRE_PROMETHEUS=1."""
    if reason := Prometheus.unavailable_reason():
        if os.environ.get("REQUIRE_PROMETHEUS", "") not in ("", "0"):
            pytest.fail(f"REQUIRE_PROMETHEUS is set. {reason}", pytrace=False)
        pytest.skip(reason)
