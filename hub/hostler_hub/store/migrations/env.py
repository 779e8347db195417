"""Alembic's entry point: runs the migrations on the connection it is handed, in its transaction."""

from __future__ import annotations

from alembic import context

from hostler_hub.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite can roll DDL back too, once the driver lets transactions alone (see store/sqlite.py).
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
