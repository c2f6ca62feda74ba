"""The heat map: what is drawn, as far as it can be read off the axes, and the file."""

from __future__ import annotations

import builtins
import struct
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy import asarray

from services.sla_timer.domain.reports import (
    By,
    Figures,
    Percentiles,
    Question,
    Report,
    Row,
    TargetRange,
    assemble,
    hour_label,
)
from services.sla_timer.heat_map import (
    HEIGHT_PIXELS,
    WIDTH_PIXELS,
    Picture,
    Time,
    draw,
    duration_short,
    nice_ticks,
    peak_cells,
    target_lines,
    unit_for,
)
from services.sla_timer.pictures import CannotDraw
from shared.events import Target

FIRST = Target.FIRST_RESPONSE


def figures(p90: int, answered: int = 50) -> Figures:
    return Figures(
        judged=answered,
        answered=answered,
        within_target=answered,
        share_within_target=1.0,
        business_seconds=Percentiles(p50=p90 // 2, p90=p90, p99=2 * p90),
        wall_seconds=Percentiles(p50=p90, p90=3 * p90, p99=6 * p90),
    )


def cell(hour: int, p90: int, answered: int = 50, in_peak: int = 0) -> Row:
    inside = figures(p90, in_peak) if in_peak else Figures()
    return Row(target=FIRST, group=hour_label(hour), hour_of_week=hour, overall=figures(p90, answered), in_peak=inside)


TEN_MINUTES = TargetRange(least=600, most=600)


def report(cells: list[Row], targets: TargetRange = TEN_MINUTES) -> Report:
    question = Question(datetime(2026, 11, 2, tzinfo=UTC), datetime(2026, 11, 9, tzinfo=UTC), "UTC", By.HOUR, (FIRST,))
    answered = sum(row.overall.answered for row in cells)
    total = Row(
        target=FIRST, group=None, overall=figures(500, answered) if answered else Figures(), target_seconds=targets
    )
    days = [
        Row(target=FIRST, group=f"{hour:02d}", hour_of_day=hour, out_of_peak=figures(300), in_peak=figures(900))
        for hour in ((12, 13, 20) if cells else ())
    ]
    return assemble(question, [total], cells, days, now=datetime(2026, 12, 1, tzinfo=UTC))


def drawn(found: Report, time: Time = Time.BUSINESS) -> Figure:
    figure = Figure()
    Picture(found, time).onto(figure)
    return figure


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def points(line: Line2D) -> list[tuple[float, float]]:
    """Hours and seconds."""
    return [(float(x), float(y)) for x, y in asarray(line.get_xydata())]


CELLS = [cell(60, 480), cell(61, 900, in_peak=40), cell(62, 720, in_peak=10), cell(3, 5000, answered=4)]


@pytest.fixture(scope="module")
def week() -> Figure:
    """Drawn once, for the tests that only look at it."""
    return drawn(report(CELLS))


def test_the_file_is_a_picture_of_the_size_it_says(tmp_path: Path) -> None:
    path = tmp_path / "week.png"
    draw(report(CELLS), path)
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", content[16:24]) == (WIDTH_PIXELS, HEIGHT_PIXELS)
    from PIL import Image

    with Image.open(path) as picture:
        assert len(picture.convert("RGB").getcolors(1 << 20) or ()) > 50


def test_cells_say_p90_in_one_unit_and_how_many_answers(week: Figure) -> None:
    shown = texts(week)
    assert [text for text in ("8.0", "15", "12", "83") if text not in shown] == []  # minutes
    assert shown.count("50") == 3
    assert "4" in shown
    wall = texts(drawn(report(CELLS), Time.WALL))  # three times as long here
    assert [text for text in ("24", "45", "36", "250") if text not in wall] == []


def test_cells_with_few_answers_are_grey_and_do_not_stretch_the_scale(week: Figure) -> None:
    upper = week.axes[0]
    assert to_rgb(upper.patches[3].get_facecolor()) == pytest.approx((0xE6 / 255, 0xE8 / 255, 0xEB / 255))
    red, _, blue = to_rgb(upper.patches[61].get_facecolor())
    assert red > blue + 0.3  # a warm colour
    assert week.axes[1].get_ylim()[1] == 900  # not the 5000 of four answers


def test_peaks_are_outlined_by_how_many_promises_began_in_one(week: Figure) -> None:
    mostly, partly = peak_cells(CELLS)
    assert (set(mostly), set(partly)) == ({61}, {61, 62})
    dashed, solid = (item for item in week.axes[0].collections if isinstance(item, LineCollection))
    assert {tuple(map(tuple, segment)) for segment in solid.get_segments()} == {
        ((13.0, 2.0), (13.0, 3.0)),
        ((14.0, 2.0), (14.0, 3.0)),
        ((13.0, 2.0), (14.0, 2.0)),
        ((13.0, 3.0), (14.0, 3.0)),
    }
    assert len(dashed.get_segments()) == 4


def test_neighbours_in_a_peak_share_one_outline() -> None:
    week_end = [cell(hour, 300, in_peak=50) for hour in (23, 24, 47)]  # Mon 23; Tue 00 is no neighbour; Tue 23 is
    solid = [item for item in drawn(report(week_end)).axes[0].collections if isinstance(item, LineCollection)][-1]
    assert len(solid.get_segments()) == 4 + (2 * 4 - 2)


def test_the_target_is_a_line_on_the_scale_and_below(week: Figure) -> None:
    _, scale, lower = week.axes
    for axes in (scale, lower):
        assert [line for line in axes.lines if [y for _, y in points(line)] == [600, 600]]
        assert "target 10m" in [text.get_text().replace("\n", " ") for text in axes.texts]


def test_of_several_targets_the_strictest_and_the_loosest_are_told_apart() -> None:
    assert target_lines(TargetRange()) == []
    assert target_lines(TargetRange(least=120, most=5400)) == [
        (120, "strictest target 2m"),
        (5400, "loosest target 1h 30m"),
    ]
    figure = drawn(report(CELLS, TargetRange(least=120, most=86_400)))
    assert "the loosest target, 24h, lies above" in figure.axes[2].get_title(loc="left")


def test_hours_of_the_day_in_and_out_of_peak_break_where_nothing_was_answered(week: Figure) -> None:
    lower = week.axes[2]
    lines = [line for line in lower.lines if line.get_linestyle() == "-"]
    assert [points(line) for line in lines] == [
        [(12.5, 300), (13.5, 300)],
        [(20.5, 300)],
        [(12.5, 900), (13.5, 900)],
        [(20.5, 900)],
    ]
    assert len({str(line.get_color()) for line in lines}) == 2


def test_the_scale_is_straight_unless_slow_hours_take_twenty_times_as_long_as_fast_ones() -> None:
    near = drawn(report([cell(hour, 600 + 60 * hour) for hour in range(40)]))
    far = drawn(report([cell(hour, 300 * (1 if hour < 20 else 21)) for hour in range(40)]))
    assert [figure.axes[2].get_yscale() for figure in (near, far)] == ["linear", "log"]
    assert [figure.axes[1].get_yscale() for figure in (near, far)] == ["linear", "log"]
    assert [figure.axes[1].get_title(loc="left") for figure in (near, far)] == ["p90", "p90, log"]


def test_a_period_without_answers_says_so(tmp_path: Path) -> None:
    empty = report([], TargetRange())
    draw(empty, tmp_path / "empty.png")
    figure = drawn(empty)
    assert texts(figure) == ["no answers in this period"]
    assert len(figure.axes) == 1


def test_without_matplotlib_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = builtins.__import__

    def missing(name: str, *arguments: Any, **more: Any) -> Any:
        if name.partition(".")[0] == "matplotlib":
            raise ImportError(name)
        return real(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(CannotDraw, match=r"pip install 'switchyard\[pictures\]'"):
        draw(report(CELLS), tmp_path / "week.png")


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(CannotDraw, match="nowhere"):
        draw(report(CELLS), tmp_path / "nowhere" / "week.png")


def test_units_and_ticks_suit_what_is_read() -> None:
    assert [unit_for(seconds).name for seconds in (100, 3600, 100_000)] == ["seconds", "minutes", "hours"]
    assert [unit_for(3600).text(seconds) for seconds in (0, 24, 450, 599, 3000)] == ["0", "0.4", "7.5", "10", "50"]
    assert [duration_short(seconds) for seconds in (30, 300, 5400, 7200, 7205)] == ["30s", "5m", "1h 30m", "2h", "2h"]
    for high in (1, 50, 3000, 90_000, 4_000_000):
        ticks = nice_ticks(0, high, logarithmic=False)
        assert 2 <= len(ticks) <= 9
        assert ticks[-1] <= high
        assert 1 <= len(nice_ticks(1, high, logarithmic=True)) <= 9
