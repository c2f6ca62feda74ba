"""`topics create|verify`: topics as `shared/topics.py` says."""

from __future__ import annotations

import argparse
from typing import Any

from deploy.ops.console import REFUSED, add_changing, add_command, add_json, add_verbs, confirm, say, tell
from shared import admin
from shared.admin import Difference
from shared.settings import CommonSettings
from shared.topics import ALL


def register(nouns: argparse._SubParsersAction[Any]) -> None:
    verbs = add_verbs(nouns, "topics", help="make topics, or check them against shared/topics.py")
    creating = add_command(
        verbs,
        "create",
        help="make what is missing, bring the others to what they should be",
        says="Make the topics that are missing. Those that are there get more partitions (never fewer) and the "
        "retention, cleanup policy and min.insync.replicas that they should have. Replicas are not changed: "
        "that takes a reassignment (kafka-reassign-partitions.sh).\n\n"
        "More partitions move keys: until the records of before are taken, order within a ticket is not "
        "kept. Drain the services first (`drain --help`).",
        examples="topics create --dry-run\ntopics create --missing-only --yes\ntopics create --replication 3",
    )
    _add_replication(creating)
    creating.add_argument("--missing-only", action="store_true", help="leave topics that are there as they are")
    add_changing(creating)
    creating.set_defaults(run=_create)
    verifying = add_command(
        verbs,
        "verify",
        help="name each difference; exit status 1 if there is one",
        says="Compare the broker's topics with shared/topics.py: partitions, replication, retention, cleanup "
        "policy, min.insync.replicas. Prints each difference; exit status 1 if there is one.",
        examples="topics verify\ntopics verify --replication 3 --json",
    )
    _add_replication(verifying)
    add_json(verifying)
    verifying.set_defaults(run=_verify)


def _add_replication(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--replication", type=int, metavar="N", help="replicas of each partition (KAFKA_REPLICATION_FACTOR)"
    )


async def _create(chosen: argparse.Namespace) -> int:
    settings = CommonSettings()
    differences = await admin.compare(settings, replication=chosen.replication)
    missing = [item for item in differences if item.what == "missing"]
    changes = [] if chosen.missing_only else [item for item in differences if item.what != "missing"]
    possible = [item for item in changes if item.can_be_changed]
    left = [item for item in changes if not item.can_be_changed]
    for item in missing:
        say(f"make {item.topic.name}: {item.topic.partitions} partitions")
    for item in possible:
        say(f"change {item}")
    for item in left:
        say(f"leave {item}: {_why_left(item)}")
    if not missing and not possible:
        say(f"all {len(ALL)} topics are there" + ("" if left else " as they should be"))
        return REFUSED if left else 0
    if not confirm(chosen, f"make {len(missing)} topics and change {len(possible)} things"):
        return 0
    made = await admin.create_topics(settings, wanted=[item.topic for item in missing], replication=chosen.replication)
    changed = await admin.change_topics(settings, possible)
    say(f"made {len(made)} topics{': ' if made else ''}{', '.join(made)}; changed {len(changed)} things")
    return REFUSED if left else 0


def _why_left(item: Difference) -> str:
    if item.what == "partitions":
        return "Kafka cannot take partitions away; change shared/topics.py"
    return "needs a reassignment, kafka-reassign-partitions.sh"


async def _verify(chosen: argparse.Namespace) -> int:
    differences = await admin.compare(CommonSettings(), replication=chosen.replication)
    if chosen.json:
        tell(
            [
                {"topic": item.topic.name, "what": item.what, "is": item.is_now, "should_be": item.should_be}
                for item in differences
            ]
        )
    else:
        for item in differences:
            print(item)
        say(f"{len(ALL)} topics looked at, {len(differences)} differences" + (": topics create" if differences else ""))
    return REFUSED if differences else 0
