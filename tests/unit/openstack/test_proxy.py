"""The fault proxy of the real OpenStack's tests: what it writes down is what was carried out."""

from __future__ import annotations

import socket
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any, cast

import pytest

from controlplane.plane import ControlPlane
from controlplane.proxy import SERVICES, FaultProxy, Request


class _Api(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.send_response(202)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""


@pytest.fixture
def proxy():
    with ThreadingHTTPServer(("127.0.0.1", 0), _Api) as api:
        threading.Thread(target=api.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        layout = SimpleNamespace(ports=dict.fromkeys(SERVICES.values(), api.server_address[1]))
        with FaultProxy(cast("ControlPlane", SimpleNamespace(layout=layout))) as one:
            yield one
        api.shutdown()


def ask(proxy: FaultProxy) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", proxy.port("compute")), timeout=10)
    client.sendall(b"POST /servers HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
    return client


def written_down(proxy: FaultProxy) -> list[Request]:
    until = time.monotonic() + 10
    while not proxy.requests and time.monotonic() < until:
        time.sleep(0.01)
    return proxy.requests


def test_a_request_is_written_down_with_the_answer_that_was_passed_on(proxy: FaultProxy) -> None:
    with ask(proxy) as client:
        assert client.recv(100).startswith(b"HTTP/1.1 202")
        assert written_down(proxy) == [Request("compute", "POST", "/servers", 202)]  # who hangs up too soon did not get it all


def test_one_whose_client_did_not_wait_counts_too(proxy: FaultProxy) -> None:
    proxy.delay(0.3, "compute", "POST", "/servers$")
    client = ask(proxy)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # it hangs up with a reset
    client.close()
    assert written_down(proxy) == [Request("compute", "POST", "/servers", 0)]
