import pytest

from beamdesk.guest import home_disk
from beamdesk.guest.errors import SetupError


class Disks:
    """A machine's disks: what ``blkid`` and ``mkfs.ext4`` would say of them."""

    def __init__(self, tmp_path, **disks):
        self.sys_block = tmp_path
        self.made = []
        self._disks = disks
        for name, content in disks.items():
            (tmp_path / name).mkdir()
            (tmp_path / name / "size").write_text("2048\n")
            (tmp_path / name / "ro").write_text("1\n" if content == "read-only" else "0\n")
            if content == "partitions":
                (tmp_path / name / f"{name}1").mkdir()

    def run(self, command):
        if command[:2] == ["blkid", "-L"]:
            known = [name for name, content in self._disks.items() if content == command[2]]
            return (0, f"/dev/{known[0]}\n") if known else (2, "")
        if command[:2] == ["blkid", "--probe"]:
            return (2, "") if not self._disks[command[2].removeprefix("/dev/")] else (0, "TYPE=...")
        self.made.append(command)
        return 0, ""


def test_a_home_of_an_earlier_boot_is_found_by_its_label(tmp_path):
    disks = Disks(tmp_path, vda="partitions", vdb=home_disk.LABEL, vdc="")
    assert home_disk.find(disks.run, disks.sys_block) == "/dev/vdb"
    assert disks.made == []


def test_the_one_empty_disk_becomes_the_home(tmp_path):
    disks = Disks(tmp_path, vda="partitions", vdb="", sr0="")
    assert home_disk.find(disks.run, disks.sys_block) == "/dev/vdb"
    assert disks.made == [["mkfs.ext4", "-q", "-m", "0", "-L", home_disk.LABEL, "/dev/vdb"]]


@pytest.mark.parametrize(
    "disks", [{"vda": "partitions"}, {"vda": "partitions", "vdb": "somebody's"}, {"vdb": "", "vdc": ""}, {"vdb": "read-only"}]
)
def test_a_disk_that_holds_something_or_could_be_another_is_never_touched(tmp_path, disks):
    machine = Disks(tmp_path, **disks)
    with pytest.raises(SetupError):
        home_disk.find(machine.run, machine.sys_block)
    assert machine.made == []
