"""The control plane for pytest: one instance a session, started by the first test that asks, gone at the end.

``def test_x(openstack): ...`` has it through tests/conftest.py; code without fixtures calls :func:`shared`. Mark the tests
``openstack``. A developer may keep one instance running and name its folder in ``BEAMDESK_TEST_OPENSTACK``: tests then use it and leave it.
"""

from __future__ import annotations

import atexit
import os
import sys
import tempfile
from pathlib import Path

import pytest

from .plane import ControlPlane

_instances: list[ControlPlane] = []


def shared() -> ControlPlane:
    """Return the session's instance, started now if this is the first call."""
    if not _instances:
        if kept := os.environ.get("BEAMDESK_TEST_OPENSTACK"):
            plane = ControlPlane(Path(kept), tied=False, say=_say)
        else:
            plane = ControlPlane(Path(tempfile.mkdtemp(prefix="beamdesk-cloud-")), say=_say)
            atexit.register(plane.remove)
        plane.up()
        _instances.append(plane)
    return _instances[0]


def _say(text: str) -> None:
    """Tell of progress; pytest shows it when a test fails."""
    sys.stdout.write(f"[openstack] {text}\n")


@pytest.fixture(scope="session")
def openstack() -> ControlPlane:
    """A real OpenStack with simulated hosts; leave it as you found it."""
    return shared()
