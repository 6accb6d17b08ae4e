"""Migrations make the schema that the code expects, on both databases, once, and refuse what they do not know."""
# ruff: noqa: ASYNC240, PT012  # small files; blocks whose effect must be undone

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from beamdesk.adapters.sql import migrate, schema
from beamdesk.adapters.sql.engine import make_engines
from beamdesk.adapters.sql.store import SqlStore
from beamdesk.domain.errors import ConfigurationError, StoreUnavailable
from engine_kit import add_people, make_desktop

pytestmark = [pytest.mark.anyio, pytest.mark.postgres]


@pytest.fixture
def sqlite_path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


async def open_and_close(url: str) -> None:
    await (await SqlStore.open(url)).close()


async def test_the_migrated_database_is_what_the_code_expects(url: str) -> None:
    await open_and_close(url)

    def difference(connection: Connection) -> object:
        return compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), schema.metadata)

    engines = make_engines(url)
    async with engines.read.connect() as connection:
        assert await connection.run_sync(difference) == []
    await engines.dispose()


def test_the_newest_migration_is_named_in_the_code() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrate.__file__).parent / "migrations"))
    assert ScriptDirectory.from_config(config).get_heads() == [schema.HEAD]


async def test_several_processes_may_start_at_once(url: str) -> None:
    await asyncio.gather(*(open_and_close(url) for _ in range(5)))
    await open_and_close(url)


async def test_a_newer_database_is_refused_untouched(url: str) -> None:
    await open_and_close(url)
    engines = make_engines(url)
    async with engines.write.begin() as connection:
        await connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    await engines.dispose()
    with pytest.raises(ConfigurationError, match=r"9999.*newer"):
        await SqlStore.open(url)


async def test_the_database_of_another_program_is_refused(url: str) -> None:
    engines = make_engines(url)
    async with engines.write.begin() as connection:
        await connection.exec_driver_sql("CREATE TABLE accounting (id INTEGER)")
    await engines.dispose()
    with pytest.raises(ConfigurationError, match="another program"):
        await SqlStore.open(url)


async def test_a_migration_that_fails_leaves_nothing_behind(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from alembic import command

    real = command.upgrade

    def fail_at_the_end(*arguments: object) -> None:
        real(*arguments)
        raise ZeroDivisionError

    monkeypatch.setattr(command, "upgrade", fail_at_the_end)
    with pytest.raises(ZeroDivisionError):
        await SqlStore.open(url)
    monkeypatch.undo()
    await open_and_close(url)


async def test_a_damaged_file_is_told_and_kept(sqlite_path: Path) -> None:
    await open_and_close(f"sqlite+aiosqlite:///{sqlite_path}")
    content = bytearray(sqlite_path.read_bytes())
    content[:4096] = b"\xff" * 4096
    sqlite_path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"damaged.*backup"):
        await SqlStore.open(f"sqlite+aiosqlite:///{sqlite_path}")
    assert sqlite_path.read_bytes() == content


async def test_damage_inside_is_told_when_it_is_met(sqlite_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{sqlite_path}"
    await open_and_close(url)
    content = bytearray(sqlite_path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    sqlite_path.write_bytes(content)
    with pytest.raises(ConfigurationError, match="damaged"):
        await SqlStore.open(url)


async def test_the_file_is_for_its_owner_only(sqlite_path: Path) -> None:
    sqlite_path.touch(mode=0o644)
    store = await SqlStore.open(f"sqlite+aiosqlite:///{sqlite_path}")
    async with store.begin(write=True) as tx:
        await tx.events.last_id()
        modes = {path.name: path.stat().st_mode & 0o777 for path in sqlite_path.parent.iterdir()}
    await store.close()
    assert set(modes.values()) == {0o600}, modes


async def test_a_link_in_place_of_the_file_is_refused(sqlite_path: Path, tmp_path: Path) -> None:
    sqlite_path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError):
        await SqlStore.open(f"sqlite+aiosqlite:///{sqlite_path}")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("bad", ["mysql://x/y", "not a url", "sqlite+aiosqlite://", "sqlite+aiosqlite:////nowhere/at/all/store.db"])
async def test_a_wrong_url_is_told(bad: str) -> None:
    with pytest.raises(ConfigurationError):
        await SqlStore.open(bad)


async def test_a_database_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable):
        await SqlStore.open(f"postgresql+psycopg://nobody@/nothing?host={tmp_path}")


async def test_a_full_disk_is_told_and_nothing_is_half_written(sqlite_path: Path) -> None:
    store = await SqlStore.open(f"sqlite+aiosqlite:///{sqlite_path}")
    await add_people(store)
    with sqlite3.connect(sqlite_path) as connection:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.close()
    engines = store._engines
    async with engines.write.connect() as connection:
        await connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")  # what SQLite does when the disk is full
    with pytest.raises(StoreUnavailable):
        async with store.begin(write=True) as tx:
            for number in range(1000):
                await tx.desktops.insert(make_desktop(f"desktop{number}"))
    async with store.begin() as tx:
        assert await tx.desktops.known_ids() == frozenset()
    await store.close()
