"""The notifier's tables: contacts, notifications, limits, deadlines, outbox.

Revision notifier_0001, after nothing.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "notifier_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "allowances",
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("window_start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("scope", "window_start", name=op.f("pk_allowances")),
        schema="notifier",
    )
    op.create_index(op.f("ix_allowances_window_start"), "allowances", ["window_start"], unique=False, schema="notifier")
    op.create_table(
        "contacts",
        sa.Column("ticket_id", sa.Uuid(), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("brand", sa.Text(), nullable=True),
        sa.Column("channel", sa.Text(), nullable=True),
        sa.Column("customer_id", sa.Text(), nullable=True),
        sa.Column("email", sa.Text(), nullable=True),
        sa.Column("reply_to", sa.Text(), nullable=True),
        sa.Column("language", sa.Text(), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("ticket_id", name=op.f("pk_contacts")),
        schema="notifier",
    )
    op.create_index(op.f("ix_contacts_updated_at"), "contacts", ["updated_at"], unique=False, schema="notifier")
    op.create_table(
        "deadlines",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subject", sa.Uuid(), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("planned_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deadlines")),
        schema="notifier",
    )
    op.create_index(op.f("ix_deadlines_due_at"), "deadlines", ["due_at"], unique=False, schema="notifier")
    op.create_index("ix_deadlines_kind_due_at", "deadlines", ["kind", "due_at"], unique=False, schema="notifier")
    op.create_table(
        "disabled_endpoints",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("url_digest", sa.Text(), nullable=False),
        sa.Column("disabled_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_disabled_endpoints")),
        schema="notifier",
    )
    op.create_table(
        "notifications",
        sa.Column("notification_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("ticket_id", sa.Uuid(), nullable=True),
        sa.Column("brand", sa.Text(), nullable=True),
        sa.Column("output", sa.Text(), nullable=True),
        sa.Column("endpoint", sa.Text(), nullable=True),
        sa.Column("recipient", sa.Text(), nullable=True),
        sa.Column("language", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("data", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("caused_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("traceparent", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("next_try_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("digest_id", sa.Uuid(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("erased", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("notification_id", name=op.f("pk_notifications")),
        schema="notifier",
    )
    op.create_index(
        "ix_notifications_digest",
        "notifications",
        ["digest_id"],
        unique=False,
        schema="notifier",
        postgresql_where=sa.text("digest_id IS NOT NULL"),
    )
    op.create_index(
        op.f("ix_notifications_finished_at"), "notifications", ["finished_at"], unique=False, schema="notifier"
    )
    op.create_index(
        "ix_notifications_open",
        "notifications",
        ["output"],
        unique=False,
        schema="notifier",
        postgresql_where=sa.text("state IN ('pending', 'waiting_contact', 'folded')"),
    )
    op.create_index(
        "ix_notifications_unerased",
        "notifications",
        ["finished_at"],
        unique=False,
        schema="notifier",
        postgresql_where=sa.text("NOT erased"),
    )
    op.create_index(
        "ix_notifications_waiting",
        "notifications",
        ["ticket_id"],
        unique=False,
        schema="notifier",
        postgresql_where=sa.text("state = 'waiting_contact'"),
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("traceparent", sa.Text(), nullable=False),
        sa.Column("stored_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
        schema="notifier",
    )


def downgrade() -> None:
    for table in ("outbox", "notifications", "disabled_endpoints", "deadlines", "contacts", "allowances"):
        op.drop_table(table, schema="notifier")
