"""How answering holds up at peak hours, and how many people it takes."""

from __future__ import annotations

from deploy.grafana.board import Board
from deploy.grafana.panels import GREEN, RED, YELLOW, Placed, Query, lines, list_panel, stat_panel, week
from deploy.grafana.queries import Queries
from shared import metrics

_VARIABLES = ("brand", "queue", "channel", "priority")
_FIRST = 'target="first_response"'
_PARTS = (0.5, 0.9, 0.99)
_HALF_HOUR = "30m"

q = Queries(*_VARIABLES)


def board() -> Board:
    made = Board(
        "peaks",
        "Switchyard / Peak hours",
        "When customers come, whether they are answered then as quickly as at other times, and how many agents it "
        "takes.",
        _VARIABLES,
        "24h",
    )
    made.row("The week", _week())
    made.row("First response, in and out of peak", _responses())
    made.row("Arrivals, forecast and staff", _staff())
    return made


def _week() -> list[Placed]:
    arrivals = q.total(metrics.HOUR_OF_WEEK_ARRIVALS, ["weekday", "hour"])
    response = q.greatest(metrics.HOUR_OF_WEEK_RESPONSE_SECONDS, ["weekday", "hour"])
    return [
        week(
            "Arrivals by hour of the week",
            "Tickets that arrive in each hour of the week, mean of the last weeks, in the installation's time zone. "
            "Red hours are the ones to have people for.",
            arrivals,
            runbook="peak-response-over-target",
            unit="none",
            decimals=1,
        ),
        week(
            "First response by hour of the week, p90",
            "Business time in which nine in ten customers who wrote in this hour had their first answer, over the "
            "last weeks; of the slowest brand where several are chosen. Hours that are red here and above want more "
            "agents.",
            response,
            runbook="peak-response-over-target",
            unit="s",
        ),
    ]


def _responses() -> list[Placed]:
    times = [
        Query(
            q.quantile(part, metrics.RESPONSE_SECONDS, ["peak"], [_FIRST], "1h"),
            f"p{part * 100:g} {{{{peak}}}} of peak",
        )
        for part in _PARTS
    ]
    shares = [
        Query(
            q.quantile(part, metrics.RESPONSE_SHARE, ["peak"], [_FIRST], "1h"), f"p{part * 100:g} {{{{peak}}}} of peak"
        )
        for part in _PARTS
    ]
    kept = q.share(metrics.PROMISES, ['outcome="kept"'], ["peak"], [_FIRST])
    return [
        lines(
            "First response against its promise",
            "Business time until the first answer as a share of what was promised, over the last hour: above 1 the "
            "promise was broken. Normal: p90 below 1, in peaks too.",
            shares,
            runbook="peak-response-over-target",
            unit="percentunit",
            steps=((None, GREEN), (1, RED)),
            interval="1m",
        ),
        lines(
            "First response time",
            "Business time until a customer's first answer, over the last hour. In a peak it should stay near what "
            "it is at other times.",
            times,
            runbook="peak-response-over-target",
            unit="s",
            interval="1m",
        ),
        stat_panel(
            "First responses in time",
            "Share of the first responses promised that came in time, in and out of peak, over the time shown. The "
            "aim is 95 % in both.",
            [Query(kept, "{{peak}} of peak")],
            runbook="peak-response-over-target",
            unit="percentunit",
            decimals=1,
            steps=((None, RED), (0.85, YELLOW), (0.95, GREEN)),
            width=4,
            height=8,
        ),
        list_panel(
            "Peaks going on",
            "Queues in a peak now, as configured or as arrivals say (channel `*`: all together).",
            f"{q.greatest(metrics.PEAK_ACTIVE, ['brand', 'queue', 'channel'])} == 1",
            columns={"brand": "Brand", "queue": "Queue", "channel": "Channel"},
            runbook="peak-response-over-target",
            width=4,
        ),
    ]


def _staff() -> list[Placed]:
    return [
        lines(
            "Arrivals against the forecast",
            "Tickets an hour, over the last 30 minutes, and what was expected of this half-hour (all brands chosen "
            "added up; of all queues). Normal: inside the band nine times in ten; above it, call people in early.",
            [
                Query(q.total(metrics.FORECAST_ARRIVALS, where=['bound="high"']), "high"),
                Query(q.total(metrics.FORECAST_ARRIVALS, where=['bound="low"']), "low"),
                Query(q.total(metrics.FORECAST_ARRIVALS, where=['bound="expected"']), "expected"),
                Query(f"2 * {q.increase(metrics.ARRIVALS, window=_HALF_HOUR)}", "arrivals"),
            ],
            runbook="peak-response-over-target",
            unit="none",
            between=("high", "low"),
            interval="1m",
            width=12,
        ),
        lines(
            "Agents needed and at work",
            "Agents that the forecast of this half-hour asks for, and those who hold a ticket or did something in "
            "the last 15 minutes. When fewer work than are needed, waits grow.",
            [
                Query(q.total(metrics.STAFF_NEEDED), "needed"),
                Query(q.greatest(metrics.AGENTS_WORKING), "at work"),
            ],
            runbook="peak-response-over-target",
            unit="none",
            interval="1m",
            width=12,
        ),
    ]
