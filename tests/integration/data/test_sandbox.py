"""Attacks from inside the previews' sandbox: code that a hostile file managed to run."""

from __future__ import annotations

import pytest

from beamdesk.adapters.preview import sandbox
from integration.data.sandbox_kit import confined


def test_harmless_work_is_done() -> None:
    assert confined("return sum(range(10))") == "did it: 45"


@pytest.mark.parametrize(
    "attack",
    [
        "return open('/etc/passwd').read()",
        "return os.open('/etc/passwd', os.O_RDONLY)",
        "return os.listdir('/')",
        "return socket.socket(socket.AF_INET).connect(('127.0.0.1', 22))",
        "return socket.socket(socket.AF_UNIX)",
        "return os.fork()",
        "return os.execv('/bin/sh', ['sh'])",
        "os.kill(os.getppid(), 0); return 'signalled'",
        "os.unlink('/tmp/nothing'); return 'unlinked'",
        "os.rename('/tmp/a', '/tmp/b'); return 'renamed'",
        "os.chmod('/tmp', 0o777); return 'changed'",
        "os.mkdir('/tmp/beamdesk-attack'); return 'made'",
        "os.truncate('/etc/hostname', 0); return 'emptied'",
        "import threading; threading.Thread(target=print).start(); return 'thread'",
        "libc = ctypes.CDLL(None, use_errno=True); rc = libc.ptrace(16, os.getppid(), 0, 0)\nif rc < 0: raise OSError(ctypes.get_errno(), 'ptrace')",
        "return os.memfd_create('x')",
    ],
)
def test_nothing_outside_can_be_reached(attack: str) -> None:
    answer = confined(attack)
    assert not answer.startswith("did it"), answer
    assert "PermissionError" in answer or "OSError" in answer or "RuntimeError" in answer or "Too many open files" in answer, answer


def test_memory_is_limited() -> None:
    assert confined("x = bytearray(2 << 30)").startswith("MemoryError")


def test_processor_time_is_limited() -> None:
    assert confined("while True: pass", cpu_s=2).startswith(("ended -24", "ended -9"))


def test_limits_cannot_be_raised() -> None:
    answer = confined("import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100)); return open('/etc/passwd')")
    assert not answer.startswith("did it")


def test_an_unknown_machine_has_no_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "vax")
    with pytest.raises(sandbox.NoSandbox):
        sandbox.enter()
