"""The embedded PostgreSQL: durable, private, and not to be blocked by what a killed run left behind."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from deploy.embedded.postgres import EmbeddedPostgres
from deploy.processes import ProgramFailed


@pytest.fixture(scope="module")
def directory(run_directory: Path) -> Path:
    """Longer than the path of a socket may be, and with a space."""
    return run_directory / ("a deep directory " + "x" * 120) / "postgres"


@pytest.fixture(scope="module")
def server(directory: Path) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(directory) as running:
        yield running


async def _value(url: str, statement: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


async def test_what_was_committed_survives_kill_9_under_the_same_url(server: EmbeddedPostgres) -> None:
    url = server.create_database("kept")
    await _value(url, "CREATE TABLE kept AS SELECT 7 AS number")
    server.kill()
    assert server.pid is None
    with pytest.raises(OSError, match=r"."):
        await _value(url, "SELECT 1")
    server.start()
    assert await _value(url, "SELECT number FROM kept") == 7
    assert server.create_database("kept") == url  # it exists: left as it is
    assert await _value(url, "SELECT number FROM kept") == 7


async def test_writes_reach_the_disk_and_logs_keep_rows_to_themselves(server: EmbeddedPostgres) -> None:
    settings = {"fsync": "on", "synchronous_commit": "on", "log_error_verbosity": "terse", "server_encoding": "UTF8"}
    for name, expected in settings.items():
        assert await _value(server.url, f"SHOW {name}") == expected


async def test_nobody_gets_in_without_the_password(server: EmbeddedPostgres) -> None:
    host_and_database = server.url.partition("@")[2]
    with pytest.raises(asyncpg.InvalidPasswordError):
        await _value(f"postgresql://switchyard:guess@{host_and_database}", "SELECT 1")


@pytest.mark.parametrize("name", ["", "Upper", "drop table;", 'a"b', "x" * 64])
def test_a_name_that_needs_quoting_is_no_database_name(server: EmbeddedPostgres, name: str) -> None:
    with pytest.raises(ValueError, match="is no database name"):
        server.create_database(name)
    with pytest.raises(ValueError, match="is no database name"):
        server.drop_database(name)


async def test_a_dropped_database_is_gone_also_while_somebody_is_in_it(server: EmbeddedPostgres) -> None:
    inside = await asyncpg.connect(server.create_database("dropped"))
    await asyncio.to_thread(server.drop_database, "dropped")
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await _value(server.url_of("dropped"), "SELECT 1")
    inside.terminate()


def test_what_a_killed_run_left_behind_does_not_block_the_next(run_directory: Path) -> None:
    directory = run_directory / "left-behind"
    half_made = directory / "data.unfinished"
    half_made.mkdir(parents=True)
    (half_made / "PG_VERSION").write_text("18\n")  # killed in the middle of initdb
    with EmbeddedPostgres(directory) as first:
        url = first.url
        first.kill()
        # The number of a process that lives and is not PostgreSQL, as after a reboot.
        (directory / "data" / "postmaster.pid").write_text(
            f"{os.getppid()}\n{directory / 'data'}\n0\n5432\n\n\n\nready\n"
        )
        first.start()
    with EmbeddedPostgres(directory) as second:
        assert second.url == url


def test_data_whose_password_is_lost_is_not_thrown_away(run_directory: Path) -> None:
    directory = run_directory / "password-lost"
    with EmbeddedPostgres(directory):
        (directory / "connection.json").unlink()
    with pytest.raises(ProgramFailed, match=r"connection\.json with the password of .* is gone: remove"):
        EmbeddedPostgres(directory).start()
    assert (directory / "data" / "PG_VERSION").exists()
