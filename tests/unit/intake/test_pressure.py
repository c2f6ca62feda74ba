"""When gateways take in more, and when senders are told to try again."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import Any

import pytest

from services.intake.pressure import Pressure
from shared.http import Problem


class _Counting:
    """Stands for the database: it only counts what is in the outbox."""

    def __init__(self) -> None:
        self.waiting = 0

    @asynccontextmanager
    async def transaction(self) -> Any:
        yield self

    async def scalar(self, _: Any, parameters: dict[str, int]) -> int:
        return min(self.waiting, parameters["most"] + 1)


class _World:
    def __init__(self, *, accept_in_outage_seconds: float = 0.0) -> None:
        self.kafka_answers = True
        self.now = 0.0
        self.database = _Counting()
        self.pressure = Pressure(
            self._ping,
            self.database,  # type: ignore[arg-type]
            accept_in_outage_seconds=accept_in_outage_seconds,
            outbox_most=10,
            clock=lambda: self.now,
        )

    async def _ping(self, _: float) -> bool:
        return self.kafka_answers

    def refused_with(self) -> Problem:
        with pytest.raises(Problem) as refused:
            self.pressure.check()
        assert refused.value.status == 503
        assert int(refused.value.headers["Retry-After"]) > 0
        assert self.pressure.why_not() in refused.value.detail.split("; ")
        return refused.value


async def test_everything_is_taken_in_until_it_was_measured_and_while_kafka_answers() -> None:
    world = _World()
    world.pressure.check()
    await world.pressure.measure()
    world.pressure.check()


async def test_senders_are_told_of_an_outage_until_it_is_over() -> None:
    world = _World()
    world.kafka_answers = False
    await world.pressure.measure()
    assert "Kafka" in world.refused_with().detail
    world.kafka_answers = True
    world.refused_with()  # nobody has asked Kafka again yet
    await world.pressure.measure()
    world.pressure.check()


async def test_an_installation_may_store_for_later_for_a_while() -> None:
    world = _World(accept_in_outage_seconds=60)
    world.kafka_answers = False
    await world.pressure.measure()
    world.now = 59.9
    await world.pressure.measure()
    world.pressure.check()
    world.now = 60.0
    world.refused_with()


async def test_too_much_that_waits_is_an_outage_too() -> None:
    world = _World()
    world.database.waiting = 10
    await world.pressure.measure()
    world.pressure.check()
    world.database.waiting = 11
    await world.pressure.measure()
    assert "wait" in world.refused_with().detail
