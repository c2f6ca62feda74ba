"""The rules as they are committed, and what is read from them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from promql_parser import (
    AggModifierType,
    AggregateExpr,
    BinaryExpr,
    Call,
    MatrixSelector,
    ParenExpr,
    StringLiteral,
    SubqueryExpr,
    UnaryExpr,
    VectorSelector,
    parse,
)

from deploy.processes import REPOSITORY
from tests.dashboards.promql import known_series

PROMETHEUS: Final = REPOSITORY / "deploy" / "prometheus"
RULES: Final = tuple(sorted((PROMETHEUS / "rules").glob("*.yml")))
TESTS: Final = tuple(sorted((Path(__file__).parent / "rules").glob("*.yml")))
RUNBOOKS: Final = REPOSITORY / "docs" / "runbooks"

_QUERY_IN_TEMPLATE: Final = re.compile(r'(?:with|range) printf "(?P<query>.*?)" \$labels\.\w+ \| query')
_TARGET: Final = frozenset({"job", "instance"})
# What programs besides ours expose, as far as the rules ask for it.
_FOREIGN: Final = {
    "up": _TARGET,
    "node_filesystem_avail_bytes": _TARGET | {"device", "fstype", "mountpoint"},
    "node_filesystem_size_bytes": _TARGET | {"device", "fstype", "mountpoint"},
    "kubelet_volume_stats_available_bytes": _TARGET | {"namespace", "persistentvolumeclaim"},
    "kubelet_volume_stats_capacity_bytes": _TARGET | {"namespace", "persistentvolumeclaim"},
    "prometheus_rule_evaluation_failures_total": _TARGET | {"rule_group"},
    "alertmanager_notifications_failed_total": _TARGET | {"integration"},
}


@dataclass(frozen=True, slots=True)
class Rule:
    """`name`: of the alert, or of the series that is recorded."""

    file: Path
    name: str
    expression: str
    is_alert: bool
    labels: dict[str, str]
    annotations: dict[str, str]

    @property
    def severity(self) -> str:
        return self.labels["severity"]

    @property
    def runbook(self) -> str:
        """The name of its alert's page."""
        return re.sub(r"(?<!^)(?=[A-Z])", "-", self.name).lower()

    @property
    def queries(self) -> list[str]:
        """Its expression, and those in its annotations."""
        found = [match["query"] for text in self.annotations.values() for match in _QUERY_IN_TEMPLATE.finditer(text)]
        return [self.expression, *(query.replace("%q", '"x"') for query in found)]


def rules() -> list[Rule]:
    return [
        Rule(
            file=file,
            name=rule.get("alert") or rule["record"],
            expression=rule["expr"],
            is_alert="alert" in rule,
            labels=rule.get("labels", {}),
            annotations=rule.get("annotations", {}),
        )
        for file in RULES
        for group in yaml.safe_load(file.read_text("utf-8"))["groups"]
        for rule in group["rules"]
    ]


def alerts() -> list[Rule]:
    return [rule for rule in rules() if rule.is_alert]


def recorded() -> dict[str, frozenset[str]]:
    """Labels by the name of each recorded series. One may be recorded from others that stand before it."""
    found: dict[str, frozenset[str]] = {}
    for rule in rules():
        if not rule.is_alert:
            found[rule.name] = labels_of(rule.expression, found, [])
    return found


def labels_of(expression: str, known: dict[str, frozenset[str]], wrong: list[str]) -> frozenset[str]:
    """The labels of the series that come out; `wrong` is told what the expression names that does not exist.

    `known`: recorded series. Raises ValueError for what is no PromQL.
    """
    ours = {name: series.labels for name, series in known_series().items()}
    return _labels(parse(expression), {**ours, **_FOREIGN, **known}, wrong)


def _labels(part: Any, known: dict[str, frozenset[str]], wrong: list[str]) -> frozenset[str]:
    if isinstance(part, ParenExpr | UnaryExpr | SubqueryExpr):
        return _labels(part.expr, known, wrong)
    if isinstance(part, MatrixSelector):
        return _labels(part.vector_selector, known, wrong)
    if isinstance(part, VectorSelector):
        return _of_selector(part, known, wrong)
    if isinstance(part, BinaryExpr):
        left, right = _labels(part.lhs, known, wrong), _labels(part.rhs, known, wrong)
        matching = part.modifier.matching if part.modifier else None
        if matching is not None:
            wrong += [f"matches on {label!r}" for label in matching.labels if label not in left & right]
        return left | right if str(part.op) == "or" else left or right
    if isinstance(part, AggregateExpr):
        inner = _labels(part.expr, known, wrong)
        if part.modifier is None:
            return frozenset()
        named = frozenset(part.modifier.labels)
        wrong += [f"groups by {label!r}" for label in sorted(named - inner)]
        return named if part.modifier.type == AggModifierType.By else inner - named
    if isinstance(part, Call):
        inner = frozenset().union(*(_labels(argument, known, wrong) for argument in part.args))
        if part.func.name == "label_replace":
            target, source = (argument.val for argument in (part.args[1], part.args[3]))
            if source and source not in inner:
                wrong.append(f"replaces by {source!r}")
            return inner | {target}
        return inner - {"le"} if part.func.name == "histogram_quantile" else inner
    return frozenset()


def _of_selector(selector: VectorSelector, known: dict[str, frozenset[str]], wrong: list[str]) -> frozenset[str]:
    labels = known.get(selector.name or "")
    if labels is None:
        wrong.append(f"nothing exposes {selector.name!r}")
        return frozenset()
    wrong += [f"{selector.name} has no {item.name!r}" for item in selector.matchers.matchers if item.name not in labels]
    return labels


def values_asked_for(expression: str) -> Iterator[tuple[str, str]]:
    """Label and value of every matcher on a series of ours that asks for values, alternatives one by one."""
    for selector in _selectors(parse(expression)):
        if (selector.name or "").startswith(("switchyard_", "switchyard:")):
            for matcher in selector.matchers.matchers:
                for value in matcher.value.split("|"):
                    yield matcher.name, value


def _selectors(part: Any) -> Iterator[VectorSelector]:
    if isinstance(part, VectorSelector):
        yield part
    elif isinstance(part, MatrixSelector):
        yield part.vector_selector
    elif isinstance(part, BinaryExpr):
        yield from _selectors(part.lhs)
        yield from _selectors(part.rhs)
    elif isinstance(part, Call):
        for argument in part.args:
            if not isinstance(argument, StringLiteral):
                yield from _selectors(argument)
    elif isinstance(part, AggregateExpr | ParenExpr | UnaryExpr | SubqueryExpr):
        yield from _selectors(part.expr)
