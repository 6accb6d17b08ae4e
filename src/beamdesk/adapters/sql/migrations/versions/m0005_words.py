"""What a desktop's size and image ask of a host and its cards."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the words. Desktops from before ask for nothing; services of the version before may still insert rows."""
    op.add_column("desktop", sa.Column("words", sa.JSON(), nullable=False, server_default="{}"))


def downgrade() -> None:
    """Drop the words."""
    op.drop_column("desktop", "words")
