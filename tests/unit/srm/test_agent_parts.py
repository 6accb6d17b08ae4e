"""The agent's parts: configuration, credential, the cleaning hook, and what it does when the API is away or refuses."""

from __future__ import annotations

import stat
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from beamdesk.protocol.srm import CardFacts, Cleaned, CleanOrder, Enrol, Enrolled, Open, Opened, Report, ReportReply
from beamdesk.srm import clean, config, credential
from beamdesk.srm.agent import LONGEST_WAIT_S, Agent
from beamdesk.srm.client import SrmApi
from beamdesk.srm.collect import Collector
from beamdesk.srm.config import CleanConfig, Config
from beamdesk.srm.errors import ApiUnavailable, ConfigError, OutOfStep, Refused
from srmkit import FIRST, a_card
from srmtree import Tree

ORDER = CleanOrder(FIRST, "job-1")
PYTHON = sys.executable


# --- configuration


def written(folder: Path, text: str) -> Path:
    path = folder / "srm.toml"
    path.write_text(text)
    return path


def test_a_configuration_is_read(tmp_path: Path) -> None:
    text = 'api = "https://d.example/"\nhost = "gpu01"\n[clean]\ncommand = ["/sbin/clean", "{address}", "{uuid}"]\ntimeout_s = 5\n'
    read = config.load(written(tmp_path, text))
    assert (read.api, read.host, read.clean) == (
        "https://d.example",
        "gpu01",
        CleanConfig(("/sbin/clean", "{address}", "{uuid}"), 5.0),
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "api must be a text"),
        ('api = "http://desktops.example.org"', "must begin with https"),
        ('api = "ftp://x"', "must look like"),
        ('api = "https://user:pass@x"', "must look like"),
        ('api = "https://x/path"', "must look like"),
        ('api = "https://x"\ntypo = 1', "unknown key 'typo'"),
        ('api = "https://x"\nnvml = 1', "true or false"),
        ('api = "https://x"\nreport_every_s = 0', "seconds"),
        ('api = "https://x"\n[clean]\ncommand = "rm -rf /"', "list of texts"),
        ('api = "https://x"\n[clean]\ncommand = ["clean"]', "absolute path"),
        ('api = "https://x"\n[clean]\ncommand = ["/c", "{__class__}"]', "is none of"),
        ('api = "https://x"\n[clean]\ncommand = ["/c", "{address.__class__}"]', "is none of"),
        ('api = "https://x"\n[clean]\ncommand = ["/c", "{address"]', "clean.command"),
        ('api = "https://x"\n[clean]\nshell = true', "keys command and timeout_s"),
        ("not toml", "not valid TOML"),
    ],
)
def test_a_wrong_configuration_says_what(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        config.load(written(tmp_path, text))


def test_plain_http_is_for_this_machine(tmp_path: Path) -> None:
    assert config.load(written(tmp_path, 'api = "http://127.0.0.1:8080"')).api == "http://127.0.0.1:8080"


# --- credential


def test_a_credential_is_kept_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "new" / "credential"
    credential.save(path, "one")
    credential.save(path, "two")
    assert credential.load(path) == "two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in path.parent.iterdir()] == ["credential"]


def test_a_credential_that_others_can_read_or_that_is_a_link_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "credential"
    with pytest.raises(ConfigError, match="beamdesk srm join"):
        credential.load(path)
    credential.save(path, "one")
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(ConfigError):
        credential.load(tmp_path / "link")
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="can be read by others"):
        credential.load(path)


def test_a_machines_digest_is_its_own_and_not_its_id(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("0123\n")
    (tmp_path / "b").write_text("4567\n")
    one, other = (credential.machine_digest(tmp_path / name) for name in "ab")
    assert one != other
    assert "0123" not in one
    with pytest.raises(ConfigError, match="machine-id"):
        credential.machine_digest(tmp_path / "none")


# --- cleaning


def finished(started: clean.Cleaning | Cleaned) -> Cleaned:
    if isinstance(started, Cleaned):
        return started
    while (result := started.result(time.monotonic())) is None:
        time.sleep(0.01)
    return result


def test_a_hook_gets_the_card_and_nothing_of_a_shell(tmp_path: Path) -> None:
    card = a_card(model="X; touch /tmp/pwned $(id)")
    script = "import sys,os; print(sys.argv[1:], sorted(os.environ))"
    hook = CleanConfig((PYTHON, "-c", script, "{address}", "{model}"))
    assert clean.arguments(hook, card)[-1] == "X; touch /tmp/pwned $(id)"
    result = finished(clean.start(hook, card, ORDER, tmp_path))
    assert (result.succeeded, result.exit_status, result.job) == (True, 0, "job-1")
    other = finished(clean.start(replace(hook, command=(*hook.command, "more")), card, ORDER, tmp_path))
    assert other.command_sha256 != result.command_sha256
    assert other.output_sha256 != result.output_sha256


def test_a_hook_that_fails_says_why(tmp_path: Path) -> None:
    hook = CleanConfig((PYTHON, "-c", "import sys; print('\\x1b[31mreset\\nfailed'); sys.exit(3)"))
    result = finished(clean.start(hook, a_card(), ORDER, tmp_path))
    assert (result.succeeded, result.exit_status, result.detail) == (False, 3, "[31mreset failed")


def test_a_hook_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    script = "import subprocess,sys,time; p=subprocess.Popen([sys.executable,'-c','import time; time.sleep(600)']); open(sys.argv[1],'w').write(str(p.pid)); time.sleep(600)"
    hook = CleanConfig((PYTHON, "-c", script, str(tmp_path / "pid")), timeout_s=600)
    started = clean.start(hook, a_card(), ORDER, tmp_path)
    assert isinstance(started, clean.Cleaning)
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        time.sleep(0.01)
    result = started.result(time.monotonic() + 601)
    assert result is not None
    assert (result.succeeded, result.exit_status, result.detail) == (False, None, "stopped after 600 s")
    stat_file = Path(f"/proc/{(tmp_path / 'pid').read_text()}/stat")
    while stat_file.exists() and stat_file.read_text().split()[2] != "Z":
        time.sleep(0.01)


def test_a_hook_that_is_not_there_is_a_failure(tmp_path: Path) -> None:
    result = finished(clean.start(CleanConfig(("/nowhere/clean",)), a_card(), ORDER, tmp_path))
    assert (result.succeeded, "cannot start" in result.detail) == (False, True)


# --- the life of an agent


class Api:
    """An API that does what a test tells it to, one answer after the other; then it accepts."""

    def __init__(self) -> None:
        self.script: list[Any] = []
        self.heard: list[Any] = []
        self.clean: tuple[CleanOrder, ...] = ()

    def _next(self, message: Any) -> None:
        self.heard.append(message)
        if self.script and (trouble := self.script.pop(0)) is not None:
            raise trouble

    def open(self, message: Open) -> Opened:
        self._next(message)
        return Opened(f"session-{len(self.heard)}", 0.0)

    def report(self, report: Report) -> ReportReply:
        self._next(report)
        return ReportReply(report.sequence, 0.0, False, self.clean)

    def enrol(self, message: Enrol) -> Enrolled:
        return Enrolled(message.host, "credential")

    def close(self) -> None:
        pass

    @property
    def reports(self) -> list[tuple[int, bool]]:
        return [(one.sequence, one.full) for one in self.heard if isinstance(one, Report)]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    made = Tree(tmp_path / "tree")
    made.plug(FIRST)
    return made


@pytest.fixture
def api() -> Api:
    return Api()


def an_agent(tree: Tree, api: Api, said: list[str] | None = None, hook: CleanConfig | None = None) -> Agent:
    own = Config("https://localhost", "gpu01", sys=tree.sys, proc=tree.proc, disk=tree.root, clean=hook or CleanConfig())
    log = (said if said is not None else []).append
    return Agent(own, api, Collector(own), machine="m", boot="b", version="v", log=log)  # type: ignore[arg-type]  # a script in its place


def test_the_first_report_is_full_and_the_next_ones_are_not(tree: Tree, api: Api) -> None:
    agent = an_agent(tree, api)
    for _ in range(3):
        agent.step()
    assert api.reports == [(1, True), (2, False), (3, False)]


def test_a_report_without_an_answer_is_sent_again_as_it_was(tree: Tree, api: Api) -> None:
    agent = an_agent(tree, api)
    agent.step()
    api.script = [ApiUnavailable("gone"), ApiUnavailable("gone")]
    agent.step()
    tree.plug("0000:d8:00.0", group=44)
    agent.step()
    agent.step()
    first, *again = [replace(one, sent_at=0.0) for one in api.heard if isinstance(one, Report) and one.sequence == 2]
    assert again == [first, first]
    agent.step()
    assert api.reports[-1] == (3, False)
    assert [card.address for card in api.heard[-1].cards] == ["0000:d8:00.0"], "what changed meanwhile comes next"


def test_waiting_grows_and_ends_growing(tree: Tree, api: Api) -> None:
    said: list[str] = []
    agent = an_agent(tree, api, said)
    api.script = [ApiUnavailable("gone") for _ in range(30)]
    waits = [agent.step() for _ in range(30)]
    assert waits[0] <= 1.0
    assert LONGEST_WAIT_S / 2 <= waits[-1] <= LONGEST_WAIT_S
    assert len(said) == 1, "told once, not every time"
    agent.step()
    assert said[-1] == "the API answers again"


def test_what_the_api_asks_for_is_waited_for(tree: Tree, api: Api) -> None:
    api.script = [ApiUnavailable("slow down", retry_after_s=300.0)]
    assert an_agent(tree, api).step() == 300.0


def test_a_refused_report_begins_a_new_session(tree: Tree, api: Api) -> None:
    agent = an_agent(tree, api)
    agent.step()
    api.script = [OutOfStep("this session is over")]
    agent.step()
    agent.step()
    assert api.reports == [(1, True), (2, False), (1, True)]
    assert isinstance(api.heard[-2], Open)


def test_a_refused_credential_is_tried_again_slowly(tree: Tree, api: Api) -> None:
    said: list[str] = []
    agent = an_agent(tree, api, said)
    api.script = [Refused("no host has this credential"), None, None]
    assert agent.step() > 0
    agent.step()
    assert api.reports == [(1, True)]
    assert "no host has this credential" in said[0]


def test_a_card_is_cleaned_once_per_job_and_never_while_it_is_held(tree: Tree, api: Api, tmp_path: Path) -> None:
    count = tmp_path / "count"
    script = "import sys; open(sys.argv[1], 'a').write('x')"
    agent = an_agent(tree, api, hook=CleanConfig((PYTHON, "-c", script, str(count))))
    tree.start_server(4711, "6f9619ff-8b86-4d01-b42d-00cf4fc964ff")
    api.clean = (ORDER,)
    agent.step()
    agent.step()
    assert not count.exists(), "a server holds it"
    tree.stop_server(4711)
    agent.step()
    results: list[Cleaned] = []
    while not results:
        agent.step()
        results = [one for report in api.heard if isinstance(report, Report) for one in report.cleaned]
    assert (results[0].succeeded, results[0].job) == (True, "job-1")
    assert count.read_text() == "x"


def test_a_card_that_is_not_ours_is_not_cleaned(tree: Tree, api: Api, tmp_path: Path) -> None:
    api.clean = (CleanOrder("0000:00:00.0", "job"),)
    agent = an_agent(tree, api, hook=CleanConfig((PYTHON, "-c", "pass")))
    for _ in range(3):
        agent.step()
    assert not [one for report in api.heard if isinstance(report, Report) for one in report.cleaned]


def test_an_api_whose_certificate_is_not_trusted_gets_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="authorities"):
        SrmApi("https://localhost:1", ca_file=tmp_path / "none")
    with pytest.raises(ApiUnavailable, match="cannot be reached"):
        SrmApi("https://localhost:1").open(Open("h", "m", "b", "v", 0.0))


def test_a_card_has_facts_for_every_placeholder() -> None:
    names = config.PLACEHOLDERS
    assert all(isinstance(getattr(a_card(), name), str) for name in names)
    assert names <= set(CardFacts.__dataclass_fields__)
