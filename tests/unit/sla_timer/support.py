"""Small policies and happenings for tests: round the clock, targets in plain times, so that the sums stay readable."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from services.sla_timer.domain.clocks import Clock, Happening, Ticket, Told, fold, reconcile, ring
from services.sla_timer.domain.policies import Policies, PolicyFile
from services.sla_timer.domain.rules import What
from shared.calendars import Calendar, Period
from shared.events import SlaEvent, Target
from shared.taxonomy import Category, Channel, Priority, Queue

NINE = datetime(2026, 6, 3, 9, tzinfo=UTC)  # a Wednesday
ALWAYS = Calendar("always", "UTC", ((Period(0, 86_400),),) * 7)
OFFICE = Calendar("office", "UTC", ((Period.parse("09:00-17:00"),),) * 5 + ((), ()))
CALENDARS = {"always": ALWAYS, "office": OFFICE}


def targets(first: object, following: object, resolution: object, update: object = None) -> dict[str, object]:
    promised = {"first_response": first, "next_response": following, "resolution": resolution}
    return promised if update is None else {**promised, "periodic_update": update}


def policies_of(**rules: object) -> Policies:
    return Policies(PolicyFile.model_validate({"rules": rules}), CALENDARS)


# P1: 10, 10 and 60 minutes; P3: 60, 30 and 240 minutes; P4: 4, 4 and 24 hours. Warnings at half time. P3 is told of
# its state every 90 minutes; a resolution of P1 is warned of 5 minutes before, too, and calls for help 15 and 40
# minutes after the breach. Other priorities make no such promise.
POLICIES = policies_of(
    default={
        "calendar": "always",
        "warnings": [0.5],
        "targets": {
            "P1": targets(
                "10m",
                "10m",
                {
                    "within": "1h",
                    "warnings": [0.5, "5m"],
                    "escalations": [{"to": "head", "after": "15m"}, {"to": "on_call", "after": "40m"}],
                },
            ),
            "P2": targets("30m", "20m", "2h"),
            "P3": targets("1h", "30m", "4h", "90m"),
            "P4": targets("4h", "4h", "24h"),
        },
    }
)
TICKET = Ticket(uuid.UUID(int=1), "upay", Channel.APP_CHAT, NINE)


def at(minutes: float) -> datetime:
    return NINE + timedelta(minutes=minutes)


def happened(
    what: What,
    minutes: float,
    priority: Priority | None = None,
    queue: Queue | None = None,
    revision: int = 0,
    category: Category | None = None,
    agent_group: str | None = None,
) -> Happening:
    cause = uuid.uuid5(uuid.NAMESPACE_OID, f"{what}/{minutes}/{priority}/{queue}/{revision}/{category}/{agent_group}")
    return Happening(cause, what, at(minutes), queue, priority, revision, category, agent_group)


class Watch:
    """One ticket as the service keeps it: happenings that came in, clocks stored, events told."""

    def __init__(self, policies: Policies = POLICIES, ticket: Ticket = TICKET) -> None:
        self.policies = policies
        self.ticket = ticket
        self.happenings: dict[uuid.UUID, Happening] = {}
        self.stored: dict[uuid.UUID, Clock] = {}
        self.told: list[SlaEvent] = []
        self.next_alarm_at: datetime | None = None

    def take(self, now: float, *happenings: Happening) -> list[SlaEvent]:
        """What a handler does with a batch; without happenings, what a re-planner does."""
        self.happenings |= {item.id: item for item in happenings}
        return self._keep(self.settled(at(now)))

    def ring(self, now: float) -> list[SlaEvent]:
        """What the deadline runner does."""
        return self._keep(self.rung(at(now)))

    def settled(self, now: datetime) -> Told:
        folded = fold(self.ticket, self.happenings.values(), self.policies, now, self.stored)
        return reconcile(self.ticket, self.stored, folded, now)

    def rung(self, now: datetime) -> Told:
        return ring(self.ticket, [clock for clock in self.stored.values() if clock.is_open], now)

    def _keep(self, told: Told) -> list[SlaEvent]:
        self.stored |= {clock.id: clock for clock in told.changed}
        self.told += told.events
        self.next_alarm_at = told.next_alarm_at
        return list(told.events)

    def clock(self, target: Target, generation: int = 1) -> Clock:
        (clock,) = [item for item in self.stored.values() if (item.target, item.generation) == (target, generation)]
        return clock


def outcome(clocks: Iterable[Clock]) -> Sequence[tuple[object, ...]]:
    """What the same set of happenings must always come to, in whatever order they arrived (no alarm having rung)."""
    return sorted(
        (
            clock.target,
            clock.generation,
            clock.state,
            clock.terms.policy,
            clock.started_at,
            clock.ended_at or datetime.max.replace(tzinfo=UTC),
            str(clock.due_at),
            clock.used_seconds or 0,
            clock.queue or "",
        )
        for clock in clocks
    )
