"""One instance: up, down, and single services stopped and started."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from openstack.exceptions import SDKException

from . import broker, clouds, configs, content, database, golden, machines
from .environment import check_programs, ensure_venv, install_plugins
from .layout import Layout, Options
from .processes import ControlPlaneError, Processes, wait_for
from .services import APIS, Services, compute_processes, environment

__all__ = ["ControlPlane", "ControlPlaneError", "Options"]

_PORT_OF = {"nova-api": "nova", "cinder-api": "cinder", "rabbit": "rabbit"}


def _answers(port: int) -> bool:
    """Tell whether an API answers anything; it listens before it has loaded."""
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/")
        connection.getresponse()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return True


def _quiet(_: str) -> None:
    """Say nothing."""


class ControlPlane:
    """An OpenStack in the folder ``root``. Idempotent: `up` does what is missing. A context manager that starts and removes it.

    ``tied``: its processes end with this one, whatever happens to it.
    """

    def __init__(
        self, root: Path, options: Options | None = None, *, tied: bool = True, say: Callable[[str], None] = _quiet
    ) -> None:
        self.options = options or Options()
        self.layout = Layout.open(root)
        self._tied = tied
        self._started = time.monotonic()
        self._say = lambda text: say(f"[{time.monotonic() - self._started:6.1f} s] {text}")
        self._processes: Processes | None = None
        self._services: Services | None = None

    def __enter__(self) -> Self:
        try:
            self.up()
        except BaseException:
            self.down()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.remove()

    @property
    def clouds_yaml(self) -> Path:
        """The clouds.yaml; its entries: `clouds.ADMIN`, `BEAMDESK`, `OTHER_PROJECT`, `STRANGER`, `APPLICATION`."""
        return self.layout.clouds

    def connect(self, cloud: str = clouds.ADMIN) -> Any:
        """Return a new openstacksdk connection; close it."""
        return clouds.connect(self.clouds_yaml, cloud)

    def hosts(self, process: str) -> tuple[str, ...]:
        """Return the hosts that a compute process runs, such as those of ``compute-1``."""
        if process in machines.LAST:
            return (machines.HOST,)
        first, count = compute_processes(self.options)[process]
        return tuple(f"host-{number:03d}" for number in range(first, first + count))

    def process_of(self, host: str) -> str:
        """Return the process that runs a host."""
        return next(name for name in compute_processes(self.options) if host in self.hosts(name))

    def pid(self, name: str) -> int | None:
        """Return the process id of a running service."""
        return self._parts()[0].pid(name)

    def stop(self, *names: str) -> None:
        """Stop services: ``nova-api``, ``scheduler``, ``conductor``, ``compute-0``, ``rabbit``, ``keystone``, ... Absent is fine."""
        self._parts()[0].stop(*names)

    def start(self, *names: str) -> None:
        """Start services; return when APIs and the broker listen and computes report."""
        self.spawn(*names)
        self.wait(*names)

    def spawn(self, *names: str) -> None:
        """Start services and return at once."""
        for name in names:
            if name == "rabbit":
                broker.start(self.layout, self._parts()[0])
            elif name == "mysql":
                database.spawn(self.layout, self._parts()[0])
            else:
                self._parts()[1].start(name)

    def wait(self, *names: str) -> None:
        """Return when what was started can be used."""
        if "mysql" in names:
            database.wait(self.layout)
        for name in names:
            if name in APIS or name == "rabbit":
                port = self.layout.ports[_PORT_OF.get(name, name)]
                wait_for(lambda port=port: broker.listening(port), name)  # type: ignore[misc]
            if name in APIS:
                wait_for(lambda port=port: _answers(port), f"an answer of {name}")  # type: ignore[misc]
        if hosts := {host for name in names if name.startswith("compute-") for host in self.hosts(name)}:
            wait_for(lambda: hosts <= self._hosts_up(), f"hosts {sorted(hosts)}", 60 + 3 * len(hosts))

    def restart(self, *names: str) -> None:
        """Stop and start."""
        self.stop(*names)
        self.start(*names)

    @contextmanager
    def stopped(self, *names: str) -> Iterator[None]:
        """Have services stopped for a while."""
        self.stop(*names)
        try:
            yield
        finally:
            self.start(*names)

    @contextmanager
    def fault(self, name: str) -> Iterator[None]:
        """Have the simulated hosts misbehave for a while: ``fail-builds`` or ``slow-builds``."""
        flag = self.layout.faults / name
        flag.touch()
        try:
            yield
        finally:
            flag.unlink()

    @contextmanager
    def policy(self, service: str, rules: Mapping[str, str]) -> Iterator[None]:
        """Have another policy in a service (``nova``, ``placement``) for a while; it reads the file anew with the next request."""
        file = self.layout.etc / service / "policy.yaml"
        file.write_text(json.dumps(dict(rules)))
        try:
            yield
        finally:
            file.write_text("{}")

    def unseen(self, *hosts: str) -> None:
        """Have Nova believe that hosts which do not run have not reported for long, without waiting for it."""
        names = ", ".join(f"'{host}'" for host in hosts)
        long_ago = "utc_timestamp() - interval 1 hour"
        database.query(self.layout, f"update nova_cell1.services set last_seen_up = {long_ago} where host in ({names})")

    def configure(self) -> None:
        """Write what the services read when they start, from `options`."""
        install_plugins(self.layout.root / "plugins")
        self.layout.write_farm(self.options)
        configs.write_all(self.layout, ensure_venv(self._say), self.options)
        clouds.write(self.layout)

    def up(self) -> None:
        """Start what is missing and return when a server could be built."""
        check_programs()
        if self.options.machines:
            check_programs(machines.PROGRAMS, "vm")
        self._restore_options()
        processes, services = self._parts()
        if (self.layout.root / "ready").exists() and all(processes.pid(name) for name in self.names()):
            self._say("runs already")
            return
        venv = ensure_venv(self._say)
        if not self.layout.database.exists():
            golden.copy(golden.ensure(venv, self._say), self.layout)
        self.configure()
        self._say("starting")
        broker.start(self.layout, processes)
        database.start(self.layout, processes)
        database.move_in(self.layout)
        self._start_services(services)
        (self.layout.root / "ready").touch()
        self._say("ready")

    def names(self) -> tuple[str, ...]:
        """Return the names of all services, in the order of their start."""
        cinder = ("cinder-scheduler", "cinder-volume")
        apis = APIS if self.options.volumes else tuple(name for name in APIS if name != "cinder-api")
        before, after = (machines.FIRST, machines.LAST) if self.options.machines else ((), ())
        computes = (*compute_processes(self.options), *after)
        return ("epmd", "rabbit", "mysql", *apis, *before, "conductor", "scheduler", *computes) + (
            cinder if self.options.volumes else ()
        )

    def _start_services(self, services: Services) -> None:
        begun = database.query(self.layout, "select utc_timestamp()").strip()
        names = [name for name in self.names() if name not in ("epmd", "rabbit", "mysql")]
        computes = [name for name in names if name.startswith("compute-")]
        for name in names:
            if name in APIS:
                services.start(name)
        broker.wait(self.layout)
        for name in names:
            if name not in APIS and name not in computes:
                services.start(name)
        # A compute that asks before the conductor listens loses its first RPC timeout.
        asked = "select count(*) from nova_cell1.services where `binary` = 'nova-conductor' and report_count > 0"
        wait_for(lambda: database.query(self.layout, asked).strip() != "0", "the conductor")
        self.start(*(name for name in names if name in APIS))
        self._ask_alone()
        self._say("the conductor is up; starting hosts")
        self.start(*computes)
        wait_for(self._hosts_known, "the hosts in Placement and in their cell", 120 + 3 * self.options.known_hosts)
        if self.options.volumes:
            wait_for(lambda: self._volumes_up(begun), "a backend for volumes that the scheduler knows")

    def _ask_alone(self) -> None:
        """Ask what a service prepares itself for with the first question; others that come at that moment are refused.

        Keystone reads its policy with the first token that it validates: a host that asks Placement meanwhile is told 503, and
        Nova tries again when its next periodic task is due. Neutron learns of some attributes of ports with its first query.
        """
        with self.connect() as admin:
            admin.placement.get("/resource_providers").raise_for_status()
            list(admin.network.networks())

    def _hosts_up(self) -> set[str]:
        fresh_s = 90 if self.options.hosts >= configs.MANY_HOSTS else 10
        age = "timestampdiff(second, coalesce(updated_at, created_at), utc_timestamp())"
        rows = database.query(
            self.layout, f"select host from nova_cell1.services where topic = 'compute' and report_count > 0 and {age} < {fresh_s}"
        )
        return set(rows.split())

    def _hosts_known(self) -> bool:
        statement = (
            "select (select count(*) from nova_api.host_mappings), (select count(distinct r.id) from placement.resource_providers r "
            "join placement.inventories i on i.resource_provider_id = r.id where r.parent_provider_id is null)"
        )
        return all(int(count) >= self.options.known_hosts for count in database.query(self.layout, statement).split())

    def _volumes_up(self, since: str) -> bool:
        """Tell whether Cinder's scheduler knows a backend; before, it lets an order wait for one for many seconds."""
        reports = f"select count(*) from cinder.services where coalesce(updated_at, created_at) >= '{since}' and report_count > 0"
        if int(database.query(self.layout, reports)) < 2:
            return False
        with self.connect() as admin, contextlib.suppress(SDKException):
            return any(True for _pool in admin.block_storage.backend_pools())
        return False

    def down(self) -> None:
        """Stop every process of the instance; its state stays."""
        (self.layout.root / "ready").unlink(missing_ok=True)
        if not self.layout.pids.exists():
            return
        processes = self._processes or Processes(self.layout, {}, tied=False)
        last = ("mysql", "rabbit", "epmd")
        processes.stop(*(name for name in processes.names() if name not in last))
        for name in last:
            processes.stop(name)
        processes.close()
        self._processes = self._services = None

    def remove(self) -> None:
        """Stop and delete the instance."""
        self.down()
        shutil.rmtree(self.layout.root, ignore_errors=True)

    def status(self) -> dict[str, int | None]:
        """Return the process id of each service that was started, None for a dead one."""
        processes = Processes(self.layout, {}, tied=False)
        return {name: processes.pid(name) for name in processes.names()}

    def _parts(self) -> tuple[Processes, Services]:
        if self._processes is None or self._services is None:
            for folder in (self.layout.logs, self.layout.pids):
                folder.mkdir(exist_ok=True)
            venv = ensure_venv(self._say)
            self._processes = Processes(self.layout, environment(self.layout, venv, self.options), tied=self._tied)
            self._services = Services(self.layout, venv, self.options, self._processes)
        return self._processes, self._services

    def _restore_options(self) -> None:
        """Keep the number of hosts that the instance began with: Nova remembers its hosts."""
        kept = self.layout.root / "options.json"
        if kept.exists():
            self.options = replace(self.options, **json.loads(kept.read_text()))
        else:
            chosen = {
                "hosts": self.options.hosts,
                "hosts_per_process": self.options.hosts_per_process,
                "volumes": self.options.volumes,
            }
            kept.write_text(json.dumps(chosen))


FLAVORS, IMAGE, NETWORK = content.FLAVORS, content.IMAGE, content.NETWORK
