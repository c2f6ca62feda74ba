"""Schema migrations: one line of revisions per service, each in its own PostgreSQL schema.

`python -m deploy.migrations upgrade` brings every schema to its head; `revision <service> -m "why"` writes the next
revision from the difference between the tables that `services/<service>` declares and a migrated scratch database;
`check` says whether any differ.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, text
from sqlalchemy.ext.asyncio import create_async_engine

from shared.database import SERVICES, async_url

DIRECTORY = Path(__file__).parent


def metadata_of(service: str) -> MetaData:
    """The tables that a service declares, in its storage or beside what else needs one."""
    importlib.import_module(f"services.{service}.app")
    storage = importlib.import_module(f"services.{service}.storage")
    metadata = storage.METADATA
    assert isinstance(metadata, MetaData)
    return metadata


def config_of(service: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(DIRECTORY).replace("%", "%%"))
    config.set_main_option("version_locations", str(DIRECTORY / service).replace("%", "%%"))
    config.set_main_option("path_separator", "newline")
    config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    return config


async def upgrade_all(url: str, services: tuple[str, ...] = SERVICES) -> None:
    """Bring these schemas to their heads, one transaction each. Safe to run by several processes at once."""
    engine = create_async_engine(async_url(url))
    try:
        for service in services:
            async with engine.begin() as connection:
                await connection.run_sync(_upgrade, service)
    finally:
        await engine.dispose()


def _upgrade(connection: Connection, service: str) -> None:
    # Two migrations at once would both find the schema old.
    connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('switchyard migrations'))"))
    connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {service}"))
    script = ScriptDirectory.from_config(config_of(service))
    with EnvironmentContext(
        config_of(service), script, fn=lambda revision, _: script._upgrade_revs("heads", revision)
    ) as environment:
        environment.configure(connection=connection, version_table_schema=service, transactional_ddl=False)
        environment.run_migrations()
