"""`explain`: the arithmetic of a ticket's promises."""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy.exc import DBAPIError

from services.sla_timer.config import load_policies
from services.sla_timer.explaining import NotOneTicket, explain
from services.sla_timer.settings import Settings
from shared.database import Database
from shared.yaml_files import ConfigError

_REFERENCE: Final = re.compile(r"[0-9a-f]{8}[0-9a-f-]*")


def register(commands: argparse._SubParsersAction[Any]) -> None:
    explaining = commands.add_parser(
        "explain",
        help="print how the due times of a ticket's promises came about",
        description="Each promise of a ticket: what was promised by which version of the policies, on which working "
        "time it was counted, pauses left out, what was told, and the sum. Reads the database of DATABASE_URL.",
    )
    explaining.add_argument("ticket", type=_ticket, metavar="TICKET", help="its id, or the first eight digits of it")
    explaining.set_defaults(run=_run)


def _ticket(text: str) -> str:
    if not _REFERENCE.fullmatch(text.lower()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a ticket's id, nor the first eight digits of one")
    return text.lower()


def _run(chosen: argparse.Namespace) -> int:
    try:
        print(asyncio.run(_explain(chosen.ticket)))
    except (NotOneTicket, ConfigError) as error:
        print(error, file=sys.stderr)
        return 1
    except (OSError, DBAPIError) as error:
        print(f"the database of DATABASE_URL cannot be read: {error}", file=sys.stderr)
        return 1
    return 0


async def _explain(reference: str) -> str:
    settings = Settings()
    policies = load_policies(settings.policy_files)
    database = Database(settings, service="sla_timer")
    try:
        async with database.transaction() as connection:
            return await explain(connection, reference, policies, datetime.now(UTC))
    finally:
        await database.close()
