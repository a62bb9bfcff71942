"""What alembic calls to migrate: always on the connection, and in the transaction, that ``store.schema`` opened."""

from __future__ import annotations

from alembic import context

from stageway.store.base import metadata
from stageway.store.store import Store  # noqa: F401  (imports every noun, so that the MetaData is whole)

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, transactional_ddl=False, render_as_batch=False)
context.run_migrations()
