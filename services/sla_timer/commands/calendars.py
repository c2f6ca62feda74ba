"""`deadline`, `elapsed` and `open`: business time on a calendar, for leads and for tests. One answer on stdout."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from services.sla_timer.domain.policies import PolicyError, Span
from services.sla_timer.settings import Settings
from shared.calendars import Calendar, CalendarError, load_calendars
from shared.yaml_files import ConfigError

_UNUSABLE_FILE: Final = 1
_UNUSABLE_QUESTION: Final = 2
_TIME_HELP: Final = "ISO 8601, e.g. 2026-06-05T17:00+08:00; without an offset, the wall time of the calendar's zone"


def register(commands: argparse._SubParsersAction[Any]) -> None:
    deadline = _command(commands, "deadline", _deadline, "print when a target is due")
    deadline.add_argument("--start", required=True, metavar="TIME", help=_TIME_HELP)
    deadline.add_argument("--target", required=True, metavar="LENGTH", help="like in the policies: 15m, 4h30m, 2d")
    elapsed = _command(commands, "elapsed", _elapsed, "print the business seconds from one time to another")
    elapsed.add_argument("--start", required=True, metavar="TIME", help=_TIME_HELP)
    elapsed.add_argument("--end", required=True, metavar="TIME", help=_TIME_HELP)
    opening = _command(commands, "open", _open, "print whether it is working time, and if not, when it is next")
    opening.add_argument("--at", metavar="TIME", help=f"default: now; {_TIME_HELP}")


def _command(
    commands: argparse._SubParsersAction[Any],
    name: str,
    answer: Callable[[Calendar, argparse.Namespace], str],
    what: str,
) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=what)
    command.add_argument("--calendars", type=Path, metavar="FILE", help="default: SLA_TIMER_CALENDARS_FILE")
    command.add_argument(
        "--calendar", metavar="NAME", help="one of the file's; need not be named when it is the only one"
    )

    def run(chosen: argparse.Namespace) -> int:
        try:
            print(answer(_calendar(chosen), chosen))
        except ConfigError as error:
            print(error, file=sys.stderr)
            return _UNUSABLE_FILE
        except (CalendarError, PolicyError) as error:
            print(f"{name}: {error}", file=sys.stderr)
            return _UNUSABLE_QUESTION
        return 0

    command.set_defaults(run=run)
    return command


def _deadline(calendar: Calendar, chosen: argparse.Namespace) -> str:
    start = _time(calendar, "--start", chosen.start)
    try:
        span = Span.parse(chosen.target)
    except PolicyError as error:
        raise PolicyError(f"--target: {error}") from None
    due = calendar.deadline(start, span.business_seconds(calendar))
    _tell_unknown_holidays(calendar, start, due)
    return calendar.local(due).isoformat()


def _elapsed(calendar: Calendar, chosen: argparse.Namespace) -> str:
    start, end = _time(calendar, "--start", chosen.start), _time(calendar, "--end", chosen.end)
    seconds = calendar.business_elapsed(start, end)
    _tell_unknown_holidays(calendar, start, end)
    return str(seconds)


def _open(calendar: Calendar, chosen: argparse.Namespace) -> str:
    at = datetime.now(UTC) if chosen.at is None else _time(calendar, "--at", chosen.at)
    opens = calendar.next_open(at)
    _tell_unknown_holidays(calendar, at, opens)
    return "open" if opens == at else f"closed until {calendar.local(opens).isoformat()}"


def _calendar(chosen: argparse.Namespace) -> Calendar:
    file = chosen.calendars or Settings().sla_timer_calendars_file
    calendars = load_calendars(file)
    name = next(iter(calendars)) if chosen.calendar is None and len(calendars) == 1 else chosen.calendar
    if name is None:
        raise CalendarError(f"say which --calendar of {file}: {', '.join(sorted(calendars))}")
    if name not in calendars:
        raise CalendarError(f"{file} has no calendar {name!r}, only {', '.join(sorted(calendars))}")
    return calendars[name]


def _time(calendar: Calendar, option: str, text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise CalendarError(
            f"{option}: {text!r} is not a time like 2026-06-05T17:00 or 2026-06-05T17:00+08:00"
        ) from None
    try:
        return calendar.at_wall(at) if at.tzinfo is None else at
    except CalendarError as error:
        raise CalendarError(f"{option}: {error}") from None


def _tell_unknown_holidays(calendar: Calendar, since: datetime, until: datetime) -> None:
    for code in calendar.holidays_unknown(since, until):
        print(
            f"note: the holidays library does not know all public holidays of {code} in these years; "
            "what it does not know is counted as an ordinary day, unless extra_holidays names it",
            file=sys.stderr,
        )
