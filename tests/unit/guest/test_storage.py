import pytest

from beamdesk.guest import storage
from beamdesk.guest.errors import SetupError
from beamdesk.protocol.guest import Mount

INFO = """\
22 1 0:20 / / rw,relatime - overlay none rw,lowerdir=/a
30 22 8:1 /x /data/e/raw ro,relatime - ext4 /dev/vda rw
31 22 8:1 /y /data/e/processed rw,relatime shared:3 - ext4 /dev/vda rw
32 22 8:1 /z /data/with\\040space rw - ext4 /dev/vda ro
"""
RAW = Mount("bind", "", "/data/e/raw", writable=False)
PROCESSED = Mount("bind", "", "/data/e/processed", writable=True)


@pytest.fixture
def info(tmp_path):
    path = tmp_path / "mountinfo"
    path.write_text(INFO)
    return path


def test_right_mounts_pass(info):
    storage.ensure((RAW, PROCESSED), info)


def test_escapes_and_read_only_file_systems_are_understood():
    assert storage.mounted(INFO)["/data/with space"].read_only


def test_a_missing_mount_is_named(info):
    with pytest.raises(SetupError, match="/data/other is not mounted"):
        storage.ensure((Mount("bind", "", "/data/other", writable=False),), info)


def test_writable_raw_data_are_refused(info):
    with pytest.raises(SetupError, match="must be read-only"):
        storage.ensure((Mount("bind", "", "/data/e/processed", writable=False),), info)


def test_read_only_processed_data_are_refused(info):
    with pytest.raises(SetupError, match="must be writable"):
        storage.ensure((Mount("bind", "", "/data/e/raw", writable=True),), info)


@pytest.mark.parametrize(
    "mount",
    [
        Mount("bind", "", "/etc", writable=True),
        Mount("bind", "", "/data/../etc", writable=True),
        Mount("cifs", "x", "/data/e/raw", writable=False),
        Mount("nfs", "--bind", "/data/new", writable=False),
        Mount("nfs", "host:/x,suid", "/data/new", writable=False),
    ],
)
def test_strange_mounts_are_refused(info, mount):
    with pytest.raises(SetupError):
        storage.ensure((mount,), info)
