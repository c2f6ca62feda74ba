"""Alembic's environment: the connection and the service come from `deploy.migrations.__main__`."""

from alembic import context

attributes = context.config.attributes
context.configure(
    connection=attributes["connection"],
    target_metadata=attributes["metadata"],
    version_table_schema=attributes["service"],
    include_schemas=True,
    include_name=lambda name, kind, _: kind != "schema" or name == attributes["service"],
    compare_server_default=True,
)
with context.begin_transaction():
    context.run_migrations()
