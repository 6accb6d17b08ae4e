"""What `beamdesk up` does first where desktops run on OpenStack: examine the cloud, and hand the services the entry they need.

The services run as an account of their own, which can read neither an operator's home nor should see an administrator's entry
beside Beamdesk's. So they get a file with the entries of the settings and nothing else, written anew at each start.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from beamdesk.cli.openstack import examine_settings, report
from beamdesk.domain.errors import ConfigurationError
from beamdesk.settings import Settings

CLOUDS_YAML = "BEAMDESK_OPENSTACK__CLOUDS_YAML"


def handed_over(settings: Settings) -> Path:
    """Return where the services' clouds.yaml is."""
    return settings.run_dir / "cloud" / "clouds.yaml"


def is_started_by_us(settings: Settings) -> bool:
    """Tell whether this process was started with the services' file, after the examination."""
    return settings.openstack.clouds_yaml == handed_over(settings)


def examine_cloud(settings: Settings, say: Callable[[str], None]) -> None:
    """Run the doctor; let pass what desktops can live with.

    Raises:
        ConfigurationError: something keeps desktops from starting, or clouds.yaml has no such entry.
    """
    settings.openstack.config()  # refuses what is not set before anybody is asked
    findings = examine_settings(settings.openstack)
    stopping = [one for one in findings if one.stops_desktops]
    if stopping:
        for line in report(stopping):
            say(line)
        raise ConfigurationError(
            f"The cloud {settings.openstack.cloud} is not ready for desktops: {stopping[0].title}: no. "
            f"Mend it, then look again with: beamdesk openstack doctor --cloud {settings.openstack.cloud}"
        )
    others = [one for one in findings if one.failed]
    more = f"; {len(others)} things are wrong that do not keep desktops from starting" if others else ""
    say(f"The cloud {settings.openstack.cloud} is ready for desktops{more}. All of it: beamdesk openstack doctor")


def hand_over(settings: Settings, gid: int) -> None:
    """Write the services' clouds.yaml, readable by root and their group, and name it in this process's environment.

    Raises:
        ConfigurationError: an entry of the settings is not there.
    """
    config = settings.openstack.config()
    known = _clouds(config.clouds_yaml)
    wanted = sorted({place.cloud for place in config.places})
    if lacking := [name for name in wanted if name not in known]:
        raise ConfigurationError(f"clouds.yaml has no cloud {lacking[0]} (it has: {', '.join(sorted(known)) or 'none'}).")
    path = handed_over(settings)
    path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(json.dumps({"clouds": {name: known[name] for name in wanted}}, indent=1) + "\n")
    if os.geteuid() == 0:
        os.chown(path.parent, 0, gid)
        path.parent.chmod(0o750)
        os.chown(fresh, 0, gid)
        fresh.chmod(0o640)
    fresh.rename(path)
    os.environ[CLOUDS_YAML] = str(path)


def _clouds(clouds_yaml: Path | None) -> dict[str, Any]:
    """Return all entries, clouds.yaml and secure.yaml merged as openstacksdk does it."""
    import openstack.config

    files = [str(clouds_yaml)] if clouds_yaml else None
    secure = [str(clouds_yaml.with_name("secure.yaml"))] if clouds_yaml else None
    loader = openstack.config.OpenStackConfig(config_files=files, secure_files=secure, load_envvars=clouds_yaml is None)
    return dict(loader.cloud_config.get("clouds") or {})
