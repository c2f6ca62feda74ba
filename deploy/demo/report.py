"""What the demo shows at its end: tables for a person, one JSON line for a program."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from deploy.audit import Audit
from shared.events import SlaEvent, SlaKind, Target
from shared.taxonomy import QUEUE_NAMES, Priority, Queue

_NEXT_SHOWN = 5
_PEAKS_SHOWN = 8
_DETAIL_SHOWN = 90


def summary(audit: Audit, wall_seconds: float) -> str:
    """The last line: counts from the topics and the database."""
    return json.dumps(
        {
            "messages": audit.messages,
            "accepted": audit.accepted,
            "duplicates": audit.duplicates,
            "rejected": audit.rejected,
            "tickets": audit.tickets,
            "routed": audit.routed,
            "by_queue": audit.by_queue,
            "by_priority": audit.by_priority,
            "warnings": audit.warnings,
            "breaches": audit.breaches,
            "notifications": {"delivered": audit.delivered, "failed": audit.failed},
            "lost": audit.lost,
            "doubled": audit.doubled,
            "max_lateness_ms": audit.max_lateness_ms,
            "wall_s": round(wall_seconds, 1),
        }
    )


def show(
    console: Console,
    audit: Audit,
    queues: dict[str, Any],
    answering: dict[str, Any],
    agents: Counter[str],
    arrivals: Sequence[datetime],
) -> None:
    """`queues` and `answering` are the desk's own answers: what it shows live, and its report of first responses."""
    console.print(_queues(audit, queues))
    console.print(_promises(audit))
    console.print(_answering(answering))
    console.print(_next_due(audit.sla))
    console.print(_peaks(audit, arrivals))
    console.print(_rejected(audit))
    console.print(
        f"Agents: {', '.join(f'{count} {what}' for what, count in agents.items()) or 'nothing to do'}. "
        f"Notifications: {audit.delivered} delivered, {audit.failed} given up. "
        f"Records published once more after a fault: {audit.redelivered}."
    )
    for what, details in (("lost", audit.lost_detail), ("doubled", audit.doubled_detail)):
        for detail in details[:10]:
            console.print(f"[red]{what}:[/red] {detail}")


def _queues(audit: Audit, queues: dict[str, Any]) -> Table:
    table = Table("queue", "tickets", *(priority.value for priority in Priority), "waiting", "claimed", title="Queues")
    now = {item["queue"]: item for item in queues.get("queues", ())}
    counts = Counter((event.queue, event.priority) for event in audit.latest.values())
    for queue in Queue:
        live = now.get(queue.value, {})
        of_queue = [counts[queue, priority] for priority in Priority]
        table.add_row(
            f"{queue.value} {QUEUE_NAMES[queue][0]}",
            str(sum(of_queue)),
            *(str(count) if count else "" for count in of_queue),
            str(live.get("waiting", "")),
            str(live.get("claimed", "")),
        )
    return table


def _promises(audit: Audit) -> Table:
    table = Table("promise", "started", "met", "warned", "broken", "escalated", "most late", title="Promises")
    for target in Target:
        kinds = Counter(event.kind for event in audit.sla if event.target is target)
        table.add_row(
            target.value.replace("_", " "),
            str(kinds[SlaKind.STARTED]),
            str(kinds[SlaKind.MET]),
            str(kinds[SlaKind.WARNING]),
            str(kinds[SlaKind.BREACHED]),
            str(kinds[SlaKind.ESCALATED]),
            f"{audit.lateness_ms.get(target, 0)} ms",
        )
    return table


def _answering(answering: dict[str, Any]) -> Table:
    table = Table("queue", "judged", "answered", "within", "p50", "p90", title="First responses, in business time")
    for row in answering["rows"]:
        figures = row["overall"]
        share, times = figures["share_within_target"], figures["business_seconds"]
        table.add_row(
            row["group"] or "not routed",
            str(figures["judged"]),
            str(figures["answered"]),
            "" if share is None else f"{share:.0%}",
            *("" if times[name] is None else f"{times[name]} s" for name in ("p50", "p90")),
        )
    return table


def _next_due(events: Sequence[SlaEvent]) -> Table:
    table = Table("due", "promise", "priority", "queue", "ticket", title="Due next")
    latest: dict[Any, SlaEvent] = {}
    for event in events:
        if event.clock_id not in latest or latest[event.clock_id].step < event.step:
            latest[event.clock_id] = event
    ended = {SlaKind.MET, SlaKind.BREACHED, SlaKind.ESCALATED, SlaKind.CANCELLED, SlaKind.PAUSED}
    running = [event for event in latest.values() if event.kind not in ended and event.due_at]
    for event in sorted(running, key=lambda event: (event.due_at, event.clock_id))[:_NEXT_SHOWN]:
        assert event.due_at is not None
        table.add_row(
            f"{event.due_at.astimezone():%H:%M:%S}",
            event.target.value.replace("_", " "),
            event.priority.value if event.priority else "",
            event.queue.value if event.queue else "",
            str(event.ticket_id)[:8],
        )
    if not running:
        table.add_row("nothing", "", "", "", "")
    return table


def _peaks(audit: Audit, arrivals: Sequence[datetime]) -> Table:
    table = Table("brand / queue", "channel", "at", "", "seen", "usual", "staff needed", title="Peaks of arrivals")
    for event in sorted(audit.peaks, key=lambda event: -event.seen_arrivals)[:_PEAKS_SHOWN]:
        table.add_row(
            f"{event.brand} / {event.queue.value}",
            event.channel.value if event.channel else "all",
            f"{event.at.astimezone():%H:%M:%S}",
            event.kind.value,
            str(event.seen_arrivals),
            f"{event.expected_arrivals:g}",
            "" if event.staff_needed is None else str(event.staff_needed),
        )
    if len(audit.peaks) > _PEAKS_SHOWN:
        table.add_row(f"and {len(audit.peaks) - _PEAKS_SHOWN} more", "", "", "", "", "", "")
    by_hour = Counter(f"{time.astimezone():%m-%d %H}:00" for time in arrivals)
    for hour, count in sorted(by_hour.items(), key=lambda item: -item[1])[:3]:
        table.add_row("all", "all", hour, "arrivals in the hour", str(count), "", "")
    return table


def _rejected(audit: Audit) -> Table:
    table = Table("record", "reason", "what is wrong", title="Dead letters")
    for letter in audit.dead:
        place = f"{letter.topic}[{letter.partition}]@{letter.offset}"
        # Not markup: a pattern in square brackets is to be read as it is.
        detail = Text(letter.detail.removeprefix("switchyard.channel.message.v2: ")[:_DETAIL_SHOWN])
        table.add_row(place, letter.reason.value, detail)
    return table
