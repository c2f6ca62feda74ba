"""`migrations status|check|upgrade`: schemas forward, beside running services."""

from __future__ import annotations

import argparse
from typing import Any

from alembic.script import ScriptDirectory

from deploy.migrations import MigrationBlocked, config_of, safety, upgrade_all
from deploy.ops import postgres
from deploy.ops.console import (
    REFUSED,
    Refused,
    Unusable,
    add_changing,
    add_command,
    add_json,
    add_verbs,
    confirm,
    say,
    table,
    tell,
)
from shared.database import SERVICES
from shared.settings import CommonSettings


def register(nouns: argparse._SubParsersAction[Any]) -> None:
    verbs = add_verbs(nouns, "migrations", help="bring the schemas forward beside running services")
    status = add_command(
        verbs,
        "status",
        help="which migrations are due; exit status 1 if any is",
        says="Each schema, where it is and where this code's migrations end. Exit status 1 if any is behind.",
        examples="migrations status\nmigrations status --json",
    )
    add_json(status)
    status.set_defaults(run=_status)
    checking = add_command(
        verbs,
        "check",
        help="find migrations that must not run beside services; no database needed",
        says="Read the SQL of every migration: what takes something away, rewrites rows or locks a table for "
        'long must say so in the migration (`contract = "why"`). Needs squawk (`make setup`).',
        examples="migrations check",
    )
    checking.set_defaults(run=_check)
    upgrading = add_command(
        verbs,
        "upgrade",
        help="run what is due; services go on running",
        says="Bring every schema to its head, each migration in a transaction of its own. A table that is locked "
        "is not waited for longer than two seconds, so that services do not wait behind the migration; it "
        "is tried again. Expand before the new services start, contract after the old ones are gone.",
        examples="migrations upgrade --dry-run\nmigrations upgrade --yes",
    )
    add_changing(upgrading)
    upgrading.set_defaults(run=_upgrade)


async def _due(settings: CommonSettings) -> dict[str, tuple[str | None, str, list[str]]]:
    """Per service: where its schema is, where it ends, what lies between."""
    async with postgres.engine(settings) as engine, engine.connect() as connection:
        at = await postgres.heads(connection)
    found = {}
    for service in SERVICES:
        script = ScriptDirectory.from_config(config_of(service))
        head = script.get_current_head() or ""
        known = {revision.revision for revision in script.walk_revisions()}
        if at[service] is not None and at[service] not in known:
            raise Refused(
                f"{service} is at {at[service]}, which this code does not know: it is older than the database"
            )
        due = [item.revision for item in script.iterate_revisions(head, at[service] or "base")][::-1]
        found[service] = (at[service], head, due)
    return found


async def _status(chosen: argparse.Namespace) -> int:
    due = await _due(CommonSettings())
    if chosen.json:
        tell({service: {"at": at, "head": head, "due": between} for service, (at, head, between) in due.items()})
    else:
        rows = [(service, at or "-", head, ", ".join(between)) for service, (at, head, between) in due.items()]
        print(table(("schema", "at", "head", "due"), rows))
    return REFUSED if any(between for _, _, between in due.values()) else 0


async def _check(_: argparse.Namespace) -> int:
    try:
        unsafe = safety.check()
    except safety.NoSquawk as error:
        raise Unusable(str(error)) from None
    for problem in unsafe:
        print(problem)
    say(safety.WHAT_TO_DO if unsafe else "every migration may run beside services")
    return REFUSED if unsafe else 0


async def _upgrade(chosen: argparse.Namespace) -> int:
    settings = CommonSettings()
    due = [revision for _, _, between in (await _due(settings)).values() for revision in between]
    if not due:
        say("all schemas are at their heads")
        return 0
    for revision in due:
        say(f"run {revision}")
    if not confirm(chosen, f"run {len(due)} migrations"):
        return 0
    try:
        await upgrade_all(settings.database_url.get_secret_value())
    except MigrationBlocked as error:
        raise Refused(str(error)) from None
    say("all schemas are at their heads")
    return 0
