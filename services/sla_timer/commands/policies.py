"""`check-config` and `rules`: what is promised, checked and shown."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from services.sla_timer.config import PolicyFiles, load_policies
from services.sla_timer.domain.rules import table_text
from services.sla_timer.settings import Settings
from shared.yaml_files import ConfigError


def register(commands: argparse._SubParsersAction[Any]) -> None:
    checking = commands.add_parser("check-config", help="validate the policies and say what is wrong with them")
    add_files(checking)
    checking.set_defaults(run=_check)
    rules = commands.add_parser("rules", help="print which event does what to which clock")
    rules.set_defaults(run=_rules)


def add_files(parser: argparse.ArgumentParser) -> None:
    """The options that `files_of` reads."""
    parser.add_argument("--sla", type=Path, metavar="FILE", help="default: SLA_TIMER_POLICIES_FILE")
    parser.add_argument("--calendars", type=Path, metavar="FILE", help="default: SLA_TIMER_CALENDARS_FILE")
    parser.add_argument("--brands", type=Path, metavar="DIRECTORY", help="default: BRANDS_DIRECTORY")


def files_of(chosen: argparse.Namespace) -> PolicyFiles:
    files = Settings().policy_files
    return PolicyFiles(chosen.sla or files.sla, chosen.calendars or files.calendars, chosen.brands or files.brands)


def _check(chosen: argparse.Namespace) -> int:
    files = files_of(chosen)
    try:
        policies = load_policies(files)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{files.sla}, {files.calendars} and {files.brands} can be used (policies {policies.version})")
    return 0


def _rules(_: argparse.Namespace) -> int:
    print(table_text())
    return 0
