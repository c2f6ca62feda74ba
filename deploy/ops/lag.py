"""`lag`: how far each group is behind."""

from __future__ import annotations

import argparse
from collections import defaultdict
from datetime import UTC, datetime
from typing import Any

from deploy.ops import groups as kafka
from deploy.ops.console import REFUSED, add_command, add_json, duration, say, short_duration, table, tell
from deploy.ops.groups import PartitionLag
from shared.database import SERVICES
from shared.settings import CommonSettings


def register(nouns: argparse._SubParsersAction[Any]) -> None:
    parser = add_command(
        nouns,
        "lag",
        help="how far each consumer group is behind; works with the services down",
        says="Per group and topic: records written and not taken, the age of the oldest of them, who consumes. "
        "`--all` shows every partition. Exit status 1 when a group is above --most-records or --most-age, "
        "or when records were deleted by retention before their group took them.",
        examples="lag\nlag --service notifier --all\nlag --most-records 1000 --most-age 5m --json",
    )
    parser.add_argument("--service", choices=SERVICES, action="append", help="only its groups; may be repeated")
    parser.add_argument("--all", action="store_true", help="one line per partition, also those without lag")
    parser.add_argument("--most-records", type=int, metavar="N", help="exit status 1 if any group is further behind")
    parser.add_argument("--most-age", type=duration, metavar="AGE", help="the same for the oldest record: 90s, 15m, 2h")
    add_json(parser)
    parser.set_defaults(run=_run)


async def _run(chosen: argparse.Namespace) -> int:
    settings = CommonSettings()
    groups = kafka.groups_of(chosen.service or SERVICES)
    found = await kafka.lags(settings, groups, with_age=True)
    who = await kafka.members(settings, list(groups))
    now = datetime.now(UTC)
    above = _above(found, chosen, now)
    if chosen.json:
        tell(
            {
                "at": now.isoformat(),
                "partitions": [_as_json(item, now) for item in found],
                "members": {group: [vars_of(one) for one in those] for group, those in who.items()},
                "above": above,
            }
        )
    else:
        rows = _by_partition(found, now) if chosen.all else _by_topic(found, now)
        print(table(("group", "topic", "partition", "committed", "end", "lag", "oldest"), rows))
        idle = sorted(group for group, those in who.items() if not those)
        if idle:
            say(f"nobody consumes in {', '.join(idle)}")
    for line in above:
        say(line)
    return REFUSED if above else 0


def vars_of(member: kafka.Member) -> dict[str, str]:
    return {"client": member.client, "host": member.host}


def _above(found: list[PartitionLag], chosen: argparse.Namespace, now: datetime) -> list[str]:
    records: defaultdict[str, int] = defaultdict(int)
    ages: defaultdict[str, float] = defaultdict(float)
    expired: defaultdict[str, int] = defaultdict(int)
    for item in found:
        records[item.group] += item.lag
        ages[item.group] = max(ages[item.group], item.age_seconds(now) or 0.0)
        expired[item.group] += item.expired
    lines = [f"{group}: {count} records were deleted unread" for group, count in expired.items() if count]
    if chosen.most_records is not None:
        lines += [f"{group}: {count} records behind" for group, count in records.items() if count > chosen.most_records]
    if chosen.most_age is not None:
        lines += [
            f"{group}: the oldest record waits for {short_duration(age)}"
            for group, age in ages.items()
            if age > chosen.most_age.total_seconds()
        ]
    return lines


def _as_json(item: PartitionLag, now: datetime) -> dict[str, Any]:
    return {
        "group": item.group,
        "topic": item.topic,
        "partition": item.partition,
        "end": item.end,
        "committed": item.committed,
        "lag": item.lag,
        "expired": item.expired,
        "oldest_age_seconds": item.age_seconds(now),
    }


def _by_partition(found: list[PartitionLag], now: datetime) -> list[tuple[object, ...]]:
    return [
        (
            item.group,
            item.topic,
            item.partition,
            "-" if item.committed is None else item.committed,
            item.end,
            item.lag,
            short_duration(item.age_seconds(now)),
        )
        for item in found
    ]


def _by_topic(found: list[PartitionLag], now: datetime) -> list[tuple[object, ...]]:
    """One line per group and topic: what is there to be read without a screen of zeros."""
    gathered: defaultdict[tuple[str, str], list[PartitionLag]] = defaultdict(list)
    for item in found:
        gathered[item.group, item.topic].append(item)
    rows: list[tuple[object, ...]] = []
    for (group, topic), items in gathered.items():
        oldest = max((item.age_seconds(now) or 0.0 for item in items if item.lag), default=None)
        never = all(item.committed is None for item in items)
        taken = "-" if never else sum(item.position for item in items)
        lag = sum(item.lag for item in items)
        rows.append((group, topic, "all", taken, sum(item.end for item in items), lag, short_duration(oldest)))
    return rows
