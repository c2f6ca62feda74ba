"""A dashboard as it is written down here: rows of panels, laid out from left to right."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models

from deploy.grafana.panels import DATA_SOURCE, Placed

COLUMNS: Final = 24
TAG: Final = "switchyard"

_NAMES: Final = {"job": "Job", "instance": "Instance"}
# Whose values a variable offers: a series that is there from the start, or soon after.
_VALUES: Final = {
    "brand": "label_values(switchyard_queue_waiting, brand)",
    "queue": "label_values(switchyard_queue_waiting, queue)",
    "priority": "label_values(switchyard_queue_waiting, priority)",
    "channel": "label_values(switchyard_messages_accepted_total, channel)",
    "job": "label_values(switchyard_build_info, job)",
    "instance": 'label_values(switchyard_build_info{job=~"$job"}, instance)',
}


class Board:
    """`variables`: names out of `brand`, `queue`, `channel`, `priority`, `job`, `instance`."""

    def __init__(self, name: str, title: str, description: str, variables: Sequence[str], span: str = "6h") -> None:
        self.name = name
        self._built = (
            dashboard.Dashboard(title)
            .uid(f"switchyard-{name}")
            .description(description)
            .tags([TAG])
            .readonly()
            .time(f"now-{span}", "now")
            .refresh("30s")
            .timezone("browser")
            .tooltip(models.DashboardCursorSync.CROSSHAIR)
            .link(
                dashboard.DashboardLink("Switchyard")
                .type(models.DashboardLinkType.DASHBOARDS)
                .tags([TAG])
                .as_dropdown(True)
                .include_vars(True)
                .keep_time(True)
            )
            .with_variable(_data_source())
        )
        for variable in variables:
            self._built.with_variable(_variable(variable))
        self._next_y = 0
        self._next_id = 1

    def row(self, title: str, panels: Sequence[Placed]) -> None:
        """Panels below a heading, broken into lines where they do not fit beside each other."""
        row = dashboard.Row(title).id(self._id()).grid_pos(models.GridPos(h=1, w=COLUMNS, x=0, y=self._next_y))
        self._built.with_row(row)
        self._next_y += 1
        x = line_height = 0
        for panel in panels:
            if x + panel.width > COLUMNS:
                self._next_y += line_height
                x = line_height = 0
            self._place(panel, x)
            x += panel.width
            line_height = max(line_height, panel.height)
        self._next_y += line_height

    def alone(self, panel: Placed) -> None:
        """One panel without a heading."""
        self._place(panel, 0)
        self._next_y += panel.height

    def json(self) -> str:
        """As Grafana reads it, the same for the same dashboard, with a line break at its end."""
        return JSONEncoder(sort_keys=True, indent=2, ensure_ascii=False).encode(self._built.build()) + "\n"

    def _place(self, panel: Placed, x: int) -> None:
        built = panel.build()
        built.id_val = self._id()
        built.grid_pos = models.GridPos(h=panel.height, w=panel.width, x=x, y=self._next_y)
        self._built.with_panel(_Built(built))

    def _id(self) -> int:
        self._next_id += 1
        return self._next_id - 1


def panels_of(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All panels of a dashboard's JSON that are no row."""
    return (panel for panel in board["panels"] if panel["type"] != "row")


def parsed(text: str) -> dict[str, Any]:
    """A dashboard's JSON as a dictionary."""
    board: dict[str, Any] = json.loads(text)
    return board


class _Built(Builder[models.Panel]):
    """A panel that is built, for who asks for a builder."""

    def __init__(self, panel: models.Panel) -> None:
        self._panel = panel

    def build(self) -> models.Panel:
        return self._panel


def _data_source() -> dashboard.DatasourceVariable:
    return (
        dashboard.DatasourceVariable("datasource")
        .label("Data source")
        .type("prometheus")
        .current(models.VariableOption(text="Prometheus", value="prometheus", selected=True))
    )


def _variable(name: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(name)
        .label(_NAMES.get(name, name.capitalize()))
        .query(_VALUES[name])
        .datasource(DATA_SOURCE)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".+" if name in _NAMES else ".*")
        .current(models.VariableOption(text="All", value="$__all", selected=True))
    )
