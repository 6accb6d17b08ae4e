"""Runs in the Python of a nova-scheduler: Nova's own filter and weight handlers, HostStates and PCI pools, without any service.

Reads a job from standard input: ``{"options": {...}, "hosts": [...], "requests": [...], "ours": true}``; writes what was decided for each
request and how long it took. With ``"ours": false`` Nova's own weighers decide.
"""

from nova import monkey_patch

monkey_patch.patch(backend="threading")

import itertools  # noqa: E402 -- Nova wants to be first
import json  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402

import nova.conf  # noqa: E402
from nova.pci import stats  # noqa: E402
from nova.scheduler import filters, host_manager, weights  # noqa: E402

from nova import objects  # noqa: E402

CONF = nova.conf.CONF
STOCK = ["ComputeCapabilitiesFilter", "ImagePropertiesFilter", "PciPassthroughFilter"]


def main():
    job = json.load(sys.stdin)
    CONF([], project="nova", default_config_files=[])
    objects.register_all()
    filter_objects, weighers, handlers = set_up(job)
    hosts = [make_host(**one) for one in job["hosts"]]
    answers = [
        decide(handlers, filter_objects, weighers, hosts, make_spec(number, **one)) for number, one in enumerate(job["requests"])
    ]
    json.dump(answers, sys.stdout)


def set_up(job):
    """Load filters and weighers by their names in nova.conf, as the scheduler does."""
    chosen = {"available_filters": ["nova.scheduler.filters.all_filters"], "enabled_filters": STOCK}
    if job["ours"]:
        from beamdesk.plugins.nova.runtime import options

        chosen["available_filters"].append("beamdesk.plugins.nova.filter.BeamdeskFilter")
        chosen["enabled_filters"] = [*STOCK, "BeamdeskFilter"]
        chosen["weight_classes"] = ["beamdesk.plugins.nova.weigher.BeamdeskWeigher"]
        options(CONF)
        for name, value in job["options"].items():
            CONF.set_override(name, value, group="beamdesk")
    for name, value in chosen.items():
        CONF.set_override(name, value, group="filter_scheduler")
    for_filters, for_weights = filters.HostFilterHandler(), weights.HostWeightHandler()
    known = {one.__name__: one for one in for_filters.get_matching_classes(CONF.filter_scheduler.available_filters)}
    filter_objects = [known[name]() for name in CONF.filter_scheduler.enabled_filters]
    return (
        filter_objects,
        [one() for one in for_weights.get_matching_classes(CONF.filter_scheduler.weight_classes)],
        (for_filters, for_weights),
    )


def make_host(name, vcpus, memory_mib, cards):
    host = host_manager.HostState(name, name, "cell")
    host.uuid = f"compute-{name}"
    host.vcpus_total, host.total_usable_ram_mb, host.free_ram_mb = vcpus, memory_mib, memory_mib
    host.total_usable_disk_gb, host.free_disk_mb = 100000, 100000 * 1024
    host.stats, host.service = {}, {}
    host.cpu_allocation_ratio = host.ram_allocation_ratio = host.disk_allocation_ratio = 1.0
    host.pci_stats = stats.PciDeviceStats(objects.NUMATopology(cells=[]))
    host.pci_stats.pools = [
        {"address": address, "vendor_id": "10de", "product_id": product, "numa_node": 0, "dev_type": "type-PCI", "count": 1,
         "rp_uuid": f"{name}-{address}"}
        for address, product in cards
    ]  # fmt: skip
    return host


def make_spec(number, vcpus, memory_mib, extra_specs, devices=0, product=None, hints=None):
    server = f"5b1b1f5e-0000-4000-8000-{number:012d}"
    wanted = [{"vendor_id": "10de", **({"product_id": product} if product else {})}]
    requests = [objects.InstancePCIRequest(request_id=server, count=devices, spec=wanted, alias_name="gpu")] if devices else []
    groups = [objects.RequestGroup(requester_id=f"{server}-{index}", provider_uuids=[]) for index in range(devices)]
    return objects.RequestSpec(
        instance_uuid=server,
        flavor=objects.Flavor(vcpus=vcpus, memory_mb=memory_mib, root_gb=10, ephemeral_gb=0, swap=0, extra_specs=extra_specs),
        image=objects.ImageMeta(id="imaging", properties=objects.ImageMetaProps()),
        pci_requests=objects.InstancePCIRequests(instance_uuid=server, requests=requests),
        requested_resources=groups,
        scheduler_hints={name: [value] for name, value in (hints or {}).items()},
        numa_topology=None,
        num_instances=1,
        instance_group=None,
        is_bfv=False,
    )


def offer(host, spec):
    """Do as Placement does: say whether the host has room, and with which sets of devices."""
    if host.vcpus_total - host.vcpus_used < spec.vcpus or host.free_ram_mb < spec.memory_mb:
        return False
    groups = [one.requester_id for one in spec.requested_resources]
    wanted = spec.pci_requests.requests[0].spec[0] if groups else {}
    free = [pool["rp_uuid"] for pool in host.pci_stats.pools if all(pool[key] == value for key, value in wanted.items())]
    host.allocation_candidates = [
        {
            "allocations": {host.uuid: {}, **{one: {} for one in chosen}},
            "mappings": dict(zip(groups, ([one] for one in chosen), strict=True)),
        }
        for chosen in itertools.islice(itertools.permutations(free, len(groups)), 100)
    ]
    return bool(host.allocation_candidates)


def decide(handlers, filter_objects, weighers, hosts, spec):
    offered = [host for host in hosts if offer(host, spec)]
    began = time.perf_counter()
    passed = handlers[0].get_filtered_objects(filter_objects, offered, spec)
    best = handlers[1].get_weighed_objects(weighers, passed, spec)[0].obj if passed else None
    took = time.perf_counter() - began
    if best is None:
        return {"host": None, "cards": [], "took": took}
    candidate = best.allocation_candidates[0]
    for group in spec.requested_resources:
        group.provider_uuids = candidate["mappings"][group.requester_id]
    best.consume_from_request(spec)
    cards = sorted(one.removeprefix(f"{best.host}-") for one in candidate["allocations"] if one != best.uuid)
    return {"host": best.host, "cards": cards, "took": took}


if __name__ == "__main__":
    main()
