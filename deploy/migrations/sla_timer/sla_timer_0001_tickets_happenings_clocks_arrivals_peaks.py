"""Tables of the sla_timer: tickets, what happened to them, clocks, arrivals, peaks, deadlines, outbox.

Revision sla_timer_0001, after nothing.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "sla_timer_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "arrivals",
        sa.Column("ticket_id", sa.Uuid(), nullable=False),
        sa.Column("brand", sa.Text(), nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("ticket_id", name=op.f("pk_arrivals")),
        schema="sla_timer",
    )
    op.create_index("ix_arrivals_at", "arrivals", ["at"], unique=False, schema="sla_timer")
    op.create_table(
        "clocks",
        sa.Column("clock_id", sa.Uuid(), nullable=False),
        sa.Column("ticket_id", sa.Uuid(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("brand", sa.Text(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("queue", sa.Text(), nullable=True),
        sa.Column("priority", sa.Text(), nullable=False),
        sa.Column("policy", sa.Text(), nullable=False),
        sa.Column("calendar", sa.Text(), nullable=False),
        sa.Column("target_seconds", sa.Integer(), nullable=False),
        sa.Column("warnings", postgresql.ARRAY(sa.Float()), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("breached_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("used_seconds", sa.Integer(), nullable=True),
        sa.Column("course", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("told", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("clock_id", name=op.f("pk_clocks")),
        schema="sla_timer",
    )
    op.create_index(
        "ix_clocks_open",
        "clocks",
        ["target", "due_at"],
        unique=False,
        schema="sla_timer",
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    op.create_index("ix_clocks_started_at", "clocks", ["started_at"], unique=False, schema="sla_timer")
    op.create_index("ix_clocks_ticket_id", "clocks", ["ticket_id"], unique=False, schema="sla_timer")
    op.create_table(
        "deadlines",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subject", sa.Uuid(), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("planned_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deadlines")),
        schema="sla_timer",
    )
    op.create_index(op.f("ix_deadlines_due_at"), "deadlines", ["due_at"], unique=False, schema="sla_timer")
    op.create_table(
        "happenings",
        sa.Column("ticket_id", sa.Uuid(), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("queue", sa.Text(), nullable=True),
        sa.Column("priority", sa.Text(), nullable=True),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("ticket_id", "event_id", name=op.f("pk_happenings")),
        schema="sla_timer",
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("traceparent", sa.Text(), nullable=False),
        sa.Column("stored_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
        schema="sla_timer",
    )
    op.create_table(
        "peaks",
        sa.Column("brand", sa.Text(), nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("began_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expected_arrivals", sa.Float(), nullable=False),
        sa.Column("seen_arrivals", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("brand", "queue", "began_at", name=op.f("pk_peaks")),
        schema="sla_timer",
    )
    op.create_index(
        "ix_peaks_active",
        "peaks",
        ["brand", "queue"],
        unique=True,
        schema="sla_timer",
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    op.create_table(
        "tickets",
        sa.Column("ticket_id", sa.Uuid(), nullable=False),
        sa.Column("brand", sa.Text(), nullable=True),
        sa.Column("channel", sa.Text(), nullable=True),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("version", sa.Text(), nullable=True),
        sa.Column("has_open", sa.Boolean(), nullable=False),
        sa.Column("alarm_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("ticket_id", name=op.f("pk_tickets")),
        schema="sla_timer",
    )
    op.create_index(
        "ix_tickets_open_by_version",
        "tickets",
        ["version"],
        unique=False,
        schema="sla_timer",
        postgresql_where=sa.text("has_open"),
    )


def downgrade() -> None:
    op.drop_index(
        "ix_tickets_open_by_version", table_name="tickets", schema="sla_timer", postgresql_where=sa.text("has_open")
    )
    op.drop_table("tickets", schema="sla_timer")
    op.drop_index(
        "ix_peaks_active", table_name="peaks", schema="sla_timer", postgresql_where=sa.text("ended_at IS NULL")
    )
    op.drop_table("peaks", schema="sla_timer")
    op.drop_table("outbox", schema="sla_timer")
    op.drop_table("happenings", schema="sla_timer")
    op.drop_index(op.f("ix_deadlines_due_at"), table_name="deadlines", schema="sla_timer")
    op.drop_table("deadlines", schema="sla_timer")
    op.drop_index("ix_clocks_ticket_id", table_name="clocks", schema="sla_timer")
    op.drop_index("ix_clocks_started_at", table_name="clocks", schema="sla_timer")
    op.drop_index(
        "ix_clocks_open", table_name="clocks", schema="sla_timer", postgresql_where=sa.text("ended_at IS NULL")
    )
    op.drop_table("clocks", schema="sla_timer")
    op.drop_index("ix_arrivals_at", table_name="arrivals", schema="sla_timer")
    op.drop_table("arrivals", schema="sla_timer")
