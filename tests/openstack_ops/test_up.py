"""`beamdesk up` with a cloud of clouds.yaml: a cloud that is ready runs desktops, any other is refused before anything is started."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from acceptance.deployment import free_port
from controlplane.plane import ControlPlane
from openstack_ops.site import offers

pytestmark = pytest.mark.openstack


@dataclass
class Site:
    """A deployment of this source tree in a folder of its own, as an operator starts it: by the environment."""

    state: Path
    environment: dict[str, str]

    def beamdesk(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "beamdesk.cli.main", *arguments]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=240, check=False)

    def logs(self) -> str:
        return "\n".join(f"== {path.name}\n{path.read_text()[-3000:]}" for path in sorted((self.state / "log").glob("*.log")))


@pytest.fixture
def site(openstack: ControlPlane) -> Iterator[Site]:
    state = Path(tempfile.mkdtemp(prefix="beamdesk-ops-", dir="/var/tmp"))
    state.chmod(0o755)
    made = Site(
        state,
        {
            "PATH": os.environ["PATH"],
            "HOME": str(state),
            "LANG": "C.UTF-8",
            "OS_CLIENT_CONFIG_FILE": str(openstack.clouds_yaml),
            "BEAMDESK_STATE_DIR": str(state),
            "BEAMDESK_PORT": str(free_port()),
            "BEAMDESK_GATEWAY_PORT": str(free_port()),
            "BEAMDESK_CLOUD": "openstack",
            "BEAMDESK_OPENSTACK__CLOUD": "beamdesk",
            "BEAMDESK_OPENSTACK__GUEST_URL": "https://guest.example:8443",
            "BEAMDESK_OPENSTACK__GATEWAY_ADDRESSES": '["10.9.0.5/32"]',
            "BEAMDESK_OPENSTACK__CALL_TIMEOUT_S": "60",
        },
    )
    yield made
    made.beamdesk("down")
    shutil.rmtree(state, ignore_errors=True)


@pytest.fixture
def offered(openstack: ControlPlane) -> Iterator[Any]:
    with offers(openstack) as admin:
        yield admin
        for server in list(admin.compute.servers(all_projects=True)):
            if server.metadata.get("beamdesk_deployment") or server.name.startswith("beamdesk"):
                admin.compute.delete_server(server, ignore_missing=True)


def reach(look: Callable[[], Any], enough: Callable[[Any], bool]) -> Any:
    """Look until it is enough; two minutes are a hang."""
    for _ in range(240):
        seen = look()
        if enough(seen):
            return seen
        time.sleep(0.5)
    pytest.fail(f"still {seen}")


def refused(site: Site, *words: str) -> None:
    result = site.beamdesk("up", "--detach")
    said = result.stdout + result.stderr
    assert result.returncode == 78, said
    assert [word for word in words if word not in said] == []
    assert not (site.state / "supervisor.json").exists()
    assert "Traceback" not in said


def test_a_cloud_that_is_ready_runs_desktops(site: Site, offered: Any) -> None:
    result = site.beamdesk("up", "--detach")
    assert result.returncode == 0, result.stdout + result.stderr + site.logs()
    assert "The cloud beamdesk is ready for desktops" in result.stdout
    password = (site.state / "app/demo-password").read_text().strip()
    with httpx2.Client(base_url=f"http://127.0.0.1:{site.environment['BEAMDESK_PORT']}/api/v1", timeout=60) as client:
        token = client.post("/logins", json={"login": "ada", "password": password}).raise_for_status().json()["token"]
        client.headers["Authorization"] = f"Bearer {token}"
        wanted = {"experiment": "heps-2026-0147", "image": "ops-imaging", "flavor": "ops-small", "name": "First"}
        made = client.post("/desktops", json=wanted).raise_for_status().json()
        seen = reach(lambda: client.get(f"/desktops/{made['id']}").json(), lambda one: one["phase"] not in {"queued", "building"})
        assert seen["phase"] == "booting", seen
        servers = [one for one in offered.compute.servers(all_projects=True) if made["id"] in one.name]
        assert [server.status for server in servers] == ["ACTIVE"]
        assert servers[0].flavor.original_name == "ops-small"
        client.delete(f"/desktops/{made['id']}").raise_for_status()
        reach(lambda: [one for one in offered.compute.servers(all_projects=True) if made["id"] in one.name], lambda left: not left)


def test_the_services_get_the_one_entry_that_they_need(site: Site, offered: Any) -> None:
    result = site.beamdesk("up", "--detach")
    assert result.returncode == 0, result.stdout + result.stderr + site.logs()
    handed = site.state / "run/cloud/clouds.yaml"
    assert list(json.loads(handed.read_text())["clouds"]) == ["beamdesk"]
    assert stat.S_IMODE(handed.stat().st_mode) == 0o640
    assert handed.stat().st_uid == 0


def test_a_cloud_that_is_not_in_clouds_yaml(site: Site) -> None:
    site.environment["BEAMDESK_OPENSTACK__CLOUD"] = "nowhere"
    refused(site, "clouds.yaml has no cloud nowhere (it has: ")


def test_a_sign_in_that_fails(site: Site, openstack: ControlPlane) -> None:
    clouds = json.loads(openstack.clouds_yaml.read_text())
    clouds["clouds"]["beamdesk"]["auth"]["password"] = "hunter2"
    path = site.state / "clouds.yaml"
    path.write_text(json.dumps(clouds))
    site.environment["OS_CLIENT_CONFIG_FILE"] = str(path)
    refused(site, "WRONG    Beamdesk's account can sign in", "is not ready for desktops")
    assert "hunter2" not in site.beamdesk("up", "--detach").stderr


def test_a_cloud_where_desktops_could_not_start(site: Site) -> None:
    site.environment["BEAMDESK_OPENSTACK__NETWORK"] = "nowhere"
    refused(site, "MISSING  The desktops' network is there", "no network nowhere", "beamdesk openstack doctor --cloud beamdesk")


def test_settings_that_desktops_cannot_do_without(site: Site) -> None:
    del site.environment["BEAMDESK_OPENSTACK__GUEST_URL"]
    refused(site, "Set openstack.guest_url")
