"""What a one-machine deployment needs around its processes: preconditions, directories, the helper's configuration, readiness."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import pwd
import secrets
import socket
import ssl
from pathlib import Path

from beamdesk.domain.errors import CloudError, ConfigurationError
from beamdesk.settings import Settings


def check(settings: Settings) -> None:
    """Verify what can be verified before anything is started.

    Raises:
        ConfigurationError: names what is wrong and what to do.
    """
    if settings.cloud == "local" and os.geteuid() != 0:
        raise ConfigurationError("The local driver's privileged helper needs root: run this command with sudo.")
    _account(settings)
    for name, host, port in (
        ("portal", settings.host, settings.port),
        ("gateway", settings.gateway_host, settings.gateway_port),
    ):
        _check_port(name, host, port)
    if settings.demo and settings.host not in ("127.0.0.1", "::1", "localhost"):
        raise ConfigurationError(
            f"The demo accounts are for this machine only, but the portal would listen on {settings.host}. "
            "Set host = '127.0.0.1', or demo = false and a real sign-in."
        )


def _account(settings: Settings) -> tuple[int, int]:
    if os.geteuid() != 0:
        return os.geteuid(), os.getegid()
    try:
        entry = pwd.getpwnam(settings.account)
    except KeyError as error:
        raise ConfigurationError(f"There is no account {settings.account}. Run 'make up', which adds it.") from error
    if entry.pw_uid == 0:
        raise ConfigurationError("The services must not run as root: choose another account.")
    return entry.pw_uid, entry.pw_gid


def group(settings: Settings) -> int:
    """Return the services' group id."""
    return _account(settings)[1]


def _check_port(name: str, host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            setting = "port" if name == "portal" else "gateway_port"
            raise ConfigurationError(
                f"Port {port} for the {name} is taken ({error.strerror}). "
                f"Stop what uses it, or choose another: BEAMDESK_{setting.upper()}=NUMBER make up"
            ) from error


def prepare(settings: Settings) -> None:
    """Make directories, the deployment's UUID and the helper's configuration. Idempotent."""
    uid, gid = _account(settings)
    root, own = (0, 0), (uid, gid)
    # The account must not own a parent of what root reads: it could put something else in its place.
    _directory(settings.state_dir, root, 0o755)
    _directory(settings.app_dir, own, 0o750)
    _directory(settings.run_dir, root, 0o755)
    _directory(settings.run_dir / "guest-api", own, 0o755)
    _directory(settings.log_dir, (0, gid), 0o750)
    if settings.cloud == "local":
        _directory(settings.run_dir / "helper", (0, gid), 0o750)
        _directory(settings.run_dir / "desktops", (0, gid), 0o750)
        _directory(settings.data_dir, root, 0o755)
        _directory(settings.state_dir / "homes", root, 0o700)
        _directory(settings.state_dir / "helper", root, 0o700)
        _write_root(helper_config_path(settings), _helper_config(settings, uid, gid))
    identifier = settings.deployment_id_path
    if not identifier.exists():
        identifier.write_text(secrets.token_hex(16) + "\n")
        if os.geteuid() == 0:
            os.chown(identifier, uid, gid, follow_symlinks=False)


def _directory(path: Path, owner: tuple[int, int], mode: int) -> None:
    path.mkdir(parents=True, exist_ok=True)
    if os.geteuid() == 0:
        os.chown(path, *owner)
        path.chmod(mode)


def helper_config_path(settings: Settings) -> Path:
    """Return where the helper's root-owned configuration is."""
    return settings.state_dir / "helper" / "helper.toml"


def _helper_config(settings: Settings, uid: int, gid: int) -> str:
    values: dict[str, int | str] = {
        "allowed_uid": uid,
        "socket_gid": gid,
        "socket": str(settings.helper_socket),
        "run_dir": str(settings.run_dir / "desktops"),
        "state_dir": str(settings.state_dir / "helper"),
        "homes_dir": str(settings.state_dir / "homes"),
        "images_index_dir": str(settings.cache_dir / "images" / "index"),
        "data_root": str(settings.data_dir),
        "guest_api_dir": str(settings.run_dir / "guest-api"),
        "vcpus": max(1, int((os.cpu_count() or 1) * settings.capacity.cpu_allocation_ratio)),
    }
    if settings.capacity.memory_mib is not None:
        values["memory_mib"] = settings.capacity.memory_mib
    if settings.capacity.disk_gib is not None:
        values["disk_gib"] = settings.capacity.disk_gib
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    return "# Written by `beamdesk up` from its settings; changes here are lost.\n" + "\n".join(lines) + "\n"


def _write_root(path: Path, text: str) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.chmod(0o644)
    fresh.rename(path)


def ready(settings: Settings) -> bool:
    """Tell whether the portal is healthy and the gateway answers (it knows desktops only, so any HTTP answer will do)."""
    return _status(settings, settings.host, settings.port) == 200 and bool(
        _status(settings, settings.gateway_host, settings.gateway_port)
    )


def _status(settings: Settings, host: str, port: int) -> int | None:
    if settings.scheme == "https":
        unverified = ssl._create_unverified_context()  # noqa: S323, SLF001 - our own port on this machine, nothing is sent
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(host, port, timeout=2, context=unverified)
    else:
        connection = http.client.HTTPConnection(host, port, timeout=2)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def shortcomings(settings: Settings) -> str:
    """Return why no desktop can run on this machine, empty where they can or where another cloud runs them."""
    if settings.cloud != "local":
        return ""
    from beamdesk.adapters.local.client import HelperClient
    from beamdesk.adapters.local.driver import LocalCloud

    try:
        asyncio.run(LocalCloud(HelperClient(settings.helper_socket), "").capacity())
    except CloudError as error:
        return error.message
    return ""


def welcome(settings: Settings) -> str:
    """Return the lines that tell a newcomer where to go."""
    lines = [f"\n  Open   {settings.origin}"]
    if settings.demo:
        lines += ["", "  Demo accounts (this machine only):", *_demo_lines(settings)]
    return "\n".join([*lines, "", "  Stop it with: make down", ""])


def _demo_lines(settings: Settings) -> list[str]:
    from beamdesk.adapters.demo.sign_in import demo_password

    password = demo_password(settings.app_dir)
    return [f"    ada, bob (imaging) · chen (diffraction) · olga (operator)      password: {password}"]
