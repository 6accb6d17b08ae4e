import os
import shutil

import pytest

from integration.guest.container import CACHE, FakeApi, desktop

IMAGE = os.environ.get("BEAMDESK_TEST_IMAGE", "general")


@pytest.fixture(scope="session", autouse=True)
def _preconditions():
    """What these tests stand on; they fail rather than skip without it."""
    if os.geteuid() != 0:
        pytest.fail("these tests start containers and need root")
    if not shutil.which("systemd-nspawn"):
        pytest.fail("these tests need systemd-nspawn (package systemd-container)")
    if not (CACHE / "catalog.json").is_file():
        pytest.fail(f"no images in {CACHE}: run 'python -m beamdesk.adapters.local.images build' or set BEAMDESK_IMAGE_CACHE")


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """One desktop, up."""
    with desktop(tmp_path_factory.mktemp("desktop"), IMAGE) as container:
        container.api.wait_up()
        yield container


@pytest.fixture
def start(tmp_path):
    """Starts a desktop of its own for one test."""

    def begin(api: FakeApi | None = None, **options):
        return desktop(tmp_path, IMAGE, api, **options)

    return begin
