"""Reads PromQL with a parser, and tells what a query names that no service exposes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Final, NamedTuple

from prometheus_client.metrics import Counter, Gauge, Histogram, MetricWrapperBase
from promql_parser import (
    AggModifierType,
    AggregateExpr,
    BinaryExpr,
    Call,
    Expr,
    MatrixSelector,
    NumberLiteral,
    ParenExpr,
    StringLiteral,
    SubqueryExpr,
    UnaryExpr,
    VectorSelector,
    parse,
)

from shared import metrics

_TARGET: Final = frozenset({"job", "instance"})
# What Prometheus makes itself, and the labels that our alerts have.
_OF_PROMETHEUS: Final = {
    "up": frozenset(),
    "ALERTS": frozenset({"alertname", "alertstate", "severity", "service"}),
}
# As Grafana does it; which duration is of no concern here.
_VARIABLES: Final = {"$__rate_interval": "1m", "$__range": "1h", "$__interval": "15s"}
_LEGEND_LABEL: Final = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_KEEPS_SERIES: Final = {"topk", "bottomk"}


class Known(NamedTuple):
    """`kind`: `counter`, `gauge`, `histogram`, or `foreign`."""

    labels: frozenset[str]
    kind: str
    of_the_database: bool


@cache
def known_series() -> dict[str, Known]:
    """Every name of a series that a dashboard may ask for, with its labels."""
    series = {name: Known(labels | _TARGET, "foreign", False) for name, labels in _OF_PROMETHEUS.items()}
    for family in metrics.REGISTRY.collect():
        if not family.name.startswith("switchyard_"):
            for sample in family.samples:
                series[sample.name] = Known(frozenset(sample.labels) | _TARGET, "foreign", False)
    for metric in our_metrics():
        labels = frozenset(metric._labelnames) | _TARGET
        if isinstance(metric, Counter):
            series[f"{metric._name}_total"] = Known(labels, "counter", False)
        elif isinstance(metric, Histogram):
            series[f"{metric._name}_bucket"] = Known(labels | {"le"}, "histogram", False)
            series[f"{metric._name}_sum"] = series[f"{metric._name}_count"] = Known(labels, "histogram", False)
        else:
            series[metric._name] = Known(labels, "gauge", "(of the database)" in metric._documentation)
    return series


def our_metrics() -> list[MetricWrapperBase]:
    return [value for value in vars(metrics).values() if isinstance(value, Counter | Gauge | Histogram)]


def without_variables(expression: str) -> str:
    """The query with Grafana's own variables replaced; the dashboard's stand inside of texts, where they may stay."""
    for name, value in _VARIABLES.items():
        expression = expression.replace(name, value)
    return expression


def wrong_in(expression: str, legend: str = "") -> list[str]:
    """What the query names that does not exist, or reads in the wrong way; empty for a good one. Raises ValueError for
    what is no PromQL.
    """
    wrong: list[str] = []
    labels = _check(parse(without_variables(expression)), wrong, ())
    wrong += [
        f"its legend has {name!r}, its series have not" for name in _LEGEND_LABEL.findall(legend) if name not in labels
    ]
    return [f"{what}: {expression}" for what in wrong]


def metrics_in(expression: str) -> set[str]:
    """Names of the series that the query asks for."""
    return {selector.name for selector in _selectors(parse(without_variables(expression))) if selector.name}


def _selectors(expression: Expr) -> Iterator[VectorSelector]:
    if isinstance(expression, VectorSelector):
        yield expression
    for part in _parts(expression):
        yield from _selectors(part)


def _parts(expression: Expr) -> Iterable[Expr]:
    if isinstance(expression, AggregateExpr | ParenExpr | UnaryExpr | SubqueryExpr):
        return (expression.expr,)
    if isinstance(expression, BinaryExpr):
        return (expression.lhs, expression.rhs)
    if isinstance(expression, Call):
        return expression.args
    if isinstance(expression, MatrixSelector):
        return (expression.vector_selector,)
    return ()


def _check(expression: Expr, wrong: list[str], around: tuple[Expr, ...]) -> frozenset[str]:
    """The labels of the series that come out."""
    if isinstance(expression, VectorSelector):
        return _check_selector(expression, wrong, around)
    inner = [_check(part, wrong, (*around, expression)) for part in _parts(expression)]
    if isinstance(expression, AggregateExpr):
        return _check_aggregation(expression, inner[0], wrong)
    if isinstance(expression, BinaryExpr):
        for modifier in filter(None, [expression.modifier and expression.modifier.matching]):
            both = inner[0] & inner[1]
            wrong += [
                f"matches on {label!r}, which not both sides have" for label in modifier.labels if label not in both
            ]
        return inner[0] if not _is_scalar(expression.lhs) else inner[1]
    if isinstance(expression, Call):
        name = expression.func.name
        vectors = [labels for part, labels in zip(expression.args, inner, strict=True) if not _is_scalar(part)]
        labels = vectors[0] if vectors else frozenset()
        if name == "histogram_quantile":
            if "le" not in labels:
                wrong.append("takes a percentile of what has no `le`")
            return labels - {"le"}
        return labels
    return inner[0] if inner else frozenset()


def _check_selector(selector: VectorSelector, wrong: list[str], around: tuple[Expr, ...]) -> frozenset[str]:
    known = known_series().get(selector.name or "")
    if known is None:
        wrong.append(f"no service exposes {selector.name!r}")
        return frozenset()
    wrong += [
        f"{selector.name} has no label {matcher.name!r}"
        for matcher in selector.matchers.matchers
        if matcher.name not in known.labels
    ]
    calls = [outer.func.name for outer in around if isinstance(outer, Call)]
    is_new = isinstance(around[-1], BinaryExpr) and str(around[-1].op) == "unless" if around else False
    if (
        known.kind in ("counter", "histogram")
        and not is_new
        and {"rate", "increase", "last_over_time"}.isdisjoint(calls)
    ):
        wrong.append(f"{selector.name} only ever grows: ask for its rate or increase")
    if known.of_the_database:
        first = next((outer for outer in reversed(around) if isinstance(outer, AggregateExpr)), None)
        if first is None or str(first.op) != "max":
            wrong.append(f"every replica tells all of {selector.name}: take its max first")
    return known.labels


def _check_aggregation(expression: AggregateExpr, inner: frozenset[str], wrong: list[str]) -> frozenset[str]:
    if str(expression.op) in _KEEPS_SERIES:
        return inner
    modifier = expression.modifier
    if modifier is None:
        return frozenset()
    wrong += [f"groups by {label!r}, which its series have not" for label in modifier.labels if label not in inner]
    named = frozenset(modifier.labels)
    return named if modifier.type == AggModifierType.By else inner - named


def _is_scalar(expression: Expr) -> bool:
    if isinstance(expression, ParenExpr | UnaryExpr):
        return _is_scalar(expression.expr)
    if isinstance(expression, BinaryExpr):
        return _is_scalar(expression.lhs) and _is_scalar(expression.rhs)
    if isinstance(expression, Call):
        return expression.func.name in ("time", "scalar", "vector", "pi")
    return isinstance(expression, NumberLiteral | StringLiteral)
