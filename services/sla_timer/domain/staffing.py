"""How many agents are needed so that most customers are answered in time: Erlang C, and Erlang A where they give up.

Both models have arrivals by chance at a constant rate (Poisson), handling times that are exponential, one queue in
order of arrival. In Erlang C (M/M/n) everyone waits until answered; in Erlang A (M/M/n+M, C. Palm) each customer has
an exponential patience and leaves the queue when it ends. The formulas are those of O. Garnett, A. Mandelbaum and M.
Reiman, "Designing a call center with impatient customers", 2002, and of A. Mandelbaum and S. Zeltyn, "The Palm/Erlang-A
queue", 2005.

Nothing is raised to a power or divided by a factorial: the states of the queue are gone through one by one, and only
ratios are kept, as in the well-known recursion for Erlang B. So it holds for thousands of agents.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

HALF_HOUR: Final = timedelta(minutes=30)

_NEGLIGIBLE: Final = 1e-13
_SHORTEST: Final = timedelta(seconds=1)
_LONGEST: Final = timedelta(hours=24)
_ROUNDING: Final = 1e-9  # so that 2 / (1 - 0.8) is 10, whatever floating point makes of it


@dataclass(frozen=True, slots=True)
class Load:
    """What comes to a group of agents. Patience: none, when nobody gives up."""

    arrivals_per_half_hour: float
    handling_seconds: float
    patience_seconds: float | None = None

    @property
    def erlangs(self) -> float:
        """The agents who are busy on average when everyone is answered."""
        return self.arrivals_per_half_hour * self.handling_seconds / HALF_HOUR.total_seconds()


@dataclass(frozen=True, slots=True)
class Answering:
    """How a number of agents copes with a load, in the long run.

    `waiting`: the share of arrivals that find no agent free. `answered_within`: the share of all arrivals that are
    answered within the asked time; whoever gives up was not answered. `answer_seconds`: the mean speed of answer, of
    those answered. `wait_seconds`: the mean wait of all, until answered or given up. `abandoned`: the share that gives
    up. `occupancy`: the share of their time that agents are busy.

    Under Erlang C, agents who have no less to do than they can wait for nothing: all arrivals wait without end.
    """

    waiting: float
    answered_within: float
    answer_seconds: float
    wait_seconds: float
    abandoned: float
    occupancy: float


def answering(load: Load, agents: int, within_seconds: float) -> Answering:
    """Raises ValueError for less than one agent."""
    if agents < 1:
        raise ValueError("how a load is answered can be said of at least one agent")
    if load.erlangs == 0:
        return Answering(0.0, 1.0, 0.0, 0.0, 0.0, 0.0)
    all_busy = _all_busy(load.erlangs, agents)
    if load.patience_seconds is None:
        return _erlang_c(load, agents, within_seconds, all_busy)
    return _erlang_a(load, load.patience_seconds, agents, within_seconds, all_busy)


def agents_needed(load: Load, within_seconds: float, share: float) -> int:
    """The least agents who answer at least `share` (0 < share < 1) of all arrivals within the time."""
    if load.erlangs == 0:
        return 0

    def enough(agents: int) -> bool:
        return answering(load, agents, within_seconds).answered_within >= share

    # Fewer cannot answer that many at all, however long customers wait.
    low = high = max(1, math.ceil(load.erlangs * share))
    step = 1
    while not enough(high):
        low, high, step = high + 1, high + step, step * 2
    return low + bisect_left(range(low, high + 1), True, key=enough)


def _all_busy(erlangs: float, agents: int) -> float:
    """Erlang B: the probability that all are busy in a system without a queue. Akimaru and Kawashima's recursion."""
    busy = 1.0
    for number in range(1, agents + 1):
        busy = erlangs * busy / (number + erlangs * busy)
    return busy


def _erlang_c(load: Load, agents: int, within_seconds: float, all_busy: float) -> Answering:
    spare = agents - load.erlangs
    if spare <= 0:
        return Answering(1.0, 0.0, math.inf, math.inf, 0.0, 1.0)
    waiting = agents * all_busy / (spare + load.erlangs * all_busy)
    late = waiting * math.exp(-spare * within_seconds / load.handling_seconds)
    mean = waiting * load.handling_seconds / spare
    return Answering(waiting, 1.0 - late, mean, mean, 0.0, load.erlangs / agents)


def _erlang_a(load: Load, patience_seconds: float, agents: int, within_seconds: float, all_busy: float) -> Answering:
    """The states with 0, 1, 2... customers in the queue, one after the other.

    Time is counted in handling times: an agent is free again at rate 1, a waiting customer gives up at rate `leaving`.
    An arrival that finds j customers in the queue is answered when those j and one agent have gone, if it has not given
    up: with probability n / (n + (j + 1) * leaving). Its wait, had it all patience, is a sum of exponentials whose
    rates rise by `leaving`; exp(-leaving * wait) then has the distribution Beta(n / leaving, j + 1), whose distribution
    function is a sum of negative binomial terms, one more for each j.
    """
    leaving = load.handling_seconds / patience_seconds
    within = within_seconds / load.handling_seconds
    erlangs = load.erlangs
    # Of the state at hand: its probability, were there no states after it. All sums are kept on that footing.
    last = all_busy
    waiting, queue, in_time, answered, answer_time = all_busy, 0.0, 0.0, 0.0, 0.0
    log_term = -(agents + leaving) * within  # of the negative binomial
    left_by_then = -math.expm1(-leaving * within)
    too_late = 0.0
    until_answered = 0.0  # handling times until an arrival at this state is answered, if it is
    in_queue = 0
    while True:
        # Those who arrive at this state.
        too_late += math.exp(log_term)
        until_answered += 1.0 / (agents + (in_queue + 1) * leaving)
        stays = last * agents / (agents + (in_queue + 1) * leaving)
        answered += stays
        in_time += stays * max(0.0, 1.0 - too_late)
        answer_time += stays * until_answered
        # On to the next state.
        in_queue += 1
        if left_by_then > 0:
            log_term += math.log(left_by_then * (agents / leaving + in_queue) / in_queue)
        else:
            log_term = -math.inf
        ratio = erlangs / (agents + in_queue * leaving)
        last = ratio * last / (1.0 + ratio * last)
        before = 1.0 - last
        waiting, queue = waiting * before + last, queue * before + in_queue * last
        in_time, answered, answer_time = in_time * before, answered * before, answer_time * before
        # What all later states could add is less than a geometric sum.
        if ratio < 1.0 and last * (in_queue + 1.0 / (1.0 - ratio)) / (1.0 - ratio) < _NEGLIGIBLE:
            break
    at_once = 1.0 - waiting
    wait_seconds = queue / erlangs * load.handling_seconds
    abandoned = min(1.0, queue * leaving / erlangs)
    return Answering(
        waiting=waiting,
        answered_within=at_once + in_time,
        answer_seconds=answer_time / (at_once + answered) * load.handling_seconds,
        wait_seconds=wait_seconds,
        abandoned=abandoned,
        occupancy=erlangs * (1.0 - abandoned) / agents,
    )


# --- from YAML -------------------------------------------------------------------------------------------------------

_WALL_TIME: Final = re.compile(r"(?:(\d+)h)?\s*(?:(\d+)m)?\s*(?:(\d+)s)?")


def _wall_time(value: object) -> timedelta:
    if isinstance(value, timedelta):
        return value
    found = _WALL_TIME.fullmatch(value.strip()) if isinstance(value, str) and value.strip() else None
    if not found:
        raise ValueError(f"{value!r} is not a length of wall time like 90s, 6m or 1h30m")
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    length = timedelta(hours=hours, minutes=minutes, seconds=seconds)
    if not _SHORTEST <= length <= _LONGEST:
        raise ValueError(f"{value!r} is not between 1s and 24h")
    return length


def _wall_time_or_none(value: object) -> timedelta | None:
    return None if value is None else _wall_time(value)


_WallTime = Annotated[timedelta, BeforeValidator(_wall_time)]


class StaffingRules(BaseModel):
    """One channel of `staffing` in `sla.yaml`: what its customers bring, and how well they are to be answered.

    Lengths are wall time. `at_once`: contacts that one agent works on at the same time, as in chats; each is then done
    in that fraction of the handling time, as far as those who wait can tell. `patience`: how long customers wait for
    an answer on average before they give up; null where nobody does.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    handling: _WallTime = timedelta(minutes=6)
    answer_within: _WallTime = timedelta(seconds=60)
    share: Annotated[float, Field(gt=0, lt=1, description="of all arrivals, to be answered within that time")] = 0.8
    at_once: Annotated[float, Field(ge=1, le=20)] = 1
    patience: Annotated[timedelta | None, BeforeValidator(_wall_time_or_none)] = timedelta(minutes=3)
    shrinkage: Annotated[float, Field(ge=0, lt=1, description="of paid time: breaks, training, illness")] = 0.3

    def load(self, arrivals_per_half_hour: float) -> Load:
        return Load(
            arrivals_per_half_hour,
            self.handling.total_seconds() / self.at_once,
            None if self.patience is None else self.patience.total_seconds(),
        )

    def agents_needed(self, arrivals_per_half_hour: float) -> int:
        """Agents at work at once."""
        return agents_needed(self.load(arrivals_per_half_hour), self.answer_within.total_seconds(), self.share)

    def agents_scheduled(self, needed: int) -> int:
        """So many on the schedule make so many at work."""
        return math.ceil(needed / (1 - self.shrinkage) - _ROUNDING)
