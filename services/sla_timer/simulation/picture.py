"""The picture of a run: what came and what was left to do, how promises were kept day by day, and a typical week with
the agents it needs beside those at work.

matplotlib comes with the extra `pictures` and is imported only when a picture is drawn.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Final

from services.sla_timer.domain.arrivals import DayKind, day_kind
from services.sla_timer.domain.policies import ANY
from services.sla_timer.domain.staffing import HALF_HOUR
from services.sla_timer.pictures import write_png
from services.sla_timer.simulation.desk import at_work, pooled_need
from services.sla_timer.simulation.figures import Promise, kept_so, peak_spans, promises_of
from services.sla_timer.simulation.world import Run
from shared.calendars import WEEKDAYS
from shared.events import PeakCause, Target
from shared.taxonomy import Channel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_PIXELS: Final = 1600
HEIGHT_PIXELS: Final = 1500

_DAY: Final = timedelta(days=1)
_HOUR: Final = timedelta(hours=1)
_SLOTS_OF_WEEK: Final = 7 * 48
_FEWEST_JUDGED: Final = 5
_LONGEST_DAYS_NAMED: Final = 42

_ARRIVALS: Final = "#4c78a8"
_BACKLOG: Final = "#c0504d"
_PEAK_SEEN: Final = "#f2a93b"
_PEAK_CONFIGURED: Final = "#f8e3b5"
_HOLIDAY: Final = "#e9edf2"
_EDIT: Final = "#6b4fa0"
_STOP: Final = "#22272e"
_NEED: Final = "#c0504d"
_AT_WORK: Final = "#2e7d5b"
_TEXT: Final = "#22272e"
_MUTED: Final = "#6a737d"
_TARGETS: Final = {
    Target.FIRST_RESPONSE: ("first response", "#1b3a6b"),
    Target.NEXT_RESPONSE: ("next response", "#2e7d5b"),
    Target.RESOLUTION: ("resolution", "#b8860b"),
}


def draw(run: Run, path: Path) -> None:
    """Write the picture as PNG. Raises CannotDraw without matplotlib, and when the file cannot be written."""
    write_png(path, WIDTH_PIXELS, HEIGHT_PIXELS, _Picture(run).onto, text=_TEXT, edges=_MUTED)


class _Picture:
    def __init__(self, run: Run) -> None:
        self._run = run
        self._home = run.policies.zone_calendar(ANY)
        self._promises = promises_of(run)
        self._peaks = peak_spans(run)

    def onto(self, figure: Figure) -> None:
        arrivals, backlog, share, week = figure.subplots(
            4,
            1,
            gridspec_kw={
                "height_ratios": (2.6, 2.0, 2.0, 2.6),
                "left": 0.062,
                "right": 0.975,
                "top": 0.882,
                "bottom": 0.06,
                "hspace": 0.42,
            },
        )
        self._headline(figure)
        self._arrivals(arrivals)
        self._backlog(backlog)
        self._share_by_day(share)
        self._typical_week(week)

    def _headline(self, figure: Figure) -> None:
        run, setting = self._run, self._run.setting
        figure.text(0.062, 0.967, "A simulated operation: traffic, promises and agents", fontsize=20, fontweight="bold")
        first = kept_so([each for each in self._promises if each.clock.target is Target.FIRST_RESPONSE])
        words = [
            f"{setting.weeks} weeks from {setting.first} ({self._home.zone})",
            f"{len(run.arrivals):,} tickets",
            f"seed {setting.seed}",
            "agents as planned"
            if setting.agents_factor == 1
            else f"{setting.agents_factor:g} times the agents planned",
        ]
        if first.share_within_target is not None:
            words.append(f"{first.share_within_target:.1%} of first responses within target")
        figure.text(0.062, 0.944, "  ·  ".join(words), fontsize=12, color=_MUTED)

    # --- the weeks ---------------------------------------------------------------------------------------------------

    def _arrivals(self, axes: Axes) -> None:
        run = self._run
        counts = Counter((arrival.at - run.begun) // _HOUR for arrival in run.arrivals)
        hours = range((run.until - run.begun) // _HOUR)
        axes.bar(
            [self._x(run.begun + hour * _HOUR) for hour in hours],
            [counts.get(hour, 0) for hour in hours],
            width=1 / 24,
            align="edge",
            color=_ARRIVALS,
            label="new tickets",
            zorder=3,
        )
        # One hour of an incident would flatten all others: its bar is cut, and says how high it is.
        usual = sorted(counts.get(hour, 0) for hour in hours)[round(len(hours) * 0.99) - 1]
        top = max(1.0, usual * 1.5)
        axes.set_ylim(0, top)
        self._weeks(axes, "New tickets in each hour, all brands together", "tickets")
        highest, count = max(counts.items(), key=lambda item: item[1], default=(0, 0))
        if count > top:
            axes.annotate(
                f"an incident: {count} in one hour",
                (self._x(run.begun + highest * _HOUR), top * 0.9),
                xytext=(8, 0),
                textcoords="offset points",
                fontsize=9.5,
                va="center",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
                zorder=6,
            )
        handles, labels = axes.get_legend_handles_labels()
        axes.figure.legend(
            handles=handles,
            labels=labels,
            loc="upper left",
            bbox_to_anchor=(0.058, 0.938),
            ncols=6,
            frameon=False,
            fontsize=10,
            handlelength=1.5,
            columnspacing=1.8,
        )

    def _backlog(self, axes: Axes) -> None:
        times, open_tickets = zip(*self._run.backlog, strict=True)
        axes.plot(
            [self._x(at) for at in times],
            open_tickets,
            color=_BACKLOG,
            linewidth=1.5,
            zorder=3,
        )
        axes.set_ylim(0, max(open_tickets) * 1.15 + 1)
        self._weeks(
            axes,
            "Backlog: tickets that have come and are not resolved (those that wait for their customer included)",
            "tickets",
        )

    def _weeks(self, axes: Axes, title: str, unit: str) -> None:
        """What both have in common: days, holidays, peaks, and trouble."""
        run = self._run
        label: str | None
        for cause, colour, name in (
            (PeakCause.CONFIGURED, _PEAK_CONFIGURED, "configured peak in a queue"),
            (PeakCause.ARRIVALS, _PEAK_SEEN, "peak by arrivals"),
        ):
            label = name
            for begin, end in _united([(span.began_at, span.ended_at) for span in self._peaks if span.cause is cause]):
                axes.axvspan(self._x(begin), self._x(end), color=colour, linewidth=0, zorder=1, label=label)
                label = None
        label = "public holiday"
        for number, day in enumerate(self._days()):
            if day_kind(day, self._home) is DayKind.HOLIDAY:
                axes.axvspan(number, number + 1, color=_HOLIDAY, linewidth=0, zorder=0, label=label)
                label = None
        label = "policies edited"
        for at in run.edits:
            axes.axvline(self._x(at), color=_EDIT, linewidth=1.6, linestyle=(0, (4, 3)), zorder=2, label=label)
            label = None
        label = "deadline runner stopped"
        for begin, end in run.outages:
            axes.axvspan(self._x(begin), self._x(end), ymin=0.965, color=_STOP, linewidth=0, zorder=4, label=label)
            label = None
        self._days_axis(axes)
        _frame(axes, title, unit)

    def _share_by_day(self, axes: Axes) -> None:
        by_day: dict[tuple[Target, date], list[Promise]] = defaultdict(list)
        for each in self._promises:
            by_day[each.clock.target, self._home.local(each.clock.started_at).date()].append(each)
        for target, (name, colour) in _TARGETS.items():
            points = []
            for number, day in enumerate(self._days()):
                found = kept_so(by_day[target, day])
                if found.judged >= _FEWEST_JUDGED and found.share_within_target is not None:
                    points.append((number + 0.5, found.share_within_target * 100))
            if points:
                days, shares = zip(*points, strict=True)
                axes.plot(days, shares, color=colour, linewidth=1.8, marker="o", markersize=4.5, label=name)
        axes.set_ylim(0, 105)
        self._days_axis(axes)
        _frame(
            axes,
            "Share of answered or broken promises within target, by the day they were made",
            "%",
        )
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3, frameon=False, fontsize=10)

    def _days_axis(self, axes: Axes) -> None:
        days = self._days()
        axes.set_xlim(0, len(days))
        every = 1 if len(days) <= _LONGEST_DAYS_NAMED else 7
        named = range(0, len(days), every)
        axes.set_xticks([number + 0.5 for number in named], [_day_name(days[number], number == 0) for number in named])
        for number in range(7 - days[0].weekday(), len(days), 7):
            axes.axvline(number, color="#c9d1d9", linewidth=0.9, zorder=0)

    def _days(self) -> list[date]:
        return [self._run.setting.first + number * _DAY for number in range(self._run.setting.days)]

    def _x(self, at: datetime) -> float:
        """Days of the clock on the wall since the first midnight."""
        wall = self._home.local(at).replace(tzinfo=None)
        return (wall - datetime.combine(self._run.setting.first, time())) / _DAY

    # --- a typical week ----------------------------------------------------------------------------------------------

    def _typical_week(self, axes: Axes) -> None:
        need, working = self._need_and_agents()
        hours = [slot / 2 for slot in range(_SLOTS_OF_WEEK + 1)]
        axes.stairs(need, hours, color=_NEED, linewidth=1.6, label="agents needed (Erlang C)", zorder=3)
        axes.stairs(need, hours, color=_NEED, fill=True, alpha=0.14, zorder=2)
        axes.stairs(working, hours, color=_AT_WORK, linewidth=2.0, label="agents at work", zorder=4)
        axes.set_xlim(0, _SLOTS_OF_WEEK / 2)
        axes.set_ylim(0, max([*need, *working, 1]) * 1.18)
        ticks = [day * 24 + hour for day in range(7) for hour in (0, 6, 12, 18)]
        axes.set_xticks(ticks, [WEEKDAYS[at // 24].capitalize() if at % 24 == 0 else f"{at % 24:02d}" for at in ticks])
        for day in range(1, 7):
            axes.axvline(day * 24, color="#c9d1d9", linewidth=0.9, zorder=0)
        _frame(
            axes,
            "A typical week: agents needed for the contacts there were, and agents at work (mean of the plain days)",
            "agents",
        )
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, frameon=False, fontsize=10)

    def _incident_on(self) -> date | None:
        incident = self._run.traffic.incident
        return None if incident is None else self._run.setting.first + incident.day * _DAY

    def _need_and_agents(self) -> tuple[list[float], list[float]]:
        """By half-hour of the week, the mean over the weeks, holidays and the incident left out; of each half-hour all
        groups are added up.
        """
        run = self._run
        contacts: dict[tuple[int, str], Counter[Channel]] = defaultdict(Counter)
        for contact in run.desk.contacts:
            slot = (contact.at - run.begun) // HALF_HOUR
            contacts[slot, contact.group][contact.channel] += 1
        groups = sorted({group for _, group in contacts})
        needs: dict[int, list[float]] = defaultdict(list)
        working: dict[int, list[float]] = defaultdict(list)
        for slot in range((run.until - run.begun) // HALF_HOUR):
            at = run.begun + slot * HALF_HOUR
            local = self._home.local(at)
            if local.date() == self._incident_on() or day_kind(local.date(), self._home) is not DayKind.PLAIN:
                continue
            of_week = local.weekday() * 48 + local.hour * 2 + local.minute // 30
            needs[of_week].append(sum(pooled_need(contacts[slot, group], run.policies) for group in groups))
            working[of_week].append(at_work(run.roster, at))
        slots = range(_SLOTS_OF_WEEK)
        return [fmean(needs[slot] or [0]) for slot in slots], [fmean(working[slot] or [0]) for slot in slots]


def _day_name(day: date, is_first: bool) -> str:
    month = f" {day:%b}" if is_first or day.day == 1 else ""
    return f"{WEEKDAYS[day.weekday()].capitalize()}\n{day.day}{month}"


def _united(spans: Sequence[tuple[datetime, datetime]]) -> list[tuple[datetime, datetime]]:
    united: list[tuple[datetime, datetime]] = []
    for begin, end in sorted(spans):
        if united and begin <= united[-1][1]:
            united[-1] = (united[-1][0], max(end, united[-1][1]))
        else:
            united.append((begin, end))
    return united


def _frame(axes: Axes, title: str, unit: str) -> None:
    axes.set_title(title, loc="left", fontsize=12.5, fontweight="bold", pad=9)
    axes.set_ylabel(unit, fontsize=10, color=_MUTED)
    axes.tick_params(labelsize=9, length=0)
    axes.grid(axis="y", color="#dfe3e8", linewidth=0.8, zorder=0)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
