"""`python -m benchmarks [name]`: runs all benchmarks, or one."""

from __future__ import annotations

import argparse
import importlib

NAMES = ("pipeline",)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("only", nargs="?", choices=NAMES, help="run this one (all without it)")
    only = parser.parse_args().only
    for name in (only,) if only else NAMES:
        importlib.import_module(f"benchmarks.{name}").main()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
