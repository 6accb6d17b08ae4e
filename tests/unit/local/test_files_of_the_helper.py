"""Records, consoles and the index of images: the small files that the helper reads back."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from beamdesk.adapters.local.helper import layers
from beamdesk.adapters.local.helper.console import MAX_BYTES, Console, last_words, tail
from beamdesk.adapters.local.helper.errors import HelperError
from beamdesk.adapters.local.helper.homes import Home, Homes
from beamdesk.adapters.local.helper.state import Records
from beamdesk.protocol.helper import HelperServer, ServerState

RUNNING = HelperServer("desktop1", "deployment", ServerState.RUNNING, 1.5, "/run/stream.sock")


def test_what_ran_before_a_restart_has_stopped(tmp_path: Path) -> None:
    Records.load(tmp_path).put(RUNNING)
    server = Records.load(tmp_path).servers["desktop1"]
    assert (server.state, server.created_at, server.deployment_id) == (ServerState.STOPPED, 1.5, "deployment")
    assert "restarted" in server.cause


def test_a_dropped_record_does_not_come_back_and_dropping_twice_is_fine(tmp_path: Path) -> None:
    records = Records.load(tmp_path)
    records.put(RUNNING)
    records.drop("desktop1")
    records.drop("desktop1")
    assert Records.load(tmp_path).servers == {}


def test_a_damaged_record_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "desktop1.json").write_text('{"desktop_id": "desk')
    assert Records.load(tmp_path).servers == {}
    assert list(tmp_path.iterdir()) == []


def test_records_are_roots_alone(tmp_path: Path) -> None:
    Records.load(tmp_path).put(RUNNING)
    assert (tmp_path / "desktop1.json").stat().st_mode & 0o777 == 0o600


def test_a_home_without_a_readable_record_is_still_listed(tmp_path: Path) -> None:
    homes = Homes(tmp_path)
    homes.image("desktop1").touch()
    os.truncate(homes.image("desktop1"), 3 << 30)
    homes.record(Home("desktop2", "deployment", 1))
    assert homes.all() == (Home("desktop1", "", 3),)


def test_a_console_keeps_its_newest_part(tmp_path: Path) -> None:
    path = tmp_path / "console"

    async def fill() -> None:
        read_end, write_end = os.pipe()
        console = Console(path, read_end)
        for number in range(100):
            console._append(b"%08d\n" % number * 1000)
        os.write(write_end, b"the end\n")
        os.close(write_end)
        console.close()
        console.close()

    asyncio.run(fill())
    assert path.stat().st_size <= MAX_BYTES
    assert tail(path).endswith("00000099\nthe end\n")
    assert last_words(path) == "the end"


def test_a_consoles_text_has_no_control_characters(tmp_path: Path) -> None:
    path = tmp_path / "console"
    path.write_bytes(b"a\x1b[31mred\x00\xff\tb\n")
    assert tail(path) == "a[31mred\ufffd\tb\n"
    assert tail(tmp_path / "absent") == ""


@pytest.mark.root
def test_an_index_names_layers_from_the_top(tmp_path: Path) -> None:
    for name in ("top", "base"):
        (tmp_path / name).mkdir(mode=0o755)
    index = tmp_path / "aa.json"
    index.write_text(json.dumps({"layers": [str(tmp_path / "top"), str(tmp_path / "base")]}))
    assert layers.find(tmp_path, "aa") == (tmp_path / "top", tmp_path / "base")


@pytest.mark.root
@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"layers": []}',
        '{"layers": "x"}',
        '{"layers": ["relative"]}',
        '{"layers": ["/absent"]}',
        '{"layers": ["/tmp"]}',
        '{"layers": ["/usr", "/usr"]}',
        '{"layers": ["/usr/../etc"]}',
        '{"layers": ["/etc/passwd"]}',
        '{"layers": ["/usr"], "more": 1}',
        '{"layers": ["/usr"' + ', "/usr"' * 20000 + "]}",
    ],
)
def test_a_damaged_index_is_an_unknown_image(tmp_path: Path, content: str) -> None:
    (tmp_path / "aa.json").write_text(content)
    with pytest.raises(HelperError) as refused:
        layers.find(tmp_path, "aa")
    assert refused.value.code == "unknown_image"


@pytest.mark.root
def test_an_index_of_somebody_else_or_behind_a_link_is_an_unknown_image(tmp_path: Path) -> None:
    for name in ("aa", "bb"):
        (tmp_path / f"{name}.json").write_text('{"layers": ["/usr"]}')
    os.chown(tmp_path / "aa.json", 1000, 1000)
    (tmp_path / "cc.json").symlink_to("bb.json")
    assert layers.find(tmp_path, "bb") == (Path("/usr"),)
    for name in ("aa", "cc", "dd"):
        with pytest.raises(HelperError):
            layers.find(tmp_path, name)
