"""Previews of good and odd files, each by a real sandboxed process."""

# ruff: noqa: ASYNC240  # small files
from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from beamdesk.adapters.demo import diffraction, xafs
from beamdesk.adapters.preview.pool import SandboxedPreviews
from beamdesk.ports.previews import (
    Colours,
    ImagePreview,
    NoPreview,
    PlotPreview,
    PreviewRequest,
    TextPreview,
    Theme,
    TreePreview,
    View,
)
from integration.data.preview_kit import DATASET, decoded, show

pytestmark = pytest.mark.anyio


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
