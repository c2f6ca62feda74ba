"""`purge`, `clocks replan`, `drain`, `migrations`: beside running services."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import types
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest

from deploy.migrations import DIRECTORY, MigrationBlocked, safety, upgrade_all
from deploy.processes import REPOSITORY
from tests.ops.conftest import Installation, message
from tests.ops.test_backup_and_restore import agent_works
from tests.support.waiting import eventually

_YEARS_AGO = timedelta(days=800)

POLICIES = Path(__file__).with_name("sla.yaml").read_text("utf-8")


async def test_purge_deletes_what_is_old_and_a_customer_who_writes_opens_a_new_ticket(running: Installation) -> None:
    who = uuid.uuid4().hex[:8]
    await running.write(6, who)
    await running.settled()
    done = await agent_works(running, 1000)
    await running.settled()
    old = uuid.UUID(done[0])
    customer = await running.value(
        "SELECT customer_id FROM intake.tickets JOIN intake.conversations USING (conversation_id) WHERE ticket_id = $1",
        old,
    )
    for statement in (
        "UPDATE desk.tickets SET resolved_at = $2, state_at = $2 WHERE ticket_id = $1",
        "UPDATE intake.tickets SET resolved_at = $2, last_message_at = $2, activity_at = $2, is_open = false "
        "WHERE ticket_id = $1",
        "UPDATE classifier.tickets SET resolved_at = $2 WHERE ticket_id = $1",
    ):
        await running.rows(statement, old, datetime.now(UTC) - _YEARS_AGO)
    assert (await running.ops("purge", "--older-than", "10d", "--yes")).status == 2, "topics may bring them again"
    told = await running.ops("purge", "--dry-run", "--json")
    assert told.json == {"tickets": {"desk": 1, "intake": 1, "classifier": 1}}
    assert await running.value("SELECT count(*) FROM desk.tickets WHERE ticket_id = $1", old) == 1
    assert (await running.ops("purge", "--yes")).status == 0
    for table in (
        "desk.tickets",
        "desk.history",
        "desk.points",
        "intake.tickets",
        "intake.messages",
        "classifier.decisions",
    ):
        assert await running.value(f"SELECT count(*) FROM {table} WHERE ticket_id = $1", old) == 0, table
    assert await running.value("SELECT count(*) FROM desk.tickets WHERE ticket_id = $1", uuid.UUID(done[1])) == 1
    brand_channel = await running.rows(
        "SELECT brand, channel FROM intake.conversations WHERE customer_id = $1", customer
    )
    assert brand_channel, "his conversation was heard of lately"
    await running.publish([message(customer, "又来了", datetime.now(UTC).isoformat())])
    await running.settled()
    tickets = await running.rows(
        "SELECT ticket_id FROM intake.tickets JOIN intake.conversations USING (conversation_id) WHERE customer_id = $1",
        customer,
    )
    assert len(tickets) == 1
    assert tickets[0]["ticket_id"] != old


async def test_a_customer_is_forgotten_in_every_schema(running: Installation) -> None:
    who = uuid.uuid4().hex[:8]
    await running.publish([message(who, "充值没到账", datetime.now(UTC).isoformat())])
    await running.settled()
    named = f"u_wallet/app_chat/{who}"
    assert "not resolved" in (await running.ops("purge", "--customer", named, "--yes")).err
    await agent_works(running, 1000)
    await running.settled()
    forgotten = await running.ops("purge", "--customer", named, "--yes")
    assert forgotten.status == 0, forgotten.err
    connection = await asyncpg.connect(running.stack.database_url)
    tables = await connection.fetch(
        "SELECT schemaname || '.' || tablename AS name FROM pg_tables "
        "WHERE schemaname IN ('intake', 'classifier', 'sla_timer', 'notifier', 'desk')"
    )
    for (name,) in tables:
        found = await connection.fetchval(
            f"SELECT count(*) FROM {name} AS t WHERE strpos(to_jsonb(t)::text, $1) > 0", who
        )
        assert found == 0, name
    await connection.close()
    assert (await running.ops("purge", "--customer", named, "--yes")).status == 1


async def test_clocks_are_planned_anew_under_the_policies_in_force(running: Installation, tmp_path: Path) -> None:
    await running.write(4, uuid.uuid4().hex[:8])
    await running.settled()
    nothing = await running.ops("clocks", "replan", "--yes")
    assert "nothing changes" in nothing.err, nothing.err
    # As after a restore of a database from before a change: other due times than the policies say.
    running.stack.stop_service("sla_timer")
    dues = "SELECT clock_id, due_at FROM sla_timer.clocks WHERE ended_at IS NULL AND due_at IS NOT NULL ORDER BY 1"
    right = await running.rows(dues)
    assert right
    await running.rows(
        "UPDATE sla_timer.clocks SET due_at = due_at + interval '3 hours' WHERE ended_at IS NULL AND due_at IS NOT NULL"
    )
    wrong = await running.rows(dues)
    told = await running.ops("clocks", "replan", "--dry-run", "--json")
    assert told.status == 0, told.err
    moved = told.json["moved"]
    assert sum(item["earlier"] for item in moved.values()) == len(right)
    assert all(item["earliest_seconds"] == -10800 for item in moved.values())
    assert await running.rows(dues) == wrong
    done = await running.ops("clocks", "replan", "--yes")
    assert done.status == 0, done.err
    assert await running.rows(dues) == right
    # Files that are not those in force would plan what the sla_timer plans back.
    other = tmp_path / "sla.yaml"
    in_force = running.environment["SLA_TIMER_POLICIES_FILE"]
    other.write_text(POLICIES.replace("2d", "3d"), "utf-8")
    running.environment["SLA_TIMER_POLICIES_FILE"] = str(other)
    try:
        refused = await running.ops("clocks", "replan", "--yes")
    finally:
        running.environment["SLA_TIMER_POLICIES_FILE"] = in_force
    assert refused.status == 1, refused.err
    assert "in force are" in refused.err


async def test_a_service_is_drained_under_load(running: Installation) -> None:
    """It ends although more comes in all the time: what was there at its beginning is waited for."""
    who = uuid.uuid4().hex[:8]
    stop = asyncio.Event()

    async def load() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            await running.write(5, f"{who}-{number}")

    loading = asyncio.create_task(load())
    try:
        drained = await running.ops("drain", "classifier", "--timeout", "2m", "--json")
        assert drained.status == 0, drained.err
        assert drained.json["drained"]
        running.stack.stop_service("classifier")
        await running.write(3, f"{who}-late")
        hung = await running.ops("drain", "classifier", "--timeout", "3s")
        assert hung.status == 1
        assert "nobody consumes for classifier" in hung.err
        assert "not drained in time" in hung.err
    finally:
        stop.set()
        await loading
    running.stack.start_service("classifier")
    until_stopped = asyncio.create_task(
        running.ops("drain", "notifier", "--idle", "--until-stopped", "--timeout", "3m")
    )
    await running.settled()
    await asyncio.to_thread(running.stack.stop_service, "notifier")
    stopped = await until_stopped
    assert stopped.status == 0, stopped.err
    assert "drained and stopped" in stopped.err


# --- migrations ------------------------------------------------------------------------------------------------------

_EXPAND = """
import sqlalchemy as sa
from alembic import op

revision = "intake_9999"
down_revision = "{head}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("messages", sa.Column("weight", sa.Integer(), nullable=True), schema="intake")
    with op.get_context().autocommit_block():
        op.create_index("ix_messages_weight", "messages", ["weight"], schema="intake", postgresql_concurrently=True)
"""


def _with_expansion(directory: Path) -> Path:
    shutil.copytree(DIRECTORY, directory, ignore=shutil.ignore_patterns("__pycache__"))
    head = sorted(path.name[: len("intake_0000")] for path in (directory / "intake").glob("intake_*.py"))[-1]
    (directory / "intake" / "intake_9999_weight.py").write_text(_EXPAND.format(head=head))
    return directory


async def test_an_expansion_runs_while_services_work_and_disturbs_nothing(
    running: Installation, tmp_path: Path
) -> None:
    directory = _with_expansion(tmp_path / "migrations")
    logs = {service: running.stack.log(service).stat().st_size for service in running.stack.services}
    who = uuid.uuid4().hex[:8]
    stop = asyncio.Event()
    taken = "SELECT count(*) FROM intake.messages"
    before = await running.value(taken)

    async def load() -> None:
        """Without end, but never far ahead of intake: else what waits says how slow the machine is."""
        written = 0

        async def nearly_taken() -> bool:
            return bool(await running.value(taken) >= before + written - 60)

        while not stop.is_set():
            await running.write(20, f"{who}-{written}")
            written += 20
            await eventually(nearly_taken, 120)

    loading = asyncio.create_task(load())
    try:
        # Something holds the table for longer than a migration waits for it: services go on, the migration tries again.
        blocking = await asyncpg.connect(running.stack.database_url)
        transaction = blocking.transaction()
        await transaction.start()
        await blocking.fetch("SELECT 1 FROM intake.messages LIMIT 1")
        migrating = asyncio.create_task(upgrade_all(running.stack.database_url, ("intake",), directory=directory))
        before_it = await running.value(taken)

        async def goes_on() -> bool:
            return bool(await running.value(taken) >= before_it + 60)

        await eventually(goes_on, 120)
        assert not migrating.done()
        await transaction.rollback()
        await blocking.close()
        await migrating
    finally:
        stop.set()
        await loading
    found = await running.settled()
    assert found.lost_detail == []
    columns = "SELECT count(*) FROM information_schema.columns WHERE table_schema = 'intake' AND column_name = 'weight'"
    assert await running.value(columns) == 1
    assert await running.value(
        "SELECT indisvalid FROM pg_index WHERE indexrelid = 'intake.ix_messages_weight'::regclass"
    )
    for service, size in logs.items():
        with running.stack.log(service).open("rb") as log:
            log.seek(size)
            said = log.read().decode()
        assert " ERROR " not in said, f"{service}: {said[-2000:]}"
    behind = await running.ops("migrations", "status")
    assert behind.status == 1, "a database that is newer than the code is named"
    assert "intake_9999" in behind.err
    await running.rows("ALTER TABLE intake.messages DROP COLUMN weight")
    await running.rows("UPDATE intake.alembic_version SET version_num = $1", _head_below(directory))
    assert (await running.ops("migrations", "status")).status == 0


def _head_below(directory: Path) -> str:
    return sorted(path.name[: len("intake_0000")] for path in (directory / "intake").glob("intake_0*.py"))[-1]


async def test_a_lock_that_is_never_let_go_is_named(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploy.migrations._TRIES", 1)
    directory = _with_expansion(tmp_path / "migrations")
    connection = await asyncpg.connect(database)
    async with connection.transaction():
        await connection.execute("LOCK TABLE intake.messages")
        with pytest.raises(MigrationBlocked, match="pg_stat_activity"):
            await upgrade_all(database, ("intake",), directory=directory)
    await connection.close()


def _migration(body: str, contract: str | None = None) -> types.ModuleType:
    module = types.ModuleType("migration")
    exec(f"import sqlalchemy as sa\nfrom alembic import op\ndef upgrade():\n    {body}\n", module.__dict__)
    if contract is not None:
        module.__dict__["contract"] = contract
    return module


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        ('op.drop_column("tickets", "text", schema="desk")', "ban-drop-column"),
        ('op.drop_table("links", schema="desk")', "ban-drop-table"),
        ('op.alter_column("tickets", "text", new_column_name="words", schema="desk")', "renaming-column"),
        ('op.alter_column("tickets", "sequence", type_=sa.BigInteger(), schema="desk")', "changing-column-type"),
        ('op.create_index("ix_x", "tickets", ["brand"], schema="desk")', "require-concurrent-index-creation"),
        (
            'op.add_column("tickets", sa.Column("x", sa.Integer(), nullable=False), schema="desk")',
            "adding-required-field",
        ),
        ("op.execute(\"UPDATE desk.tickets SET brand = ''\")", "changes rows"),
    ],
)
def test_what_must_not_run_beside_services_is_found(body: str, rule: str) -> None:
    assert any(rule in problem for problem in safety.problems(_migration(body))), safety.problems(_migration(body))
    assert safety.problems(_migration(body, contract="nothing reads it since 0.4")) == []
    assert safety.problems(_migration(body, contract=" ")) != []


def test_what_only_adds_is_safe() -> None:
    added = 'op.add_column("tickets", sa.Column("x", sa.Integer(), nullable=True), schema="desk")'
    assert safety.problems(_migration(added)) == []
    assert safety.check() == []


# --- the command line ------------------------------------------------------------------------------------------------


def test_the_program_tells_of_itself_and_of_what_is_wrong() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "deploy.ops", "dead-letters", "replay", "--help"],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=False,
    )
    assert told.returncode == 0
    assert "examples:" in told.stdout
    wrong = subprocess.run(
        [sys.executable, "-m", "deploy.ops", "topics", "create", "--replication", "many"],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=False,
    )
    assert wrong.returncode == 2
