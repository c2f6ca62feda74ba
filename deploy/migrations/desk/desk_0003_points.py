"""The points of a ticket, to be ticked off.

Of the messages that were routed before, the points stand in the tickets' history and decision only.

Revision desk_0003, after desk_0002.
"""

import sqlalchemy as sa
from alembic import op

revision = "desk_0003"
down_revision = "desk_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "points",
        sa.Column("point_id", sa.Uuid(), nullable=False),
        sa.Column("ticket_id", sa.Uuid(), nullable=False),
        sa.Column("message_event_id", sa.Uuid(), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("start", sa.Integer(), nullable=False),
        sa.Column("end", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("category", sa.Text(), nullable=False),
        sa.Column("done_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("done_by", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("point_id", name=op.f("pk_points")),
        schema="desk",
    )
    op.add_column("tickets", sa.Column("open_points", sa.Integer(), server_default="0", nullable=False), schema="desk")
    op.create_index("ix_points_ticket_id", "points", ["ticket_id", "sequence", "start"], unique=False, schema="desk")


def downgrade() -> None:
    op.drop_column("tickets", "open_points", schema="desk")
    op.drop_index("ix_points_ticket_id", table_name="points", schema="desk")
    op.drop_table("points", schema="desk")
