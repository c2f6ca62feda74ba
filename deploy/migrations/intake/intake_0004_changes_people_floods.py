"""Messages that were edited or taken back, people on several channels, floods.

Messages of before have no `sent_at` of their own: their windows are over.

Revision intake_0004, after intake_0003.
"""

import sqlalchemy as sa
from alembic import op

revision = "intake_0004"
down_revision = "intake_0003"
branch_labels = None
depends_on = None
contract = "nothing had been released with the tables as they were before"


def upgrade() -> None:
    op.add_column("messages", sa.Column("withheld", sa.Text(), nullable=True), schema="intake")
    op.add_column("messages", sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True), schema="intake")
    op.add_column("messages", sa.Column("flood_id", sa.Uuid(), nullable=True), schema="intake")
    for column in ("ticket_id", "sequence", "disposition", "event"):
        op.alter_column("messages", column, nullable=True, schema="intake")
    op.create_index(
        "ix_messages_flood_id",
        "messages",
        ["flood_id"],
        unique=False,
        schema="intake",
        postgresql_where=sa.text("flood_id IS NOT NULL"),
    )
    op.create_index(
        "ix_messages_ticket_id_sent_at", "messages", ["ticket_id", "sent_at"], unique=False, schema="intake"
    )
    op.drop_index("ix_messages_ticket_id", table_name="messages", schema="intake")
    op.create_table(
        "changes",
        sa.Column("conversation_id", sa.Uuid(), nullable=False),
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("known_as", sa.Text(), nullable=False),
        sa.Column("ticket_id", sa.Uuid(), nullable=True),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("taken_back", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("conversation_id", "message_id", name=op.f("pk_changes")),
        schema="intake",
    )
    op.create_table(
        "people",
        sa.Column("contact_id", sa.Uuid(), nullable=False),
        sa.Column("conversation_id", sa.Uuid(), nullable=False),
        sa.Column("brand", sa.Text(), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("contact_id", "conversation_id", name=op.f("pk_people")),
        schema="intake",
    )
    op.create_table(
        "floods",
        sa.Column("flood_id", sa.Uuid(), nullable=False),
        sa.Column("ticket_id", sa.Uuid(), nullable=False),
        sa.Column("starts_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("parts", sa.Integer(), nullable=False),
        sa.Column("told_to", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("flood_id", name=op.f("pk_floods")),
        schema="intake",
    )
    op.create_table(
        "deadlines",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subject", sa.Uuid(), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("planned_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deadlines")),
        schema="intake",
    )
    op.create_index(op.f("ix_deadlines_due_at"), "deadlines", ["due_at"], unique=False, schema="intake")


def downgrade() -> None:
    """What has no ticket or no event is forgotten: nothing of it was ever told."""
    op.drop_index(op.f("ix_deadlines_due_at"), table_name="deadlines", schema="intake")
    op.drop_table("deadlines", schema="intake")
    op.drop_table("floods", schema="intake")
    op.drop_table("people", schema="intake")
    op.drop_table("changes", schema="intake")
    op.execute("DELETE FROM intake.messages WHERE ticket_id IS NULL OR event IS NULL")
    op.create_index("ix_messages_ticket_id", "messages", ["ticket_id"], unique=False, schema="intake")
    op.drop_index("ix_messages_ticket_id_sent_at", table_name="messages", schema="intake")
    for column in ("ticket_id", "sequence", "disposition", "event"):
        op.alter_column("messages", column, nullable=False, schema="intake")
    op.drop_index(
        "ix_messages_flood_id",
        table_name="messages",
        schema="intake",
        postgresql_where=sa.text("flood_id IS NOT NULL"),
    )
    op.drop_column("messages", "flood_id", schema="intake")
    op.drop_column("messages", "sent_at", schema="intake")
    op.drop_column("messages", "withheld", schema="intake")
