"""The configuration files of the OpenStack services of one instance."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from . import machines
from .layout import A100, PASSWORD, REGION, T4, V100, Layout, Options

Sections = dict[str, dict[str, str | int | Path | Sequence[str]]]

_MODELS = ((A100, "A100", 80), (V100, "V100", 32), (T4, "T4", 16))  # product id, model, memory in GB
_SIZES = (8, 16, 24, 32, 48, 80)
MANY_HOSTS = 50  # from here on heartbeats are rare, so that they are not what is measured


def write_all(layout: Layout, venv: Path, options: Options) -> None:
    """Write every file; unchanged options give the same files."""
    _write(layout.etc / "keystone/keystone.conf", _keystone(layout))
    _write(layout.etc / "placement/placement.conf", _placement(layout))
    _write(layout.etc / "glance/glance-api.conf", _glance(layout, venv))
    _write(layout.etc / "neutron/neutron.conf", _neutron(layout, venv))
    _write(layout.etc / "cinder/cinder.conf", _cinder(layout, venv))
    _write_nova(layout, venv, options)
    for folder in (layout.images, layout.root / "glance-staging", layout.root / "glance-tasks", layout.root / "nova/instances"):
        folder.mkdir(parents=True, exist_ok=True)


def _write(path: Path, sections: Sections) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    for section, entries in sections.items():
        lines.append(f"[{section}]")
        for key, value in entries.items():
            many = [value] if isinstance(value, (str, int, Path)) else value
            lines += [f"{key} = {one}" for one in many]
    path.write_text("\n".join(lines) + "\n")


def _account(layout: Layout) -> dict[str, str | int | Path | Sequence[str]]:
    return {
        "auth_type": "password",
        "auth_url": f"{layout.url('keystone')}/v3",
        "username": "services",
        "password": PASSWORD,
        "project_name": "service",
        "user_domain_id": "default",
        "project_domain_id": "default",
        "region_name": REGION,
    }


def _tokens(layout: Layout) -> dict[str, str | int | Path | Sequence[str]]:
    return {
        **_account(layout),
        "www_authenticate_uri": f"{layout.url('keystone')}/v3",
        "service_token_roles": "service",
        "service_token_roles_required": "true",
        "interface": "internal",
    }


def _database(layout: Layout, name: str) -> dict[str, str | int | Path | Sequence[str]]:
    return {"connection": layout.database_url(name), "max_pool_size": 10, "max_overflow": 40}


def _rabbit() -> Sections:
    # Reconnect soon: fault tests restart the broker, and the default waits grow to 30 s.
    return {
        "oslo_messaging_rabbit": {
            "rabbit_quorum_queue": "false",
            "amqp_durable_queues": "false",
            "rabbit_retry_interval": 1,
            "rabbit_retry_backoff": 1,
            "rabbit_interval_max": 2,
            "kombu_reconnect_delay": "0.5",
        }
    }


def _keystone(layout: Layout) -> Sections:
    return {
        "database": _database(layout, "keystone"),
        "token": {"provider": "fernet", "expiration": 86400},
        "fernet_tokens": {"key_repository": layout.root / "keys/fernet"},
        "credential": {"key_repository": layout.root / "keys/credential"},
        "identity": {"password_hash_rounds": 4},
        "cache": {"enabled": "true", "backend": "oslo_cache.dict"},
    }


def _placement(layout: Layout) -> Sections:
    return {
        "placement_database": _database(layout, "placement"),
        "api": {"auth_strategy": "keystone"},
        "placement": {"randomize_allocation_candidates": "true"},
        "keystone_authtoken": _tokens(layout),
    }


def _glance(layout: Layout, venv: Path) -> Sections:
    return {
        "DEFAULT": {
            "enabled_backends": "disk:file",
            "node_staging_uri": f"file://{layout.root}/glance-staging",
            "use_keystone_limits": "false",
        },
        "database": _database(layout, "glance"),
        "keystone_authtoken": _tokens(layout),
        "paste_deploy": {"flavor": "keystone", "config_file": venv / "etc/glance/glance-api-paste.ini"},
        "glance_store": {"default_backend": "disk"},
        "disk": {"filesystem_store_datadir": layout.images},
        "os_glance_staging_store": {"filesystem_store_datadir": layout.root / "glance-staging"},
        "os_glance_tasks_store": {"filesystem_store_datadir": layout.root / "glance-tasks"},
    }


def _neutron(layout: Layout, venv: Path) -> Sections:
    return {
        "DEFAULT": {
            "transport_url": layout.broker_url,
            "core_plugin": "ml2",
            "service_plugins": "",
            "api_paste_config": venv / "etc/neutron/api-paste.ini",
            "state_path": layout.root / "neutron",
            "notify_nova_on_port_status_changes": "false",
            "notify_nova_on_port_data_changes": "false",
            "dhcp_agent_notification": "false",
            "rpc_workers": 0,
            "global_physnet_mtu": 1400,
        },
        "database": _database(layout, "neutron"),
        "keystone_authtoken": _tokens(layout),
        "nova": _account(layout),
        "placement": _account(layout),
        "oslo_concurrency": {"lock_path": layout.root / "lock"},
        "quotas": {"quota_port": -1, "quota_network": -1, "quota_security_group": -1, "quota_security_group_rule": -1},
        "ml2": {
            "type_drivers": "flat,local",
            "tenant_network_types": "local",
            "mechanism_drivers": "anyport",
            "extension_drivers": "port_security",
        },
        "ml2_type_flat": {"flat_networks": "*"},
        "securitygroup": {"enable_security_group": "true"},
        **_rabbit(),
    }


def _cinder(layout: Layout, venv: Path) -> Sections:
    return {
        "DEFAULT": {
            "transport_url": layout.broker_url,
            "auth_strategy": "keystone",
            "my_ip": "127.0.0.1",
            "host": "volumes",
            "state_path": layout.root / "cinder",
            "api_paste_config": venv / "etc/cinder/api-paste.ini",
            "resource_query_filters_file": venv / "etc/cinder/resource_filters.json",
            "rootwrap_config": venv / "etc/cinder/rootwrap.conf",
            "enabled_backends": "none",
            "glance_api_servers": layout.url("glance"),
            "report_interval": 5,
            "quota_volumes": -1,
            "quota_gigabytes": -1,
        },
        # Nothing is carried out: volumes exist in Cinder, with all their rules, and hold no data.
        "none": {"volume_driver": "farm.volumes.NoDataDriver", "volume_backend_name": "none"},
        "database": _database(layout, "cinder"),
        "keystone_authtoken": _tokens(layout),
        "service_user": {**_account(layout), "send_service_user_token": "true"},
        "nova": _account(layout),
        "coordination": {"backend_url": f"file://{layout.root}/cinder-coordination"},
        "oslo_concurrency": {"lock_path": layout.root / "lock"},
        **_rabbit(),
    }


def _pci() -> dict[str, str | int | Path | Sequence[str]]:
    # One resource class for every GPU, traits for the model and for "at least so much memory": any request is one Placement query.
    specs = []
    for product, model, memory in _MODELS:
        traits = [f"CUSTOM_GPU_MODEL_{model}", *(f"CUSTOM_GPU_MEM_GE_{size}G" for size in _SIZES if size <= memory)]
        specs.append({"vendor_id": "10de", "product_id": product, "resource_class": "CUSTOM_GPU", "traits": ",".join(traits)})
    aliases: list[dict[str, str]] = [{"name": "gpu", "resource_class": "CUSTOM_GPU"}]
    named = {model.lower(): f"CUSTOM_GPU_MODEL_{model}" for _, model, _ in _MODELS}
    named |= {f"gpu-ge{size}g": f"CUSTOM_GPU_MEM_GE_{size}G" for size in _SIZES}
    aliases += [{"name": name, "resource_class": "CUSTOM_GPU", "traits": trait} for name, trait in named.items()]
    return {"device_spec": [*map(json.dumps, specs)], "alias": [*map(json.dumps, aliases)], "report_in_placement": "true"}


def _nova(layout: Layout, options: Options) -> Sections:
    many = options.hosts >= MANY_HOSTS
    return {
        "DEFAULT": {
            "transport_url": layout.broker_url,
            "my_ip": "127.0.0.1",
            "state_path": layout.root / "nova",
            "log_options": "false",
            "compute_driver": "fake.FarmDriver",
            "vif_plugging_is_fatal": "false",
            "vif_plugging_timeout": 0,
            "force_config_drive": "true",
            "max_concurrent_builds": 0,
            "report_interval": 60 if many else 3,
            "service_down_time": 300 if many else 60,
            "rpc_response_timeout": 600 if many else 60,
            "update_resources_interval": 600 if many else 0,
            "initial_cpu_allocation_ratio": "4.0",
            "reserved_host_memory_mb": 0,
            "sync_power_state_interval": -1,
            "heal_instance_info_cache_interval": -1,
            "periodic_fuzzy_delay": 0,
        },
        "api": {"auth_strategy": "keystone"},
        "api_database": _database(layout, "nova_api"),
        "database": _database(layout, "nova_cell1"),
        "quota": {"instances": -1, "cores": -1, "ram": -1, "metadata_items": 128},
        "conductor": {"workers": 1},
        "scheduler": {"workers": 1, "discover_hosts_in_cells_interval": 2, "max_placement_results": 50},
        "filter_scheduler": {
            "available_filters": ["nova.scheduler.filters.all_filters"],
            "enabled_filters": "ComputeFilter,ComputeCapabilitiesFilter,ImagePropertiesFilter,PciPassthroughFilter",
            # Instance changes of 250 hosts flood the scheduler's queue; no filter here reads them.
            "track_instance_changes": "false",
            "pci_in_placement": "true",
        },
        "pci": _pci(),
        "keystone_authtoken": _tokens(layout),
        "service_user": {**_account(layout), "send_service_user_token": "true"},
        "placement": _account(layout),
        "neutron": {**_account(layout), "service_metadata_proxy": "false"},
        "glance": {**_account(layout), "api_servers": layout.url("glance")},
        "cinder": {**_account(layout), "catalog_info": "block-storage:cinder:publicURL", "os_region_name": REGION},
        "compute": {"resource_provider_association_refresh": 0},
        "oslo_concurrency": {"lock_path": layout.root / "lock"},
        # Addresses of consoles are given out; nobody listens there.
        "vnc": {"enabled": "true", "novncproxy_base_url": "http://127.0.0.1:6080/vnc_lite.html"},
        "cache": {"enabled": "false"},
        **_rabbit(),
    }


def _merge(sections: Sections, more: Mapping[str, Mapping[str, str | int | Path | Sequence[str]]]) -> Sections:
    return {name: {**sections.get(name, {}), **more.get(name, {})} for name in {**sections, **more}}


def _write_nova(layout: Layout, venv: Path, options: Options) -> None:
    nova = _merge(_nova(layout, options), options.nova)
    if options.machines:
        nova = _merge(nova, machines.metadata_settings())
    _write(layout.etc / "nova/nova.conf", nova)
    _write(layout.etc / "nova/nova-scheduler.conf", _merge(nova, {"DEFAULT": {"executor_thread_pool_size": "8"}}))
    # A compute that knows a database would use it instead of the conductor.
    compute = {k: v for k, v in nova.items() if k not in ("api_database", "database")}
    _write(layout.etc / "nova/nova-compute.conf", compute)
    if options.machines:
        _write(layout.etc / "nova/nova-machines.conf", _merge(compute, machines.settings(layout, venv, options)))
    shutil.copy(venv / "etc/nova/api-paste.ini", layout.etc / "nova/api-paste.ini")
