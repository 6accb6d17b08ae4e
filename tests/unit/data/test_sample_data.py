"""The sample data are what they claim: physics that can be checked, files that others can read, owners and modes."""

from __future__ import annotations

import os
import stat
from datetime import UTC, datetime
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from beamdesk.adapters.demo import data, diffraction, tomography, xafs
from beamdesk.adapters.demo.layout import Owners, Place
from beamdesk.adapters.demo.people import ADA, BOB, CHEN, DAQ_UID, DIFFRACTION, EXPERIMENTS, IMAGING, OLGA, PEOPLE
from beamdesk.adapters.demo.phantom import Phantom, sandstone
from beamdesk.domain.policy import may_read_data

pytestmark = pytest.mark.heavy

SMALL = tomography.Scan(size=64, projections=24, flats=6, darks=4)


# --- people


def test_teams_are_apart() -> None:
    readers = {
        experiment.folder: {person.login for person in PEOPLE if may_read_data(person, experiment)} for experiment in EXPERIMENTS
    }
    assert readers == {"heps-2026-0147": {"ada", "bob"}, "heps-2026-0212": {"chen"}}
    assert OLGA.is_operator
    assert not any(person.is_operator for person in (ADA, BOB, CHEN))


def test_ids_are_unique_and_in_the_helpers_ranges() -> None:
    uids = [person.uid for person in PEOPLE]
    assert len({*uids, DAQ_UID}) == len(uids) + 1
    assert all(20000 <= uid <= 29999 for uid in uids)
    assert all(30000 <= experiment.gid <= 39999 for experiment in EXPERIMENTS)


def test_experiments_last_and_speak_two_languages() -> None:
    for experiment in EXPERIMENTS:
        assert experiment.starts < datetime(2026, 11, 1, tzinfo=UTC) < experiment.ends
        assert experiment.title.en != experiment.title.zh


# --- the phantom


def ball(radius: float, centre: tuple[float, float, float] = (0, 0, 0)) -> Phantom:
    return Phantom(np.array([centre], float), np.eye(3)[None] / radius**2, np.array([0.5]), ())


def test_a_balls_shadow_is_its_chord() -> None:
    image = ball(10).project(0.7, (41, 41), 20)
    assert image[20, 20] == pytest.approx(0.5 * 20)
    assert image[20, 26] == pytest.approx(0.5 * 2 * 8)
    assert image[20, 31] == 0


def test_a_point_moves_as_the_geometry_says() -> None:
    for angle in np.linspace(0, np.pi, 7):
        image = ball(1.2, (9, 5, -4)).project(angle, (41, 61), 30)
        row, column = np.unravel_index(image.argmax(), image.shape)
        assert (row, column) == (16, pytest.approx(30 + 9 * np.cos(angle) + 5 * np.sin(angle), abs=0.51))


def test_a_projection_conserves_mass() -> None:
    turned = np.array([[0.36, 0.48, -0.8], [-0.8, 0.6, 0.0], [0.48, 0.64, 0.6]])
    shape = turned @ np.diag(1 / np.array([9.0, 5.0, 3.0]) ** 2) @ turned.T
    phantom = Phantom(np.zeros((1, 3)), shape[None], np.array([1.0]), ())
    for angle in (0.0, 0.4, 2.1):
        assert phantom.project(angle, (61, 61), 30).sum() == pytest.approx(4 / 3 * np.pi * 9 * 5 * 3, rel=0.02)


def test_opposite_projections_are_mirror_images() -> None:
    phantom = sandstone(64)
    here, opposite = (phantom.project(angle, (64, 64), 31.5) for angle in (0.3, 0.3 + np.pi))
    assert np.allclose(here, opposite[:, ::-1], atol=1e-4)


def test_the_sample_has_grains_pores_and_dense_specks() -> None:
    section = sandstone(512).section(0, 512)
    assert len(np.unique(section.round(6))) > 8
    assert section.min() >= -1e-6
    assert section.max() > 4 * np.median(section[section > 0])


# --- files


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scan") / "scan.nxs"
    tomography.write_scan(str(path), SMALL)
    return path


def test_the_scan_is_an_nxtomo_file(scan: Path) -> None:
    with h5py.File(scan) as file:
        entry = file["entry"]
        assert entry["definition"][()] == b"NXtomo"
        detector = entry["instrument/detector"]
        assert detector["data"].shape == (34, 64, 64)
        assert detector["data"].dtype == np.uint16
        assert [int((detector["image_key"][...] == key).sum()) for key in (0, 1, 2)] == [24, 6, 4]
        assert entry["sample/rotation_angle"].attrs["units"] == "degree"
        assert entry["data"].attrs["signal"] == "data"
        assert entry["data/data"].id == detector["data"].id or entry["data/data"] == detector["data"]
        for path, nx_class in (
            ("sample", "NXsample"),
            ("instrument/source", "NXsource"),
            ("control", "NXmonitor"),
            ("data", "NXdata"),
        ):
            assert entry[path].attrs["NX_class"] == nx_class


def test_first_and_last_projection_are_opposite(scan: Path) -> None:
    with h5py.File(scan) as file:
        angles = file["entry/sample/rotation_angle"][...][file["entry/instrument/detector/image_key"][...] == 0]
    assert (angles[0], angles[-1]) == (0, 180)
    assert np.all(np.diff(angles) > 0)


def test_noise_is_poisson() -> None:
    scan = tomography.Scan(size=64, projections=8, flats=60)
    camera = tomography.Camera(scan)
    flats = np.stack([camera.frame(int(index)) for index in np.flatnonzero(scan.keys == tomography.FLAT)]).astype(float) - 102
    assert np.median(flats.var(axis=0, ddof=1) / flats.mean(axis=0)) == pytest.approx(1.0, abs=0.12)


def test_transmission_is_beer_lamberts() -> None:
    scan = tomography.Scan(size=64, projections=24, flats=6, darks=4, counts=30_000)
    camera = tomography.Camera(scan)
    dark, flat = (np.median([camera.frame(int(i)) for i in np.flatnonzero(scan.keys == key)], axis=0) for key in (2, 1))
    first = int(np.flatnonzero(scan.keys == 0)[0])
    measured = -np.log((camera.frame(first) - dark) / (flat - dark))
    truth = sandstone(64, scan.seed).project(0.0, (64, 64), scan.axis_column)
    assert np.median(np.abs(measured - truth)) < 0.02


def test_the_same_scan_is_the_same_file(scan: Path, tmp_path: Path) -> None:
    tomography.write_scan(str(tmp_path / "again.nxs"), SMALL)
    with h5py.File(scan) as one, h5py.File(tmp_path / "again.nxs") as two:
        assert np.array_equal(one["entry/data/data"], two["entry/data/data"])


def test_several_processes_write_the_same_frames(scan: Path, tmp_path: Path) -> None:
    tomography.write_scan(str(tmp_path / "again.nxs"), SMALL, workers=2)
    with h5py.File(scan) as one, h5py.File(tmp_path / "again.nxs") as two:
        assert np.array_equal(one["entry/data/data"], two["entry/data/data"])


# Published d spacings of CeO2 (PDF 34-394), angstrom, and relative intensities for copper radiation.
CERIA = ((3.1234, 1.00), (2.7056, 0.27), (1.9134, 0.46), (1.6318, 0.34))


def test_ceria_peaks_are_where_they_are_published() -> None:
    positions, _ = diffraction.reflections(0.4133, 24)
    spacings = 0.4133 / (2 * np.sin(np.deg2rad(positions / 2)))
    assert spacings[:4] == pytest.approx([spacing for spacing, _ in CERIA], rel=4e-4)


def test_ceria_intensities_are_near_the_published() -> None:
    positions, intensities = diffraction.reflections(1.5406, 60)
    unpolarised = intensities * (1 + np.cos(np.deg2rad(positions)) ** 2)  # a tube's X-rays, unlike a synchrotron's
    assert (unpolarised / unpolarised.max())[:4] == pytest.approx([intensity for _, intensity in CERIA], abs=0.09)


def test_the_pattern_is_integrated_from_the_image(tmp_path: Path) -> None:
    setup = diffraction.Setup.of_size(256)
    diffraction.write_scan(str(tmp_path / "p.nxs"), setup)
    with h5py.File(tmp_path / "p.nxs") as file:
        assert file["entry/definition"][()] == b"NXmonopd"
        image = file["entry/image/data"][...]
        angle, counts, error = diffraction.integrate(image, setup)
        assert np.allclose(file["entry/data/data"], counts)
        assert np.allclose(file["entry/data/polar_angle"], angle)
        assert np.allclose(file["entry/data/data_errors"], error)
        assert (image == -1).any()


def test_the_full_pattern_shows_cerias_peaks(tmp_path: Path) -> None:
    diffraction.write_scan(str(tmp_path / "p.nxs"), diffraction.Setup())
    expected, _ = diffraction.reflections(0.4133, 24)
    for position in diffraction.peak_positions(str(tmp_path / "p.nxs")):
        assert np.abs(expected - position).min() < 0.02


def test_the_detector_image_is_a_tiff(tmp_path: Path) -> None:
    setup = diffraction.Setup.of_size(128)
    diffraction.write_image(str(tmp_path / "p.tif"), setup)
    with Image.open(tmp_path / "p.tif") as image:
        assert np.array_equal(np.asarray(image), diffraction.record(setup))


def test_the_absorption_edge_is_coppers(tmp_path: Path) -> None:
    scan = xafs.measure()
    energy, mu = scan.energy, scan.absorption
    near = (energy > 8950) & (energy < 9010)
    steepest = energy[near][np.argmax(np.gradient(mu[near], energy[near]))]
    assert steepest == pytest.approx(8979, abs=5)
    assert mu[energy > 9500].mean() - mu[energy < 8950].mean() == pytest.approx(1.0, abs=0.2)
    xafs.write_scan(str(tmp_path / "x.nxs"), scan)
    with h5py.File(tmp_path / "x.nxs") as file:
        assert file["entry/definition"][()] == b"NXxas"
        assert np.allclose(
            file["entry/data/mu"], np.log(file["entry/data/incoming_beam"][...] / file["entry/data/absorbed_beam"][...])
        )


def test_the_oscillations_know_the_first_shell() -> None:
    k = np.arange(3, 14, 0.04)
    distances = np.arange(1, 6, 0.02)
    window = np.hanning(len(k))
    spectrum = [abs(np.sum(xafs.chi(k) * k**2 * window * np.exp(2j * k * distance))) for distance in distances]
    # The phase of the back-scattering atom shortens distances by 0.2 to 0.5 angstrom, as in real spectra.
    assert 2.0 < distances[int(np.argmax(spectrum))] < 2.556


def test_the_column_file_is_xdi(tmp_path: Path) -> None:
    xafs.write_columns(str(tmp_path / "x.xdi"), xafs.measure())
    text = (tmp_path / "x.xdi").read_text(encoding="ascii")
    assert text.startswith("# XDI/1.0")
    assert np.loadtxt(tmp_path / "x.xdi").shape[1] == 4


# --- folders


def make(root: Path, lines: list[str] | None = None, *, change: bool = False) -> None:
    data.make(root, Owners(DAQ_UID, change), size=32, say=(lines if lines is not None else []).append)


def test_both_experiments_get_their_files(tmp_path: Path) -> None:
    make(tmp_path / "data")
    names = {str(path.relative_to(tmp_path / "data")) for path in (tmp_path / "data").rglob("*") if path.is_file()}
    assert names == {
        "heps-2026-0147/README.txt",
        "heps-2026-0147/raw/scan_0001_sandstone.nxs",
        "heps-2026-0212/README.txt",
        "heps-2026-0212/raw/ceo2_0001.nxs",
        "heps-2026-0212/raw/ceo2_0001_detector.tif",
        "heps-2026-0212/raw/cu_foil_0002.nxs",
        "heps-2026-0212/raw/cu_foil_0002.xdi",
    }


def test_a_second_run_changes_nothing(tmp_path: Path) -> None:
    make(tmp_path / "data")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*") if path.is_file()}
    lines: list[str] = []
    make(tmp_path / "data", lines)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(lines) == len(before)
    assert all("is there" in line for line in lines)


def test_an_interrupted_run_leaves_no_half_file(tmp_path: Path) -> None:
    place = Place(tmp_path, IMAGING, Owners(DAQ_UID, change=False))
    place.make_folders()

    def broken(path: str) -> None:
        Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        place.put(place.raw, "scan.nxs", broken)
    assert [path.name for path in tmp_path.rglob("*") if not path.is_dir()] == []
    assert not list(tmp_path.glob(".making-*"))


def test_leftovers_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".making-abc").mkdir()
    (tmp_path / ".making-abc/half").touch()
    make(tmp_path)
    assert not list(tmp_path.glob(".making-*"))


def test_a_plain_user_is_told_that_nothing_changes_owner(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert data.main(["--root", str(tmp_path / "data"), "--size", "32", "--workers", "1", "--no-chown"]) == 0
    assert "groups are not set" in capsys.readouterr().out


def test_a_root_that_cannot_be_written_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert data.main(["--root", str(tmp_path / "file/data"), "--no-chown"]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.root
def test_owners_and_modes_are_a_beamlines(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.fail("this test needs root: it gives files to other accounts")
    make(tmp_path / "data", change=True)
    expected = {
        "": (0, 0o2750),
        "raw": (DAQ_UID, 0o2750),
        "processed": (0, 0o2770),
        "README.txt": (0, 0o640),
        "raw/ceo2_0001.nxs": (DAQ_UID, 0o640),
    }
    for name, (uid, mode) in expected.items():
        facts = (tmp_path / "data" / DIFFRACTION.folder / name).stat()
        assert (facts.st_uid, facts.st_gid, stat.S_IMODE(facts.st_mode)) == (uid, DIFFRACTION.gid, mode), name
