"""The kinds of panels that the dashboards are made of, each with what every panel must have: what it means, its unit,
and the runbook that helps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, table, text, timeseries
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import prometheus as prometheus_models
from grafana_foundation_sdk.models import text as text_models

DATA_SOURCE: Final = common_models.DataSourceRef(type_val="prometheus", uid="${datasource}")

GREEN: Final = "green"
YELLOW: Final = "yellow"
RED: Final = "red"
BLUE: Final = "blue"

Steps = Sequence[tuple[float | None, str]]
"""Colours from a value on; the first has None: whatever is below."""

PLAIN: Final[Steps] = ((None, BLUE),)
"""Of what is neither good nor bad by itself."""


@dataclass(frozen=True, slots=True)
class Query:
    """`legend`: of its series, with labels in double braces."""

    expression: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Placed:
    """A panel and the room it takes: of 24 columns, and rows of 30 pixels."""

    build: Callable[[], models.Panel]
    width: int
    height: int


def stat_panel(
    title: str,
    description: str,
    queries: Sequence[Query],
    *,
    runbook: str,
    unit: str,
    steps: Steps = PLAIN,
    names: Mapping[int, tuple[str, str]] | None = None,
    empty: str = "–",
    decimals: int | None = None,
    width: int = 3,
    height: int = 4,
) -> Placed:
    """One figure a series, as it is now. `names`: text and colour instead of some values."""

    def build() -> models.Panel:
        panel = _about(stat.Panel(), title, description, runbook)
        panel.unit(unit).thresholds(_thresholds(steps)).color_scheme(_colour(models.FieldColorModeId.THRESHOLDS))
        panel.no_value(empty).graph_mode(common_models.BigValueGraphMode.NONE)
        panel.color_mode(common_models.BigValueColorMode.BACKGROUND)
        panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
        if decimals is not None:
            panel.decimals(decimals)
        if names:
            panel.mappings([_named(names)])
        return _asking(panel, queries, instant=True)

    return Placed(build, width, height)


def bars(
    title: str,
    description: str,
    queries: Sequence[Query],
    *,
    runbook: str,
    unit: str,
    steps: Steps = PLAIN,
    empty: str = "–",
    width: int = 8,
    height: int = 8,
) -> Placed:
    """One bar a series, as it is now."""

    def build() -> models.Panel:
        panel = _about(bargauge.Panel(), title, description, runbook)
        panel.unit(unit).min(0).thresholds(_thresholds(steps)).no_value(empty)
        panel.color_scheme(_colour(models.FieldColorModeId.THRESHOLDS))
        panel.orientation(common_models.VizOrientation.HORIZONTAL)
        panel.display_mode(common_models.BarGaugeDisplayMode.BASIC)
        panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
        return _asking(panel, queries, instant=True)

    return Placed(build, width, height)


def lines(
    title: str,
    description: str,
    queries: Sequence[Query],
    *,
    runbook: str,
    unit: str,
    steps: Steps | None = None,
    stacked: bool = False,
    most: float | None = None,
    interval: str | None = None,
    between: tuple[str, str] | None = None,
    width: int = 8,
    height: int = 8,
) -> Placed:
    """Series over time. `steps`: drawn as dashed lines. `between`: names of two series with the room between them
    filled, the upper one first. `interval`: no points closer than this.
    """

    def build() -> models.Panel:
        panel = _about(timeseries.Panel(), title, description, runbook)
        panel.unit(unit).min(0).line_width(1).show_points(common_models.VisibilityMode.AUTO)
        panel.legend(
            common.VizLegendOptions()
            .display_mode(common_models.LegendDisplayMode.LIST)
            .placement(common_models.LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs([])
        )
        panel.tooltip(
            common.VizTooltipOptions()
            .mode(common_models.TooltipDisplayMode.MULTI)
            .sort(common_models.SortOrder.DESCENDING)
        )
        if most is not None:
            panel.max(most)
        if interval is not None:
            panel.interval(interval)
        if steps is not None:
            panel.thresholds(_thresholds(steps)).thresholds_style(
                common.GraphThresholdsStyleConfig().mode(common_models.GraphThresholdsStyleMode.DASHED)
            )
        if stacked:
            panel.fill_opacity(30).stacking(common.StackingConfig().mode(common_models.StackingMode.NORMAL).group("A"))
        if between is not None:
            upper, lower = between
            panel.override_by_name(
                upper,
                [
                    models.DynamicConfigValue("custom.fillBelowTo", lower),
                    models.DynamicConfigValue("custom.fillOpacity", 20),
                    models.DynamicConfigValue("custom.lineWidth", 0),
                ],
            ).override_by_name(lower, [models.DynamicConfigValue("custom.lineWidth", 0)])
        return _asking(panel, queries, instant=False)

    return Placed(build, width, height)


def list_panel(
    title: str,
    description: str,
    query: str,
    *,
    columns: Mapping[str, str],
    runbook: str,
    unit: str = "none",
    steps: Steps | None = None,
    descending: bool = True,
    empty: str = "none",
    width: int = 12,
    height: int = 8,
) -> Placed:
    """A table of one query's series as they are now. `columns`: labels, and `Value`, with their headings, in order."""

    def build() -> models.Panel:
        panel = _about(table.Panel(), title, description, runbook)
        panel.unit(unit).no_value(empty).filterable(False)
        panel.with_transformation(
            models.DataTransformerConfig(
                id_val="organize",
                options={
                    "excludeByName": {"Time": True},
                    "includeByName": dict.fromkeys(columns, True),
                    "indexByName": {name: place for place, name in enumerate(columns)},
                    "renameByName": dict(columns),
                },
            )
        )
        if "Value" in columns:
            panel.sort_by([common.TableSortByFieldState().display_name(columns["Value"]).desc(descending)])
            if steps is not None:
                panel.thresholds(_thresholds(steps)).override_by_name(columns["Value"], [_COLOURED])
        return _asking(panel, [Query(query)], instant=True, as_table=True)

    return Placed(build, width, height)


def week(
    title: str, description: str, query: str, *, runbook: str, unit: str, decimals: int = 0, height: int = 10
) -> Placed:
    """A heat map of seven days by 24 hours: coloured cells, from green to red. The query's series have `weekday` and
    `hour`, which sort as texts.
    """

    def build() -> models.Panel:
        panel = _about(table.Panel(), title, description, runbook)
        panel.unit(unit).decimals(decimals).no_value("–").filterable(False).min_width(50)
        panel.color_scheme(_colour(models.FieldColorModeId.CONTINUOUS_GR_YL_RD)).align(
            common_models.FieldTextAlignment.CENTER
        )
        panel.override_by_field_type("number", [_COLOURED])
        # Days come in the order in which the first hour has them, so the hours are put in order last.
        for field in ("weekday", "hour"):
            panel.with_transformation(
                models.DataTransformerConfig(id_val="sortBy", options={"fields": {}, "sort": [{"field": field}]})
            )
        panel.with_transformation(
            models.DataTransformerConfig(
                id_val="groupingToMatrix",
                options={"rowField": "weekday", "columnField": "hour", "valueField": "Value", "emptyValue": "null"},
            )
        )
        return _asking(panel, [Query(query)], instant=True, as_table=True)

    return Placed(build, 24, height)


def markdown(title: str, content: str, *, height: int) -> Placed:
    def build() -> models.Panel:
        return text.Panel().title(title).mode(text_models.TextMode.MARKDOWN).content(content).build()

    return Placed(build, 24, height)


_COLOURED: Final = models.DynamicConfigValue("custom.cellOptions", {"type": "color-background", "mode": "basic"})


def runbook_link(name: str) -> dashboard.DashboardLink:
    """A link to the dashboard that shows `docs/runbooks/<name>.md`."""
    return (
        dashboard.DashboardLink(f"Runbook: {name}")
        .type(models.DashboardLinkType.LINK)
        .url(f"/d/runbook-{name}")
        .target_blank(True)
    )


def _about(panel: Any, title: str, description: str, runbook: str) -> Any:
    panel.title(title).description(description).datasource(DATA_SOURCE).links([runbook_link(runbook)])
    return panel


def _asking(panel: Any, queries: Sequence[Query], *, instant: bool, as_table: bool = False) -> models.Panel:
    for place, query in enumerate(queries):
        asked = prometheus.Dataquery().expr(query.expression).ref_id(chr(ord("A") + place)).datasource(DATA_SOURCE)
        asked.editor_mode(prometheus_models.QueryEditorMode.CODE).legend_format(query.legend or "__auto")
        asked.format(
            prometheus_models.PromQueryFormat.TABLE if as_table else prometheus_models.PromQueryFormat.TIME_SERIES
        )
        panel.with_target(asked.instant() if instant else asked.range())
    built: models.Panel = panel.build()
    return built


def _thresholds(steps: Steps) -> dashboard.ThresholdsConfig:
    return (
        dashboard.ThresholdsConfig()
        .mode(models.ThresholdsMode.ABSOLUTE)
        .steps([models.Threshold(value=value, color=colour) for value, colour in steps])
    )


def _colour(mode: models.FieldColorModeId) -> dashboard.FieldColor:
    return dashboard.FieldColor().mode(mode)


def _named(names: Mapping[int, tuple[str, str]]) -> models.ValueMap:
    return models.ValueMap(
        options={
            str(value): models.ValueMappingResult(text=name, color=colour, index=place)
            for place, (value, (name, colour)) in enumerate(names.items())
        }
    )
