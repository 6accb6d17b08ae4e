"""Nova's own fake hypervisor, with PCI GPUs, with a memory that outlives nova-compute, and with faults on demand.

The kinds of host come from a JSON file (`BEAMDESK_FARM`): a list of ``{"vcpus", "memory_mb", "gpus": [[product id, count], ...]}``; host
number *i* has kind ``i % len``. Devices are reported as libvirt would, so Placement gets real nested providers and Nova real claims.

Faults, while the file is there (folder `BEAMDESK_FAULTS`): ``fail-builds``, every build ends in an error; ``slow-builds``, a build waits
until the file is gone.
"""

import json
import os
import pathlib
import re
import threading
import time
import uuid

from nova.compute import manager
from nova.virt import fake

from nova import exception

_BUILD_TIMEOUT_S = 600


def node_uuid(name):
    """Return the node's identity: the same after every restart."""
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{name}.farm.beamdesk.test"))


def host_number(name):
    """Return 7 for ``host-007``."""
    return int(re.search(r"(\d+)$", name).group(1))


class FarmDriver(fake.FakeDriver):
    """One simulated host."""

    local_gb = 20000

    def __init__(self, virtapi, read_only=False):
        """Start as the largest kind; `init_host` learns which one it is."""
        super().__init__(virtapi, read_only)
        self._farm = json.loads(pathlib.Path(os.environ["BEAMDESK_FARM"]).read_text())
        self._faults = pathlib.Path(os.environ["BEAMDESK_FAULTS"])
        self._lock = threading.Lock()

    def init_host(self, host):
        """Take the host's kind, and the servers that it had before nova-compute was restarted."""
        super().init_host(host)
        self._kind = self._farm[host_number(host) % len(self._farm)]
        # What Placement is told (`update_provider_tree`) comes from these two, what Nova's tracker is told from `resources`.
        self.vcpus, self.memory_mb = self._kind["vcpus"], self._kind["memory_mb"]
        self.resources = fake.Resources(self.vcpus, self.memory_mb, self.local_gb)
        self._memory = self._faults.parent / "farm" / f"{host}.json"
        if self._memory.exists():
            for known in json.loads(self._memory.read_text()):
                self.instances[known["uuid"]] = fake.FakeInstance(known["name"], known["state"], known["uuid"])

    def _remember(self):
        with self._lock:
            known = [{"name": i.name, "state": i.state, "uuid": i.uuid} for i in list(self.instances.values())]
            fresh = self._memory.with_suffix(".new")
            fresh.write_text(json.dumps(known))
            fresh.replace(self._memory)

    def spawn(self, context, instance, *args, **kwargs):
        """Build, or fail, or wait: see the module."""
        end = time.monotonic() + _BUILD_TIMEOUT_S
        while (self._faults / "slow-builds").exists() and time.monotonic() < end:
            time.sleep(0.1)
        if (self._faults / "fail-builds").exists():
            raise exception.InstanceDeployFailure("the simulated hypervisor was told to fail")
        super().spawn(context, instance, *args, **kwargs)
        self._remember()

    def destroy(self, *args, **kwargs):
        """Destroy and remember."""
        super().destroy(*args, **kwargs)
        self._remember()

    def power_off(self, *args, **kwargs):
        """Power off and remember."""
        super().power_off(*args, **kwargs)
        self._remember()

    def power_on(self, *args, **kwargs):
        """Power on and remember."""
        super().power_on(*args, **kwargs)
        self._remember()

    def get_available_resource(self, nodename):
        """Add the GPUs and a stable identity to what the fake hypervisor reports."""
        resources = super().get_available_resource(nodename)
        resources["pci_passthrough_devices"] = json.dumps(list(self._gpus()))
        resources["uuid"] = node_uuid(nodename)
        return resources

    def _gpus(self):
        bus = 0x10
        for product, count in self._kind["gpus"]:
            for _ in range(count):
                yield {
                    "address": f"0000:{bus:02x}:00.0",
                    "product_id": product,
                    "vendor_id": "10de",
                    "status": "available",
                    "dev_type": "type-PCI",
                    "dev_id": f"pci_0000_{bus:02x}_00_0",
                    "parent_addr": None,
                    "numa_node": bus % 2,
                    "label": f"label_10de_{product}",
                }
                bus += 1

    def get_nodenames_by_uuid(self, refresh=False):
        """Tell Nova the node by its stable identity."""
        return {node_uuid(name): name for name in self.get_available_nodes()}


def install():
    """Make Nova find the driver: it loads only names below nova.virt. Hosts share a machine, so they share no identity file."""
    fake.FarmDriver = FarmDriver
    manager.ComputeManager._ensure_existing_node_identity = lambda _self, _service: None
