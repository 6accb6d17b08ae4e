"""Use cases of the SRM agents: enrol, open a session, report.

An agent runs on a host that somebody may have taken over: it is believed about its own host only, every number is checked, a report
counts once and in order, and every refusal is audited with its reason. What a report contradicts becomes an alarm.
"""

from __future__ import annotations

import hashlib
import hmac
import math
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime

from beamdesk.app.context import App
from beamdesk.app.limits import RateLimit
from beamdesk.app.srm_devices import Changes, apply_cleaned, apply_report, orders
from beamdesk.domain.errors import Conflict, Forbidden, Invalid, NotSignedIn, Refused, TooManyRequests
from beamdesk.domain.events import EventKind, NewEvent
from beamdesk.domain.secrets import hash_secret
from beamdesk.domain.srm import DeviceRecord, HostRecord, Sample, SrmRules
from beamdesk.domain.srm_checks import check_digest, check_host_name, check_report, real, text
from beamdesk.ports.store import Transaction
from beamdesk.protocol.codec import encode
from beamdesk.protocol.srm import Enrol, Enrolled, Open, Opened, Report, ReportReply


@dataclass(slots=True)
class _About:
    """Which host a refusal is about, as soon as that is known."""

    host: str = ""


@asynccontextmanager
async def _audited(app: App, action: str) -> AsyncIterator[_About]:
    """Record a refusal with host and reason; unlike people's mistakes also malformed input, which no agent of ours sends.

    Rate limits are not recorded: a flood must not fill the log.
    """
    about = _About()
    try:
        yield about
    except TooManyRequests:
        raise
    except Refused as refusal:
        data = {"action": action, "code": refusal.code, "host": about.host, "reason": refusal.message, "field": refusal.field}
        async with app.store.begin(write=True) as tx:
            await tx.events.add(app.clock.now(), NewEvent(EventKind.SRM_REFUSED, data=data))
        raise


def _limit(limit: RateLimit, key: str, now: datetime) -> None:
    wait_s = limit.take(key, now)
    if wait_s:
        raise TooManyRequests("Too many requests. Slow down.", retry_after_s=math.ceil(wait_s))


async def enrol(app: App, said: Enrol, *, address: str) -> Enrolled:
    """Spend a one-time token for the credential of the host that it was made for.

    Raises:
        Forbidden: the token is unknown, spent, expired or for another host; the text never says which. TooManyRequests.
        Conflict: another machine has this name, or this machine has another. Invalid.
    """
    now = app.clock.now()
    _limit(app.limits.srm_stranger, address, now)
    credential = app.secrets.token()
    async with _audited(app, "enrol") as about, app.store.begin(write=True) as tx:
        check_host_name(said.host)
        check_digest(said.machine, "machine")
        text("agent", said.agent, 64)
        host = await tx.srm.host_by_enrolment(hash_secret(said.token))
        if host is None or not _is(host.enrol_hash, said.token) or host.enrol_expires_at is None or host.enrol_expires_at <= now:
            raise Forbidden("This enrolment token is unknown, spent or expired.")
        about.host = host.name
        if host.name != said.host:
            raise Forbidden("This enrolment token is unknown, spent or expired.")
        await _only_one(tx, host, said.machine)
        await tx.srm.put_host(
            replace(
                host,
                machine=said.machine,
                enrol_hash=None,
                enrol_expires_at=None,
                token_hash=hash_secret(credential),
                enrolled_at=now,
                session="",
                agent=said.agent,
                version=host.version + 1,
            )
        )
        await tx.events.add(now, NewEvent(EventKind.SRM_ENROLLED, data={"host": host.name, "address": address}))
    return Enrolled(host.name, credential)


async def _only_one(tx: Transaction, host: HostRecord, machine: str) -> None:
    if host.machine and not hmac.compare_digest(host.machine, machine):
        raise Conflict("Another machine is enrolled under this name. Names of hosts are unique.", field="machine")
    other = await tx.srm.host_by_machine(machine)
    if other is not None and other.name != host.name:
        raise Conflict("This machine is enrolled under another name already.", field="machine")


def _is(stored: bytes | None, secret: str) -> bool:
    return stored is not None and hmac.compare_digest(stored, hash_secret(secret))


async def open_session(app: App, credential: str, said: Open, *, address: str) -> Opened:
    """Begin a session; the one before is over.

    Raises:
        NotSignedIn: no host has this credential. Invalid. TooManyRequests.
        Conflict: it comes from another machine or name (a copied credential), or the clock is too far off.
    """
    now = app.clock.now()
    async with _audited(app, "open") as about, app.store.begin(write=True) as tx:
        host = await _known(app, tx, credential, address)
        about.host = host.name
        check_host_name(said.host)
        check_digest(said.machine, "machine")
        text("boot", said.boot, 64)
        text("agent", said.agent, 64)
        if said.host != host.name or not hmac.compare_digest(host.machine, said.machine):
            raise Conflict("This credential belongs to another machine: two hosts must not share one name.", field="machine")
        skew = _skew(app.rules.srm, said.sent_at, now)
        session = app.secrets.token()
        opened = replace(host, session=session, sequence=0, report_digest=None, agent=said.agent, boot=said.boot)
        await tx.srm.put_host(replace(opened, can_clean=said.can_clean, skew_s=skew, version=host.version + 1))
    return Opened(session, now.timestamp())


async def _known(app: App, tx: Transaction, credential: str, address: str) -> HostRecord:
    """Return the host behind a credential, its row locked.

    Raises:
        NotSignedIn: nobody's. TooManyRequests: too many wrong ones from there, or too many messages of this host.
    """
    host = await tx.srm.host_by_token(hash_secret(credential), lock=True)
    if host is None or not _is(host.token_hash, credential):
        _limit(app.limits.srm_stranger, address, app.clock.now())
        raise NotSignedIn("No host has this credential (any more). Enrol it again.")
    _limit(app.limits.srm_report, host.name, app.clock.now())
    return host


def _skew(rules: SrmRules, sent_at: float, now: datetime) -> float:
    """Return how far the host's clock is ahead, in seconds (the network's delay makes it look a little behind).

    Raises:
        Conflict: too far, with the number: somebody has to repair it.
    """
    real("sent_at", sent_at, 0.0, 1e11)
    skew = sent_at - now.timestamp()
    if abs(skew) > rules.skew_refused.total_seconds():
        side = "ahead of" if skew > 0 else "behind"
        raise Conflict(f"The host's clock is {abs(skew):.0f} s {side} ours. Repair its time synchronisation.", field="sent_at")
    return skew


async def report(app: App, credential: str, said: Report, *, address: str) -> ReportReply:
    """Take in a report. One that came before is answered again, whatever time it was sent at, and changes nothing.

    Raises:
        NotSignedIn: no host has this credential. Conflict: another session, a number out of order (a replay), the clock.
        Invalid: something in it cannot be. TooManyRequests.
    """
    now, digest = app.clock.now(), hashlib.sha256(encode(replace(said, sent_at=0.0))).digest()
    async with _audited(app, "report") as about, app.store.begin(write=True) as tx:
        host = await _known(app, tx, credential, address)
        about.host = host.name
        check_report(said)
        if not host.session or not hmac.compare_digest(host.session, said.session):
            raise Conflict("This session is over: open a new one.", field="session")
        if said.sequence == host.sequence and host.report_digest == digest:
            return _reply(said, now, host, await tx.srm.devices(host.name))
        if said.sequence != host.sequence + 1:
            raise Conflict(f"Report {said.sequence} came out of order; {host.sequence + 1} is the next.", field="sequence")
        if said.sequence == 1 and not said.full:
            raise Invalid("The first report of a session is a full one.", field="full")
        skew = _skew(app.rules.srm, said.sent_at, now)
        return await _apply(app, tx, replace(host, skew_s=skew, sequence=said.sequence, report_digest=digest), host, said)


async def _apply(app: App, tx: Transaction, host: HostRecord, before: HostRecord, said: Report) -> ReportReply:
    now, rules = app.clock.now(), app.rules.srm
    known = {device.address: device for device in await tx.srm.devices(host.name)}
    facts = said.host or host.facts
    nodes = len(facts.numa) if facts else 0
    if any(card.numa >= max(nodes, 1) for card in said.cards):
        raise Invalid("A card is on a NUMA node that the host does not have.", field="cards.numa")
    changes = apply_report(host.name, known, said, now)
    for result in said.cleaned:
        apply_cleaned(changes, result, rules, now)
    orders(changes, rules, now, can_clean=host.can_clean, new_job=app.secrets.token)
    news = _host_news(host, before, rules)
    changed = bool(changes.changed(known)) or facts != before.facts or before.stale
    fresh = replace(
        host,
        facts=facts,
        load=said.load or host.load,
        seen_at=now,
        stale=False,
        resync=host.resync and not said.full,
        version=host.version + changed,
    )
    await tx.srm.put_host(fresh)
    for device in changes.changed(known):
        await tx.srm.put_device(replace(device, version=device.version + 1))
    await tx.srm.add_samples(*_samples(fresh, before, changes.devices.values(), rules, now))
    await tx.events.add(now, *news, *changes.events(known))
    return _reply(said, now, fresh, changes.devices.values())


def _host_news(host: HostRecord, before: HostRecord, rules: SrmRules) -> list[NewEvent]:
    news = []
    if before.stale:
        news.append(NewEvent(EventKind.SRM_HOST, data={"host": host.name, "change": "back"}))
    noted = rules.skew_noted.total_seconds()
    if abs(host.skew_s) > noted >= abs(before.skew_s):
        data = {"host": host.name, "kind": "clock_skew", "detail": f"its clock is off by {host.skew_s:.0f} s"}
        news.append(NewEvent(EventKind.SRM_ALARM, data=dict(data)))
    return news


def _samples(
    host: HostRecord, before: HostRecord, devices: Iterable[DeviceRecord], rules: SrmRules, now: datetime
) -> tuple[Sample, ...]:
    """Return points for the history, once in every interval that a report falls into."""
    every = rules.sample_every.total_seconds()
    if before.seen_at is not None and before.seen_at.timestamp() // every == now.timestamp() // every:
        return ()
    own = host.load
    points = [Sample(host.name, "", now, "ok", own.cpu if own else None, own.memory_used_mib if own else None, None)]
    for device in devices:
        load = device.load
        numbers = (load.busy, load.memory_used_mib, load.temperature_c) if load else (None, None, None)
        points.append(Sample(host.name, device.address, now, str(device.state), *numbers))
    return tuple(points)


def _reply(said: Report, now: datetime, host: HostRecord, devices: Iterable[DeviceRecord]) -> ReportReply:
    return ReportReply(said.sequence, now.timestamp(), host.resync, Changes.open_orders(devices, can_clean=host.can_clean))
