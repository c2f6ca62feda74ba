"""PostgreSQL: one engine a process, one schema a service, plain short transactions."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

from sqlalchemy import MetaData, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from shared.settings import CommonSettings

SERVICES: Final = ("intake", "classifier", "sla_timer", "notifier", "desk")
"""Services with a schema of their own, named as they are."""


def service_metadata(schema: str) -> MetaData:
    """Tables of one service. Names of constraints are fixed, so that migrations can name them."""
    return MetaData(
        schema=schema,
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        },
    )


def async_url(url: str) -> str:
    """The same database by the asyncpg driver. Raises ValueError for another engine."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "postgresql":
        raise ValueError(f"DATABASE_URL must begin with postgresql://, not {parsed.drivername}://")
    return parsed.set(drivername="postgresql+asyncpg").render_as_string(hide_password=False)


class Database:
    """The engine of one service. Handlers open one transaction per batch and keep it short."""

    def __init__(self, settings: CommonSettings, *, service: str) -> None:
        timeout_ms = int(settings.database_statement_timeout_seconds * 1000)
        self.engine: AsyncEngine = create_async_engine(
            async_url(settings.database_url.get_secret_value()),
            pool_size=settings.database_pool_size,
            max_overflow=2,
            pool_timeout=10,
            pool_recycle=1800,
            json_serializer=lambda value: json.dumps(value, ensure_ascii=False),
            connect_args={
                "timeout": 5,
                "server_settings": {
                    "application_name": f"switchyard-{service}",
                    "statement_timeout": str(timeout_ms),
                    "idle_in_transaction_session_timeout": str(2 * timeout_ms),
                    "timezone": "UTC",
                    "jit": "off",  # its start costs more than any of our statements
                },
            },
        )

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """Commits on leaving, rolls back on an exception. READ COMMITTED."""
        async with self.engine.begin() as connection:
            yield connection

    async def ping(self) -> None:
        """Raises when the database does not answer."""
        async with self.engine.connect() as connection:
            await connection.execute(text("SELECT 1"))

    async def close(self) -> None:
        await self.engine.dispose()


async def listen(database: Database, channel: str, wake: Any) -> Any:
    """Call `wake()` on each NOTIFY of `channel`; see `hear`."""
    return await hear(database, channel, lambda _: wake())


async def hear(database: Database, channel: str, on_payload: Callable[[str], None]) -> Any:
    """Call `on_payload` with what each NOTIFY of `channel` says. Returns the raw connection; close it with its
    `close()`.

    Outside the pool: a listening connection is held for good. Raises OSError when the database is away.
    """
    import asyncpg

    url = make_url(database.engine.url).set(drivername="postgresql")
    connection = await asyncpg.connect(url.render_as_string(hide_password=False), timeout=5)
    await connection.add_listener(channel, lambda _, __, ___, payload: on_payload(payload))
    return connection
