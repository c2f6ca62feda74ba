"""What an installation needs for so many messages a day: `python -m deploy.capacity --messages 1000000`.

The sums of `docs/scaling.md`, from the figures of `make bench ONLY=pipeline` in `docs/figures/pipeline.jsonl`. They are
plain proportions: the busiest hour's rate times the CPU of a ticket, the day's messages times the bytes of a ticket.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from deploy.processes import REPOSITORY
from shared import topics
from shared.database import SERVICES

FIGURES: Final = REPOSITORY / "docs" / "figures" / "pipeline.jsonl"
_SECONDS_OF_HOUR: Final = 3600
_DAYS_KEPT: Final[Mapping[str, int]] = {"intake": 90, "classifier": 31, "sla_timer": 180, "notifier": 90, "desk": 90}


@dataclass(frozen=True, slots=True)
class Load:
    """`busiest_hour_share`: of a day's messages. `use`: how much of a core, or of a disk, may be used at that hour."""

    messages_per_day: int
    busiest_hour_share: float = 0.12
    use: float = 0.5
    days_kept: Mapping[str, int] = field(default_factory=lambda: dict(_DAYS_KEPT))
    brokers: int = 3
    replication: int = 3

    def __post_init__(self) -> None:
        if self.messages_per_day < 1:
            raise ValueError("messages a day must be 1 or more")
        if not 1 / 24 <= self.busiest_hour_share <= 1:
            raise ValueError("the busiest hour's share lies between 1/24 (0.0417), an even day, and 1")
        if not 0 < self.use <= 1:
            raise ValueError("the share in use lies between 0 and 1")

    @property
    def rate(self) -> float:
        """Messages a second in the busiest hour."""
        return self.messages_per_day * self.busiest_hour_share / _SECONDS_OF_HOUR


@dataclass(frozen=True, slots=True)
class Costs:
    """Of a ticket of one message. `cpu_us`: microseconds by service, `the broker` and `PostgreSQL`; bytes by schema."""

    cpu_us: Mapping[str, float]
    database_bytes: Mapping[str, float]
    log_bytes: float


@dataclass(frozen=True, slots=True)
class Needs:
    """`replicas`: processes of one core each, by service. `database_bytes`: by schema, when the days kept are full."""

    replicas: Mapping[str, int]
    partitions: int
    database_cores: int
    database_bytes: Mapping[str, float]
    broker_cores: int
    log_bytes: float


def costs_of(lines: Iterable[str]) -> Costs:
    """The costs in a benchmark's JSON lines. Raises ValueError, naming it, when a figure is missing."""
    figures = {item["figure"]: item["value"] for item in map(json.loads, filter(str.strip, lines))}

    def figure(name: str) -> float:
        if name not in figures:
            raise ValueError(f"{FIGURES.name} has no figure {name!r}: `make bench ONLY=pipeline` prints it")
        return float(figures[name])

    return Costs(
        cpu_us={part: figure(f"CPU of {part}, all five services") for part in (*SERVICES, "the broker", "PostgreSQL")},
        database_bytes={service: figure(f"database of {service}") for service in SERVICES},
        log_bytes=figure("log of the broker"),
    )


def needs_of(load: Load, costs: Costs) -> Needs:
    """Every message is taken to open a ticket: the dearest case. Topics are taken to be kept as long as the longest."""
    cores = {part: load.rate * used_us / 1e6 / load.use for part, used_us in costs.cpu_us.items()}
    # Two of each, so that one can go: a process uses one core, since Python does.
    replicas = {service: max(2, math.ceil(cores[service])) for service in SERVICES}
    days_of_log = max(topic.retention.days for topic in topics.ALL if topic is not topics.PEAKS_EVENTS)
    return Needs(
        replicas=replicas,
        partitions=_partitions(max(replicas.values())),
        database_cores=max(2, math.ceil(cores["PostgreSQL"])),
        database_bytes={
            service: load.messages_per_day * each * load.days_kept[service]
            for service, each in costs.database_bytes.items()
        },
        broker_cores=max(load.brokers, math.ceil(cores["the broker"] * load.replication)),
        log_bytes=load.messages_per_day * costs.log_bytes * days_of_log * load.replication,
    )


def _partitions(replicas: int) -> int:
    """Twice the replicas, so that they can double before partitions must; a multiple of six shares out evenly."""
    return max(6, 6 * math.ceil(2 * replicas / 6))


def table(loads: Iterable[Load], costs: Costs) -> str:
    """Markdown, a row per load."""
    head = [
        "messages a day",
        "a second, busiest hour",
        *SERVICES,
        "partitions",
        "PostgreSQL",
        "database",
        "Kafka",
        "log",
    ]
    rows = [head, ["---:"] * len(head)]
    for load in loads:
        needs = needs_of(load, costs)
        rows.append(
            [
                f"{load.messages_per_day:,}",
                f"{load.rate:,.3g}" if load.rate < 100 else f"{load.rate:,.0f}",
                *(str(needs.replicas[service]) for service in SERVICES),
                str(needs.partitions),
                f"{needs.database_cores} cores",
                _size(sum(needs.database_bytes.values())),
                f"{needs.broker_cores} cores",
                _size(needs.log_bytes),
            ]
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _size(count: float) -> str:
    for unit in ("GB", "TB", "PB"):
        count /= 1e9 if unit == "GB" else 1e3
        if count < 1000:
            return f"{count:.2g} {unit}" if count < 10 else f"{count:.0f} {unit}"
    return f"{count:,.0f} PB"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.capacity", description=__doc__.split("\n")[0])
    parser.add_argument("--messages", type=int, nargs="+", required=True, metavar="N", help="messages a day")
    parser.add_argument("--busiest-hour", type=float, default=0.12, metavar="SHARE", help="share of a day's messages")
    parser.add_argument("--use", type=float, default=0.5, metavar="SHARE", help="of a core that may be used then")
    parser.add_argument("--figures", type=Path, default=FIGURES, metavar="FILE", help="of a benchmark on your machines")
    given = parser.parse_args()
    try:
        loads = [Load(count, given.busiest_hour, given.use) for count in given.messages]
        print(table(loads, costs_of(given.figures.read_text("utf-8").splitlines())))
    except (OSError, ValueError) as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
