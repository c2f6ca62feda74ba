"""Which mail of the customer's an answer stands below: its Message-ID and subject.

Of contacts that were known before, the next mail says so.

Revision notifier_0002, after notifier_0001.
"""

import sqlalchemy as sa
from alembic import op

revision = "notifier_0002"
down_revision = "notifier_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("contacts", sa.Column("message_id", sa.Text(), nullable=True), schema="notifier")
    op.add_column("contacts", sa.Column("subject", sa.Text(), nullable=True), schema="notifier")


def downgrade() -> None:
    op.drop_column("contacts", "subject", schema="notifier")
    op.drop_column("contacts", "message_id", schema="notifier")
