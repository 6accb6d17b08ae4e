"""The tables, as the code reads and writes them. The database is made by `migrations/`; a test compares the two.

Times are UTC. Secrets are stored hashed; the one exception, ``guest.stream_secret``, is needed in the clear by the gateway.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)

HEAD = "0006"
"""The newest migration; a test compares it with the scripts."""


class UtcTime(TypeDecorator[datetime]):
    """A point in time, UTC: ``timestamptz`` on PostgreSQL, sortable text on SQLite. Naive times are refused."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse a naive time, and write UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without zone reached the store")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return an aware UTC time."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if dialect.name == "sqlite" else value.astimezone(UTC)


metadata = MetaData()

desktop = Table(
    "desktop",
    metadata,
    Column("id", Text, primary_key=True),
    Column("idempotency_key", Text),
    Column("name", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("experiment", Text, nullable=False),
    Column("image", Text, nullable=False),
    Column("image_ref", Text, nullable=False),
    Column("flavor", Text, nullable=False),
    Column("vcpus", Integer, nullable=False),
    Column("memory_mib", Integer, nullable=False),
    Column("disk_gib", Integer, nullable=False),
    Column("gpus", Integer, nullable=False),
    Column("desired", Text, nullable=False),
    Column("desired_reason", Text, nullable=False),
    Column("desired_generation", Integer, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("lease_ends_at", UtcTime, nullable=False),
    Column("phase", Text, nullable=False),
    Column("phase_since", UtcTime, nullable=False),
    Column("reason", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("observed_generation", Integer, nullable=False),
    Column("admitted", Boolean, nullable=False),
    Column("server_id", Text),
    Column("address", Text),
    Column("attempts", Integer, nullable=False),
    Column("repairs", Integer, nullable=False),
    Column("absent_since", UtcTime),
    Column("queued_at", UtcTime),
    Column("queue_place", Integer),
    Column("queue_lacking", JSON, nullable=False),
    Column("queue_expected_at", UtcTime),
    Column("created_at", UtcTime, nullable=False),
    Column("due_at", UtcTime, nullable=False),
    Column("version", Integer, nullable=False),
    Column("last_active_at", UtcTime, nullable=False),
    Column("idle_warned_at", UtcTime),
    Column("lease_warned_at", UtcTime),
    Column("words", JSON, nullable=False),
    Column("fresh_generation", Integer, nullable=False),
    Column("server_generation", Integer, nullable=False),
    Column("claim_token", Text),
    Column("claim_until", UtcTime),
    Column("woken", Boolean, nullable=False),
    UniqueConstraint("owner", "idempotency_key", name="uq_desktop_owner_key"),
    Index("ix_desktop_due_at", "due_at"),
    Index("ix_desktop_owner_created", "owner", "created_at"),
    Index("ix_desktop_experiment_created", "experiment", "created_at"),
    Index("ix_desktop_phase", "phase"),
)

removed_desktop = Table(
    "removed_desktop",
    metadata,
    Column("id", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("idempotency_key", Text),
    Column("created_at", UtcTime, nullable=False),
    Column("removed_at", UtcTime, nullable=False),
    Column("row", JSON, nullable=False),
    Index("ix_removed_owner_key", "owner", "idempotency_key"),
)
"""What is left of a removed desktop: proof that it was ours, and the answer to a repeated request."""

guest = Table(
    "guest",
    metadata,
    Column("desktop_id", Text, ForeignKey("desktop.id", ondelete="CASCADE"), primary_key=True),
    Column("nonce_hash", LargeBinary),
    Column("nonce_expires_at", UtcTime, nullable=False),
    Column("token_hash", LargeBinary, unique=True),
    Column("stream_secret", Text, nullable=False),
    Column("enrolled_at", UtcTime),
    Column("seen_at", UtcTime),
    Column("steps", JSON, nullable=False),
    Column("failure", Text, nullable=False),
    Column("input_idle_s", Double, nullable=False),
    Column("cpu", Double, nullable=False),
    Column("gpu", Double, nullable=False),
    Column("gpu_known", Boolean, nullable=False),
    Column("worked_at", UtcTime),
    Index("ix_guest_seen_at", "seen_at"),
)

guest_nonce = Table(
    "guest_nonce",
    metadata,
    Column("hash", LargeBinary, primary_key=True),
    Column("desktop_id", Text, ForeignKey("desktop.id", ondelete="CASCADE"), nullable=False),
    Column("expires_at", UtcTime, nullable=False),
    Index("ix_guest_nonce_desktop", "desktop_id"),
)

thumbnail = Table(
    "thumbnail",
    metadata,
    Column("desktop_id", Text, ForeignKey("desktop.id", ondelete="CASCADE"), primary_key=True),
    Column("content_type", Text, nullable=False),
    Column("image", LargeBinary, nullable=False),
    Column("at", UtcTime, nullable=False),
)

login = Table(
    "login",
    metadata,
    Column("id", Text, primary_key=True),
    Column("person", Text, nullable=False),
    Column("secret_hash", LargeBinary, nullable=False, unique=True),
    Column("kind", Text, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("expires_at", UtcTime, nullable=False),
)

ticket = Table(
    "ticket",
    metadata,
    Column("hash", LargeBinary, primary_key=True),
    Column("desktop_id", Text, ForeignKey("desktop.id", ondelete="CASCADE"), nullable=False),
    Column("person", Text, nullable=False),
    Column("login_id", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("expires_at", UtcTime, nullable=False),
    Index("ix_ticket_desktop", "desktop_id"),
    Index("ix_ticket_login", "login_id"),
)

session = Table(
    "session",
    metadata,
    Column("id", Text, primary_key=True),
    Column("desktop_id", Text, nullable=False),
    Column("person", Text, nullable=False),
    Column("login_id", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("secret_hash", LargeBinary, nullable=False, unique=True),
    Column("created_at", UtcTime, nullable=False),
    Column("expires_at", UtcTime, nullable=False),
    Column("ended_at", UtcTime),
    Column("end_reason", Text, nullable=False),
    Index("ix_session_desktop", "desktop_id"),
    Index("ix_session_login", "login_id"),
    Index("ix_session_person", "person"),
)
"""No foreign key: an ended session outlives its desktop until the gateway has seen that it ended."""

event = Table(
    "event",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("at", UtcTime, nullable=False),
    Column("kind", Text, nullable=False),
    Column("actor", Text),
    Column("desktop_id", Text),
    Column("owner", Text),
    Column("experiment", Text),
    Column("data", JSON, nullable=False),
    Index("ix_event_desktop", "desktop_id", "id"),
    Index("ix_event_owner", "owner", "id"),
    Index("ix_event_actor", "actor", "id"),
    Index("ix_event_experiment", "experiment", "id"),
    sqlite_autoincrement=True,
)

person = Table(
    "person",
    metadata,
    Column("id", Text, primary_key=True),
    Column("login", Text, nullable=False, unique=True),
    Column("full_name", Text, nullable=False),
    Column("uid", Integer, nullable=False, unique=True),
    Column("language", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("beamlines", JSON, nullable=False),
)

experiment = Table(
    "experiment",
    metadata,
    Column("id", Text, primary_key=True),
    Column("proposal", Text, nullable=False),
    Column("title_en", Text, nullable=False),
    Column("title_zh", Text, nullable=False),
    Column("beamline", Text, nullable=False),
    Column("beamline_title_en", Text, nullable=False),
    Column("beamline_title_zh", Text, nullable=False),
    Column("starts", UtcTime, nullable=False),
    Column("ends", UtcTime, nullable=False),
    Column("folder", Text, nullable=False, unique=True),
    Column("gid", Integer, nullable=False, unique=True),
)

experiment_member = Table(
    "experiment_member",
    metadata,
    Column("experiment_id", Text, ForeignKey("experiment.id", ondelete="CASCADE"), primary_key=True),
    Column("person_id", Text, primary_key=True),
    Index("ix_experiment_member_person", "person_id"),
)

srm_host = Table(
    "srm_host",
    metadata,
    Column("name", Text, primary_key=True),
    Column("machine", Text, nullable=False),
    Column("enrol_hash", LargeBinary, unique=True),
    Column("enrol_expires_at", UtcTime),
    Column("token_hash", LargeBinary, unique=True),
    Column("enrolled_at", UtcTime),
    Column("enabled", Boolean, nullable=False),
    Column("dedicated", Boolean, nullable=False),
    Column("aggregates", JSON, nullable=False),
    Column("session", Text, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("report_digest", LargeBinary),
    Column("resync", Boolean, nullable=False),
    Column("can_clean", Boolean, nullable=False),
    Column("agent", Text, nullable=False),
    Column("boot", Text, nullable=False),
    Column("facts", JSON, nullable=False),
    Column("load", JSON, nullable=False),
    Column("skew_s", Double, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("seen_at", UtcTime),
    Column("stale", Boolean, nullable=False),
    Column("version", Integer, nullable=False),
    Index("ix_srm_host_seen_at", "seen_at"),
)
"""SRM records (HEPS paper, section 3.5). ``facts`` and ``load`` are the wire forms of `beamdesk.protocol.srm`, validated."""

srm_device = Table(
    "srm_device",
    metadata,
    Column("host", Text, ForeignKey("srm_host.name", ondelete="CASCADE"), primary_key=True),
    Column("address", Text, primary_key=True),
    Column("present", Boolean, nullable=False),
    Column("facts", JSON, nullable=False),
    Column("load", JSON, nullable=False),
    Column("state", Text, nullable=False),
    Column("state_since", UtcTime, nullable=False),
    Column("reason", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("holder", Text, nullable=False),
    Column("job", Text, nullable=False),
    Column("job_until", UtcTime),
    Column("attempts", Integer, nullable=False),
    Column("version", Integer, nullable=False),
    Index("ix_srm_device_state", "state"),
)

srm_sample = Table(
    "srm_sample",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("host", Text, ForeignKey("srm_host.name", ondelete="CASCADE"), nullable=False),
    Column("address", Text, nullable=False),
    Column("at", UtcTime, nullable=False),
    Column("state", Text, nullable=False),
    Column("busy", Double),
    Column("memory_used_mib", BigInteger),
    Column("temperature_c", Integer),
    Index("ix_srm_sample_of", "host", "address", "at"),
    Index("ix_srm_sample_at", "at"),
)
"""History for plots: cards by their address, the host itself under an empty one."""

srm_consumer = Table(
    "srm_consumer",
    metadata,
    Column("name", Text, primary_key=True),
    Column("token_hash", LargeBinary, nullable=False, unique=True),
    Column("created_by", Text, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("used_at", UtcTime),
    Column("speaks", Integer, nullable=False),
)
"""Programs that may read the scheduling snapshot (a nova-scheduler, say), each with its own credential."""

placement = Table(
    "placement",
    metadata,
    Column("desktop_id", Text, ForeignKey("desktop.id", ondelete="CASCADE"), primary_key=True),
    Column("host", Text, nullable=False),
    Column("cards", JSON, nullable=False),
    Column("node", Integer),
    Column("at", UtcTime, nullable=False),
)
"""Host and cards of an admitted desktop."""

decision = Table(
    "decision",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("desktop_id", Text, ForeignKey("desktop.id", ondelete="CASCADE"), nullable=False),
    Column("at", UtcTime, nullable=False),
    Column("document", Text, nullable=False),
    Column("verdicts", JSON, nullable=False),
    Column("behind", Boolean, nullable=False),
    Index("ix_decision_desktop", "desktop_id", "id"),
)
"""The newest few decisions about each desktop, in the form of `beamdesk.scheduling.wire`."""

booking = Table(
    "booking",
    metadata,
    Column("id", Text, primary_key=True),
    Column("experiment", Text, nullable=False),
    Column("flavor", Text, nullable=False),
    Column("starts", UtcTime, nullable=False),
    Column("ends", UtcTime, nullable=False),
    Column("parts", JSON, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("note", Text, nullable=False),
    Index("ix_booking_ends", "ends"),
)
