import re
import shutil
import subprocess

import pytest

from beamdesk.guest import mount_units
from beamdesk.guest.errors import SetupError
from beamdesk.protocol.guest import Mount

TARGET = "/data/heps-2026-0147/raw"
MOUNTS = {
    "nfs4": Mount("nfs4", "nfs.example:/export/raw", TARGET, writable=False),
    "nfs of an IPv6 server": Mount("nfs", "[2001:db8::5]:/export/raw", TARGET, writable=True, options="nconnect=4"),
    "oceanstor": Mount("oceanstor", "10.1.2.3:/fs0/raw", TARGET, writable=False),
    "lustre": Mount("lustre", "10.0.0.1@o2ib:10.0.0.2@o2ib:/hepsfs/raw", TARGET, writable=False),
    "ceph, list of monitors": Mount("ceph", "10.0.0.1:6789,10.0.0.2:/volumes/raw", TARGET, writable=True, options="name=exp147"),
    "ceph, new form": Mount(
        "ceph", "exp147@.data=/volumes/raw", TARGET, writable=True, options="mon_addr=10.0.0.1:6789/10.0.0.2:6789"
    ),
    "disk": Mount("disk", "/dev/disk/by-label/beamdesk-home", "/home/bob", writable=True),
}


@pytest.mark.parametrize("mount", MOUNTS.values(), ids=MOUNTS)
def test_systemd_finds_nothing_wrong_with_the_units(mount, tmp_path):
    unit = tmp_path / mount_units.unit_name(mount.target)
    unit.write_text(mount_units.render(mount, "/run/beamdesk/storage/x" if mount.kind == "ceph" else ""))
    checked = subprocess.run(
        [shutil.which("systemd-analyze") or "systemd-analyze", "verify", "--man=no", unit],
        capture_output=True,
        text=True,
        check=False,
    )
    assert str(unit.name) not in checked.stderr, checked.stderr
    assert checked.returncode == 0


@pytest.mark.parametrize("target", ["/data/heps-2026-0147/raw", "/home/bob", "/data/a.b/.hidden", "/data/x_y/1-2"])
def test_units_are_named_as_systemd_names_them(target):
    wanted = subprocess.run(["systemd-escape", "--path", "--suffix=mount", target], capture_output=True, text=True, check=True)
    assert mount_units.unit_name(target) == wanted.stdout.strip()


def test_raw_data_are_mounted_read_only_and_processed_ones_writable():
    assert mount_units.options(MOUNTS["nfs4"]).startswith("ro,nosuid,nodev")
    assert mount_units.options(MOUNTS["ceph, new form"]).startswith("rw,nosuid,nodev")


def test_a_servers_restart_makes_programs_wait_not_fail():
    assert "hard" in mount_units.options(MOUNTS["nfs4"]).split(",")


def test_the_sites_options_win_over_the_usual_ones():
    mount = Mount("oceanstor", "h:/x", TARGET, writable=False, options="rsize=65536")
    assert re.findall(r"rsize=\d+", mount_units.options(mount)) == ["rsize=65536"]


def test_a_secret_is_in_neither_unit_nor_repr():
    mount = Mount("ceph", "10.0.0.1:/v", TARGET, writable=True, options="name=a", secret="AQBtopsecret==")
    assert "topsecret" not in mount_units.render(mount, "/run/secret") + repr(mount)


@pytest.mark.parametrize(
    "mount",
    [
        Mount("cifs", "//h/x", TARGET, writable=False),
        Mount("nfs4", "h:/x", "/etc", writable=False),
        Mount("nfs4", "h:/x", "/data/../etc", writable=False),
        Mount("nfs4", "h:/x", "/data/a b", writable=False),
        Mount("nfs4", "h:/x", "/data/%h", writable=False),
        Mount("nfs4", "h:/x", "/data/x\n[Install]", writable=False),
        Mount("nfs4", "h:/../x", TARGET, writable=False),
        Mount("nfs4", "h:/x\nType=tmpfs", TARGET, writable=False),
        Mount("nfs4", "--bind:/x", TARGET, writable=False),
        Mount("nfs4", "h:/x,suid", TARGET, writable=False),
        Mount("disk", "/dev/../etc/shadow", "/home/bob", writable=True),
        Mount("lustre", "/dev/vda", TARGET, writable=False),
        Mount("nfs4", "h:/x", TARGET, writable=False, options="suid"),
        Mount("nfs4", "h:/x", TARGET, writable=False, options="rw"),
        Mount("nfs4", "h:/x", TARGET, writable=False, options="hard,remount"),
        Mount("nfs4", "h:/x", TARGET, writable=False, options="hard\nExecStart=/bin/sh"),
        Mount("ceph", "h:/x", TARGET, writable=False, options="secretfile=/etc/shadow"),
    ],
)
def test_what_is_no_plain_mount_is_refused(mount):
    with pytest.raises(SetupError):
        mount_units.render(mount)
