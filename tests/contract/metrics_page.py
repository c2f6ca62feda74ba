"""`docs/metrics.md`, generated from `shared/metrics.py` and from which module uses what."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from prometheus_client.metrics import MetricWrapperBase

from shared import metrics
from shared.database import SERVICES

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "metrics.md"
_HEAD: Final = """\
# Metrics

Every service shows its own at `/metrics` (`METRICS_TOKEN` asks for a bearer token). A series is there once its service
has used it; those that an alert watches begin at 0. This page is generated from `shared/metrics.py` by
`make contracts`; `make check` says when it is out of date.

- Counters and histograms are each replica's own: `sum` them. A gauge "of the database" is the same on every replica:
  take `max`, never `sum`.
- Labels come from closed sets. A brand without a file is `other`, what is not known yet is `none`, a path without a
  route is `unmatched`, an invented method is `other`.
- Gauges are read every few seconds, on large tables more seldom: reading takes a twentieth of one connection's time at
  most. When the database does not answer, what was read last stays; `switchyard_not_ready` tells of it.
- Beside these, each service shows `process_*` and `python_*` of Python's client.
"""


def defined() -> dict[str, Any]:
    """The metrics by the names of their constants, in the order of the file."""
    return {name: value for name, value in vars(metrics).items() if isinstance(value, MetricWrapperBase)}


def exported_name(metric: Any) -> str:
    return f"{metric._name}_total" if metric._type == "counter" else str(metric._name)


def page() -> str:
    used = users()
    rows = [
        f"| `{exported_name(metric)}` | {metric._type} | {', '.join(f'`{label}`' for label in metric._labelnames)} "
        f"| {metric._documentation} | {_services(used[name])} |"
        for name, metric in defined().items()
    ]
    return "\n".join([_HEAD, "| name | type | labels | meaning | services |", "|---|---|---|---|---|", *rows, ""])


def _services(names: frozenset[str]) -> str:
    return "all" if names == frozenset(SERVICES) else ", ".join(name for name in SERVICES if name in names)


def users() -> Mapping[str, frozenset[str]]:
    """By constant: the services whose modules, with all that they import, use it."""
    found: dict[str, set[str]] = {name: set() for name in defined()}
    for service in SERVICES:
        for module in _closure(f"services.{service}.app"):
            for name in _uses(module) & found.keys():
                found[name].add(service)
    return {name: frozenset(services) for name, services in found.items()}


def _closure(module: str) -> set[str]:
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in seen and _file(name) is not None:
            seen.add(name)
            waiting += _imports(name)
    return seen


@cache
def _tree(module: str) -> ast.Module:
    file = _file(module)
    assert file is not None
    return ast.parse(file.read_text("utf-8"))


def _file(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.exists()), None)


def _imports(module: str) -> Iterator[str]:
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _uses(module: str) -> set[str]:
    return {
        node.attr
        for node in ast.walk(_tree(module))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "metrics"
    }


def check() -> list[str]:
    if not PAGE.exists() or PAGE.read_text("utf-8") != page():
        return ["docs/metrics.md does not list the metrics as they are: run `make contracts`"]
    return []


def write() -> list[str]:
    PAGE.write_text(page(), "utf-8")
    return ["docs/metrics.md"]
