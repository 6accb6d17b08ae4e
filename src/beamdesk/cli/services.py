"""The commands that run Beamdesk itself: `up`, `down`, `status`, and the services that the supervisor starts."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, ParamSpec

import typer

from beamdesk import __version__
from beamdesk.cli import deployment
from beamdesk.cli.supervisor import EX_CONFIG, Service, Supervisor
from beamdesk.domain.errors import BeamdeskError, ConfigurationError
from beamdesk.settings import Settings, load_settings

P = ParamSpec("P")

READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class PidFile:
    """Which process is the supervisor. ``started`` (clock ticks since boot) tells it from a later process with the same pid."""

    pid: int
    started: int
    version: str

    @classmethod
    def read(cls, path: Path) -> PidFile | None:
        """Return the running supervisor, or None."""
        try:
            found = cls(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            return None
        return found if _start_ticks(found.pid) == found.started else None

    def write(self, path: Path) -> None:
        """Write atomically."""
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(asdict(self)))
        fresh.rename(path)


def _start_ticks(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rsplit(")", 1)[1].split()
    return None if fields[0] == "Z" else int(fields[19])


def _pid_path(settings: Settings) -> Path:
    return settings.state_dir / "supervisor.json"


def up(
    detach: Annotated[bool, typer.Option("--detach", help="Run in the background and return when everything is ready.")] = False,
) -> None:
    """Start a one-machine deployment: privileged helper, portal + API, reconciler, gateway."""
    settings = load_settings()
    running = PidFile.read(_pid_path(settings))
    if running is not None:
        typer.echo(f"Beamdesk {running.version} is running already (pid {running.pid}).")
        _welcome(settings)
        return
    deployment.check(settings)
    if settings.cloud == "openstack":
        settings = _prepare_cloud(settings)
    deployment.prepare(settings)
    if detach:
        _detach(settings)
    else:
        raise typer.Exit(_supervise(settings))


def _prepare_cloud(settings: Settings) -> Settings:
    from beamdesk.cli import cloud_start

    if cloud_start.is_started_by_us(settings):
        return settings
    cloud_start.examine_cloud(settings, typer.echo)
    deployment.prepare(settings)
    cloud_start.hand_over(settings, deployment.group(settings))
    return load_settings()


def _supervise(settings: Settings) -> int:
    pid = os.getpid()
    PidFile(pid, _start_ticks(pid) or 0, __version__).write(_pid_path(settings))
    typer.echo("Beamdesk is starting; press Ctrl+C to stop it.")
    try:
        return Supervisor(_services(settings), lambda line: print(f"[supervisor] {line}", flush=True)).run()
    finally:
        _pid_path(settings).unlink(missing_ok=True)


def _services(settings: Settings) -> tuple[Service, ...]:
    own = (sys.executable, "-m", "beamdesk.cli.main")
    account = settings.account if os.geteuid() == 0 else None
    services = [
        Service(name, (*own, name), account, settings.log_dir / f"{name}.log") for name in ("serve", "reconcile", "gateway")
    ]
    if settings.cloud == "local":
        argv = (
            sys.executable,
            "-m",
            "beamdesk.adapters.local.helper",
            "--config",
            str(deployment.helper_config_path(settings)),
            "--lifeline",
            "{lifeline}",
        )
        services.insert(0, Service("helper", argv, None, settings.log_dir / "helper.log", lifeline=True))
    return tuple(services)


def _detach(settings: Settings) -> None:
    log = settings.log_dir / "supervisor.log"
    started = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "beamdesk.cli.main", "up"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    while time.monotonic() - started < READY_TIMEOUT_S:
        if process.poll() is not None:
            sys.stderr.write(log.read_text())
            raise ConfigurationError(f"Beamdesk did not start; the logs are in {settings.log_dir}.")
        if deployment.ready(settings):
            typer.echo(f"Beamdesk {__version__} is ready after {time.monotonic() - started:.1f} s.")
            _welcome(settings)
            return
        time.sleep(0.1)
    process.terminate()
    process.wait()
    raise ConfigurationError(f"Beamdesk was not ready within {READY_TIMEOUT_S:.0f} s; the logs are in {settings.log_dir}.")


def _welcome(settings: Settings) -> None:
    typer.echo(deployment.welcome(settings))
    if lacking := deployment.shortcomings(settings):
        typer.echo(f"beamdesk: {lacking}", err=True)


def down() -> None:
    """Stop everything that `up` started; desktops keep their homes. Stopping twice is fine."""
    settings = load_settings()
    running = PidFile.read(_pid_path(settings))
    if running is None:
        typer.echo("Beamdesk is not running.")
        return
    os.kill(running.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while time.monotonic() < deadline:
        if _start_ticks(running.pid) != running.started:
            typer.echo("Beamdesk is stopped.")
            return
        time.sleep(0.1)
    raise ConfigurationError(f"The supervisor (pid {running.pid}) did not stop within {STOP_TIMEOUT_S:.0f} s.")


def status() -> None:
    """Tell what runs; exit status 1 when something does not."""
    settings = load_settings()
    running = PidFile.read(_pid_path(settings))
    if running is None:
        typer.echo("Beamdesk is not running. Start it with: make up")
        raise typer.Exit(1)
    healthy = deployment.ready(settings)
    typer.echo(f"Beamdesk {running.version}, pid {running.pid}: {'ready' if healthy else 'starting, or a part is down'}")
    typer.echo(f"Portal  {settings.origin}\nLogs    {settings.log_dir}")
    raise typer.Exit(0 if healthy else 1)


def _service(name: str) -> None:
    from beamdesk import wiring

    settings = load_settings()
    try:
        wiring.run(name, settings)
    except ConfigurationError as error:
        print(f"beamdesk {name}: {error.message}", file=sys.stderr)
        raise typer.Exit(EX_CONFIG) from error


def serve() -> None:
    """Run the portal and the API."""
    _service("serve")


def reconcile() -> None:
    """Run the reconciler and the sweeper."""
    _service("reconcile")


def gateway() -> None:
    """Run the gateway."""
    _service("gateway")


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    for command in (up, down, status):
        app.command(rich_help_panel="Deployment")(_one_line_errors(command))
    for command in (serve, reconcile, gateway):
        app.command(hidden=True)(_one_line_errors(command))


def _one_line_errors(command: Callable[P, None]) -> Callable[P, None]:
    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except BeamdeskError as error:
            print(f"beamdesk: {error.message}", file=sys.stderr)
            raise typer.Exit(EX_CONFIG if isinstance(error, ConfigurationError) else 1) from error

    return wrapped
