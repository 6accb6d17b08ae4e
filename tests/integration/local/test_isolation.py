"""What somebody inside a desktop, even as its root, can see, reach and use up: attacks on a real container."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

import pytest

from beamdesk.adapters.local.driver import LocalCloud
from beamdesk.domain.ids import ServerId
from beamdesk.protocol.helper import Op, Request, ServerState
from integration.local.conftest import Desktop
from integration.local.helper_world import ADA, CHEN, HelperWorld, spec_of

pytestmark = pytest.mark.root


def state_of(world: HelperWorld, desktop_id: str) -> ServerState:
    servers = world.call(Request(op=Op.LIST)).servers or ()
    return next(server.state for server in servers if server.desktop_id == desktop_id)


def test_the_person_reads_raw_and_writes_processed_as_themself(world: HelperWorld, desktop: Desktop) -> None:
    ada = desktop()
    assert world.run(ada, "cat", "/data/exp-a/raw/scan.txt", person=True).out == "counts of exp-a\n"
    assert world.run(ada, "sh", "-c", "echo slice > /data/exp-a/processed/slice.txt", person=True).rc == 0
    written = (world.folder / "data/exp-a/processed/slice.txt").stat()
    assert (written.st_uid, written.st_gid) == (20001, 30001)


@pytest.mark.parametrize("person", [True, False])
@pytest.mark.parametrize(
    "attack",
    [
        "echo x > /data/exp-a/raw/new.txt",
        "echo x >> /data/exp-a/raw/scan.txt",
        "chmod 777 /data/exp-a/raw/scan.txt",
        "rm -f /data/exp-a/raw/scan.txt && test ! -e /data/exp-a/raw/scan.txt",
        "mount -o remount,rw,bind /data/exp-a/raw && echo x > /data/exp-a/raw/new.txt",
        "umount /data/exp-a/raw",
    ],
)
def test_raw_data_cannot_be_changed_even_by_root_inside(world: HelperWorld, desktop: Desktop, attack: str, person: bool) -> None:
    assert world.run(desktop(), "sh", "-c", attack, person=person).rc != 0
    raw = world.folder / "data/exp-a/raw"
    assert [path.name for path in raw.iterdir()] == ["scan.txt"]
    assert (raw / "scan.txt").read_text() == "counts of exp-a\n"
    assert (raw / "scan.txt").stat().st_mode & 0o777 == 0o640


ROOTS_ATTACKS_ON_SHARED_DATA = {
    "create as root": "open('/data/exp-a/processed/evil', 'w')",
    "create as the host's daq account": "os.setgid(30001); os.setuid(19900); open('/data/exp-a/processed/evil', 'w')",
    "create as a colleague": "os.setgid(30001); os.setuid(20002); open('/data/exp-a/processed/evil', 'w')",
    "give a program to root": "os.chown('/data/exp-a/processed/tool', 0, 0)",
    "give a program to a colleague": "os.chown('/data/exp-a/processed/tool', 20002, -1)",
    "give a program to another experiment": "os.chown('/data/exp-a/processed/tool', -1, 30002)",
    "change a colleague's file": "os.chmod('/data/exp-a/processed/bobs', 0o6777)",
    "read what is the colleague's alone": "open('/data/exp-a/processed/bobs-private').read()",
    "make a device": "os.mknod('/data/exp-a/processed/evil', 0o60666, os.makedev(7, 0))",
}


@pytest.mark.parametrize("attack", ROOTS_ATTACKS_ON_SHARED_DATA.values(), ids=ROOTS_ATTACKS_ON_SHARED_DATA)
def test_root_inside_is_nobody_on_shared_data(world: HelperWorld, desktop: Desktop, attack: str) -> None:
    ada = desktop()
    processed = world.folder / "data/exp-a/processed"
    assert world.run(ada, "sh", "-c", "cp /bin/true /data/exp-a/processed/tool", person=True).rc == 0
    for name, mode in (("bobs", 0o664), ("bobs-private", 0o600)):
        (processed / name).write_text("of bob")
        os.chown(processed / name, 20002, 30001)
        (processed / name).chmod(mode)
    done = world.python(ada, f"import os; {attack}")
    assert done.rc == 1, done
    assert re.search(r"PermissionError|OSError: \[Errno 75\]", done.err)
    assert not (processed / "evil").exists()
    tool = (processed / "tool").stat()
    assert (tool.st_uid, tool.st_gid) == (20001, 30001)


def test_colleagues_work_on_each_others_files_as_the_group_may(world: HelperWorld, desktop: Desktop) -> None:
    shared = world.folder / "data/exp-a/processed/shared"
    shared.write_text("of bob\n")
    os.chown(shared, 20002, 30001)
    shared.chmod(0o660)
    ada = desktop()
    assert world.run(ada, "sh", "-c", "echo and ada >> /data/exp-a/processed/shared", person=True).rc == 0
    assert shared.read_text() == "of bob\nand ada\n"
    assert shared.stat().st_uid == 20002
    assert world.run(ada, "rm", "/data/exp-a/processed/shared", person=True).rc == 0
    assert not shared.exists()


def test_only_the_experiments_own_data_are_there(world: HelperWorld, desktop: Desktop) -> None:
    assert world.run(desktop(), "ls", "/data").out.split() == ["exp-a"]
    assert world.run(desktop(CHEN, "exp-b"), "ls", "/data").out.split() == ["exp-b"]


def test_a_person_without_the_experiments_group_reads_nothing(world: HelperWorld, desktop: Desktop) -> None:
    stranger = desktop(CHEN, "exp-a")
    code = (
        "import os; os.setgroups([30002]); os.setgid(20003); os.setuid(20003)\n"
        "try: os.listdir('/data/exp-a/raw')\n"
        "except PermissionError: print('refused')"
    )
    assert world.python(stranger, code).out == "refused\n"


def test_nothing_of_the_host_shows(world: HelperWorld, desktop: Desktop) -> None:
    ada = desktop()
    marker = world.folder.name
    assert world.run(ada, "sh", "-c", f"ls -d {world.folder} /work /run/systemd/nspawn").out == ""
    assert marker not in world.run(ada, "ls", "-R", "/run", "/tmp", "/var", "/home").out
    assert world.run(ada, "sh", "-c", "cat /run/host/os-release").out == "ID=beamdesk\nNAME=Beamdesk\n"
    mounts = world.run(ada, "cat", "/proc/self/mountinfo").out
    hosts = [line for line in mounts.splitlines() if marker in line and "/run/beamdesk/api" not in line and "/data/" not in line]
    assert hosts == []


def test_no_socket_of_beamdesk_is_inside_but_the_guest_api(world: HelperWorld, desktop: Desktop) -> None:
    code = (
        "import os, stat\n"
        "for folder, _names, files in os.walk('/'):\n"
        "    if not folder.startswith(('/proc', '/sys')):\n"
        "        for name in files:\n"
        "            path = os.path.join(folder, name)\n"
        "            try: mode = os.lstat(path).st_mode\n"
        "            except OSError: continue\n"
        "            if stat.S_ISSOCK(mode): print(path)\n"
    )
    sockets = set(world.python(desktop(), code).out.split())
    assert sockets <= {"/run/beamdesk/stream/stream.sock", "/run/host/notify", "/run/host/inaccessible/sock"}


def test_the_guest_api_folder_is_read_only(world: HelperWorld, desktop: Desktop) -> None:
    assert world.run(desktop(), "touch", "/run/beamdesk/api/x").rc != 0
    assert list((world.folder / "api").iterdir()) == []


def test_other_desktops_are_not_seen(world: HelperWorld, desktop: Desktop) -> None:
    ada, chen = desktop(), desktop(CHEN, "exp-b")
    for path in ("/proc/mounts", "/proc/net/unix", "/proc/self/cgroup"):
        assert chen not in world.run(ada, "cat", path).out
    commands = world.run(ada, "sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '").out
    assert commands.count("beamdesk.guest") <= 2  # its own agent and the fork that runs this command
    assert world.run(ada, "ls", "/home").out.split() == ["ada"]


def test_two_desktops_share_no_uid_of_the_host(world: HelperWorld, desktop: Desktop) -> None:
    first = world.run(desktop(), "cat", "/proc/self/uid_map").out.split()
    second = world.run(desktop(CHEN, "exp-b"), "cat", "/proc/self/uid_map").out.split()
    assert first[2] == second[2] == "65536"
    assert abs(int(first[1]) - int(second[1])) >= 65536
    assert min(int(first[1]), int(second[1])) > 65536


def test_the_network_is_loopback_only(world: HelperWorld, desktop: Desktop) -> None:
    devices = world.run(desktop(), "cat", "/proc/net/dev").out
    assert re.findall(r"^\s*(\w+):", devices, re.MULTILINE) == ["lo"]


def test_no_device_but_the_harmless_ones(world: HelperWorld, desktop: Desktop) -> None:
    code = (
        "import os, stat\n"
        "for folder, _names, files in os.walk('/dev'):\n"
        "    for name in files:\n"
        "        info = os.lstat(os.path.join(folder, name))\n"
        "        if stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode): print(name)\n"
    )
    devices = set(world.python(desktop(), code).out.split())
    harmless = {"null", "zero", "full", "random", "urandom", "tty", "ptmx", "console"} | {str(n) for n in range(10)}
    assert devices <= harmless | {"tun"}, "systemd-nspawn makes the node of tun, which nobody may open"


def test_the_tunnel_device_cannot_be_opened(world: HelperWorld, desktop: Desktop) -> None:
    code = (
        "import os\n"
        "os.makedirs('/tmp/net')\n"
        "for path in ('/dev/net/tun', '/tmp/net/tun'):\n"
        "    try:\n"
        "        if path.startswith('/tmp'): os.mknod(path, 0o20666, os.makedev(10, 200))\n"
        "        os.open(path, os.O_RDWR)\n"
        "        print('opened')\n"
        "    except OSError as error: print(error.strerror)\n"
    )
    assert "opened" not in world.python(desktop(), code).out


@pytest.mark.parametrize("node", [("b", 7, 0), ("c", 1, 1), ("c", 10, 229)])
def test_root_inside_cannot_make_a_device(world: HelperWorld, desktop: Desktop, node: tuple[str, int, int]) -> None:
    kind = "S_IFBLK" if node[0] == "b" else "S_IFCHR"
    code = f"import os, stat; os.mknod('/tmp/node', stat.{kind} | 0o666, os.makedev({node[1]}, {node[2]}))"
    assert "PermissionError" in world.python(desktop(), code).err


def test_root_inside_has_few_capabilities_and_gains_none(world: HelperWorld, desktop: Desktop) -> None:
    status = world.run(desktop(), "cat", "/proc/self/status").out
    bounding = int(re.search(r"CapBnd:\s*(\w+)", status).group(1), 16)  # type: ignore[union-attr]
    kept = {number for number in range(64) if bounding >> number & 1}
    assert kept == {0, 1, 3, 4, 5, 6, 7}  # chown, dac_override, fowner, fsetid, kill, setgid, setuid
    assert re.search(r"NoNewPrivs:\s*1", status)
    assert re.search(r"Seccomp:\s*2", status)


def test_a_setuid_program_gives_nothing(world: HelperWorld, desktop: Desktop) -> None:
    ada = desktop()
    assert world.run(ada, "sh", "-c", "cp /usr/bin/id /tmp/id && chmod 4755 /tmp/id").rc == 0
    assert world.run(ada, "/tmp/id", "-u", person=True).out == "20001\n"


@pytest.mark.parametrize("person", [True, False])
def test_nobody_inside_makes_a_user_namespace(world: HelperWorld, desktop: Desktop, person: bool) -> None:
    ada = desktop()
    assert world.run(ada, "unshare", "--user", "true", person=person).rc != 0
    assert world.run(ada, "unshare", "--mount", "true", person=person).rc != 0
    assert world.run(ada, "sh", "-c", "echo 10 > /proc/sys/user/max_user_namespaces", person=person).rc != 0


@pytest.mark.parametrize(
    "attack",
    [
        "mount -t tmpfs none /mnt",
        "mount -t proc none /mnt",
        "mount --bind / /mnt",
        "echo c > /proc/sysrq-trigger",
        "echo 1 > /proc/sys/kernel/core_pattern",
        "dmesg",
        "ls /proc/1/root/run/systemd/nspawn",
        "hostname evil",
    ],
)
def test_root_inside_cannot_leave(world: HelperWorld, desktop: Desktop, attack: str) -> None:
    assert world.run(desktop(), "sh", "-c", attack).rc != 0


def test_the_nonce_is_roots_inside_and_in_no_command_line_or_environment(world: HelperWorld, desktop: Desktop) -> None:
    ada = desktop()
    nonce = world.run(ada, "cat", "/run/beamdesk/agent/nonce").out
    assert nonce == spec_of(ada).nonce
    assert world.run(ada, "cat", "/run/beamdesk/agent/nonce", person=True).rc != 0
    assert f'"desktop_id": "{ada}"' in world.run(ada, "cat", "/run/beamdesk/agent/config.json").out
    for process in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            try:
                assert nonce.encode() not in (process / name).read_bytes()
            except OSError:
                continue


def test_a_memory_hog_dies_alone(world: HelperWorld, desktop: Desktop) -> None:
    ada = desktop()
    hog = world.python(ada, "b = bytearray(700 << 20); b[::4096] = b'x' * len(b[::4096]); print('lives')", person=True)
    assert hog.rc == -9
    assert "lives" not in hog.out
    assert world.run(ada, "echo", "alive").out == "alive\n"
    assert state_of(world, ada) is ServerState.RUNNING


def test_root_inside_cannot_raise_its_limits(world: HelperWorld, desktop: Desktop) -> None:
    ada = desktop()
    for name in ("memory.max", "memory/memory.limit_in_bytes", "memory/memory.memsw.limit_in_bytes"):
        world.run(ada, "sh", "-c", f"echo 4000000000 > /sys/fs/cgroup/{name}")
    folders = [Path(found) for found, names, _files in os.walk("/sys/fs/cgroup") if Path(found).name == ada]
    limits = [
        path.read_text() for folder in folders for path in (*folder.glob("memory.max"), *folder.glob("memory.limit_in_bytes"))
    ]
    assert limits == [f"{512 << 20}\n"]


def test_a_fork_bomb_is_limited(world: HelperWorld, desktop: Desktop) -> None:
    code = (
        "import os, time\n"
        "count = 0\n"
        "try:\n"
        "    while True:\n"
        "        if os.fork() == 0: time.sleep(3); os._exit(0)\n"
        "        count += 1\n"
        "except OSError: print(count)\n"
    )
    ada = desktop()
    assert 50 < int(world.python(ada, code, person=True).out) < 200
    chen = desktop(CHEN, "exp-b")
    assert world.run(chen, "echo", "alive", person=True).out == "alive\n"


def test_the_cpu_is_limited(world: HelperWorld, desktop: Desktop) -> None:
    code = (
        "import os, time\n"
        "end = time.monotonic() + 1\n"
        "child = os.fork()\n"
        "while time.monotonic() < end: pass\n"
        "if child == 0: os._exit(0)\n"
        "os.wait(); used = os.times(); print(used.user + used.system + used.children_user + used.children_system)\n"
    )
    assert float(world.python(desktop(), code).out) < 1.35


def test_a_full_home_is_enospc_and_harms_nobody(world: HelperWorld, desktop: Desktop) -> None:
    ada, chen = desktop(), desktop(CHEN, "exp-b")
    fill = "import os\nf = os.open('/home/ada/big', os.O_CREAT | os.O_WRONLY)\ntry: os.posix_fallocate(f, 0, 2 << 30)\nexcept OSError as e: print(e.errno)"
    assert world.python(ada, fill, person=True).out == "28\n"
    assert world.run(ada, "dd", "if=/dev/zero", "of=/home/ada/big2", "bs=1M", "count=3", person=True).rc in (0, 1)
    assert world.run(chen, "sh", "-c", "echo x > /home/chen/file", person=True).rc == 0
    assert world.run(ada, "rm", "-f", "/home/ada/big", "/home/ada/big2", person=True).rc == 0
    image = world.folder / "homes" / f"{ada}.img"
    assert image.stat().st_size == 1 << 30


def test_the_root_file_system_has_a_bounded_scratch_space(world: HelperWorld, desktop: Desktop) -> None:
    hungry = desktop(own=True)
    done = world.run(hungry, "dd", "if=/dev/zero", "of=/var/tmp/big", "bs=1M", "count=300")
    assert done.rc != 0
    assert "No space left" in done.err
    assert state_of(world, hungry) is ServerState.RUNNING


def test_the_stream_folder_holds_a_socket_and_little_else(world: HelperWorld, desktop: Desktop) -> None:
    ada = desktop(own=True)
    assert "No space left" in world.run(ada, "dd", "if=/dev/zero", "of=/run/beamdesk/stream/big", "bs=1k", "count=100").err
    code = "for n in range(100): open(f'/run/beamdesk/stream/{n}', 'w')"
    assert "No space left" in world.python(ada, code).err
    folder = world.stream(ada).parent
    assert folder.stat().st_mode & 0o777 == 0o755
    assert folder.parent.stat().st_mode & 0o777 == 0o710


def test_a_hostile_stream_folder_is_removed_like_any_other(world: HelperWorld, desktop: Desktop) -> None:
    ada = desktop(own=True)
    world.run(ada, "sh", "-c", "cd /run/beamdesk/stream && ln -s /etc/passwd link && mkdir -p a/b && ln -s / a/root")
    asyncio.run(LocalCloud(world.client, "tests").stop_server(ServerId(ada)))
    assert not world.stream(ada).parent.exists()
    assert Path("/etc/passwd").exists()


def test_the_image_is_untouched_and_changes_do_not_survive(world: HelperWorld, desktop: Desktop) -> None:
    ada = desktop(own=True)
    cloud = LocalCloud(world.client, "tests")
    assert world.run(ada, "sh", "-c", "rm /etc/debian_version && echo x > /opt/mark && echo keep > /home/ada/keep").rc == 0
    asyncio.run(cloud.stop_server(ServerId(ada)))
    assert not (world.folder / "layer/opt/mark").exists()
    asyncio.run(cloud.start_server(ServerId(ada), spec_of(ada)))
    assert world.run(ada, "ls", "/etc/debian_version", "/home/ada/keep").rc == 0
    assert world.run(ada, "ls", "/opt/mark").rc != 0


def test_nothing_of_a_container_is_mounted_on_the_host_but_its_stream_folder(world: HelperWorld, desktop: Desktop) -> None:
    ada = desktop()
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    ours = [point for point in mounts if point.startswith(str(world.folder))]
    assert str(world.stream(ada).parent) in ours
    assert all(point.startswith(str(world.folder / "run/stream")) for point in ours)
    assert list((world.folder / "run/stage").iterdir()) == []


def test_the_home_belongs_to_the_person_alone(world: HelperWorld, desktop: Desktop) -> None:
    listing = world.run(desktop(), "stat", "-c", "%u %g %a", "/home/ada").out
    assert listing == f"{ADA.uid} {ADA.gid} 700\n"
    assert (world.folder / "homes").stat().st_mode & 0o777 == 0o700
