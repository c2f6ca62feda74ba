"""What the sla_timer counts for Prometheus, after the commit: what was rolled back has not happened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable

from services.sla_timer.domain.peaks import Place
from services.sla_timer.storage import Arrival, OpenClocks
from shared import metrics
from shared.events import SlaEvent, SlaKind, Target
from shared.labels import NONE, brand_label
from shared.measuring import Gone, Reading
from shared.taxonomy import Channel, Priority, Queue

_KEPT = "kept"
_BROKEN = "broken"


class Measures:
    def __init__(self) -> None:
        self._peaks: frozenset[Place] = frozenset()
        self._clocks_open = Reading(metrics.CLOCKS_OPEN, Gone.ZERO)

    def told(self, events: Iterable[SlaEvent]) -> None:
        for event in events:
            brand, queue, priority = brand_label(event.brand), event.queue or NONE, event.priority or NONE
            metrics.CLOCK_EVENTS.labels(event.target, event.kind, brand, queue, priority).inc()
            peak = self._peak(event.brand, event.queue, event.channel)
            self._begin_promises(event.target, event.brand, event.queue, event.priority, peak)
            if event.kind is SlaKind.BREACHED:
                metrics.PROMISES.labels(event.target, brand, queue, priority, peak, _BROKEN).inc()
            if event.kind is not SlaKind.MET:
                continue
            if not event.breached:
                metrics.PROMISES.labels(event.target, brand, queue, priority, peak, _KEPT).inc()
            if event.business_seconds is not None:
                metrics.RESPONSE_SECONDS.labels(event.target, brand, queue, priority, peak).observe(
                    event.business_seconds
                )
                metrics.RESPONSE_SHARE.labels(event.target, brand, queue, peak).observe(
                    event.business_seconds / event.target_seconds
                )

    def arrived(self, arrivals: Iterable[Arrival]) -> None:
        for arrival in arrivals:
            metrics.ARRIVALS.labels(brand_label(arrival.brand), arrival.queue, arrival.channel).inc()

    def peaks(self, active: Collection[Place]) -> None:
        """Those going on; brands without a file share their series."""
        self._peaks, before = frozenset(active), self._peaks
        going_on = {_labels(place) for place in self._peaks}
        for labels in {_labels(place) for place in before} | going_on:
            metrics.PEAK_ACTIVE.labels(*labels).set(labels in going_on)

    def open_clocks(self, clocks: Iterable[OpenClocks]) -> None:
        """All there are. Whatever may be kept or broken has its series before it happens, also after a restart."""
        open_now: Counter[tuple[str, ...]] = Counter()
        for item in clocks:
            brand = brand_label(item.brand)
            open_now[item.target, brand, item.queue or NONE, item.priority, item.state] += item.clocks
            self._begin_promises(
                item.target, item.brand, item.queue, item.priority, self._peak(item.brand, item.queue, None)
            )
        self._clocks_open.show(open_now)

    def _peak(self, brand: str, queue: Queue | None, channel: Channel | None) -> str:
        places = () if queue is None else (Place(brand, queue), Place(brand, queue, channel))
        return "out" if self._peaks.isdisjoint(places) else "in"

    @staticmethod
    def _begin_promises(target: Target, brand: str, queue: Queue | None, priority: Priority | None, peak: str) -> None:
        for outcome in (_KEPT, _BROKEN):
            metrics.PROMISES.labels(target, brand_label(brand), queue or NONE, priority or NONE, peak, outcome)


def _labels(place: Place) -> tuple[str, str, str]:
    return (brand_label(place.brand), place.queue, place.channel or "*")
