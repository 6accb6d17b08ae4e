"""The contract of the files port, on the direct implementation and on the real privileged helper."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from beamdesk.adapters.local.client import HelperClient
from beamdesk.adapters.local.files import DirectFiles, HelperFiles
from beamdesk.domain.errors import CloudUnavailable, Forbidden, Invalid, NotFound
from beamdesk.ports.files import Entry, ExperimentFiles, FileKind, OpenedFile
from beamdesk.protocol.helper import HelperAccount
from integration.local.helper_world import HelperWorld

pytestmark = pytest.mark.anyio
FOLDER = "exp-a"
UNDECODABLE = os.fsdecode(b"odd-\xff\xfe.dat")
UNUSUAL = ("with space & <b>.txt", "two\nlines.txt", "数据.txt", "-rf", "a'\"b;$(id).txt")


@dataclass
class Case:
    files: ExperimentFiles
    root: Path
    account: HelperAccount
    stranger: HelperAccount

    async def read(self, path: str, account: HelperAccount | None = None) -> bytes:
        with await self.files.open(account or self.account, FOLDER, path) as opened:
            return os.pread(opened.descriptor, 1000, 0)

    async def names(self, path: str = "", **page: object) -> list[str]:
        return [entry.name for entry in (await self.files.list(self.account, FOLDER, path, **page)).entries]


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def make_tree(root: Path, uid: int, gid: int) -> None:
    """An experiment with a scan, and everything that somebody could put beside it."""
    experiment = root / FOLDER
    raw = experiment / "raw"
    (raw / "deep/er").mkdir(parents=True)
    (raw / "scan.nxs").write_bytes(b"counts")
    (raw / "deep/er/below.txt").write_bytes(b"below")
    for number in (1, 2, 10):
        (raw / f"Scan_{number}.h5").write_bytes(b"x" * number)
    (raw / ".hidden").write_bytes(b"")
    names = experiment / "names"
    names.mkdir()
    for name in (*UNUSUAL, UNDECODABLE):
        (names / name).write_bytes(b"odd")
    traps = experiment / "traps"
    traps.mkdir()
    (traps / "absolute").symlink_to("/etc/passwd")
    (traps / "relative").symlink_to("../raw/scan.nxs")
    (traps / "folder").symlink_to("../raw")
    (traps / "other").symlink_to("../../exp-b/raw/scan.nxs")
    os.mkfifo(traps / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(traps / "socket"))
    (traps / "locked").write_bytes(b"secret")
    (traps / "shut").mkdir()
    (traps / "shut/inside").write_bytes(b"secret")
    other = root / "exp-b/raw"
    other.mkdir(parents=True)
    (other / "scan.nxs").write_bytes(b"not yours")
    (root / "exp-link").symlink_to(FOLDER)
    (root / "loose").write_bytes(b"not an experiment")
    for path in (root, *root.rglob("*")):
        if path.is_symlink():
            continue
        if path.is_relative_to(experiment) and os.geteuid() == 0:
            os.chown(path, uid, gid)
        if path.is_file() or path.is_dir():
            path.chmod(0o750 if path.is_dir() else 0o640)
    root.chmod(0o755)
    (traps / "locked").chmod(0)
    (traps / "shut").chmod(0)


@pytest.fixture(scope="module")
def direct() -> Iterator[Case]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "data"
        make_tree(root, os.getuid(), os.getgid())
        account = HelperAccount("ada", os.getuid(), os.getgid(), ())
        yield Case(DirectFiles(root), root, account, HelperAccount("chen", 29999, 29999, (39999,)))
        (root / FOLDER / "traps/shut").chmod(0o700)


@pytest.fixture(scope="module")
def helped() -> Iterator[Case]:
    if os.geteuid() != 0:
        pytest.fail("this test needs root: it starts the real privileged helper")
    folder = Path(tempfile.mkdtemp(prefix="beamdesk-test-"))
    folder.chmod(0o711)
    for name in ("data", "images", "api"):
        (folder / name).mkdir()
        (folder / name).chmod(0o755)
    make_tree(folder / "data", 19900, 30001)
    # Files of the data acquisition, closed to everybody but their owner: the group must not help.
    world = HelperWorld(folder)
    try:
        world.start()
        ada, chen = HelperAccount("ada", 20001, 20001, (30001,)), HelperAccount("chen", 20003, 20003, (30002,))
        yield Case(HelperFiles(world.client), folder / "data", ada, chen)
    finally:
        world.stop()
        shutil.rmtree(folder)


@pytest.fixture(params=["direct", pytest.param("helped", marks=pytest.mark.root)])
def case(request: pytest.FixtureRequest) -> Case:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Case)
    return found


async def test_a_file_is_read(case: Case) -> None:
    assert await case.read("raw/scan.nxs") == b"counts"
    assert await case.read("raw/deep/er/below.txt") == b"below"


async def test_an_opened_file_knows_its_facts(case: Case) -> None:
    with await case.files.open(case.account, FOLDER, "raw/scan.nxs") as opened:
        facts = (case.root / FOLDER / "raw/scan.nxs").stat()
        assert (opened.kind, opened.size, opened.facts.st_ino) == (FileKind.FILE, 6, facts.st_ino)
        assert opened.modified.timestamp() == pytest.approx(facts.st_mtime)
        assert opened.unchanged


async def test_the_experiments_folder_itself_is_a_folder(case: Case) -> None:
    with await case.files.open(case.account, FOLDER, "") as opened:
        assert opened.kind is FileKind.FOLDER


@pytest.mark.parametrize("name", UNUSUAL)
async def test_unusual_names_are_names(case: Case, name: str) -> None:
    assert await case.read(f"names/{name}") == b"odd"


async def test_what_does_not_exist_is_not_found(case: Case) -> None:
    for path in ("raw/none", "raw/scan.nxs/below", "none/scan.nxs"):
        with pytest.raises(NotFound):
            await case.files.open(case.account, FOLDER, path)
    with pytest.raises(NotFound):
        await case.files.open(case.account, "exp-none", "raw/scan.nxs")


@pytest.mark.parametrize(
    "path",
    [
        "..",
        "../exp-b/raw/scan.nxs",
        "raw/../../exp-b/raw/scan.nxs",
        "/etc/passwd",
        "./raw",
        "raw//scan.nxs",
        "raw/\x00",
        "a" * 300,
        "a/" * 2100,
    ],
)
async def test_a_path_never_leaves_the_folder(case: Case, path: str) -> None:
    with pytest.raises(Invalid):
        await case.files.open(case.account, FOLDER, path)


@pytest.mark.parametrize("folder", ["", ".", "..", "exp-a/raw", "/etc", "../etc"])
async def test_a_folder_is_one_plain_name(case: Case, folder: str) -> None:
    with pytest.raises(Invalid):
        await case.files.open(case.account, folder, "raw/scan.nxs")


@pytest.mark.parametrize("path", ["absolute", "relative", "other", "folder", "folder/scan.nxs"])
async def test_no_symbolic_link_is_followed(case: Case, path: str) -> None:
    with pytest.raises((Forbidden, NotFound)):
        await case.files.open(case.account, FOLDER, f"traps/{path}")


async def test_an_experiment_that_is_a_link_is_none(case: Case) -> None:
    with pytest.raises((Forbidden, NotFound)):
        await case.files.open(case.account, "exp-link", "raw/scan.nxs")


@pytest.mark.parametrize("name", ["pipe", "socket"])
async def test_pipes_and_sockets_are_not_opened(case: Case, name: str) -> None:
    with pytest.raises(NotFound):
        await case.files.open(case.account, FOLDER, f"traps/{name}")


@pytest.mark.parametrize("path", ["traps/locked", "traps/shut", "traps/shut/inside"])
async def test_what_the_account_may_not_read_is_refused(case: Case, path: str) -> None:
    with pytest.raises(Forbidden):
        await case.files.open(case.account, FOLDER, path)


async def test_another_persons_account_reads_nothing(case: Case) -> None:
    for path in ("", "raw", "raw/scan.nxs"):
        with pytest.raises(Forbidden):
            await case.files.open(case.stranger, FOLDER, path)
    with pytest.raises(Forbidden):
        await case.files.list(case.stranger, FOLDER, "")


async def test_a_folder_is_listed_folders_first_and_numbers_in_order(case: Case) -> None:
    assert await case.names("raw") == ["deep", "scan.nxs", "Scan_1.h5", "Scan_2.h5", "Scan_10.h5"]
    assert await case.names("raw/") == await case.names("raw")


async def test_a_page_of_many_long_names_tells_every_size(case: Case) -> None:
    folder = case.root / FOLDER / "many"
    folder.mkdir()
    names = [f"{number:04d}-{'长' * 70}.dat" for number in range(450)]
    for name in names:
        (folder / name).write_bytes(b"xyz")
        os.chown(folder / name, case.account.uid, case.account.gid)
    os.chown(folder, case.account.uid, case.account.gid)
    folder.chmod(0o750)
    try:
        page = await case.files.list(case.account, FOLDER, "many", limit=1000)
        assert [(entry.name, entry.size) for entry in page.entries] == [(name, 3) for name in names]
    finally:
        shutil.rmtree(folder)


async def test_a_listing_tells_sizes_and_times(case: Case) -> None:
    page = await case.files.list(case.account, FOLDER, "raw")
    entry = next(entry for entry in page.entries if entry.name == "Scan_10.h5")
    assert (entry.kind, entry.size) == (FileKind.FILE, 10)
    assert entry.modified is not None


async def test_hidden_names_are_listed_on_request(case: Case) -> None:
    assert ".hidden" not in await case.names("raw")
    assert ".hidden" in await case.names("raw", hidden=True)


async def test_a_listing_has_pages(case: Case) -> None:
    page = await case.files.list(case.account, FOLDER, "raw", offset=1, limit=2)
    assert ([entry.name for entry in page.entries], page.total, page.offset, page.truncated) == (
        ["scan.nxs", "Scan_1.h5"],
        5,
        1,
        False,
    )
    assert await case.names("raw", offset=99) == []


@pytest.mark.parametrize("bounds", [{"offset": -1}, {"limit": 0}, {"limit": 100_000}])
async def test_a_page_has_sensible_bounds(case: Case, bounds: dict[str, int]) -> None:
    with pytest.raises(Invalid):
        await case.files.list(case.account, FOLDER, "raw", **bounds)


async def test_links_and_pipes_are_shown_and_not_followed(case: Case) -> None:
    kinds = {entry.name: (entry.kind, entry.size) for entry in (await case.files.list(case.account, FOLDER, "traps")).entries}
    assert [kinds[name] for name in ("absolute", "folder", "relative")] == [(FileKind.LINK, None)] * 3
    assert {kinds[name][0] for name in ("pipe", "socket")} == {FileKind.OTHER}
    assert kinds["shut"][0] is FileKind.FOLDER
    assert kinds["locked"][0] is FileKind.FILE


async def test_a_name_that_is_no_text_is_listed_safely(case: Case) -> None:
    page = await case.files.list(case.account, FOLDER, "names")
    odd = next(entry for entry in page.entries if entry.name == UNDECODABLE)
    assert odd.label == "odd-\ufffd\ufffd.dat"
    assert next(entry for entry in page.entries if "\n" in entry.name).label == "two\ufffdlines.txt"


async def test_a_file_is_not_listed(case: Case) -> None:
    with pytest.raises(Invalid):
        await case.files.list(case.account, FOLDER, "raw/scan.nxs")


async def test_nothing_stays_open(case: Case) -> None:
    before = open_descriptors()
    for _ in range(5):
        await case.read("raw/scan.nxs")
        await case.names("traps")
        for path in ("traps/pipe", "traps/locked", "traps/relative", "raw/none"):
            with pytest.raises((Forbidden, NotFound)):
                await case.files.open(case.account, FOLDER, path)
    assert open_descriptors() == before


def test_a_dropped_file_closes_itself(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    descriptor = os.open(tmp_path / "file", os.O_RDONLY)
    opened = OpenedFile(descriptor)
    assert opened.size == 1
    del opened
    with pytest.raises(OSError):
        os.fstat(descriptor)


async def test_closing_twice_is_fine(case: Case) -> None:
    opened = await case.files.open(case.account, FOLDER, "raw/scan.nxs")
    opened.close()
    opened.close()


async def test_a_name_that_the_helper_cannot_say_is_invalid() -> None:
    class NoHelper:
        async def open_file(self, account: HelperAccount, experiment: str, path: str) -> int:
            raise AssertionError(path)

    with pytest.raises(Invalid, match="UTF-8"):
        await HelperFiles(NoHelper()).open(HelperAccount("ada", 20001, 20001, ()), FOLDER, f"names/{UNDECODABLE}")


async def test_without_a_helper_the_storage_is_unavailable(tmp_path: Path) -> None:
    files = HelperFiles(HelperClient(tmp_path / "nobody.sock", timeout_s=1))
    with pytest.raises(CloudUnavailable):
        await files.open(HelperAccount("ada", 20001, 20001, ()), FOLDER, "")


async def test_a_folder_replaced_by_a_link_meanwhile_leads_nowhere(direct: Case) -> None:
    raw = direct.root / FOLDER / "swap"
    raw.mkdir()
    (raw / "scan.nxs").write_bytes(b"mine")
    raw.rename(raw.with_name("swapped"))
    raw.symlink_to(direct.root / "exp-b/raw")
    with pytest.raises(Forbidden):
        await direct.files.open(direct.account, FOLDER, "swap/scan.nxs")


@pytest.mark.heavy
async def test_a_hundred_thousand_entries_are_one_page_at_a_time(direct: Case) -> None:
    many = direct.root / FOLDER / "many"
    many.mkdir()
    handle = os.open(many, os.O_RDONLY)
    for number in range(100_000):
        os.mknod(f"{number}.tif", 0o100640, dir_fd=handle)
    os.close(handle)
    page = await direct.files.list(direct.account, FOLDER, "many", offset=99_998, limit=10)
    assert (page.total, [entry.name for entry in page.entries]) == (100_000, ["99998.tif", "99999.tif"])
    shutil.rmtree(many)


def test_a_device_is_no_file() -> None:
    descriptor = os.open("/dev/null", os.O_RDONLY)
    with pytest.raises(NotFound):
        OpenedFile(descriptor)
    with pytest.raises(OSError):
        os.fstat(descriptor)


@pytest.mark.parametrize(("name", "label"), [("a\u202egnp.exe", "a\ufffdgnp.exe"), ("\x1b[31m", "\ufffd[31m"), ("数据", "数据")])
def test_labels_cannot_lie(name: str, label: str) -> None:
    assert Entry(name, FileKind.FILE).label == label
