"""Promises: running, warned of, broken and kept, and whether they are watched on time."""

from __future__ import annotations

from deploy.grafana.board import Board
from deploy.grafana.panels import GREEN, RED, YELLOW, Placed, Query, bars, lines, list_panel, stat_panel
from deploy.grafana.queries import Queries
from shared import metrics

_VARIABLES = ("brand", "queue", "priority")

q = Queries(*_VARIABLES)


def board() -> Board:
    made = Board(
        "sla",
        "Switchyard / SLA",
        "What was promised to customers: what runs, what was kept, what was broken and where.",
        _VARIABLES,
    )
    made.row("Now", _now())
    made.row("Kept and broken", _kept())
    made.row("Watched on time", _watched())
    return made


def _now() -> list[Placed]:
    return [
        stat_panel(
            "Clocks by state",
            "Promises that are not over: running, paused (waiting on the customer, or outside business hours of a "
            "pause), overdue (broken, and the customer still waits). Normal: none overdue.",
            [Query(q.total(metrics.CLOCKS_OPEN, ["state"]), "{{state}}")],
            runbook="promises-broken",
            unit="none",
            width=5,
            height=8,
        ),
        bars(
            "Overdue by queue",
            "Promises broken and still not answered. These customers are waiting now.",
            [Query(q.total(metrics.CLOCKS_OPEN, ["queue"], ['state="overdue"']), "{{queue}}")],
            runbook="promises-broken",
            unit="none",
            steps=((None, GREEN), (1, RED)),
            width=5,
        ),
        lines(
            "Open clocks by target",
            "Promises that are not over, by what was promised. It follows the number of open tickets.",
            [Query(q.total(metrics.CLOCKS_OPEN, ["target"]), "{{target}}")],
            runbook="promises-broken",
            unit="none",
            stacked=True,
            width=7,
        ),
        lines(
            "What became of clocks",
            "Events of clocks a minute: started, warning, breached, escalated, met. Warnings well before breaches "
            "are what leads are there for.",
            [Query(f"60 * {q.rate(metrics.CLOCK_EVENTS, ['kind'])}", "{{kind}}")],
            runbook="promises-broken",
            unit="cpm",
            width=7,
        ),
    ]


def _kept() -> list[Placed]:
    kept = q.share(metrics.PROMISES, ['outcome="kept"'], ["target"])
    breaches = q.increase(metrics.PROMISES, ["queue", "priority"], ['outcome="broken"'])
    return [
        stat_panel(
            "Kept, by target",
            "Share of the promises that ended in the time shown that were kept. The aim is 95 %.",
            [Query(kept, "{{target}}")],
            runbook="promises-broken",
            unit="percentunit",
            decimals=1,
            steps=((None, RED), (0.85, YELLOW), (0.95, GREEN)),
            width=5,
            height=8,
        ),
        lines(
            "Kept and broken",
            "Promises that ended, in 15 minutes. A promise counts as broken the moment it breaks.",
            [Query(q.increase(metrics.PROMISES, ["outcome"], window="15m"), "{{outcome}}")],
            runbook="promises-broken",
            unit="none",
            stacked=True,
            interval="1m",
            width=7,
        ),
        list_panel(
            "Broken by queue and priority",
            "Promises broken in the time shown. The top line is where an agent more helps most.",
            f"{breaches} > 0",
            columns={"queue": "Queue", "priority": "Priority", "Value": "Broken"},
            runbook="promises-broken",
            steps=((None, GREEN), (1, YELLOW), (10, RED)),
            width=6,
        ),
        lines(
            "Escalations and warnings by queue",
            "Times that leads were called in 15 minutes: `warning` before a promise breaks, `escalated` after it has.",
            [
                Query(
                    q.increase(metrics.CLOCK_EVENTS, ["queue", "kind"], ['kind=~"warning|escalated"'], "15m"),
                    "{{queue}} {{kind}}",
                )
            ],
            runbook="promises-broken",
            unit="none",
            interval="1m",
            width=6,
        ),
    ]


def _watched() -> list[Placed]:
    lateness = [
        Query(q.quantile(part, metrics.DEADLINE_LATENESS_SECONDS, ["service"]), f"p{part * 100:g} {{{{service}}}}")
        for part in (0.5, 0.99)
    ]
    return [
        lines(
            "Lateness of deadlines",
            "How long after its due time a warning, a breach, a take-back or a notification fires. Normal: p99 "
            "under a second. Late, leads hear too late that a customer waits.",
            lateness,
            runbook="deadlines-late",
            unit="s",
            steps=((None, GREEN), (5, RED)),
            width=10,
        ),
        lines(
            "Deadlines fired",
            "Deadlines a minute, by kind.",
            [Query(f"60 * {q.rate(metrics.DEADLINES_FIRED, ['service', 'kind'])}", "{{service}} {{kind}}")],
            runbook="deadlines-late",
            unit="cpm",
            width=10,
        ),
        stat_panel(
            "Policies",
            "`refused`: the files of promises or calendars were changed and cannot be used; the ones before stay in "
            "force.",
            [Query(q.greatest(metrics.POLICIES_REJECTED, ["service"]), "{{service}}")],
            runbook="policies-rejected",
            unit="none",
            names={0: ("in force", GREEN), 1: ("refused", RED)},
            width=4,
            height=8,
        ),
    ]
