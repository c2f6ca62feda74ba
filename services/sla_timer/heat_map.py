"""The picture of a report by hour: a heat map of p90, seven days by 24 hours, and below it the hours of the day, in and
out of peak.

matplotlib comes with the extra `pictures` and is imported only when a picture is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import ceil, floor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from services.sla_timer.domain.reports import HOURS_OF_DAY, Figures, Report, Row, TargetRange, duration_text
from services.sla_timer.pictures import write_png
from shared.calendars import WEEKDAYS
from shared.events import Target

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, Normalize
    from matplotlib.figure import Figure

FEW_ANSWERS: Final = 10
"""With fewer, p90 is the slowest answer: shown, but grey."""
WIDTH_PIXELS: Final = 1500
HEIGHT_PIXELS: Final = 1000

_LOGARITHMIC_FROM: Final = (
    20.0  # times what the fastest hours need, the slowest; below it a straight scale reads better
)
_PEAK_COLOUR: Final = "#1b3a6b"
_OUT_COLOUR: Final = "#7a8794"
_TARGET_COLOUR: Final = "#0b7a4b"
_FEW_COLOUR: Final = "#e6e8eb"
_NONE_COLOUR: Final = "#f6f7f9"
_TEXT_COLOUR: Final = "#22272e"
_MUTED_COLOUR: Final = "#6a737d"
_NAMES: Final = {
    Target.FIRST_RESPONSE: "First response",
    Target.NEXT_RESPONSE: "Next response",
    Target.PERIODIC_UPDATE: "Periodic update",
    Target.RESOLUTION: "Resolution",
}


class Time(StrEnum):
    """Which seconds are shown. Targets are promised in business time."""

    BUSINESS = "business"
    WALL = "wall"

    def p90(self, figures: Figures) -> int | None:
        return (figures.business_seconds if self is Time.BUSINESS else figures.wall_seconds).p90


@dataclass(frozen=True, slots=True)
class Unit:
    """One unit for the whole picture, so that its numbers can be compared."""

    name: str
    seconds: int

    def text(self, seconds: float) -> str:
        """`0.4`, `7.5`, `42`: one decimal below ten."""
        value = seconds / self.seconds
        return f"{value:.1f}" if 0 < round(value, 1) < 10 else f"{value:,.0f}"


def unit_for(longest_seconds: float) -> Unit:
    """That in which the longest time is a number between about 2 and 200."""
    if longest_seconds < 3 * 60:
        return Unit("seconds", 1)
    return Unit("minutes", 60) if longest_seconds < 3 * 3600 else Unit("hours", 3600)


def draw(report: Report, path: Path, time: Time = Time.BUSINESS) -> None:
    """Write the picture of a report by hour of one target as PNG, 1500 x 1000 pixels.

    Raises CannotDraw without matplotlib, and when the file cannot be written.
    """
    onto = Picture(report, time).onto
    write_png(path, WIDTH_PIXELS, HEIGHT_PIXELS, onto, text=_TEXT_COLOUR, edges=_MUTED_COLOUR)


class Picture:
    """What is drawn of one report, onto a figure of matplotlib."""

    def __init__(self, report: Report, time: Time) -> None:
        (self._target,) = report.targets
        (self._total,) = report.totals
        self._report = report
        self._time = time
        shown = _enough([row.overall for row in report.rows])
        shown += _enough([part for row in report.hours_of_day for part in (row.in_peak, row.out_of_peak)])
        known = sorted(max(time.p90(figures) or 0, 1) for figures in shown)
        # The strictest target belongs on the scale; the loosest may lie hours beyond every answer.
        least = self._total.target_seconds.least
        scale = [*known, *([least] if least else [])] or [60]
        self._lowest, self._highest = min(scale), max(scale)
        self._unit = unit_for(self._highest)
        self._logarithmic = bool(known) and known[-1 - len(known) // 20] >= _LOGARITHMIC_FROM * known[len(known) // 20]

    def onto(self, figure: Figure) -> None:
        upper = figure.add_axes((0.05, 0.405, 0.825, 0.435))
        self._headline(figure)
        self._heat_map(upper)
        if self._total.overall.answered:
            self._scale(figure.add_axes((0.888, 0.405, 0.013, 0.435)))
            self._hours_of_day(figure.add_axes((0.05, 0.085, 0.825, 0.235)))

    # --- words ---------------------------------------------------------------------------------------------------

    def _headline(self, figure: Figure) -> None:
        report, overall = self._report, self._total.overall
        figure.text(0.05, 0.945, f"{_NAMES[self._target]}: p90 by hour of the week", fontsize=20, fontweight="bold")
        filters = [str(value) for value in report.filters.model_dump(mode="json").values() if value]
        what = [
            ", ".join(filters) or "all promises",
            f"{self._time} time",
            f"{report.since:%Y-%m-%d %H:%M} to {report.until:%Y-%m-%d %H:%M} ({report.zone})",
            f"{overall.answered:,} answers",
        ]
        p90 = self._time.p90(overall)
        if p90 is not None:
            what.append(f"p90 of all {duration_text(p90)}")
        if overall.share_within_target is not None:
            what.append(f"{overall.share_within_target:.1%} within target")
        figure.text(0.05, 0.91, "  ·  ".join(what), fontsize=11.5, color=_MUTED_COLOUR)
        figure.text(
            0.05,
            0.022,
            f"In each cell: p90 in {self._unit.name} (nine of ten answers took that long or less), and below it how "
            "many answers. Exact, over the single answers, by the hour in which the promise began."
            + ("" if self._time is Time.BUSINESS else " Targets are business time."),
            fontsize=9.5,
            color=_MUTED_COLOUR,
        )

    # --- the week ------------------------------------------------------------------------------------------------

    def _heat_map(self, axes: Axes) -> None:
        from matplotlib.colors import to_rgba
        from matplotlib.patches import Rectangle

        colours, norm = _colours(), self._norm()
        for row in self._report.rows:
            assert row.hour_of_week is not None
            day, hour = divmod(row.hour_of_week, HOURS_OF_DAY)
            value = self._time.p90(row.overall)
            if value is None:
                colour, ink = to_rgba(_NONE_COLOUR), ""
            elif row.overall.answered < FEW_ANSWERS:
                colour, ink = to_rgba(_FEW_COLOUR), _MUTED_COLOUR
            else:
                colour = colours(norm(max(value, 1)))
                ink = _ink(colour)
            axes.add_patch(Rectangle((hour, day), 1, 1, facecolor=colour, edgecolor="white", linewidth=1.5))
            if value is not None:
                middle: dict[str, Any] = {"ha": "center", "va": "center", "color": ink}
                axes.text(hour + 0.5, day + 0.42, self._unit.text(value), fontsize=10.5, **middle)
                axes.text(hour + 0.5, day + 0.77, f"{row.overall.answered:,}", fontsize=7, alpha=0.75, **middle)
        mostly, partly = peak_cells(self._report.rows)
        _outline(axes, partly - mostly, linewidth=1.6, linestyle=(0, (2, 1.5)))
        _outline(axes, mostly, linewidth=2.8, linestyle="-")
        axes.set_xlim(0, HOURS_OF_DAY)
        axes.set_ylim(7, 0)
        axes.set_xticks([hour + 0.5 for hour in range(HOURS_OF_DAY)], [f"{hour:02d}" for hour in range(HOURS_OF_DAY)])
        axes.set_yticks([day + 0.5 for day in range(7)], [day.capitalize() for day in WEEKDAYS])
        axes.tick_params(length=0, labelsize=11)
        for spine in axes.spines.values():
            spine.set_visible(False)
        self._legend(
            axes,
            few=any(0 < row.overall.answered < FEW_ANSWERS for row in self._report.rows),
            mostly=bool(mostly),
            partly=bool(partly - mostly),
        )
        if not self._total.overall.answered:
            axes.text(12, 3.5, "no answers in this period", ha="center", va="center", fontsize=16, color=_MUTED_COLOUR)

    def _legend(self, axes: Axes, *, few: bool, mostly: bool, partly: bool) -> None:
        from matplotlib.patches import Patch

        entries = []
        if mostly:
            entries.append(
                Patch(facecolor="white", edgecolor=_PEAK_COLOUR, linewidth=2.2, label="peak: half or more began in one")
            )
        if partly:
            entries.append(
                Patch(
                    facecolor="white",
                    edgecolor=_PEAK_COLOUR,
                    linewidth=1.3,
                    linestyle=(0, (2, 1.5)),
                    label="some began in a peak",
                )
            )
        if few:
            entries.append(Patch(facecolor=_FEW_COLOUR, label=f"fewer than {FEW_ANSWERS} answers"))
        if entries:
            axes.legend(
                handles=entries,
                loc="lower right",
                bbox_to_anchor=(1.0, 1.0),
                ncols=len(entries),
                frameon=False,
                fontsize=10,
                borderaxespad=0.2,
                handlelength=1.6,
                columnspacing=1.6,
            )

    def _norm(self) -> Normalize:
        from matplotlib.colors import LogNorm, Normalize

        highest = max(self._highest, self._lowest + 1)
        return LogNorm(self._lowest, highest) if self._logarithmic else Normalize(0, highest)

    def _scale(self, axes: Axes) -> None:
        from matplotlib.cm import ScalarMappable
        from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

        bar = axes.figure.colorbar(ScalarMappable(self._norm(), _colours()), cax=axes)
        ticks = nice_ticks(self._lowest if self._logarithmic else 0, self._highest, logarithmic=self._logarithmic)
        axes.yaxis.set_major_locator(FixedLocator(ticks))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda seconds, _: duration_short(seconds)))
        axes.tick_params(labelsize=9.5, length=3, color=_MUTED_COLOUR)
        axes.set_title("p90, log" if self._logarithmic else "p90", fontsize=10, color=_MUTED_COLOUR, pad=7, loc="left")
        bar.outline.set_visible(False)
        for seconds, label in target_lines(self._total.target_seconds):
            if not self._lowest <= seconds <= self._highest:
                continue
            axes.axhline(seconds, color=_TARGET_COLOUR, linewidth=3)
            axes.annotate(
                label.replace(" target ", "\ntarget "),
                (1, seconds),
                xycoords=("axes fraction", "data"),
                xytext=(48, 0),
                textcoords="offset points",
                va="center",
                fontsize=8.5,
                color=_TARGET_COLOUR,
                fontweight="bold",
                linespacing=1.1,
            )

    # --- the day -------------------------------------------------------------------------------------------------

    def _hours_of_day(self, axes: Axes) -> None:
        from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

        if self._logarithmic:
            axes.set_yscale("log")
        self._line(axes, "out of peak", _OUT_COLOUR, lambda row: row.out_of_peak)
        self._line(axes, "in peak", _PEAK_COLOUR, lambda row: row.in_peak)
        low = self._lowest / 1.25 if self._logarithmic else 0
        high = self._highest * (1.35 if self._logarithmic else 1.12)
        axes.set_ylim(low, high)
        axes.set_xlim(0, HOURS_OF_DAY)
        for seconds, label in target_lines(self._total.target_seconds):
            if low <= seconds <= high:
                axes.axhline(seconds, color=_TARGET_COLOUR, linewidth=1.8, linestyle=(0, (6, 3)), zorder=1)
                axes.annotate(
                    label.replace(" target ", "\ntarget "),
                    (1, seconds),
                    xycoords=("axes fraction", "data"),
                    xytext=(6, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=9,
                    color=_TARGET_COLOUR,
                    fontweight="bold",
                    annotation_clip=False,
                )
        axes.yaxis.set_major_locator(FixedLocator(nice_ticks(low, high, logarithmic=self._logarithmic)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda seconds, _: duration_short(seconds)))
        axes.set_xticks([hour + 0.5 for hour in range(HOURS_OF_DAY)], [f"{hour:02d}" for hour in range(HOURS_OF_DAY)])
        axes.tick_params(labelsize=10, length=0)
        axes.grid(axis="y", color="#dfe3e8", linewidth=0.8, zorder=0)
        axes.set_axisbelow(True)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.set_title(
            f"p90 by hour of the day, all days together{_beyond(self._total.target_seconds, high)}",
            loc="left",
            fontsize=12,
            pad=8,
        )
        if axes.lines and axes.get_legend_handles_labels()[0]:
            axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, frameon=False, fontsize=10)

    def _line(self, axes: Axes, name: str, colour: str, part: Callable[[Row], Figures]) -> None:
        """A line breaks where nothing was answered; a hollow point stands on few answers."""
        label: str | None = name
        for run in _runs([(row.hour_of_day or 0, part(row)) for row in self._report.hours_of_day]):
            hours = [hour + 0.5 for hour, _ in run]
            values = [max(self._time.p90(figures) or 0, 1) for _, figures in run]
            axes.plot(hours, values, color=colour, linewidth=2.2, label=label, zorder=3)
            fills = [colour if figures.answered >= FEW_ANSWERS else "white" for _, figures in run]
            axes.scatter(hours, values, s=34, c=fills, edgecolors=colour, linewidths=1.6, zorder=4)
            label = None


def _enough(figures: Sequence[Figures]) -> list[Figures]:
    """Those that stand on enough answers to set the scale; all that have any when none does."""
    answered = [item for item in figures if item.answered]
    return [item for item in answered if item.answered >= FEW_ANSWERS] or answered


def peak_cells(rows: Sequence[Row]) -> tuple[frozenset[int], frozenset[int]]:
    """Hours of the week of which at least half of the promises, and of which any, began in a peak."""
    share = {row.hour_of_week: row.share_in_peak for row in rows if row.hour_of_week is not None}
    return (
        frozenset(hour for hour, part in share.items() if part >= 0.5),
        frozenset(hour for hour, part in share.items() if part > 0),
    )


def target_lines(targets: TargetRange) -> list[tuple[int, str]]:
    """Where lines are drawn, business seconds, and what they are called: one target, or the strictest and loosest."""
    if targets.least is None or targets.most is None:
        return []
    if targets.least == targets.most:
        return [(targets.least, f"target {duration_short(targets.least)}")]
    return [
        (targets.least, f"strictest target {duration_short(targets.least)}"),
        (targets.most, f"loosest target {duration_short(targets.most)}"),
    ]


def _beyond(targets: TargetRange, high: float) -> str:
    if targets.most is None or targets.most <= high:
        return ""
    return f" (the loosest target, {duration_short(targets.most)}, lies above)"


_NICE_STEPS: Final = (
    *(1, 2, 5, 10, 15, 30),
    *(minutes * 60 for minutes in (1, 2, 5, 10, 15, 30)),
    *(hours * 3600 for hours in (1, 2, 4, 8, 12, 24, 50, 100, 200, 500, 1000, 2000)),
)
_NICE_SECONDS: Final = (
    *(1, 2, 5, 10, 20, 30),
    *(minutes * 60 for minutes in (1, 2, 5, 10, 20, 30)),
    *(hours * 3600 for hours in (1, 2, 4, 8, 12, 24, 48, 100, 200, 500, 1000, 2000, 5000)),
)
_TICKS_MOST: Final = 8


def nice_ticks(low: float, high: float, *, logarithmic: bool) -> list[float]:
    """Round durations from `low` to `high`: few enough to read."""
    if logarithmic:
        found = [float(seconds) for seconds in _NICE_SECONDS if low <= seconds <= high]
        return found[:: max(1, ceil(len(found) / _TICKS_MOST))]
    step = next((step for step in _NICE_STEPS if high < step * _TICKS_MOST), _NICE_STEPS[-1])
    return [float(step * number) for number in range(ceil(low / step), floor(high / step) + 1)]


def duration_short(seconds: float) -> str:
    """Of a tick or a target: `30s`, `5m`, `1h 30m`; no zeros behind."""
    return duration_text(round(seconds)).replace(" 00s", "").replace(" 00m", "")


def _runs(points: Sequence[tuple[int, Figures]]) -> Iterator[list[tuple[int, Figures]]]:
    """Neighbouring hours that have answers."""
    run: list[tuple[int, Figures]] = []
    for hour, figures in points:
        if figures.answered:
            run.append((hour, figures))
        elif run:
            yield run
            run = []
    if run:
        yield run


def _outline(axes: Axes, cells: Collection[int], *, linewidth: float, linestyle: object) -> None:
    """A line round the cells: only along the edges at which a cell has no neighbour of its kind."""
    from matplotlib.collections import LineCollection

    segments = []
    for cell in cells:
        day, hour = divmod(cell, HOURS_OF_DAY)
        if hour == 0 or cell - 1 not in cells:
            segments.append([(hour, day), (hour, day + 1)])
        if hour == HOURS_OF_DAY - 1 or cell + 1 not in cells:
            segments.append([(hour + 1, day), (hour + 1, day + 1)])
        if cell - HOURS_OF_DAY not in cells:
            segments.append([(hour, day), (hour + 1, day)])
        if cell + HOURS_OF_DAY not in cells:
            segments.append([(hour, day + 1), (hour + 1, day + 1)])
    axes.add_collection(
        LineCollection(
            segments,
            colors=_PEAK_COLOUR,
            linewidths=linewidth,
            linestyles=linestyle,
            capstyle="projecting",
            clip_on=False,
            zorder=5,
        )
    )


def _colours() -> Colormap:
    from matplotlib import colormaps

    return colormaps["YlOrRd"].resampled(256)


def _ink(colour: tuple[float, float, float, float]) -> str:
    """Dark or white letters, whichever reads better on the colour (ITU-R BT.709 luma)."""
    red, green, blue, _ = colour
    return "white" if 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.5 else _TEXT_COLOUR
