"""`python -m tests.contract check | write`: the committed contracts and documents against the code."""

from __future__ import annotations

import sys

from tests.contract import asyncapi, configuration, docs, metrics_page, snapshots


def main() -> int:
    if sys.argv[1:] == ["write"]:
        for name in (*snapshots.write(), *asyncapi.write(), *configuration.write(), *metrics_page.write()):
            sys.stdout.write(f"wrote {name}\n")
        return 0
    if sys.argv[1:] != ["check"]:
        sys.stderr.write("usage: python -m tests.contract check | write\n")
        return 2
    problems = [*snapshots.check(), *asyncapi.check(), *configuration.check(), *metrics_page.check(), *docs.check()]
    for problem in problems:
        sys.stderr.write(f"contract: {problem}\n")
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
