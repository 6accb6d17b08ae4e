"""The SRM tables. ``facts`` and ``load`` are kept in their wire form and read through the same strict codec that took them in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from datetime import UTC, datetime
from typing import Any, TypeVar

from sqlalchemy import Double, Integer, Select, Text, case, cast, delete, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as postgres_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from beamdesk.adapters.sql import schema
from beamdesk.adapters.sql.tables import Tables
from beamdesk.domain.srm import CardState, Consumer, DeviceRecord, HostRecord, Mean, Sample, StateReason
from beamdesk.protocol.codec import decode
from beamdesk.protocol.srm import CardFacts, CardLoad, HostFacts, HostLoad

_host, _device, _sample, _consumer = schema.srm_host, schema.srm_device, schema.srm_sample, schema.srm_consumer

T = TypeVar("T")


def _stored(kind: type[T], value: Any) -> T | None:
    return decode(kind, json.dumps(value)) if value else None


def _host_from(row: Mapping[Any, Any]) -> HostRecord:
    values = dict(row)
    values["aggregates"] = tuple(row["aggregates"])
    values["facts"], values["load"] = _stored(HostFacts, row["facts"]), _stored(HostLoad, row["load"])
    return HostRecord(**values)


def _device_from(row: Mapping[Any, Any]) -> DeviceRecord:
    facts = _stored(CardFacts, row["facts"])
    assert facts is not None  # noqa: S101  # never written without; for the type checker
    values = dict(row) | {"facts": facts, "load": _stored(CardLoad, row["load"])}
    return DeviceRecord(**(values | {"state": CardState(row["state"]), "reason": StateReason(row["reason"])}))


def _consumer_from(row: Mapping[Any, Any]) -> Consumer:
    return Consumer(row["name"], bytes(row["token_hash"]), row["created_at"], row["used_at"], row["speaks"])


def _mean_from(row: Mapping[Any, Any], every_s: int) -> Mean:
    memory = row["memory_used_mib"]
    return Mean(
        row["address"],
        datetime.fromtimestamp(row["stretch"] * every_s, UTC),
        row["busy"],
        None if memory is None else float(memory),
        row["temperature_c"],
        float(row["used"]),
    )


class SqlSrm(Tables):
    """`beamdesk.ports.srm.Srm` on a database."""

    async def hosts(self) -> tuple[HostRecord, ...]:
        """Return all hosts, by name."""
        return tuple(_host_from(row) for row in await self._read(select(_host).order_by(_host.c.name)))

    async def host(self, name: str, *, lock: bool = False) -> HostRecord | None:
        """Return a host."""
        return await self._one_host(select(_host).where(_host.c.name == name), lock=lock)

    async def host_by_enrolment(self, enrol_hash: bytes) -> HostRecord | None:
        """Return the host that waits for the agent with this enrolment token, its row locked."""
        return await self._one_host(select(_host).where(_host.c.enrol_hash == enrol_hash), lock=True)

    async def host_by_token(self, token_hash: bytes, *, lock: bool = False) -> HostRecord | None:
        """Return the host whose agent holds this credential."""
        return await self._one_host(select(_host).where(_host.c.token_hash == token_hash), lock=lock)

    async def host_by_machine(self, machine: str) -> HostRecord | None:
        """Return the host that a machine enrolled as."""
        rows = await self._read(select(_host).where(_host.c.machine == machine).order_by(_host.c.name).limit(1))
        return _host_from(rows[0]) if rows else None

    async def _one_host(self, statement: Select[Any], *, lock: bool) -> HostRecord | None:
        row = await self._read_one(statement.with_for_update() if lock else statement)
        return _host_from(row) if row else None

    async def put_host(self, host: HostRecord) -> None:
        """Insert or replace a host."""
        values = {field.name: getattr(host, field.name) for field in fields(host)}
        values |= {"aggregates": list(host.aggregates), "facts": _json(host.facts), "load": _json(host.load)}
        await self._upsert(_host, "name", values)

    async def remove_host(self, name: str) -> bool:
        """Forget a host with its devices and history."""
        return bool((await self._write(delete(_host).where(_host.c.name == name))).rowcount)

    async def devices(self, host: str | None = None) -> tuple[DeviceRecord, ...]:
        """Return the devices of one host or of all."""
        statement = select(_device).order_by(_device.c.host, _device.c.address)
        if host is not None:
            statement = statement.where(_device.c.host == host)
        return tuple(_device_from(row) for row in await self._read(statement))

    async def device(self, host: str, address: str) -> DeviceRecord | None:
        """Return one device."""
        row = await self._read_one(select(_device).where(_device.c.host == host, _device.c.address == address))
        return _device_from(row) if row else None

    async def put_device(self, device: DeviceRecord) -> None:
        """Insert or replace a device."""
        values = {field.name: getattr(device, field.name) for field in fields(device)}
        values |= {"facts": _json(device.facts), "load": _json(device.load)}
        values |= {"state": str(device.state), "reason": str(device.reason)}
        changed = {name: value for name, value in values.items() if name not in {"host", "address"}}
        make = sqlite_insert if self._is_sqlite else postgres_insert
        statement = make(_device).values(**values).on_conflict_do_update(index_elements=["host", "address"], set_=changed)
        await self._write(statement)

    async def remove_device(self, host: str, address: str) -> None:
        """Forget a device."""
        await self._write(delete(_device).where(_device.c.host == host, _device.c.address == address))

    async def marks(self) -> tuple[bytes, tuple[tuple[str, datetime | None], ...]]:
        """Digest what snapshots are made of as the database has it, without reading it into records."""
        own, card = _host.c, _device.c
        hosts = await self._read(
            select(own.name, own.seen_at, own.enabled, own.dedicated, cast(own.aggregates, Text), cast(own.facts, Text)).order_by(
                own.name
            )
        )
        devices = await self._read(
            select(card.host, card.address, card.state, card.present, card.holder, cast(card.facts, Text)).order_by(
                card.host, card.address
            )
        )
        digest = hashlib.blake2b(digest_size=16)
        for row in hosts:
            digest.update(repr([value for name, value in row.items() if name != "seen_at"]).encode())
        for row in devices:
            digest.update(repr(list(row.values())).encode())
        return digest.digest(), tuple((row["name"], row["seen_at"]) for row in hosts)

    async def add_samples(self, *samples: Sample) -> None:
        """Write points of the history."""
        if samples:
            await self._write(insert(_sample).values([asdict(sample) for sample in samples]))

    async def samples(self, host: str, address: str, since: datetime, limit: int) -> tuple[Sample, ...]:
        """Return the newest points since then, oldest first."""
        found = select(_sample).where(_sample.c.host == host, _sample.c.address == address, _sample.c.at >= since)
        rows = await self._read(found.order_by(_sample.c.at.desc(), _sample.c.id.desc()).limit(limit))
        return tuple(Sample(**{field.name: row[field.name] for field in fields(Sample)}) for row in reversed(rows))

    async def means(self, host: str, since: datetime, every_s: int) -> tuple[Mean, ...]:
        """Return the history of a host and all its cards since then, in stretches of ``every_s``."""
        own = _sample.c
        seconds = func.strftime("%s", own.at) if self._is_sqlite else func.extract("epoch", own.at)
        stretch = (cast(func.floor(cast(seconds, Double) / every_s), Integer)).label("stretch")
        used = func.avg(case((own.state == str(CardState.USED), 1.0), else_=0.0)).label("used")
        statement = (
            select(
                own.address,
                stretch,
                func.avg(own.busy).label("busy"),
                func.avg(own.memory_used_mib).label("memory_used_mib"),
                func.max(own.temperature_c).label("temperature_c"),
                used,
            )
            .where(own.host == host, own.at >= since)
            .group_by(own.address, stretch)
            .order_by(own.address, stretch)
        )
        return tuple(_mean_from(row, every_s) for row in await self._read(statement))

    async def purge_samples(self, before: datetime, limit: int) -> int:
        """Delete a number of old points: a transaction must not hold SQLite's only writer for long."""
        old = select(_sample.c.id).where(_sample.c.at < before).limit(limit)
        return (await self._write(delete(_sample).where(_sample.c.id.in_(old)))).rowcount

    async def put_consumer(self, name: str, token_hash: bytes, created_by: str, now: datetime) -> None:
        """Let a program read the snapshot."""
        values = {"name": name, "token_hash": token_hash, "created_by": created_by, "created_at": now, "used_at": None}
        values |= {"speaks": 1}
        await self._upsert(_consumer, "name", values)

    async def consumer_by_token(self, token_hash: bytes) -> Consumer | None:
        """Return the program that holds this credential."""
        row = await self._read_one(select(_consumer).where(_consumer.c.token_hash == token_hash))
        return _consumer_from(row) if row else None

    async def consumers(self) -> tuple[Consumer, ...]:
        """Return all, by name."""
        return tuple(_consumer_from(row) for row in await self._read(select(_consumer).order_by(_consumer.c.name)))

    async def touch_consumer(self, name: str, now: datetime, speaks: int) -> None:
        """Record that a program read the snapshot, and which protocol it speaks."""
        await self._write(update(_consumer).where(_consumer.c.name == name).values(used_at=now, speaks=speaks))

    async def remove_consumer(self, name: str) -> bool:
        """Take the right to read the snapshot away."""
        return bool((await self._write(delete(_consumer).where(_consumer.c.name == name))).rowcount)


def _json(value: HostFacts | HostLoad | CardFacts | CardLoad | None) -> dict[str, Any]:
    return asdict(value) if value is not None else {}
