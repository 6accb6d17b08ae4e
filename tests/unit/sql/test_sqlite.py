"""SQLite through one change of threads for each statement: the same answers, and no transaction is left open by anybody."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from beamdesk.adapters.sql.engine import Engines, make_engines
from beamdesk.adapters.sql.sqlite import SqliteConnection

pytestmark = pytest.mark.anyio


@pytest.fixture
async def engines(tmp_path: Path) -> AsyncIterator[Engines]:
    made = make_engines(f"sqlite+aiosqlite:///{tmp_path}/store.db")
    async with made.write.connect() as connection, connection.begin():
        await connection.execute(text("CREATE TABLE t (id INTEGER PRIMARY KEY, word TEXT UNIQUE)"))
    yield made
    await made.dispose()


class Trips:
    """Counts how often work was given to the threads of connections."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made = 0
        original = SqliteConnection._execute

        async def counted(connection: SqliteConnection, *arguments: object) -> object:
            self.made += 1
            return await original(connection, *arguments)

        monkeypatch.setattr(SqliteConnection, "_execute", counted)


async def insert(engines: Engines, *words: str) -> None:
    async with engines.write.connect() as connection, connection.begin():
        for word in words:
            await connection.execute(text("INSERT INTO t (word) VALUES (:word)"), {"word": word})


async def words(engines: Engines) -> list[str]:
    async with engines.read.connect() as connection, connection.begin():
        return list((await connection.execute(text("SELECT word FROM t ORDER BY id"))).scalars())


async def test_a_transaction_costs_one_trip_for_each_statement_and_two(engines: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    await insert(engines, "first")
    assert await words(engines) == ["first"]  # the pools have their connections now
    trips = Trips(monkeypatch)
    await insert(engines, "second")
    assert trips.made == 3, "begin, insert, commit"
    assert await words(engines) == ["first", "second"]
    assert trips.made == 6, "begin, select, commit"


async def test_what_a_statement_tells_of_itself_is_told(engines: Engines) -> None:
    async with engines.write.connect() as connection, connection.begin():
        many = [{"word": word} for word in ("a", "b", "c")]
        await connection.execute(text("INSERT INTO t (word) VALUES (:word)"), many)
        changed = await connection.execute(text("UPDATE t SET word = word || '!' WHERE id > 1"))
        assert changed.rowcount == 2
        gone = await connection.execute(text("DELETE FROM t WHERE id = 1 RETURNING id, word"))
        assert gone.mappings().all() == [{"id": 1, "word": "a"}]
        added = await connection.execute(text("INSERT INTO t (word) VALUES ('d')"))
        assert added.lastrowid == 4
    assert await words(engines) == ["b!", "c!", "d"]


async def test_an_error_rolls_back_and_the_connection_goes_on(engines: Engines) -> None:
    await insert(engines, "taken")
    with pytest.raises(IntegrityError):
        await insert(engines, "new", "taken")
    await insert(engines, "later")
    assert await words(engines) == ["taken", "later"]


@pytest.mark.parametrize("moment", ["BEGIN", "INSERT", "COMMIT"])
async def test_who_is_cancelled_at_any_moment_leaves_no_transaction_open(engines: Engines, moment: str) -> None:
    await insert(engines, "first")
    held, go = threading.Event(), threading.Event()
    async with engines.write.connect() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
    assert isinstance(driver, SqliteConnection)

    def hold(statement: str) -> None:
        if statement.startswith(moment) and not held.is_set():
            held.set()
            go.wait(10)

    await driver.set_trace_callback(hold)  # called in the connection's thread, as a statement begins
    inserting = asyncio.create_task(insert(engines, "cancelled"))
    assert await asyncio.to_thread(held.wait, 10)
    inserting.cancel()
    await asyncio.sleep(0.05)
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await inserting
    await insert(engines, "later")
    there = await words(engines)
    assert there in (["first", "later"], ["first", "cancelled", "later"]) if moment == "COMMIT" else there == ["first", "later"]
