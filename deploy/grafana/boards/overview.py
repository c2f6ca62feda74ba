"""Is a customer waiting? The first screen answers it."""

from __future__ import annotations

from deploy.grafana.board import Board
from deploy.grafana.panels import GREEN, RED, YELLOW, Placed, Query, bars, lines, list_panel, stat_panel
from deploy.grafana.queries import Queries
from shared import metrics

_VARIABLES = ("brand", "queue", "channel", "priority")
_NO_MAIL = 'channel!="email"'
_URGENT = 'priority=~"P1|P2"'
_ROUTED_AIM = 0.99
_KEPT_AIM = 0.95

q = Queries(*_VARIABLES)


def board() -> Board:
    made = Board(
        "overview",
        "Switchyard / Overview",
        "Is a customer waiting, and is anything in the way? Red here is what somebody should look at first.",
        _VARIABLES,
        "3h",
    )
    made.row("Is a customer waiting?", [*_now(), *_objectives()])
    made.row("Where, and what is in the way", _where())
    made.row("How it came to this", _over_time())
    return made


def routed_in_time(window: str) -> str:
    """Share of messages that reached a queue within 10 s, mail left out."""
    within = q.at_most(metrics.ROUTED_AGE_SECONDS, "10.0", where=[_NO_MAIL], window=window)
    return f"{within} / {q.counted(metrics.ROUTED_AGE_SECONDS, where=[_NO_MAIL], window=window)}"


def kept(window: str) -> str:
    """Share of the promises that ended that were kept."""
    return q.share(metrics.PROMISES, ['outcome="kept"'], window=window)


def _now() -> list[Placed]:
    return [
        stat_panel(
            "Tickets waiting",
            "Tickets in queues that no agent has claimed. Normal: what the agents at work take within minutes; it "
            "rises in a peak and falls after it.",
            [Query(q.total(metrics.QUEUE_WAITING))],
            runbook="queue-not-worked",
            unit="none",
        ),
        stat_panel(
            "Promises overdue",
            "Promised times that have passed without the promised answer: so many customers wait longer than they "
            "were told. Normal: 0.",
            [Query(q.total(metrics.CLOCKS_OPEN, where=['state="overdue"']))],
            runbook="promises-broken",
            unit="none",
            steps=((None, GREEN), (1, RED)),
        ),
        stat_panel(
            "Longest wait",
            "How long the oldest unclaimed ticket has waited. Normal: below the first response promised to its "
            "priority.",
            [Query(q.greatest(metrics.QUEUE_OLDEST_SECONDS))],
            runbook="queue-not-worked",
            unit="s",
            decimals=0,
        ),
        stat_panel(
            "Longest wait, P1 and P2",
            "The same of urgent tickets: money or an account in danger. Normal: minutes.",
            [Query(q.greatest(metrics.QUEUE_OLDEST_SECONDS, where=[_URGENT]))],
            runbook="queue-not-worked",
            unit="s",
            decimals=0,
            steps=((None, GREEN), (300, YELLOW), (900, RED)),
        ),
    ]


def _objectives() -> list[Placed]:
    routed = [
        stat_panel(
            f"Routed within 10 s, {window}",
            f"Share of messages that were in an agent's queue within 10 s of being sent, over {window} (mail left out: "
            "mailboxes are looked into every 30 s). The aim is 99 %. Below it customers are acknowledged late.",
            [Query(routed_in_time(window))],
            runbook="routed-too-late",
            unit="percentunit",
            decimals=2,
            steps=((None, RED), (_ROUTED_AIM - 0.02, YELLOW), (_ROUTED_AIM, GREEN)),
        )
        for window in ("1h", "24h")
    ]
    promises = [
        stat_panel(
            f"Promises kept, {window}",
            f"Share of the promises that ended within {window} that were answered in time. The aim is 95 %. Below it "
            "customers wait longer for people than they were promised.",
            [Query(kept(window))],
            runbook="promises-broken",
            unit="percentunit",
            decimals=1,
            steps=((None, RED), (_KEPT_AIM - 0.1, YELLOW), (_KEPT_AIM, GREEN)),
        )
        for window in ("1h", "24h")
    ]
    return [*routed, *promises]


def _where() -> list[Placed]:
    return [
        bars(
            "Oldest wait by queue",
            "The oldest unclaimed ticket of each queue. A bar that grows by a minute a minute is a queue that "
            "nobody works.",
            [Query(q.greatest(metrics.QUEUE_OLDEST_SECONDS, ["queue"]), "{{queue}}")],
            runbook="queue-not-worked",
            unit="s",
            width=6,
        ),
        bars(
            "Tickets waiting by queue",
            "Unclaimed tickets of each queue.",
            [Query(q.total(metrics.QUEUE_WAITING, ["queue"]), "{{queue}}")],
            runbook="queue-not-worked",
            unit="none",
            width=5,
        ),
        stat_panel(
            "Services up",
            "Replicas that Prometheus reaches, of each service. 0: nothing of that service runs; the rest goes on "
            "and catches up later.",
            [Query(f"sum by (job) ({q.foreign('up')})", "{{job}}")],
            runbook="service-down",
            unit="none",
            steps=((None, RED), (1, GREEN)),
            width=3,
            height=8,
        ),
        stat_panel(
            "Services ready",
            "Whether each service can do its work, as /readyz says: its consumers turn, its database and its broker "
            "answer. `waits` names a service of which one replica is kept from it.",
            [Query(q.greatest(metrics.NOT_READY, ["service"]), "{{service}}")],
            runbook="service-not-ready",
            unit="none",
            steps=((None, GREEN), (1, RED)),
            names={0: ("ready", GREEN), 1: ("waits", RED)},
            width=3,
            height=8,
        ),
        list_panel(
            "Firing alerts",
            "What Prometheus is alerting of now. Each has a runbook of its name. Watchdog always fires: without it, "
            "no alert would arrive.",
            'sum by (alertname, severity, service) (ALERTS{alertstate="firing"})',
            columns={"alertname": "Alert", "severity": "Severity", "service": "Service"},
            runbook="watchdog",
            empty="none, not even Watchdog: the alerting itself is down",
            width=7,
        ),
    ]


def _over_time() -> list[Placed]:
    return [
        lines(
            "Messages in, tickets opened and claimed",
            "Messages a minute that customers write, tickets a minute they become, and tickets a minute that agents "
            "take. When tickets stay above claims, waits grow.",
            [
                Query(f"60 * {q.rate(metrics.MESSAGES_ACCEPTED)}", "messages"),
                Query(f"60 * {q.rate(metrics.ARRIVALS)}", "tickets opened"),
                Query(f"60 * {q.rate(metrics.CLAIMS)}", "tickets claimed"),
            ],
            runbook="messages-stopped",
            unit="cpm",
        ),
        lines(
            "Tickets waiting by priority",
            "Unclaimed tickets. P1 and P2 should be taken at once, whatever else waits.",
            [Query(q.total(metrics.QUEUE_WAITING, ["priority"]), "{{priority}}")],
            runbook="queue-not-worked",
            unit="none",
            stacked=True,
        ),
        lines(
            "Promises overdue by queue",
            "Promises broken and still not answered: customers who go on waiting. Normal: 0.",
            [Query(q.total(metrics.CLOCKS_OPEN, ["queue"], ['state="overdue"']), "{{queue}}")],
            runbook="promises-broken",
            unit="none",
            stacked=True,
        ),
    ]
