"""The guest API over HTTPS: the given authority is trusted and no other, and the name must be right."""

import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from beamdesk.guest.client import GuestApi
from beamdesk.guest.errors import ApiUnavailable, ConfigError, Refused


def certificate(folder, name, host):
    """Make a self-signed certificate of ``host``, its own authority."""
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    command += ["-subj", f"/CN={name}", "-addext", f"subjectAltName={host}"]
    subprocess.run([*command, "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem"], check=True, capture_output=True)
    return (folder / f"{name}.pem").read_text()


@pytest.fixture
def served(tmp_path):
    """A server that refuses every nonce, and the certificate it shows."""
    ours = certificate(tmp_path, "ours", "IP:127.0.0.1")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.send_response(403)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    class Server(HTTPServer):
        def handle_error(self, *_):
            """A client that does not trust us hangs up."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "ours.pem", tmp_path / "ours.key")
    with Server(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port, ours
        server.shutdown()
        thread.join()


def ask(url, ca):
    client = GuestApi(url, ca=ca)
    try:
        client.enrol("nonce")
    finally:
        client.close()


def test_the_authority_it_was_given_is_trusted(served):
    port, ours = served
    with pytest.raises(Refused):
        ask(f"https://127.0.0.1:{port}", ours)


def test_another_authority_is_not(served, tmp_path):
    port, _ = served
    with pytest.raises(ApiUnavailable, match="not trusted"):
        ask(f"https://127.0.0.1:{port}", certificate(tmp_path, "theirs", "IP:127.0.0.1"))


def test_without_one_only_those_of_the_system_are(served):
    port, _ = served
    with pytest.raises(ApiUnavailable, match="not trusted"):
        ask(f"https://127.0.0.1:{port}", "")


def test_a_certificate_of_another_name_is_refused(served):
    port, ours = served
    with pytest.raises(ApiUnavailable, match="not trusted"):
        ask(f"https://localhost:{port}", ours)


@pytest.mark.parametrize("ca", ["no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_a_broken_authority_is_said_at_once(ca):
    with pytest.raises(ConfigError, match="certificate"):
        GuestApi("https://127.0.0.1:1", ca=ca)


def test_plain_http_is_never_used():
    with pytest.raises(ConfigError):
        GuestApi("http://127.0.0.1:1")
