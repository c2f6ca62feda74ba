"""`python -m services.sla_timer` runs the service; with a command it answers a question about the policies."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from services.sla_timer.config import load_policies
from services.sla_timer.domain.rules import table_text
from services.sla_timer.settings import Settings
from shared.yaml_files import ConfigError


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m services.sla_timer",
        description="The sla_timer: promises, and how answering holds up at peak hours. Without a command, runs the "
        "service, configured by the environment (see services/sla_timer/settings.py and shared/settings.py).",
    )
    commands = parser.add_subparsers(dest="command", metavar="command")
    checking = commands.add_parser("check-config", help="validate the policies and say what is wrong with them")
    checking.add_argument("--sla", type=Path, metavar="FILE", help="default: SLA_TIMER_POLICIES_FILE")
    checking.add_argument("--calendars", type=Path, metavar="FILE", help="default: SLA_TIMER_CALENDARS_FILE")
    commands.add_parser("rules", help="print which event does what to which clock")
    chosen = parser.parse_args(arguments)
    if chosen.command == "rules":
        print(table_text())
        return 0
    if chosen.command == "check-config":
        return _check(chosen.sla, chosen.calendars)
    return _run()


def _check(sla: Path | None, calendars: Path | None) -> int:
    settings = Settings()
    sla = sla or settings.sla_timer_policies_file
    calendars = calendars or settings.sla_timer_calendars_file
    try:
        policies = load_policies(sla, calendars)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{sla} and {calendars} can be used (policies {policies.version})")
    return 0


def _run() -> int:
    # Imported here, so that a question about the policies needs neither broker nor database.
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
