"""What a desktop's size and image ask of a host and its cards; which protocol a reader of the scheduling snapshot speaks."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add both. Desktops from before ask for nothing; services of the version before may still insert rows."""
    op.add_column("desktop", sa.Column("words", sa.JSON(), nullable=False, server_default="{}"))
    op.add_column("srm_consumer", sa.Column("speaks", sa.Integer(), nullable=False, server_default="1"))


def downgrade() -> None:
    """Drop them."""
    op.drop_column("srm_consumer", "speaks")
    op.drop_column("desktop", "words")
