"""The demo accounts: one random password, on loopback only."""

import json
import re
import stat
import threading

import pytest

from beamdesk.adapters.demo.people import PEOPLE
from beamdesk.adapters.demo.sign_in import demo_password, is_loopback, open_demo_sign_in
from beamdesk.domain.errors import ConfigurationError

pytestmark = pytest.mark.anyio


async def test_the_password_of_this_installation_signs_everybody_in(tmp_path):
    sign_in = open_demo_sign_in(tmp_path, PEOPLE, host="127.0.0.1")
    password = demo_password(tmp_path)
    assert re.fullmatch(r"([a-z2-9]{5}-){3}[a-z2-9]{5}", password)
    for person in PEOPLE:
        assert await sign_in.verify(person.login, password) == person.id
    for login, wrong in (
        ("ada", password + "x"),
        ("ada", ""),
        ("nobody", password),
        ("", ""),
        ("ada", "\ud800"),
        ("ADA", password),
    ):
        assert await sign_in.verify(login, wrong) is None


async def test_the_password_stays_over_a_restart_and_differs_between_installations(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        open_demo_sign_in(tmp_path / name, PEOPLE, host="localhost")
    password = demo_password(tmp_path / "one")
    assert password != demo_password(tmp_path / "two")
    assert await open_demo_sign_in(tmp_path / "one", PEOPLE, host="::1").verify("ada", password) == "ada"


async def test_the_accounts_hold_no_password_and_are_private(tmp_path):
    open_demo_sign_in(tmp_path, PEOPLE, host="127.0.0.1")
    for name in ("demo-accounts.json", "demo-password"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    content = (tmp_path / "demo-accounts.json").read_text()
    assert demo_password(tmp_path) not in content
    salts = [account["salt"] for account in json.loads(content)["accounts"].values()]
    assert len(set(salts)) == len(PEOPLE)


async def test_the_noted_password_may_be_removed(tmp_path):
    open_demo_sign_in(tmp_path, PEOPLE, host="127.0.0.1")
    password = demo_password(tmp_path)
    (tmp_path / "demo-password").unlink()
    assert await open_demo_sign_in(tmp_path, PEOPLE, host="127.0.0.1").verify("ada", password) == "ada"
    assert password not in demo_password(tmp_path)


async def test_processes_that_start_together_agree(tmp_path):
    opened = []
    threads = [
        threading.Thread(target=lambda: opened.append(open_demo_sign_in(tmp_path, PEOPLE, host="127.0.0.1"))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    password = demo_password(tmp_path)
    assert [await sign_in.verify("bob", password) for sign_in in opened] == ["bob"] * 4
    assert {path.name for path in tmp_path.iterdir()} == {"demo-accounts.json", "demo-password"}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", "", "127.0.0.1.example.org"])
def test_demo_accounts_refuse_a_portal_that_others_can_reach(tmp_path, host):
    assert not is_loopback(host)
    with pytest.raises(ConfigurationError, match="this machine only"):
        open_demo_sign_in(tmp_path, PEOPLE, host=host)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        "[]",
        '{"format": 9, "accounts": 1}',
        '{"format": 1, "accounts": {"ada": {"person": "ada", "salt": "zz", "hash": ""}}}',
    ],
)
def test_damaged_accounts_say_what_to_do(tmp_path, content):
    (tmp_path / "demo-accounts.json").write_text(content)
    (tmp_path / "demo-accounts.json").chmod(0o600)
    with pytest.raises(ConfigurationError, match="Remove the file"):
        open_demo_sign_in(tmp_path, PEOPLE, host="127.0.0.1")


def test_accounts_that_others_may_read_or_that_are_links_are_refused(tmp_path):
    open_demo_sign_in(tmp_path, PEOPLE, host="127.0.0.1")
    accounts = tmp_path / "demo-accounts.json"
    accounts.chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        open_demo_sign_in(tmp_path, PEOPLE, host="127.0.0.1")
    accounts.rename(tmp_path / "elsewhere")
    accounts.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError, match="Cannot read"):
        open_demo_sign_in(tmp_path, PEOPLE, host="127.0.0.1")
