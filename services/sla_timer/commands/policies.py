"""`check-config` and `rules`: what is promised, checked and shown."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from services.sla_timer.config import load_policies
from services.sla_timer.domain.rules import table_text
from services.sla_timer.settings import Settings
from shared.yaml_files import ConfigError


def register(commands: argparse._SubParsersAction[Any]) -> None:
    checking = commands.add_parser("check-config", help="validate the policies and say what is wrong with them")
    checking.add_argument("--sla", type=Path, metavar="FILE", help="default: SLA_TIMER_POLICIES_FILE")
    checking.add_argument("--calendars", type=Path, metavar="FILE", help="default: SLA_TIMER_CALENDARS_FILE")
    checking.set_defaults(run=_check)
    rules = commands.add_parser("rules", help="print which event does what to which clock")
    rules.set_defaults(run=_rules)


def _check(chosen: argparse.Namespace) -> int:
    settings = Settings()
    sla = chosen.sla or settings.sla_timer_policies_file
    calendars = chosen.calendars or settings.sla_timer_calendars_file
    try:
        policies = load_policies(sla, calendars)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{sla} and {calendars} can be used (policies {policies.version})")
    return 0


def _rules(_: argparse.Namespace) -> int:
    print(table_text())
    return 0
