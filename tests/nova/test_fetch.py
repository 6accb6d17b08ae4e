"""The snapshot is fetched beside the requests: over real HTTP, with a credential, an ETag, and every kind of broken API."""

from __future__ import annotations

import os
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from beamdesk.plugins.nova.fetch import PATH, Fetcher, FetchFailed, fetch
from beamdesk.plugins.nova.options import Options
from beamdesk.scheduling.wire import write_snapshot
from novakit import Site, card, host


class Api:
    """An API of one page on loopback; `answer` is (status, body, headers)."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        body = write_snapshot(Site([host("gpu", cards=(card(0),))]).held.published).encode()
        self.answer: tuple[int, bytes, dict[str, str]] = (200, body, {"ETag": '"one"'})
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.came = threading.Semaphore(0)
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                api.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
                status, content, headers = api.answer
                if status == 200 and self.headers.get("If-None-Match") == headers.get("ETag", ""):
                    status, content = 304, b""
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
                api.came.release()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if tls is not None:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def api() -> Iterator[Api]:
    one = Api()
    yield one
    one.close()


@pytest.fixture
def options(api: Api, tmp_path: Path) -> Options:
    credential = tmp_path / "credential"
    credential.write_text("s3cret\n")
    credential.chmod(0o640)
    return Options(api_url=f"http://127.0.0.1:{api.port}", credential_file=str(credential), interval=0.2)


def test_the_snapshot_comes_with_the_credential_in_a_header(api: Api, options: Options) -> None:
    held = fetch(options, None, lambda: 7.0)
    assert held.published.snapshot.hosts[0].name == "gpu"
    assert held.asof == 7.0
    path, headers = api.asked[0]
    assert path == PATH
    assert headers["authorization"] == "Bearer s3cret"


def test_an_unchanged_snapshot_is_confirmed_and_not_sent_again(api: Api, options: Options) -> None:
    first = fetch(options, None, lambda: 7.0)
    second = fetch(options, first, lambda: 9.0)
    assert api.asked[1][1]["if-none-match"] == '"one"'
    assert (second.published is first.published, second.asof) == (True, 9.0)


def test_a_changed_credential_is_used_without_a_restart(api: Api, options: Options) -> None:
    fetch(options, None, lambda: 0.0)
    Path(options.credential_file).write_text("another\n")
    fetch(options, None, lambda: 0.0)
    assert [headers["authorization"] for _, headers in api.asked] == ["Bearer s3cret", "Bearer another"]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ((401, b"", {}), "answers 401"),
        ((500, b"", {}), "answers 500"),
        ((304, b"", {}), "answers 304"),
        ((302, b"", {"Location": "http://127.0.0.1:1/elsewhere"}), "answers 302"),
        ((200, b"", {}), "not a snapshot"),
        ((200, b"[]", {}), "not a snapshot"),
        ((200, b'{"format":"beamdesk-scheduling-snapshot","version":99}', {}), "not a snapshot"),
        ((200, b"\xff\xfe", {}), "not a snapshot"),
        ((200, b"[" * 100_000, {}), "not a snapshot"),
    ],
)
def test_a_broken_answer_is_a_failure_and_never_a_snapshot(
    api: Api, options: Options, answer: tuple[int, bytes, dict[str, str]], says: str
) -> None:
    api.answer = answer
    with pytest.raises(FetchFailed) as failure:
        fetch(options, None, lambda: 0.0)
    assert says in str(failure.value)
    assert "s3cret" not in str(failure.value)


def test_a_policy_that_is_not_known_here_does_not_hide_the_cards(
    api: Api, options: Options, caplog: pytest.LogCaptureFixture
) -> None:
    api.answer = (200, api.answer[1].replace(b'"beamdesk"', b'"newer"'), {})
    held = fetch(options, None, lambda: 0.0)
    assert (held.published.policy, held.published.snapshot.hosts[0].name) == ("beamdesk", "gpu")
    assert "names the policy newer, which this version does not know" in caplog.text


def test_the_api_is_told_what_these_plugins_understand(api: Api, options: Options) -> None:
    fetch(options, None, lambda: 0.0)
    assert api.asked[0][1]["beamdesk-plugin"] == "2"


def test_an_answer_without_end_is_given_up(api: Api, options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("beamdesk.plugins.nova.fetch.LONGEST", 1000)
    api.answer = (200, b" " * 5000, {})
    with pytest.raises(FetchFailed, match="too much"):
        fetch(options, None, lambda: 0.0)


def test_an_api_that_is_not_there_is_a_failure(options: Options) -> None:
    with pytest.raises(FetchFailed, match="cannot be reached"):
        fetch(replace(options, api_url="http://127.0.0.1:1"), None, lambda: 0.0)


@pytest.mark.parametrize(("mode", "text"), [(0o644, "s3cret"), (0o640, ""), (0o640, "two words"), (0o640, "x" * 5000)])
def test_a_credential_that_others_can_read_or_that_is_none_is_not_sent(api: Api, options: Options, mode: int, text: str) -> None:
    Path(options.credential_file).write_text(text)
    Path(options.credential_file).chmod(mode)
    with pytest.raises(FetchFailed):
        fetch(options, None, lambda: 0.0)
    assert api.asked == []


def test_https_is_verified(tmp_path: Path, options: Options) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1", "-addext",
         "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    api = Api(tls)
    try:
        url = f"https://127.0.0.1:{api.port}"
        assert fetch(replace(options, api_url=url, ca_file=str(certificate)), None, lambda: 0.0).etag == '"one"'
        with pytest.raises(FetchFailed, match="cannot be reached"):
            fetch(replace(options, api_url=url), None, lambda: 0.0)
    finally:
        api.close()


def test_the_thread_keeps_the_snapshot_fresh_and_keeps_it_when_the_api_goes(api: Api, options: Options) -> None:
    fetcher = Fetcher(options)
    first = fetcher.held()
    assert first is not None
    api.came.acquire()
    assert api.came.acquire(timeout=20), "it asks again by itself"
    api.answer = (503, b"", {})
    assert api.came.acquire(timeout=20)
    held = fetcher.held()
    assert held is not None
    assert held.published is first.published
    fetcher.stop()


def test_requests_never_wait_for_the_api_once_it_was_asked(options: Options) -> None:
    fetcher = Fetcher(replace(options, api_url="http://127.0.0.1:1"))
    assert fetcher.held() is None
    assert fetcher._first.is_set()
    fetcher.stop()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_worker_that_was_forked_fetches_for_itself(api: Api, options: Options) -> None:
    """nova-scheduler forks its workers after it has made filters and weighers."""
    fetcher = Fetcher(options)
    assert fetcher.held() is not None
    child = os.fork()
    if child == 0:
        fetcher._held = None
        held = fetcher.held()
        os._exit(0 if held is not None else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    fetcher.stop()
