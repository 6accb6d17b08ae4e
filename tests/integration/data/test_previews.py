"""Previews of good, odd and hostile files, each by a real sandboxed process."""

# ruff: noqa: ASYNC240  # small files
from __future__ import annotations

import asyncio
import io
import os
import signal
import struct
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from time import perf_counter

import h5py
import numpy as np
import pytest
from PIL import Image

from beamdesk.adapters.demo import diffraction, tomography, xafs
from beamdesk.adapters.preview.pool import SandboxedPreviews
from beamdesk.ports.files import OpenedFile
from beamdesk.ports.previews import (
    Colours,
    ImagePreview,
    NoPreview,
    PlotPreview,
    Preview,
    PreviewRequest,
    TextPreview,
    Theme,
    TreePreview,
    View,
)

pytestmark = pytest.mark.anyio
AUTO = PreviewRequest()
DATASET = PreviewRequest(View.DATASET)
DATASET_PLANE = PreviewRequest(View.DATASET, "plane")


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def previews() -> AsyncIterator[SandboxedPreviews]:
    made = SandboxedPreviews(wall_s=20)
    yield made
    await made.close()


async def show(previews: SandboxedPreviews, path: Path, request: PreviewRequest = AUTO) -> Preview:
    with OpenedFile(os.open(path, os.O_RDONLY)) as opened:
        return await previews.preview(opened, request)


def decoded(preview: Preview) -> Image.Image:
    assert isinstance(preview, ImagePreview), preview
    image = Image.open(io.BytesIO(preview.png))
    assert image.format == "PNG"
    assert image.size == (preview.width, preview.height)
    return image


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scan") / "scan.nxs"
    tomography.write_scan(str(path), tomography.Scan(size=64, projections=20, flats=4, darks=2))
    return path


# --- NeXus / HDF5


async def test_an_hdf5_file_shows_its_tree(previews: SandboxedPreviews, scan: Path) -> None:
    tree = await show(previews, scan)
    assert isinstance(tree, TreePreview)
    nodes = {node.path: node for node in tree.nodes}
    data = nodes["/entry/data/data"]
    assert (data.kind, data.shape, data.dtype, data.units, data.show) == ("dataset", (26, 64, 64), "uint16", "counts", View.IMAGE)
    assert nodes["/entry/instrument/detector"].nx_class == "NXdetector"
    assert nodes["/entry/beam/incident_energy"].value == "25"
    assert (tree.default, tree.truncated) == ("/entry/data/data", False)


async def test_the_default_plot_is_what_the_author_wants(previews: SandboxedPreviews, scan: Path) -> None:
    image = await show(previews, scan, DATASET)
    assert isinstance(image, ImagePreview)
    assert (image.dataset, image.index, image.count, image.shape) == ("/entry/data/data", 13, 26, (26, 64, 64))
    assert image.title == "Sandstone core S3: camera frames"
    assert image.low is not None
    assert image.high is not None
    assert 0 <= image.low < image.high
    decoded(image)


@pytest.mark.parametrize(("axis", "size"), [(0, (64, 64)), (1, (64, 26)), (2, (64, 26))])
async def test_a_slice_can_be_chosen(previews: SandboxedPreviews, scan: Path, axis: int, size: tuple[int, int]) -> None:
    request = PreviewRequest(View.DATASET, "/entry/data/data", axis=axis, index=0, colours=Colours.VIRIDIS)
    assert decoded(await show(previews, scan, request)).size == size


async def test_the_chosen_slice_is_the_right_one(previews: SandboxedPreviews, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a"] = np.stack([np.tile(np.linspace(0, 1 + level, 8), (8, 1)) for level in range(3)])
    highs = [(await show(previews, tmp_path / "a.h5", PreviewRequest(View.DATASET, "/a", index=index))).high for index in range(3)]
    assert highs == sorted(highs)
    assert highs[0] < 1.001 < highs[1] < 2.001 < highs[2]


@pytest.mark.parametrize("request_", [{"axis": 7}, {"axis": -1}, {"index": 26}, {"index": -1}, {"dataset": "/nothing"}])
async def test_what_does_not_exist_in_the_file_is_said(previews: SandboxedPreviews, scan: Path, request_: dict) -> None:
    answer = await show(previews, scan, PreviewRequest(View.DATASET, **{"dataset": "/entry/data/data"} | request_))
    assert isinstance(answer, NoPreview)
    assert answer.code == "not_found"


async def test_a_pattern_is_a_plot_with_axes(previews: SandboxedPreviews, tmp_path: Path) -> None:
    diffraction.write_scan(str(tmp_path / "p.nxs"), diffraction.Setup.of_size(256))
    plot = await show(previews, tmp_path / "p.nxs", DATASET)
    assert isinstance(plot, PlotPreview)
    assert (plot.x_label, plot.y_label, plot.points) == ("2θ (degree)", "Mean counts per pixel", 2000)
    assert plot.svg.startswith(b"<svg")


async def test_an_absorption_scan_is_a_plot_over_energy(previews: SandboxedPreviews, tmp_path: Path) -> None:
    xafs.write_scan(str(tmp_path / "x.nxs"), xafs.measure())
    plot = await show(previews, tmp_path / "x.nxs", PreviewRequest(View.DATASET, theme=Theme.DARK))
    assert isinstance(plot, PlotPreview)
    assert plot.x_label == "Energy (eV)"
    assert b"prefers-color-scheme" not in plot.svg


async def test_a_row_of_an_image_can_be_plotted(previews: SandboxedPreviews, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a"] = np.arange(24.0).reshape(4, 6)
    plot = await show(previews, tmp_path / "a.h5", PreviewRequest(View.PLOT, "/a"))
    assert isinstance(plot, PlotPreview)
    assert plot.note == "Row 2 of 4."


async def test_texts_and_tables_are_text(previews: SandboxedPreviews, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["words"] = ["one", "zwei", "三"]
        file["table"] = np.array([(1, 2.5)], dtype=[("n", "i4"), ("v", "f8")])
        file["empty"] = h5py.Empty("f8")
    assert (await show(previews, tmp_path / "a.h5", PreviewRequest(View.DATASET, "/words"))).text == "one\nzwei\n三"
    assert "2.5" in (await show(previews, tmp_path / "a.h5", PreviewRequest(View.DATASET, "/table"))).text
    assert isinstance(await show(previews, tmp_path / "a.h5", PreviewRequest(View.DATASET, "/empty")), TextPreview)


async def test_detector_compression_is_understood(previews: SandboxedPreviews, tmp_path: Path) -> None:
    import hdf5plugin

    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("a", data=np.arange(4096.0).reshape(64, 64), chunks=(16, 64), **hdf5plugin.Bitshuffle(cname="lz4"))
    decoded(await show(previews, tmp_path / "a.h5", PreviewRequest(View.DATASET, "/a")))


async def test_not_a_number_is_transparent(previews: SandboxedPreviews, tmp_path: Path) -> None:
    numbers = np.ones((4, 4)) * np.arange(4)
    numbers[0, 0], numbers[1, 1], numbers[2, 2] = np.nan, np.inf, -np.inf
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a"], file["none"] = numbers, np.full((4, 4), np.nan)
    image = decoded(await show(previews, tmp_path / "a.h5", PreviewRequest(View.DATASET, "/a")))
    assert [image.getpixel((place, place))[3] for place in range(4)] == [0, 0, 0, 255]
    nothing = await show(previews, tmp_path / "a.h5", PreviewRequest(View.DATASET, "/none"))
    assert isinstance(nothing, ImagePreview)
    assert (nothing.low, nothing.high) == (None, None)


async def test_a_curve_of_nothing_but_nan_is_drawn_empty(previews: SandboxedPreviews, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["nan"], file["inf"], file["huge"] = np.full(9, np.nan), np.array([np.inf, -np.inf]), np.array([-1.7e308, 1.7e308])
    for name in ("nan", "inf", "huge"):
        assert isinstance(await show(previews, tmp_path / "a.h5", PreviewRequest(View.DATASET, name)), PlotPreview), name


async def test_zero_sizes_are_no_error(previews: SandboxedPreviews, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a"], file["b"] = np.zeros((0, 5)), np.zeros((3, 0, 5))
    for name in ("a", "b"):
        assert isinstance(await show(previews, tmp_path / "a.h5", PreviewRequest(View.DATASET, name)), TextPreview)
        answer = await show(previews, tmp_path / "a.h5", PreviewRequest(View.IMAGE, name))
        assert isinstance(answer, NoPreview)


# --- pictures and text


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF"])
async def test_photographs_are_shown_small(previews: SandboxedPreviews, tmp_path: Path, form: str) -> None:
    Image.new("RGB", (400, 200), (200, 30, 30)).save(tmp_path / "a.dat", format=form)
    preview = await show(previews, tmp_path / "a.dat", PreviewRequest(width=100))
    image = decoded(preview)
    assert image.size == (100, 50)
    assert image.convert("RGB").getpixel((50, 25)) == pytest.approx((200, 30, 30), abs=3)
    assert (preview.shape, preview.low) == ((200, 400), None)


@pytest.mark.parametrize("kind", ["uint16", "int32", "float32"])
async def test_numbers_in_a_tiff_get_a_robust_contrast(previews: SandboxedPreviews, tmp_path: Path, kind: str) -> None:
    numbers = np.tile(np.arange(100), (100, 1)).astype(kind)
    numbers[50, 50] = 30000  # a hot pixel must not decide
    Image.fromarray(numbers).save(tmp_path / "a.tif")
    preview = await show(previews, tmp_path / "a.tif")
    assert isinstance(preview, ImagePreview)
    assert preview.high < 100
    row = np.asarray(decoded(preview))[10]
    assert row[0] == 0
    assert row[99] == 255


async def test_text_is_shown_from_its_head(previews: SandboxedPreviews, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("数据 <b>\r\nzwei\n" + "x" * 200_000, encoding="utf-8")
    text = await show(previews, tmp_path / "a.txt")
    assert isinstance(text, TextPreview)
    assert text.text.startswith("数据 <b>\nzwei\n")
    assert text.truncated


async def test_content_decides_not_the_name(previews: SandboxedPreviews, tmp_path: Path, scan: Path) -> None:
    (tmp_path / "scan.txt").write_bytes(scan.read_bytes())
    (tmp_path / "words.h5").write_text("only words")
    assert isinstance(await show(previews, tmp_path / "scan.txt"), TreePreview)
    assert isinstance(await show(previews, tmp_path / "words.h5"), TextPreview)


# --- hostile and broken


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


# --- the pool


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
