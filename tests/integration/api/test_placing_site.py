"""The scheduler in a running site: services as processes, hosts from a file, the command line as its user has it."""

from __future__ import annotations

import json
import os
import subprocess
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
