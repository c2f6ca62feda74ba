"""The way of a message through the services: how many, how old, what waits, what failed."""

from __future__ import annotations

from deploy.grafana.board import Board
from deploy.grafana.panels import GREEN, RED, YELLOW, Placed, Query, lines, list_panel, stat_panel
from deploy.grafana.queries import Queries
from shared import metrics

_VARIABLES = ("brand", "channel", "priority")

q = Queries(*_VARIABLES)


def board() -> Board:
    made = Board(
        "pipeline",
        "Switchyard / Pipeline",
        "From a customer's message to its ticket in a queue: rates, ages, lag, and what could not be processed.",
        _VARIABLES,
        "3h",
    )
    made.row("Messages in", _in())
    made.row("How old they are", _ages())
    made.row("Consumers", _consumers())
    made.row("What failed", _failed())
    made.row("Outboxes", _outboxes())
    return made


def _in() -> list[Placed]:
    return [
        lines(
            "Accepted by channel",
            "Customers' messages a minute. A channel that falls to nothing in its busy hours is a customer who "
            "writes into nothing.",
            [Query(f"60 * {q.rate(metrics.MESSAGES_ACCEPTED, ['channel'])}", "{{channel}}")],
            runbook="messages-stopped",
            unit="cpm",
            stacked=True,
        ),
        lines(
            "Accepted, duplicate, folded, rejected",
            "What became of messages, a minute. Duplicates are what channels sent twice; floods are folded into one; "
            "rejected are requests that were refused.",
            [
                Query(f"60 * {q.rate(metrics.MESSAGES_ACCEPTED)}", "accepted"),
                Query(f"60 * {q.rate(metrics.MESSAGES_DUPLICATE)}", "duplicate"),
                Query(f"60 * {q.rate(metrics.MESSAGES_FOLDED)}", "folded"),
                Query(f"60 * {q.rate(metrics.MESSAGES_REJECTED)}", "rejected"),
            ],
            runbook="messages-stopped",
            unit="cpm",
        ),
        lines(
            "Rejected by reason",
            "Requests refused in 15 minutes, by the way they came and why. Normal: next to none; a wrong signature "
            "or key means that a whole channel is shut out.",
            [
                Query(
                    q.increase(metrics.MESSAGES_REJECTED, ["channel", "reason"], window="15m"), "{{channel}} {{reason}}"
                )
            ],
            runbook="channel-rejecting",
            unit="none",
            interval="1m",
        ),
        lines(
            "What messages did",
            "Messages a minute that opened a ticket, followed one up, or opened one again.",
            [Query(f"60 * {q.rate(metrics.MESSAGES_ACCEPTED, ['disposition'])}", "{{disposition}}")],
            runbook="messages-stopped",
            unit="cpm",
            stacked=True,
        ),
        lines(
            "Secrets cut",
            "Card numbers, passwords and the like that were cut from messages, in 15 minutes, by kind.",
            [Query(q.increase(metrics.SECRETS_CUT, ["kind"], window="15m"), "{{kind}}")],
            runbook="messages-stopped",
            unit="none",
            interval="1m",
        ),
        lines(
            "Providers' requests",
            "Time to verify and read one request of a provider, p99, and its events that are no messages "
            "(receipts), a minute.",
            [
                Query(q.quantile(0.99, metrics.CHANNEL_PARSE_SECONDS, ["provider"]), "{{provider}} p99"),
                Query(f"60 * {q.rate(metrics.CHANNEL_EVENTS_IGNORED, ['kind'])}", "{{kind}} a minute"),
            ],
            runbook="channel-rejecting",
            unit="s",
        ),
    ]


def _ages() -> list[Placed]:
    return [
        lines(
            "Age of a message in its queue",
            "From the customer's message to its place in a queue. Normal: p99 under a second or two; above 10 s "
            "customers are acknowledged late.",
            [
                Query(q.quantile(part, metrics.ROUTED_AGE_SECONDS), f"p{part * 100:g}")
                for part in (0.5, 0.9, 0.95, 0.99)
            ],
            runbook="routed-too-late",
            unit="s",
            steps=((None, GREEN), (10, RED)),
        ),
        lines(
            "Age in its queue by channel, p99",
            "The same by channel. Mail is older: mailboxes are looked into every 30 s.",
            [Query(q.quantile(0.99, metrics.ROUTED_AGE_SECONDS, ["channel"]), "{{channel}}")],
            runbook="routed-too-late",
            unit="s",
        ),
        lines(
            "Age of records at each consumer, p99",
            "From a record's time stamp to the commit of its effects. The consumer whose line stands above the "
            "others is where the time goes.",
            [Query(q.quantile(0.99, metrics.RECORD_AGE_SECONDS, ["group"]), "{{group}}")],
            runbook="consumer-lag-growing",
            unit="s",
        ),
    ]


def _consumers() -> list[Placed]:
    lag = q.greatest(metrics.CONSUMER_LAG, ["group", "topic", "partition"])
    progress = f"time() - {q.greatest(metrics.LOOP_PROGRESS, ['group'])}"
    return [
        lines(
            "Lag by consumer",
            "Records written and not yet taken. Normal: near 0, with short hills. A hill that does not fall is a "
            "consumer too slow or stuck; what it does for customers comes later and later.",
            [Query(f"sum by (group) ({lag})", "{{group}}")],
            runbook="consumer-lag-growing",
            unit="none",
        ),
        list_panel(
            "Lag by partition",
            "The longest. One partition far above the others has a stuck replica, or a customer who floods.",
            f"topk(20, {lag})",
            columns={"group": "Consumer", "topic": "Topic", "partition": "Partition", "Value": "Records"},
            runbook="consumer-stuck",
            steps=((None, GREEN), (100, YELLOW), (10000, RED)),
            width=8,
        ),
        lines(
            "Time since a consumer finished a batch",
            "Of the quickest replica. Normal: seconds. It rises evenly when the loop is stuck.",
            [Query(progress, "{{group}}")],
            runbook="consumer-stuck",
            unit="s",
            steps=((None, GREEN), (90, RED)),
        ),
        lines(
            "Records taken",
            "Records a second that each consumer took and committed.",
            [Query(q.rate(metrics.RECORDS_CONSUMED, ["group"]), "{{group}}")],
            runbook="consumer-lag-growing",
            unit="cps",
        ),
        lines(
            "Time to handle a batch, p99",
            "Normal: well below a second. Above the consumer's session time-out the broker gives its partitions away.",
            [Query(q.quantile(0.99, metrics.BATCH_SECONDS, ["group"]), "{{group}}")],
            runbook="consumer-lag-growing",
            unit="s",
        ),
        stat_panel(
            "Consumers paused",
            "Consumers that wait for a dependency or a better deploy. Normal: none paused. Nothing is lost; nothing "
            "of their partitions moves.",
            [Query(q.greatest(metrics.CONSUMER_PAUSED, ["group"]), "{{group}}")],
            runbook="consumer-paused",
            unit="none",
            names={0: ("turns", GREEN), 1: ("paused", RED)},
            width=8,
            height=8,
        ),
    ]


def _failed() -> list[Placed]:
    return [
        list_panel(
            "Dead letters",
            "Records moved to dead.letters in the time shown, and why. Each may be a customer's message that nobody "
            "works on; they can be shown and replayed.",
            f"{q.increase(metrics.DEAD_LETTERS, ['group', 'topic', 'reason'])} > 0",
            columns={"group": "Consumer", "topic": "Topic", "reason": "Reason", "Value": "Records"},
            runbook="dead-letters",
            steps=((None, GREEN), (0.5, YELLOW), (20, RED)),
            width=8,
        ),
        lines(
            "Dead letters by reason",
            "In 15 minutes. Normal: a few from a channel that sends rubbish. From inside: a bug.",
            [Query(q.increase(metrics.DEAD_LETTERS, ["reason"], window="15m"), "{{reason}}")],
            runbook="dead-letters",
            unit="none",
            interval="1m",
        ),
        lines(
            "Batches tried again, duplicates, failed publishing",
            "In 15 minutes. Retries come with a dependency that was away; duplicates follow a crash or a rebalance "
            "and have no effect; failed publishing is tried again.",
            [
                Query(q.increase(metrics.BATCH_RETRIES, ["group"], window="15m"), "tried again {{group}}"),
                Query(q.increase(metrics.RECORDS_DUPLICATE, ["group"], window="15m"), "duplicate {{group}}"),
                Query(q.increase(metrics.PUBLISH_FAILURES, ["service"], window="15m"), "not published {{service}}"),
            ],
            runbook="consumer-paused",
            unit="none",
            interval="1m",
        ),
    ]


def _outboxes() -> list[Placed]:
    return [
        lines(
            "Events waiting to be published",
            "Stored by a request or a timer, not yet on Kafka. Normal: near 0. At 100,000 intake asks senders to "
            "come again.",
            [Query(q.total(metrics.OUTBOX_DEPTH, ["service"]), "{{service}}")],
            runbook="outbox-growing",
            unit="none",
        ),
        lines(
            "Age of the oldest of them",
            "Normal: under a second. It grows while Kafka is away; nothing is lost.",
            [Query(q.greatest(metrics.OUTBOX_OLDEST_SECONDS, ["service"]), "{{service}}")],
            runbook="outbox-growing",
            unit="s",
            steps=((None, GREEN), (60, RED)),
        ),
        lines(
            "Records published",
            "Records a second that the broker acknowledged, by topic.",
            [Query(q.rate(metrics.RECORDS_PUBLISHED, ["topic"]), "{{topic}}")],
            runbook="outbox-growing",
            unit="cps",
        ),
    ]
