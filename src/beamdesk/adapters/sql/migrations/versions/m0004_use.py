"""Whether the use of a desktop's card is known, and when a desktop last computed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add both. Services of the version before may still write rows."""
    op.add_column("guest", sa.Column("gpu_known", sa.Boolean(), nullable=False, server_default=sa.true()))
    op.add_column("guest", sa.Column("worked_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    """Drop them."""
    op.drop_column("guest", "worked_at")
    op.drop_column("guest", "gpu_known")
