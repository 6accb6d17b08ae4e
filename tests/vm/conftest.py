"""One built disk, one cloud, one deployment and one browser for all tests with a real machine; the times are told at the end."""

import os
import time
from pathlib import Path

import pytest

from acceptance.conftest import chromium, context_of  # noqa: F401 fixtures
from beamdesk.adapters.vmimage.build import read_manifest
from vm.cloud import Cloud
from vm.site import Site

DISK = Path(os.environ.get("BEAMDESK_TEST_DISK", "/var/cache/beamdesk/vm/general.qcow2"))
TIMES = pytest.StashKey[dict]()


def told(began: float) -> str:
    """Return the seconds since ``began``, with the machine's load."""
    return f"{time.monotonic() - began:.0f} s (load {os.getloadavg()[0]:.1f})"


@pytest.fixture(scope="session")
def disk():
    manifest = read_manifest(DISK)
    if manifest is None:
        pytest.fail(f"{DISK} is not built: run `make test-openstack-vm`, which builds it")
    return DISK


@pytest.fixture(scope="session")
def cloud(disk, times):
    if os.geteuid() != 0:
        pytest.fail("these tests make namespaces and serve files under other people's uids: run them as root")
    began = time.monotonic()
    with Cloud.running(disk) as cloud:
        times["accelerator"] = cloud.accelerator
        times["from nothing to a cloud with the image"] = told(began)
        yield cloud


@pytest.fixture(scope="session")
def site(cloud):
    with Site.running(cloud) as site:
        yield site


@pytest.fixture(scope="session")
def times(request):
    return request.config.stash.setdefault(TIMES, {})


def pytest_terminal_summary(terminalreporter, config):
    for what, said in config.stash.get(TIMES, {}).items():
        terminalreporter.write_line(f"{what}: {said}")
