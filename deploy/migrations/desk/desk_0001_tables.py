"""Tables of the desk: tickets as they stand, their history, requests, peaks, deadlines, outbox.

Revision desk_0001, after nothing.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "desk_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "deadlines",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subject", sa.Uuid(), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("planned_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deadlines")),
        schema="desk",
    )
    op.create_index(op.f("ix_deadlines_due_at"), "deadlines", ["due_at"], unique=False, schema="desk")
    op.create_table(
        "history",
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("ticket_id", sa.Uuid(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("payload", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.PrimaryKeyConstraint("event_id", name=op.f("pk_history")),
        schema="desk",
    )
    op.create_index("ix_history_ticket_id", "history", ["ticket_id", "at", "event_id"], unique=False, schema="desk")
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("traceparent", sa.Text(), nullable=False),
        sa.Column("stored_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
        schema="desk",
    )
    op.create_table(
        "peaks",
        sa.Column("brand", sa.Text(), nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("began_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expected_arrivals", sa.Float(), nullable=False),
        sa.Column("seen_arrivals", sa.Integer(), nullable=False),
        sa.Column("staff_needed", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("brand", "queue", name=op.f("pk_peaks")),
        schema="desk",
    )
    op.create_table(
        "requests",
        sa.Column("agent", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("ticket_id", sa.Uuid(), nullable=True),
        sa.Column("stored_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("agent", "key", name=op.f("pk_requests")),
        schema="desk",
    )
    op.create_index("ix_requests_stored_at", "requests", ["stored_at"], unique=False, schema="desk")
    op.create_table(
        "tickets",
        sa.Column("ticket_id", sa.Uuid(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("queue", sa.Text(), nullable=True),
        sa.Column("category", sa.Text(), nullable=True),
        sa.Column("priority", sa.Text(), nullable=True),
        sa.Column("enqueued_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("rank_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("claimed_by", sa.Text(), nullable=True),
        sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("claim_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("state_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("acted_here", sa.Boolean(), nullable=False),
        sa.Column("resolved_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("corrected_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("routed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("brand", sa.Text(), nullable=True),
        sa.Column("channel", sa.Text(), nullable=True),
        sa.Column("language", sa.Text(), nullable=True),
        sa.Column("subject", sa.Text(), nullable=True),
        sa.Column("text", sa.Text(), nullable=True),
        sa.Column("text_sequence", sa.Integer(), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("clocks", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("next_due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("breached", sa.Boolean(), nullable=False),
        sa.Column("decision", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.PrimaryKeyConstraint("ticket_id", name=op.f("pk_tickets")),
        schema="desk",
    )
    op.create_index(
        "ix_tickets_claimed_by",
        "tickets",
        ["claimed_by", "rank_at", "enqueued_at", "ticket_id"],
        unique=False,
        schema="desk",
        postgresql_where=sa.text("state != 'resolved'"),
    )
    op.create_index(
        "ix_tickets_open",
        "tickets",
        ["queue"],
        unique=False,
        schema="desk",
        postgresql_where=sa.text("state != 'resolved'"),
    )
    op.create_index(
        "ix_tickets_queue_order",
        "tickets",
        ["queue", "rank_at", "enqueued_at", "ticket_id"],
        unique=False,
        schema="desk",
        postgresql_where=sa.text("state = 'queued' AND rank_at IS NOT NULL"),
    )
    op.create_index(
        "ix_tickets_state_order",
        "tickets",
        ["state", "rank_at", "enqueued_at", "ticket_id"],
        unique=False,
        schema="desk",
        postgresql_where=sa.text("rank_at IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index(
        "ix_tickets_state_order", table_name="tickets", schema="desk", postgresql_where=sa.text("rank_at IS NOT NULL")
    )
    op.drop_index(
        "ix_tickets_queue_order",
        table_name="tickets",
        schema="desk",
        postgresql_where=sa.text("state = 'queued' AND rank_at IS NOT NULL"),
    )
    op.drop_index(
        "ix_tickets_open", table_name="tickets", schema="desk", postgresql_where=sa.text("state != 'resolved'")
    )
    op.drop_index(
        "ix_tickets_claimed_by", table_name="tickets", schema="desk", postgresql_where=sa.text("state != 'resolved'")
    )
    op.drop_table("tickets", schema="desk")
    op.drop_index("ix_requests_stored_at", table_name="requests", schema="desk")
    op.drop_table("requests", schema="desk")
    op.drop_table("peaks", schema="desk")
    op.drop_table("outbox", schema="desk")
    op.drop_index("ix_history_ticket_id", table_name="history", schema="desk")
    op.drop_table("history", schema="desk")
    op.drop_index(op.f("ix_deadlines_due_at"), table_name="deadlines", schema="desk")
    op.drop_table("deadlines", schema="desk")
