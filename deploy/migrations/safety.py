"""Whether a migration may run beside services of before and after it: it adds (expands), or says why it does not.

During a roll-out old and new code run side by side, and services go on working while a migration runs. So a migration
must neither take away what running code may use, nor lock a table for longer than a moment. Squawk reads its SQL and
finds both. A migration that takes something away in a later release (contracts) says so: `contract = "why nothing that
runs needs it any more"`.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Final

from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory

from deploy.migrations import DIRECTORY, config_of
from shared.database import SERVICES

_EXCLUDED: Final = (
    "prefer-robust-stmts",  # each runs in one transaction: nothing is half done
    "require-timeout-settings",  # whoever runs them sets lock_timeout
    "prefer-bigint-over-int",  # counts within a ticket
)
_ROWS: Final = re.compile(
    r"^\s*(UPDATE|DELETE|INSERT INTO \S+\s+(\([^)]*\)\s*)?SELECT)\b", re.IGNORECASE | re.MULTILINE
)
WHAT_TO_DO: Final = (
    "expand first (add a column that may be null, an index CONCURRENTLY in `op.get_context().autocommit_block()`, a "
    'constraint NOT VALID), contract in a later release in a migration that says `contract = "why"`; '
    "docs/operations.md tells how"
)


class NoSquawk(Exception):
    """The program squawk is not installed: `make setup`."""


def check(directory: Path = DIRECTORY) -> list[str]:
    """What is unsafe in which migration; empty when all may run beside services. Raises NoSquawk."""
    found = []
    for service in SERVICES:
        script = ScriptDirectory.from_config(config_of(service, directory))
        for revision in script.walk_revisions():
            found += [f"{revision.revision}: {problem}" for problem in problems(revision.module)]
    return sorted(found)


def problems(migration: ModuleType) -> list[str]:
    contract = getattr(migration, "contract", None)
    if contract is not None:
        return [] if isinstance(contract, str) and contract.strip() else ["`contract` must say why it may be"]
    sql = sql_of(migration)
    rewriting = ["changes rows in the migration: a long lock on many rows"] if _ROWS.search(sql) else []
    return rewriting + _squawk(sql)


def sql_of(migration: ModuleType) -> str:
    """What `upgrade` would run. It must not read the database."""
    written = io.StringIO()
    context = MigrationContext.configure(
        dialect_name="postgresql", opts={"as_sql": True, "output_buffer": written, "transactional_ddl": False}
    )
    with Operations.context(context):
        migration.upgrade()
    return written.getvalue()


def _squawk(sql: str) -> list[str]:
    program = shutil.which("squawk", path=str(Path(sys.executable).parent)) or shutil.which("squawk")
    if program is None:
        raise NoSquawk("squawk is not installed: `make setup`")
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "migration.sql"
        path.write_text(sql, "utf-8")
        command = [program, "--reporter=json", "--pg-version=18.0", f"--exclude={','.join(_EXCLUDED)}"]
        if "COMMIT" not in sql:
            command.append("--assume-in-transaction")
        result = subprocess.run([*command, str(path)], check=False, capture_output=True, text=True)
    if result.returncode not in (0, 1):
        raise NoSquawk(f"squawk cannot check: {result.stderr.strip()[:300]}")
    return [f"{item['rule_name']}: {item['message']}" for item in json.loads(result.stdout or "[]")]
