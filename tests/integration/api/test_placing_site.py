"""The scheduler in a running site: services as processes, hosts from a file, the command line as its user has it."""

from __future__ import annotations

import json
import os
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

from apisite import PROGRAM, Site, running_site
from placingkit import cpu_host, gpu_host, write_hosts


def beamdesk(site: Site, home: Path, *arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BEAMDESK_")}
    environment |= {"HOME": str(home), "XDG_CONFIG_HOME": str(home), "BEAMDESK_URL": site.url, "TZ": "UTC"}
    return subprocess.run(
        (*PROGRAM, *arguments), env=environment, input=typed, capture_output=True, text=True, timeout=120, check=False
    )


def sign_in(site: Site, home: Path, person: str) -> None:
    done = beamdesk(site, home, "login", person, "--url", site.url, "--password-stdin", typed=site.password + "\n")
    assert done.returncode == 0, done.stderr


def test_the_reconciler_of_a_site_places_explains_and_honours_bookings(tmp_path: Path) -> None:
    root, home = tmp_path / "site", tmp_path / "home"
    (root / "app").mkdir(parents=True)
    home.mkdir()
    write_hosts(root / "app" / "fake-hosts.json", gpu_host("gpu-1", 2), cpu_host("cpu-1"))
    with running_site(root) as site:
        sign_in(site, home, "bob")
        made = ("desktop", "create", "First", "-e", "heps-2026-0147", "-i", "imaging", "-f", "gpu.small", "--wait")
        assert beamdesk(site, home, *made).returncode == 0
        words = beamdesk(site, home, "schedule", "explain", "First")
        assert "it runs where the scheduler put it" in words.stdout
        assert "the host does not have such cards, or not as many" in words.stdout
        found = json.loads(beamdesk(site, home, "schedule", "explain", "First", "--json").stdout)
        assert (found["outcome"], found["host"], found["cards"]) == ("placed", "gpu-1", ["0000:00:00.0"])
        refused = beamdesk(site, home, "schedule", "hosts")
        assert (refused.returncode, refused.stderr) == (1, "beamdesk: Only operators may see the hosts.\n")
        sign_in(site, home, "olga")
        hosts = beamdesk(site, home, "schedule", "hosts").stdout
        assert "First Bob Meyer" in hosts
        slot = ("-f", "gpu.small", "--from", "2099-01-01T09:00", "--to", "2099-01-01T12:00")
        wrong = beamdesk(site, home, "booking", "add", "heps-2026-0147", *slot)
        assert "within a year" in wrong.stderr


EIGHT = {"id": "eight", "title_en": "Eight", "title_zh": "八", "vcpus": 4, "memory_mib": 8192, "disk_gib": 40, "gpus": 8}
BIG = EIGHT | {"id": "big", "gpus": 1, "specs": {"beamdesk:gpu_memory_mib": "80000"}}
ONE = EIGHT | {"id": "one", "gpus": 1}


def test_what_cannot_be_is_one_line_and_an_exit_code(tmp_path: Path) -> None:
    root, home = tmp_path / "site", tmp_path / "home"
    (root / "app").mkdir(parents=True)
    home.mkdir()
    write_hosts(root / "app" / "fake-hosts.json", gpu_host("gpu-1", 2), cpu_host("cpu-1"))
    with running_site(root, BEAMDESK_FLAVORS=json.dumps([EIGHT, BIG, ONE])) as site:
        sign_in(site, home, "bob")
        create = ("desktop", "create", "First", "-e", "heps-2026-0147", "-i", "imaging", "-f")
        never = "beamdesk: No host of this site could ever run this size: too little {}. Choose a smaller one.\n"
        for size, what in (("eight", "GPUs"), ("big", "GPUs of this kind")):
            done = beamdesk(site, home, *create, size)
            assert (done.returncode, done.stdout, done.stderr) == (2, "", never.format(what))
        sizes = beamdesk(site, home, "flavor", "list").stdout.splitlines()
        assert [line.split()[0] for line in sizes if "never fits here" in line] == ["big", "eight"]
        sign_in(site, home, "olga")
        slot = ("-f", "one", "--from", "2099-01-01T09:00", "--to", "2099-01-01T08:00")
        done = beamdesk(site, home, "booking", "add", "heps-2026-0147", *slot)
        assert (done.returncode, done.stderr) == (2, "beamdesk: A booking ends after it begins.\n")
        done = beamdesk(site, home, "booking", "add", "heps-2026-0147", "-f", "one", "--from", "nan", "--to", "inf")
        assert (done.returncode, done.stderr) == (2, "beamdesk: --from must be a time as 2026-03-01T09:00, not 'nan'.\n")
        before, starts, ends = (f"{datetime.now(UTC) + timedelta(hours=hours):%Y-%m-%dT%H:00}" for hours in (20, 24, 28))
        taken = ("booking", "add", "heps-2026-0212", "-f", "one", "-n", "2", "--from", starts, "--to", ends)
        assert beamdesk(site, home, *taken).returncode == 0
        done = beamdesk(site, home, *taken)
        assert (done.returncode, done.stderr.count("\n")) == (5, 1)
        assert "Of 2 desktops 0 can be booked" in done.stderr
        assert f"The nearest slot of this length with room begins at {before.replace('T', ' ')} UTC." in done.stderr


def test_a_size_with_a_misspelt_word_ends_the_start_with_one_line(tmp_path: Path) -> None:
    wrong = json.dumps([ONE | {"specs": {"beamdesk:gpu_memry_mib": "80000"}}])
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BEAMDESK_")}
    done = subprocess.run(
        (*PROGRAM, "serve"), env=environment | {"BEAMDESK_FLAVORS": wrong}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode != 0
    assert done.stderr.count("\n") == 1
    assert "Unknown extra spec beamdesk:gpu_memry_mib. Did you mean beamdesk:gpu_memory_mib?" in done.stderr
