"""What alembic runs. The caller opened the connection, the transaction and the lock; nothing is opened or committed here."""

from __future__ import annotations

from alembic import context

context.configure(connection=context.config.attributes["connection"], transactional_ddl=True, render_as_batch=True)
context.run_migrations()
