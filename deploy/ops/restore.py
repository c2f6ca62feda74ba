"""`restore`: a backup into a database, and the groups back to where they were when it was taken."""

from __future__ import annotations

import argparse
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from aiokafka import TopicPartition
from pydantic import ValidationError
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from deploy.migrations import upgrade_all
from deploy.ops import groups as kafka
from deploy.ops import postgres, recovery
from deploy.ops.backup import DUMP, MANIFEST, Manifest, add_pg_bin, checksum
from deploy.ops.console import Refused, Unusable, add_changing, add_command, confirm, point_in_time, say
from shared.database import SERVICES
from shared.settings import CommonSettings

_BACKUP: Final = "backup"
_NOWHERE: Final = "nowhere"
_ASIDE: Final = "_before_restore"


def register(nouns: argparse._SubParsersAction[Any]) -> None:
    parser = add_command(
        nouns,
        "restore",
        help="a backup into the database, and the groups back to its time",
        says="Restore a backup into the database of DATABASE_URL. All services must be stopped. Refuses a "
        "database that holds rows, unless --force says that they are to be dropped.\n\n"
        "Then, so that nothing that came since is lost or told twice: intake is told from the log which "
        "messages it had accepted, the notifier what it had delivered, and every group is set back to where "
        "it was (--rewind-to backup) or to a time. What is taken again has the ids it had, and so no second "
        "effect. docs/operations.md says what a restore cannot bring back.",
        examples="restore /var/backups/switchyard/2026-11-26 --dry-run\n"
        "restore /var/backups/switchyard/2026-11-26 --force\n"
        "restore /var/backups/switchyard/2026-11-26 --rewind-to 2026-11-26T03:00:00+08:00",
    )
    parser.add_argument("directory", type=Path, help="with the backup")
    parser.add_argument(
        "--rewind-to",
        default=_BACKUP,
        type=_rewinding,
        metavar="WHERE",
        help="backup: where the groups were then; a time, or how long ago (2h), before the oldest that waited; "
        "nowhere: leave the groups alone (backup)",
    )
    parser.add_argument("--force", action="store_true", help="drop what is in the schemas of the database")
    add_pg_bin(parser)
    add_changing(parser)
    parser.set_defaults(run=_run)


def _rewinding(value: str) -> str | datetime:
    return value if value in (_BACKUP, _NOWHERE) else point_in_time(value)


def read_manifest(directory: Path) -> Manifest:
    """Raises Unusable when the backup is not whole."""
    path = directory / MANIFEST
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
        found = checksum(directory / DUMP)
    except OSError as error:
        raise Unusable(f"{directory} is no whole backup: {error.filename}: {error.strerror}") from None
    except ValidationError as error:
        raise Unusable(f"{path} is no manifest: {error.errors()[0]['msg']}") from None
    if found != manifest.sha256:
        raise Unusable(f"{directory / DUMP} is damaged: its checksum is {found}, the manifest says {manifest.sha256}")
    return manifest


async def _run(chosen: argparse.Namespace) -> int:
    manifest = read_manifest(chosen.directory)
    settings = CommonSettings()
    rewind = chosen.rewind_to
    if rewind == _BACKUP and manifest.offsets is None:
        raise Unusable(
            "the backup keeps no offsets (Kafka was away): give a time, --rewind-to 2026-11-26T03:00:00+08:00"
        )
    async with postgres.engine(settings) as engine, engine.connect() as connection:
        server = await postgres.server_major(connection)
        held = await postgres.count_rows(connection, await postgres.tables(connection))
        await postgres.refuse_if_connected(connection)
    program = await postgres.program("pg_restore", max(server, manifest.server), chosen.pg_bin)
    if rewind != _NOWHERE:
        await kafka.refuse_if_running(settings, SERVICES, "their groups are to be set back")
    rows = sum(count for name, count in held.items() if not name.endswith(".alembic_version"))
    say(f"{chosen.directory}: {sum(manifest.rows.values())} rows, taken at {manifest.taken_at:%Y-%m-%d %H:%M:%S %Z}")
    if rows and not chosen.force:
        raise Refused(
            f"the database holds {rows} rows in our schemas: restore into an empty one, or --force drops them"
        )
    if rows:
        say(f"{rows} rows that the database holds now are dropped")
    offsets = await _where(settings, manifest, rewind)
    behind = await _behind(settings, offsets)
    if offsets:
        say(f"the groups take {behind} records again")
    if not confirm(chosen, "restore it"):
        return 0
    await _restore(settings, program, chosen.directory, manifest)
    say(f"restored and counted: {len(manifest.rows)} tables as they were")
    await upgrade_all(settings.database_url.get_secret_value())
    if offsets:
        learnt = await recovery.learn(settings, _since(offsets))
        say(
            f"from the log: {learnt.messages} messages that intake had accepted, "
            f"{learnt.notifications} notifications that were done with"
        )
        await kafka.move(settings, offsets)
        say(f"{len(offsets)} groups were set back; start the services")
    return 0


Places = dict[str, dict[TopicPartition, int]]


async def _where(settings: CommonSettings, manifest: Manifest, rewind: str | datetime) -> Places:
    """Where each group is to go on; never forward of where it is."""
    if rewind == _NOWHERE:
        return {}
    now = await kafka.lags(settings, kafka.groups_of(SERVICES))
    wanted: dict[tuple[str, str, int], int] = {}
    if isinstance(rewind, datetime):
        wanted = await _at(settings, rewind)
    else:
        for group, by_topic in (manifest.offsets or {}).items():
            for topic, parts in by_topic.items():
                wanted |= {(group, topic, part): offset for part, offset in parts.items()}
    places: Places = {}
    for item in now:
        # A partition that the backup does not know is newer than it: all of it is to be taken.
        offset = wanted.get((item.group, item.topic, item.partition), item.begin)
        places.setdefault(item.group, {})[TopicPartition(item.topic, item.partition)] = min(
            max(offset, item.begin), item.position
        )
    return places


async def _at(settings: CommonSettings, time: datetime) -> dict[tuple[str, str, int], int]:
    """The first record of each partition with a time stamp from then on."""
    items = await kafka.lags(settings, kafka.groups_of(SERVICES))
    ends = {TopicPartition(item.topic, item.partition): item.end for item in items}
    reader = kafka.consumer(settings)
    await reader.start()
    try:
        found = await reader.offsets_for_times({place: int(time.timestamp() * 1000) for place in ends})
    finally:
        await reader.stop()
    at = {place: ends[place] if known is None else known.offset for place, known in found.items()}
    return {(item.group, item.topic, item.partition): at[TopicPartition(item.topic, item.partition)] for item in items}


async def _behind(settings: CommonSettings, offsets: Places) -> int:
    items = await kafka.lags(settings, kafka.groups_of(SERVICES)) if offsets else []
    return sum(
        item.position - offsets[item.group][TopicPartition(item.topic, item.partition)]
        for item in items
        if item.group in offsets
    )


def _since(offsets: Places) -> dict[TopicPartition, int]:
    """The earliest place at which any group goes on, by partition."""
    since: dict[TopicPartition, int] = {}
    for places in offsets.values():
        for place, offset in places.items():
            since[place] = min(offset, since.get(place, offset))
    return since


async def _restore(settings: CommonSettings, program: Path, directory: Path, manifest: Manifest) -> None:
    """Put what is there aside, restore and compare, and only then drop it. Raises Refused; all is as it was then."""
    environment = postgres.client_environment(settings.database_url.get_secret_value())
    async with postgres.engine(settings) as engine:
        async with engine.begin() as connection:
            await _set_aside(connection)
        try:
            await postgres.run(
                [
                    *(program, "--single-transaction", "--exit-on-error", "--no-owner", "--no-privileges"),
                    *(f"--dbname={environment['PGDATABASE']}", directory / DUMP),
                ],
                environment,
            )
            differences = await _differences(settings, manifest)
            if differences:
                raise Refused("what was restored is not what was backed up: " + "; ".join(differences[:10]))
        except BaseException:
            async with engine.begin() as connection:
                await _take_back(connection)
            raise
        async with engine.begin() as connection:
            for service in SERVICES:
                await connection.execute(text(f"DROP SCHEMA IF EXISTS {service}{_ASIDE} CASCADE"))


async def _set_aside(connection: AsyncConnection) -> None:
    there = await _schemas(connection)
    left = sorted(name for name in there if name.endswith(_ASIDE))
    if left:
        raise Refused(f"a restore was broken off and left {', '.join(left)}: rename or drop these schemas first")
    for service in there & set(SERVICES):
        await connection.execute(text(f"ALTER SCHEMA {service} RENAME TO {service}{_ASIDE}"))


async def _take_back(connection: AsyncConnection) -> None:
    there = await _schemas(connection)
    for service in SERVICES:
        await connection.execute(text(f"DROP SCHEMA IF EXISTS {service} CASCADE"))
        if f"{service}{_ASIDE}" in there:
            await connection.execute(text(f"ALTER SCHEMA {service}{_ASIDE} RENAME TO {service}"))


async def _schemas(connection: AsyncConnection) -> set[str]:
    ours = [*SERVICES, *(f"{service}{_ASIDE}" for service in SERVICES)]
    rows = await connection.execute(text("SELECT nspname FROM pg_namespace WHERE nspname = ANY(:ours)"), {"ours": ours})
    return set(rows.scalars())


async def _differences(settings: CommonSettings, manifest: Manifest) -> list[str]:
    async with postgres.engine(settings) as engine, engine.connect() as connection:
        rows = await postgres.count_rows(connection, await postgres.tables(connection))
        heads = await postgres.heads(connection)
    return [
        f"{name}: {rows.get(name)} rows instead of {manifest.rows.get(name)}"
        for name in sorted(rows.keys() | manifest.rows.keys())
        if rows.get(name) != manifest.rows.get(name)
    ] + [
        f"{service} is at {heads[service]}, not {head}"
        for service, head in manifest.heads.items()
        if heads[service] != head
    ]
