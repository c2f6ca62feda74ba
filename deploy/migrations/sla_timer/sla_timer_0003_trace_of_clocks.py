"""The trace of the message that started a clock, for what time does to it.

Revision sla_timer_0003, after sla_timer_0002.
"""

import sqlalchemy as sa
from alembic import op

revision = "sla_timer_0003"
down_revision = "sla_timer_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("clocks", sa.Column("traceparent", sa.Text(), nullable=True), schema="sla_timer")


def downgrade() -> None:
    op.drop_column("clocks", "traceparent", schema="sla_timer")
