"""`make scenarios`: every brand's stories through the five services, and a table of how they went."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter

from deploy.processes import RUN_DIRECTORY, ProgramFailed, run_directory
from tests.scenarios.play import play_all, running
from tests.support.surroundings import BrokerChoice


async def _play() -> int:
    begun = time.monotonic()
    choice = BrokerChoice.make(RUN_DIRECTORY)
    print(f"broker: {choice.report(RUN_DIRECTORY)}\n")
    with run_directory("scenarios") as directory:
        broker = choice.broker(directory / "broker")
        async with running(directory, broker) as world:
            results = await play_all(world)
            leaks = await world.leaks()
    stories, passed = Counter[str](), Counter[str]()
    for name, error in results.items():
        brand = name.partition("/")[0]
        stories[brand] += 1
        passed[brand] += error is None
    print(f"{'brand':<14} {'stories':>7} {'passed':>7}")
    for brand, count in sorted(stories.items()):
        print(f"{brand:<14} {count:>7} {passed[brand]:>7}")
    print()
    for name, error in results.items():
        if error is not None:
            told = str(error) if isinstance(error, AssertionError) else f"{name}: {type(error).__name__}: {error}"
            print(f"FAILED {told}")
    for place, words in leaks:
        print(f"FAILED the secret {words!r} of a story is found in {place}")
    print(f"{time.monotonic() - begun:.0f} s")
    failed = stories.total() - passed.total() + len(leaks)
    print(f"{passed.total()} passed, {failed} failed")
    return 1 if failed else 0


def main() -> int:
    try:
        return asyncio.run(_play())
    except ProgramFailed as error:
        print(f"the stories cannot be played: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
