"""One built disk, one deployment and one browser for all tests with a real machine; the times are told at the end."""

import os
from pathlib import Path

import pytest

from acceptance.conftest import chromium, context_of  # noqa: F401 fixtures
from beamdesk.adapters.vmimage.build import read_manifest
from vm.site import Site

DISK = Path(os.environ.get("BEAMDESK_TEST_DISK", "/var/cache/beamdesk/vm/general.qcow2"))
TIMES = pytest.StashKey[dict]()


@pytest.fixture(scope="session")
def disk():
    manifest = read_manifest(DISK)
    if manifest is None:
        pytest.fail(f"{DISK} is not built: run `make test-openstack-vm`, which builds it")
    return DISK, manifest


@pytest.fixture(scope="session")
def site(disk):
    if os.geteuid() != 0:
        pytest.fail("these tests serve files under other people's uids over NFS: run them as root")
    with Site.running(*disk) as site:
        yield site


@pytest.fixture(scope="session")
def times(request):
    return request.config.stash.setdefault(TIMES, {})


def pytest_terminal_summary(terminalreporter, config):
    for what, said in config.stash.get(TIMES, {}).items():
        terminalreporter.write_line(f"{what}: {said}")
