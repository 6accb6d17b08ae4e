"""A Keystone and whatever else, on loopback: answers what a test scripts, and counts what it was asked."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from beamdesk.adapters.openstack.config import GuestApi, OpenStackConfig, Place

PASSWORD = "correct-horse-battery"
SERVICES = {
    "compute": "/compute/v2.1",
    "network": "/network",
    "block-storage": "/volume/v3",
    "image": "/image",
    "placement": "/placement",
}


@dataclass(frozen=True)
class Answer:
    """One scripted answer. ``after``: seconds to wait before it; ``raw``: a body that is not JSON; ``breaks``: none at all."""

    status: int = 200
    body: Any = field(default_factory=dict)
    after: float = 0.0
    raw: str | None = None
    breaks: bool = False


class TinyCloud:
    """``script[(method, path)]`` are the answers in turn, the last one again and again; ``asked`` counts, ``bodies`` keeps."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.script: dict[tuple[str, str], list[Answer]] = {}
        self.asked: Counter[tuple[str, str]] = Counter()
        self.queries: list[str] = []
        self.bodies: list[Any] = []
        self.tokens = 0
        self.microversions = ("2.1", "2.96")

    def on(self, method: str, path: str, *answers: Answer) -> None:
        """Script the answers to a request."""
        self.script[method, path] = list(answers)

    def answer(self, method: str, path: str, body: Any) -> Answer:
        self.asked[method, path] += 1
        if body is not None and path != "/identity/v3/auth/tokens":
            self.bodies.append(body)
        scripted = self.script.get((method, path))
        if scripted:
            return scripted.pop(0) if len(scripted) > 1 else scripted[0]
        return self._standard(path)

    def _standard(self, path: str) -> Answer:
        if path == "/identity/v3/auth/tokens":
            self.tokens += 1
            return Answer(201, self._token())
        if path in ("/identity", "/identity/v3", "/identity/v3/"):
            return Answer(200, self._version("v3.14", "/identity/v3"))
        if path.rstrip("/") == "/compute/v2.1":
            least, most = self.microversions
            return Answer(200, self._version("v2.1", "/compute/v2.1", min_version=least, version=most))
        roots = {
            "/network": self._one("v2.0", "/network/v2.0"),
            "/placement": self._one("v1.0", "/placement", min_version="1.0", max_version="1.39"),
            "/volume/v3": self._one("v3.0", "/volume/v3", min_version="3.0", version="3.71"),
        }
        if path.rstrip("/") in roots:
            return Answer(200, {"versions": [roots[path.rstrip("/")]]})
        return Answer(404, {"itemNotFound": {"code": 404, "message": f"nothing at {path}"}})

    def _one(self, name: str, path: str, **more: str) -> dict[str, Any]:
        return {"id": name, "status": "CURRENT", "links": [{"rel": "self", "href": self.url + path + "/"}], **more}

    def _version(self, name: str, path: str, **more: str) -> dict[str, Any]:
        return {"version": self._one(name, path, **more)}

    def _token(self) -> dict[str, Any]:
        catalog = [
            {"type": kind, "id": kind, "name": kind, "endpoints": [{"id": kind, "interface": "public", "region": "One", "region_id": "One", "url": self.url + path}]}
            for kind, path in SERVICES.items()
        ]  # fmt: skip
        return {
            "token": {
                "methods": ["password"], "expires_at": "2099-01-01T00:00:00.000000Z", "issued_at": "2026-01-01T00:00:00.000000Z",
                "user": {"id": "u", "name": "beamdesk", "domain": {"id": "default", "name": "Default"}},
                "project": {"id": "p", "name": "beamdesk", "domain": {"id": "default", "name": "Default"}},
                "roles": [], "catalog": catalog,
            }
        }  # fmt: skip


@contextmanager
def tiny_cloud() -> Iterator[TinyCloud]:
    """Serve one."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            sent = json.loads(self.rfile.read(length)) if length else None
            path, _, query = self.path.partition("?")
            cloud.queries.append(query)
            answer = cloud.answer(self.command, path, sent)
            if answer.after:
                time.sleep(answer.after)
            if answer.breaks:
                self.close_connection = True
                return
            data = (answer.raw if answer.raw is not None else json.dumps(answer.body)).encode() if answer.status != 204 else b""
            self.send_response(answer.status)
            self.send_header("Content-Type", "text/html" if answer.raw is not None else "application/json")
            self.send_header("Content-Length", str(len(data)))
            if path.endswith("/auth/tokens"):
                self.send_header("X-Subject-Token", f"token-{cloud.tokens}")
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _serve  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    cloud = TinyCloud(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield cloud
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def config_for(cloud: TinyCloud, folder: Path, **changes: Any) -> OpenStackConfig:
    """Return the driver's settings for it, with a clouds.yaml and a secure.yaml."""
    auth = {"auth_url": f"{cloud.url}/identity/v3", "username": "beamdesk", "project_name": "beamdesk", "user_domain_id": "default", "project_domain_id": "default"}  # fmt: skip
    clouds = folder / "clouds.yaml"
    clouds.write_text(json.dumps({"clouds": {"beamdesk": {"auth": auth, "region_name": "One"}}}))
    (folder / "secure.yaml").write_text(json.dumps({"clouds": {"beamdesk": {"auth": {"password": PASSWORD}}}}))
    values = {
        "places": (Place("main", "beamdesk", "desktops"),),
        "guest": GuestApi("https://beamdesk.example"),
        "clouds_yaml": clouds,
    }
    return OpenStackConfig(**(values | changes))
