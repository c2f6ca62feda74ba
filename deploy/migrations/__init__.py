"""Schema migrations: one line of revisions per service, each in its own PostgreSQL schema.

`python -m deploy.migrations upgrade` brings every schema to its head; `revision <service> -m "why"` writes the next
revision from the difference between the tables that `services/<service>` declares and a migrated scratch database;
`check` says whether any differ.
"""

from __future__ import annotations

import asyncio
import importlib
from pathlib import Path
from typing import Final

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.database import SERVICES, engine_of

DIRECTORY = Path(__file__).parent
_LOCK_TIMEOUT_MS: Final = 2000
_LOCK_NOT_AVAILABLE: Final = "55P03"
_TRIES: Final = 10
_PAUSE_SECONDS: Final = 0.5


def metadata_of(service: str) -> MetaData:
    """The tables that a service declares, in its storage or beside what else needs one."""
    importlib.import_module(f"services.{service}.app")
    storage = importlib.import_module(f"services.{service}.storage")
    metadata = storage.METADATA
    assert isinstance(metadata, MetaData)
    return metadata


def config_of(service: str, directory: Path = DIRECTORY) -> Config:
    config = Config()
    config.set_main_option("script_location", str(DIRECTORY).replace("%", "%%"))
    config.set_main_option("version_locations", str(directory / service).replace("%", "%%"))
    config.set_main_option("path_separator", "newline")
    config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    return config


class MigrationBlocked(Exception):
    """A table stayed locked by others for too long: which migration, and what to look at."""


async def upgrade_all(url: str, services: tuple[str, ...] = SERVICES, *, directory: Path = DIRECTORY) -> None:
    """Bring these schemas to their heads, one transaction per migration. Safe to run by several processes at once, and
    beside running services: a migration that does not get a lock at once lets them pass and tries again. Raises
    MigrationBlocked.
    """
    engine = engine_of(url)
    try:
        async with engine.connect() as guard:
            guard = await guard.execution_options(isolation_level="AUTOCOMMIT")
            # Two migrations at once would both find the schema old. Held by a session of its own: the work commits in
            # between, and an index that is built CONCURRENTLY waits for every transaction, so this must not be one.
            await guard.execute(text("SELECT pg_advisory_lock(hashtext('switchyard migrations'))"))
            for service in services:
                await _upgrade_patiently(engine, service, directory)
    finally:
        await engine.dispose()


async def _upgrade_patiently(engine: AsyncEngine, service: str, directory: Path) -> None:
    for attempt in range(1, _TRIES + 1):
        try:
            async with engine.connect() as connection:
                await connection.run_sync(_upgrade, service, directory)
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) != _LOCK_NOT_AVAILABLE:
                raise
            if attempt == _TRIES:
                raise MigrationBlocked(
                    f"the migrations of {service} got no lock within {_LOCK_TIMEOUT_MS} ms, {_TRIES} times: look for a "
                    "long transaction in pg_stat_activity (a backup holds one), then run it again; nothing is half done"
                ) from error
            await asyncio.sleep(_PAUSE_SECONDS * attempt)
        else:
            return


def _upgrade(connection: Connection, service: str, directory: Path) -> None:
    # Whoever waits for a lock on a table makes all others wait behind him: not for long.
    connection.execute(text(f"SET lock_timeout = {_LOCK_TIMEOUT_MS}"))
    connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {service}"))
    connection.commit()
    config = config_of(service, directory)
    script = ScriptDirectory.from_config(config)
    with EnvironmentContext(
        config, script, fn=lambda revision, _: script._upgrade_revs("heads", revision)
    ) as environment:
        environment.configure(connection=connection, version_table_schema=service, transaction_per_migration=True)
        with environment.begin_transaction():
            environment.run_migrations()
