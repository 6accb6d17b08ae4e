import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from beamdesk.guest import metadata


@contextmanager
def service(body, status=200):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status if self.path == metadata.PATH else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_the_nonce_of_a_restarted_server_is_found():
    with service(json.dumps({"uuid": "u", "meta": {metadata.KEY: "fresh"}}).encode()) as port:
        assert metadata.nonce("127.0.0.1", port) == "fresh"


@pytest.mark.parametrize(
    "body", [b"", b"not json", b"[]", b"{}", b'{"meta": {}}', b'{"meta": {"beamdesk_nonce": 3}}', b'{"meta": []}']
)
def test_whatever_else_the_service_says_there_is_no_nonce(body):
    with service(body) as port:
        assert metadata.nonce("127.0.0.1", port) == ""
    with service(body, 500) as port:
        assert metadata.nonce("127.0.0.1", port) == ""


def test_without_the_service_there_is_no_nonce():
    with service(b"") as port:
        pass
    assert metadata.nonce("127.0.0.1", port) == ""
