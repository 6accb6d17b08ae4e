import json
import os

import pytest

from beamdesk.guest.config import AgentConfig, AgentFiles
from beamdesk.guest.errors import ConfigError
from beamdesk.protocol.guest import Account, Identity, Stream

IDENTITY = Identity("d1", "token", "t", Account("ada", 20001, 20001, "Ada", (), "/home/ada"), (), Stream("unix:/s", "secret"))


@pytest.fixture
def files(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"enrol_url": "http+unix:///x", "desktop_id": "d1"}))
    (tmp_path / "nonce").write_text("abc\n")
    (tmp_path / "nonce").chmod(0o600)
    return AgentFiles(tmp_path, tmp_path / "state", tmp_path / "ca.pem")


def test_configuration_and_nonce_are_read(files):
    assert files.config().enrol_url == "http+unix:///x"
    assert not files.config().persistent
    assert files.nonce() == "abc"


def test_a_spent_nonce_is_gone_and_spending_twice_is_fine(files, tmp_path):
    files.spend_nonce()
    files.spend_nonce()
    assert not (tmp_path / "nonce").exists()


def test_a_nonce_others_can_read_is_refused(files, tmp_path):
    (tmp_path / "nonce").chmod(0o644)
    with pytest.raises(ConfigError, match="only root"):
        files.nonce()


def test_a_linked_or_special_file_is_refused(files, tmp_path):
    (tmp_path / "nonce").unlink()
    (tmp_path / "nonce").symlink_to(tmp_path / "config.json")
    with pytest.raises(ConfigError):
        files.nonce()
    (tmp_path / "nonce").unlink()
    os.mkfifo(tmp_path / "nonce", 0o600)
    with pytest.raises(ConfigError):
        files.nonce()


def test_malformed_configuration_names_the_field(files, tmp_path):
    (tmp_path / "config.json").write_text('{"enrol_url": 3, "desktop_id": "d1"}')
    with pytest.raises(ConfigError, match="enrol_url"):
        files.config()


def test_a_kept_identity_is_private_and_comes_back(files, tmp_path):
    assert files.identity() is None
    files.keep(files.config(), IDENTITY, "nonce")
    for name in ("identity", "config"):
        assert (tmp_path / "state" / f"{name}.json").stat().st_mode & 0o777 == 0o600
    assert files.identity() == IDENTITY


def test_the_next_boot_finds_the_configuration_that_the_first_one_brought(files, tmp_path):
    files.keep(AgentConfig("https://beamdesk.example", "d1", persistent=True, ca="PEM"), IDENTITY, "nonce")
    (tmp_path / "config.json").unlink()
    (tmp_path / "nonce").unlink()
    assert files.config() == AgentConfig("https://beamdesk.example", "d1", persistent=True, ca="PEM")
    assert not files.has_nonce()


def test_the_configuration_of_this_boot_wins_over_a_kept_one(files):
    files.keep(AgentConfig("https://old.example", "d0", persistent=True), IDENTITY, "nonce")
    assert files.config().enrol_url == "http+unix:///x"
    assert files.has_nonce()


def test_it_is_known_which_nonce_the_kept_identity_was_had_for(files, tmp_path):
    assert not files.was_spent("first")
    files.keep(files.config(), IDENTITY, "first")
    assert files.was_spent("first")
    assert not files.was_spent("second")
    assert "first" not in (tmp_path / "state" / "spent").read_text()


def test_the_authority_to_trust_comes_with_the_configuration_or_in_a_file(files, tmp_path):
    (tmp_path / "ca.pem").write_text("FILE")
    assert files.config().ca == "FILE"
    (tmp_path / "config.json").write_text('{"enrol_url": "https://x", "desktop_id": "d1", "ca": "OWN"}')
    assert files.config().ca == "OWN"
