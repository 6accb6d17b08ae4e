"""A card whose driver takes the streaming server down: the desktop stays, the picture comes from the CPUs, and it is said.

The desktop and Selkies are the real ones; the card's device file and its driver's libraries are ours.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import standin_driver
from beamdesk.protocol.guest import StepName
from integration.guest.conftest import IMAGE
from integration.guest.container import Container, desktop

pytestmark = [pytest.mark.root, pytest.mark.desktop]
CARD = ("--bind=/dev/null:/dev/nvidia0", "--bind=/dev/null:/dev/nvidiactl")
Start = Callable[[bytes], contextlib.AbstractContextManager[Container]]


@pytest.fixture
def with_driver(tmp_path: Path) -> Start:
    """Starts a desktop that has a card with this driver."""

    def install(root: Path, driver: bytes) -> None:
        for name in ("libcuda.so.1", "libnvidia-encode.so.1"):
            (root / "usr/lib/x86_64-linux-gnu" / name).write_bytes(driver)

    @contextlib.contextmanager
    def start(code: bytes) -> Iterator[Container]:
        driver = standin_driver.library(code)
        with desktop(tmp_path, IMAGE, prepare=lambda root: install(root, driver), binds=CARD) as container:
            yield container

    return start


def coding(container: Container) -> dict[str, str]:
    """Return the settings that the streaming server runs with."""
    environment = Path(f"/proc/{container.find('selkies_launcher.py')}/environ").read_text()
    return dict(item.split("=", 1) for item in environment.split("\0") if item.startswith("SELKIES_"))


def kill_the_stream(container: Container) -> None:
    gone = container.find("selkies_launcher.py")
    os.kill(gone, signal.SIGKILL)
    container.api.wait_for(lambda api: api.latest()[StepName.STREAM].state != "done", 10)
    container.api.wait_up()


def test_a_driver_that_ends_the_server_costs_the_card_but_not_the_desktop(with_driver: Start) -> None:
    with with_driver(standin_driver.CRASH) as container:
        container.api.wait_up(30)
        said = container.api.latest()[StepName.STREAM].detail
        assert said.startswith("The streaming server failed while it used the graphics card (was ended by signal 4 (SIGILL)).")
        assert coding(container)["SELKIES_USE_CPU"] == "true|locked"
        console = container.console()
        assert console.count("ended program=stream") == 2
        assert console.count("fallback program=stream") == 1
        assert "started program=stream" in console

        # it does not try the card again, and what it remarked stays
        panel = container.find("xfce4-panel")
        kill_the_stream(container)
        assert coding(container)["SELKIES_GPU_ID"] == "-1"
        assert container.api.latest()[StepName.STREAM].detail == said
        assert container.console().count("fallback program=stream") == 1
        assert container.find("xfce4-panel") == panel


def test_one_end_alone_is_an_accident(with_driver: Start) -> None:
    harmless = standin_driver.NOTHING  # the libraries are there, with nothing in them
    with with_driver(harmless) as container:
        container.api.wait_up(30)
        kill_the_stream(container)
        assert "SELKIES_GPU_ID" not in coding(container)
        assert container.api.latest()[StepName.STREAM].detail == ""
        program = container.enter(["sh", "-c", "sleep 60 >/dev/null 2>&1 & echo $!"]).stdout.strip()
        kill_the_stream(container)
        assert coding(container)["SELKIES_GPU_ID"] == "-1"
        assert "used the graphics card" in container.api.latest()[StepName.STREAM].detail
        assert container.enter(["ps", "-o", "comm=", "-p", program]).stdout.strip() == "sleep"
        notice = container.enter(["xwininfo", "-root", "-tree"]).stdout
        assert "notifyd" in notice


@pytest.mark.slow
def test_a_driver_that_hangs_the_server_is_given_up_after_half_a_minute(with_driver: Start) -> None:
    with with_driver(standin_driver.HANG) as container:
        container.api.wait_up(60)
        assert coding(container)["SELKIES_GPU_ID"] == "-1"
        assert "does not begin to answer" in container.console()
        assert "used the graphics card" in container.api.latest()[StepName.STREAM].detail
