"""A real X server with a real streaming server, without a container: what the connect page talks to."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

_LAYERS = Path("/var/cache/beamdesk/images/layers")


def find_selkies() -> Path:
    """Return the virtual environment of the streaming server: of `BEAMDESK_TEST_SELKIES`, or of a built image."""
    given = os.environ.get("BEAMDESK_TEST_SELKIES")
    candidates = [Path(given)] if given else sorted(_LAYERS.glob("*/opt/selkies"), key=lambda path: path.stat().st_mtime)
    for candidate in reversed(candidates):
        if (candidate / "bin/python3").exists():
            return candidate
    pytest.fail("the streaming server is missing: build the images (`make test` does) or set BEAMDESK_TEST_SELKIES")


@dataclass
class RealDesktop:
    """An X display with a streaming server."""

    display: str
    socket: Path
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {"DISPLAY": self.display, "HOME": str(self.folder), "XDG_RUNTIME_DIR": str(self.folder)}

    def run(self, *command: str, text: str | None = None) -> str:
        """Run a program on the display."""
        done = subprocess.run(command, env=self.environment, input=text, capture_output=True, text=True, timeout=20, check=True)
        return done.stdout

    def put_clipboard(self, text: str) -> None:
        # xclip stays behind as the selection's owner, holding its output open
        with subprocess.Popen(
            ["xclip", "-selection", "clipboard", "-i"], env=self.environment, stdin=subprocess.PIPE, text=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        ) as process:  # fmt: skip
            process.communicate(text, timeout=10)

    def clipboard(self) -> str:
        return self.run("xclip", "-selection", "clipboard", "-o")


def selkies_environment(secret: str, socket: Path) -> dict[str, str]:
    """As the guest agent sets it (guest/components.py), without sound."""
    settings = {
        "MASTER_TOKEN": secret, "UNIX_SOCKET": str(socket), "MODE": "websockets", "ENABLE_DUAL_MODE": "false",
        "ENABLE_BASIC_AUTH": "false", "WAYLAND": "false", "ENCODER": "h264enc", "VIDEO_STREAMING_MODE": "false",
        "FRAMERATE": "60,8-120", "ENABLE_RESIZE": "true", "SECOND_SCREEN": "false", "AUDIO_ENABLED": "false",
        "ENABLE_CLIPBOARD": "true", "ENABLE_BINARY_CLIPBOARD": "true", "MICROPHONE_ENABLED": "false|locked",
        "WEBCAM_ENABLED": "false|locked", "WEBCAM_DEVICE": "false", "GAMEPAD_ENABLED": "false|locked", "UINPUT_GAMEPAD": "false",
        "COMMAND_ENABLED": "false|locked", "FILE_TRANSFERS": "none", "PRINTING_ENABLED": "false|locked",
        "ENABLE_SHARING": "false", "ENABLE_SHARED": "false", "WEB_ROOT": "/var/empty", "USE_CPU": "true", "GPU_ID": "-1",
    }  # fmt: skip
    return {f"SELKIES_{name}": value for name, value in settings.items()}


@contextmanager
def real_desktop(
    folder: Path, socket: Path, secret: str, *programs: tuple[str, ...], size: str = "2880x2880"
) -> Iterator[RealDesktop]:
    """Start X server, programs and streaming server; stop them at the end."""
    selkies = find_selkies()
    processes: list[subprocess.Popen[bytes]] = []
    log = (folder / "desktop.log").open("wb")
    reading, writing = os.pipe()
    try:
        command = [
            "Xvfb",
            "-displayfd",
            str(writing),
            "-screen",
            "0",
            f"{size}x24",
            "-nolisten",
            "tcp",
            "-ac",
            "-noreset",
            "-s",
            "0",
        ]
        processes.append(subprocess.Popen(command, pass_fds=(writing,), stdout=log, stderr=log))
        os.close(writing)
        display = ":" + os.read(reading, 16).decode().strip()
        desktop = RealDesktop(display, socket, folder)
        environment = desktop.environment | selkies_environment(secret, socket)
        programs = (*programs, (str(selkies / "bin/python3"), "-m", "selkies"))
        processes += [subprocess.Popen(program, env=environment, cwd=folder, stdout=log, stderr=log) for program in programs]
        _wait_for(socket, processes[-1])
        yield desktop
    finally:
        os.close(reading)
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(5)
            if process.poll() is None:
                process.kill()
                process.wait()
        log.close()


def _wait_for(socket: Path, server: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 30
    while not socket.exists():
        if server.poll() is not None or time.monotonic() > end:
            pytest.fail("the streaming server did not start: see desktop.log in the test's folder")
        time.sleep(0.05)
