"""The clouds.yaml of an instance: one entry for each account."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import openstack

from .layout import PASSWORD, REGION, Layout

ADMIN, BEAMDESK, OTHER_PROJECT, STRANGER, APPLICATION = "admin", "beamdesk", "beamdesk-other", "stranger", "beamdesk-app"
PROJECTS = ("beamdesk", "beamdesk-other")
APP_CREDENTIAL = ("beamdesk", PASSWORD)


def describe(layout: Layout, overrides: Mapping[str, str] | None = None) -> str:
    """Return the text: YAML in its JSON form. ``overrides`` are more keys of every cloud, such as ``compute_endpoint_override``."""
    accounts = {
        ADMIN: ("admin", "admin"),
        BEAMDESK: ("beamdesk", PROJECTS[0]),
        OTHER_PROJECT: ("beamdesk", PROJECTS[1]),
        STRANGER: ("stranger", PROJECTS[0]),
    }
    auth_url = (overrides or {}).get("auth_url", f"{layout.url('keystone')}/v3")
    common = {"region_name": REGION, "interface": "public", **{k: v for k, v in (overrides or {}).items() if k != "auth_url"}}
    clouds: dict[str, dict[str, object]] = {
        name: {
            **common,
            "auth": {
                "auth_url": auth_url,
                "username": user,
                "password": PASSWORD,
                "project_name": project,
                "user_domain_id": "default",
                "project_domain_id": "default",
            },
        }
        for name, (user, project) in accounts.items()
    }
    name, secret = APP_CREDENTIAL
    clouds[APPLICATION] = {
        **common,
        "auth_type": "v3applicationcredential",
        "auth": {
            "auth_url": auth_url,
            "application_credential_name": name,
            "application_credential_secret": secret,
            "username": "beamdesk",
            "user_domain_id": "default",
        },
    }
    return json.dumps({"clouds": clouds}, indent=2) + "\n"


def write(layout: Layout) -> None:
    """Write the file, readable by its owner only."""
    layout.clouds.touch(mode=0o600)
    layout.clouds.write_text(describe(layout))


def connect(file: Path, cloud: str) -> Any:
    """Return a new openstacksdk connection by a clouds.yaml; close it."""
    config = openstack.config.OpenStackConfig(config_files=[str(file)], load_envvars=False)
    return openstack.connection.Connection(config=config.get_one(cloud))
