"""Staffing against published values. Each source is named where its numbers stand."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest
from pydantic import ValidationError

from services.sla_timer.domain.staffing import Load, StaffingRules, agents_needed, answering

# --- Erlang C --------------------------------------------------------------------------------------------------------

# R package ErlangC 0.1.0 on CRAN (Damonsoul, 2024), README, table `$process`: 100 calls in 30 minutes, 180 s each,
# answered within 20 s. Columns: agents, waiting, answered within, mean speed of answer, occupancy.
CRAN = [
    (11, 0.6821182, 0.3896138, 122.78127684408, 0.9090909),
    (12, 0.4493882, 0.640158, 40.4449401868444, 0.8333333),
    (13, 0.2852705, 0.7955948, 17.1162271821896, 0.7692308),
    (14, 0.1741319, 0.88835, 7.83593701177724, 0.7142857),
]


@pytest.mark.parametrize(("agents", "waiting", "within", "speed", "occupancy"), CRAN)
def test_erlang_c_is_that_of_the_package_on_cran(
    agents: int, waiting: float, within: float, speed: float, occupancy: float
) -> None:
    found = answering(Load(100, 180), agents, 20)
    assert found.waiting == pytest.approx(waiting, abs=5e-8)
    assert found.answered_within == pytest.approx(within, abs=5e-8)
    assert found.answer_seconds == pytest.approx(speed, rel=1e-12)
    assert found.wait_seconds == found.answer_seconds
    assert found.occupancy == pytest.approx(occupancy, abs=5e-8)
    assert found.abandoned == 0


def test_agents_needed_are_those_of_the_package_on_cran() -> None:
    # The same README: 80 % within 20 s take 14 agents, 20 on the schedule with a shrinkage of 0.3.
    rules = StaffingRules(
        handling=timedelta(minutes=3), answer_within=timedelta(seconds=20), share=0.8, patience=None, shrinkage=0.3
    )
    assert rules.agents_needed(100) == 14
    assert rules.agents_scheduled(14) == 20


# J. Dunlop, D. Girma, J. Irvine, "Digital mobile communications and the TETRA system", Wiley 1999, p. 424, table A.4
# (Erlang C): the traffic in erlangs at which the share of calls on so many channels has to queue.
TETRA = [(8, 0.05, 3.87), (10, 0.01, 4.08)]


@pytest.mark.parametrize(("channels", "waiting", "erlangs"), TETRA)
def test_erlang_c_is_that_of_a_published_table(channels: int, waiting: float, erlangs: float) -> None:
    rounded_down, rounded_up = (
        answering(Load(load * 30, 60), channels, 0).waiting for load in (erlangs - 0.005, erlangs + 0.005)
    )
    assert rounded_down < waiting < rounded_up


def test_an_example_beside_that_table() -> None:
    # The same page: to lower the queued calls from 5 % to 1 % takes 10 channels; of those queued, 1.6 % on 8 channels
    # and 0.22 % on 10 wait longer than a call lasts.
    assert agents_needed(Load(3.87 * 30, 60), 0, 0.99) == 10
    for channels, longer in ((8, 0.016), (10, 0.0022)):
        found = answering(Load(3.87 * 30, 60), channels, 60)
        assert (1 - found.answered_within) / found.waiting == pytest.approx(
            longer, abs=5e-5 if channels == 10 else 5e-4
        )


def test_under_erlang_c_too_few_agents_never_catch_up() -> None:
    found = answering(Load(100, 180), 10, 20)  # 10 erlangs
    assert (found.waiting, found.answered_within, found.answer_seconds) == (1.0, 0.0, math.inf)


def test_square_root_staffing_of_ten_thousand_agents() -> None:
    # S. Halfin, W. Whitt, "Heavy-traffic limits for queues with many exponential servers", 1981: with n agents and a
    # load of n - b * sqrt(n) the share that waits goes to 1 / (1 + b * Phi(b) / phi(b)).
    agents, spare = 10_000, 1.0
    density = math.exp(-(spare**2) / 2) / math.sqrt(2 * math.pi)
    distribution = (1 + math.erf(spare / math.sqrt(2))) / 2
    limit = 1 / (1 + spare * distribution / density)
    load = Load((agents - spare * math.sqrt(agents)) * 30, 60)
    assert answering(load, agents, 0).waiting == pytest.approx(limit, rel=0.01)


# --- Erlang A --------------------------------------------------------------------------------------------------------


def test_a_call_centre_with_and_without_patience() -> None:
    # O. Garnett, A. Mandelbaum, M. Reiman, "Designing a call center with impatient customers", Manufacturing & Service
    # Operations Management 4(3), 2002, table 1 (and A. Mandelbaum, S. Zeltyn, "The Palm/Erlang-A queue", 2005): 50
    # agents, 48 calls a minute, handled in a minute on average, with a patience of two minutes and without end. Given
    # are the average wait, its 90th percentile, the average queue, the occupancy, and what share abandons.
    patient = answering(Load(48 * 30, 60), 50, 58.1)
    assert round(patient.wait_seconds, 1) == 20.8
    assert round(patient.answered_within, 2) == 0.90
    assert round(patient.wait_seconds / 60 * 48) == 17
    assert round(patient.occupancy, 2) == 0.96
    impatient = answering(Load(48 * 30, 60, 120), 50, 12.5)
    assert round(impatient.wait_seconds, 1) == 3.7
    assert round(impatient.wait_seconds / 60 * 48) == 3
    assert round(impatient.occupancy, 2) == 0.93
    assert round(impatient.abandoned, 3) == 0.031
    # Leaving out the calls that would abandon does not make Erlang C right.
    without = answering(Load(48 * (1 - 0.031) * 30, 60), 50, 28.2)
    assert round(without.wait_seconds, 1) == 8.8
    assert round(without.answered_within, 2) == 0.90


# S. Hanisch, erlang-a-demo (github.com/sebastian-hanisch/erlang-a-demo), README, "Befunde": handled in 3 minutes.
# Columns: agents, load in percent of what they can do, patience in minutes, share that abandons.
HANISCH = [
    (10, 95, 5, 0.090),
    (10, 95, 1, 0.136),
    (10, 95, 30, 0.043),
    (4, 130, 5, 0.285),
    (10, 130, 5, 0.248),
    (50, 130, 5, 0.231),
    (200, 130, 5, 0.2308),
    (4, 110, 5, 0.209),
    (10, 110, 5, 0.153),
    (50, 110, 5, 0.104),
    (200, 110, 5, 0.092),
]


@pytest.mark.parametrize(("agents", "percent", "patience_minutes", "abandoned"), HANISCH)
def test_erlang_a_is_that_of_a_published_study(
    agents: int, percent: int, patience_minutes: int, abandoned: float
) -> None:
    load = Load(agents * percent / 100 * 10, 180, patience_minutes * 60)
    digits = len(f"{abandoned}") - 2
    assert answering(load, agents, 20).abandoned == pytest.approx(abandoned, abs=0.5 * 10**-digits)


@pytest.mark.parametrize(("agents", "erlang_a_minutes", "erlang_c_minutes"), [(4, 0.77, 13.4), (10, 0.45, 4.95)])
def test_waits_are_those_of_a_published_study(agents: int, erlang_a_minutes: float, erlang_c_minutes: float) -> None:
    arrivals = agents * 0.95 * 10  # the same README, 95 % load
    assert answering(Load(arrivals, 180, 300), agents, 20).wait_seconds / 60 == pytest.approx(
        erlang_a_minutes, abs=0.005
    )
    assert answering(Load(arrivals, 180), agents, 20).wait_seconds / 60 == pytest.approx(erlang_c_minutes, abs=0.05)


@pytest.mark.parametrize(("erlangs", "agents"), [(10, 15), (20, 26), (50, 57), (100, 108), (200, 209)])
def test_agents_for_one_percent_abandonment_are_those_of_a_published_study(erlangs: int, agents: int) -> None:
    load = Load(erlangs * 10, 180, 300)  # the same README
    assert answering(load, agents, 20).abandoned <= 0.01 < answering(load, agents - 1, 20).abandoned


def test_one_agent_and_equal_rates() -> None:
    # As many customers are there as in a queue with an agent for each (Poisson, mean 1); so 1/e of them abandon.
    found = answering(Load(1800, 1, 1), 1, 10)
    assert found.abandoned == pytest.approx(1 / math.e, abs=1e-12)
    assert found.waiting == pytest.approx(1 - 1 / math.e, abs=1e-12)


def test_great_loads_are_answered_for() -> None:
    load = Load(30_000, 360, 180)  # 6000 erlangs
    assert answering(load, 6500, 60).answered_within == pytest.approx(1, abs=1e-9)
    overloaded = answering(load, 3000, 60)
    assert overloaded.abandoned == pytest.approx(0.5, abs=1e-6)  # in the fluid limit: all that is too much
    assert overloaded.answered_within == pytest.approx(0, abs=1e-6)


# --- least agents, and the rules -------------------------------------------------------------------------------------


def test_nothing_needs_nobody_and_little_needs_one() -> None:
    assert StaffingRules().agents_needed(0) == 0
    assert StaffingRules().agents_scheduled(0) == 0
    assert StaffingRules().agents_needed(0.01) == 1
    assert answering(Load(0, 360, 180), 3, 60).answered_within == 1
    with pytest.raises(ValueError, match="at least one agent"):
        answering(Load(1, 360, 180), 0, 60)


def test_an_agent_who_works_on_three_chats_answers_sooner() -> None:
    one, three = StaffingRules(), StaffingRules(at_once=3)
    assert three.agents_needed(90) == StaffingRules(handling=timedelta(minutes=2)).agents_needed(90)
    assert three.agents_needed(90) < one.agents_needed(90)


@pytest.mark.parametrize(("needed", "shrinkage", "scheduled"), [(2, 0.8, 10), (1, 0.9, 10), (10, 0, 10), (10, 0.3, 15)])
def test_the_schedule_allows_for_breaks(needed: int, shrinkage: float, scheduled: int) -> None:
    assert StaffingRules(shrinkage=shrinkage).agents_scheduled(needed) == scheduled


def test_rules_are_read_as_they_are_written() -> None:
    rules = StaffingRules.model_validate(
        {"handling": "1h30m", "answer_within": "90s", "share": 0.9, "at_once": 3, "patience": None, "shrinkage": 0}
    )
    assert rules == StaffingRules(
        handling=timedelta(minutes=90),
        answer_within=timedelta(seconds=90),
        share=0.9,
        at_once=3,
        patience=None,
        shrinkage=0,
    )


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("handling", "5 minutes", "not a length of wall time like 90s"),
        ("handling", "1d", "not a length of wall time"),
        ("handling", 360, "not a length of wall time"),
        ("handling", "0s", "not between 1s and 24h"),
        ("patience", "25h", "not between 1s and 24h"),
        ("share", 1, "less than 1"),
        ("share", 0, "greater than 0"),
        ("at_once", 0.5, "greater than or equal to 1"),
        ("shrinkage", 1, "less than 1"),
        ("hurry", 1, "Extra inputs"),
    ],
)
def test_rules_that_cannot_be_are_refused(field: str, value: object, told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        StaffingRules.model_validate({field: value})
