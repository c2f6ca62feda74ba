"""How commands talk: what they say, what they ask, how they refuse."""

from __future__ import annotations

import argparse
import getpass
import json
import os
import re
import socket
import sys
import textwrap
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from pydantic import SecretStr

REFUSED: Final = 1
UNUSABLE: Final = 2
STOPPED: Final = 3
_DURATION: Final = re.compile(r"(\d+)(s|m|h|d)")
_WIDTH: Final = 110
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Unusable(Exception):
    """The command line, a file or the environment cannot be used: which, and why. Exit status 2."""


class Refused(Exception):
    """The command was not carried out: why, and what to do. Exit status 1."""


def add_command(commands: argparse._SubParsersAction[Any], name: str, *, help: str, says: str, examples: str) -> Any:
    """A command's parser. `says`: its description; `examples`: command lines, one a line, without the program."""
    shown = "\n".join(f"  python -m deploy.ops {line}".rstrip() for line in examples.strip().splitlines())
    return commands.add_parser(
        name,
        help=help,
        description="\n\n".join(textwrap.fill(part, _WIDTH) for part in says.split("\n\n")),
        epilog=f"examples:\n{shown}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_verbs(nouns: argparse._SubParsersAction[Any], name: str, *, help: str) -> argparse._SubParsersAction[Any]:
    """A noun's parser for verbs."""
    noun = nouns.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")
    verbs: argparse._SubParsersAction[Any] = noun.add_subparsers(dest="verb", metavar="verb", required=True)
    return verbs


def add_changing(parser: argparse.ArgumentParser) -> None:
    """The options of every command that changes something; see `confirm`."""
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, change nothing")
    parser.add_argument("--yes", action="store_true", help="do not ask: for scripts")


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON on standard output, for programs")


def confirm(chosen: argparse.Namespace, what: str) -> bool:
    """Whether to go on with `what`, which has been told; False for a dry run. Raises Refused when nobody agreed."""
    if chosen.dry_run:
        say("dry run: nothing was changed")
        return False
    if chosen.yes:
        return True
    if not sys.stdin.isatty():
        raise Refused(f"nothing was changed: to {what} without being asked at a terminal, add --yes")
    sys.stderr.write(f"{what[0].upper()}{what[1:]}? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Refused("nothing was changed")
    return True


def say(text: str) -> None:
    """For a person: on standard error, so that what a command prints can be piped."""
    print(text, file=sys.stderr, flush=True)


def tell(value: Any) -> None:
    """For a program: one line of JSON."""
    print(json.dumps(value, ensure_ascii=False, default=str), flush=True)


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns side by side. Numbers stand right."""
    texts = [[("" if cell is None else str(cell)) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in [list(head), *texts]) for column in range(len(head))]
    right = [bool(rows) and all(isinstance(row[column], int | float) for row in rows) for column in range(len(head))]
    lines = [
        "  ".join(
            cell.rjust(width) if is_right else cell.ljust(width)
            for cell, width, is_right in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in [list(head), *texts]
    ]
    return "\n".join(lines)


def duration(text: str) -> timedelta:
    """`90s`, `15m`, `2h`, `30d`: an argparse type."""
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration: write a number and s, m, h or d, e.g. 15m")
    return timedelta(seconds=int(found[1]) * _SECONDS[found[2]])


def point_in_time(text: str) -> datetime:
    """A time with an offset, or a duration before now: an argparse type."""
    if _DURATION.fullmatch(text.strip()):
        return datetime.now(UTC) - duration(text)
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no time: write it with an offset, e.g. 2026-11-26T12:00:00+08:00, or how long ago, e.g. 2h"
        )
    return time


def short_duration(seconds: float | None) -> str:
    """For tables: `1.2 s`, `3 min`, `2.5 h`."""
    if seconds is None:
        return ""
    if seconds < 100:
        return f"{seconds:.1f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def operator() -> str:
    """Who runs this command, for records: `OPERATOR`, else user and machine."""
    return os.environ.get("OPERATOR") or f"{getpass.getuser()}@{socket.gethostname()}"


def given_passwords(variable: str, who: Iterable[str]) -> dict[str, SecretStr]:
    """The passwords that the environment has as `<variable><WHO>`: arguments could be read by everybody."""
    asked = {one: os.environ.get(f"{variable}{one.upper()}") for one in who}
    return {one: SecretStr(password) for one, password in asked.items() if password}
