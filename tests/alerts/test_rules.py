"""The rules: promtool takes them, each fires and keeps quiet as its tests say, each has a page for who is called."""

from __future__ import annotations

import json
import re
import subprocess
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.processes import REPOSITORY
from shared.database import SERVICES
from tests.alerts.rule_files import (
    PROMETHEUS,
    RULES,
    RUNBOOKS,
    TESTS,
    Rule,
    alerts,
    labels_of,
    recorded,
    rules,
    values_asked_for,
)
from tests.support.alertmanager import need_programs

_SECTIONS = ["What it means", "What the customer feels", "Look at", "Do", "When it is over"]
_SPAN = re.compile(r"`([^`\n]+)`")
_SERIES = re.compile(r"\b(?:switchyard[_:]\w[\w:]*|process_\w+|alertmanager_notif\w+|up\{)")
# Of the monitored machines, which are set by who installs them.
_SET_ELSEWHERE = {"job", "instance", "le", "fstype"}


def _promtool(*arguments: str | Path) -> str:
    need_programs("promtool")
    done = subprocess.run(
        ["promtool", *map(str, arguments)], capture_output=True, text=True, check=False, cwd=REPOSITORY
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@cache
def _settings() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    return content


def test_promtool_takes_every_rule() -> None:
    assert _promtool("check", "rules", *RULES).count("SUCCESS") == len(RULES)


def test_promtool_takes_the_configuration(tmp_path: Path) -> None:
    _promtool("check", "config", "--syntax-only", PROMETHEUS / "prometheus.yml")
    token = tmp_path / "token"
    token.write_text("x")
    there = (PROMETHEUS / "prometheus.yml").read_text().replace("/run/secrets/metrics_token", str(token))
    (tmp_path / "rules").symlink_to(PROMETHEUS / "rules")
    (tmp_path / "prometheus.yml").write_text(there)
    assert "SUCCESS" in _promtool("check", "config", tmp_path / "prometheus.yml")


def test_prometheus_scrapes_what_the_rules_ask_for() -> None:
    assert _settings()["rule_files"] == ["rules/*.yml"]
    jobs = {job["job_name"] for job in _settings()["scrape_configs"]}
    assert jobs >= {*SERVICES, "node", "prometheus", "alertmanager"}


@pytest.mark.parametrize("file", TESTS, ids=lambda path: path.stem)
def test_the_rules_fire_as_their_tests_say(file: Path) -> None:
    _promtool("test", "rules", file)


@cache
def _told() -> dict[str, list[set[str]]]:
    """By alert, for each moment that a test asks for: the severities that fire."""
    told = defaultdict(list)
    for file in TESTS:
        for case in yaml.safe_load(file.read_text("utf-8"))["tests"]:
            for asked in case["alert_rule_test"]:
                told[asked["alertname"]].append({alert["exp_labels"]["severity"] for alert in asked["exp_alerts"]})
    return dict(told)


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: f"{rule.name}-{rule.severity}")
def test_every_alert_is_tested_on_both_sides(rule: Rule) -> None:
    told = _told().get(rule.name, [])
    assert any(rule.severity in severities for severities in told), "no test in which it fires"
    if rule.severity != "none":  # the watchdog always fires
        assert any(rule.severity not in severities for severities in told), "no test in which it does not"


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: f"{rule.name}-{rule.severity}")
def test_every_alert_says_what_and_where_to_read_on(rule: Rule) -> None:
    assert rule.severity in ("page", "ticket", "none")
    assert {"summary", "description"} < rule.annotations.keys()
    assert rule.annotations["runbook"] == f"docs/runbooks/{rule.runbook}.md"
    assert rule.annotations["runbook_url"] == f"/d/runbook-{rule.runbook}"
    assert len(f"runbook-{rule.runbook}") <= 40, "Grafana takes no longer id"
    assert "service" in rule.labels or "service" in labels_of(rule.expression, recorded(), [])


@pytest.mark.parametrize("name", sorted({rule.runbook for rule in alerts()}))
def test_every_alert_has_a_runbook(name: str) -> None:
    text = (RUNBOOKS / f"{name}.md").read_text("utf-8")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == _SECTIONS
    for section in text.split("\n## ")[1:]:
        assert len(section.split("\n", 1)[1].strip()) > 20, f"{section.splitlines()[0]} is empty"
    assert f"({name}.md)" in (RUNBOOKS / "README.md").read_text("utf-8")


def test_no_runbook_is_left_over() -> None:
    assert {path.stem for path in RUNBOOKS.glob("*.md")} == {"README", *(rule.runbook for rule in alerts())}


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.name)
def test_a_rule_names_only_what_exists(rule: Rule) -> None:
    wrong: list[str] = []
    for query in rule.queries:
        labels_of(query, recorded(), wrong)
    assert not wrong


@cache
def _sources() -> str:
    files = [path for room in ("services", "shared") for path in (REPOSITORY / room).rglob("*.py")]
    return "\n".join(path.read_text("utf-8") for path in files)


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.name)
def test_a_rule_asks_for_no_value_that_is_never_said(rule: Rule) -> None:
    """A misspelt value finds no series, and never fires."""
    for label, value in values_asked_for(rule.expression):
        if label not in _SET_ELSEWHERE:
            said = (f'"{value}"', f"'{value}'")  # in Python, or in SQL
            assert any(text in _sources() for text in said), f"{label}={value} stands nowhere in the services"


def _spans(path: Path) -> list[str]:
    return _SPAN.findall(path.read_text("utf-8").replace("\\|", "|"))


@pytest.mark.parametrize("path", sorted(RUNBOOKS.glob("*.md")), ids=lambda path: path.stem)
def test_a_runbook_asks_for_what_there_is(path: Path) -> None:
    known = recorded()
    wrong: list[str] = []
    for span in _spans(path):
        if _SERIES.search(span) and not span.startswith(("docker", "kubectl")):
            labels_of(span, known, wrong)
    assert not wrong


def test_the_severities_of_the_readme_are_those_of_the_rules() -> None:
    severities = defaultdict(list)
    for rule in alerts():
        severities[rule.name].append(rule.severity)
    for name, said in re.findall(
        r"^\| \[(\w+)\]\(\S+\) \| ([a-z, ]+) \|", (RUNBOOKS / "README.md").read_text("utf-8"), re.MULTILINE
    ):
        assert said.split(", ") == severities.pop(name), name
    assert not severities, json.dumps(severities)
