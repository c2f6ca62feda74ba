"""`python -m deploy.k8s write` makes the Prometheus operator's rules from deploy/prometheus/rules, and the list of
Grafana's dashboards; `check` tells what is not as it would be made, and fails.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from deploy.processes import REPOSITORY

RULES: Final = REPOSITORY / "deploy" / "prometheus" / "rules"
GRAFANA: Final = REPOSITORY / "deploy" / "grafana"
MONITORING: Final = REPOSITORY / "deploy" / "k8s" / "components" / "monitoring"

_MADE: Final = "# Made by `python -m deploy.k8s write` from {source}: edit there.\n"
_FOLDERS: Final = {"dashboards": "Switchyard", "runbooks": "Switchyard runbooks"}


def wanted() -> dict[Path, str]:
    """The files there should be, and their contents."""
    return {
        MONITORING / "rules.yaml": _MADE.format(source="deploy/prometheus/rules")
        + yaml.safe_dump_all(
            [prometheus_rule(path) for path in sorted(RULES.glob("*.yml"))],
            sort_keys=False,
            width=120,
            allow_unicode=True,
        ),
        GRAFANA / "kustomization.yaml": _MADE.format(source="the dashboards here")
        + yaml.safe_dump(dashboards(), sort_keys=False, width=120),
    }


def prometheus_rule(path: Path) -> dict[str, Any]:
    """One file of rules as the operator takes it; the groups as they are."""
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": f"switchyard-{path.stem}", "labels": {"app.kubernetes.io/name": "switchyard"}},
        "spec": yaml.safe_load(path.read_text(encoding="utf-8")),
    }


def dashboards() -> dict[str, Any]:
    """A ConfigMap for each: together they are longer than a client-side apply can remember (256 KiB)."""
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "configMapGenerator": [
            {
                "name": f"switchyard-{folder}-{path.stem}".replace("_", "-"),
                "files": [f"{folder}/{path.name}"],
                "options": {
                    "disableNameSuffixHash": True,
                    "labels": {"app.kubernetes.io/name": "switchyard", "grafana_dashboard": "1"},
                    "annotations": {"grafana_folder": title},
                },
            }
            for folder, title in _FOLDERS.items()
            for path in sorted((GRAFANA / folder).glob("*.json"))
        ],
    }


def differences(files: Mapping[Path, str]) -> list[str]:
    return [
        f"{path.relative_to(REPOSITORY)} is not as it would be made now"
        for path, text in files.items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.k8s", description=__doc__)
    parser.add_argument("command", choices=["write", "check"])
    command = parser.parse_args(arguments).command
    files = wanted()
    if command == "write":
        for path, text in files.items():
            path.write_text(text, encoding="utf-8")
        return 0
    wrong = differences(files)
    for line in wrong:
        print(f"{line}: `python -m deploy.k8s write` makes it anew", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
