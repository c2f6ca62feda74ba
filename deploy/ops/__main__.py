"""`python -m deploy.ops <noun> [<verb>]`: what an operator does to a running installation."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from typing import Final

from aiokafka.errors import KafkaError
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from deploy.ops import (
    acls,
    backup,
    clocks,
    dead_letters,
    desk,
    drain,
    lag,
    migrations,
    purge,
    restore,
    roles,
    topics,
    users,
)
from deploy.ops.console import REFUSED, STOPPED, UNUSABLE, Refused, Unusable
from shared.admin import TopicRefused, TopicsMissing
from shared.yaml_files import ConfigError

_NOUNS: Final = (
    *(topics, dead_letters, lag, drain, clocks, desk, purge, backup, restore, migrations),
    *(acls, users, roles),
)
_EPILOG: Final = """\
Brokers and database are those of KAFKA_BOOTSTRAP_SERVERS and DATABASE_URL, and whatever else the services read from the
environment. A command that changes something says what it would do and asks; --dry-run only says it, --yes does not
ask (without a terminal, a command that was not told --yes changes nothing).

exit status: 0 done, or nothing to do; 1 no: something differs, is above its limit, or was not done; 2 the command
line, a file or the environment cannot be used; 3 the broker or the database cannot be reached; 130 interrupted.
docs/operations.md tells each task."""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.ops",
        description="Look after a running installation.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    nouns = parser.add_subparsers(dest="noun", metavar="noun", required=True)
    for module in _NOUNS:
        module.register(nouns)
    return parser


async def run(arguments: Sequence[str] | None = None) -> int:
    """Carry out one command line; returns the exit status."""
    chosen = build_parser().parse_args(arguments)
    try:
        status: int = await chosen.run(chosen)
    except (Unusable, ConfigError) as error:
        return _said(UNUSABLE, str(error))
    except ValidationError as error:
        named = "; ".join(f"{'.'.join(map(str, item['loc'])).upper()}: {item['msg']}" for item in error.errors())
        return _said(UNUSABLE, f"the environment cannot be used: {named}")
    except (Refused, TopicsMissing, TopicRefused) as error:
        return _said(REFUSED, str(error))
    except KafkaError as error:
        return _said(STOPPED, f"Kafka does not answer as it should ({_short(error)}): check KAFKA_BOOTSTRAP_SERVERS")
    except (SQLAlchemyError, OSError, TimeoutError) as error:
        return _said(STOPPED, f"stopped: {_short(error)}: check DATABASE_URL and KAFKA_BOOTSTRAP_SERVERS")
    return status


def main(arguments: Sequence[str] | None = None) -> int:
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    try:
        return asyncio.run(run(arguments))
    except KeyboardInterrupt:
        return _said(130, "interrupted")


def _short(error: BaseException) -> str:
    # The first line: what follows may hold a statement's parameters, i.e. a customer's words.
    cause = getattr(error, "orig", None) or error
    return f"{type(cause).__name__}: {cause}".splitlines()[0][:300]


def _said(status: int, text: str) -> int:
    print(text, file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
