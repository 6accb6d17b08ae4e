"""Answers carry the security headers and nothing that was slipped in."""

from __future__ import annotations

import pytest

from beamdesk.gateway.reply import Reply, redirect, switching_protocols, websocket_accept


def lines(reply: Reply, *, secure: bool = False) -> list[str]:
    return reply.encode(secure=secure, keep_alive=True).decode().split("\r\n")


def test_every_answer_is_guarded():
    sent = lines(Reply(404))
    assert "X-Content-Type-Options: nosniff" in sent
    assert "X-Frame-Options: DENY" in sent
    assert "Cross-Origin-Opener-Policy: same-origin" in sent
    assert "Cross-Origin-Resource-Policy: same-origin" in sent
    assert "Referrer-Policy: no-referrer" in sent
    assert any(line.startswith("Content-Security-Policy: default-src 'none'") for line in sent)
    assert not any(line.startswith("Strict-Transport-Security") for line in sent)
    assert any(line.startswith("Strict-Transport-Security") for line in lines(Reply(404), secure=True))


@pytest.mark.parametrize("value", ["/\r\nSet-Cookie: a=b", "/\nSet-Cookie: a=b", "/\r\n\r\nbody"])
def test_a_line_break_in_a_header_value_is_an_error(value: str):
    with pytest.raises(ValueError, match="line break"):
        redirect(value).encode(secure=False, keep_alive=True)


def test_a_head_request_gets_the_length_and_no_body():
    sent = Reply(200, b"12345").encode(secure=False, keep_alive=True, head_only=True)
    assert b"Content-Length: 5" in sent
    assert sent.endswith(b"\r\n\r\n")


def test_the_accept_value_is_that_of_the_rfc():
    assert websocket_accept("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n" in switching_protocols("dGhlIHNhbXBsZSBub25jZQ==")
