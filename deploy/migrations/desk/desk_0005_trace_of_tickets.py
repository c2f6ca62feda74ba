"""The trace of a ticket's latest message, for what agents do with it.

Revision desk_0005, after desk_0004.
"""

import sqlalchemy as sa
from alembic import op

revision = "desk_0005"
down_revision = "desk_0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("tickets", sa.Column("traceparent", sa.Text(), nullable=True), schema="desk")


def downgrade() -> None:
    op.drop_column("tickets", "traceparent", schema="desk")
