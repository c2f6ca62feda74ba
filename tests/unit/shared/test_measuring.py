"""Measurements go on whatever happens, and leave nothing behind that is no longer so."""

from __future__ import annotations

import asyncio
import logging

import pytest
from prometheus_client import CollectorRegistry, Gauge

from shared import measuring
from shared.measuring import Gone, Reading


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def series(registry: CollectorRegistry) -> dict[str, float]:
    return {sample.labels["queue"]: sample.value for family in registry.collect() for sample in family.samples}


def test_what_is_gone_is_zero(registry: CollectorRegistry) -> None:
    reading = Reading(Gauge("waiting", "-", ["queue"], registry=registry), Gone.ZERO)
    reading.show({("a",): 3, ("b",): 1})
    reading.show({("b",): 2})
    assert series(registry) == {"a": 0, "b": 2}
    reading.show({})
    assert series(registry) == {"a": 0, "b": 0}


def test_what_is_gone_is_removed_and_others_series_are_let_alone(registry: CollectorRegistry) -> None:
    gauge = Gauge("lag", "-", ["queue"], registry=registry)
    mine, others = Reading(gauge, Gone.REMOVED), Reading(gauge, Gone.REMOVED)
    others.show({("x",): 7})
    mine.show({("a",): 3, ("b",): 1})
    mine.show({("b",): 2})
    assert series(registry) == {"b": 2, "x": 7}
    mine.show({})
    assert series(registry) == {"x": 7}


@pytest.fixture
def rests(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long it was to be slept for, each time."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr("shared.measuring.asyncio.sleep", sleep)
    return slept


async def test_a_slow_measurement_comes_more_seldom_up_to_ten_minutes(
    rests: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    takes = iter((0.01, 2.0, 100.0))
    monkeypatch.setattr("shared.measuring.time.monotonic", lambda: now)

    async def work() -> None:
        nonlocal now
        took = next(takes, None)
        if took is None:
            raise asyncio.CancelledError
        now += took

    with pytest.raises(asyncio.CancelledError):
        await measuring.for_ever(5, "it", work, most_of_time=0.05)
    assert rests == pytest.approx([5, 38, 600])


async def test_a_measurement_that_fails_is_told_once_and_tried_again_without_a_long_rest(
    rests: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    outcomes = iter([None, OSError("password=hunter2secret"), OSError(), None, OSError()])

    async def work() -> None:
        try:
            outcome = next(outcomes)
        except StopIteration:
            raise asyncio.CancelledError from None
        if outcome is not None:
            raise outcome

    with caplog.at_level(logging.INFO), pytest.raises(asyncio.CancelledError):
        await measuring.for_ever(5, "it", work)
    assert rests == [5] * 5
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO", "WARNING"]
    assert "hunter2secret" not in caplog.text
