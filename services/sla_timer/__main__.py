"""`python -m services.sla_timer` runs the service; with a command it answers a question about promises or peaks."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from services.sla_timer.commands import calendars, explain, forecast, policies, report, simulate
from shared.early_stop import end_when_told
from shared.yaml_files import ConfigError

_COMMANDS = (policies, calendars, explain, forecast, report, simulate)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m services.sla_timer",
        description="The sla_timer: promises, and how answering holds up at peak hours. Without a command, runs the "
        "service, configured by the environment (see services/sla_timer/settings.py and shared/settings.py).",
    )
    commands = parser.add_subparsers(dest="command", metavar="command")
    for module in _COMMANDS:
        module.register(commands)
    chosen = parser.parse_args(arguments)
    if chosen.command is None:
        return _run()
    status: int = chosen.run(chosen)
    return status


def _run() -> int:
    # Imported here, so that a question about the policies needs neither broker nor database.
    end_when_told()
    from services.sla_timer.app import build
    from shared.service import run

    try:
        service = build()
    except ConfigError as error:
        print(f"sla_timer cannot start:\n{error}", file=sys.stderr)
        return 2
    run(service)
    return 0


if __name__ == "__main__":
    sys.exit(main())
