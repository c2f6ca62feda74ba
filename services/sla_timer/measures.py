"""What the sla_timer counts for Prometheus, after the commit: what was rolled back has not happened."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from services.sla_timer.domain.peaks import Place
from services.sla_timer.storage import Arrival
from shared import metrics
from shared.events import SlaEvent, SlaKind, Target


class Measures:
    def __init__(self) -> None:
        self._peaks: frozenset[Place] = frozenset()

    def told(self, events: Iterable[SlaEvent]) -> None:
        for event in events:
            metrics.CLOCK_EVENTS.labels(event.target, event.kind, event.priority or "none").inc()
            if event.kind is SlaKind.MET and event.business_seconds is not None:
                in_peak = event.queue is not None and not self._peaks.isdisjoint(
                    (Place(event.brand, event.queue), Place(event.brand, event.queue, event.channel))
                )
                metrics.RESPONSE_SECONDS.labels(
                    event.target, event.brand, event.priority or "none", "in" if in_peak else "out"
                ).observe(event.business_seconds)

    def arrived(self, arrivals: Iterable[Arrival]) -> None:
        for arrival in arrivals:
            metrics.ARRIVALS.labels(arrival.brand, arrival.queue, arrival.channel).inc()

    def peaks(self, active: Collection[Place]) -> None:
        for place in {*self._peaks, *active}:
            metrics.PEAK_ACTIVE.labels(place.brand, place.queue, place.channel or "*").set(place in active)
        self._peaks = frozenset(active)

    def open_clocks(self, by_target: dict[Target, int]) -> None:
        for target, count in by_target.items():
            metrics.CLOCKS_OPEN.labels(target).set(count)
