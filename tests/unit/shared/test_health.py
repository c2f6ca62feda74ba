"""What is asked in the background is told truly at any moment, also when the asking itself hangs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from shared import health
from shared.finishing import finished
from shared.health import Unhealthy, Watched
from tests.support.waiting import eventually


@asynccontextmanager
async def watching(ask: Callable[[], Awaitable[None]]) -> AsyncIterator[Watched]:
    watched = Watched(ask, every_seconds=0.01)
    task = asyncio.create_task(watched.watch())
    try:
        yield watched
    finally:
        task.cancel()


async def becomes(watched: Watched, reason: str | None) -> bool:
    return watched.why_not() == reason


async def test_it_is_told_why_and_it_recovers_by_itself() -> None:
    errors: list[Exception] = [ConnectionRefusedError("secret"), Unhealthy("takes no writes")]

    async def ask() -> None:
        if errors:
            raise errors[0]

    async with watching(ask) as watched:
        assert watched.why_not() == "not asked yet"
        await watched.first_answer()
        assert watched.why_not() == "ConnectionRefusedError"
        errors.pop(0)
        await eventually(lambda: becomes(watched, "takes no writes"))
        errors.pop(0)
        await eventually(lambda: becomes(watched, None))


async def test_an_ask_that_takes_too_long_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "ANSWER_MOST_SECONDS", 0.05)

    async with watching(asyncio.Event().wait) as watched:  # type: ignore[arg-type]
        await eventually(lambda: becomes(watched, "no answer within 0.05 s"))


async def test_an_ask_that_cannot_even_be_given_up_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "ANSWER_MOST_SECONDS", 0.05)
    now = 100.0
    let_go = asyncio.Event()

    async def stubborn() -> None:
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue

    watched = Watched(stubborn, clock=lambda: now)
    task = asyncio.create_task(watched.watch())
    await asyncio.sleep(0.2)
    now = 107.0
    assert watched.why_not() == "no answer for 7 s"
    let_go.set()
    await watched.first_answer()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_what_is_to_be_finished_is_finished_before_the_cancellation_is_raised() -> None:
    go_on, done = asyncio.Event(), []

    async def work() -> None:
        await go_on.wait()
        done.append(1)

    task = asyncio.create_task(finished(work()))
    await asyncio.sleep(0)
    task.cancel()
    asyncio.get_running_loop().call_later(0.05, go_on.set)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == [1]


async def test_a_second_cancellation_cuts_it_off() -> None:
    cut: list[int] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cut.append(1)

    task = asyncio.create_task(finished(work()))
    for _ in range(2):
        await asyncio.sleep(0.01)
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0.01)
    assert cut == [1]
