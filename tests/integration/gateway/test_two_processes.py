"""Two gateway processes on one store: each ticket has one winner, each stream can be anywhere."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from integration.gateway.stage import Stage, free_port

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def another_gateway(stage: Stage, folder: Path) -> AsyncIterator[Stage]:
    port = free_port()
    arguments = [f"sqlite+aiosqlite:///{folder}/store.db", str(port), str(stage.port), str(folder)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "integration.gateway.process", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        await asyncio.wait_for(process.stdout.readuntil(f"\n{port}\n".encode()), 20)
        yield replace(stage, connect_port=port)
    finally:
        process.kill()
        await process.wait()


async def test_a_ticket_has_one_winner_over_both(stage: Stage, tmp_path: Path):
    async with another_gateway(stage, tmp_path) as other:
        for _ in range(5):
            ticket = await stage.ticket()
            answers = await asyncio.gather(*(gateway.post_ticket(ticket) for gateway in (stage, other) * 3))
            assert sorted(answer.status for answer in answers) == [303] + [403] * 5


async def test_a_held_ticket_has_one_winner_over_both(stage: Stage, tmp_path: Path):
    async with another_gateway(stage, tmp_path) as other:
        for _ in range(5):
            arrived = await stage.post_ticket(await stage.ticket())
            answers = await asyncio.gather(*(gateway.follow(arrived) for gateway in (stage, other) * 3))
            assert sorted(answer.status for answer in answers) == [303] + [403] * 5


async def test_a_session_works_and_ends_on_both(stage: Stage, tmp_path: Path):
    async with another_gateway(stage, tmp_path) as other:
        cookie = await stage.sign_in()
        here, there = await stage.stream(cookie), await other.stream(cookie)
        assert (here.answer.status, there.answer.status) == (101, 101)
        assert stage.upstream.tables[0] == stage.upstream.tables[1], "both push the same table"
        await stage.request("POST", "/session/end", b"", Cookie=cookie, Origin=stage.origin)
        assert await here.is_cut(3) < 1
        assert await there.is_cut(3) < 1
