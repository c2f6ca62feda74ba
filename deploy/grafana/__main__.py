"""`python -m deploy.grafana write` makes the JSON of all dashboards and runbooks; `check` tells what is not as it would
be made, and fails.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from deploy.grafana.boards import boards
from deploy.grafana.runbooks import runbooks
from deploy.processes import REPOSITORY

DASHBOARDS: Final = REPOSITORY / "deploy" / "grafana" / "dashboards"
RUNBOOKS: Final = REPOSITORY / "deploy" / "grafana" / "runbooks"


def wanted() -> dict[Path, str]:
    """The files there should be, and their contents."""
    return {
        **{DASHBOARDS / f"{board.name}.json": board.json() for board in boards()},
        **{RUNBOOKS / f"{name}.json": text for name, text in runbooks()},
    }


def differences(files: Mapping[Path, str]) -> list[str]:
    """What of these is missing or other, and what JSON beside them should not be there."""
    found = []
    for path, text in files.items():
        if not path.exists():
            found.append(f"{path.relative_to(REPOSITORY)} is missing")
        elif path.read_text(encoding="utf-8") != text:
            found.append(f"{path.relative_to(REPOSITORY)} is not as it would be made now")
    found += [f"{path.relative_to(REPOSITORY)} belongs to no dashboard" for path in _others(files)]
    return found


def write(files: Mapping[Path, str]) -> None:
    for path in _others(files):
        path.unlink()
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _others(files: Mapping[Path, str]) -> list[Path]:
    there = [path for directory in (DASHBOARDS, RUNBOOKS) for path in directory.glob("*.json")]
    return sorted(path for path in there if path not in files)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.grafana", description=__doc__)
    parser.add_argument("command", choices=["write", "check"])
    command = parser.parse_args(arguments).command
    files = wanted()
    if command == "write":
        write(files)
        print(f"{len(files)} dashboards, runbooks among them")
        return 0
    wrong = differences(files)
    for line in wrong:
        print(f"{line}: `make dashboards` makes it anew", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
