"""What customers and leads are told, and whether it arrives."""

from __future__ import annotations

from deploy.grafana.board import Board
from deploy.grafana.panels import GREEN, RED, YELLOW, Placed, Query, lines, list_panel, stat_panel
from deploy.grafana.queries import Queries
from shared import metrics

_VARIABLES = ("brand", "channel")
_DELIVERIES = "deliveries-failing"
_REPLIES = "replies-failing"

q = Queries(*_VARIABLES)


def board() -> Board:
    made = Board(
        "notifications",
        "Switchyard / Notifications",
        "Acknowledgements and answers to customers, warnings to leads: on their way, delivered, given up.",
        _VARIABLES,
    )
    made.row("Now", _now())
    made.row("Deliveries", _deliveries())
    made.row("Replies through channels", _replies())
    return made


def _now() -> list[Placed]:
    delivered = q.share(metrics.DELIVERIES, ['status="delivered"'], among=['status=~"delivered|given_up"'])
    return [
        stat_panel(
            "Oldest that is due",
            "Age of the oldest notification that should have been delivered, by output. Normal: seconds. Customers "
            "wait for answers that agents have given.",
            [Query(q.greatest(metrics.NOTIFICATIONS_OLDEST_SECONDS, ["output"]), "{{output}}")],
            runbook=_DELIVERIES,
            unit="s",
            decimals=0,
            steps=((None, GREEN), (60, YELLOW), (300, RED)),
            width=8,
        ),
        stat_panel(
            "Pending",
            "Notifications not yet delivered, by output; reminders that wait for their time among them.",
            [Query(q.total(metrics.NOTIFICATIONS_PENDING, ["output"]), "{{output}}")],
            runbook=_DELIVERIES,
            unit="none",
            width=8,
        ),
        stat_panel(
            "Delivered, of those that ended",
            "Share of the notifications that ended in the time shown that were delivered, not given up. Normal: "
            "above 99 %; some mailboxes do not exist.",
            [Query(delivered)],
            runbook=_DELIVERIES,
            unit="percentunit",
            decimals=2,
            steps=((None, RED), (0.95, YELLOW), (0.99, GREEN)),
            width=4,
        ),
        stat_panel(
            "Given up",
            "Notifications given up in the time shown: these people were not told, and will not be.",
            [Query(q.increase(metrics.DELIVERIES, where=['status="given_up"']))],
            runbook=_DELIVERIES,
            unit="none",
            decimals=0,
            steps=((None, GREEN), (1, YELLOW), (50, RED)),
            width=4,
        ),
    ]


def _deliveries() -> list[Placed]:
    return [
        lines(
            "Tries by status",
            "Tries a minute: delivered, failed (another follows), given up.",
            [Query(f"60 * {q.rate(metrics.DELIVERIES, ['status'])}", "{{status}}")],
            runbook=_DELIVERIES,
            unit="cpm",
        ),
        lines(
            "Tries that failed, by output",
            "In 15 minutes. A receiver that is down shows as one line that rises with its retries.",
            [
                Query(
                    q.increase(metrics.DELIVERIES, ["output", "status"], ['status!="delivered"'], "15m"),
                    "{{output}} {{status}}",
                )
            ],
            runbook=_DELIVERIES,
            unit="none",
            interval="1m",
        ),
        list_panel(
            "By kind",
            "What was tried in the time shown, and with which end.",
            f"{q.increase(metrics.DELIVERIES, ['kind', 'output', 'status'])} > 0",
            columns={"kind": "Kind", "output": "Output", "status": "Status", "Value": "Tries"},
            runbook=_DELIVERIES,
            width=8,
        ),
        lines(
            "Age at delivery",
            "From the event that a notification tells of to its delivery. Normal: p50 about a second; reminders "
            "that are gathered to a digest wait for it.",
            [
                Query(q.quantile(part, metrics.NOTIFICATION_AGE_SECONDS, ["output"]), f"p{part * 100:g} {{{{output}}}}")
                for part in (0.5, 0.99)
            ],
            runbook=_DELIVERIES,
            unit="s",
        ),
        lines(
            "Duration of a try, p99",
            "How long receivers take to answer. Near the time-out (15 to 30 s) they are about to fail.",
            [Query(q.quantile(0.99, metrics.DELIVERY_SECONDS, ["output"]), "{{output}}")],
            runbook=_DELIVERIES,
            unit="s",
        ),
        lines(
            "Pending",
            "Notifications not yet delivered, by output. A line that only rises is a receiver that is away.",
            [Query(q.total(metrics.NOTIFICATIONS_PENDING, ["output"]), "{{output}}")],
            runbook=_DELIVERIES,
            unit="none",
        ),
    ]


def _replies() -> list[Placed]:
    return [
        lines(
            "Replies handed to providers",
            "Tries in 15 minutes by outcome: sent, try_again, hopeless. Hopeless: the customer gets no answer there.",
            [Query(q.increase(metrics.CHANNEL_REPLIES, ["outcome"], window="15m"), "{{outcome}}")],
            runbook=_REPLIES,
            unit="none",
            interval="1m",
            width=12,
        ),
        list_panel(
            "By channel",
            "In the time shown. A channel with only `try_again` has a provider that is down, or a token that ended.",
            f"{q.increase(metrics.CHANNEL_REPLIES, ['brand', 'channel', 'outcome'])} > 0",
            columns={"brand": "Brand", "channel": "Channel", "outcome": "Outcome", "Value": "Tries"},
            runbook=_REPLIES,
            width=12,
        ),
    ]
