"""The processes behind previews: they end, crash alone and inherit nothing."""

# ruff: noqa: ASYNC240  # small files
from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import pytest

from beamdesk.adapters.preview.pool import SandboxedPreviews
from beamdesk.ports.previews import (
    ImagePreview,
    NoPreview,
    TextPreview,
)
from integration.data.preview_kit import DATASET, show

pytestmark = pytest.mark.anyio


async def test_a_worker_that_hangs_is_stopped(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("words")
    previews = SandboxedPreviews(wall_s=0.001)
    answer = await show(previews, tmp_path / "a.txt")
    await previews.close()
    assert isinstance(answer, NoPreview)
    assert answer.code == "timeout"


async def test_a_worker_that_crashes_costs_its_own_preview_only(previews: SandboxedPreviews, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("words")
    assert isinstance(await show(previews, tmp_path / "a.txt"), TextPreview)
    previews._spare.process.send_signal(signal.SIGSEGV)
    previews._spare.process.wait()
    answer = await show(previews, tmp_path / "a.txt")
    assert isinstance(answer, NoPreview)
    assert answer.code == "crashed"
    assert isinstance(await show(previews, tmp_path / "a.txt"), TextPreview)


async def test_a_left_page_leaves_no_process(previews: SandboxedPreviews, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("words")
    task = asyncio.create_task(show(previews, tmp_path / "a.txt"))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert isinstance(await show(previews, tmp_path / "a.txt"), TextPreview)


async def test_closing_ends_every_process(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("words")
    previews = SandboxedPreviews()
    await show(previews, tmp_path / "a.txt")
    spare = previews._spare.process
    await previews.close()
    assert spare.poll() is not None


async def test_the_worker_inherits_nothing(previews: SandboxedPreviews, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BEAMDESK_SECRET", "canary-51b2e8")
    (tmp_path / "a.txt").write_text("words")
    await show(previews, tmp_path / "a.txt")
    pid = previews._spare.process.pid
    assert b"canary" not in Path(f"/proc/{pid}/environ").read_bytes()
    opened = {str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()}
    assert all(target == "/dev/null" or target.startswith(("socket:", "pipe:", sys.prefix, "/usr/")) for target in opened), opened


async def test_many_at_once_are_answered(previews: SandboxedPreviews, scan: Path) -> None:
    answers = await asyncio.gather(*(show(previews, scan, DATASET) for _ in range(10)))
    assert all(isinstance(answer, ImagePreview) for answer in answers)
