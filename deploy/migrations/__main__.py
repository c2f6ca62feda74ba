"""`python -m deploy.migrations upgrade | check | revision <service> -m "why"`."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection

from deploy.migrations import config_of, metadata_of, safety, upgrade_all
from shared.database import SERVICES, engine_of
from shared.settings import CommonSettings


@contextmanager
def scratch_database() -> Iterator[str]:
    """A database of our own to compare with; never the installation's."""
    from deploy.embedded.postgres import EmbeddedPostgres

    with (
        tempfile.TemporaryDirectory() as directory,
        EmbeddedPostgres(Path(directory) / "postgres") as postgres,
    ):
        yield postgres.url


async def _with_connection(url: str, work: Any) -> Any:
    engine = engine_of(url)
    try:
        async with engine.begin() as connection:
            return await connection.run_sync(work)
    finally:
        await engine.dispose()


def _differences(connection: Connection, service: str) -> list[Any]:
    context = MigrationContext.configure(
        connection,
        opts={
            "include_schemas": True,
            "version_table_schema": service,
            "include_name": lambda name, kind, _: kind != "schema" or name == service,
            "compare_server_default": True,
        },
    )
    differences: list[Any] = compare_metadata(context, metadata_of(service))
    return differences


async def check(url: str) -> list[str]:
    """What the declared tables and the migrated ones differ in; empty when they agree."""
    await upgrade_all(url)
    found: list[str] = []
    for service in SERVICES:
        differences = await _with_connection(url, lambda connection, name=service: _differences(connection, name))
        found += [f"{service}: {difference}" for difference in differences]
    return found


async def revision(url: str, service: str, message: str) -> None:
    if any((Path(__file__).parent / service).glob("*.py")):
        await upgrade_all(url, (service,))

    def write(connection: Connection) -> None:
        config = config_of(service)
        config.attributes.update(connection=connection, service=service, metadata=metadata_of(service))
        existing = len(list((Path(__file__).parent / service).glob(f"{service}_*.py")))
        command.revision(config, message, autogenerate=True, rev_id=f"{service}_{existing + 1:04d}")

    from sqlalchemy import text

    await _with_connection(url, lambda connection: connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {service}")))
    await _with_connection(url, write)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.migrations", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("upgrade", help="bring every schema of DATABASE_URL to its head")
    commands.add_parser(
        "check",
        help="compare the declared tables with the migrated ones in a scratch database; find unsafe migrations",
    )
    write = commands.add_parser("revision", help="write a service's next revision")
    write.add_argument("service", choices=SERVICES)
    write.add_argument("-m", "--message", required=True, help="why the schema changes")
    arguments = parser.parse_args()
    if arguments.command == "upgrade":
        asyncio.run(upgrade_all(CommonSettings().database_url.get_secret_value()))
        print("all schemas are at their heads")
        return 0
    if arguments.command == "check" and (unsafe := safety.check()):
        for problem in unsafe:
            print(problem, file=sys.stderr)
        print(safety.WHAT_TO_DO, file=sys.stderr)
        return 1
    with scratch_database() as url:
        if arguments.command == "revision":
            asyncio.run(revision(url, arguments.service, arguments.message))
            return 0
        differences = asyncio.run(check(url))
    for difference in differences:
        print(difference, file=sys.stderr)
    if differences:
        print('write a revision: python -m deploy.migrations revision <service> -m "why"', file=sys.stderr)
        return 1
    print("the declared tables and the migrations agree; every migration may run beside services")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
