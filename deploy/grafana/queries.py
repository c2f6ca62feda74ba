"""PromQL out of the metrics themselves: a name or a label that does not exist cannot be written.

Every query is narrowed by those of the dashboard's variables that its metric has as labels. Gauges are read from the
database by every replica, so the greatest of each series is taken before anything is added up.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from prometheus_client.metrics import Counter, Gauge, Histogram, MetricWrapperBase

# Prometheus gives every series its target.
_OF_ANY_SERIES: Final = ("job", "instance")

RATE: Final = "$__rate_interval"
SHOWN: Final = "$__range"
"""The whole time that the dashboard shows."""


class UnknownLabel(ValueError):
    """The metric has no such label; the message names both."""


class Queries:
    """Builds the queries of one dashboard, whose variables have these names. `by`: labels of the series that come out;
    `where`: further matchers, as PromQL writes them, e.g. `state="overdue"`.
    """

    def __init__(self, *variables: str) -> None:
        self._variables = variables

    def select(self, metric: MetricWrapperBase, where: Sequence[str] = (), suffix: str = "") -> str:
        """A selector of the metric's series."""
        labels = metric._labelnames
        known = {*labels, *_OF_ANY_SERIES, "le"}
        for matcher in where:
            label = re.split("[!=]", matcher)[0]
            if label not in known:
                raise UnknownLabel(f"{metric._name} has no label {label!r}, only {', '.join(labels)}")
        narrowed = [
            f'{variable}=~"${variable}"'
            for variable in self._variables
            if variable in labels or variable in _OF_ANY_SERIES
        ]
        matchers = ",".join([*narrowed, *where])
        return f"{metric._name}{suffix}" + (f"{{{matchers}}}" if matchers else "")

    def rate(self, counter: Counter, by: Sequence[str] = (), where: Sequence[str] = (), window: str = RATE) -> str:
        """Per second."""
        return f"{_sum(counter, by)} (rate({self.select(counter, where, '_total')}[{window}]))"

    def increase(self, counter: Counter, by: Sequence[str] = (), where: Sequence[str] = (), window: str = SHOWN) -> str:
        """How many within the window, the first of all among them."""
        return f"{_sum(counter, by)} ({_within(self.select(counter, where, '_total'), window)})"

    def share(
        self,
        counter: Counter,
        where: Sequence[str],
        by: Sequence[str] = (),
        among: Sequence[str] = (),
        window: str = SHOWN,
    ) -> str:
        """What part of those `among` which the counter counted within the window were also `where`."""
        return f"{self.increase(counter, by, [*among, *where], window)} / {self.increase(counter, by, among, window)}"

    def counted(
        self, histogram: Histogram, by: Sequence[str] = (), where: Sequence[str] = (), window: str = SHOWN
    ) -> str:
        """How many were observed within the window."""
        return f"{_sum(histogram, by)} ({_within(self.select(histogram, where, '_count'), window)})"

    def at_most(
        self, histogram: Histogram, bound: str, by: Sequence[str] = (), where: Sequence[str] = (), window: str = SHOWN
    ) -> str:
        """How many were observed within the window that were no more than `bound`, one of the histogram's."""
        assert float(bound) in histogram._upper_bounds, f"{histogram._name} has no bucket up to {bound}"
        selector = self.select(histogram, [*where, f'le="{bound}"'], "_bucket")
        return f"{_sum(histogram, by)} ({_within(selector, window)})"

    def quantile(
        self,
        part: float,
        histogram: Histogram,
        by: Sequence[str] = (),
        where: Sequence[str] = (),
        window: str = RATE,
    ) -> str:
        """The percentile `100 * part` of what was observed within the window."""
        buckets = self.select(histogram, where, "_bucket")
        # Both have the same percentiles; Grafana's linter wants rates over its own interval only.
        function = "rate" if window == RATE else "increase"
        return f"histogram_quantile({part:g}, {_sum(histogram, ['le', *by])} ({function}({buckets}[{window}])))"

    def total(self, gauge: Gauge, by: Sequence[str] = (), where: Sequence[str] = ()) -> str:
        """What the database says, added up."""
        labels = ", ".join(gauge._labelnames)
        return f"{_sum(gauge, by)} (max by ({labels}) ({self.select(gauge, where)}))"

    def greatest(self, gauge: Gauge, by: Sequence[str] = (), where: Sequence[str] = ()) -> str:
        """The greatest of all replicas and labels."""
        return f"{_of('max', gauge, by)} ({self.select(gauge, where)})"

    def least(self, gauge: Gauge, by: Sequence[str] = (), where: Sequence[str] = ()) -> str:
        return f"{_of('min', gauge, by)} ({self.select(gauge, where)})"

    def each(self, gauge: Gauge, by: Sequence[str] = (), where: Sequence[str] = ()) -> str:
        """Gauges that are each replica's own, added up."""
        return f"{_sum(gauge, by)} ({self.select(gauge, where)})"

    def foreign(self, name: str, where: Sequence[str] = ()) -> str:
        """A selector of a metric that is not ours: of the process, of Prometheus."""
        narrowed = [f'{variable}=~"${variable}"' for variable in self._variables if variable in _OF_ANY_SERIES]
        matchers = ",".join([*narrowed, *where])
        return name + (f"{{{matchers}}}" if matchers else "")


def _within(selector: str, window: str) -> str:
    """What came within the window. A series that is younger counts whole: what it had counted when it was first seen
    has no increase, and of rare events, a dead letter or a correction, that is often all there is.
    """
    return f"({selector} unless last_over_time({selector}[15m] offset {window})) or increase({selector}[{window}])"


def _sum(metric: MetricWrapperBase, by: Sequence[str]) -> str:
    return _of("sum", metric, by)


def _of(operator: str, metric: MetricWrapperBase, by: Sequence[str]) -> str:
    for label in by:
        if label not in (*metric._labelnames, *_OF_ANY_SERIES, "le"):
            raise UnknownLabel(f"{metric._name} has no label {label!r}, only {', '.join(metric._labelnames)}")
    return f"{operator} by ({', '.join(by)})" if by else operator
