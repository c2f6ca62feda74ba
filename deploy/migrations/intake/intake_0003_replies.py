"""Replies that went back by their channel: each once, and known by the provider's ids.

Revision intake_0003, after intake_0002.
"""

import sqlalchemy as sa
from alembic import op

revision = "intake_0003"
down_revision = "intake_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "replies",
        sa.Column("notification_id", sa.Uuid(), nullable=False),
        sa.Column("brand", sa.Text(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("ticket_id", sa.Uuid(), nullable=True),
        sa.Column("leased_until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("message_ids", sa.ARRAY(sa.Text(), dimensions=1), nullable=False),
        sa.PrimaryKeyConstraint("notification_id", name=op.f("pk_replies")),
        schema="intake",
    )
    op.create_index(
        "ix_replies_message_ids", "replies", ["message_ids"], unique=False, schema="intake", postgresql_using="gin"
    )
    op.create_index("ix_replies_leased_until", "replies", ["leased_until"], unique=False, schema="intake")


def downgrade() -> None:
    op.drop_table("replies", schema="intake")
