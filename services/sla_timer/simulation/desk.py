"""Who answers and who asks: agents on shifts, and customers who answer, thank, lose patience or go silent.

An agent takes the ticket whose turn it is, of the queues of his group and of channels that are open: each waits for its
turn from when it came, urgent ones are let past for a while. Handling it takes its time. Then he replies and waits for
the customer, or resolves, or looks into it later; or he puts right what the classifier got wrong, or merges the ticket
into another of the same brand.
"""

from __future__ import annotations

import math
import random
import uuid
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from typing import Final, Protocol

from services.sla_timer.domain.clocks import Ticket
from services.sla_timer.domain.policies import ANY, Policies
from services.sla_timer.domain.rules import What
from services.sla_timer.domain.staffing import HALF_HOUR, Load, agents_needed
from services.sla_timer.simulation.invariants import Standing
from services.sla_timer.simulation.traffic import (
    CHANNELS,
    Arrival,
    Traffic,
    expected_arrivals,
    share_of_tickets,
)
from shared.calendars import Calendar
from shared.events import Target
from shared.taxonomy import CATEGORIES, Category, Channel, Priority, Queue

_DAY: Final = timedelta(days=1)
_SECOND: Final = timedelta(seconds=1)
_MINUTE: Final = timedelta(minutes=1)
_HOUR: Final = timedelta(hours=1)

# --- who works when --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Group:
    """Agents who serve the same queues in the same hours of the home zone; above 24: of the next day."""

    name: str
    queues: frozenset[Queue]
    from_hour: int
    to_hour: int


_MONEY: Final = frozenset({Queue.PAYMENTS, Queue.REFUNDS, Queue.CREDIT})
_OTHERS: Final = frozenset(Queue) - _MONEY
GROUPS: Final = (
    Group("money early", _MONEY, 8, 16),
    Group("money late", _MONEY, 14, 23),
    Group("others early", _OTHERS, 8, 16),
    Group("others late", _OTHERS, 14, 23),
    Group("night", frozenset(Queue), 23, 32),
)
_OVERLAP_HOURS: Final = (14, 16)  # early and late share the work
_CONTACTS_PER_TICKET: Final = 2.0  # how often an agent takes a ticket up: for planning; the table says how often it was
_SPARE: Final = 1.25
_LATER_CONTACT: Final = 0.7  # of the time that a ticket's first contact takes


@dataclass(frozen=True, slots=True)
class Shift:
    group: Group
    start: datetime
    end: datetime
    agents: int


def pooled_need(contacts: Mapping[Channel, float], policies: Policies) -> int:
    """Agents at work at once for so many contacts in a half-hour, when each of them answers all channels (Erlang C).

    Handling time, time to answer and share are those of the channels' `staffing`, weighted by their contacts.
    """
    total = sum(contacts.values())
    if not total:
        return 0
    handling = within = share = 0.0
    for channel, count in contacts.items():
        rules = policies.staffing_of(channel)
        handling += count / total * rules.load(count).handling_seconds
        within += count / total * rules.answer_within.total_seconds()
        share += count / total * rules.share
    return agents_needed(Load(total, handling), within, share)


def works(channel: Channel, brand: str, at: datetime, policies: Policies) -> bool:
    """On the calendar on which an ordinary ticket's first response is counted."""
    terms = policies.terms(brand, channel, None, policies.provisional_priority, Target.FIRST_RESPONSE)
    return terms is None or policies.calendar(terms).is_open(at)


def roster(traffic: Traffic, policies: Policies, first: date, days: int, factor: float) -> list[Shift]:
    """Planned as a lead would who knows what is usual: the half-hours of a shift have the agents they need on average,
    and a quarter more, times `factor`. What rounding takes from one day it gives to the next. Somebody is always there,
    unless fewer than planned are asked for.
    """
    home = policies.zone_calendar(ANY)
    expected: dict[datetime, float] = defaultdict(float)
    for brand in traffic.brands:
        for start, mean in expected_arrivals(traffic, policies, brand, first - _DAY, days + 3).items():
            expected[start] += mean
    carried: dict[Group, float] = defaultdict(float)
    least = 1 if factor >= 1 else 0
    shifts = []
    for number in range(-1, days):
        day = first + number * _DAY
        for group in GROUPS:
            start, end = (_at_hour(home, day, hour) for hour in (group.from_hour, group.to_hour))
            wanted = factor * _SPARE * _mean_need(group, start, end, expected, policies) + carried[group]
            agents = max(least, math.floor(wanted + 0.5))
            carried[group] = max(wanted - agents, -0.5)
            shifts.append(Shift(group, start, end, agents))
    return shifts


def _mean_need(
    group: Group, start: datetime, end: datetime, expected: Mapping[datetime, float], policies: Policies
) -> float:
    needs = []
    at = start
    home = policies.zone_calendar(ANY)
    while at < end:
        part = share_of_tickets(group.queues) * _CONTACTS_PER_TICKET * expected.get(at, 0.0)
        if _OVERLAP_HOURS[0] <= home.local(at).hour < _OVERLAP_HOURS[1]:
            part /= 2
        contacts = {channel: part * weight for channel, weight in CHANNELS.items() if works(channel, ANY, at, policies)}
        needs.append(pooled_need(contacts, policies))
        at += HALF_HOUR
    return sum(needs) / len(needs)


def _at_hour(calendar: Calendar, day: date, hour: int) -> datetime:
    return calendar.at_wall(datetime.combine(day + hour // 24 * _DAY, time(hour % 24)))


# --- what happens to a ticket ----------------------------------------------------------------------------------------

_LIVE: Final = frozenset({Channel.PHONE, Channel.APP_CHAT, Channel.WHATSAPP, Channel.TELEGRAM})
_PATIENCE: Final = {  # how long a ticket lets later, more urgent ones pass
    Priority.P1: timedelta(0),
    Priority.P2: 15 * _MINUTE,
    Priority.P3: 2 * _HOUR,
    Priority.P4: 8 * _HOUR,
}
_MISTAKEN: Final = 0.10  # of the classifier's decisions
_CLASSIFIER_DOWN: Final = 0.01
_ANSWERED_AT_ONCE: Final = 0.95  # of live contacts: who takes the call or the chat says so
_MERGED: Final = 0.03
_WAITS_WITHOUT_REPLY: Final = 0.03
_JUDGED_ANEW: Final = 0.04  # an agent finds it more, or less, urgent
_RESOLVED: Final = 0.58
_WAITING: Final = 0.36  # the rest is looked into later
_WRITES_AGAIN: Final = 0.12  # has patience no longer
_ANSWERS: Final = 0.70
_THANKS_WHILE_WAITED_FOR: Final = 0.08  # the rest goes silent
_SILENT_HOURS: Final = 48  # until the ticket is resolved by itself
_COMES_BACK: Final = 0.08
_THANKS: Final = 0.15
_REOPENED_BY_AGENT: Final = 0.02
_WRITES_INTO_MERGED: Final = 0.10
_ROUTED_ANEW: Final = 0.10  # of a customer's further messages


@dataclass(slots=True, eq=False)
class DeskTicket:
    """A ticket as the desk has it. `true`: what it really is. `turn` counts the changes of its standing."""

    number: int
    ticket: Ticket
    true: Arrival
    queue: Queue = Queue.GENERAL
    priority: Priority = Priority.P3
    category: Category | None = None
    revision: int = 0
    standing: Standing = Standing.OPEN
    enqueued_at: datetime | None = None
    in_hand: bool = False
    contacts: int = 0
    turn: int = 0
    latest: datetime = field(init=False)
    """The time of the last that happened to it."""

    def __post_init__(self) -> None:
        self.latest = self.ticket.opened_at

    @property
    def id(self) -> uuid.UUID:
        return self.ticket.id

    @property
    def has_ended(self) -> bool:
        return self.standing in (Standing.RESOLVED, Standing.MERGED)

    @property
    def rank(self) -> tuple[datetime, int]:
        assert self.enqueued_at is not None
        return (self.enqueued_at + _PATIENCE[self.priority], self.number)

    def stands(self, standing: Standing) -> None:
        if standing is not self.standing:
            self.turn += 1
        self.standing = standing


@dataclass(slots=True)
class Agent:
    group: Group
    until: datetime
    is_busy: bool = False


@dataclass(frozen=True, slots=True)
class Contact:
    """An agent takes a ticket up."""

    at: datetime
    channel: Channel
    group: str


class Surroundings(Protocol):
    """What the desk is told and can do in its world."""

    @property
    def now(self) -> datetime: ...
    @property
    def policies(self) -> Policies: ...
    def later(self, delay: timedelta, act: Callable[[], None]) -> None: ...
    def opened(self, ticket: DeskTicket) -> None: ...
    def happened(
        self,
        ticket: DeskTicket,
        what: What,
        queue: Queue | None = None,
        priority: Priority | None = None,
        category: Category | None = None,
        group: Group | None = None,
    ) -> None: ...


class Desk:
    """`chance` decides what everybody does."""

    def __init__(self, world: Surroundings, chance: random.Random) -> None:
        self.tickets: dict[uuid.UUID, DeskTicket] = {}
        self.contacts: list[Contact] = []
        self.messages = 0
        self._world = world
        self._chance = chance
        self._agents: list[Agent] = []
        self._waiting: dict[int, DeskTicket] = {}

    # --- shifts ------------------------------------------------------------------------------------------------------

    def begin(self, shift: Shift) -> None:
        self._agents = [agent for agent in self._agents if agent.until > self._world.now or agent.is_busy]
        self._agents += [Agent(shift.group, shift.end) for _ in range(shift.agents)]
        self.go_on()

    def go_on(self) -> None:
        """Everyone who is free takes what is his to take."""
        for agent in self._agents:
            if not self._waiting:
                return
            if not agent.is_busy and agent.until > self._world.now:
                found = self._next_for(agent)
                if found is not None:
                    self._take_up(agent, found)

    def _next_for(self, agent: Agent) -> DeskTicket | None:
        now, policies = self._world.now, self._world.policies
        is_open: dict[tuple[str, Channel, Category | None, Priority], bool] = {}
        mine = (ticket for ticket in self._waiting.values() if ticket.queue in agent.group.queues)
        for ticket in sorted(mine, key=lambda ticket: ticket.rank):
            key = (ticket.ticket.brand, ticket.ticket.channel, ticket.category, ticket.priority)
            if key not in is_open:
                terms = policies.terms(*key, Target.FIRST_RESPONSE)
                is_open[key] = terms is None or policies.calendar(terms).is_open(now)
            if is_open[key]:
                return ticket
        return None

    def _enqueue(self, ticket: DeskTicket) -> None:
        if ticket.in_hand or ticket.revision == 0 or ticket.has_ended:
            return
        if ticket.number not in self._waiting:
            ticket.enqueued_at = ticket.enqueued_at or self._world.now
            self._waiting[ticket.number] = ticket
        self.go_on()

    def _take_up(self, agent: Agent, ticket: DeskTicket) -> None:
        del self._waiting[ticket.number]
        ticket.in_hand = agent.is_busy = True
        ticket.enqueued_at = None
        ticket.contacts += 1
        channel = ticket.ticket.channel
        self.contacts.append(Contact(self._world.now, channel, agent.group.name))
        if channel in _LIVE and self._luck(_ANSWERED_AT_ONCE):
            self._world.later(self._between(2, 15) * _SECOND, lambda: self._answered_at_once(agent, ticket))
        mean = self._world.policies.staffing_of(channel).load(0).handling_seconds
        if ticket.contacts > 1:
            mean *= _LATER_CONTACT
        took = max(20.0, self._chance.lognormvariate(math.log(mean) - 0.125, 0.5))
        self._world.later(took * _SECOND, lambda: self._finish(agent, ticket))

    def _answered_at_once(self, agent: Agent, ticket: DeskTicket) -> None:
        if ticket.in_hand:
            self._world.happened(ticket, What.REPLIED, group=agent.group)

    # --- what agents do ----------------------------------------------------------------------------------------------

    def _finish(self, agent: Agent, ticket: DeskTicket) -> None:
        ticket.in_hand = agent.is_busy = False
        if not ticket.has_ended:
            self._deal_with(agent, ticket)
        self.go_on()

    def _deal_with(self, agent: Agent, ticket: DeskTicket) -> None:
        true = ticket.true
        if (ticket.queue, ticket.priority) != (true.queue, true.priority) and self._luck(0.7):
            self._correct(agent, ticket, true.priority, true.queue, true.category)
            if ticket.queue not in agent.group.queues:
                self._enqueue(ticket)
                return
        elif self._luck(_JUDGED_ANEW):
            self._correct(agent, ticket, ticket.priority.raised(self._chance.choice((-1, 1))), None, None)
        if self._luck(_MERGED) and self._merge(agent, ticket):
            return
        if self._luck(_WAITS_WITHOUT_REPLY):
            self._wait(agent, ticket)
            return
        self._world.happened(ticket, What.REPLIED, group=agent.group)
        turn, luck = ticket.turn, self._chance.random()
        if luck < _RESOLVED:
            self._soon(ticket, turn, lambda: self._resolve(agent.group, ticket))
        elif luck < _RESOLVED + _WAITING:
            self._soon(ticket, turn, lambda: self._wait(agent, ticket))
        else:
            self._world.later(self._between(0.3, 5) * _HOUR, lambda: self._look_into(ticket))

    def _look_into(self, ticket: DeskTicket) -> None:
        if ticket.standing is Standing.OPEN:
            self._enqueue(ticket)

    def _soon(self, ticket: DeskTicket, turn: int, act: Callable[[], None]) -> None:
        """A few seconds on, unless something else has come of the ticket by then."""
        self._world.later(self._between(1, 15) * _SECOND, lambda: act() if ticket.turn == turn else None)

    def _correct(
        self, agent: Agent, ticket: DeskTicket, priority: Priority, queue: Queue | None, category: Category | None
    ) -> None:
        ticket.priority, ticket.queue, ticket.category = priority, queue or ticket.queue, category or ticket.category
        self._world.happened(ticket, What.CORRECTED, queue, priority, category, agent.group)

    def _merge(self, agent: Agent, ticket: DeskTicket) -> bool:
        others = [
            other
            for other in self._waiting.values()
            if other is not ticket and other.ticket.brand == ticket.ticket.brand and not other.has_ended
        ]
        if not others:
            return False
        other = self._chance.choice(others)
        ticket.stands(Standing.MERGED)
        self._world.happened(ticket, What.MERGED, group=agent.group)
        self._world.happened(other, What.TOOK_OVER)
        other.stands(Standing.OPEN)
        if self._luck(_WRITES_INTO_MERGED):
            self._customer(ticket, self._between(0.2, 20) * _HOUR, self._writes)
        return True

    def _wait(self, agent: Agent, ticket: DeskTicket) -> None:
        self._leave_queue(ticket)
        ticket.stands(Standing.WAITING)
        self._world.happened(ticket, What.WAITING, group=agent.group)
        luck = self._chance.random()
        if luck < _ANSWERS:
            self._customer(ticket, self._thinking(ticket), self._writes)
        elif luck < _ANSWERS + _THANKS_WHILE_WAITED_FOR:
            self._customer(ticket, self._thinking(ticket), self._thanks)
        else:
            self._customer(ticket, _SILENT_HOURS * _HOUR, lambda silent: self._resolve(None, silent))

    def _resolve(self, group: Group | None, ticket: DeskTicket) -> None:
        self._leave_queue(ticket)
        ticket.stands(Standing.RESOLVED)
        self._world.happened(ticket, What.RESOLVED, group=group)
        if self._luck(_THANKS):
            self._customer(ticket, self._thinking(ticket), self._thanks)
        if self._luck(_COMES_BACK):
            self._customer(ticket, self._between(0.2, 60) * _HOUR, self._writes)
        elif self._luck(_REOPENED_BY_AGENT):
            self._customer(ticket, self._between(0.2, 20) * _HOUR, self._reopens)

    def _reopens(self, ticket: DeskTicket) -> None:
        ticket.stands(Standing.OPEN)
        self._world.happened(ticket, What.REOPENED)
        self._enqueue(ticket)

    def _leave_queue(self, ticket: DeskTicket) -> None:
        self._waiting.pop(ticket.number, None)
        ticket.enqueued_at = None

    # --- what customers do -------------------------------------------------------------------------------------------

    def open(self, arrival: Arrival, ticket: Ticket) -> None:
        opened = DeskTicket(len(self.tickets), ticket, arrival)
        self.tickets[ticket.id] = opened
        self.messages += 1
        self._world.opened(opened)
        down = self._luck(_CLASSIFIER_DOWN)
        delay = self._between(60, 1500) if down else self._between(0.2, 2.0)
        self._world.later(delay * _SECOND, lambda: self._route(opened))
        if self._luck(_WRITES_AGAIN):
            self._customer(opened, self._between(0.05, 6) * _HOUR, self._writes)

    def _route(self, ticket: DeskTicket) -> None:
        """The classifier decides, mostly right."""
        category, priority = ticket.true.category, ticket.true.priority
        if self._luck(_MISTAKEN):
            category = self._chance.choice(list(Category))
            priority = CATEGORIES[category].priority
        ticket.revision += 1
        ticket.category, ticket.priority, ticket.queue = category, priority, CATEGORIES[category].queue
        self._world.happened(ticket, What.ROUTED, ticket.queue, priority, category)
        if ticket.revision == 1:  # now it can be told what is missing
            self._world.happened(ticket, What.ACKNOWLEDGED)
        self._enqueue(ticket)

    def _customer(self, ticket: DeskTicket, delay: timedelta, act: Callable[[DeskTicket], None]) -> None:
        """He does so after a while, unless the ticket stands otherwise by then."""
        turn = ticket.turn
        self._world.later(delay, lambda: act(ticket) if ticket.turn == turn else None)

    def _writes(self, ticket: DeskTicket) -> None:
        self.messages += 1
        ticket.stands(Standing.OPEN)
        self._world.happened(ticket, What.CUSTOMER_WROTE)
        if ticket.revision and self._luck(_ROUTED_ANEW):
            self._world.later(self._between(0.2, 2.0) * _SECOND, lambda: self._route(ticket))
        self._enqueue(ticket)

    def _thanks(self, ticket: DeskTicket) -> None:
        """It takes up no ticket that is resolved; but it is the answer that was waited for."""
        self.messages += 1
        self._world.happened(ticket, What.CUSTOMER_THANKED)
        if ticket.standing is Standing.WAITING:
            ticket.stands(Standing.OPEN)
            self._enqueue(ticket)

    def _thinking(self, ticket: DeskTicket) -> timedelta:
        median = 4 * _MINUTE if ticket.ticket.channel in _LIVE else 4 * _HOUR
        return median * self._chance.lognormvariate(0, 1)

    # --- chance ------------------------------------------------------------------------------------------------------

    def _luck(self, share: float) -> bool:
        return self._chance.random() < share

    def _between(self, low: float, high: float) -> float:
        return self._chance.uniform(low, high)


def at_work(shifts: Sequence[Shift], at: datetime) -> int:
    return sum(shift.agents for shift in shifts if shift.start <= at < shift.end)
