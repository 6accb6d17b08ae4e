"""Hosts and devices as their SRM agents describe them, their history, and who may read the scheduling snapshot."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def _host() -> None:
    op.create_table(
        "srm_host",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("machine", sa.Text(), nullable=False),
        sa.Column("enrol_hash", sa.LargeBinary(), nullable=True),
        sa.Column("enrol_expires_at", _TIME, nullable=True),
        sa.Column("token_hash", sa.LargeBinary(), nullable=True),
        sa.Column("enrolled_at", _TIME, nullable=True),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("dedicated", sa.Boolean(), nullable=False),
        sa.Column("aggregates", sa.JSON(), nullable=False),
        sa.Column("session", sa.Text(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("report_digest", sa.LargeBinary(), nullable=True),
        sa.Column("resync", sa.Boolean(), nullable=False),
        sa.Column("can_clean", sa.Boolean(), nullable=False),
        sa.Column("agent", sa.Text(), nullable=False),
        sa.Column("boot", sa.Text(), nullable=False),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.Column("load", sa.JSON(), nullable=False),
        sa.Column("skew_s", sa.Double(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("seen_at", _TIME, nullable=True),
        sa.Column("stale", sa.Boolean(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
        sa.UniqueConstraint("enrol_hash"),
        sa.UniqueConstraint("token_hash"),
    )
    op.create_index("ix_srm_host_seen_at", "srm_host", ["seen_at"], unique=False)


def _device() -> None:
    op.create_table(
        "srm_device",
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("present", sa.Boolean(), nullable=False),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.Column("load", sa.JSON(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("state_since", _TIME, nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("job", sa.Text(), nullable=False),
        sa.Column("job_until", _TIME, nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["host"], ["srm_host.name"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("host", "address"),
    )
    op.create_index("ix_srm_device_state", "srm_device", ["state"], unique=False)


def _sample() -> None:
    op.create_table(
        "srm_sample",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("busy", sa.Double(), nullable=True),
        sa.Column("memory_used_mib", sa.BigInteger(), nullable=True),
        sa.Column("temperature_c", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(["host"], ["srm_host.name"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_srm_sample_of", "srm_sample", ["host", "address", "at"], unique=False)
    op.create_index("ix_srm_sample_at", "srm_sample", ["at"], unique=False)


def _consumer() -> None:
    op.create_table(
        "srm_consumer",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("used_at", _TIME, nullable=True),
        sa.PrimaryKeyConstraint("name"),
        sa.UniqueConstraint("token_hash"),
    )


def upgrade() -> None:
    """Make the tables."""
    _host()
    _device()
    _sample()
    _consumer()


def downgrade() -> None:
    """Drop the tables; what hosts reported comes again with their next full reports, credentials do not."""
    for table in ("srm_consumer", "srm_sample", "srm_device", "srm_host"):
        op.drop_table(table)
