"""Replies of app chat: stored for the customer, who may be there or not.

Revision intake_0002, after intake_0001.
"""

import sqlalchemy as sa
from alembic import op

revision = "intake_0002"
down_revision = "intake_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "chat_replies",
        sa.Column("notification_id", sa.Uuid(), nullable=False),
        sa.Column("brand", sa.Text(), nullable=False),
        sa.Column("customer_id", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("is_acknowledgement", sa.Boolean(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("notification_id", name=op.f("pk_chat_replies")),
        schema="intake",
    )
    op.create_index(
        "ix_chat_replies_brand_customer_id_at",
        "chat_replies",
        ["brand", "customer_id", "at"],
        unique=False,
        schema="intake",
    )
    op.create_index("ix_chat_replies_at", "chat_replies", ["at"], unique=False, schema="intake")


def downgrade() -> None:
    op.drop_index("ix_chat_replies_at", table_name="chat_replies", schema="intake")
    op.drop_index("ix_chat_replies_brand_customer_id_at", table_name="chat_replies", schema="intake")
    op.drop_table("chat_replies", schema="intake")
