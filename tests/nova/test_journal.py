"""Decisions inside nova-scheduler are kept, bounded, and can be read and replayed."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from beamdesk.plugins.nova.asked import read
from beamdesk.plugins.nova.engine import Engine
from beamdesk.plugins.nova.journal import Entry, Journal, dump, entries, load
from beamdesk.plugins.nova.options import Options
from beamdesk.plugins.nova.seen import look, offers
from beamdesk.plugins.nova.show import main as show
from beamdesk.scheduling.decide import same_again
from beamdesk.scheduling.errors import Malformed
from novakit import Site, card, flavor, host, spec


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "decisions.jsonl"


def engine(site: Site, kept: Path, most: int = 1 << 20) -> Engine:
    options = Options(api_url="https://beamdesk.example", credential_file="/nowhere")
    return Engine(options, SimpleNamespace(held=lambda: site.held), Journal(str(kept), most), lambda: site.now)


def ask(one: Engine, site: Site, number: int, devices: int = 1) -> None:
    request = spec(number, flavor(), devices)
    states = site.offered(request)
    one.judge(read(request), [look(state) for state in states], {state.host: offers(state) for state in states})


def test_a_decision_can_be_read_and_decided_again(kept: Path) -> None:
    site = Site([host("a", cards=(card(0), card(1))), host("b", cards=(card(0),))])
    ask(engine(site, kept), site, 1)
    entry = next(entries(kept))
    assert (entry.server, entry.source, entry.offered) == ("5b1b1f5e-0000-4000-8000-000000000001", "records", 2)
    assert entry.decision is not None
    assert entry.cards == tuple(one.address for one in entry.decision.grants)
    assert same_again(entry.decision, site.table, site.core.policy)


def test_a_refused_request_is_kept_with_its_reason(kept: Path) -> None:
    site = Site([host("a")])
    engine(site, kept).refuse("server-1", 1, "Unknown extra spec beamdesk:x.")
    assert next(entries(kept)) == Entry(1000.0, "server-1", offered=1, refused="Unknown extra spec beamdesk:x.")


def test_the_journal_never_grows_beyond_its_bound_and_keeps_the_latest(kept: Path) -> None:
    site = Site([host("a", cards=tuple(card(one) for one in range(8)))])
    one = engine(site, kept, 20_000)
    for number in range(60):
        ask(one, site, number, devices=0)
        assert sum(file.stat().st_size for file in kept.parent.glob("decisions*")) <= 20_000
    servers = [entry.server for entry in entries(kept)]
    assert servers == sorted(servers)
    assert servers[-1].endswith("59")
    assert len(servers) > 5


def test_two_workers_write_whole_lines(kept: Path) -> None:
    entry = Entry(1.0, "server", refused="x" * 500)
    program = (
        "import sys; from beamdesk.plugins.nova.journal import *; one = Journal(sys.argv[1], 65536)\n"
        "for _ in range(100): one.write(Entry(1.0, 'server', refused='x' * 500))"
    )
    children = [subprocess.Popen([sys.executable, "-c", program, str(kept)]) for _ in range(4)]
    assert [child.wait() for child in children] == [0, 0, 0, 0]
    found = list(entries(kept))
    assert len(found) > 40
    assert all(one.refused == entry.refused for one in found)


def test_a_full_disk_or_a_link_never_stops_a_decision(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    site = Site([host("a")])
    target = tmp_path / "target"
    link = tmp_path / "link.jsonl"
    link.symlink_to(target)
    one = engine(site, link)
    ask(one, site, 1, devices=0)
    ask(one, site, 2, devices=0)
    assert not target.exists()
    assert caplog.text.count("cannot be written") == 1


def test_decisions_are_shown_in_words(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site = Site([host("a", cards=(card(0), card(1))), host("b")])
    one = engine(site, kept)
    ask(one, site, 1)
    one.refuse("server-2", 1, "Unknown extra spec beamdesk:x.")
    assert show([str(kept)]) == 0
    assert [line.split("  ", 1)[1] for line in capsys.readouterr().out.splitlines()] == [
        "5b1b1f5e-0000-4000-8000-000000000001  a",
        "server-2  refused: Unknown extra spec beamdesk:x.",
    ]
    assert show([str(kept), "5b1b1f5e-0000-4000-8000-000000000001"]) == 0
    told = capsys.readouterr().out
    assert "by the records of the cards" in told
    assert "cards: 0000:10:00.0" in told
    assert "1. a  " in told
    assert "   1 hosts: the request leaves this host out" in told or "such cards" in told
    assert show([str(kept), "nobody"]) == 1
    assert show([]) == 2


@pytest.mark.parametrize("line", ["", "{}", "[]", '{"v": 2}', dump(Entry(1.0, "s")).replace('"at": 1.0', '"at": "x"')])
def test_a_line_that_is_none_is_refused(line: str) -> None:
    with pytest.raises(Malformed):
        load(line)


def test_what_is_written_is_what_is_read() -> None:
    entry = Entry(12.5, "s", "records", 3, 0.001, ("0000:10:00.0",), "why")
    assert load(dump(entry)) == entry
    assert load(dump(replace(entry, refused=None))).refused is None
