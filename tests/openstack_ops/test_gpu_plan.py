"""What a GPU plan writes into nova.conf, read by Nova's own code: it means the cards of the host, and no other."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from beamdesk.adapters.openstack.gpu_plan import make_plan
from beamdesk.adapters.openstack.gpu_plan_facts import PciFunction, collect
from controlplane.environment import ensure_venv
from openstack_ops.machines import T4, Device, Machine, a40, a100_sxm, ready, two_models_on_amd

pytestmark = pytest.mark.openstack

PROGRAM = """
import json, sys
from types import SimpleNamespace
import nova.conf
from nova.pci import request, whitelist
nova.conf.CONF(["--config-file", sys.argv[1]], project="nova", default_config_files=[])
specs = whitelist.Whitelist(nova.conf.CONF.pci.device_spec)
devices = [SimpleNamespace(**one) for one in json.loads(sys.stdin.read())]
matches = {one.address: specs.get_devspec(one) for one in devices}
found = {address: spec.get_tags() if spec else None for address, spec in matches.items()}
aliases = {name: specs for name, (policy, specs) in request.get_alias_from_config().items()}
print(json.dumps({"found": found, "aliases": aliases, "reported": nova.conf.CONF.pci.report_in_placement}))
"""


def device(function: PciFunction) -> dict[str, str | None]:
    vendor, product = function.id.split(":")
    kind = "type-PF" if function.sriov_total else "type-PCI"
    return {
        "address": function.address,
        "vendor_id": vendor,
        "product_id": product,
        "dev_type": kind,
        "parent_addr": None,
        "card_serial_number": None,
    }


@pytest.mark.parametrize("machine", [ready, a40, a100_sxm, two_models_on_amd])
def test_nova_understands_devices_and_aliases(tmp_path: Path, machine: object) -> None:
    read(tmp_path, machine(), ())  # type: ignore[operator]


def test_by_address_nova_takes_the_chosen_card_only(tmp_path: Path) -> None:
    read(tmp_path, Machine([Device("0000:81:00.0", T4, 40), Device("0000:82:00.0", T4, 41)]), ("0000:82:00.0",))


def read(tmp_path: Path, machine: Machine, only: tuple[str, ...]) -> None:
    facts = collect(machine.write(tmp_path / "host"))
    plan = make_plan(facts, only)
    action = next(one for step in plan.steps for one in step.actions if one.path.startswith("/etc/nova/nova.conf, section [pci]"))
    (tmp_path / "nova.conf").write_text("\n".join(action.lines) + "\n")
    python = ensure_venv(lambda _: None) / "bin/python"
    devices = json.dumps([device(one) for one in facts.devices])
    done = subprocess.run(
        [python, "-W", "ignore", "-c", PROGRAM, tmp_path / "nova.conf"], input=devices, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    lent = {one.card.address: one for one in plan.lent}
    assert {address for address, tags in said["found"].items() if tags is not None} == set(lent)
    for address, one in lent.items():
        assert said["found"][address]["resource_class"] == "CUSTOM_GPU"
        assert one.model.trait in said["found"][address]["traits"].split(",")
        kind = "type-PF" if one.card.sriov_total else "type-PCI"
        specs = said["aliases"][one.model.alias]
        assert [(spec["resource_class"], spec["traits"], spec["dev_type"]) for spec in specs] == [
            ("CUSTOM_GPU", one.model.trait, kind)
        ]
    assert said["reported"] is True
