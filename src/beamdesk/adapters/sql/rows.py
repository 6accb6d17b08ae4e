"""Rows to domain objects and back. No statement here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from beamdesk.domain.catalog import Resources
from beamdesk.domain.desktop import Desired, Desktop, Phase, QueuePlace, Reason, Shape
from beamdesk.domain.guest import Guest
from beamdesk.ports.store import Outcome
from beamdesk.protocol.guest import Step, StepName, StepState
from beamdesk.scheduling.vocabulary import parse, write

_PLAIN = (
    "id", "name", "owner", "experiment", "image", "image_ref", "flavor", "generation", "lease_ends_at", "phase_since", "detail",
    "observed_generation", "admitted", "server_id", "address", "attempts", "queued_at", "created_at", "due_at", "version",
    "last_active_at", "idle_warned_at", "lease_warned_at", "desired_generation", "repairs", "absent_since",
)  # fmt: skip
_SINCE_0006 = ("fresh_generation", "server_generation")
"""Rows that were removed before have none."""
_TIMES = (
    "lease_ends_at", "phase_since", "queued_at", "created_at", "due_at", "last_active_at", "idle_warned_at", "lease_warned_at",
    "absent_since", "queue_expected_at",
)  # fmt: skip


def desktop_from(row: Mapping[Any, Any]) -> Desktop:
    """Build the domain object from a row of ``desktop``."""
    queue = None
    if row["queue_place"] is not None:
        queue = QueuePlace(row["queue_place"], tuple(row["queue_lacking"]), row["queue_expected_at"])
    return Desktop(
        **{name: row[name] for name in _PLAIN},
        resources=Resources(row["vcpus"], row["memory_mib"], row["disk_gib"], row["gpus"]),
        desired=Desired(row["desired"]),
        desired_reason=Reason(row["desired_reason"]),
        phase=Phase(row["phase"]),
        reason=Reason(row["reason"]),
        queue=queue,
        words=parse(row.get("words", {})),  # rows that were removed before there were words have none
        **{name: row.get(name, 0) for name in _SINCE_0006},
    )


def desktop_values(desktop: Desktop) -> dict[str, Any]:
    """Return the column values of a new row."""
    return {
        **{name: getattr(desktop, name) for name in (*_PLAIN, *_SINCE_0006)},
        **shape_values(Shape(desktop.image_ref, desktop.flavor, desktop.resources, desktop.words)),
        "desired": str(desktop.desired),
        "desired_reason": str(desktop.desired_reason),
        "phase": str(desktop.phase),
        "reason": str(desktop.reason),
        **_queue_values(desktop.queue),
    }


def shape_values(shape: Shape) -> dict[str, Any]:
    """Return the column values of what a server is made of."""
    amounts = {name: getattr(shape.resources, name) for name in ("vcpus", "memory_mib", "disk_gib", "gpus")}
    return {"image_ref": shape.image_ref, "flavor": shape.flavor, "words": write(shape.words), **amounts}


def _queue_values(queue: QueuePlace | None) -> dict[str, Any]:
    return {
        "queue_place": queue.place if queue else None,
        "queue_lacking": list(queue.lacking) if queue else [],
        "queue_expected_at": queue.expected_at if queue else None,
    }


def outcome_values(outcome: Outcome) -> dict[str, Any]:
    """Return the column values of the state half, without ``due_at``, which has its own rule."""
    names = (
        "phase_since", "detail", "observed_generation", "admitted", "server_id", "address", "attempts", "queued_at",
        "last_active_at", "idle_warned_at", "lease_warned_at", "repairs", "absent_since", "server_generation",
    )  # fmt: skip
    values = {name: getattr(outcome, name) for name in names}
    return values | {"phase": str(outcome.phase), "reason": str(outcome.reason)} | _queue_values(outcome.queue)


def is_visible_change(desktop: Desktop, outcome: Outcome) -> bool:
    """Tell whether somebody who looks at the desktop would see a difference (only then the version grows)."""
    names = (
        "phase", "phase_since", "reason", "detail", "observed_generation", "admitted", "address", "queue", "idle_warned_at",
        "lease_warned_at", "repairs",
    )  # fmt: skip
    return any(getattr(desktop, name) != getattr(outcome, name) for name in names)


def removed_json(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a desktop row as JSON values, to be kept after its removal."""
    kept = {**row, "desired": Desired.DELETED, "phase": Phase.DELETING}
    for secret_or_claim in ("claim_token", "claim_until", "woken", "idempotency_key", "address"):
        kept.pop(secret_or_claim, None)
    document: dict[str, Any] = json.loads(json.dumps(kept, default=datetime.isoformat))
    return document


def desktop_from_removed(document: Mapping[str, Any]) -> Desktop:
    """Build the desktop as it was when its row was removed."""
    row = dict(document) | {"address": None}
    for name in _TIMES:
        row[name] = datetime.fromisoformat(row[name]) if row[name] is not None else None
    return desktop_from(row)


def guest_from(row: Mapping[Any, Any]) -> Guest:
    """Build the domain object from a row of ``guest``."""
    names = (
        "desktop_id", "nonce_hash", "nonce_expires_at", "token_hash", "stream_secret", "enrolled_at", "seen_at", "failure",
        "input_idle_s", "cpu", "worked_at",
    )  # fmt: skip
    gpu = row["gpu"] if row["gpu_known"] else None
    steps = tuple(Step(StepName(step["name"]), StepState(step["state"]), step["detail"]) for step in row["steps"])
    return Guest(**{name: row[name] for name in names}, gpu=gpu, steps=steps)


def gpu_columns(gpu: float | None) -> dict[str, object]:
    """Return the columns of a card's use: a number in each row, whatever is known."""
    return {"gpu": gpu or 0.0, "gpu_known": gpu is not None}


def steps_json(steps: tuple[Step, ...]) -> list[dict[str, str]]:
    """Return steps as JSON values."""
    return [{"name": str(step.name), "state": str(step.state), "detail": step.detail} for step in steps]
