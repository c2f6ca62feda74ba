"""Waiting for what happens elsewhere: ask again until it is so, with a deadline; never sleep and hope."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def eventually(
    predicate: Callable[[], Awaitable[T]], timeout_seconds: float = 30, every_seconds: float = 0.05
) -> T:
    """The first true value of `predicate()`. An AssertionError in it counts as "not yet".

    Raises AssertionError with the last answer when there is none in time; any other exception at once.
    """
    deadline = time.monotonic() + timeout_seconds
    while True:
        failed: AssertionError | None = None
        value: T | None = None
        try:
            value = await predicate()
        except AssertionError as error:
            failed = error
        if failed is None and value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(
                f"not so within {timeout_seconds:g} s; the last answer: {failed or value!r}"
            ) from failed
        await asyncio.sleep(every_seconds)
