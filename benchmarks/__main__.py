"""`python -m benchmarks`: runs all benchmarks, or the one that the environment names in ONLY."""

from __future__ import annotations

import importlib
import os
import sys

NAMES = ("pipeline", "clocks", "reports", "classifier", "tracing")


def main() -> int:
    only = os.environ.get("ONLY", "")
    if only and only not in NAMES:
        sys.stderr.write(f"ONLY={only!r} is no benchmark; there are: {', '.join(NAMES)}\n")
        return 2
    for name in (only,) if only else NAMES:
        importlib.import_module(f"benchmarks.{name}").main()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
