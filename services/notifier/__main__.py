"""`python -m services.notifier` runs the notifier; `... enable ENDPOINT` lets an endpoint work again after 410 Gone."""

from __future__ import annotations

import argparse
import asyncio
import sys
from datetime import UTC, datetime

from shared.early_stop import end_when_told


async def _enable(endpoint: str) -> int:
    from services.notifier import storage
    from services.notifier.settings import Settings
    from shared.database import Database

    database = Database(Settings(), service=storage.SCHEMA)
    try:
        async with database.transaction() as connection:
            return await storage.enable_endpoint(connection, endpoint, datetime.now(UTC))
    finally:
        await database.close()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m services.notifier", description=__doc__)
    commands = parser.add_subparsers(dest="command")
    enable = commands.add_parser("enable", help="let an endpoint that answered 410 Gone work again")
    enable.add_argument("endpoint", help="its name in notifications.yaml")
    arguments = parser.parse_args()
    if arguments.command == "enable":
        again = asyncio.run(_enable(arguments.endpoint))
        print(f"{arguments.endpoint} is enabled; {again} notifications that were given up for it are tried again")
        return 0
    end_when_told()
    from services.notifier.app import build
    from shared.service import run
    from shared.yaml_files import ConfigError

    try:
        service = build()
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    run(service)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
