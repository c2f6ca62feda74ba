"""Tickets, decisions, feedback

Revision classifier_0001, after nothing.
"""

import sqlalchemy as sa
from alembic import op

revision = "classifier_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "decisions",
        sa.Column("cause_id", sa.Uuid(), nullable=False),
        sa.Column("ticket_id", sa.Uuid(), nullable=False),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("record_offset", sa.BigInteger(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("cause_id", name=op.f("pk_decisions")),
        schema="classifier",
    )
    op.create_index("ix_decisions_decided_at", "decisions", ["decided_at"], unique=False, schema="classifier")
    op.create_index("ix_decisions_ticket_id", "decisions", ["ticket_id"], unique=False, schema="classifier")
    op.create_table(
        "feedback",
        sa.Column("activity_id", sa.Uuid(), nullable=False),
        sa.Column("ticket_id", sa.Uuid(), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("agent", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("confidence", sa.Float(), nullable=False),
        sa.Column("category", sa.Text(), nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("priority", sa.Text(), nullable=False),
        sa.Column("corrected_category", sa.Text(), nullable=True),
        sa.Column("corrected_queue", sa.Text(), nullable=True),
        sa.Column("corrected_priority", sa.Text(), nullable=True),
        sa.Column("corrected_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("activity_id", name=op.f("pk_feedback")),
        schema="classifier",
    )
    op.create_index("ix_feedback_corrected_at", "feedback", ["corrected_at"], unique=False, schema="classifier")
    op.create_table(
        "tickets",
        sa.Column("ticket_id", sa.Uuid(), nullable=False),
        sa.Column("revision", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("queue", sa.Text(), nullable=True),
        sa.Column("category", sa.Text(), nullable=True),
        sa.Column("priority", sa.Text(), nullable=True),
        sa.Column("resolved_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("state", sa.Text(), nullable=True),
        sa.Column("event", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("ticket_id", name=op.f("pk_tickets")),
        schema="classifier",
    )


def downgrade() -> None:
    op.drop_table("tickets", schema="classifier")
    op.drop_index("ix_feedback_corrected_at", table_name="feedback", schema="classifier")
    op.drop_table("feedback", schema="classifier")
    op.drop_index("ix_decisions_ticket_id", table_name="decisions", schema="classifier")
    op.drop_index("ix_decisions_decided_at", table_name="decisions", schema="classifier")
    op.drop_table("decisions", schema="classifier")
