"""Queues, and the agents who work them."""

from __future__ import annotations

from deploy.grafana.board import Board
from deploy.grafana.panels import GREEN, RED, YELLOW, Placed, Query, lines, list_panel, stat_panel
from deploy.grafana.queries import Queries
from shared import metrics

_VARIABLES = ("brand", "queue", "priority")

q = Queries(*_VARIABLES)


def board() -> Board:
    made = Board(
        "queues",
        "Switchyard / Queues and agents",
        "What waits in which queue, how long tickets wait until an agent takes them, and what agents do.",
        _VARIABLES,
    )
    made.row("What waits", _waits())
    made.row("Until an agent takes it", _claims())
    made.row("What agents do", _agents())
    return made


def _waits() -> list[Placed]:
    return [
        list_panel(
            "Oldest wait by queue and priority",
            "The oldest unclaimed ticket of each queue and priority. The top line is the customer who has waited "
            "longest.",
            f"{q.greatest(metrics.QUEUE_OLDEST_SECONDS, ['queue', 'priority'])} > 0",
            columns={"queue": "Queue", "priority": "Priority", "Value": "Oldest"},
            runbook="queue-not-worked",
            unit="s",
            steps=((None, GREEN), (900, YELLOW), (3600, RED)),
            width=6,
        ),
        lines(
            "Waiting by queue",
            "Unclaimed tickets. A line that only rises is a queue that nobody works.",
            [Query(q.total(metrics.QUEUE_WAITING, ["queue"]), "{{queue}}")],
            runbook="queue-not-worked",
            unit="none",
            stacked=True,
            width=9,
        ),
        lines(
            "Oldest wait by queue",
            "Age of the oldest unclaimed ticket. It should fall back again and again: each fall is a customer served.",
            [Query(q.greatest(metrics.QUEUE_OLDEST_SECONDS, ["queue"]), "{{queue}}")],
            runbook="queue-not-worked",
            unit="s",
            width=9,
        ),
    ]


def _claims() -> list[Placed]:
    return [
        lines(
            "Wait until claimed, by priority, p90",
            "How long claimed tickets had waited, over the last hour. P1 should be far below P4.",
            [Query(q.quantile(0.9, metrics.CLAIM_WAIT_SECONDS, ["priority"], window="1h"), "{{priority}}")],
            runbook="queue-not-worked",
            unit="s",
            interval="1m",
        ),
        lines(
            "Wait until claimed",
            "The same of all priorities: half, nine in ten, 99 in a hundred customers waited no longer.",
            [
                Query(q.quantile(part, metrics.CLAIM_WAIT_SECONDS, window="1h"), f"p{part * 100:g}")
                for part in (0.5, 0.9, 0.99)
            ],
            runbook="queue-not-worked",
            unit="s",
            interval="1m",
        ),
        lines(
            "Arrivals and claims",
            "Tickets a minute that come into the queues, and that agents take.",
            [
                Query(f"60 * {q.rate(metrics.ARRIVALS)}", "arrivals"),
                Query(f"60 * {q.rate(metrics.CLAIMS)}", "claims"),
            ],
            runbook="queue-not-worked",
            unit="cpm",
        ),
    ]


def _agents() -> list[Placed]:
    return [
        stat_panel(
            "Agents at work",
            "Agents who hold a ticket or did something in the last 15 minutes.",
            [Query(q.greatest(metrics.AGENTS_WORKING))],
            runbook="queue-not-worked",
            unit="none",
            steps=((None, RED), (1, GREEN)),
            width=4,
        ),
        stat_panel(
            "Tickets held",
            "Tickets that agents have claimed and not finished.",
            [Query(q.total(metrics.TICKETS_CLAIMED))],
            runbook="queue-not-worked",
            unit="none",
            width=4,
        ),
        stat_panel(
            "Take-backs",
            "Tickets taken back from silent agents in the time shown: each customer waited for somebody who did "
            "nothing. Normal: a few a day.",
            [Query(q.increase(metrics.TAKE_BACKS))],
            runbook="queue-not-worked",
            unit="none",
            decimals=0,
            steps=((None, GREEN), (1, YELLOW), (20, RED)),
            width=4,
        ),
        stat_panel(
            "Points left open",
            "Matters that customers raised and nobody ticked off, in tickets resolved in the time shown. Such "
            "customers write again.",
            [Query(q.increase(metrics.POINTS_LEFT_OPEN))],
            runbook="queue-not-worked",
            unit="none",
            decimals=0,
            width=4,
        ),
        stat_panel(
            "Share to triage",
            "Messages that the classifier left to a person, in the time shown. Normal: below 15 %. Each of these "
            "customers waits for somebody to sort him first.",
            [
                Query(q.share(metrics.MODEL_DECISIONS, ['triage="yes"'])),
            ],
            runbook="triage-share-high",
            unit="percentunit",
            decimals=1,
            steps=((None, GREEN), (0.15, YELLOW), (0.3, RED)),
            width=4,
        ),
        stat_panel(
            "Corrected by agents",
            "Tickets whose category an agent corrected, per message decided, in the time shown. Each went through "
            "the wrong queue first.",
            [Query(f"{q.increase(metrics.MODEL_CORRECTIONS)} / {q.increase(metrics.MODEL_DECISIONS)}")],
            runbook="triage-share-high",
            unit="percentunit",
            decimals=1,
            width=4,
        ),
        lines(
            "What agents do",
            "Acts a minute, by kind.",
            [Query(f"60 * {q.rate(metrics.AGENT_ACTIONS, ['kind'])}", "{{kind}}")],
            runbook="queue-not-worked",
            unit="cpm",
            stacked=True,
        ),
        lines(
            "Take-backs by queue",
            "Tickets taken back from silent agents, in 15 minutes.",
            [Query(q.increase(metrics.TAKE_BACKS, ["queue"], window="15m"), "{{queue}}")],
            runbook="queue-not-worked",
            unit="none",
            interval="1m",
        ),
        lines(
            "Agents needed and at work",
            "Agents that the forecast asks for in this half-hour, and those at work.",
            [
                Query(q.total(metrics.STAFF_NEEDED), "needed"),
                Query(q.greatest(metrics.AGENTS_WORKING), "at work"),
            ],
            runbook="queue-not-worked",
            unit="none",
        ),
    ]
