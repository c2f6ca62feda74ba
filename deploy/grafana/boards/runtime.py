"""The processes themselves: load, memory, database, HTTP, log, certificates."""

from __future__ import annotations

from deploy.grafana.board import Board
from deploy.grafana.panels import GREEN, RED, YELLOW, Placed, Query, lines, list_panel, stat_panel
from deploy.grafana.queries import Queries
from shared import metrics

_VARIABLES = ("job", "instance")
_REPLICA = "{{job}} {{instance}}"

q = Queries(*_VARIABLES)


def board() -> Board:
    made = Board(
        "runtime",
        "Switchyard / Runtime",
        "How the services' processes are: for who already knows that something is slow, and asks why.",
        _VARIABLES,
        "3h",
    )
    made.row("Services", _services())
    made.row("Processes", _processes())
    made.row("Database", _database())
    made.row("HTTP", _http())
    made.row("Log and traces", _log())
    return made


def _services() -> list[Placed]:
    return [
        list_panel(
            "Versions",
            "Replicas by version. Two versions of one service for longer than a roll-out takes: it did not finish.",
            f"count by (service, version) ({q.select(metrics.BUILD_INFO)})",
            columns={"service": "Service", "version": "Version", "Value": "Replicas"},
            runbook="service-not-ready",
            width=6,
        ),
        list_panel(
            "What keeps services from their work",
            "Failing checks of /readyz, by replica. Normal: none.",
            f"{q.greatest(metrics.NOT_READY, ['service', 'instance', 'check'])} == 1",
            columns={"service": "Service", "instance": "Replica", "check": "Check"},
            runbook="service-not-ready",
            width=6,
        ),
        lines(
            "Replicas up",
            "Replicas of each service that Prometheus reaches.",
            [Query(f"sum by (job) ({q.foreign('up')})", "{{job}}")],
            runbook="service-down",
            unit="none",
            width=6,
        ),
        stat_panel(
            "Certificates end in",
            "Time left of the certificate that ends first, of each that the services show or trust. Renew with two "
            "weeks left. Empty without TLS.",
            [
                Query(
                    f"{q.least(metrics.CERTIFICATE_EXPIRY, ['service', 'certificate'])} - time()",
                    "{{service}} {{certificate}}",
                )
            ],
            runbook="certificate-expires",
            unit="dtdurations",
            steps=((None, RED), (2 * 86400, YELLOW), (14 * 86400, GREEN)),
            empty="no certificates",
            width=6,
            height=8,
        ),
    ]


def _processes() -> list[Placed]:
    def rate(name: str) -> str:
        return f"sum by (job, instance) (rate({q.foreign(name)}[$__rate_interval]))"

    def now(name: str) -> str:
        return f"max by (job, instance) ({q.foreign(name)})"

    return [
        lines(
            "CPU",
            "Cores used. A service is one process on one core: at 1 it can do no more; add a replica.",
            [Query(rate("process_cpu_seconds_total"), _REPLICA)],
            runbook="consumer-lag-growing",
            unit="none",
            steps=((None, GREEN), (1, RED)),
        ),
        lines(
            "Memory",
            "Resident. Normal: level after some minutes; the classifier's model takes most.",
            [Query(now("process_resident_memory_bytes"), _REPLICA)],
            runbook="service-down",
            unit="bytes",
        ),
        lines(
            "Open files, of the most allowed",
            "Sockets among them. Near 100 % connections are refused.",
            [
                Query(
                    f"{now('process_open_fds')} / {now('process_max_fds')}",
                    _REPLICA,
                )
            ],
            runbook="service-not-ready",
            unit="percentunit",
            steps=((None, GREEN), (0.8, RED)),
        ),
        lines(
            "Garbage collections",
            "A second, all generations.",
            [Query(rate("python_gc_collections_total"), _REPLICA)],
            runbook="service-not-ready",
            unit="cps",
        ),
        lines(
            "Up since",
            "Time since each process began. A saw-tooth is a service that dies again and again.",
            [Query(f"time() - {now('process_start_time_seconds')}", _REPLICA)],
            runbook="service-down",
            unit="s",
        ),
        lines(
            "Loop progress",
            "Time since each consumer finished a batch, by replica. Normal: seconds.",
            [Query(f"time() - {q.greatest(metrics.LOOP_PROGRESS, ['group', 'instance'])}", "{{group}} {{instance}}")],
            runbook="consumer-stuck",
            unit="s",
            steps=((None, GREEN), (90, RED)),
        ),
    ]


def _database() -> list[Placed]:
    in_use = q.greatest(metrics.DATABASE_POOL, ["service", "instance"], ['state="in_use"'])
    most = q.greatest(metrics.DATABASE_POOL, ["service", "instance"], ['state="most"'])
    return [
        lines(
            "Connections in use, of the most allowed",
            "By replica. Normal: below half. At 100 % requests and batches wait for one another.",
            [Query(f"{in_use} / {most}", "{{service}} {{instance}}")],
            runbook="database-pool-exhausted",
            unit="percentunit",
            steps=((None, GREEN), (0.9, RED)),
            most=1,
        ),
        lines(
            "Connections",
            "Of all replicas together, by state. PostgreSQL's `max_connections` must hold the sum of `most`.",
            [Query(q.each(metrics.DATABASE_POOL, ["state"]), "{{state}}")],
            runbook="database-pool-exhausted",
            unit="none",
        ),
        lines(
            "Size",
            "Tables with their indexes, by service. It should level out once retention is reached.",
            [Query(q.total(metrics.DATABASE_SIZE_BYTES, ["service"]), "{{service}}")],
            runbook="disk-filling",
            unit="bytes",
            stacked=True,
        ),
    ]


def _http() -> list[Placed]:
    # Not the errors themselves: without any there would be no series.
    good = q.rate(metrics.HTTP_REQUESTS, ["service"], ['status!~"5.."'])
    return [
        lines(
            "Requests",
            "A second, by service.",
            [Query(q.rate(metrics.HTTP_REQUESTS, ["service"]), "{{service}}")],
            runbook="service-not-ready",
            unit="reqps",
        ),
        lines(
            "Duration, p99",
            "From the request to the end of its answer, by service; streams left out. Agents feel the desk's.",
            [Query(q.quantile(0.99, metrics.HTTP_SECONDS, ["service"]), "{{service}}")],
            runbook="database-pool-exhausted",
            unit="s",
        ),
        lines(
            "Share answered 5xx",
            "Normal: 0. A sender that gets 503 keeps the message and comes again.",
            [Query(f"1 - {good} / {q.rate(metrics.HTTP_REQUESTS, ['service'])}", "{{service}}")],
            runbook="service-not-ready",
            unit="percentunit",
            steps=((None, GREEN), (0.01, RED)),
        ),
        list_panel(
            "By route",
            "Answers in the time shown.",
            f"topk(50, {q.increase(metrics.HTTP_REQUESTS, ['service', 'method', 'route', 'status'])} > 0)",
            columns={
                "service": "Service",
                "method": "Method",
                "route": "Route",
                "status": "Status",
                "Value": "Requests",
            },
            runbook="channel-rejecting",
            width=24,
            height=9,
        ),
    ]


def _log() -> list[Placed]:
    return [
        lines(
            "Warnings and errors",
            "Lines in 15 minutes, by service. Normal: few warnings, no errors.",
            [
                Query(
                    q.increase(metrics.LOG_RECORDS, ["service", "level"], ['level=~"WARNING|ERROR|CRITICAL"'], "15m"),
                    "{{service}} {{level}}",
                )
            ],
            runbook="service-not-ready",
            unit="none",
            interval="1m",
            width=8,
        ),
        lines(
            "Lines by level",
            "A second. A level left at DEBUG fills disks.",
            [Query(q.rate(metrics.LOG_RECORDS, ["level"]), "{{level}}")],
            runbook="disk-filling",
            unit="cps",
            width=8,
        ),
        lines(
            "Spans of traces",
            "A second, by outcome. `queue_full` and `not_taken`: the collector is away or too slow; messages do not "
            "wait for it. Empty while tracing is off.",
            [Query(q.rate(metrics.SPANS, ["service", "outcome"]), "{{service}} {{outcome}}")],
            runbook="service-not-ready",
            unit="cps",
            width=8,
        ),
    ]
