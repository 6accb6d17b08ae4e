"""Names, tags, ids and user-data: what makes a resource ours, and what user-data hold."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamdesk.adapters.openstack.config import GuestApi
from beamdesk.adapters.openstack.names import Names, server_id, split_server_id
from beamdesk.adapters.openstack.userdata import MOST_BYTES, user_data
from beamdesk.domain.ids import DesktopId, ServerId
from beamdesk.guest.config import AgentConfig
from beamdesk.protocol.codec import decode

NAMES = Names("0c5f1a3e9d2b4c6f8a7b6c5d4e3f2a1b")
UUID = "7ac8a3d2-8c2d-4a4f-9f6e-2f7cf0d15f2c"
CA = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


def test_tags_are_what_nova_allows() -> None:
    for tag in (NAMES.tag, Names.desktop_tag(DesktopId("a" * 16))):
        assert len(tag) <= 60
        assert not set(tag) & set("/,")


def test_a_tag_and_a_name_tell_the_desktop() -> None:
    assert Names.desktop_of((NAMES.tag, "desktop-abc")) == "abc"
    assert Names.desktop_of(("other",)) is None
    assert Names.desktop_named("beamdesk-abc") == "abc"
    assert Names.desktop_named("web-1") is None


def test_the_mac_address_is_local_unicast_and_everybody_computes_the_same() -> None:
    mac = NAMES.mac(DesktopId("abc"))
    assert mac == Names(NAMES.deployment).mac(DesktopId("abc"))
    assert int(mac[:2], 16) & 0b11 == 0b10
    assert len({Names(deployment).mac(DesktopId(desktop)) for deployment in "ab" for desktop in "cd"}) == 4


def test_a_server_id_names_its_place() -> None:
    assert split_server_id(server_id("main", UUID)) == ("main", UUID)


@pytest.mark.parametrize(
    "given_id", ["", "main", "main:", "main:../../flavors", f"main:{UUID}/action", UUID, "main:" + UUID.upper()]
)
def test_what_is_no_server_id_is_not_sent_anywhere(given_id: str) -> None:
    assert split_server_id(ServerId(given_id)) is None


def written(text: str) -> dict[str, str]:
    plain = base64.b64decode(text).decode()
    assert plain.startswith("#cloud-config\n")
    return {file["path"]: file["content"] for file in json.loads(plain.partition("\n")[2])["write_files"]}


def test_user_data_hold_the_nonce_the_address_and_the_ca_and_nothing_else() -> None:
    text = user_data(GuestApi("https://beamdesk.example:8443", CA), DesktopId("abc"), "the-nonce")
    plain = json.loads(base64.b64decode(text).decode().partition("\n")[2])
    assert set(plain) == {"write_files"}
    files = written(text)
    assert set(files) == {"/run/beamdesk/agent/config.json", "/run/beamdesk/agent/nonce", "/etc/beamdesk/guest-ca.pem"}
    assert files["/run/beamdesk/agent/nonce"] == "the-nonce"
    assert files["/etc/beamdesk/guest-ca.pem"] == CA
    config = decode(AgentConfig, files["/run/beamdesk/agent/config.json"].encode())
    assert config == AgentConfig("https://beamdesk.example:8443", "abc", persistent=True)


def test_only_root_reads_the_nonce() -> None:
    plain = json.loads(
        base64.b64decode(user_data(GuestApi("https://b.example"), DesktopId("abc"), "n")).decode().partition("\n")[2]
    )
    modes = {file["path"]: (file["permissions"], file["owner"]) for file in plain["write_files"]}
    assert modes["/run/beamdesk/agent/nonce"] == ("0600", "root:root")


@given(nonce=st.text(), desktop=st.text(alphabet="abc: \n'\"#-"))
def test_nothing_breaks_out_of_its_place(nonce: str, desktop: str) -> None:
    files = written(user_data(GuestApi("https://b.example"), DesktopId(desktop), nonce))
    assert files["/run/beamdesk/agent/nonce"] == nonce


def test_the_largest_ca_that_settings_take_fits() -> None:
    assert len(user_data(GuestApi("https://b.example", "x" * 16 * 1024), DesktopId("abc"), "n" * 43)) < MOST_BYTES
