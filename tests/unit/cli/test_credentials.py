"""Where sign-ins are kept, and which portal is meant."""

import stat

import pytest

from beamdesk.cli.credentials import Credentials, SignIn, credentials_path, load_credentials, portal_url, save_credentials
from beamdesk.cli.failure import Failure


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("BEAMDESK_URL", raising=False)


def test_what_is_saved_is_loaded_and_private():
    kept = Credentials("https://a.example", {"https://a.example": SignIn("canary", "ada", "2026-03-01T00:00:00Z")})
    save_credentials(kept)
    assert load_credentials() == kept
    assert stat.S_IMODE(credentials_path().stat().st_mode) == 0o600
    assert "canary" not in repr(kept)


def test_no_file_is_nobody():
    assert load_credentials() == Credentials()


@pytest.mark.parametrize("content", ["", "[]", '{"portals": 5, "current": ""}', '{"portals": {"a": {"token": 1}}, "current": ""}'])
def test_a_damaged_file_says_what_to_do(content):
    save_credentials(Credentials())
    credentials_path().write_text(content)
    with pytest.raises(Failure, match="Remove it"):
        load_credentials()


def test_a_file_that_others_may_read_is_refused():
    save_credentials(Credentials())
    credentials_path().chmod(0o640)
    with pytest.raises(Failure, match="chmod 600"):
        load_credentials()


@pytest.mark.parametrize(
    ("wanted", "meant"),
    [
        ("https://Desktops.Example.org/", "https://desktops.example.org"),
        ("http://localhost:8080", "http://localhost:8080"),
        ("http://127.0.0.1:9", "http://127.0.0.1:9"),
        ("http://[::1]:9", "http://[::1]:9"),
    ],
)
def test_addresses_are_origins(wanted, meant):
    assert portal_url(wanted, Credentials()) == meant


@pytest.mark.parametrize(
    "wanted",
    [
        "http://desk.example.org",
        "http://127.0.0.1.example.org",
        "https://u:p@x",
        "https://x/y",
        "https://x?y",
        "x",
        "https://x:y",
        "https://[",
    ],
)
def test_other_addresses_are_refused(wanted):
    with pytest.raises(Failure):
        portal_url(wanted, Credentials())


def test_the_portal_is_the_one_named_then_that_of_the_environment_then_the_last(monkeypatch):
    kept = Credentials("https://last.example")
    assert portal_url(None, Credentials()) == "http://localhost:8080"
    assert portal_url(None, kept) == "https://last.example"
    monkeypatch.setenv("BEAMDESK_URL", "https://env.example")
    assert portal_url(None, kept) == "https://env.example"
    assert portal_url("https://named.example", kept) == "https://named.example"
