"""Traces are read strictly, written and read back, and played by the command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from beamdesk.adapters.trace import generator, openb, play, workload
from beamdesk.cli.failure import Failure
from beamdesk.cli.schedule import schedule_app
from beamdesk.domain.errors import Invalid

HOSTS = "sn,cpu_milli,memory_mib,gpu,model\nn1,64000,262144,2,T4\nn0,32000,1024,0,\n"
PODS = (
    "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec\n"
    "p1,1000,1024,1,460,\np2,1000,1024,2,1000,T4|P100\np3,1000,1024,0,0,\np4,1000,1024,1,0,\n"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / play.OPENB_HOSTS["gpu"]).write_text(HOSTS)
    (tmp_path / play.OPENB_REQUESTS).write_text(PODS)
    return tmp_path


def run(*arguments: str) -> str:
    result = CliRunner().invoke(schedule_app, arguments)
    if isinstance(result.exception, Failure):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_openb_files_become_hosts_and_requests(folder: Path) -> None:
    trace = play.read_openb(folder)
    assert [(host.name, len(host.cards)) for host in trace.hosts] == [("n1", 2), ("n0", 0)]
    demands = [request.cards for request in trace.requests]
    assert [(one.count, one.share, one.models) if one else None for one in demands] == [
        (1, 460, frozenset()),
        (2, 1000, frozenset({"T4", "P100"})),
        None,
        None,
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("sn,cpu_milli\n", "header lacks"),
        (HOSTS + "n2,-5,1,0,\n", "line 4: cpu_milli must be a whole number"),
        (HOSTS + "n2,NaN,1,0,\n", "line 4: cpu_milli"),
        (HOSTS + "n2,1,1,1,X9\n", "line 4: unknown model 'X9'"),
        (HOSTS + ",1,1,0,\n", "line 4: host.name"),
    ],
)
def test_malformed_node_lists_name_the_line(folder: Path, text: str, says: str) -> None:
    path = folder / "bad.csv"
    path.write_text(text)
    with pytest.raises(Invalid, match=says):
        openb.read_hosts(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"nothing\.csv"):
        openb.read_requests(tmp_path / "nothing.csv")


def test_a_workload_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    made = generator.workload(7, days=2, warm_days=1)
    workload.write(tmp_path / "w.jsonl", made)
    read = workload.read(tmp_path / "w.jsonl")
    assert (read.hosts, read.flavors, read.load, read.warm) == (made.hosts, made.flavors, made.load, made.warm)
    assert [one.request for one in read.arrivals] == [one.request for one in made.arrivals]
    assert all(
        abs(a.at - b.at) < 0.001 and abs(a.lease - b.lease) < 0.001 for a, b in zip(read.arrivals, made.arrivals, strict=True)
    )


def test_one_seed_gives_one_workload_of_about_the_load() -> None:
    made = generator.workload(7)
    assert made == generator.workload(7)
    cards = sum(one.lease * one.request.cards.count for one in made.arrivals if one.request.cards)
    assert cards / (35 * 86400 * 560) == pytest.approx(1.05, rel=0.1)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("nonsense", "line 2: this is not JSON"),
        ("[]", "line 2: an object"),
        ('{"at": 1, "lease": 1, "flavor": "x"}', "no flavor 'x'"),
        ('{"at": NaN, "lease": 1, "flavor": "s"}', "at must be a number"),
        ('{"at": 1, "lease": -1, "flavor": "s"}', "lease must be a number"),
        ('{"at": 1, "lease": true, "flavor": "s"}', "lease must be a number"),
        ('{"at": 5, "lease": 1, "flavor": "s"}\n{"at": 4, "lease": 1, "flavor": "s"}', "line 3: arrivals must be in order"),
    ],
)
def test_malformed_workloads_name_the_line(tmp_path: Path, row: str, says: str) -> None:
    header = {"format": "beamdesk-workload", "version": 1, "load": 1, "warm": 0, "hosts": []}
    header["flavors"] = {"s": {"cpu_milli": 1, "memory_mib": 1, "share": 1}}
    (tmp_path / "w.jsonl").write_text(json.dumps(header) + "\n" + row + "\n")
    with pytest.raises(Invalid, match=says):
        workload.read(tmp_path / "w.jsonl")


@pytest.mark.parametrize(
    "header", ["", "{}", '{"format": "beamdesk-workload", "version": 1, "hosts": [{"name": "h"}], "flavors": {}}']
)
def test_a_file_that_is_no_workload_is_refused(tmp_path: Path, header: str) -> None:
    (tmp_path / "w.jsonl").write_text(header)
    with pytest.raises(Invalid, match=r"w\.jsonl"):
        workload.read(tmp_path / "w.jsonl")


@pytest.mark.heavy
def test_the_command_replays_openb_and_draws(folder: Path, tmp_path: Path) -> None:
    output = run("replay", "--trace", str(folder), "--policy", "fgd", "--policy", "heps", "--out", str(tmp_path / "curve"))
    assert [line.split()[0] for line in output.splitlines()[2:4]] == ["fgd", "heps"]
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "curve.svg").read_text()


def test_the_command_replays_a_folder_of_workloads(tmp_path: Path) -> None:
    workload.write(tmp_path / "w.jsonl", generator.workload(7, days=2, warm_days=1))
    output = run("replay", "--trace", str(tmp_path), "--policy", "beamdesk", "--moves", "1")
    assert output.splitlines()[1].split()[:2] == ["1.05", "beamdesk"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--trace", "/nowhere"], "neither openb CSV files nor workloads"),
        (["--trace", ".", "--policy", "best"], "no policy best"),
        (["--trace", ".", "--nodes", "some"], "nodes must be one of"),
    ],
)
def test_bad_options_are_refused_with_a_sentence(arguments: list[str], says: str) -> None:
    with pytest.raises(Failure, match=says):
        run("replay", *arguments)


@pytest.mark.parametrize("loads", ["x", "0", "-1", "nan", "11", ""])
def test_bad_loads_are_refused(tmp_path: Path, loads: str) -> None:
    with pytest.raises(Failure, match=r"[Ll]oad"):
        run("generate", str(tmp_path), "--loads", loads)
