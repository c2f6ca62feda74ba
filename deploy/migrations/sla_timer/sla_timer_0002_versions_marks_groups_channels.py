"""What a promise was computed from, what is told on its way, who met it; peaks by channel; the history of policies.

Nothing has been released with the column `warnings`: it goes at once. Clocks that are open are planned anew after the
migration, because their tickets' version is taken from them.

Revision sla_timer_0002, after sla_timer_0001.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "sla_timer_0002"
down_revision = "sla_timer_0001"
branch_labels = None
depends_on = None
contract = "nothing had been released with the tables as they were before"

_SCHEMA = "sla_timer"


def upgrade() -> None:
    op.create_table(
        "policies",
        sa.Column("number", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("rules", postgresql.JSONB(), nullable=False),
        sa.Column("calendars", postgresql.JSONB(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_policies")),
        schema=_SCHEMA,
    )
    op.create_table(
        "calendars",
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("spec", postgresql.JSONB(), nullable=False),
        sa.PrimaryKeyConstraint("version", name=op.f("pk_calendars")),
        schema=_SCHEMA,
    )
    for table in ("happenings", "clocks"):
        op.add_column(table, sa.Column("category", sa.Text(), nullable=True), schema=_SCHEMA)
        op.add_column(table, sa.Column("agent_group", sa.Text(), nullable=True), schema=_SCHEMA)
    for column in ("policy_version", "calendar_version"):
        _add_filled(column, sa.Text(), "''")
    for column in ("marks", "alarms"):
        _add_filled(column, postgresql.JSONB(), "'[]'")
    op.add_column("clocks", sa.Column("next_alarm_at", sa.DateTime(timezone=True), nullable=True), schema=_SCHEMA)
    op.drop_column("clocks", "warnings", schema=_SCHEMA)
    op.execute("UPDATE sla_timer.tickets SET version = '' WHERE has_open")

    op.create_index("ix_arrivals_brand_at", "arrivals", ["brand", "at"], unique=False, schema=_SCHEMA)
    op.add_column("peaks", sa.Column("channel", sa.Text(), nullable=False, server_default="*"), schema=_SCHEMA)
    op.alter_column("peaks", "channel", server_default=None, schema=_SCHEMA)
    op.add_column("peaks", sa.Column("cause", sa.Text(), nullable=True), schema=_SCHEMA)
    op.add_column("peaks", sa.Column("staff_needed", sa.Integer(), nullable=True), schema=_SCHEMA)
    op.drop_constraint("pk_peaks", "peaks", schema=_SCHEMA)
    op.create_primary_key("pk_peaks", "peaks", ["brand", "queue", "channel", "began_at"], schema=_SCHEMA)
    op.drop_index("ix_peaks_active", "peaks", schema=_SCHEMA)
    op.create_index(
        "ix_peaks_active",
        "peaks",
        ["brand", "queue", "channel"],
        unique=True,
        schema=_SCHEMA,
        postgresql_where=sa.text("ended_at IS NULL"),
    )


def _add_filled(column: str, kind: sa.types.TypeEngine[Any], value: str) -> None:
    """A column of `clocks` that must have a value, given to the rows that are there."""
    op.add_column("clocks", sa.Column(column, kind, nullable=False, server_default=sa.text(value)), schema=_SCHEMA)
    op.alter_column("clocks", column, server_default=None, schema=_SCHEMA)


def downgrade() -> None:
    op.drop_index("ix_arrivals_brand_at", "arrivals", schema=_SCHEMA)
    op.drop_index("ix_peaks_active", "peaks", schema=_SCHEMA)
    op.execute("DELETE FROM sla_timer.peaks WHERE channel <> '*'")
    op.drop_constraint("pk_peaks", "peaks", schema=_SCHEMA)
    op.create_primary_key("pk_peaks", "peaks", ["brand", "queue", "began_at"], schema=_SCHEMA)
    op.create_index(
        "ix_peaks_active",
        "peaks",
        ["brand", "queue"],
        unique=True,
        schema=_SCHEMA,
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    for column in ("staff_needed", "cause", "channel"):
        op.drop_column("peaks", column, schema=_SCHEMA)
    _add_filled("warnings", postgresql.ARRAY(sa.Float()), "'{}'")
    for column in ("next_alarm_at", "alarms", "marks", "calendar_version", "policy_version"):
        op.drop_column("clocks", column, schema=_SCHEMA)
    for table in ("clocks", "happenings"):
        op.drop_column(table, "agent_group", schema=_SCHEMA)
        op.drop_column(table, "category", schema=_SCHEMA)
    op.drop_table("calendars", schema=_SCHEMA)
    op.drop_table("policies", schema=_SCHEMA)
