"""The request parser: what could be read in two ways is refused."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamdesk.gateway.head import Head, HttpError, parse_head, parse_response_head

HOST = "Host: d-abc.localhost:8081"


def head(*lines: str, first: str = "GET / HTTP/1.1") -> Head:
    return parse_head("\r\n".join([first, *lines]).encode("latin-1"))


def status(*lines: str, first: str = "GET / HTTP/1.1") -> int:
    with pytest.raises(HttpError) as caught:
        head(*lines, first=first)
    return caught.value.status


def test_a_plain_request_is_read():
    parsed = head(HOST, "Accept: text/html", "Accept: */*", first="GET /open?x=1 HTTP/1.1")
    assert (parsed.method, parsed.path, parsed.query, parsed.desktop_id) == ("GET", "/open", "x=1", "abc")
    assert parsed.host == "d-abc.localhost:8081"
    assert parsed.field("accept") == "text/html, */*"
    assert parsed.keep_alive


@pytest.mark.parametrize(
    "first",
    [
        "GET / HTTP/1.0",
        "GET / HTTP/2",
        "get / HTTP/1.1",
        "GET  / HTTP/1.1",
        "GET http://d-abc.localhost/ HTTP/1.1",
        "CONNECT d-abc.localhost:80 HTTP/1.1",
        "GET /a b HTTP/1.1",
        "GET /\x00 HTTP/1.1",
        "GET /\xff HTTP/1.1",
        "GET /" + "a" * 3000 + " HTTP/1.1",
        "",
    ],
)
def test_a_strange_request_line_is_refused(first: str):
    assert status(HOST, first=first) == 400


@pytest.mark.parametrize(
    "line",
    [
        " folded: x",
        "\tfolded: x",
        "name : x",
        "na me: x",
        ": x",
        "no colon",
        "name: a\x00b",
        "name: a\nb: c",
        "name: a\rb: c",
        "nämé: x",
        "Transfer-Encoding: chunked",
        "transfer-encoding: identity",
        "Expect: 100-continue",
        "Host: d-other.localhost",
    ],
)
def test_a_strange_field_is_refused(line: str):
    assert status(HOST, line) == 400


@pytest.mark.parametrize("name", ["Content-Length", "Origin", "Cookie", "Sec-WebSocket-Key", "Upgrade", "Content-Type"])
def test_a_repeated_field_that_decides_something_is_refused(name: str):
    assert status(HOST, f"{name}: 5", f"{name}: 5", first="POST / HTTP/1.1") == 400


@pytest.mark.parametrize("length", ["-1", "+5", "0x10", "5, 5", "1e3", "\u0665", "9" * 20, " ", "5 5"])
def test_a_strange_content_length_is_refused(length: str):
    lines = [HOST, f"Content-Length: {length}"]
    with pytest.raises(HttpError) as caught:
        parse_head("\r\n".join(["POST / HTTP/1.1", *lines]).encode())
    assert caught.value.status in {400, 411}


def test_only_a_post_has_a_body():
    assert status(HOST, "Content-Length: 5") == 400
    assert head(HOST, "Content-Length: 0").content_length == 0
    assert status(HOST, first="POST / HTTP/1.1") == 411


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "d-.localhost",
        "d-ABC!.localhost",
        "abc.localhost",
        "d-a_b.localhost",
        "d-1abc.localhost",
        "d-abc",
        "d-abc.localhost:",
    ],
)
def test_a_host_that_is_no_desktop_is_misdirected(host: str):
    assert status(f"Host: {host}") == 421


def test_without_a_host_nothing_is_served():
    assert status("Accept: */*") == 421


def test_too_many_fields_are_refused():
    assert status(HOST, *(f"x-{index}: 1" for index in range(70))) == 431


def test_a_cookie_sent_twice_counts_as_none():
    assert head(HOST, "Cookie: a=1; b=2").cookie("b") == "2"
    assert head(HOST, "Cookie: a=1; a=2").cookie("a") == ""
    assert head(HOST, "Cookie: aa=1").cookie("a") == ""


@pytest.mark.parametrize("missing", ["Upgrade: websocket", "Connection: keep-alive, Upgrade", "Sec-WebSocket-Version: 13"])
def test_a_handshake_needs_all_of_its_fields(missing: str):
    lines = ["Upgrade: websocket", "Connection: keep-alive, Upgrade", "Sec-WebSocket-Version: 13"]
    assert head(HOST, *lines).wants_websocket
    assert not head(HOST, *(line for line in lines if line != missing)).wants_websocket


@given(st.binary(max_size=300))
def test_any_bytes_are_parsed_or_refused(raw: bytes):
    with contextlib.suppress(HttpError):
        assert parse_head(raw).path.startswith("/")


@given(st.binary(max_size=300))
def test_any_answer_of_a_desktop_is_parsed_or_refused(raw: bytes):
    try:
        status_code, fields = parse_response_head(raw)
    except ValueError:
        return
    assert 0 <= status_code <= 999
    assert not any("\n" in value or "\r" in value for value in fields.values())
