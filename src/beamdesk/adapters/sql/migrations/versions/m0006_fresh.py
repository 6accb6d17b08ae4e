"""A desktop whose server must be made anew: after a rebuild, or in another size."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add both. Nothing of a desktop from before must be made anew; services of the version before may still insert rows."""
    for name in ("fresh_generation", "server_generation"):
        op.add_column("desktop", sa.Column(name, sa.Integer(), nullable=False, server_default="0"))


def downgrade() -> None:
    """Drop them."""
    for name in ("server_generation", "fresh_generation"):
        op.drop_column("desktop", name)
