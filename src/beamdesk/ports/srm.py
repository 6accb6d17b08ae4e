"""What use cases need of the SRM tables. Part of the store's transactions (`beamdesk.ports.store.Transaction.srm`)."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from beamdesk.domain.srm import Consumer, DeviceRecord, HostRecord, Mean, Sample


class Srm(Protocol):
    """Hosts, devices, history, and who may read the snapshot."""

    async def hosts(self) -> tuple[HostRecord, ...]:
        """Return all hosts, by name."""

    async def host(self, name: str, *, lock: bool = False) -> HostRecord | None:
        """Return a host; ``lock`` holds its row to the end of a writing transaction."""

    async def host_by_enrolment(self, enrol_hash: bytes) -> HostRecord | None:
        """Return the host that waits for the agent with this enrolment token."""

    async def host_by_token(self, token_hash: bytes, *, lock: bool = False) -> HostRecord | None:
        """Return the host whose agent holds this credential; ``lock`` as above."""

    async def host_by_machine(self, machine: str) -> HostRecord | None:
        """Return the host that a machine enrolled as."""

    async def put_host(self, host: HostRecord) -> None:
        """Insert or replace a host."""

    async def remove_host(self, name: str) -> bool:
        """Forget a host with its devices and history; False = there was none."""

    async def devices(self, host: str | None = None) -> tuple[DeviceRecord, ...]:
        """Return the devices of one host or of all, by host and address."""

    async def device(self, host: str, address: str) -> DeviceRecord | None:
        """Return one device."""

    async def put_device(self, device: DeviceRecord) -> None:
        """Insert or replace a device."""

    async def remove_device(self, host: str, address: str) -> None:
        """Forget a device; absent is fine."""

    async def marks(self) -> tuple[bytes, tuple[tuple[str, datetime | None], ...]]:
        """Return a digest of all that the scheduling snapshot is made of, and when each host was last heard. Cheap."""

    async def add_samples(self, *samples: Sample) -> None:
        """Write points of the history."""

    async def samples(self, host: str, address: str, since: datetime, limit: int) -> tuple[Sample, ...]:
        """Return the newest ``limit`` points since then, oldest first."""

    async def means(self, host: str, since: datetime, every_s: int) -> tuple[Mean, ...]:
        """Return the history of a host and all its cards since then, in stretches of ``every_s``; by address, oldest first."""

    async def purge_samples(self, before: datetime, limit: int) -> int:
        """Delete at most ``limit`` points older than ``before``; returns how many."""

    async def put_consumer(self, name: str, token_hash: bytes, created_by: str, now: datetime) -> None:
        """Let a program read the snapshot, with a new credential if it has one already."""

    async def consumer_by_token(self, token_hash: bytes) -> Consumer | None:
        """Return the program that holds this credential."""

    async def consumers(self) -> tuple[Consumer, ...]:
        """Return all, by name."""

    async def touch_consumer(self, name: str, now: datetime, speaks: int) -> None:
        """Record that a program read the snapshot, and which protocol it speaks."""

    async def remove_consumer(self, name: str) -> bool:
        """Take the right to read the snapshot away; False = there was none."""
