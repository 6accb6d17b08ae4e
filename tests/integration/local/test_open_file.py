"""Opening data as a person: the kernel's permissions decide, and no path leads out of the experiment."""

from __future__ import annotations

import asyncio
import os

import pytest

from beamdesk.adapters.local.driver import helper_account
from beamdesk.domain.errors import CloudRefused, Forbidden, NotFound
from beamdesk.protocol.helper import MAX_FACTS, FolderEntries, HelperAccount
from integration.local.helper_world import ADA, CHEN, HelperWorld

pytestmark = pytest.mark.root


def opened(world: HelperWorld, path: str, account: HelperAccount | None = None, experiment: str = "exp-a") -> int:
    return asyncio.run(world.client.open_file(account or helper_account(ADA), experiment, path))


def read(world: HelperWorld, path: str, account: HelperAccount | None = None) -> bytes:
    descriptor = opened(world, path, account)
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor
        return file.read()


@pytest.fixture(scope="module", autouse=True)
def traps(world: HelperWorld) -> None:
    """What a hostile person could put into the folder that they may write, and a link in raw."""
    processed = world.folder / "data/exp-a/processed"
    (processed / "link-out").symlink_to("/etc/passwd")
    (processed / "link-up").symlink_to("../raw")
    (processed / "link-other").symlink_to("../../exp-b/raw/scan.txt")
    (world.folder / "data/exp-a/raw/link").symlink_to("scan.txt")
    os.mkfifo(processed / "pipe", 0o666)
    os.mknod(processed / "device", 0o20666, os.makedev(1, 3))
    (processed / "secret").write_text("of root")
    (processed / "secret").chmod(0o600)
    (world.folder / "data/exp-link").symlink_to("exp-a")


def test_a_member_reads_a_file(world: HelperWorld) -> None:
    assert read(world, "raw/scan.txt") == b"counts of exp-a\n"


def test_a_folder_is_opened_for_listing(world: HelperWorld) -> None:
    descriptor = opened(world, "")
    try:
        assert sorted(os.listdir(descriptor)) == ["processed", "raw"]  # noqa: PTH208 - a descriptor
    finally:
        os.close(descriptor)


def test_the_descriptor_cannot_write(world: HelperWorld) -> None:
    descriptor = opened(world, "raw/scan.txt")
    try:
        with pytest.raises(OSError):
            os.write(descriptor, b"x")
    finally:
        os.close(descriptor)


def test_somebody_of_another_experiment_is_refused(world: HelperWorld) -> None:
    with pytest.raises(Forbidden):
        read(world, "raw/scan.txt", helper_account(CHEN))


@pytest.mark.parametrize(
    "path",
    [
        "../exp-b/raw/scan.txt",
        "raw/../../exp-b/raw/scan.txt",
        "/etc/passwd",
        "processed/link-out",
        "processed/link-up/scan.txt",
        "processed/link-other",
        "raw/link",
        "processed/secret",
    ],
)
def test_no_path_or_link_leads_out(world: HelperWorld, path: str) -> None:
    with pytest.raises(Forbidden):
        opened(world, path)


@pytest.mark.parametrize("path", ["raw/nothing", "raw/scan.txt/deeper", "processed/pipe", "processed/device", "raw/" + "x" * 300])
def test_what_is_no_file_or_folder_is_not_found(world: HelperWorld, path: str) -> None:
    with pytest.raises(NotFound):
        opened(world, path)


@pytest.mark.parametrize("experiment", ["exp-none", "exp-link"])
def test_an_experiment_that_is_absent_or_a_link_is_not_opened(world: HelperWorld, experiment: str) -> None:
    with pytest.raises((NotFound, Forbidden)):
        opened(world, "raw/scan.txt", experiment=experiment)


@pytest.mark.parametrize(("uid", "gid", "gids"), [(0, 0, ()), (20001, 0, ()), (20001, 20001, (0,)), (1000, 1000, ())])
def test_no_other_account_than_a_persons_opens_files(world: HelperWorld, uid: int, gid: int, gids: tuple[int, ...]) -> None:
    with pytest.raises(CloudRefused):
        opened(world, "raw/scan.txt", HelperAccount("ada", uid, gid, gids))


def test_many_files_at_once_are_all_opened(world: HelperWorld) -> None:
    async def many() -> list[int]:
        return await asyncio.gather(*(world.client.open_file(helper_account(ADA), "exp-a", "raw/scan.txt") for _ in range(60)))

    descriptors = asyncio.run(many())
    for descriptor in descriptors:
        os.close(descriptor)
    assert len(descriptors) == 60


def facts(
    world: HelperWorld, names: tuple[str, ...], path: str = "processed", account: HelperAccount | None = None
) -> list[object]:
    return list(asyncio.run(world.client.entry_facts(account or helper_account(ADA), "exp-a", path, names)))


def test_entries_of_a_folder_are_told_in_one_answer(world: HelperWorld) -> None:
    size = len(b"counts of exp-a\n")
    raw, absent = facts(world, ("raw", "nothing"), path="")
    assert raw is not None
    assert (raw.folder, absent) == (True, None)
    assert [(one.folder, one.size) for one in facts(world, ("scan.txt",), "raw")] == [(False, size)]


def test_nothing_is_told_of_links_pipes_and_devices(world: HelperWorld) -> None:
    assert facts(world, ("link-out", "link-up", "link-other", "pipe", "device")) == [None] * 5


def test_entries_are_looked_at_with_the_persons_rights(world: HelperWorld) -> None:
    with pytest.raises(Forbidden):
        facts(world, ("scan.txt",), "raw", helper_account(CHEN))
    with pytest.raises(CloudRefused):
        facts(world, ("scan.txt",), "raw", HelperAccount("ada", 0, 0, ()))


@pytest.mark.parametrize("name", ["..", "../exp-b", "a/b", ""])
def test_a_name_that_is_a_path_is_no_name(name: str) -> None:
    with pytest.raises(ValueError, match="name is not valid"):
        FolderEntries(helper_account(ADA), "exp-a", "", (name,))


def test_more_than_one_request_may_carry_is_refused() -> None:
    with pytest.raises(ValueError, match="too many"):
        FolderEntries(helper_account(ADA), "exp-a", "", ("x",) * (MAX_FACTS + 1))
