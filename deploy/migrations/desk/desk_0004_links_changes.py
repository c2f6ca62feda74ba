"""Tickets of one person on several channels; tickets whose customer changed what he had written.

Revision desk_0004, after desk_0003.
"""

import sqlalchemy as sa
from alembic import op

revision = "desk_0004"
down_revision = "desk_0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "links",
        sa.Column("ticket_id", sa.Uuid(), nullable=False),
        sa.Column("related_ticket_id", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("ticket_id", "related_ticket_id", name=op.f("pk_links")),
        schema="desk",
    )
    op.add_column(
        "tickets", sa.Column("has_changes", sa.Boolean(), server_default="false", nullable=False), schema="desk"
    )


def downgrade() -> None:
    op.drop_column("tickets", "has_changes", schema="desk")
    op.drop_table("links", schema="desk")
