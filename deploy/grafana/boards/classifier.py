"""What the classifier decides, how surely, and how often people correct it: drift shows here first."""

from __future__ import annotations

from deploy.grafana.board import Board
from deploy.grafana.panels import GREEN, RED, Placed, Query, bars, lines, list_panel
from deploy.grafana.queries import Queries
from shared import metrics

_VARIABLES = ("brand", "queue", "priority")
_RUNBOOK = "triage-share-high"

q = Queries(*_VARIABLES)


def board() -> Board:
    made = Board(
        "classifier",
        "Switchyard / Classifier",
        "What messages are about, how sure the classifier is, how much it leaves to people, and what they correct.",
        _VARIABLES,
        "24h",
    )
    made.row("What customers write of", _mix())
    made.row("How surely, and how rightly", _drift())
    return made


def _mix() -> list[Placed]:
    return [
        bars(
            "Categories",
            "Messages in the time shown by what they are about. A sudden new leader is news: an outage, a fraud, a "
            "campaign.",
            [Query(f"sort_desc({q.increase(metrics.DECISIONS, ['category'])})", "{{category}}")],
            runbook=_RUNBOOK,
            unit="none",
            width=6,
            height=12,
        ),
        lines(
            "Categories over time",
            "Messages in 15 minutes by category.",
            [Query(q.increase(metrics.DECISIONS, ["category"], window="15m"), "{{category}}")],
            runbook=_RUNBOOK,
            unit="none",
            stacked=True,
            interval="1m",
            width=10,
            height=12,
        ),
        lines(
            "Priorities",
            "Messages in 15 minutes by priority. A rise of P1 is money or accounts in danger.",
            [Query(q.increase(metrics.DECISIONS, ["priority"], window="15m"), "{{priority}}")],
            runbook=_RUNBOOK,
            unit="none",
            stacked=True,
            interval="1m",
            height=6,
        ),
        lines(
            "Languages",
            "Messages in 15 minutes by language.",
            [Query(q.increase(metrics.DECISIONS, ["language"], window="15m"), "{{language}}")],
            runbook=_RUNBOOK,
            unit="none",
            stacked=True,
            interval="1m",
            height=6,
        ),
    ]


def _drift() -> list[Placed]:
    triage = q.share(metrics.MODEL_DECISIONS, ['triage="yes"'], ["model"], window="1h")
    corrected = q.increase(metrics.MODEL_CORRECTIONS, ["category", "corrected_to"])
    return [
        lines(
            "Share to triage by model",
            "Messages of the last hour that were left to a person to sort. Normal: below 15 %.",
            [Query(triage, "{{model}}")],
            runbook=_RUNBOOK,
            unit="percentunit",
            steps=((None, GREEN), (0.3, RED)),
            most=1,
            interval="1m",
        ),
        lines(
            "Confidence by model",
            "Half of the decisions of the last hour were surer than p50, nine in ten surer than p10. When p10 falls, "
            "customers write in words that the model does not know.",
            [
                Query(
                    q.quantile(part, metrics.DECISION_CONFIDENCE, ["model"], window="1h"),
                    f"p{part * 100:g} {{{{model}}}}",
                )
                for part in (0.1, 0.5)
            ],
            runbook=_RUNBOOK,
            unit="percentunit",
            most=1,
            interval="1m",
        ),
        list_panel(
            "Corrected by agents",
            "Tickets whose category an agent corrected in the time shown: from what to what. Teach the model the "
            "pairs at the top (`docs/classifier.md`).",
            f"{corrected} > 0",
            columns={"category": "Decided", "corrected_to": "Corrected to", "Value": "Tickets"},
            runbook=_RUNBOOK,
            width=8,
        ),
    ]
