"""The science tools: a known sample comes back from its scan; the command does all or nothing."""

from __future__ import annotations

import errno
import os
import re
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from beamdesk.adapters.demo import tomography
from beamdesk.adapters.demo.phantom import sandstone

sys.path.insert(0, str(Path(__file__).parents[3] / "deploy/science"))
from beamdesk_science import cli, numerics, output, pipeline
from beamdesk_science.scan import Rows, Scan, ScanError, find_newest

pytestmark = pytest.mark.heavy

SIZE = 96


def write(path: Path, scan: tomography.Scan) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    tomography.write_scan(str(path), scan)
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write(root / "exp/raw/scan.nxs", tomography.Scan(size=SIZE, projections=180, axis_offset=2.3, counts=40_000))
    (root / "exp/processed").mkdir()
    return root


@pytest.fixture
def fresh(data: Path, tmp_path: Path) -> Path:
    """The data root with an empty processed folder."""
    (tmp_path / "exp/processed").mkdir(parents=True)
    (tmp_path / "exp/raw").mkdir()
    (tmp_path / "exp/raw/scan.nxs").hardlink_to(data / "exp/raw/scan.nxs")
    return tmp_path


@pytest.fixture(autouse=True)
def umask() -> object:
    """The command sets the umask and a signal handler for its own process; put them back."""
    import signal

    before, handler = os.umask(0o022), signal.getsignal(signal.SIGTERM)
    yield None
    os.umask(before)
    signal.signal(signal.SIGTERM, handler)


def run(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


# --- numerics


def truth_and_sinogram(size: int = 128, angles: int = 200) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A section of the sample centred on column size // 2, and its exact projections."""
    phantom = sandstone(size)
    degrees = np.linspace(0, 180, angles, endpoint=False)
    lines = np.stack([phantom.project(angle, (1, size), size // 2)[0] for angle in np.deg2rad(degrees)])
    # The section's own middle is between two pixels; one with an odd number of columns has it on a pixel.
    section = phantom.section(0.0, size + 1)[:-1, :-1]
    return section, lines, degrees


@pytest.mark.parametrize("method", ["fbp", "gridrec"])
def test_a_noiseless_section_comes_back(method: str) -> None:
    section, lines, degrees = truth_and_sinogram()
    made = numerics.back_project(lines, degrees) if method == "fbp" else numerics.Gridder(128, degrees)(lines)
    span = np.arange(128) - 64
    inside = span[:, None] ** 2 + span[None, :] ** 2 < 50**2
    error = np.sqrt(np.mean((made - section)[inside] ** 2)) / section[inside].std()
    assert error < 0.5  # edges of a pixel's width dominate
    assert np.corrcoef(made[inside], section[inside])[0, 1] > 0.88
    assert made[inside].mean() == pytest.approx(section[inside].mean(), rel=0.02)


def test_both_methods_agree() -> None:
    _, lines, degrees = truth_and_sinogram()
    smooth = np.stack([np.convolve(line, np.hanning(7) / 3, "same") for line in lines])
    one, two = numerics.back_project(smooth, degrees), numerics.Gridder(128, degrees)(smooth)
    middle = slice(16, 112)
    assert np.abs(one - two)[middle, middle].max() < 0.06 * one.max()


def test_a_disc_has_its_density() -> None:
    columns, radius = 129, 40
    line = 2 * 0.01 * np.sqrt(np.maximum(radius**2 - (np.arange(columns) - 64) ** 2, 0))
    degrees = np.linspace(0, 180, 180, endpoint=False)
    for made in (
        numerics.back_project(np.tile(line, (180, 1)), degrees),
        numerics.Gridder(columns, degrees)(np.tile(line, (180, 1))),
    ):
        assert made[54:75, 54:75].mean() == pytest.approx(0.01, rel=0.01)
        assert abs(made[60:69, 5:15].mean()) < 0.0004


@pytest.mark.parametrize("offset", [-7.25, -0.5, 0.0, 2.3, 11.0])
def test_the_axis_is_found_within_half_a_pixel(tmp_path: Path, offset: float) -> None:
    path = write(tmp_path / "scan.nxs", tomography.Scan(size=128, projections=12, axis_offset=offset))
    with Scan(path) as scan:
        assert pipeline.centre_of(scan) == pytest.approx(63.5 + offset, abs=0.5)


def test_a_moved_sinogram_is_centred() -> None:
    line = np.exp(-((np.arange(101) - 61.25) ** 2) / 50)
    moved = numerics.centred(np.tile(line, (3, 1)), 61.25)
    assert np.average(np.arange(101), weights=moved[0]) == pytest.approx(50, abs=0.05)


def test_stripes_go_and_the_rest_stays() -> None:
    rng = np.random.default_rng(1)
    clean = np.tile(np.sin(np.linspace(0, np.pi, 200)) * 2, (90, 1)) + rng.normal(0, 0.01, (90, 200))
    striped = clean.copy()
    striped[:, [40, 97, 150]] += (0.1, -0.08, 0.05)
    assert np.abs(numerics.remove_rings(striped) - clean)[:, 5:-5].max() < 0.04  # beside a stripe the median is a neighbour's


def test_direct_hits_are_removed() -> None:
    counts = np.full((5, 4, 6), 500.0, np.float32)
    counts[2, 1, 3] = 9000
    integrals = numerics.line_integrals(Rows(counts, np.full((4, 6), 1100.0), np.full((4, 6), 100.0)))
    assert integrals == pytest.approx(np.full((5, 4, 6), -np.log(0.4)))


def test_dead_pixels_are_no_infinities() -> None:
    counts = np.zeros((5, 2, 2), np.float32)
    assert np.isfinite(numerics.line_integrals(Rows(counts, np.zeros((2, 2)), np.full((2, 2), 100.0)))).all()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("centre", (50,)),
        ("all", tuple(range(100))),
        ("7", (7,)),
        ("3:6", (3, 4, 5)),
        ("98:", (98, 99)),
        (":2", (0, 1)),
        ("9, 3:5,9", (3, 4, 9)),
    ],
)
def test_slices_are_named(text: str, expected: tuple[int, ...]) -> None:
    assert pipeline.parse_slices(text, 100) == expected


@pytest.mark.parametrize("text", ["", "x", "5:3", "100", "-1", "0:101", "1:2:3", "3:3"])
def test_slices_that_do_not_exist_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="slices"):
        pipeline.parse_slices(text, 100)


# --- the command


def test_without_arguments_the_newest_scan_is_reconstructed(fresh: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--data", fresh) == 0
    result = fresh / "exp/processed/scan-rec"
    assert sorted(str(path.relative_to(result)) for path in result.rglob("*") if path.is_file()) == [
        "quicklook.png",
        "scan-rec.nxs",
        f"slices/slice_{SIZE // 2:05d}.tif",
    ]
    assert re.search(r"column 49\.[789]", capsys.readouterr().out)


def test_the_reconstruction_is_the_sample(fresh: Path) -> None:
    assert run("--data", fresh) == 0
    with Image.open(fresh / f"exp/processed/scan-rec/slices/slice_{SIZE // 2:05d}.tif") as image:
        assert image.mode == "F"
        made = np.asarray(image) * 0.00325  # 1/mm to 1/pixel
    truth = sandstone(SIZE).section(0.5, SIZE + 1)[:-1, :-1]
    span = np.arange(SIZE) - SIZE // 2
    inside = span[:, None] ** 2 + span[None, :] ** 2 < 38**2
    assert np.corrcoef(made[inside], truth[inside])[0, 1] > 0.8
    assert made[inside].mean() == pytest.approx(truth[inside].mean(), rel=0.03)


def test_the_nexus_file_tells_where_it_comes_from(fresh: Path) -> None:
    assert (
        run(fresh / "exp/raw/scan.nxs", "--slices", "40:43", "--algorithm", "gridrec", "--centre", "49.8", "--out", fresh / "mine")
        == 0
    )
    with h5py.File(fresh / "mine/mine.nxs") as file:
        entry = file["entry"]
        assert entry["definition"][()] == b"NXtomoproc"
        assert entry["data/data"].shape == (3, SIZE, SIZE)
        assert entry["data/data"].attrs["units"] == "1/mm"
        assert entry["data/slice"][...].tolist() == [40, 41, 42]
        parameters = entry["reconstruction/parameters"]
        assert parameters["raw_file"][()].decode().endswith("exp/raw/scan.nxs")
        assert (parameters["algorithm"][()], parameters["centre"][()]) == (b"gridrec", 49.8)
        for number, plane in zip((40, 41, 42), entry["data/data"], strict=True):
            with Image.open(fresh / f"mine/slices/slice_{number:05d}.tif") as image:
                assert np.array_equal(np.asarray(image), plane)


def test_a_second_run_keeps_the_first_result(fresh: Path) -> None:
    assert run("--data", fresh) == 0
    assert run("--data", fresh) == 0
    assert sorted(path.name for path in (fresh / "exp/processed").iterdir()) == ["scan-rec", "scan-rec-2"]


def test_several_processes_give_the_same_slices(fresh: Path) -> None:
    scan = fresh / "exp/raw/scan.nxs"
    assert run(scan, "--slices", "40:46", "--workers", "1", "--out", fresh / "one") == 0
    assert run(scan, "--slices", "40:46", "--workers", "2", "--out", fresh / "two") == 0
    with h5py.File(fresh / "one/one.nxs") as one, h5py.File(fresh / "two/two.nxs") as two:
        assert np.array_equal(one["entry/data/data"], two["entry/data/data"])


def test_the_team_may_read_and_write_the_result(fresh: Path) -> None:
    assert run("--data", fresh) == 0
    for path in (fresh / "exp/processed/scan-rec").rglob("*"):
        assert path.stat().st_mode & 0o077 == (0o070 if path.is_dir() else 0o060)


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_a_full_disk_leaves_nothing(fresh: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Image.Image, "save", full)
    assert run("--data", fresh) == 1
    assert "disk is full" in one_line(capsys)
    assert list((fresh / "exp/processed").iterdir()) == []


@pytest.mark.root
def test_a_really_full_disk_leaves_nothing(
    fresh: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() != 0:
        pytest.fail("this test needs root: it mounts a small file system")
    small = fresh / "small"
    small.mkdir()
    assert os.system(f"mount -t tmpfs -o size=200k none {small}") == 0
    try:
        monkeypatch.setattr(output.Result, "_require_space", lambda _self: None)
        assert run(fresh / "exp/raw/scan.nxs", "--slices", "10:30", "--out", small / "rec") == 1
        assert "disk is full" in one_line(capsys)
        assert list(small.iterdir()) == []
    finally:
        os.system(f"umount {small}")


def test_too_little_space_is_said_before_work(
    fresh: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output.shutil, "disk_usage", lambda _path: AlmostFull)
    assert run("--data", fresh) == 1
    assert "are needed" in one_line(capsys)


class AlmostFull:
    free = 1000


def test_a_stopped_run_leaves_nothing(fresh: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(output.Result, "add", stopped)
    assert run("--data", fresh) == 130
    one_line(capsys)
    assert list((fresh / "exp/processed").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["--slices", "500"], 2, "outside"),
        (["--slices", "nonsense"], 2, "names no slices"),
        (["--centre", "left"], 2, "--centre"),
        (["--centre", "5000"], 2, "--centre"),
    ],
)
def test_wrong_use_is_one_line(fresh: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, word: str) -> None:
    assert run("--data", fresh, *arguments) == code
    assert word in one_line(capsys)
    assert list((fresh / "exp/processed").iterdir()) == []


def test_a_file_that_is_no_scan_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "words.txt").write_text("words")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    for name in ("words.txt", "other.h5", "none.nxs"):
        assert run(tmp_path / name) == 1
        assert name in one_line(capsys)


def test_no_scan_at_all_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--data", tmp_path) == 1
    assert "no tomography scan" in one_line(capsys)


def test_a_damaged_scan_is_one_line(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = (data / "exp/raw/scan.nxs").read_bytes()
    (tmp_path / "cut.nxs").write_bytes(whole[: len(whole) // 2])
    assert run(tmp_path / "cut.nxs", "--out", tmp_path / "rec") == 1
    one_line(capsys)
    assert not (tmp_path / "rec").exists()


@pytest.mark.parametrize(
    ("counts", "missing"), [({"flats": 0}, "flat"), ({"darks": 0}, "dark"), ({"projections": 1}, "projections")]
)
def test_a_scan_without_its_parts_says_which(tmp_path: Path, counts: dict[str, int], missing: str) -> None:
    path = write(tmp_path / "scan.nxs", tomography.Scan(**{"size": 32, "projections": 8, "flats": 2, "darks": 2} | counts))
    with pytest.raises(ScanError, match=missing):
        Scan(path)


def test_the_newest_scan_is_found(data: Path, tmp_path: Path) -> None:
    for age, name in enumerate(("new.nxs", "old.nxs")):
        path = write(tmp_path / "exp/raw" / name, tomography.Scan(size=16, projections=4, flats=2, darks=2))
        os.utime(path, (1e9 - age, 1e9 - age))
    (tmp_path / "exp/raw/newer.h5").write_bytes(b"no scan")
    assert find_newest(tmp_path).name == "new.nxs"


def test_an_existing_folder_is_never_written_over(fresh: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (fresh / "mine").mkdir()
    (fresh / "mine/precious").touch()
    assert run("--data", fresh, "--out", fresh / "mine") == 1
    assert "exists already" in one_line(capsys)
    assert (fresh / "mine/precious").exists()


def test_the_viewer_is_not_needed_to_reconstruct() -> None:
    assert "silx" not in sys.modules
