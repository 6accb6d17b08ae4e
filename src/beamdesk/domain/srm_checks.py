"""Is a report plausible? Every number of it is checked here, before anything of it is believed or stored.

The codec has refused wrong types, NaN and infinities already. Bounds are wide: they keep out the absurd (negative, a petabyte of
GPU memory), not the unusual. Raises `Invalid` with the field's path; a text never repeats what was sent.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from beamdesk.domain.errors import Invalid
from beamdesk.protocol.srm import MAX_CARDS, CardFacts, CardLoad, Cleaned, HostFacts, HostLoad, LendMode, PartsFacts, Report

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?\Z")
_ADDRESS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-1][0-9a-f]\.[0-7]\Z")
_HEX4 = re.compile(r"[0-9a-f]{4}\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_WORD = re.compile(r"[A-Za-z0-9._:+-]{0,128}\Z")

MAX_MEMORY_MIB = 1 << 27
MAX_CARD_MEMORY_MIB = 1 << 22
MAX_DISK_GIB = 1 << 24
MAX_CPUS = 8192
MAX_NODES = 64
MAX_LINKS = 64
MAX_PROFILES = 64


def check_host_name(name: str, field: str = "host") -> None:
    """Refuse what cannot be a host's name."""
    if not _NAME.match(name):
        raise Invalid("A host's name has letters, digits, dots and hyphens, at most 254.", field=field)


def check_digest(value: str, field: str) -> None:
    """Refuse what is not a SHA-256 digest in lower-case hex."""
    if not _SHA256.match(value):
        raise Invalid("This must be 64 lower-case hex digits.", field=field)


def check_report(report: Report) -> None:
    """Refuse a report with anything in it that cannot be.

    Raises:
        Invalid: names the field.
    """
    whole("sequence", report.sequence, 1, 1 << 53)
    real("sent_at", report.sent_at, 0.0, 1e11)
    text("session", report.session, 64)
    for name, items in (("cards", report.cards), ("loads", report.loads), ("gone", report.gone), ("cleaned", report.cleaned)):
        if len(items) > MAX_CARDS:
            raise Invalid(f"A host has at most {MAX_CARDS} cards.", field=name)
    if report.full and (report.host is None or report.gone):
        raise Invalid("A full report describes the host and needs no list of what is gone.", field="full")
    if report.host is not None:
        _host(report.host)
    if report.load is not None:
        _host_load(report.load)
    nodes = len(report.host.numa) if report.host else MAX_NODES
    _once("cards", (card.address for card in report.cards))
    _once("loads", (load.address for load in report.loads))
    _once("gone", report.gone)
    for number, card in enumerate(report.cards):
        _card(f"cards[{number}]", card, nodes)
    for number, load in enumerate(report.loads):
        _card_load(f"loads[{number}]", load)
    for number, result in enumerate(report.cleaned):
        _cleaned(f"cleaned[{number}]", result)


def whole(field: str, value: int | None, least: int, most: int) -> None:
    """Refuse a whole number out of bounds; None passes."""
    if value is not None and not least <= value <= most:
        raise Invalid(f"This must be from {least} to {most}.", field=field)


def real(field: str, value: float | None, least: float, most: float) -> None:
    """Refuse a number that is not finite or out of bounds; None passes."""
    if value is not None and not (math.isfinite(value) and least <= value <= most):
        raise Invalid(f"This must be a number from {least:g} to {most:g}.", field=field)


def text(field: str, value: str, most: int) -> None:
    """Refuse text that is too long or cannot be printed."""
    if len(value) > most or not value.isprintable():
        raise Invalid(f"This must be printable text of at most {most} characters.", field=field)


def _once(field: str, addresses: Iterable[str]) -> None:
    seen: set[str] = set()
    for address in addresses:
        if not _ADDRESS.match(address):
            raise Invalid("A PCI address looks like 0000:3b:00.0.", field=field)
        if address in seen:
            raise Invalid("A card is named twice.", field=field)
        seen.add(address)


def _host(facts: HostFacts) -> None:
    whole("host.cpus", facts.cpus, 1, MAX_CPUS)
    whole("host.memory_mib", facts.memory_mib, 1, MAX_MEMORY_MIB)
    whole("host.disk_gib", facts.disk_gib, 0, MAX_DISK_GIB)
    text("host.cpu_model", facts.cpu_model, 128)
    text("host.kernel", facts.kernel, 128)
    if len(facts.numa) > MAX_NODES or len(facts.links) > MAX_LINKS:
        raise Invalid("A host has at most 64 NUMA nodes and 64 network links.", field="host")
    for node in facts.numa:
        whole("host.numa.cpus", node.cpus, 0, MAX_CPUS)
        whole("host.numa.memory_mib", node.memory_mib, 0, MAX_MEMORY_MIB)
    if facts.numa and sum(node.cpus for node in facts.numa) != facts.cpus:
        raise Invalid("The NUMA nodes' CPUs do not add up to the host's.", field="host.numa")
    if facts.numa and sum(node.memory_mib for node in facts.numa) != facts.memory_mib:
        raise Invalid("The NUMA nodes' memory does not add up to the host's.", field="host.numa")
    for link in facts.links:
        text("host.links.name", link.name, 32)
        whole("host.links.speed_mbit", link.speed_mbit, 0, 10_000_000)


def _host_load(load: HostLoad) -> None:
    real("load.cpu", load.cpu, 0.0, 1.0)
    whole("load.memory_used_mib", load.memory_used_mib, 0, MAX_MEMORY_MIB)
    whole("load.disk_used_gib", load.disk_used_gib, 0, MAX_DISK_GIB)
    whole("load.received_bytes_s", load.received_bytes_s, 0, 1 << 50)
    whole("load.sent_bytes_s", load.sent_bytes_s, 0, 1 << 50)


def _card(at: str, card: CardFacts, nodes: int) -> None:
    for name in ("vendor", "device", "subsystem_vendor", "subsystem_device"):
        if not _HEX4.match(getattr(card, name)):
            raise Invalid("A PCI id has four lower-case hex digits.", field=f"{at}.{name}")
    text(f"{at}.model", card.model, 128)
    if not card.model.strip():
        raise Invalid("A card has a model; say what the PCI ids are if nothing else is known.", field=f"{at}.model")
    if not _WORD.match(card.uuid) or not _WORD.match(card.driver):
        raise Invalid("This is no name of a device or driver.", field=f"{at}.uuid")
    whole(f"{at}.numa", card.numa, 0, max(nodes, 1) - 1)
    whole(f"{at}.iommu_group", card.iommu_group, 0, 1 << 20)
    whole(f"{at}.link_width", card.link_width, 0, 64)
    real(f"{at}.link_gts", card.link_gts, 0.0, 1024.0)
    whole(f"{at}.memory_mib", card.memory_mib, 1, MAX_CARD_MEMORY_MIB)
    whole(f"{at}.cores", card.cores, 1, 1_000_000)
    whole(f"{at}.bandwidth_gbs", card.bandwidth_gbs, 1, 1_000_000)
    whole(f"{at}.clock_mhz", card.clock_mhz, 1, 100_000)
    whole(f"{at}.fp32_gflops", card.fp32_gflops, 1, 1 << 30)
    if (card.mode in {LendMode.VGPU, LendMode.MIG}) != (card.parts is not None):
        raise Invalid("Cards in mode vgpu or mig say what parts they have, others do not.", field=f"{at}.parts")
    if card.parts is not None:
        _parts(f"{at}.parts", card.parts)


def _parts(at: str, parts: PartsFacts) -> None:
    text(f"{at}.name", parts.name, 128)
    whole(f"{at}.slots", parts.slots, 1, 62)
    names = [profile.name for profile in parts.profiles]
    if not parts.name or not 1 <= len(names) <= MAX_PROFILES or len(set(names)) != len(names):
        raise Invalid("A card has from 1 to 64 profiles, each named once.", field=f"{at}.profiles")
    for profile in parts.profiles:
        text(f"{at}.profiles.name", profile.name, 64)
        whole(f"{at}.profiles.milli", profile.milli, 1, 1000)
        whole(f"{at}.profiles.span", profile.span, 1, parts.slots)
        whole(f"{at}.profiles.memory_mib", profile.memory_mib, 1, MAX_CARD_MEMORY_MIB)
        if not profile.name or not 1 <= len(profile.starts) <= parts.slots:
            raise Invalid("A profile has a name and places where it may begin.", field=f"{at}.profiles")
        for start in profile.starts:
            whole(f"{at}.profiles.starts", start, 0, parts.slots - profile.span)


def _card_load(at: str, load: CardLoad) -> None:
    text(f"{at}.holder", load.holder, 64)
    text(f"{at}.fault", load.fault, 200)
    if load.holder and not load.held:
        raise Invalid("Who holds a card that nobody holds?", field=f"{at}.holder")
    real(f"{at}.busy", load.busy, 0.0, 1.0)
    whole(f"{at}.memory_used_mib", load.memory_used_mib, 0, MAX_CARD_MEMORY_MIB)
    whole(f"{at}.temperature_c", load.temperature_c, -100, 200)
    whole(f"{at}.power_w", load.power_w, 0, 100_000)
    whole(f"{at}.ecc_uncorrected", load.ecc_uncorrected, 0, 1 << 53)


def _cleaned(at: str, result: Cleaned) -> None:
    text(f"{at}.job", result.job, 64)
    text(f"{at}.detail", result.detail, 500)
    real(f"{at}.seconds", result.seconds, 0.0, 1e6)
    whole(f"{at}.exit_status", result.exit_status, -255, 255)
    check_digest(result.command_sha256, f"{at}.command_sha256")
    check_digest(result.output_sha256, f"{at}.output_sha256")
    if result.succeeded and result.exit_status != 0:
        raise Invalid("A cleaning that succeeded has exit status 0.", field=f"{at}.exit_status")
