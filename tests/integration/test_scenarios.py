"""The stories of all brands, played through the five services: what customers write, agents do, and comes of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.scenarios.play import World, play_all, running, scenarios
from tests.scenarios.schema import MessageStep

_STORIES = [f"{scenario.brand}/{story.name}" for scenario in scenarios() for story in scenario.stories]


@pytest.fixture(scope="module")
async def world(run_directory: Path) -> AsyncIterator[World]:
    from tests.conftest import _broker

    async with running(run_directory / "scenarios", _broker(run_directory / "scenarios" / "broker")) as world:
        yield world


@pytest.fixture(scope="module")
async def played(world: World) -> dict[str, BaseException | None]:
    return await play_all(world)


@pytest.mark.parametrize("story", _STORIES)
async def test_story(story: str, played: dict[str, BaseException | None]) -> None:
    error = played[story]
    if error is not None:
        raise error


async def test_no_secret_of_any_story_is_found_anywhere(world: World, played: dict[str, BaseException | None]) -> None:
    steps = [step for scenario in scenarios() for story in scenario.stories for step in story.steps]
    assert sum(len(step.expect.cut) for step in steps if isinstance(step, MessageStep)) >= 5
    assert played
    assert await world.leaks() == []
