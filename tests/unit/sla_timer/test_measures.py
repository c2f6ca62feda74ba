"""What of clocks is counted, and when."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from services.sla_timer.domain.peaks import Place
from services.sla_timer.measures import Measures
from services.sla_timer.storage import OpenClocks
from shared import metrics
from shared.events import SlaEvent, SlaKind, Target
from shared.taxonomy import Channel, Priority, Queue

# A queue and a priority that no other test of this process uses together.
PLACE = {"brand": "tp_wallet", "queue": "complaints", "priority": "P4"}
PROMISE = {"target": "resolution", **PLACE}
COMPLAINTS = Place("tp_wallet", Queue.COMPLAINTS)


def event(kind: SlaKind, **changes: Any) -> SlaEvent:
    at = datetime(2026, 11, 2, 9, tzinfo=UTC)
    fields: dict[str, Any] = {
        "clock_id": uuid.uuid4(),
        "ticket_id": uuid.uuid4(),
        "step": 1,
        "kind": kind,
        "target": Target.RESOLUTION,
        "brand": "tp_wallet",
        "channel": Channel.EMAIL,
        "queue": Queue.COMPLAINTS,
        "priority": Priority.P4,
        "policy": "default/P4",
        "target_seconds": 100,
        "started_at": at,
        "at": at,
    }
    return SlaEvent(**fields | changes)


def promises(peak: str = "out", **changes: str) -> tuple[float | None, float | None]:
    """Kept and broken; none where there is no series."""
    kept, broken = (
        metrics.REGISTRY.get_sample_value(
            "switchyard_promises_total", {**PROMISE, "peak": peak, "outcome": outcome, **changes}
        )
        for outcome in ("kept", "broken")
    )
    return kept, broken


def series(name: str, labels: Mapping[str, str]) -> dict[str, float]:
    """Values of a gauge by the label that is not among `labels`."""
    return {
        next(iter(set(sample.labels.items()) - set(labels.items())))[1]: sample.value
        for family in metrics.REGISTRY.collect()
        for sample in family.samples
        if sample.name == name and set(labels.items()) < set(sample.labels.items())
    }


def test_a_promise_is_kept_or_broken_once_and_has_its_series_before() -> None:
    measures = Measures()
    measures.told([event(SlaKind.STARTED)])
    kept, broken = promises()
    assert kept is not None
    assert broken is not None
    measures.told([event(SlaKind.WARNING), event(SlaKind.MET, business_seconds=40)])
    assert promises() == (kept + 1, broken)
    # Broken when it happens; neither escalated nor answered late is it broken again, and it was not kept.
    measures.told([event(SlaKind.BREACHED, business_seconds=100, breached=True)])
    assert promises() == (kept + 1, broken + 1)
    measures.told(
        [
            event(SlaKind.ESCALATED, business_seconds=150, breached=True),
            event(SlaKind.MET, business_seconds=200, breached=True),
        ]
    )
    assert promises() == (kept + 1, broken + 1)
    measures.told([event(SlaKind.CANCELLED)])
    assert promises() == (kept + 1, broken + 1)


def test_an_answer_is_measured_in_seconds_and_as_a_share_of_the_promise() -> None:
    labels = {"target": "resolution", "brand": "tp_wallet", "queue": "complaints", "peak": "out"}

    def found(name: str, **more: str) -> float:
        return metrics.REGISTRY.get_sample_value(f"switchyard_{name}", {**labels, **more}) or 0

    shares, seconds = (
        found("response_share_of_promise_sum"),
        found("response_business_seconds_sum", priority="P4"),
    )
    Measures().told([event(SlaKind.MET, business_seconds=250, breached=True)])
    assert found("response_share_of_promise_sum") == shares + 2.5
    assert found("response_business_seconds_sum", priority="P4") == seconds + 250


def test_a_peak_of_the_channel_or_of_all_counts_apart() -> None:
    measures = Measures()
    for place, channel in ((COMPLAINTS, Channel.PHONE), (COMPLAINTS._replace(channel=Channel.EMAIL), Channel.EMAIL)):
        measures.peaks([place])
        before = promises("in")[1] or 0
        measures.told([event(SlaKind.BREACHED, business_seconds=100, channel=channel)])
        assert promises("in")[1] == before + 1
    before = promises("in")[1] or 0
    measures.told([event(SlaKind.BREACHED, business_seconds=100, channel=Channel.PHONE)])  # no peak of the phone
    assert promises("in")[1] == before
    labels = {"brand": "tp_wallet", "queue": "complaints"}
    assert series("switchyard_peak_active", labels) == {"*": 0, "email": 1}
    measures.peaks([])
    assert series("switchyard_peak_active", labels) == {"*": 0, "email": 0}


def test_open_clocks_are_shown_by_state_and_those_that_are_gone_as_zero() -> None:
    def clocks(state: str, count: int, **changes: Any) -> OpenClocks:
        return OpenClocks(Target.RESOLUTION, "tp_wallet", Queue.COMPLAINTS, Priority.P4, state, count)._replace(
            **changes
        )

    measures = Measures()
    measures.open_clocks([clocks("running", 3), clocks("overdue", 2)])
    assert series("switchyard_clocks_open", PROMISE) == {"running": 3, "overdue": 2}
    measures.open_clocks([clocks("paused", 1)])
    assert series("switchyard_clocks_open", PROMISE) == {"running": 0, "overdue": 0, "paused": 1}
    # Two brands that nobody knows are one series; what may still be broken has its zero, also after a restart.
    measures.open_clocks([clocks("running", 3, brand="evil_1"), clocks("running", 4, brand="evil_2")])
    other = {**PROMISE, "brand": "other"}
    assert series("switchyard_clocks_open", other) == {"running": 7}
    assert promises(brand="other") == (0, 0)
