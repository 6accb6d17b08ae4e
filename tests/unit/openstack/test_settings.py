"""The section [openstack]: what is refused before anything starts, and what the driver gets."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from beamdesk.adapters.openstack.config import Boot
from beamdesk.adapters.openstack.firewall import Rule, base_rules, beamline_rules
from beamdesk.domain.errors import ConfigurationError
from beamdesk.openstack_settings import OpenStackSettings

ENOUGH = {"guest_url": "https://beamdesk.example:8443", "gateway_addresses": ["10.9.0.1"]}


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"guest_url": "http://beamdesk.example"}, "guest_url"),
        ({"guest_url": "https://beamdesk.example/'; x"}, "guest_url"),
        ({"gateway_addresses": ["gateway"]}, "gateway_addresses"),
        ({"gateway_addresses": ["10.0.0.1/8"]}, "gateway_addresses"),
        ({"stream_port": 0}, "stream_port"),
        ({"boot": "tape"}, "boot"),
        ({"password": "x"}, "password"),
        ({"places": [{"name": "a"}, {"name": "a"}]}, "same name"),
        ({"places": [{"name": "A:b"}]}, "name"),
        ({"beamline_networks": {"B7": ["10.70.0.0/16"]}}, "egress must say"),
        ({"beamline_networks": {"B7": ["10.70.0.0/16"]}, "egress": ["10.0.0.0/8"]}, "opens 10.70.0.0/16 of beamline B7"),
        ({"beamline_networks": {"B7": ["10.70.0.0/16"]}, "egress": ["0.0.0.0/0"]}, "to every desktop"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(values: dict[str, object], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        OpenStackSettings(**values)


@pytest.mark.parametrize("missing", ["guest_url", "gateway_addresses"])
def test_what_desktops_cannot_do_without_is_asked_for(missing: str) -> None:
    values = {key: value for key, value in ENOUGH.items() if key != missing}
    with pytest.raises(ConfigurationError, match=missing):
        OpenStackSettings(**values).config()


def test_one_place_takes_every_experiment_unless_places_say_otherwise() -> None:
    (place,) = OpenStackSettings(**ENOUGH, cloud="site", region="North").config().places
    assert (place.name, place.cloud, place.region, place.network) == ("main", "site", "North", "desktops")
    assert place.takes("heps-2026-0147")


def test_experiments_go_to_the_first_place_that_takes_them() -> None:
    places = [{"name": "b7", "cloud": "b7-project", "experiments": ["b7-*"]}, {"name": "rest", "region": "South"}]
    first, rest = OpenStackSettings(**ENOUGH, places=places).config().places
    assert (first.cloud, rest.cloud, rest.region) == ("b7-project", "beamdesk", "South")
    assert [place.takes("b7-2026-1") for place in (first, rest)] == [True, True]
    assert not first.takes("b8-2026-1")


def test_the_ca_is_read_and_a_key_is_never_taken_for_one(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_text("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n")
    assert OpenStackSettings(**ENOUGH, guest_ca=ca).config().guest.ca.startswith("-----BEGIN")
    ca.write_text(ca.read_text() + "-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n")
    with pytest.raises(ConfigurationError, match="nothing else"):
        OpenStackSettings(**ENOUGH, guest_ca=ca).config()
    with pytest.raises(ConfigurationError, match="Cannot read"):
        OpenStackSettings(**ENOUGH, guest_ca=tmp_path / "absent.pem").config()


def test_only_the_gateway_reaches_the_stream() -> None:
    firewall = OpenStackSettings(**ENOUGH).config().firewall
    rules = base_rules(firewall, 8082)
    assert [rule for rule in rules if rule.direction == "ingress"] == [Rule("ingress", 4, "tcp", 8082, 8082, "10.9.0.1/32")]


def test_beamline_networks_are_closed_but_to_their_own_experiments() -> None:
    settings = OpenStackSettings(**ENOUGH, egress=["10.10.0.0/16", "fd00::/8"], beamline_networks={"B7": ["10.70.0.0/16"]})
    firewall = settings.config().firewall
    everywhere = {rule.remote for rule in base_rules(firewall, 8082) if rule.direction == "egress"}
    assert everywhere == {"10.10.0.0/16", "fd00::/8", "169.254.169.254/32"}
    assert beamline_rules(firewall.beamlines["B7"]) == {Rule("egress", 4, remote="10.70.0.0/16")}


def test_a_rule_of_neutron_is_read_as_it_was_written() -> None:
    rule = Rule("ingress", 4, "tcp", 8082, 8082, "10.9.0.1/32")
    assert Rule.read(rule.body("g")) == rule
    anywhere = Rule("egress", 6)
    assert Rule.read(anywhere.body("g")) == anywhere
    assert Rule.read({**rule.body("g"), "remote_ip_prefix": None, "remote_group_id": "x"}) != rule


def test_root_disks_are_the_hosts_own_unless_the_settings_say_otherwise() -> None:
    assert OpenStackSettings(**ENOUGH).config().boot is Boot.IMAGE
    assert OpenStackSettings(**ENOUGH, boot="clone").config().boot is Boot.CLONE
