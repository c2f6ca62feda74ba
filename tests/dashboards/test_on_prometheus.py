"""Every panel's query on a real Prometheus that asks the real services under the demo's traffic: all return data."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from deploy.grafana.__main__ import DASHBOARDS
from deploy.grafana.board import panels_of, parsed
from deploy.processes import HOST, REPOSITORY, Program, free_port
from deploy.stack import Stack
from tests.dashboards.traffic import services, traffic
from tests.support.prometheus import Prometheus, need_prometheus
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(600)  # five services and a Prometheus, on a machine that may have other work

_LONGEST_SECONDS: Final = 150.0
# Grafana's, and what `All` is where a dashboard has no variable of that name.
_INTERVALS: Final = {"$__rate_interval": "1m", "$__range": "15m", "$__interval": "15s"}


@dataclass(frozen=True)
class Asked:
    board: str
    panel: str
    query: str
    expression: str

    @property
    def place(self) -> tuple[str, str, str]:
        return (self.board, self.panel, self.query)


def _asked() -> list[Asked]:
    """Every query, with all values of every variable."""
    found = []
    for path in sorted(DASHBOARDS.glob("*.json")):
        board = parsed(path.read_text(encoding="utf-8"))
        values = {
            f'"${variable["name"]}"': f'"{variable["allValue"]}"'
            for variable in board["templating"]["list"]
            if variable["type"] == "query"
        }
        for panel in panels_of(board):
            for target in panel["targets"]:
                expression = target["expr"]
                for name, value in {**_INTERVALS, **values}.items():
                    expression = expression.replace(name, value)
                assert "$" not in expression, expression
                found.append(Asked(path.stem, panel["title"], target["refId"], expression))
    return found


def _config(stack: Stack, unwell_port: int) -> str:
    return yaml.safe_dump(
        {
            "global": {"scrape_interval": "2s", "scrape_timeout": "2s", "evaluation_interval": "2s"},
            "rule_files": [str(REPOSITORY / "deploy" / "prometheus" / "rules" / "*.yml")],
            "scrape_configs": [
                {"job_name": service, "static_configs": [{"targets": [f"{HOST}:{stack.ports[service]}"]}]}
                for service in stack.services
            ]
            + [{"job_name": "unwell", "static_configs": [{"targets": [f"{HOST}:{unwell_port}"]}]}],
        }
    )


@contextmanager
def _unwell(stack: Stack, directory: Path) -> Iterator[int]:
    """One more replica, which finds neither database nor broker: what keeps services from their work is shown, too."""
    port, program = free_port(), Program("unwell", directory)
    nowhere = {
        "DATABASE_URL": f"postgresql://nobody@{HOST}:{free_port()}/nothing",
        "KAFKA_BOOTSTRAP_SERVERS": f"{HOST}:{free_port()}",
        "HTTP_PORT": str(port),
    }
    program.start(
        [sys.executable, "-m", "services.classifier"],
        environment=stack.environment_of("classifier") | nowhere,
        working_directory=REPOSITORY,
    )
    try:
        yield port
    finally:
        program.stop()


@pytest.fixture(scope="module")
async def prometheus(run_directory: Path) -> AsyncIterator[Prometheus]:
    """Asks the demo's services, while messages come in and agents answer them."""
    need_prometheus()
    async with services(run_directory / "dashboards") as (stack, credentials):
        directory = run_directory / "dashboards"
        with (
            _unwell(stack, directory / "unwell") as unwell_port,
            Prometheus(directory / "prometheus", _config(stack, unwell_port)) as running,
        ):

            async def all_asked() -> bool:
                return len(await running.query("up == 1")) == len(stack.services) + 1

            await eventually(all_asked)  # a series that begins before the first traffic has an increase
            async with traffic(stack, credentials):
                yield running


def _has_data(result: list[dict[str, Any]]) -> bool:
    return any(math.isfinite(float(series["value"][1])) for series in result)


async def test_every_query_returns_data(prometheus: Prometheus) -> None:
    waiting = {asked.place: asked for asked in _asked()}
    total, panels = len(waiting), {place[:2] for place in waiting}
    begun = time.monotonic()

    async def all_have_data() -> bool:
        for place, asked in list(waiting.items()):
            if _has_data(await prometheus.query(asked.expression)):
                del waiting[place]
        assert not waiting, "\n".join(f"{' / '.join(place)}: {waiting[place].expression}" for place in sorted(waiting))
        return True

    try:
        await eventually(all_have_data, _LONGEST_SECONDS, every_seconds=1)
    finally:
        seconds = time.monotonic() - begun
        print(f"\n{len(panels)} panels, {total} queries, {total - len(waiting)} with data ({seconds:.1f} s)")


async def test_every_variable_has_values(prometheus: Prometheus) -> None:
    for path in sorted(DASHBOARDS.glob("*.json")):
        for variable in parsed(path.read_text(encoding="utf-8"))["templating"]["list"]:
            if variable["type"] != "query":
                continue
            selector, _, label = variable["query"].removeprefix("label_values(").removesuffix(")").rpartition(", ")
            series = await prometheus.query(selector.replace('"$job"', '".+"'))
            assert {one["metric"].get(label) for one in series} - {None, ""}, variable["query"]


async def test_what_the_closing_note_tells(prometheus: Prometheus) -> None:
    """Ages as Prometheus shows them. Printed, not judged: the machine may be busy."""
    for name, by in (
        ("switchyard_routed_age_seconds", ""),
        ("switchyard_record_age_seconds", "group"),
        ("switchyard_notification_age_seconds", "output"),
        ("switchyard_deadline_lateness_seconds", "service"),
    ):
        for part in (0.5, 0.99):
            series = await prometheus.query(
                f"histogram_quantile({part}, sum by (le, {by}) (increase({name}_bucket[15m])))"
                if by
                else f"histogram_quantile({part}, sum by (le) (increase({name}_bucket[15m])))"
            )
            assert _has_data(series), name
            for one in sorted(series, key=lambda one: str(one["metric"])):
                value = float(one["value"][1])
                if math.isfinite(value):
                    print(f"{name} p{part * 100:g} {one['metric'].get(by, '')}: {value:.3f} s")
