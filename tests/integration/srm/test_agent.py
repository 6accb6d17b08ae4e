"""Real agents report to a real API over HTTPS: what changes, what breaks, what is forged, what gets cleaned."""

from __future__ import annotations

import json
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from beamdesk.plugins.nova.fetch import FetchFailed, fetch
from beamdesk.plugins.nova.options import Options
from beamdesk.protocol.codec import encode
from beamdesk.protocol.srm import Open, Report
from beamdesk.scheduling.wire import open_scheduler, read_snapshot
from beamdesk.srm.credential import machine_digest
from integration.srm.conftest import AgentProcess, Desk, command_line

FIRST, SECOND = "0000:3b:00.0", "0000:af:00.0"
SERVER = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff"
MakeAgent = Callable[..., AgentProcess]


def enrolled(desk: Desk, make_agent: MakeAgent, name: str, clean: tuple[str, ...] = ()) -> AgentProcess:
    agent = make_agent(name, clean)
    agent.site = desk.site
    done = agent.enrol(desk.ask("POST", "/srm/hosts", {"name": name}).body["token"])
    assert done.returncode == 0, done.stderr
    return agent


def reporting(desk: Desk, make_agent: MakeAgent, name: str, clean: tuple[str, ...] = ()) -> AgentProcess:
    agent = enrolled(desk, make_agent, name, clean)
    agent.tree.plug(FIRST, group=42)
    agent.tree.plug(SECOND, "26b1", "16a1", node=1, group=43)
    agent.start()
    desk.until(lambda: len(desk.states(name)) == 2, "the first report")
    return agent


def forged(desk: Desk, path: str, message: object, token: str) -> Any:
    return desk.ask("POST", path, json.loads(encode(message)), token=token)


def test_an_agent_tells_what_its_host_is_and_what_changes(desk: Desk, make_agent: MakeAgent) -> None:
    agent = reporting(desk, make_agent, "tells")
    host = desk.host("tells")
    assert (host["cpus"], host["memory_mib"], host["stale"], host["agent"]) == (16, 131072, False, host["agent"])
    assert [(card["model"], card["memory_mib"], card["numa"], card["state"]) for card in host["cards"]] == [
        ("RTX A6000", 49152, 0, "free"), ("RTX 6000 Ada Generation", 49152, 1, "free"),
    ]  # fmt: skip
    agent.tree.start_server(4711, SERVER, 42)
    desk.until(lambda: desk.states("tells")[FIRST] == "used", "the server is seen")
    assert desk.host("tells")["cards"][0]["holder"] == SERVER
    agent.tree.unplug(FIRST)
    desk.until(lambda: desk.states("tells")[FIRST] == "failed", "a card in use that is gone is failed")
    assert {"host": "tells", "kind": "card_missing_in_use"}.items() <= desk.events("srm.alarm")[0].items()
    agent.tree.unplug(SECOND)
    desk.until(lambda: desk.states("tells")[SECOND] == "failed", "an idle card that is gone is failed")
    assert agent.stop() == 0
    assert "stopped" in agent.log


def test_the_credential_is_private_and_never_shown(desk: Desk, make_agent: MakeAgent) -> None:
    agent = reporting(desk, make_agent, "private")
    file = agent.root / "credential"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    secret = file.read_text().strip()
    assert secret not in agent.log + desk.site.log("serve")
    arguments = Path(f"/proc/{agent.process.pid}/cmdline").read_bytes() if agent.process else b""
    assert secret.encode() not in arguments
    file.chmod(0o644)
    agent.stop()
    agent.start()
    assert agent.process is not None
    assert agent.process.wait(30) == 78
    agent.process = None
    assert "can be read by others" in agent.log


def test_a_token_works_once(desk: Desk, make_agent: MakeAgent) -> None:
    token = desk.ask("POST", "/srm/hosts", {"name": "once"}).body["token"]
    assert make_agent("once").enrol(token).returncode == 0
    again = make_agent("once").enrol(token)
    assert (again.returncode, "spent" in again.stderr) == (78, True)
    assert desk.ask("POST", "/srm/hosts", {"name": "once"}).status == 409


def test_an_api_that_is_down_is_waited_for(desk: Desk, make_agent: MakeAgent) -> None:
    agent = reporting(desk, make_agent, "patient")
    desk.site.stop("serve", signal.SIGKILL)
    agent.tree.start_server(4711, SERVER, 42)
    desk.until(lambda: "trying again" in agent.log, "the agent notices")
    agent.tree.plug("0000:d8:00.0", group=44)
    desk.site.start("serve")
    desk.site.wait_ready()
    desk.until(lambda: desk.states("patient").get(FIRST) == "used", "what happened meanwhile is told")
    desk.until(lambda: len(desk.states("patient")) == 3, "all of it")
    desk.until(lambda: "answers again" in agent.log, "the agent is content")
    assert agent.process is not None
    assert agent.process.poll() is None


def test_a_silent_host_goes_stale_and_comes_back(desk: Desk, make_agent: MakeAgent) -> None:
    agent = reporting(desk, make_agent, "silent")
    assert agent.process is not None
    agent.process.send_signal(signal.SIGSTOP)
    desk.until(lambda: desk.host("silent")["stale"], "stale")
    desk.until(
        lambda: any(one.get("host") == "silent" and one["kind"] == "host_silent" for one in desk.events("srm.alarm")), "told"
    )
    agent.process.send_signal(signal.SIGCONT)
    desk.until(lambda: not desk.host("silent")["stale"], "back")


def test_forged_and_replayed_reports_change_nothing_and_are_audited(desk: Desk, make_agent: MakeAgent) -> None:
    agent = reporting(desk, make_agent, "forged")
    agent.stop()
    credential = (agent.root / "credential").read_text().strip()
    machine = machine_digest(agent.tree.root / "machine-id")
    before = desk.states("forged")
    report = Report("guessed", 1, time.time(), True)
    assert forged(desk, "/srm/reports", report, "guessed").status == 401
    assert forged(desk, "/srm/reports", report, desk.token).status == 401, "an operator's login is no agent's"
    assert forged(desk, "/srm/reports", report, credential).status == 422
    opened = forged(desk, "/srm/sessions", Open("forged", machine, "b", "test", time.time()), credential)
    assert opened.status == 200
    session = opened.body["session"]
    for number in (0, 2, -1):
        assert forged(desk, "/srm/reports", Report(session, number, time.time()), credential).status in {409, 422}
    assert forged(desk, "/srm/sessions", Open("forged", "0" * 64, "b", "test", time.time()), credential).status == 409
    late = forged(desk, "/srm/sessions", Open("forged", machine, "b", "test", time.time() - 4000), credential)
    assert (late.status, "behind" in late.body["detail"]) == (409, True)
    for body in ('{"session": NaN}', '{"session": 1e999}', "[]", "{}", '{"session": "' + "x" * 70000 + '"}'):
        assert desk.ask("POST", "/srm/reports", None, token=credential).status == 422
        assert _raw(desk, "/srm/reports", body, credential) in {413, 422}
    assert desk.states("forged") == before
    assert desk.ask("GET", "/srm/hosts", token=credential).status == 401, "an agent's credential is no login"
    assert len([one for one in desk.events("srm.refused") if one["host"] == "forged"]) >= 5


def _raw(desk: Desk, path: str, body: str, token: str) -> int:
    done = subprocess.run(
        ("curl", "-sk", "-o", "/dev/null", "-w", "%{http_code}", "-H", "Content-Type: application/json", "-H", f"Authorization: Bearer {token}",
         "--data-binary", "@-", f"{desk.site.url}/api/v1{path}"),
        input=body, capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    return int(done.stdout)


def test_a_used_card_is_cleaned_by_the_hosts_hook(desk: Desk, make_agent: MakeAgent, tmp_path: Path) -> None:
    witness = tmp_path / "cleaned"
    script = "import pathlib,sys; pathlib.Path(sys.argv[1]).write_text(' '.join(sys.argv[2:])); print('wiped')"
    agent = reporting(desk, make_agent, "clean", (sys.executable, "-c", script, str(witness), "{address}", "{device}"))
    agent.tree.start_server(4711, SERVER, 42)
    desk.until(lambda: desk.states("clean")[FIRST] == "used", "used")
    agent.tree.stop_server(4711)
    desk.until(lambda: desk.states("clean")[FIRST] == "free", "cleaned")
    assert witness.read_text() == f"{FIRST} 2230"
    card = desk.host("clean")["cards"][0]
    assert (card["reason"], card["detail"].startswith("command ")) == ("cleaned", True)
    told = [
        (one["from"], one["to"]) for one in reversed(desk.events("srm.device")) if (one["host"], one["address"]) == ("clean", FIRST)
    ]
    assert told[0] == ("", "free")
    assert told[-1] == ("cleaning", "free")


def test_a_hook_that_fails_ends_in_quarantine(desk: Desk, make_agent: MakeAgent) -> None:
    agent = reporting(desk, make_agent, "fails", (sys.executable, "-c", "import sys; print('reset failed'); sys.exit(3)"))
    agent.tree.start_server(4711, SERVER, 42)
    desk.until(lambda: desk.states("fails")[FIRST] == "used", "used")
    agent.tree.stop_server(4711)
    desk.until(lambda: desk.states("fails")[FIRST] == "failed", "quarantined")
    assert "reset failed" in desk.host("fails")["cards"][0]["detail"]


def test_a_scheduler_reads_the_snapshot(desk: Desk, make_agent: MakeAgent) -> None:
    agent = reporting(desk, make_agent, "snap")
    agent.tree.start_server(4711, SERVER, 42)
    desk.until(lambda: desk.states("snap")[FIRST] == "used", "used")
    token = desk.ask("POST", "/scheduling/consumers", {"name": "nova"}).body["token"]
    assert desk.ask("GET", "/scheduling/snapshot").status == 401, "a login is no scheduler's credential"
    answer = desk.ask("GET", "/scheduling/snapshot", token=token)
    assert answer.status == 200
    published = read_snapshot(json.dumps(answer.body))
    (host,) = [one for one in published.snapshot.hosts if one.name == "snap"]
    assert [(card.model, card.memory_mib) for card in host.ordered_cards] == [
        ("RTX A6000", 49152),
        ("RTX 6000 Ada Generation", 49152),
    ]
    table = open_scheduler(published).table
    row = table.row["snap"]
    assert [bool(table.idle[row, table.position(row, address)]) for address in (FIRST, SECOND)] == [False, True]
    unchanged = desk.ask("GET", "/scheduling/snapshot", token=token, If_None_Match=answer.headers["etag"])
    assert unchanged.status in {200, 304}, "other tests' hosts may change meanwhile"
    desk.ask("DELETE", "/scheduling/consumers/nova")
    assert desk.ask("GET", "/scheduling/snapshot", token=token).status == 401


def test_the_plugins_of_nova_fetch_it_from_the_api(desk: Desk, make_agent: MakeAgent, tmp_path: Path) -> None:
    agent = reporting(desk, make_agent, "fetched")
    agent.tree.start_server(4711, SERVER, 42)
    desk.until(lambda: desk.states("fetched")[FIRST] == "used", "used")
    credential = tmp_path / "credential"
    credential.touch(0o600)
    credential.write_text(desk.ask("POST", "/scheduling/consumers", {"name": "scheduler"}).body["token"])
    options = Options(api_url=desk.site.url, credential_file=str(credential), ca_file=str(desk.certificate), timeout=20.0)
    held = fetch(options, None, time.time)
    assert ("fetched", FIRST) in held.bad
    assert ("fetched", SECOND) not in held.bad
    assert fetch(options, held, time.time).asof > held.asof
    desk.ask("DELETE", "/scheduling/consumers/scheduler")
    with pytest.raises(FetchFailed, match="401"):
        fetch(options, held, time.time)


def test_operators_work_from_the_command_line(plain: Desk, make_agent: MakeAgent, tmp_path: Path) -> None:
    reporting(plain, make_agent, "cli")
    signed_in = command_line(plain, tmp_path, "login", "olga", "--password-stdin")
    assert signed_in.returncode == 0, signed_in.stderr
    listed = command_line(plain, tmp_path, "srm", "host", "list")
    assert "2 free" in next(line for line in listed.stdout.splitlines() if line.startswith("cli "))
    assert command_line(plain, tmp_path, "srm", "device", "set", "cli", FIRST, "failed", "--why", "fan").returncode == 0
    shown = command_line(plain, tmp_path, "srm", "host", "show", "cli").stdout
    assert "operator: fan" in shown
    refused = command_line(plain, tmp_path, "srm", "device", "set", "cli", FIRST, "free", "--why", "no")
    assert (refused.returncode, refused.stderr.strip()) == (5, "beamdesk: A card that is failed can be set to: dirty.")
    assert command_line(plain, tmp_path, "srm", "host", "set", "cli", "--close", "--aggregate", "b7").returncode == 0
    assert (plain.host("cli")["enabled"], plain.host("cli")["aggregates"]) == (False, ["b7"])
    past = command_line(plain, tmp_path, "srm", "device", "history", "cli", FIRST, "--json")
    assert json.loads(past.stdout)[0]["state"] == "free"
    token = command_line(plain, tmp_path, "srm", "enrol", "cli2").stdout.strip()
    assert len(token) > 40
    missing = command_line(plain, tmp_path, "srm", "host", "show", "nowhere")
    assert (missing.returncode, missing.stderr.strip()) == (4, "beamdesk: There is no host nowhere.")


def test_a_copied_credential_is_of_no_use_on_another_machine(desk: Desk, make_agent: MakeAgent) -> None:
    agent = reporting(desk, make_agent, "copied")
    thief = replace(make_agent("copied"), clean=())
    thief.configure()
    (thief.root / "credential").write_bytes((agent.root / "credential").read_bytes())
    (thief.root / "credential").chmod(0o600)
    thief.start()
    desk.until(lambda: "another machine" in thief.log, "refused")
    thief.stop()
    assert len(desk.states("copied")) == 2
