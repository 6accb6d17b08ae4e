"""What it takes to run the plugins inside a real Nova: a folder for its Python, a loopback API that serves snapshots."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from beamdesk.plugins.nova.fetch import PATH
from beamdesk.scheduling.wire import Published, write_snapshot

SOURCE = Path(__file__).parents[1] / "src"
INSIDE = Path(__file__).parent / "nova" / "inside"


def python_path(folder: Path) -> Path:
    """Make a folder from which Nova's Python can import the plugins: beamdesk and numpy, as ``pip install --no-deps`` would leave them."""
    found = importlib.util.find_spec("numpy")
    assert found is not None
    assert found.origin is not None
    packages = Path(found.origin).parents[1]
    folder.mkdir(parents=True, exist_ok=True)
    for name, target in {
        "beamdesk": SOURCE / "beamdesk",
        "numpy": packages / "numpy",
        "numpy.libs": packages / "numpy.libs",
    }.items():
        if target.exists() and not (folder / name).exists():
            (folder / name).symlink_to(target)
    return folder


class SnapshotApi:
    """``GET /api/v1/scheduling/snapshot`` on loopback, with ETag and a credential. `serve` changes what is told; `stopped` takes it away."""

    CREDENTIAL = "loopback-only"

    def __init__(self, folder: Path) -> None:
        self._body, self._etag = b"", ""
        self._changed = threading.Condition()
        self._told: set[str] = set()
        self.credential_file = folder / "credential"
        self.credential_file.touch(mode=0o640)
        self.credential_file.write_text(self.CREDENTIAL)
        self._port = 0
        self._start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def _start(self) -> None:
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                api._answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        body, etag = self._body, self._etag
        if handler.path != PATH or handler.headers.get("Authorization") != f"Bearer {self.CREDENTIAL}":
            handler.send_error(401)
            return
        known = handler.headers.get("If-None-Match") == etag
        handler.send_response(304 if known else 200)
        handler.send_header("ETag", etag)
        handler.send_header("Content-Length", "0" if known else str(len(body)))
        handler.end_headers()
        if not known:
            handler.wfile.write(body)
        else:
            # Only who asks again with the ETag has taken it in.
            with self._changed:
                self._told.add(etag)
                self._changed.notify_all()

    def serve(self, published: Published) -> None:
        """Tell another snapshot from now on."""
        self._body = write_snapshot(published).encode()
        self._etag = f'"{hashlib.sha256(self._body).hexdigest()}"'

    def wait_until_known(self, seconds: float = 60) -> None:
        """Return when somebody holds the latest snapshot."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._etag in self._told, seconds), "nobody fetched the snapshot"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Have no API for a while."""
        self.stop()
        try:
            yield
        finally:
            self._start()


def decide_inside(python: Path, path: Path, job: dict[str, Any]) -> list[dict[str, Any]]:
    """Run a job of `nova/inside/handlers.py` and return its answers."""
    done = subprocess.run(
        [python, "-P", "-W", "ignore", INSIDE / "handlers.py"],
        input=json.dumps(job), capture_output=True, text=True, check=False, timeout=600,
        env={"PYTHONPATH": str(path), "PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "LANG": "C.UTF-8"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    answers: list[dict[str, Any]] = json.loads(done.stdout)
    return answers
