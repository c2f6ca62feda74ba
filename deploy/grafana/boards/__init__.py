"""One module a dashboard; `boards()` makes them all."""

from __future__ import annotations

from deploy.grafana.board import Board
from deploy.grafana.boards import classifier, notifications, overview, peaks, pipeline, queues, runtime, sla


def boards() -> list[Board]:
    return [made.board() for made in (overview, peaks, sla, queues, pipeline, classifier, notifications, runtime)]
