"""Staffing against oracles that work another way: exact fractions, the stationary distribution written out, and the
chance of one customer's being answered, followed through time.
"""

from __future__ import annotations

import math
import random
from bisect import insort
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.sla_timer.domain.staffing import Load, agents_needed, answering

AGENTS = st.integers(1, 12)
ERLANGS = st.floats(0.05, 15)
PATIENCE = st.floats(0.2, 8)  # in handling times
WITHIN = st.floats(0, 2)  # in handling times


def load(erlangs: float, patience: float | None = None) -> Load:
    """Handled in 60 s."""
    return Load(erlangs * 30, 60, None if patience is None else patience * 60)


# --- Erlang C --------------------------------------------------------------------------------------------------------


@given(agents=AGENTS, tenths=st.integers(1, 119))
def test_erlang_c_is_the_textbook_formula(agents: int, tenths: int) -> None:
    erlangs = Fraction(tenths, 10)
    found = answering(load(float(erlangs)), agents, 0)
    if erlangs >= agents:
        assert found.waiting == 1
        return
    busy = erlangs**agents / math.factorial(agents) * agents / (agents - erlangs)
    free = sum(erlangs**number / Fraction(math.factorial(number)) for number in range(agents))
    assert found.waiting == pytest.approx(float(busy / (busy + free)), rel=1e-12)


# --- Erlang A --------------------------------------------------------------------------------------------------------


def stationary(agents: int, erlangs: float, leaving: float, states: int = 400) -> list[float]:
    """By number of customers, from the balance between each state and the next."""
    logs = [0.0]
    for number in range(1, states):
        logs.append(logs[-1] + math.log(erlangs / (min(number, agents) + max(0, number - agents) * leaving)))
    top = max(logs)
    weights = [math.exp(log - top) for log in logs]
    return [weight / math.fsum(weights) for weight in weights]


@given(agents=AGENTS, erlangs=ERLANGS, patience=PATIENCE)
def test_erlang_a_is_its_stationary_distribution(agents: int, erlangs: float, patience: float) -> None:
    distribution = stationary(agents, erlangs, 1 / patience)
    waiting = math.fsum(distribution[agents:])
    queue = math.fsum(max(0, number - agents) * share for number, share in enumerate(distribution))
    busy = math.fsum(min(number, agents) * share for number, share in enumerate(distribution))
    found = answering(load(erlangs, patience), agents, 20)
    assert found.waiting == pytest.approx(waiting, rel=1e-9, abs=1e-12)
    assert found.wait_seconds == pytest.approx(queue / erlangs * 60, rel=1e-9, abs=1e-10)  # Little
    assert found.abandoned == pytest.approx(queue / patience / erlangs, rel=1e-9, abs=1e-12)
    assert found.occupancy == pytest.approx(busy / agents, rel=1e-9)


def answered_by(ahead: int, agents: int, leaving: float, within: float) -> float:
    """The chance that a customer with so many before it in the queue is answered by then, by uniformization: all that
    happens is spread over one Poisson stream of events, and each event is played.
    """
    rate = agents + (ahead + 1) * leaving
    places = [0.0] * (ahead + 1)  # by how many are ahead
    places[ahead] = 1.0
    answered = total = 0.0
    chance = math.exp(-rate * within)  # of so many events
    for number in range(1, 400):
        total += chance * answered
        following = [0.0] * (ahead + 1)
        for place, probability in enumerate(places):
            goes_on = agents + place * leaving
            if place:
                following[place - 1] += probability * goes_on / rate
            else:
                answered += probability * goes_on / rate
            following[place] += probability * (rate - goes_on - leaving) / rate  # what is left: it gives up
        places = following
        chance *= rate * within / number
    return total


@settings(max_examples=25, deadline=None)
@given(agents=st.integers(1, 6), erlangs=st.floats(0.05, 7), patience=st.floats(0.2, 3), within=WITHIN)
def test_the_share_answered_within_is_that_of_each_customer_followed(
    agents: int, erlangs: float, patience: float, within: float
) -> None:
    distribution = stationary(agents, erlangs, 1 / patience)
    by_then = math.fsum(distribution[:agents]) + math.fsum(
        share * answered_by(number - agents, agents, 1 / patience, within)
        for number, share in enumerate(distribution)
        if number >= agents and share > 1e-11
    )
    found = answering(load(erlangs, patience), agents, within * 60)
    assert found.answered_within == pytest.approx(by_then, abs=1e-8)


@pytest.mark.parametrize(("agents", "erlangs", "patience", "within"), [(10, 9.5, 5 / 3, 0.2), (4, 5.2, 0.5, 0.1)])
def test_a_simulated_queue_answers_as_many(agents: int, erlangs: float, patience: float, within: float) -> None:
    chance = random.Random(20261125)
    now, free_at = 0.0, [0.0] * agents
    waits: list[float] = []
    abandoned = in_time = 0
    customers = 60_000
    for _ in range(customers):
        now += chance.expovariate(erlangs)
        wait = max(0.0, free_at[0] - now)
        if chance.expovariate(1 / patience) < wait:  # it leaves before its turn, and takes up no agent
            abandoned += 1
            continue
        del free_at[0]
        insort(free_at, now + wait + chance.expovariate(1.0))
        waits.append(wait)
        in_time += wait <= within
    found = answering(load(erlangs, patience), agents, within * 60)
    # Waits of neighbours are alike, so the error of a share is a few times that of as many coins.
    near = 5 * 0.5 / math.sqrt(customers)
    assert in_time / customers == pytest.approx(found.answered_within, abs=near)
    assert abandoned / customers == pytest.approx(found.abandoned, abs=near)
    assert sum(waits) / len(waits) * 60 == pytest.approx(found.answer_seconds, rel=0.03)


@given(agents=st.integers(1, 300), load_factor=st.floats(0.3, 1.5), patience=PATIENCE)
def test_an_identity_of_garnett_mandelbaum_and_reiman(agents: int, load_factor: float, patience: float) -> None:
    # "Designing a call center with impatient customers", 2002, p. 226: what abandons, by what waits and by Erlang B.
    erlangs = load_factor * agents
    found = answering(load(erlangs, patience), agents, 0)
    lost = 1.0
    for number in range(1, agents + 1):
        lost = erlangs * lost / (number + erlangs * lost)
    ratio = (lost / load_factor) / ((1 - lost) / (1 - found.waiting) - 1 + lost) if found.waiting < 1 - 1e-6 else None
    if ratio is not None and found.waiting > 1e-6:
        assert found.abandoned == pytest.approx((1 - 1 / load_factor + ratio) * found.waiting, rel=1e-5, abs=1e-7)
    assert found.abandoned <= lost + 1e-12  # p. 223: never more than a system without a queue turns away


@given(agents=st.integers(1, 40), erlangs=st.floats(0.1, 60))
def test_with_patience_as_long_as_handling_there_are_poisson_many(agents: int, erlangs: float) -> None:
    # A. Mandelbaum, "Service engineering", class 13 (Technion): each customer goes at the same rate, served or not.
    fewer = math.fsum(
        math.exp(number * math.log(erlangs) - erlangs - math.lgamma(number + 1)) for number in range(agents)
    )
    assert answering(load(erlangs, 1.0), agents, 0).waiting == pytest.approx(1 - fewer, abs=1e-10)


@given(agents=st.integers(1, 30), erlangs=st.floats(0.1, 29), within=WITHIN)
def test_endless_patience_is_erlang_c(agents: int, erlangs: float, within: float) -> None:
    if erlangs < 0.9 * agents:
        patient = answering(load(erlangs), agents, within * 60)
        nearly = answering(load(erlangs, 1e7), agents, within * 60)
        assert nearly.answered_within == pytest.approx(patient.answered_within, abs=1e-4)
        assert nearly.answer_seconds == pytest.approx(patient.answer_seconds, rel=1e-3, abs=1e-6)


# --- least agents ----------------------------------------------------------------------------------------------------


@given(
    erlangs=st.floats(0.01, 200),
    patience=st.none() | PATIENCE,
    within=WITHIN,
    share=st.floats(0.05, 0.99),
)
def test_no_fewer_agents_would_do(erlangs: float, patience: float | None, within: float, share: float) -> None:
    agents = agents_needed(load(erlangs, patience), within * 60, share)
    assert answering(load(erlangs, patience), agents, within * 60).answered_within >= share
    if agents > 1:
        assert answering(load(erlangs, patience), agents - 1, within * 60).answered_within < share


@given(erlangs=st.floats(0.1, 50), patience=st.none() | PATIENCE, agents=AGENTS, within=WITHIN)
def test_one_more_agent_never_makes_it_worse(
    erlangs: float, patience: float | None, agents: int, within: float
) -> None:
    fewer, more = (answering(load(erlangs, patience), count, within * 60) for count in (agents, agents + 1))
    assert more.answered_within >= fewer.answered_within - 1e-9
    assert more.abandoned <= fewer.abandoned + 1e-9
    assert more.waiting <= fewer.waiting + 1e-9
