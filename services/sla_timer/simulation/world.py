"""Lets time pass: from one event to the next, in virtual time. Events reach the sla_timer as they do in life: some
late, some twice, not always in order, in batches; its deadline runner stops now and then; its policies are edited.
"""

from __future__ import annotations

import heapq
import random
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any, Final, NamedTuple

from services.sla_timer.domain.clocks import Happening, Ticket
from services.sla_timer.domain.forecast import half_hours_of
from services.sla_timer.domain.peaks import Place
from services.sla_timer.domain.policies import ANY, Policies, PolicyFile, Span
from services.sla_timer.domain.rules import What
from services.sla_timer.simulation.desk import Desk, DeskTicket, Group, Shift, roster
from services.sla_timer.simulation.invariants import Checks
from services.sla_timer.simulation.timer import Decisions, Delivery, Timer
from services.sla_timer.simulation.traffic import Arrival, Incident, Traffic, brands_of, seeded, synthetic_arrivals
from shared.calendars import Calendar
from shared.taxonomy import Category, Priority, Queue

FIRST_DAY: Final = date(2026, 10, 5)
"""A Monday. The four weeks from it on have the end of China's National Day, a make-up day (10 October), a public
holiday in the United States and the end of daylight saving there.
"""
TICKETS_PER_WEEK: Final = 700.0
INCIDENT_SHARE: Final = 0.3  # of a week's tickets

_SECOND: Final = timedelta(seconds=1)
_MINUTE: Final = timedelta(minutes=1)
_DAY: Final = timedelta(days=1)
_WEEK_DAYS: Final = 7
_A_MONDAY: Final = datetime(2026, 6, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_LATE: Final = 0.02
_LATE_MINUTES: Final = (1.0, 45.0)
_REPEATED: Final = 0.04
_POLL_SECONDS: Final = 6.0
_RUNNER_STOPS_PER_WEEK: Final = 1
_RUNNER_STOPS_MINUTES: Final = (15.0, 90.0)
_EDITS_AT: Final = (0.4, 0.7)  # of the time simulated
_LONGER: Final = 1.25
_HOLIDAY_AT: Final = 0.85
_REPLAN_AT_ONCE: Final = 50
_REPLAN_EVERY: Final = timedelta(milliseconds=300)
_DESK_LOOKS_AROUND: Final = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Setting:
    """All that decides a run. `agents_factor`: times the agents that a lead would plan."""

    file: PolicyFile
    calendars: Mapping[str, Calendar]
    seed: int = 1
    weeks: int = 4
    first: date = FIRST_DAY
    tickets_per_week: float = TICKETS_PER_WEEK
    agents_factor: float = 1.0
    has_incident: bool = True
    look_every: timedelta = timedelta(minutes=5)
    """At arrivals; the service looks every minute."""
    sample_every: int = 25
    """Of the costly checks, one in so many is made."""

    @property
    def days(self) -> int:
        return self.weeks * _WEEK_DAYS

    @property
    def command(self) -> str:
        return (
            f"simulate --seed {self.seed} --weeks {self.weeks} --from {self.first} "
            f"--tickets-per-week {self.tickets_per_week:g} --agents-factor {self.agents_factor:g}"
        )


@dataclass(slots=True)
class Run:
    """What came of it."""

    setting: Setting
    policies: Policies
    begun: datetime
    until: datetime
    ended: datetime
    traffic: Traffic
    arrivals: list[Arrival]
    roster: list[Shift]
    desk: Desk
    timer: Timer
    checks: Checks
    backlog: list[tuple[datetime, int]]
    outages: list[tuple[datetime, datetime]]
    edits: list[datetime]
    delivered: Counter[str]


def simulate(setting: Setting, decisions: Decisions | None = None) -> Run:
    """Raises `invariants.Broken` when something does not hold."""
    world = _World(setting, decisions)
    world.run()
    return world.outcome()


class _Event(NamedTuple):
    """`is_life`: of agents and customers, who stop when the time is over; the sla_timer finishes what is under way."""

    at: datetime
    number: int
    act: Callable[[], None]
    is_life: bool


class _World:
    def __init__(self, setting: Setting, decisions: Decisions | None) -> None:
        self._setting = setting
        self._editions = _editions(setting)
        policies = self._editions[0]
        home = policies.zone_calendar(ANY)
        self._begun = half_hours_of(setting.first, home)[0]
        self._until = half_hours_of(setting.first + timedelta(days=setting.days), home)[0]
        self._now = self._begun
        self._events: list[_Event] = []
        self._numbers = 0
        self._checks = Checks(setting.command, setting.sample_every)
        self._timer = Timer(policies, self._checks, decisions)
        self._desk = Desk(self, self._chance("people"))
        self._delivering = self._chance("delivery")
        self._ids = self._chance("ids")
        self._pending: list[Delivery] = []
        self._delivered: Counter[str] = Counter()
        self._runner_works = True
        self._outages: list[tuple[datetime, datetime]] = []
        self._edits: list[datetime] = []
        self._backlog: list[tuple[datetime, int]] = []
        self._known: dict[str, Policies] = {policies.version: policies}
        brands = brands_of(setting.file)
        self._traffic = Traffic(
            brands,
            setting.tickets_per_week,
            Incident(
                day=_incident_day(setting),
                brand=brands[0],
                tickets=round(setting.tickets_per_week * INCIDENT_SHARE),
            )
            if setting.has_incident
            else None,
        )
        self._arrivals = [
            arrival
            for arrival in synthetic_arrivals(self._traffic, policies, setting.first, setting.days, setting.seed)
            if self._begun <= arrival.at < self._until
        ]
        self._roster = roster(self._traffic, policies, setting.first, setting.days, setting.agents_factor)

    def _chance(self, name: str) -> random.Random:
        return seeded(name, self._setting.seed)

    # --- what the desk sees of it ------------------------------------------------------------------------------------

    @property
    def now(self) -> datetime:
        return self._now

    @property
    def policies(self) -> Policies:
        return self._timer.policies

    def later(self, delay: timedelta, act: Callable[[], None]) -> None:
        self._plan(self._now + delay, act, is_life=True)

    def opened(self, ticket: DeskTicket) -> None:
        self._send(Delivery(ticket.id, ticket.ticket))

    def happened(
        self,
        ticket: DeskTicket,
        what: What,
        queue: Queue | None = None,
        priority: Priority | None = None,
        category: Category | None = None,
        group: Group | None = None,
    ) -> None:
        ticket.latest = at = max(self._now, ticket.latest + _MILLISECOND)
        routed = what is What.ROUTED
        happening = Happening(
            uuid.UUID(int=self._ids.getrandbits(128)),
            what,
            at,
            queue,
            priority,
            ticket.revision if routed else 0,
            category,
            group.name if group else None,
        )
        arrival = None
        if routed and ticket.revision == 1 and queue is not None:
            arrival = Place(ticket.ticket.brand, queue, ticket.ticket.channel)
        introduces = routed or what in (What.CUSTOMER_WROTE, What.CUSTOMER_THANKED)
        self._send(Delivery(ticket.id, ticket.ticket if introduces else None, happening, arrival))

    # --- the way to the sla_timer ------------------------------------------------------------------------------------

    def _send(self, delivery: Delivery) -> None:
        chance = self._delivering
        self._delivered["events"] += 1
        delay = chance.uniform(0.05, 1.5) * _SECOND
        if chance.random() < _LATE:
            self._delivered["late"] += 1
            delay = chance.uniform(*_LATE_MINUTES) * _MINUTE
        self._plan(self._now + delay, partial(self._arrive, delivery))
        if chance.random() < _REPEATED:
            self._delivered["repeated"] += 1
            again = chance.uniform(0.05, 600) * _SECOND
            self._plan(self._now + again, partial(self._arrive, delivery))

    def _arrive(self, delivery: Delivery) -> None:
        """Records are taken in batches: all that have come until the consumer asks."""
        if not self._pending:
            self._plan(self._now + self._delivering.uniform(0, _POLL_SECONDS) * _SECOND, self._take)
        self._pending.append(delivery)

    def _take(self) -> None:
        batch, self._pending = self._pending, []
        self._delivered["batches"] += 1
        self._timer.take(batch, self._now)

    # --- time --------------------------------------------------------------------------------------------------------

    def _plan(self, at: datetime, act: Callable[[], None], *, is_life: bool = False) -> None:
        self._numbers += 1
        heapq.heappush(self._events, _Event(at, self._numbers, act, is_life))

    def run(self) -> None:
        for arrival in self._arrivals:
            self._plan(arrival.at, partial(self._open, arrival), is_life=True)
        for shift in self._roster:
            if shift.end > self._begun:
                self._plan(max(shift.start, self._begun), partial(self._desk.begin, shift), is_life=True)
        self._plan_trouble()
        self._plan(self._begun + self._setting.look_every, self._look)
        self._plan(self._begun + _DESK_LOOKS_AROUND, self._look_around, is_life=True)
        while self._events or self._alarm_before(self._until) is not None:
            at = self._events[0].at if self._events else self._until
            alarm = self._alarm_before(at)
            if alarm is not None:  # the runner comes first where both come at once
                self._now = alarm
                self._timer.fire(alarm)
                continue
            event = heapq.heappop(self._events)
            if event.is_life and event.at >= self._until:
                continue
            self._now = event.at
            event.act()
        self._finish()

    def _alarm_before(self, at: datetime) -> datetime | None:
        alarm = self._timer.next_alarm_at if self._runner_works else None
        return max(alarm, self._now) if alarm is not None and alarm <= at else None

    def _open(self, arrival: Arrival) -> None:
        ticket = Ticket(uuid.UUID(int=self._ids.getrandbits(128)), arrival.brand, arrival.channel, arrival.at)
        self._desk.open(arrival, ticket)

    def _look_around(self) -> None:
        """Channels open and close without anything happening."""
        self._desk.go_on()
        self._plan(self._now + _DESK_LOOKS_AROUND, self._look_around, is_life=True)

    def _look(self) -> None:
        self._checks.backlog(self._timer.open_resolutions, self._now)
        self._backlog.append((self._now, self._timer.open_resolutions))
        if self._runner_works:
            self._timer.look_at_arrivals(self._now)
        if self._now + self._setting.look_every <= self._until:
            self._plan(self._now + self._setting.look_every, self._look)

    # --- trouble -----------------------------------------------------------------------------------------------------

    def _plan_trouble(self) -> None:
        chance = self._chance("trouble")
        length = self._until - self._begun
        week = length / self._setting.weeks
        for number in range(self._setting.weeks * _RUNNER_STOPS_PER_WEEK):
            stop = self._begun + week * (number + chance.uniform(0.05, 0.9))
            start = stop + chance.uniform(*_RUNNER_STOPS_MINUTES) * _MINUTE
            self._outages.append((stop, start))
            self._plan(stop, partial(self._stop_runner, stop))
            self._plan(start, partial(self._start_runner, stop))
        for share, policies in zip(_EDITS_AT, self._editions[1:], strict=True):
            self._plan(self._begun + length * share, partial(self._edit, policies))

    def _stop_runner(self, stop: datetime) -> None:
        self._runner_works = False
        self._checks.outage(stop)

    def _start_runner(self, stop: datetime) -> None:
        self._runner_works = True
        self._checks.outage(stop, self._now)

    def _edit(self, policies: Policies) -> None:
        self._known[policies.version] = policies
        self._edits.append(self._now)
        policies.since = self._now
        self._timer.reload(policies)
        self._replan()

    def _replan(self) -> None:
        if self._timer.replan(self._now, _REPLAN_AT_ONCE):
            self._plan(self._now + _REPLAN_EVERY, self._replan)

    # --- in the end --------------------------------------------------------------------------------------------------

    def _finish(self) -> None:
        """Everything has been delivered, and everything due until now has rung."""
        self._checks.conserved(
            {ticket.id: ticket.standing for ticket in self._desk.tickets.values()}, self._timer.kept, self._now
        )
        self._checks.told_is_stored(self._timer.kept.values(), self._now)
        self._checks.backlog(self._timer.open_resolutions, self._now)
        every = max(1, self._setting.sample_every // 5)
        for number, kept in enumerate(self._timer.kept.values()):
            self._checks.nothing_was_missed(kept, self._now)
            if number % every == 0:
                self._checks.in_any_order(kept, self._known, self._now)

    def outcome(self) -> Run:
        return Run(
            setting=self._setting,
            policies=self._timer.policies,
            begun=self._begun,
            until=self._until,
            ended=self._now,
            traffic=self._traffic,
            arrivals=self._arrivals,
            roster=self._roster,
            desk=self._desk,
            timer=self._timer,
            checks=self._checks,
            backlog=self._backlog,
            outages=self._outages,
            edits=self._edits,
            delivered=self._delivered,
        )


def _incident_day(setting: Setting) -> int:
    """A plain Wednesday of the third week, or of the last one there is."""
    return _WEEK_DAYS * min(2, setting.weeks - 1) + 2


def _editions(setting: Setting) -> tuple[Policies, Policies, Policies]:
    """The policies, and what a lead makes of them on the way: first every target is a quarter longer; then they are as
    they were, but a day is announced on which nobody works.
    """
    file, calendars = setting.file, setting.calendars
    day = setting.first + timedelta(days=round(setting.days * _HOLIDAY_AT))
    with_holiday = {
        name: replace(calendar, extra_holidays=calendar.extra_holidays | {day}) if _closes(calendar) else calendar
        for name, calendar in calendars.items()
    }
    return Policies(file, calendars), Policies(_longer(file, calendars), calendars), Policies(file, with_holiday)


def _closes(calendar: Calendar) -> bool:
    return calendar.business_time(_A_MONDAY, _A_MONDAY + _WEEK_DAYS * _DAY) < _WEEK_DAYS * _DAY


def _longer(file: PolicyFile, calendars: Mapping[str, Calendar]) -> PolicyFile:
    rules: dict[str, Any] = file.model_dump(mode="json")["rules"]
    for rule in rules.values():
        for targets in rule["targets"].values():
            for promise in filter(None, targets.values()):
                seconds = Span.parse(promise["within"]).business_seconds(calendars[rule["calendar"]])
                promise["within"] = f"{round(seconds * _LONGER)}s"
    return file.model_copy(update={"rules": PolicyFile.model_validate({"rules": rules}).rules})
