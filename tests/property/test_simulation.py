"""A week of any seed, with every invariant checked at every step; and the same seed twice."""

from __future__ import annotations

from datetime import date

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from services.sla_timer.simulation.figures import figures_of
from services.sla_timer.simulation.world import simulate
from tests.unit.sla_timer.worlds import AUTUMN, LUNAR_NEW_YEAR, SPRING, small_world

_PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
"""A smaller seed makes no smaller world: nothing is gained by looking for one. The worlds are the same each time;
`simulate --seed` looks into others.
"""


@settings(max_examples=6, deadline=None, phases=_PHASES, derandomize=True)
@given(
    st.integers(0, 2**32),
    st.sampled_from([LUNAR_NEW_YEAR, SPRING, AUTUMN]),
    st.sampled_from([0.3, 0.6, 1.0]),
)
def test_every_invariant_holds_at_every_step(seed: int, first: date, agents_factor: float) -> None:
    run = simulate(small_world(seed=seed, first=first, agents_factor=agents_factor))
    made = run.checks.made
    assert set(made) >= {
        "each promise beside its second opinion",
        "every ticket is open or ended",
        "no alarm is lost",
        "order and repetition do not matter",
        "steps count 1, 2, 3",
        "the backlog is arrivals without what ended",
        "what is owed",
    }
    assert made["every ticket is open or ended"] == len(run.arrivals)
    targets = figures_of(run).targets
    promises = sum(len(kept.clocks) for kept in run.timer.kept.values())
    counted = (
        row.met_in_time + row.met_late + row.breached_and_open + row.not_yet_due + row.cancelled for row in targets
    )
    assert sum(counted) == promises


@settings(max_examples=1, deadline=None, phases=_PHASES, derandomize=True)
@given(st.integers(0, 2**32))
def test_the_same_seed_gives_the_same_to_the_byte(seed: int) -> None:
    first, second = (figures_of(simulate(small_world(seed=seed))) for _ in range(2))
    assert first.model_dump_json() == second.model_dump_json()
    other = figures_of(simulate(small_world(seed=seed + 1)))
    assert other.fingerprint != first.fingerprint
