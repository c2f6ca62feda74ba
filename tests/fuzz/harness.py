"""Runs atheris on one function, from seeds, and says at the end how much was tried."""

from __future__ import annotations

import atexit
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import atheris

# Told to libFuzzer unless the command line says otherwise: what hangs, or swallows memory, is a finding too.
_LIMITS: Final = ("-timeout=10", "-rss_limit_mb=2048", "-max_len=20000", "-print_final_stats=0", "-verbosity=0")


def fuzz(name: str, test: Callable[[bytes], None], seeds: Iterable[bytes]) -> None:
    """Never returns. What `test` raises is a finding: atheris shows it, keeps the input as a file and exits with 77.

    Arguments are those of the command line, e.g. `-atheris_runs=100000`, or a file to try again.
    """
    runs = 0
    begun = time.monotonic()

    def one(data: bytes) -> None:
        nonlocal runs
        runs += 1
        test(data)

    def report() -> None:
        print(f"{name}: {runs} runs, {time.monotonic() - begun:.1f} s", flush=True)

    given = {argument.partition("=")[0] for argument in sys.argv[1:]}
    arguments = [*sys.argv, *(limit for limit in _LIMITS if limit.partition("=")[0] not in given)]
    with tempfile.TemporaryDirectory() as corpus:
        if all(argument.startswith("-") for argument in sys.argv[1:]):
            for number, seed in enumerate(seeds):
                Path(corpus, str(number)).write_bytes(seed)
            arguments.append(corpus)
        atexit.register(report)
        atheris.Setup(arguments, one)
        atheris.Fuzz()
