"""Previews of broken and hostile files: each is an answer, and costs little."""

# ruff: noqa: ASYNC240  # small files
from __future__ import annotations

import io
import struct
from pathlib import Path
from time import perf_counter

import h5py
import numpy as np
import pytest
from PIL import Image

from beamdesk.adapters.preview.pool import SandboxedPreviews
from beamdesk.ports.previews import (
    ImagePreview,
    NoPreview,
    PlotPreview,
    PreviewRequest,
    TextPreview,
    TreePreview,
    View,
)
from integration.data.preview_kit import DATASET, DATASET_PLANE, show

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("content", [b"\x00\x01\x02binary" * 20, b"\xff\xfe" * 500, b"MZ\x90\x00"])
async def test_unknown_binary_has_no_preview(previews: SandboxedPreviews, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    answer = await show(previews, tmp_path / "a")
    assert isinstance(answer, NoPreview)
    assert answer.code == "binary"


async def test_an_empty_file_says_so(previews: SandboxedPreviews, tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    assert (await show(previews, tmp_path / "a")).code == "empty"


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9, 0.999])
async def test_a_truncated_hdf5_file_is_an_answer(previews: SandboxedPreviews, tmp_path: Path, scan: Path, share: float) -> None:
    content = scan.read_bytes()
    (tmp_path / "a.nxs").write_bytes(content[: int(len(content) * share)])
    for request in (PreviewRequest(), DATASET):
        answer = await show(previews, tmp_path / "a.nxs", request)
        assert isinstance(answer, NoPreview | TreePreview), answer


async def test_flipped_bytes_never_break_the_portal(previews: SandboxedPreviews, tmp_path: Path, scan: Path) -> None:
    rng = np.random.default_rng(5)
    clean = np.frombuffer(scan.read_bytes(), np.uint8)
    for _ in range(12):
        broken = clean.copy()
        broken[rng.integers(0, 8000, 60)] = rng.integers(0, 256, 60)
        (tmp_path / "a.nxs").write_bytes(broken.tobytes())
        for request in (PreviewRequest(), DATASET):
            answer = await show(previews, tmp_path / "a.nxs", request)
            assert isinstance(answer, NoPreview | TreePreview | ImagePreview | PlotPreview | TextPreview)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF"])
async def test_a_truncated_picture_is_an_answer(previews: SandboxedPreviews, tmp_path: Path, form: str) -> None:
    memory = io.BytesIO()
    Image.effect_noise((300, 300), 50).save(memory, format=form)
    (tmp_path / "a").write_bytes(memory.getvalue()[: len(memory.getvalue()) // 2])
    assert isinstance(await show(previews, tmp_path / "a"), NoPreview | ImagePreview)


async def test_a_picture_bomb_is_refused(previews: SandboxedPreviews, tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        import zlib

        return struct.pack("!I", len(data)) + kind + data + struct.pack("!I", zlib.crc32(kind + data))

    header = struct.pack("!IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    answer = await show(previews, tmp_path / "bomb.png")
    assert isinstance(answer, NoPreview)


async def test_a_bomb_of_one_huge_chunk_is_refused(previews: SandboxedPreviews, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("a", (1, 17_000, 20_000), "u1", chunks=(1, 17_000, 20_000), compression="gzip")
        import zlib

        packer = zlib.compressobj(9)
        packed = b"".join(packer.compress(bytes(1 << 24)) for _ in range(21)) + packer.flush()
        data.id.write_direct_chunk((0, 0, 0), packed)
    assert (tmp_path / "a.h5").stat().st_size < 4_000_000
    answer = await show(previews, tmp_path / "a.h5", PreviewRequest(View.DATASET, "/a"))
    assert isinstance(answer, NoPreview)
    assert answer.code == "too_large"


async def test_a_gigantic_shape_costs_little(previews: SandboxedPreviews, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("plane", (2_000_000_000, 2_000_000_000), "f8", chunks=(100, 100), fillvalue=1.0)
        file.create_dataset("line", (2**60,), "f8", chunks=(1000,))
    started = perf_counter()
    assert isinstance(await show(previews, tmp_path / "a.h5"), TreePreview)
    plane = await show(previews, tmp_path / "a.h5", PreviewRequest(View.DATASET, "plane"))
    assert isinstance(plane, ImagePreview)
    assert plane.note == "Only the middle is shown, 2048 x 2048 points."
    line = await show(previews, tmp_path / "a.h5", PreviewRequest(View.DATASET, "line"))
    assert isinstance(line, PlotPreview)
    assert (line.points, line.note) == (2**60, f"65536 of {2**60} points are shown.")
    assert perf_counter() - started < 20


async def test_a_large_image_is_thinned_out(previews: SandboxedPreviews, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("plane", (11_000, 11_000), "u2", chunks=(500, 11_000), fillvalue=7)
    image = await show(previews, tmp_path / "a.h5", DATASET_PLANE)
    assert isinstance(image, ImagePreview)
    assert image.note == "Every 6th point of each side is shown."
    assert max(image.width, image.height) <= 1024


async def test_links_never_leave_the_file(previews: SandboxedPreviews, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["canary"] = np.full((8, 8), 4711.0)
    (tmp_path / "secret.raw").write_bytes(np.full(64, 4711.0).tobytes())
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["mine"] = np.arange(64.0).reshape(8, 8)
        file["external"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "/canary")
        file["group"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "/")
        file["soft"] = h5py.SoftLink("/external")
        file["loop"] = h5py.SoftLink("/loop")
        file["good"] = h5py.SoftLink("mine")
        file.create_dataset("raw", (8, 8), "f8", external=[(str(tmp_path / "secret.raw"), 0, 512)])
        layout = h5py.VirtualLayout((8, 8), "f8")
        layout[...] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "canary", (8, 8))
        file.create_virtual_dataset("virtual", layout)
    tree = await show(previews, tmp_path / "a.h5")
    assert isinstance(tree, TreePreview)
    assert {node.name: node.kind for node in tree.nodes}["external"] == "link"
    for name in ("external", "group/canary", "soft", "loop", "raw", "virtual"):
        answer = await show(previews, tmp_path / "a.h5", PreviewRequest(View.DATASET, name))
        assert isinstance(answer, NoPreview), name
        assert answer.code in ("external", "not_found")
    assert isinstance(await show(previews, tmp_path / "a.h5", PreviewRequest(View.DATASET, "good")), ImagePreview)


async def test_cycles_and_crowds_are_bounded(previews: SandboxedPreviews, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["cycle"] = file["/"]
        deep = file.create_group("deep")
        for _ in range(60):
            deep = deep.create_group("deeper")
        crowd = file.create_group("crowd")
        for number in range(3000):
            crowd.create_group(f"{number:05d}")
    tree = await show(previews, tmp_path / "a.h5")
    assert isinstance(tree, TreePreview)
    assert tree.truncated
    assert len(tree.nodes) <= 2001
    assert any(node.kind == "more" and "2600" in node.name for node in tree.nodes)
    assert next(node for node in tree.nodes if node.name == "cycle").kind == "link"


async def test_hostile_labels_are_only_text(previews: SandboxedPreviews, tmp_path: Path) -> None:
    evil = "</style><script>alert(1)</script>\u202e"
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a"] = np.arange(9.0)
        file["a"].attrs["long_name"] = evil
        file["a"].attrs["units"] = np.bytes_(b"\xff\xfe\x00\x1b[31m")
        file["title"] = evil
        file["<img src=x onerror=alert(1)>"] = np.arange(9.0)
    for name in ("/a", "/<img src=x onerror=alert(1)>"):
        plot = await show(previews, tmp_path / "a.h5", PreviewRequest(View.DATASET, name))
        assert isinstance(plot, PlotPreview)
        assert b"<script" not in plot.svg
        assert b"<img" not in plot.svg
        assert "\u202e".encode() not in plot.svg
    assert isinstance(await show(previews, tmp_path / "a.h5"), TreePreview)


async def test_an_attribute_without_end_is_left_out(previews: SandboxedPreviews, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w", libver="latest") as file:
        file["a"] = np.arange(9.0)
        file["a"].attrs["big"] = np.zeros(1_000_000)
        file["a"].attrs["text"] = "x" * 50_000_000
    tree = await show(previews, tmp_path / "a.h5")
    assert isinstance(tree, TreePreview)
    assert all(len(attribute.value) <= 300 for node in tree.nodes for attribute in node.attributes)
