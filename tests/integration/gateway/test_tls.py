"""The same with TLS of its own: pages, and a relayed stream."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from integration.gateway.stage import Stage, make_stage
from integration.gateway.wire import Socket, read_answer

pytestmark = pytest.mark.anyio


def make_certificate(folder: Path) -> tuple[Path, Path]:
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    subprocess.run([*command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return certificate, key


async def connect_tls(stage: Stage) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_connection("127.0.0.1", stage.port, ssl=context)
    stage.open_sockets.append(writer)
    return reader, writer


async def test_a_stream_passes_through_tls(tmp_path: Path):
    certificate, key = make_certificate(tmp_path)
    async with make_stage(tmp_path, tls_certificate=certificate, tls_key=key) as plain:
        stage = replace(plain, connector=connect_tls)
        cookie = await stage.sign_in()
        page = await stage.request("GET", "/", Cookie=cookie)
        assert page.status == 200
        assert page.field("strict-transport-security")
        reader, writer = await stage.raw()
        writer.write(stage.handshake(cookie))
        stream = Socket(reader, writer, await read_answer(reader))
        assert stream.answer.status == 101
        for size in (5, 100_000, 2_000_000):
            assert await stream.echo(b"x" * size) == b"x" * size
        await stage.request("POST", "/session/end", b"", Cookie=cookie, Origin=stage.origin)
        assert await stream.is_cut(3) < 1


async def test_without_tls_nothing_is_served_on_a_tls_port(tmp_path: Path):
    certificate, key = make_certificate(tmp_path)
    async with make_stage(tmp_path, tls_certificate=certificate, tls_key=key) as stage:
        reader, writer = await stage.raw()
        writer.write(stage.handshake(""))
        assert b"HTTP/1.1" not in await asyncio.wait_for(reader.read(), 5)
