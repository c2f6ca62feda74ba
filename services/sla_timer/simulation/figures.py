"""What came of a run, in figures: how promises were kept, in and out of peak, and how much was simulated and checked.

Counted as in reports (docs/reports.md): percentiles are exact, over the answers one by one; `judged` is what was
answered, or is breached and open.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from services.sla_timer.domain.clocks import ALARMS, Clock, State
from services.sla_timer.domain.forecast import KNOWN_DAYS_BEFORE, LEAST_DAYS, History, backtest
from services.sla_timer.domain.peaks import Place
from services.sla_timer.domain.policies import ANY
from services.sla_timer.domain.reports import Figures, Percentiles, duration_text, nearest_rank
from services.sla_timer.domain.staffing import HALF_HOUR
from services.sla_timer.simulation.world import Run
from shared.events import PeakCause, PeakKind, Target

_SECOND: Final = timedelta(seconds=1)
_DAY: Final = timedelta(days=1)


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class TargetFigures(_Answer):
    """Of one target: every promise that was made is counted in one of the first five."""

    target: Target
    met_in_time: int
    met_late: int
    breached_and_open: int
    not_yet_due: int
    cancelled: int
    overall: Figures
    in_peak: Figures
    out_of_peak: Figures


class ForecastFigures(_Answer):
    """How far off forecasts of the last days were, each made on the eve of its day; beside it, as a week before."""

    held_out_days: int
    half_hour_error: float
    day_error: float
    naive_half_hour_error: float
    naive_day_error: float


class SimulationFigures(_Answer):
    """`fingerprint`: of all that was told; two runs with the same one told the same."""

    command: Annotated[str, Field(description="plays the same run again")]
    since: datetime
    until: datetime
    zone: str
    tickets: int
    messages: Annotated[int, Field(description="of customers")]
    events: Annotated[int, Field(description="sent to the sla_timer")]
    deliveries: Mapping[str, int]
    contacts: Annotated[int, Field(description="times that an agent took a ticket up")]
    agent_hours: float
    sla_events: int
    alarms: Mapping[str, int]
    longest_lateness_seconds: Annotated[float, Field(description="of an alarm, after the deadline runner had stopped")]
    runner_stops: int
    policy_edits: int
    peaks_began: Mapping[str, int]
    backlog_most: int
    backlog_at_the_end: int
    targets: tuple[TargetFigures, ...]
    forecast: ForecastFigures | None
    checks: Mapping[str, int]
    fingerprint: str

    @property
    def virtual_seconds(self) -> float:
        return (self.until - self.since).total_seconds()


@dataclass(frozen=True, slots=True)
class Promise:
    """A clock, and whether it started in a peak of its brand's queue, on all channels or on its own."""

    clock: Clock
    in_peak: bool

    @property
    def is_answered(self) -> bool:
        return self.clock.state is State.MET

    @property
    def is_within(self) -> bool:
        return self.is_answered and self.clock.breached_at is None

    @property
    def is_judged(self) -> bool:
        return self.is_answered or (self.clock.is_open and self.clock.breached_at is not None)


@dataclass(frozen=True, slots=True)
class PeakSpan:
    place: Place
    began_at: datetime
    ended_at: datetime
    cause: PeakCause | None


def figures_of(run: Run) -> SimulationFigures:
    timer, checks = run.timer, run.checks
    promises = promises_of(run)
    causes = [span.cause for span in peak_spans(run)]
    return SimulationFigures(
        command=run.setting.command,
        since=run.begun,
        until=run.until,
        zone=run.policies.zone_calendar(ANY).zone,
        tickets=len(run.desk.tickets),
        messages=run.desk.messages,
        events=run.delivered["events"],
        deliveries={name: run.delivered[name] for name in ("late", "repeated", "batches")},
        contacts=len(run.desk.contacts),
        agent_hours=round(_agent_hours(run), 1),
        sla_events=sum(timer.told.values()),
        alarms={kind.value: timer.told[kind] for kind in sorted(ALARMS)},
        longest_lateness_seconds=checks.longest_lateness.total_seconds(),
        runner_stops=len(run.outages),
        policy_edits=len(run.edits),
        peaks_began={cause.value: causes.count(cause) for cause in PeakCause},
        backlog_most=max((count for _, count in run.backlog), default=0),
        backlog_at_the_end=run.backlog[-1][1] if run.backlog else 0,
        targets=tuple(
            _of_target(target, [each for each in promises if each.clock.target is target]) for target in Target
        ),
        forecast=_forecast(run),
        checks=dict(sorted(checks.made.items())),
        fingerprint=checks.fingerprint,
    )


def peak_spans(run: Run) -> list[PeakSpan]:
    """Those that go on end with the run."""
    begun: dict[Place, tuple[datetime, PeakCause | None]] = {}
    spans = []
    for event in run.timer.peaks:
        place = Place(event.brand, event.queue, event.channel)
        if event.kind is PeakKind.BEGAN:
            begun[place] = (event.at, event.cause)
        else:
            since, cause = begun.pop(place)
            spans.append(PeakSpan(place, since, event.at, cause))
    spans += [PeakSpan(place, since, run.until, cause) for place, (since, cause) in begun.items()]
    return sorted(spans, key=lambda span: (span.began_at, span.place.brand, span.place.queue))


def promises_of(run: Run) -> list[Promise]:
    peaks: dict[Place, list[PeakSpan]] = {}
    for span in peak_spans(run):
        peaks.setdefault(span.place, []).append(span)
    found = []
    for kept in run.timer.kept.values():
        assert kept.ticket is not None
        brand, channel = kept.ticket.brand, kept.ticket.channel
        for clock in kept.clocks.values():
            places = (Place(brand, clock.queue), Place(brand, clock.queue, channel)) if clock.queue else ()
            in_peak = any(
                span.began_at <= clock.started_at < span.ended_at for place in places for span in peaks.get(place, ())
            )
            found.append(Promise(clock, in_peak))
    return found


def _of_target(target: Target, promises: Sequence[Promise]) -> TargetFigures:
    met = [each for each in promises if each.is_answered]
    in_time = sum(each.is_within for each in met)
    broken = sum(each.clock.is_open and each.clock.breached_at is not None for each in promises)
    return TargetFigures(
        target=target,
        met_in_time=in_time,
        met_late=len(met) - in_time,
        breached_and_open=broken,
        not_yet_due=sum(each.clock.is_open and each.clock.breached_at is None for each in promises),
        cancelled=sum(each.clock.state is State.CANCELLED for each in promises),
        overall=kept_so(promises),
        in_peak=kept_so([each for each in promises if each.in_peak]),
        out_of_peak=kept_so([each for each in promises if not each.in_peak]),
    )


def kept_so(promises: Sequence[Promise]) -> Figures:
    judged = sum(each.is_judged for each in promises)
    within = sum(each.is_within for each in promises)
    answered = [each.clock for each in promises if each.is_answered]
    return Figures(
        judged=judged,
        answered=len(answered),
        within_target=within,
        business_seconds=_percentiles(clock.used_seconds or 0 for clock in answered),
        wall_seconds=_percentiles(
            (clock.ended_at - clock.started_at) // _SECOND for clock in answered if clock.ended_at is not None
        ),
        share_within_target=within / judged if judged else None,
    )


def _percentiles(values: Iterable[int]) -> Percentiles:
    ascending = sorted(values)
    if not ascending:
        return Percentiles()
    return Percentiles(**{f"p{percent}": nearest_rank(ascending, percent / 100) for percent in (50, 90, 99)})


def _agent_hours(run: Run) -> float:
    return sum(
        shift.agents * max(timedelta(0), min(shift.end, run.until) - max(shift.start, run.begun)) / timedelta(hours=1)
        for shift in run.roster
    )


def _forecast(run: Run) -> ForecastFigures | None:
    """All brands and channels together, in half-hours of the home zone; none when too few days were simulated."""
    calendar = run.policies.zone_calendar(ANY)
    held_out = run.setting.days - LEAST_DAYS - KNOWN_DAYS_BEFORE.days + 1
    if held_out < 1:
        return None
    last = run.setting.first + (run.setting.days - 1) * _DAY
    history = History.of(arrivals_by_half_hour(run), run.setting.first, last, calendar)
    tested = backtest([history], min(held_out, 14))
    errors = (tested.half_hour_error, tested.day_error, tested.naive_half_hour_error, tested.naive_day_error)
    if any(error is None for error in errors):
        return None
    half_hour, of_day, naive_half_hour, naive_day = (round(error or 0.0, 4) for error in errors)
    return ForecastFigures(
        held_out_days=len(tested.days),
        half_hour_error=half_hour,
        day_error=of_day,
        naive_half_hour_error=naive_half_hour,
        naive_day_error=naive_day,
    )


def arrivals_by_half_hour(run: Run) -> dict[datetime, int]:
    """By the beginning of the half-hour of the home zone (UTC)."""
    counts: dict[datetime, int] = {}
    for arrival in run.arrivals:
        start = run.begun + (arrival.at - run.begun) // HALF_HOUR * HALF_HOUR
        counts[start] = counts.get(start, 0) + 1
    return counts


# --- for people ------------------------------------------------------------------------------------------------------


def lines(figures: SimulationFigures) -> Iterator[str]:
    since, until = figures.since, figures.until
    weeks = (until - since) / (7 * _DAY)
    yield figures.command
    yield f"{weeks:.1f} virtual weeks from {since:%Y-%m-%d %H:%M} to {until:%Y-%m-%d %H:%M} UTC ({figures.zone})"
    yield ""
    yield from _two_columns(
        [
            ("tickets", f"{figures.tickets:,}"),
            ("messages of customers", f"{figures.messages:,}"),
            ("contacts with agents", f"{figures.contacts:,}"),
            ("agent hours", f"{figures.agent_hours:,.0f}"),
            (
                "events sent to the sla_timer",
                "{:,} ({late:,} late, {repeated:,} repeated) in {batches:,} batches".format(
                    figures.events, **figures.deliveries
                ),
            ),
            ("events it told", f"{figures.sla_events:,}"),
            ("alarms rung", ", ".join(f"{count:,} {kind}" for kind, count in figures.alarms.items())),
            (
                "longest lateness",
                f"{duration_text(round(figures.longest_lateness_seconds))}, of {figures.runner_stops} stops of the "
                "deadline runner; 0 s otherwise",
            ),
            ("edits of the policies", f"{figures.policy_edits}"),
            ("peaks began", ", ".join(f"{count} {cause}" for cause, count in figures.peaks_began.items())),
            ("backlog", f"{figures.backlog_most:,} at most, {figures.backlog_at_the_end:,} at the end"),
        ]
    )
    if figures.forecast is not None:
        found = figures.forecast
        yield (
            f"forecast off by {found.half_hour_error:.0%} by half-hour, {found.day_error:.0%} by day, over "
            f"{found.held_out_days} days (as a week before: {found.naive_half_hour_error:.0%}, "
            f"{found.naive_day_error:.0%})"
        )
    yield ""
    yield f"checks made, none failed: {sum(figures.checks.values()):,}"
    yield from _two_columns([(f"  {name}", f"{count:,}") for name, count in figures.checks.items()])
    yield f"fingerprint {figures.fingerprint}"


def _two_columns(rows: Sequence[tuple[str, str]]) -> Iterator[str]:
    width = max(len(name) for name, _ in rows)
    return (f"{name:{width}}  {value}" for name, value in rows)
