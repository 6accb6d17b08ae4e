"""A loopback HTTP proxy between Beamdesk's driver and the real APIs, which loses, refuses, delays and replaces answers on demand.

One listener for each service; a clouds.yaml of its own leads the driver there. What is not spoiled passes unchanged, and everything is
written down in :attr:`FaultProxy.requests`. It knows HTTP and nothing of OpenStack but the header of tokens.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self, cast

from .clouds import describe
from .plane import ControlPlane

SERVICES = {
    "identity": "keystone",
    "compute": "nova",
    "network": "neutron",
    "image": "glance",
    "block-storage": "cinder",
    "placement": "placement",
}
"""Service type: the port's name in the control plane."""
_PATHS = {"compute": "/v2.1", "network": "/v2.0", "image": "/v2", "block-storage": "/v3"}
_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length"})
FOREVER = 10**9
_LONGEST_HOLD_S = 120


class Kind(Enum):
    """What happens to a request."""

    LOSE = auto()  # it is carried out, its answer never arrives
    REFUSE = auto()  # the connection is reset before anything is carried out
    ANSWER = auto()  # an error status instead of carrying it out
    DELAY = auto()  # it is carried out, its answer is late
    HOLD = auto()  # it is carried out once the test lets it go


@dataclass
class Fault:
    """Spoils the next ``times`` requests that match. ``times`` counts down; zero = done.

    ``held``: a request arrived that waits for ``go``.
    """

    kind: Kind
    service: str = ""
    method: str = ""
    path: str = ""
    times: int = FOREVER
    status: int = 503
    seconds: float = 0
    held: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)

    def takes(self, service: str, method: str, path: str) -> bool:
        """Tell whether this request is to be spoiled."""
        wanted = self.service in ("", service) and self.method in ("", method)
        return self.times > 0 and wanted and re.search(self.path, path) is not None


@dataclass(frozen=True, slots=True)
class Request:
    """One request as the proxy saw it; ``status`` 0 = its answer was not passed on."""

    service: str
    method: str
    path: str
    status: int


class FaultProxy:
    """The proxy; a context manager. Faults apply in the order in which they were added, one to a request."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self._tokens: set[str] = set()
        self._servers = {service: _Listener(self, service) for service in SERVICES}
        self.requests: list[Request] = []
        self.clocks: dict[str, float | None] = {}
        """Service -> by how many seconds its answers' Date is ahead; None = they have none."""

    def __enter__(self) -> Self:
        for server in self._servers.values():
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.heal()
        for server in self._servers.values():
            server.shutdown()
            server.server_close()

    def port(self, service: str) -> int:
        """Return the listener's port."""
        return int(self._servers[service].server_address[1])

    def upstream(self, service: str) -> int:
        """Return the real service's port."""
        return self._plane.layout.ports[SERVICES[service]]

    def write_clouds(self, path: Path) -> Path:
        """Write a clouds.yaml whose every address is the proxy's."""
        addresses = {service: f"http://127.0.0.1:{self.port(service)}{_PATHS.get(service, '')}" for service in SERVICES}
        overrides = {
            f"{service.replace('-', '_')}_endpoint_override": url for service, url in addresses.items() if service != "identity"
        }
        path.write_text(describe(self._plane.layout, {**overrides, "auth_url": f"{addresses['identity']}/v3"}))
        return path

    def lose(self, service: str, method: str, path: str, times: int = 1) -> Fault:
        """Carry out the next such requests and lose their answers."""
        return self._add(Fault(Kind.LOSE, service, method, path, times))

    def refuse(self, service: str = "", method: str = "", path: str = "", times: int = FOREVER) -> Fault:
        """Reset connections before anything happens, until `heal`."""
        return self._add(Fault(Kind.REFUSE, service, method, path, times))

    def answer(self, status: int, service: str = "", method: str = "", path: str = "", times: int = FOREVER) -> Fault:
        """Answer with an error and carry nothing out."""
        return self._add(Fault(Kind.ANSWER, service, method, path, times, status=status))

    def delay(self, seconds: float, service: str = "", method: str = "", path: str = "", times: int = FOREVER) -> Fault:
        """Carry out, and answer late."""
        return self._add(Fault(Kind.DELAY, service, method, path, times, seconds=seconds))

    def hold(self, service: str, method: str, path: str) -> Fault:
        """Keep the next such request from the service until ``fault.go`` is set: something else may happen in between."""
        return self._add(Fault(Kind.HOLD, service, method, path, 1))

    def heal(self) -> None:
        """Spoil nothing any more."""
        with self._lock:
            for fault in self._faults:
                fault.go.set()
            self._faults.clear()

    def expire_tokens(self) -> int:
        """Have Keystone revoke every token that passed through here; return how many there were."""
        with self._lock:
            tokens, self._tokens = self._tokens, set()
        with self._plane.connect("admin") as admin:
            for token in tokens:
                admin.session.delete(
                    "/v3/auth/tokens",
                    endpoint_override=self._plane.layout.url("keystone"),
                    headers={"X-Subject-Token": token},
                    raise_exc=False,
                )
        return len(tokens)

    def count(self, service: str, method: str, path: str) -> int:
        """Return how many such requests there were, with whatever outcome."""
        return sum(
            one.service == service and one.method == method and re.search(path, one.path) is not None for one in self.requests
        )

    def _add(self, fault: Fault) -> Fault:
        with self._lock:
            self._faults.append(fault)
        return fault

    def choose(self, service: str, method: str, path: str) -> Fault | None:
        """Return the fault for a request, used up by one."""
        with self._lock:
            for fault in self._faults:
                if fault.takes(service, method, path):
                    fault.times -= 1
                    return fault
        return None

    def note(self, request: Request, token: str | None) -> None:
        """Write a request down."""
        with self._lock:
            self.requests.append(request)
            if token:
                self._tokens.add(token)


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 100

    def __init__(self, proxy: FaultProxy, service: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.proxy = proxy
        self.service = service

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a client that hangs up is what these tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        listener = cast("_Listener", self.server)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = listener.proxy.choose(listener.service, self.command, self.path)
        try:
            status = self._spoil(fault, body, listener)
        except OSError:  # who asked did not wait for the answer; it was carried out all the same
            status = self._hang_up()
        listener.proxy.note(Request(listener.service, self.command, self.path, status), self.headers.get("X-Auth-Token"))

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _serve  # noqa: N815

    def _spoil(self, fault: Fault | None, body: bytes, listener: _Listener) -> int:
        if fault and fault.kind is Kind.REFUSE:
            return self._hang_up()
        if fault and fault.kind is Kind.ANSWER:
            content = json.dumps({"error": {"code": fault.status, "message": "The fault proxy says so."}}).encode()
            return self._answer(fault.status, {"Content-Type": "application/json"}, content, listener)
        if fault and fault.kind is Kind.HOLD:
            fault.held.set()
            fault.go.wait(_LONGEST_HOLD_S)
        try:
            status, headers, content = self._forward(body, listener.proxy.upstream(listener.service))
        except (OSError, http.client.HTTPException):
            return self._hang_up()
        if fault and fault.kind is Kind.LOSE:
            return self._hang_up()
        if fault and fault.kind is Kind.DELAY:
            time.sleep(fault.seconds)
        return self._answer(status, headers, content, listener)

    def _forward(self, body: bytes, port: int) -> tuple[int, Mapping[str, str], bytes]:
        upstream = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
        try:
            headers = {key: value for key, value in self.headers.items() if key.lower() not in _HOP}
            upstream.request(self.command, self.path, body or None, headers)
            answer = upstream.getresponse()
            passed = {key: value for key, value in answer.getheaders() if key.lower() not in _HOP}
            return answer.status, passed, answer.read()
        finally:
            upstream.close()

    def _answer(self, status: int, headers: Mapping[str, str], content: bytes, listener: _Listener) -> int:
        self.send_response_only(status)
        for key, value in headers.items():
            if key.lower() != "date":
                self.send_header(key, value)
        ahead = listener.proxy.clocks.get(listener.service, 0.0)
        if ahead is not None:  # the web server in front of the APIs adds it elsewhere
            self.send_header("Date", self.date_time_string(time.time() + ahead))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
        return status

    def _hang_up(self) -> int:
        """Reset the connection, as a dead peer's machine would."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()
        return 0

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""
