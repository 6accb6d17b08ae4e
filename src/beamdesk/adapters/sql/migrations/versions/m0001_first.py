"""The first schema: desktops, guests, sessions, events, people."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def _desktop() -> None:
    op.create_table(
        "desktop",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("experiment", sa.Text(), nullable=False),
        sa.Column("image", sa.Text(), nullable=False),
        sa.Column("image_ref", sa.Text(), nullable=False),
        sa.Column("flavor", sa.Text(), nullable=False),
        sa.Column("vcpus", sa.Integer(), nullable=False),
        sa.Column("memory_mib", sa.Integer(), nullable=False),
        sa.Column("disk_gib", sa.Integer(), nullable=False),
        sa.Column("gpus", sa.Integer(), nullable=False),
        sa.Column("desired", sa.Text(), nullable=False),
        sa.Column("desired_reason", sa.Text(), nullable=False),
        sa.Column("desired_generation", sa.Integer(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("lease_ends_at", _TIME, nullable=False),
        sa.Column("phase", sa.Text(), nullable=False),
        sa.Column("phase_since", _TIME, nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("observed_generation", sa.Integer(), nullable=False),
        sa.Column("admitted", sa.Boolean(), nullable=False),
        sa.Column("server_id", sa.Text(), nullable=True),
        sa.Column("address", sa.Text(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("repairs", sa.Integer(), nullable=False),
        sa.Column("absent_since", _TIME, nullable=True),
        sa.Column("queued_at", _TIME, nullable=True),
        sa.Column("queue_place", sa.Integer(), nullable=True),
        sa.Column("queue_lacking", sa.JSON(), nullable=False),
        sa.Column("queue_expected_at", _TIME, nullable=True),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("due_at", _TIME, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("last_active_at", _TIME, nullable=False),
        sa.Column("idle_warned_at", _TIME, nullable=True),
        sa.Column("lease_warned_at", _TIME, nullable=True),
        sa.Column("claim_token", sa.Text(), nullable=True),
        sa.Column("claim_until", _TIME, nullable=True),
        sa.Column("woken", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("owner", "idempotency_key", name="uq_desktop_owner_key"),
    )
    op.create_index("ix_desktop_due_at", "desktop", ["due_at"], unique=False)
    op.create_index("ix_desktop_experiment_created", "desktop", ["experiment", "created_at"], unique=False)
    op.create_index("ix_desktop_owner_created", "desktop", ["owner", "created_at"], unique=False)
    op.create_index("ix_desktop_phase", "desktop", ["phase"], unique=False)


def _event() -> None:
    op.create_table(
        "event",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=True),
        sa.Column("desktop_id", sa.Text(), nullable=True),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("experiment", sa.Text(), nullable=True),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_event_actor", "event", ["actor", "id"], unique=False)
    op.create_index("ix_event_desktop", "event", ["desktop_id", "id"], unique=False)
    op.create_index("ix_event_experiment", "event", ["experiment", "id"], unique=False)
    op.create_index("ix_event_owner", "event", ["owner", "id"], unique=False)


def _experiment() -> None:
    op.create_table(
        "experiment",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("proposal", sa.Text(), nullable=False),
        sa.Column("title_en", sa.Text(), nullable=False),
        sa.Column("title_zh", sa.Text(), nullable=False),
        sa.Column("beamline", sa.Text(), nullable=False),
        sa.Column("beamline_title_en", sa.Text(), nullable=False),
        sa.Column("beamline_title_zh", sa.Text(), nullable=False),
        sa.Column("starts", _TIME, nullable=False),
        sa.Column("ends", _TIME, nullable=False),
        sa.Column("folder", sa.Text(), nullable=False),
        sa.Column("gid", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("folder"),
        sa.UniqueConstraint("gid"),
    )


def _login() -> None:
    op.create_table(
        "login",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("person", sa.Text(), nullable=False),
        sa.Column("secret_hash", sa.LargeBinary(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("expires_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("secret_hash"),
    )


def _person() -> None:
    op.create_table(
        "person",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("login", sa.Text(), nullable=False),
        sa.Column("full_name", sa.Text(), nullable=False),
        sa.Column("uid", sa.Integer(), nullable=False),
        sa.Column("language", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("beamlines", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("login"),
        sa.UniqueConstraint("uid"),
    )


def _removed_desktop() -> None:
    op.create_table(
        "removed_desktop",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("removed_at", _TIME, nullable=False),
        sa.Column("row", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_removed_owner_key", "removed_desktop", ["owner", "idempotency_key"], unique=False)


def _session() -> None:
    op.create_table(
        "session",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("desktop_id", sa.Text(), nullable=False),
        sa.Column("person", sa.Text(), nullable=False),
        sa.Column("login_id", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("secret_hash", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("expires_at", _TIME, nullable=False),
        sa.Column("ended_at", _TIME, nullable=True),
        sa.Column("end_reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("secret_hash"),
    )
    op.create_index("ix_session_desktop", "session", ["desktop_id"], unique=False)
    op.create_index("ix_session_login", "session", ["login_id"], unique=False)
    op.create_index("ix_session_person", "session", ["person"], unique=False)


def _experiment_member() -> None:
    op.create_table(
        "experiment_member",
        sa.Column("experiment_id", sa.Text(), nullable=False),
        sa.Column("person_id", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["experiment_id"], ["experiment.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("experiment_id", "person_id"),
    )
    op.create_index("ix_experiment_member_person", "experiment_member", ["person_id"], unique=False)


def _guest() -> None:
    op.create_table(
        "guest",
        sa.Column("desktop_id", sa.Text(), nullable=False),
        sa.Column("nonce_hash", sa.LargeBinary(), nullable=True),
        sa.Column("nonce_expires_at", _TIME, nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=True),
        sa.Column("stream_secret", sa.Text(), nullable=False),
        sa.Column("enrolled_at", _TIME, nullable=True),
        sa.Column("seen_at", _TIME, nullable=True),
        sa.Column("steps", sa.JSON(), nullable=False),
        sa.Column("failure", sa.Text(), nullable=False),
        sa.Column("input_idle_s", sa.Double(), nullable=False),
        sa.Column("cpu", sa.Double(), nullable=False),
        sa.Column("gpu", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["desktop_id"], ["desktop.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("desktop_id"),
        sa.UniqueConstraint("token_hash"),
    )
    op.create_index("ix_guest_seen_at", "guest", ["seen_at"], unique=False)


def _guest_nonce() -> None:
    op.create_table(
        "guest_nonce",
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("desktop_id", sa.Text(), nullable=False),
        sa.Column("expires_at", _TIME, nullable=False),
        sa.ForeignKeyConstraint(["desktop_id"], ["desktop.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("hash"),
    )
    op.create_index("ix_guest_nonce_desktop", "guest_nonce", ["desktop_id"], unique=False)


def _thumbnail() -> None:
    op.create_table(
        "thumbnail",
        sa.Column("desktop_id", sa.Text(), nullable=False),
        sa.Column("content_type", sa.Text(), nullable=False),
        sa.Column("image", sa.LargeBinary(), nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.ForeignKeyConstraint(["desktop_id"], ["desktop.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("desktop_id"),
    )


def _ticket() -> None:
    op.create_table(
        "ticket",
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("desktop_id", sa.Text(), nullable=False),
        sa.Column("person", sa.Text(), nullable=False),
        sa.Column("login_id", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("expires_at", _TIME, nullable=False),
        sa.ForeignKeyConstraint(["desktop_id"], ["desktop.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("hash"),
    )
    op.create_index("ix_ticket_desktop", "ticket", ["desktop_id"], unique=False)
    op.create_index("ix_ticket_login", "ticket", ["login_id"], unique=False)


def upgrade() -> None:
    """Make the tables."""
    _desktop()
    _event()
    _experiment()
    _login()
    _person()
    _removed_desktop()
    _session()
    _experiment_member()
    _guest()
    _guest_nonce()
    _thumbnail()
    _ticket()


def downgrade() -> None:
    """Nothing is older than this."""
    raise NotImplementedError
