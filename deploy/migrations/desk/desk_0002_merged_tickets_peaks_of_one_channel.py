"""Where a merged ticket went; peaks of one channel beside those of all channels together.

The peaks that are known are of all channels: those were the only ones.

Revision desk_0002, after desk_0001.
"""

import sqlalchemy as sa
from alembic import op

revision = "desk_0002"
down_revision = "desk_0001"
branch_labels = None
depends_on = None
contract = "nothing had been released with the tables as they were before"


def upgrade() -> None:
    op.add_column("tickets", sa.Column("merged_into", sa.Uuid(), nullable=True), schema="desk")
    op.create_index(
        "ix_tickets_merged_into",
        "tickets",
        ["merged_into"],
        unique=False,
        schema="desk",
        postgresql_where=sa.text("merged_into IS NOT NULL"),
    )
    op.add_column("peaks", sa.Column("channel", sa.Text(), server_default="*", nullable=False), schema="desk")
    op.alter_column("peaks", "channel", server_default=None, schema="desk")
    op.drop_constraint(op.f("pk_peaks"), "peaks", schema="desk")
    op.create_primary_key(op.f("pk_peaks"), "peaks", ["brand", "queue", "channel"], schema="desk")


def downgrade() -> None:
    op.execute("DELETE FROM desk.peaks WHERE channel <> '*'")
    op.drop_constraint(op.f("pk_peaks"), "peaks", schema="desk")
    op.create_primary_key(op.f("pk_peaks"), "peaks", ["brand", "queue"], schema="desk")
    op.drop_column("peaks", "channel", schema="desk")
    op.drop_index(
        "ix_tickets_merged_into",
        table_name="tickets",
        schema="desk",
        postgresql_where=sa.text("merged_into IS NOT NULL"),
    )
    op.drop_column("tickets", "merged_into", schema="desk")
