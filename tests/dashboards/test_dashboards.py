"""The committed dashboards: as they would be made now, of metrics that exist, whole, and linked to their runbooks."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.grafana.__main__ import DASHBOARDS, RUNBOOKS, differences, wanted
from deploy.grafana.board import COLUMNS, panels_of, parsed
from deploy.grafana.queries import Queries, UnknownLabel
from deploy.grafana.runbooks import linked
from deploy.processes import REPOSITORY
from shared import metrics
from tests.dashboards.promql import known_series, metrics_in, our_metrics, without_variables, wrong_in

_FILES = sorted(DASHBOARDS.glob("*.json"))
_LABEL_VALUES = re.compile(r"label_values\((?P<selector>.+), (?P<label>\w+)\)")

each_dashboard = pytest.mark.parametrize("path", _FILES, ids=[path.stem for path in _FILES])


def _read(path: Path) -> dict[str, Any]:
    return parsed(path.read_text(encoding="utf-8"))


def test_committed_json_is_as_it_would_be_made_now() -> None:
    assert differences(wanted()) == [], "run `make dashboards`"


def test_a_changed_and_a_left_over_file_are_told(tmp_path: Path) -> None:
    files = wanted()
    first = next(iter(files))
    changed = {**files, first: files[first].replace('"title"', '"titel"', 1)}
    removed = {path: text for path, text in files.items() if path != first}
    name = str(first.relative_to(REPOSITORY))
    assert differences(changed) == [f"{name} is not as it would be made now"]
    assert differences(removed) == [f"{name} belongs to no dashboard"]


@each_dashboard
def test_every_query_names_what_exists(path: Path) -> None:
    wrong = [
        f"{panel['title']}: {what}"
        for panel in panels_of(_read(path))
        for target in panel["targets"]
        for what in wrong_in(target["expr"], target["legendFormat"])
    ]
    assert wrong == []


@each_dashboard
def test_every_variable_is_of_a_label_that_exists_and_is_used(path: Path) -> None:
    board = _read(path)
    expressions = " ".join(target["expr"] for panel in panels_of(board) for target in panel["targets"])
    for variable in board["templating"]["list"]:
        if variable["type"] == "datasource":
            continue
        asked = _LABEL_VALUES.fullmatch(variable["query"])
        assert asked, variable["query"]
        (name,) = metrics_in(asked["selector"])
        assert asked["label"] in known_series()[name].labels, f"{variable['name']}: {name} has no such label"
        assert f'=~"${variable["name"]}"' in expressions, f"{variable['name']} narrows no query"
        assert (variable["multi"], variable["includeAll"]) == (True, True)


@pytest.mark.parametrize(
    ("expression", "legend", "complaint"),
    [
        ("sum(rate(switchyard_arivals_total[5m]))", "", "no service exposes 'switchyard_arivals_total'"),
        ("sum(rate(switchyard_arrivals[5m]))", "", "no service exposes"),
        ('sum(rate(switchyard_arrivals_total{priority="P1"}[5m]))', "", "has no label 'priority'"),
        ("sum by (channels) (rate(switchyard_arrivals_total[5m]))", "", "groups by 'channels'"),
        ("sum by (brand) (rate(switchyard_arrivals_total[5m]))", "{{queue}}", "its legend has 'queue'"),
        ("sum(switchyard_arrivals_total)", "", "ask for its rate"),
        ("sum(switchyard_queue_waiting)", "", "take its max first"),
        ("histogram_quantile(0.9, sum(rate(switchyard_routed_age_seconds_bucket[5m])))", "", "no `le`"),
        (
            "sum by (brand) (rate(switchyard_arrivals_total[5m])) / on (queue) "
            "sum by (queue) (rate(switchyard_arrivals_total[5m]))",
            "",
            "matches on 'queue'",
        ),
    ],
)
def test_what_does_not_exist_is_told(expression: str, legend: str, complaint: str) -> None:
    told = wrong_in(expression, legend)
    assert any(complaint in what for what in told), told


def test_a_query_with_a_wrong_label_cannot_be_built() -> None:
    queries = Queries("brand", "priority")
    # Arrivals have no priority to be narrowed by.
    assert queries.rate(metrics.ARRIVALS) == 'sum (rate(switchyard_arrivals_total{brand=~"$brand"}[$__rate_interval]))'
    with pytest.raises(UnknownLabel, match="has no label 'priority'"):
        queries.rate(metrics.ARRIVALS, ["priority"])
    with pytest.raises(UnknownLabel, match="has no label 'state'"):
        queries.rate(metrics.ARRIVALS, where=['state!="x"'])


def test_every_metric_is_on_a_dashboard() -> None:
    shown = {
        name
        for path in _FILES
        for panel in panels_of(_read(path))
        for target in panel["targets"]
        for name in metrics_in(target["expr"])
    }
    missing = [metric._name for metric in our_metrics() if not any(name.startswith(metric._name) for name in shown)]
    assert missing == []


@each_dashboard
def test_a_variable_narrows_every_metric_that_has_its_label(path: Path) -> None:
    board = _read(path)
    names = [variable["name"] for variable in board["templating"]["list"] if variable["type"] == "query"]
    for panel in panels_of(board):
        for target in panel["targets"]:
            for name in metrics_in(target["expr"]):
                known = known_series()[name]
                for variable in names:
                    if variable in known.labels and name != "ALERTS":
                        assert f'{variable}=~"${variable}"' in target["expr"], f"{panel['title']}: {variable}"


@each_dashboard
def test_every_panel_says_what_it_means(path: Path) -> None:
    for panel in panels_of(_read(path)):
        assert len(panel["description"]) > 20, panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}"
        (link,) = panel["links"]
        runbook = link["url"].removeprefix("/d/runbook-")
        assert (RUNBOOKS / f"{runbook}.json").exists(), f"{panel['title']} links to no runbook: {link['url']}"
        if panel["type"] in ("table", "stat", "bargauge"):
            assert all(target["instant"] for target in panel["targets"]), panel["title"]


@pytest.mark.parametrize("directory", [DASHBOARDS, RUNBOOKS], ids=["dashboards", "runbooks"])
def test_panels_neither_overlap_nor_leave_the_grid(directory: Path) -> None:
    boards = [_read(path) for path in directory.glob("*.json")]
    assert boards
    for board in boards:
        places = [(panel["title"], panel["gridPos"]) for panel in board["panels"]]
        for title, place in places:
            assert 0 <= place["x"] < place["x"] + place["w"] <= COLUMNS, title
        for (title, one), (other_title, other) in itertools.combinations(places, 2):
            apart_x = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
            apart_y = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
            assert apart_x or apart_y, f"{board['title']}: {title} lies on {other_title}"


def test_names_are_stable() -> None:
    boards = [_read(path) for directory in (DASHBOARDS, RUNBOOKS) for path in directory.glob("*.json")]
    uids = [board["uid"] for board in boards]
    assert len(set(uids)) == len(uids)
    assert max(map(len, uids)) <= 40  # Grafana takes no longer ones
    for board in boards:
        assert "id" not in board
        ids = [panel["id"] for panel in board["panels"]]
        assert len(set(ids)) == len(ids)
    assert {f"switchyard-{path.stem}" for path in _FILES} | {
        f"runbook-{path.stem}" for path in RUNBOOKS.glob("*.json")
    } == set(uids)


def test_what_grafana_reads_is_mounted_where_it_looks() -> None:
    file = REPOSITORY / "deploy/grafana/provisioning/dashboards/switchyard.yml"
    paths = [provider["options"]["path"] for provider in yaml.safe_load(file.read_text())["providers"]]
    compose = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())
    mounted = {
        mount["target"]: mount["source"]
        for mount in compose["services"]["grafana"]["volumes"]
        if isinstance(mount, dict)
    }
    assert [(REPOSITORY / mounted[path]).resolve() for path in paths] == [DASHBOARDS, RUNBOOKS]


def test_links_of_runbooks_lead_somewhere_inside_grafana() -> None:
    assert linked("see [lag](consumer-lag-growing.md#do)") == "see [lag](/d/runbook-consumer-lag-growing)"
    assert linked("see [how](../architecture.md)") == "see how (`docs/architecture.md`)"
    assert linked("see [it](https://grafana.com/docs)") == "see [it](https://grafana.com/docs)"


def _linter() -> str | None:
    return os.environ.get("DASHBOARD_LINTER") or shutil.which("dashboard-linter")


@each_dashboard
@pytest.mark.skipif(
    _linter() is None, reason="Grafana's dashboard-linter is not installed: see deploy/grafana/README.md"
)
def test_the_linter_of_grafana_passes(path: Path) -> None:
    linter = _linter()
    assert linter is not None
    done = subprocess.run([linter, "lint", "--strict", str(path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_queries_are_read_as_grafana_sends_them() -> None:
    assert without_variables('rate(x{brand=~"$brand"}[$__rate_interval])') == 'rate(x{brand=~"$brand"}[1m])'
