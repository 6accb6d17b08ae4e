"""The agent's configuration: one TOML file (default `/etc/beamdesk/srm.toml`), read once.

    api = "https://desktops.example.org"
    host = "gpu01"                       # default: this machine's name
    credential = "/etc/beamdesk/srm.credential"
    ca_file = "/etc/ssl/site-ca.pem"     # default: the system's authorities
    [clean]
    command = ["/usr/local/sbin/clean-gpu", "{address}"]
    timeout_s = 600

The cleaning command is the host's own: the API can ask for a cleaning, never for a command. Unknown keys are refused.
"""

from __future__ import annotations

import string
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from platform import node
from typing import Any
from urllib.parse import urlsplit

from beamdesk.srm.errors import ConfigError

DEFAULT = Path("/etc/beamdesk/srm.toml")
PLACEHOLDERS = frozenset({"address", "vendor", "device", "uuid", "driver", "model"})
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True, slots=True)
class CleanConfig:
    """The cleaning hook: an argument list with placeholders, run without a shell, and how long it may take."""

    command: tuple[str, ...] = ()
    timeout_s: float = 600.0


@dataclass(frozen=True, slots=True)
class Config:
    """All of it. ``sys`` and ``proc`` are roots of trees, for tests; ``disk`` is where servers' disks lie."""

    api: str
    host: str
    credential: Path = Path("/etc/beamdesk/srm.credential")
    ca_file: Path | None = None
    sys: Path = Path("/sys")
    proc: Path = Path("/proc")
    machine_id: Path = Path("/etc/machine-id")
    disk: Path = Path("/var/lib/nova/instances")
    catalogue: Path | None = None
    nvml: bool = True
    report_every_s: float | None = None
    clean: CleanConfig = field(default_factory=CleanConfig)


def load(path: Path) -> Config:
    """Read the configuration.

    Raises:
        ConfigError: names the file and what is wrong in it.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    try:
        return _config(data)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _config(data: dict[str, Any]) -> Config:
    values: dict[str, Any] = {"api": check_api(_text(data, "api")), "host": _text(data, "host") if "host" in data else node()}
    for name in ("credential", "ca_file", "sys", "proc", "machine_id", "disk", "catalogue"):
        if name in data:
            values[name] = Path(_text(data, name))
    if "nvml" in data:
        values["nvml"] = _flag(data, "nvml")
    if "report_every_s" in data:
        values["report_every_s"] = _seconds(data, "report_every_s")
    if "clean" in data:
        values["clean"] = _clean(data["clean"])
    if unknown := data.keys() - values.keys():
        raise ConfigError(f"unknown key {min(unknown)!r}")
    return Config(**values)


def check_api(url: str) -> str:
    """Return the API's address without a final slash; plain HTTP is for this machine only.

    Raises:
        ConfigError: no such address.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"https", "http"} or not parts.hostname or parts.path.strip("/") or parts.query or parts.username:
        raise ConfigError(f"api must look like https://desktops.example.org, not {url!r}")
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        raise ConfigError("api must begin with https:// unless it is on this machine: reports carry a credential")
    return url.rstrip("/")


def _clean(data: Any) -> CleanConfig:
    if not isinstance(data, dict) or data.keys() - {"command", "timeout_s"}:
        raise ConfigError("[clean] has the keys command and timeout_s")
    command = data.get("command", [])
    if not isinstance(command, list) or not command or not all(isinstance(part, str) and part for part in command):
        raise ConfigError("clean.command must be a list of texts: the program and its arguments")
    if not Path(command[0]).is_absolute():
        raise ConfigError("clean.command must begin with the program's absolute path")
    for part in command:
        check_placeholders(part)
    return CleanConfig(tuple(command), _seconds(data, "timeout_s") if "timeout_s" in data else 600.0)


def check_placeholders(part: str) -> None:
    """Refuse an argument with a placeholder that is none of `PLACEHOLDERS`.

    Raises:
        ConfigError.
    """
    try:
        fields = [(name, spec, conversion) for _, name, spec, conversion in string.Formatter().parse(part) if name is not None]
    except ValueError as error:
        raise ConfigError(f"clean.command: {error} in {part!r}") from error
    for name, spec, conversion in fields:
        if name not in PLACEHOLDERS or spec or conversion:
            raise ConfigError(f"clean.command: {{{name}}} is none of {', '.join(sorted(PLACEHOLDERS))}")


def _text(data: dict[str, Any], key: str) -> str:
    value = data.get(key)
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{key} must be a text")
    return value


def _flag(data: dict[str, Any], key: str) -> bool:
    value = data[key]
    if not isinstance(value, bool):
        raise ConfigError(f"{key} must be true or false")
    return value


def _seconds(data: dict[str, Any], key: str) -> float:
    value = data[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.05 <= value <= 86400:
        raise ConfigError(f"{key} must be a number of seconds from 0.05 to 86400")
    return float(value)
