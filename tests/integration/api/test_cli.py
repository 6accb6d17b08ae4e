"""The command line through its real entry point, against a real portal, API and reconciler."""

import json
import os
import pty
import re
import select
import stat
import subprocess
import sys
import time
import uuid

import pytest

from apisite import PROGRAM, free_port


def fresh_name():
    return f"run-{uuid.uuid4().hex[:10]}"


def test_sign_in_look_and_sign_out(cli):
    assert cli.run("whoami").returncode == 3
    cli.sign_in("ada")
    known = cli.run("whoami", "--json")
    assert json.loads(known.stdout)["person"]["full_name"] == "Ada Lin"
    assert cli.run("logout").returncode == 0
    assert cli.run("logout").returncode == 0
    assert cli.run("whoami").returncode == 3


def test_a_wrong_password_is_one_line_and_no_file(cli):
    done = cli.run("login", "bob", "--password-stdin", stdin="canary-wrong\n")
    assert done.returncode == 3
    assert done.stderr == "beamdesk: The name or the password is wrong. Check both and try again.\n"
    assert not list(cli.config.rglob("*.json"))


def test_credentials_are_private_and_whole(ada):
    path = ada.config / "beamdesk" / "credentials.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in path.parent.iterdir()] == ["credentials.json"]
    path.chmod(0o644)
    done = ada.run("whoami")
    assert done.returncode == 1
    assert "chmod 600" in done.stderr
    path.chmod(0o600)
    path.write_text("{")
    assert "damaged" in ada.run("whoami").stderr


def test_a_password_is_never_an_argument(cli):
    assert cli.run("login", "ada", "--password", "x").returncode == 2
    done = cli.run("login", "ada", stdin="x\n")
    assert (done.returncode, "--password-stdin" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    "url", ["http://desktops.example.org", "ftp://x", "https://a@b", "https://x/path", "nonsense", "http://127.0.0.1.example.org"]
)
def test_a_password_does_not_travel_unprotected_or_anywhere_odd(cli, url):
    assert cli.run("login", "ada", "--url", url, "--password-stdin", stdin="x\n").returncode == 2


def test_a_desktop_from_wish_to_nothing(ada):
    name = fresh_name()
    made = ada.run("desktop", "create", name, "--image", "imaging", "--flavor", "small", "--wait")
    assert made.returncode == 0, made.stderr
    lines = made.stderr.splitlines()
    assert lines[0].startswith("[0/8] waiting for resources")
    assert any("starting the display" in line for line in lines)
    assert lines[-1] == "ready"
    assert re.search(r"^State +ready$", made.stdout, re.MULTILINE)

    shown = json.loads(ada.run("desktop", "show", name, "--json").stdout)
    assert (shown["name"], shown["phase"], shown["image"]["id"]) == (name, "ready", "imaging")
    assert name in ada.run("desktop", "list").stdout

    connect = ada.run("desktop", "connect", name, "--no-browser")
    assert connect.stdout == f"{ada.site.url}/desktops/{shown['id']}\n"

    assert ada.run("desktop", "extend", name).returncode == 0
    renamed = fresh_name()
    assert ada.run("desktop", "rename", name, renamed).returncode == 0
    assert ada.run("desktop", "stop", renamed, "--wait").returncode == 0
    assert ada.run("desktop", "connect", renamed, "--no-browser").returncode == 5
    resized = ada.run("desktop", "resize", renamed, "--flavor", "medium")
    assert (resized.returncode, "when it is started next" in resized.stderr) == (0, True)
    assert ada.run("desktop", "start", renamed, "--wait").returncode == 0
    shown = json.loads(ada.run("desktop", "show", renamed, "--json").stdout)
    assert (shown["flavor"]["id"], shown["phase"]) == ("medium", "ready")
    assert "Stop the desktop first" in ada.run("desktop", "rebuild", renamed, "--yes").stderr
    assert ada.run("desktop", "stop", renamed, "--wait").returncode == 0
    assert ada.run("desktop", "rebuild", renamed).returncode == 2
    assert ada.run("desktop", "rebuild", renamed, "--yes", "--wait").stderr.splitlines()[-1] == "ready"
    events = json.loads(ada.run("desktop", "events", renamed, "--json", "--limit", "200").stdout)
    kinds = [event["kind"] for event in events]
    assert kinds[0] == "desktop.created"
    assert {"desktop.renamed", "desktop.extended", "desktop.resized", "desktop.rebuilt", "desktop.intent", "desktop.phase"} <= set(
        kinds
    )

    assert ada.run("desktop", "delete", renamed).returncode == 2
    assert ada.run("desktop", "delete", renamed, "--yes", "--wait").returncode == 0
    assert ada.run("desktop", "show", renamed).returncode == 4


def test_what_is_on_offer(ada):
    assert "heps-2026-0147" in ada.run("experiment", "list").stdout
    assert [one["id"] for one in json.loads(ada.run("image", "list", "--json").stdout)] == ["imaging", "general"]
    table = ada.run("flavor", "list", "--experiment", "heps").stdout
    assert re.search(r"^small +1 +2 GiB +10 GiB +- +now", table, re.MULTILINE)


def test_an_operator_changes_a_team(ada, olga):
    assert re.search(r"^bob +Bob Meyer", ada.run("experiment", "team", "heps").stdout, re.MULTILINE)
    assert ada.run("experiment", "team", "heps", "--remove", "bob").returncode == 1
    assert "bob" not in olga.run("experiment", "team", "heps-2026-0147", "--remove", "bob").stdout
    assert "bob" in olga.run("experiment", "team", "heps-2026-0147", "--add", "bob").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("experiment", "team", "no-such"), 4, "no such experiment"),
        (("desktop", "show", "no-such"), 4, "desktop list"),
        (("desktop", "create", "--image", "windows"), 2, "Images on offer"),
        (("desktop", "create", "--flavor", "giant"), 2, "Sizes on offer"),
        (("desktop", "create", "--experiment", "0212"), 4, "experiment list"),
        (("desktop", "create", "x" * 61), 2, "60 characters"),
        (("desktop", "resize", "no-such", "--flavor", "small"), 4, "desktop list"),
        (("desktop", "rebuild", "no-such", "--yes"), 4, "desktop list"),
        (("desktop", "explode"), 2, "No such command 'explode'. See 'beamdesk desktop --help'."),
        (("desktop", "show"), 2, "Missing argument 'DESKTOP'. See 'beamdesk desktop show --help'."),
        (("desktop", "create", "--flavour", "small"), 2, "--flavor"),
        (("desktop", "events", "no-such", "--limit", "many"), 2, "valid integer"),
        (("data", "ls", "heps-2026-0147", "../.."), 2, "path"),
    ],
)
def test_mistakes_say_what_to_do(ada, arguments, code, words):
    done = ada.run(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_other_peoples_desktops_are_not_there(ada, chen):
    name = fresh_name()
    made = json.loads(ada.run("desktop", "create", name, "--json").stdout)
    resize, rebuild = ("resize", "--flavor", "small"), ("rebuild", "--yes")
    for verb in (("show",), ("stop",), ("extend",), resize, rebuild, ("delete", "--yes"), ("events",), ("connect", "--no-browser")):
        assert chen.run("desktop", verb[0], made["id"], *verb[1:]).returncode == 4
    assert name not in chen.run("desktop", "list").stdout


def test_a_name_may_be_shortened_while_it_is_clear(ada):
    stem = fresh_name()
    one = json.loads(ada.run("desktop", "create", f"{stem}-one", "--json").stdout)
    ada.run("desktop", "create", f"{stem}-two")
    assert json.loads(ada.run("desktop", "show", f"{stem}-O", "--json").stdout)["id"] == one["id"]
    assert json.loads(ada.run("desktop", "show", one["id"][:12], "--json").stdout)["id"] == one["id"]
    unclear = ada.run("desktop", "show", stem)
    assert unclear.returncode == 2
    assert f"{stem}-one" in unclear.stderr


def test_the_same_key_makes_one_desktop(ada):
    key, name = str(uuid.uuid4()), fresh_name()
    arguments = ("desktop", "create", name, "--idempotency-key", key, "--json")
    assert len({json.loads(ada.run(*arguments).stdout)["id"] for _ in range(3)}) == 1


def test_a_portal_that_is_not_there_is_unreachable(ada):
    ada.extra["BEAMDESK_URL"] = f"http://localhost:{free_port()}"
    done = ada.run("login", "ada", "--password-stdin", stdin="x\n")
    assert done.returncode == 6
    assert "does not answer" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_sign_in_that_ended_says_how_to_sign_in(ada):
    path = ada.config / "beamdesk" / "credentials.json"
    document = json.loads(path.read_text())
    document["portals"][ada.site.url]["token"] = "ended"
    path.write_text(json.dumps(document))
    done = ada.run("desktop", "list")
    assert (done.returncode, "beamdesk login" in done.stderr) == (3, True)
    assert ada.run("logout").returncode == 0


def test_data_are_listed_and_downloaded(ada, tmp_path):
    raw = ada.site.root / "data" / "heps-2026-0147" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    content = os.urandom(3_000_000)
    (raw / "scan 1&2.nxs").write_bytes(content)
    assert "scan 1&2.nxs" in ada.run("data", "ls", "heps-2026-0147", "raw").stdout
    target = tmp_path / "here.nxs"
    assert ada.run("data", "get", "heps-2026-0147", "raw/scan 1&2.nxs", "-o", str(target)).returncode == 0
    assert target.read_bytes() == content
    assert ada.run("data", "get", "heps-2026-0147", "raw/scan 1&2.nxs", "-o", str(target)).returncode == 5
    assert not list(tmp_path.glob("*.part*"))


def test_a_download_that_broke_off_goes_on_in_a_later_run(ada, tmp_path):
    raw = ada.site.root / "data" / "heps-2026-0147" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    content = os.urandom(2_000_000)
    (raw / "resume.nxs").write_bytes(content)
    os.utime(raw / "resume.nxs", (1_700_000_000, 1_700_000_000))
    target = tmp_path / "resume.nxs"
    assert ada.run("data", "get", "heps-2026-0147", "raw/resume.nxs", "-o", str(target)).returncode == 0
    tag = _etag(ada, "raw/resume.nxs")
    for begin, note in ((content[:1_500_000], tag), (b"older content", '"older"')):
        target.unlink()
        target.with_name("resume.nxs.part").write_bytes(begin)
        target.with_name("resume.nxs.part.etag").write_text(note)
        assert ada.run("data", "get", "heps-2026-0147", "raw/resume.nxs", "-o", str(target)).returncode == 0
        assert target.read_bytes() == content


def _etag(cli, path):
    import httpx2

    token = json.loads((cli.config / "beamdesk" / "credentials.json").read_text())["portals"][cli.site.url]["token"]
    address = f"{cli.site.url}/api/v1/experiments/heps-2026-0147/file?path={path}"
    return httpx2.head(address, headers={"Authorization": f"Bearer {token}"}).headers["etag"]


def _on_a_terminal(cli, *arguments, answers=(), extra=None, timeout=40):
    """Run the program on a pseudo-terminal, answer its questions, and return its exit code and all that was shown."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        (*PROGRAM, *arguments),
        env=cli.environment | {"TERM": "xterm"} | (extra or {}),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    shown, waiting, deadline = "", list(answers), time.monotonic() + timeout
    while time.monotonic() < deadline:
        if select.select([master], [], [], 0.1)[0]:
            try:
                shown += os.read(master, 4096).decode(errors="replace")
            except OSError:
                break
        if waiting and waiting[0][0] in shown:
            os.write(master, waiting.pop(0)[1].encode())
        elif process.poll() is not None and not select.select([master], [], [], 0)[0]:
            break
    os.close(master)
    return process.wait(5), shown


def test_a_password_is_asked_for_without_echo(cli):
    code, shown = _on_a_terminal(
        cli, "login", answers=[("Login name: ", "ada\n"), ("Password for ada: ", cli.site.password + "\n")]
    )
    assert code == 0, shown
    assert cli.site.password not in shown
    assert "Signed in" in shown


def test_deleting_asks_on_a_terminal(ada):
    name = fresh_name()
    ada.run("desktop", "create", name)
    code, shown = _on_a_terminal(ada, "desktop", "delete", name, answers=[("[y/N]", "n\n")])
    assert (code, "Nothing was deleted" in shown) == (1, True)
    code, shown = _on_a_terminal(ada, "desktop", "delete", name, answers=[("[y/N]", "y\n")])
    assert code == 0, shown


def test_progress_is_one_live_line_on_a_terminal_and_colours_can_be_refused(ada):
    name = fresh_name()
    code, shown = _on_a_terminal(ada, "desktop", "create", name, "--wait")
    assert code == 0, shown
    assert "\r\x1b[K[" in shown
    _, coloured = _on_a_terminal(ada, "desktop", "show", name)
    assert "\x1b[32mready" in coloured
    _, plain = _on_a_terminal(ada, "desktop", "show", name, extra={"NO_COLOR": "1"})
    assert "\x1b[" not in plain


def test_following_events_goes_on_over_a_restart_of_the_portal(ada):
    name = fresh_name()
    made = json.loads(ada.run("desktop", "create", name, "--json", "--wait").stdout)
    process = subprocess.Popen(
        (*PROGRAM, "desktop", "events", made["id"], "--follow", "--json"),
        env=ada.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        seen = [json.loads(process.stdout.readline())]
        ada.site.stop("serve")
        ada.site.start("serve")
        ada.site.wait_ready()
        assert ada.run("desktop", "rename", made["id"], "after the restart").returncode == 0
        while "desktop.renamed" not in [event["kind"] for event in seen]:
            seen.append(json.loads(process.stdout.readline()))
    finally:
        process.terminate()
        process.wait(5)
        process.stdout.close()
        process.stderr.close()
    ids = [event["id"] for event in seen]
    assert ids == sorted(set(ids))
    assert seen[0]["kind"] == "desktop.created"


def test_help_and_version_are_quick_and_need_nothing(cli):
    start = time.monotonic()
    assert "Commands:" in cli.run("desktop", "--help").stdout
    assert time.monotonic() - start < 5
    assert cli.run("--version").stdout.startswith("beamdesk ")


def test_client_commands_do_not_load_the_services(cli):
    code = "import sys; sys.argv=['beamdesk','desktop','--help']; from beamdesk.cli.main import main\ntry: main()\nexcept SystemExit: print([m for m in ('sqlalchemy','httpx2','uvicorn','fastapi','rich') if m in sys.modules])"
    done = subprocess.run((sys.executable, "-c", code), capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "[]"


def test_completion_offers_names(ada):
    name = fresh_name()
    ada.run("desktop", "create", name)
    extra = {"_BEAMDESK_COMPLETE": "complete_bash", "COMP_WORDS": f"beamdesk desktop show {name[:6]}", "COMP_CWORD": "3"}
    done = subprocess.run(
        (sys.executable, "-c", "import sys; sys.argv=['beamdesk']; from beamdesk.cli.main import main; main()"),
        env=ada.environment | extra,
        capture_output=True,
        text=True,
        check=False,
    )
    assert name in done.stdout.split()


def test_a_hostile_name_does_not_reach_the_terminal_raw():
    from beamdesk.cli.output import clean

    assert clean("a\x1b[31mb\u202ec\r\n") == "a\ufffd[31mb\ufffdc\ufffd\ufffd"


def test_no_secret_in_the_processes_logs(ada):
    token = json.loads((ada.config / "beamdesk" / "credentials.json").read_text())["portals"][ada.site.url]["token"]
    told = ada.site.log("serve") + ada.site.log("reconcile")
    assert ada.site.password not in told
    assert token not in told
    assert "canary-wrong" not in told
    assert "Traceback" not in told
