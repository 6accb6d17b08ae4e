"""Runs in Nova's Python: asks a running nova-scheduler for destinations over the bus, as a conductor does, and frees them again.

``python _nova_rpc.py NOVA_CONF COUNT`` writes one JSON object: seconds for each CPU and GPU request, and how many found no host.
"""

from nova import monkey_patch

monkey_patch.patch(backend="threading")

import json  # noqa: E402 -- Nova wants to be first
import sys  # noqa: E402
import time  # noqa: E402
import uuid  # noqa: E402

from nova.pci import request as pci_request  # noqa: E402
from nova.scheduler import rpcapi  # noqa: E402
from nova.scheduler.client import report  # noqa: E402

from nova import config, context, exception, objects, rpc  # noqa: E402

GPU = {"pci_passthrough:alias": "gpu:1", "beamdesk:gpus": "1"}


def main():
    config.parse_args(["bench", "--config-file", sys.argv[1]])
    objects.register_all()
    admin = context.get_admin_context()
    scheduler, placement = rpcapi.SchedulerAPI(), report.report_client_singleton()
    result = {"cpu": [], "gpu": [], "none": 0}
    for number in range(int(sys.argv[2])):
        kind = "gpu" if number % 2 else "cpu"
        server = str(uuid.uuid4())
        spec = make_spec(admin, server, GPU if kind == "gpu" else {})
        began = time.perf_counter()
        try:
            scheduler.select_destinations(admin, spec, [server], return_objects=True, return_alternates=True)
        except exception.NoValidHost:
            result["none"] += 1
        else:
            result[kind].append(time.perf_counter() - began)
        placement.delete_allocation_for_instance(admin, server, force=True)
    json.dump(result, sys.stdout)
    rpc.cleanup()


def make_spec(admin, server, extra_specs):
    flavor = objects.Flavor(
        id=1, flavorid="bench", name="bench", vcpus=4, memory_mb=8192, root_gb=10, ephemeral_gb=0, swap=0, rxtx_factor=1.0,
        vcpu_weight=0, disabled=False, is_public=True, extra_specs=extra_specs, description=None,
    )  # fmt: skip
    requests = pci_request.get_pci_requests_from_flavor(flavor)
    image = {"id": str(uuid.uuid4()), "properties": {}, "status": "active", "min_ram": 0, "min_disk": 0}
    return objects.RequestSpec.from_components(
        admin, server, image, flavor, None, requests, {}, None, None, project_id=str(uuid.uuid4()), user_id=str(uuid.uuid4())
    )


if __name__ == "__main__":
    main()
