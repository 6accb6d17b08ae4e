import dataclasses
import os

import pytest

from beamdesk.guest import accounts
from beamdesk.guest.errors import SetupError
from beamdesk.protocol.guest import Account, Group

ADA = Account("ada", 20001, 20001, "Ada Lin", (Group("heps-2026-0147", 30001),), "/home/ada")


@pytest.fixture
def etc(tmp_path):
    (tmp_path / "passwd").write_text("root:x:0:0:root:/root:/bin/bash\nwww:x:33:33::/:/bin/false\n")
    (tmp_path / "group").write_text("root:x:0:\nvideo:x:44:\n")
    (tmp_path / "shadow").write_text("root:*:19000:0:99999:7:::\n")
    return tmp_path


def person(home, **changes):
    made = accounts.Person("ada", os.getuid(), os.getgid(), (os.getgid(),), home)
    return dataclasses.replace(made, **changes)


def test_account_and_groups_are_written(etc):
    person = accounts.ensure(ADA, etc)
    assert "ada:x:20001:20001:Ada Lin:/home/ada:/bin/bash\n" in (etc / "passwd").read_text()
    assert (etc / "group").read_text().endswith("ada:x:20001:\nheps-2026-0147:x:30001:ada\n")
    assert "ada:!:" in (etc / "shadow").read_text()
    assert person.gids == (20001, 30001)


def test_making_it_twice_changes_nothing(etc):
    accounts.ensure(ADA, etc)
    before = [(etc / name).read_text() for name in ("passwd", "group", "shadow")]
    accounts.ensure(ADA, etc)
    assert [(etc / name).read_text() for name in ("passwd", "group", "shadow")] == before


@pytest.mark.parametrize(
    "change",
    [
        {"uid": 0},
        {"gid": 0},
        {"uid": 33},
        {"login": "ada:x"},
        {"login": "../etc"},
        {"login": "root"},
        {"home": "/root"},
        {"home": "/home/ada/../bob"},
        {"groups": (Group("sudo\nroot", 30001),)},
        {"groups": (Group("video", 30001),)},
        {"groups": (Group("team", 44),)},
    ],
)
def test_dangerous_accounts_are_refused(etc, change):
    before = (etc / "passwd").read_text()
    with pytest.raises(SetupError):
        accounts.ensure(dataclasses.replace(ADA, **change), etc)
    assert (etc / "passwd").read_text() == before


def test_a_name_cannot_add_fields_or_lines(etc):
    accounts.ensure(dataclasses.replace(ADA, full_name="Ada:0:0\nroot2::0:0:"), etc)
    lines = (etc / "passwd").read_text().splitlines()
    assert len(lines) == 3
    assert lines[-1].split(":")[2:4] == ["20001", "20001"]


def test_an_id_of_somebody_else_is_refused(etc):
    accounts.ensure(ADA, etc)
    with pytest.raises(SetupError, match="taken"):
        accounts.ensure(dataclasses.replace(ADA, login="bob", home="/home/bob"), etc)


def test_an_empty_home_gets_the_skeleton(tmp_path):
    skeleton, home = tmp_path / "skel", tmp_path / "home"
    (skeleton / ".config").mkdir(parents=True)
    (skeleton / ".config" / "x").write_text("1")
    (home / "lost+found").mkdir(parents=True)
    assert accounts.fill_home(person(home), skeleton)
    assert (home / ".config" / "x").read_text() == "1"
    assert (home / ".hidden").read_text() == "lost+found\n"
    assert home.stat().st_mode & 0o777 == 0o700


def test_a_used_home_is_left_alone(tmp_path):
    skeleton, home = tmp_path / "skel", tmp_path / "home"
    skeleton.mkdir()
    (skeleton / "new").write_text("1")
    home.mkdir()
    (home / "mine").write_text("1")
    assert not accounts.fill_home(person(home), skeleton)
    assert not (home / "new").exists()


def test_the_home_of_somebody_else_is_refused(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    (home / "theirs").write_text("1")
    with pytest.raises(SetupError, match="belongs to"):
        accounts.fill_home(person(home, uid=os.getuid() + 1), tmp_path)


def test_a_home_that_is_a_link_is_refused(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "home").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SetupError):
        accounts.fill_home(person(tmp_path / "home"), tmp_path)


def test_groups_of_devices_come_to_the_persons_own(etc):
    person = accounts.with_devices(accounts.ensure(ADA, etc), {44, 105})
    assert person.gids == (44, 105, 20001, 30001)
