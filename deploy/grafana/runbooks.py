"""Runbooks inside Grafana: each `docs/runbooks/<name>.md` as a dashboard of one text panel, for panels and alerts to
link to.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models

from deploy.grafana.panels import markdown
from deploy.processes import REPOSITORY

DIRECTORY: Final = REPOSITORY / "docs" / "runbooks"
TAG: Final = "switchyard-runbook"

_LINK: Final = re.compile(r"\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")
_CHARACTERS_A_LINE: Final = 150
_LINES_A_ROW: Final = 1.35  # a row of the grid has 30 pixels, a line of text 22


def runbooks(directory: Path = DIRECTORY) -> Iterator[tuple[str, str]]:
    """Names of the runbooks, and their dashboards' JSON."""
    for path in sorted(directory.glob("*.md")):
        yield path.stem, _dashboard(path.stem, path.read_text(encoding="utf-8"))


def _dashboard(name: str, written: str) -> str:
    title, _, rest = written.partition("\n")
    content = linked(rest.strip())
    lines = sum(1 + len(line) // _CHARACTERS_A_LINE for line in content.splitlines())
    height = max(10, round(lines / _LINES_A_ROW) + 3)
    panel = markdown("", content, height=height).build()
    panel.id_val = 1
    panel.grid_pos = models.GridPos(h=height, w=24, x=0, y=0)
    made = (
        dashboard.Dashboard(f"Runbook: {title.removeprefix('#').strip()}")
        .uid(f"runbook-{name}")
        .description(f"docs/runbooks/{name}.md")
        .tags([TAG])
        .readonly()
        .timezone("browser")
        .time("now-6h", "now")
        .timepicker(dashboard.TimePicker().hidden(True))
        .link(
            dashboard.DashboardLink("Dashboards")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags(["switchyard"])
            .as_dropdown(True)
        )
    )
    built = made.build()
    built.panels = [panel]
    return JSONEncoder(sort_keys=True, indent=2, ensure_ascii=False).encode(built) + "\n"


def linked(written: str) -> str:
    """Links to other runbooks lead to their dashboards; other files, which Grafana has not, are named by their path."""

    def replaced(match: re.Match[str]) -> str:
        text, target = match["text"], match["target"]
        if "://" in target or target.startswith(("/", "#")):
            return match[0]
        path = Path(target.split("#")[0])
        if path.parent == Path() and path.suffix == ".md":
            return f"[{text}](/d/runbook-{path.stem})"
        file = (DIRECTORY / path).resolve()
        return f"{text} (`{file.relative_to(REPOSITORY) if file.is_relative_to(REPOSITORY) else target}`)"

    return _LINK.sub(replaced, written)
