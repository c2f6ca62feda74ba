"""The list of metrics: each of them is used, named as Prometheus names things, and told on its page."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from shared import metrics
from tests.contract import metrics_page
from tests.contract.metrics_page import defined, exported_name, users

_UNITS_OF_OTHERS = ("_milliseconds", "_ms", "_minutes", "_hours", "_days", "_kilobytes", "_mb", "_percent")


def test_every_metric_is_used_by_some_service() -> None:
    assert [name for name, services in users().items() if not services] == []


@pytest.mark.parametrize("name", defined())
def test_a_metric_is_named_as_prometheus_names_things(name: str) -> None:
    metric = defined()[name]
    exported = exported_name(metric)
    assert re.fullmatch(r"switchyard_[a-z][a-z0-9_]*", exported)
    assert not exported.endswith(_UNITS_OF_OTHERS)
    assert exported.endswith("_total") == (metric._type == "counter")
    # `le` and `quantile` are Prometheus' own, `job` and `instance` are those of the scrape.
    assert not {"le", "quantile", "job", "instance"} & set(metric._labelnames)
    assert metric._labelnames
    assert metric._documentation


def test_promtool_finds_nothing_to_say() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    for metric in defined().values():
        metric.labels(*("" for _ in metric._labelnames))
    try:
        exposition = generate_latest(metrics.REGISTRY)
    finally:
        for metric in defined().values():
            metric.remove(*("" for _ in metric._labelnames))
    checked = subprocess.run([promtool, "check", "metrics"], input=exposition, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")


def test_the_page_tells_the_metrics_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert metrics_page.check() == []
    monkeypatch.setattr(metrics_page, "PAGE", tmp_path / "metrics.md")
    assert metrics_page.check() != []
    metrics_page.write()
    assert metrics_page.check() == []
