"""`backup`: all schemas into one file, with what it takes to restore it beside the log of Kafka."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from aiokafka.errors import KafkaError
from pydantic import AwareDatetime, BaseModel, Field
from sqlalchemy import text

from deploy.ops import groups as kafka
from deploy.ops import postgres
from deploy.ops.console import Unusable, add_command, add_json, say, tell
from shared.database import SERVICES
from shared.settings import CommonSettings

DUMP: Final = "switchyard.dump"
MANIFEST: Final = "manifest.json"
_BLOCK_BYTES: Final = 1024 * 1024


class Manifest(BaseModel):
    """What stands beside a dump. `offsets`: group -> topic -> partition -> the next record it had not taken, asked
    before the dump's snapshot: all that lies before them is in the dump. `ends`: of every topic, at the same time.
    """

    format: Literal[1] = 1
    taken_at: AwareDatetime
    server: int
    sha256: str
    size_bytes: int
    heads: dict[str, str | None]
    rows: dict[str, int]
    offsets: dict[str, dict[str, dict[int, int]]] | None = None
    ends: dict[str, dict[int, int]] = Field(default_factory=dict)
    took_seconds: Annotated[float, Field(ge=0)] = 0.0


def register(nouns: argparse._SubParsersAction[Any]) -> None:
    parser = add_command(
        nouns,
        "backup",
        help="all schemas into a directory, checked, with the groups' offsets",
        says="Dump all services' schemas (pg_dump, custom format) into a new directory, with a manifest: "
        "checksum, versions, migrations, rows of every table, and how far each consumer group was. Services "
        "go on running. The file holds what customers wrote: only its owner may read it, keep it encrypted.\n\n"
        "pg_dump is taken from --pg-bin or PG_BIN, else from the PATH, Debian's directories, the embedded "
        "wheel.",
        examples="backup /var/backups/switchyard/2026-11-26\nbackup . --pg-bin /usr/lib/postgresql/18/bin --json",
    )
    parser.add_argument("directory", type=Path, help="is made; must be new or empty")
    add_pg_bin(parser)
    parser.add_argument("--dry-run", action="store_true", help="say what would be dumped, write nothing")
    add_json(parser)
    parser.set_defaults(run=_run)


def add_pg_bin(parser: argparse.ArgumentParser) -> None:
    given = os.environ.get("PG_BIN")
    parser.add_argument(
        "--pg-bin",
        type=Path,
        metavar="DIRECTORY",
        default=Path(given) if given else None,
        help="where pg_dump and pg_restore lie (PG_BIN)",
    )


async def _run(chosen: argparse.Namespace) -> int:
    directory: Path = chosen.directory
    if not _is_free(directory):
        raise Unusable(f"{directory} is not empty: name a new directory")
    settings = CommonSettings()
    if chosen.dry_run:
        async with postgres.engine(settings) as engine, engine.connect() as connection:
            server = await postgres.server_major(connection)
            names = await postgres.tables(connection)
        say(
            f"would dump {len(names)} tables of PostgreSQL {server} with "
            f"{await postgres.program('pg_dump', server, chosen.pg_bin)} into {directory}"
        )
        return 0
    manifest = await take(settings, directory, pg_bin=chosen.pg_bin)
    if chosen.json:
        tell(json.loads(manifest.model_dump_json()))
    say(
        f"{directory / DUMP}: {manifest.size_bytes} bytes, {sum(manifest.rows.values())} rows of "
        f"{len(manifest.rows)} tables, in {manifest.took_seconds:.1f} s"
    )
    if manifest.offsets is None:
        say("Kafka did not answer: the offsets of the groups are not kept, a restore must be told a time to rewind to")
    return 0


def _is_free(directory: Path) -> bool:
    return not directory.exists() or (directory.is_dir() and not any(directory.iterdir()))


def _begin(directory: Path) -> Path:
    """The file to dump into, for its owner only."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    unfinished = directory / f"{DUMP}.unfinished"
    unfinished.touch(mode=0o600)
    return unfinished


async def take(settings: CommonSettings, directory: Path, *, pg_bin: Path | None = None) -> Manifest:
    """Write dump and manifest into `directory`. Raises Refused or Unusable; what was begun is removed."""
    begun = datetime.now(UTC)
    offsets, ends = await _offsets(settings)
    unfinished = _begin(directory)
    try:
        async with postgres.engine(settings) as engine, engine.connect() as connection:
            connection = await connection.execution_options(isolation_level="REPEATABLE READ")
            server = await postgres.server_major(connection)
            program = await postgres.program("pg_dump", server, pg_bin)
            names = await postgres.tables(connection)
            if not names:
                raise Unusable("there is nothing to back up: the database of DATABASE_URL has none of our schemas")
            # The dump sees exactly what is counted here, whatever is written meanwhile.
            snapshot = await connection.scalar(text("SELECT pg_export_snapshot()"))
            heads = await postgres.heads(connection)
            rows = await postgres.count_rows(connection, names)
            await postgres.run(
                [
                    *(program, "--format=custom", f"--snapshot={snapshot}", f"--file={unfinished}"),
                    *(f"--schema={service}" for service in SERVICES),
                ],
                postgres.client_environment(settings.database_url.get_secret_value()),
            )
        manifest = Manifest(
            taken_at=begun,
            server=server,
            sha256=checksum(unfinished),
            size_bytes=unfinished.stat().st_size,
            heads=heads,
            rows=rows,
            offsets=offsets,
            ends=ends,
            took_seconds=(datetime.now(UTC) - begun).total_seconds(),
        )
        unfinished.rename(directory / DUMP)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    # Last: a directory with a manifest is a whole backup.
    (directory / MANIFEST).write_text(manifest.model_dump_json(indent=2), "utf-8")
    return manifest


def checksum(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as content:
        while block := content.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


Offsets = Mapping[str, Mapping[str, Mapping[int, int]]]


async def _offsets(
    settings: CommonSettings,
) -> tuple[dict[str, dict[str, dict[int, int]]] | None, dict[str, dict[int, int]]]:
    try:
        found = await kafka.lags(settings, kafka.groups_of(SERVICES))
    except (KafkaError, OSError, TimeoutError):
        return None, {}
    offsets: dict[str, dict[str, dict[int, int]]] = {}
    ends: dict[str, dict[int, int]] = {}
    for item in found:
        offsets.setdefault(item.group, {}).setdefault(item.topic, {})[item.partition] = item.position
        ends.setdefault(item.topic, {})[item.partition] = item.end
    return offsets, ends
