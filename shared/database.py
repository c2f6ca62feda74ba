"""PostgreSQL: one engine a process, one schema a service, plain short transactions."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import MetaData, QueuePool, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from shared import metrics
from shared.settings import CommonSettings

SERVICES: Final = ("intake", "classifier", "sla_timer", "notifier", "desk")
"""Services with a schema of their own, named as they are."""
_OVERFLOW_MOST: Final = 2
_CONNECT_SECONDS: Final = 5.0


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


def driver_url(url: str) -> str:
    """The same database as the driver writes it. Raises ValueError for another engine."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "postgresql":
        raise ValueError(f"DATABASE_URL must begin with postgresql://, not {parsed.drivername}://")
    return parsed.set(drivername="postgresql").render_as_string(hide_password=False)


def engine_of(url: str, *, connect: Mapping[str, Any] | None = None, **options: Any) -> AsyncEngine:
    """An engine over the driver's own connections: SQLAlchemy would not take libpq's parameters in the URL, such as
    `sslmode` and `sslrootcert`. `connect`: further arguments of `asyncpg.connect`.
    """
    import asyncpg

    address = driver_url(url)
    return create_async_engine(
        "postgresql+asyncpg://", async_creator=lambda: asyncpg.connect(address, **(connect or {})), **options
    )


class Database:
    """The engine of one service. Handlers open one transaction per batch and keep it short."""

    def __init__(self, settings: CommonSettings, *, service: str) -> None:
        self._service = service
        timeout_ms = int(settings.database_statement_timeout_seconds * 1000)
        self._url = settings.database_url
        self.pool_most = settings.database_pool_size + _OVERFLOW_MOST
        self.engine: AsyncEngine = engine_of(
            settings.database_url.get_secret_value(),
            pool_size=settings.database_pool_size,
            max_overflow=_OVERFLOW_MOST,
            pool_timeout=10,
            pool_recycle=1800,
            json_serializer=lambda value: json.dumps(value, ensure_ascii=False),
            hide_parameters=True,  # what customers write is in them, and errors are logged
            connect={
                "timeout": _CONNECT_SECONDS,
                # Of a server that is gone without a word: without it a statement would wait for a quarter of an hour.
                "command_timeout": settings.database_statement_timeout_seconds + _CONNECT_SECONDS,
                "server_settings": {
                    "application_name": f"switchyard-{service}",
                    "statement_timeout": str(timeout_ms),
                    "idle_in_transaction_session_timeout": str(2 * timeout_ms),
                    "timezone": "UTC",
                    "jit": "off",  # its start costs more than any of our statements
                },
            },
        )

        _show_pool(self.engine, service)

    @property
    def authority(self) -> Path | None:
        """The file of authorities that the server's certificate is checked against, if DATABASE_URL names one."""
        named = make_url(self._url.get_secret_value()).query.get("sslrootcert")
        return Path(named) if isinstance(named, str) and named != "system" else None

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """Commits on leaving, rolls back on an exception. READ COMMITTED."""
        async with self.engine.begin() as connection:
            yield connection

    async def ping(self) -> None:
        """Raises when the database does not answer."""
        async with self.engine.connect() as connection:
            await connection.execute(text("SELECT 1"))

    async def connect(self, timeout_seconds: float = _CONNECT_SECONDS) -> Any:
        """A connection of the driver, outside the pool: for what holds one for good. Raises OSError, TimeoutError or
        PostgresError when there is none to be had.
        """
        import asyncpg

        return await asyncpg.connect(driver_url(self._url.get_secret_value()), timeout=timeout_seconds)

    async def measure_size(self) -> None:
        """Set the gauge of how large the service's tables are. Reads the sizes of files, no table."""
        async with self.transaction() as connection:
            size = await connection.scalar(
                text(
                    "SELECT sum(pg_total_relation_size(oid)) FROM pg_class "
                    "WHERE relkind IN ('r', 'm') AND relnamespace = to_regnamespace(:schema)"
                ),
                {"schema": self._service},
            )
        if size is not None:
            metrics.DATABASE_SIZE_BYTES.labels(self._service).set(float(size))

    async def close(self) -> None:
        await self.engine.dispose()


def _show_pool(engine: AsyncEngine, service: str) -> None:
    """The gauges ask the pool when they are scraped."""
    pool = engine.pool
    assert isinstance(pool, QueuePool)
    metrics.DATABASE_POOL.labels(service, "most").set(pool.size() + _OVERFLOW_MOST)
    metrics.DATABASE_POOL.labels(service, "in_use").set_function(pool.checkedout)
    metrics.DATABASE_POOL.labels(service, "idle").set_function(pool.checkedin)


async def listen(database: Database, channel: str, wake: Any) -> Any:
    """Call `wake()` on each NOTIFY of `channel`; see `hear`."""
    return await hear(database, channel, lambda _: wake())


async def hear(database: Database, channel: str, on_payload: Callable[[str], None]) -> Any:
    """Call `on_payload` with what each NOTIFY of `channel` says. Returns the raw connection; close it with its
    `close()`.

    Outside the pool: a listening connection is held for good. Raises OSError when the database is away.
    """
    connection = await database.connect()
    await connection.add_listener(channel, lambda _, __, ___, payload: on_payload(payload))
    return connection
