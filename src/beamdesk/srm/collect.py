"""All that the agent knows of its host at one moment, from sysfs, the catalogue and NVML."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import Protocol

from beamdesk.protocol.srm import MAX_CARDS, CardFacts, CardLoad, FactsFrom, HostFacts, HostLoad, LendMode
from beamdesk.srm import catalogue, holders, host, pci
from beamdesk.srm.config import Config
from beamdesk.srm.nvml import NvmlCard

_NVIDIA = "nvidia"
"""The name of NVIDIA's driver in sysfs, for its open and its proprietary modules."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One look at the host. Cards are by address. ``visits``: the cards held since the last report, and which visit it was."""

    host: HostFacts
    load: HostLoad
    cards: dict[str, CardFacts]
    loads: dict[str, CardLoad]
    visits: dict[str, int] = field(default_factory=dict)


class Cards(Protocol):
    """Who knows the cards that the host's driver runs (`beamdesk.srm.nvml.Nvml`)."""

    def cards(self, addresses: Collection[str]) -> tuple[NvmlCard, ...]:
        """Return what is known of those at these addresses."""


class Collector:
    """Looks at the host again and again; load is what happened since the last look.

    Between two looks `watch` notices who holds a card: a server that came and went leaves a card as dirty as a long one. It is told
    as held until `told` says that a report with it was accepted.
    """

    def __init__(self, config: Config, nvml: Cards | None = None, read: Callable[..., host.Counters] = host.counters) -> None:
        self._config = config
        self._nvml = nvml
        self._catalogue = catalogue.load(config.catalogue)
        self._read = read
        self._before = read(config.sys, config.proc)
        self._files: dict[str, tuple[str, ...]] = {}
        self._visits: dict[str, tuple[int, holders.Holder]] = {}
        self._count = 0

    def watch(self) -> None:
        """Notice who holds which card now."""
        if not self._files:
            return
        open_files = holders.find(self._config.proc)
        for address, files in self._files.items():
            if (holder := holders.of(files, open_files)) is not None:
                self._count += 1
                self._visits[address] = (self._count, holder)

    def told(self, visits: dict[str, int]) -> None:
        """Forget visits that the API knows of by now; later ones of the same cards are still to be told."""
        for address, number in visits.items():
            if self._visits.get(address, (0,))[0] == number:
                del self._visits[address]

    def look(self) -> Seen:
        """Look now."""
        config = self._config
        now = self._read(config.sys, config.proc)
        load = host.load(config.proc, config.disk, self._before, now)
        self._before = now
        found = pci.scan(config.sys, self._catalogue)[:MAX_CARDS]
        of_nvidia = [card.address for card in found if card.driver == _NVIDIA]
        driven = {card.address: card for card in self._nvml.cards(of_nvidia)} if self._nvml else {}
        facts = host.facts(config.sys, config.proc, config.disk)
        index = host.node_index(config.sys) if facts.numa else {}
        open_files = holders.find(config.proc) if found else {}
        cards = {card.address: self._facts(card, driven.get(card.address), index) for card in found}
        self._files = {card.address: card.vfio for card in found}
        self._visits = {address: visit for address, visit in self._visits.items() if address in cards}
        loads = {card.address: self._load(card, driven.get(card.address), open_files) for card in found}
        return Seen(facts, load, cards, loads, {address: number for address, (number, _) in self._visits.items()})

    def _load(self, card: pci.PciCard, driven: NvmlCard | None, open_files: dict[str, holders.Holder]) -> CardLoad:
        """Return a card's load: held if it is now, or was since the last report."""
        holder = holders.of(card.vfio, open_files)
        if holder is None and card.address in self._visits:
            holder = self._visits[card.address][1]
        return _load(card, driven, holder)

    def _facts(self, card: pci.PciCard, driven: NvmlCard | None, index: dict[int, int]) -> CardFacts:
        known = self._catalogue.find(card.vendor, card.device, card.subsystem_device)
        facts = CardFacts(
            address=card.address,
            vendor=card.vendor,
            device=card.device,
            subsystem_vendor=card.subsystem_vendor,
            subsystem_device=card.subsystem_device,
            model=f"unknown {card.vendor}:{card.device}",
            driver=card.driver,
            mode=LendMode.PASSTHROUGH if _free_of_the_host(card.driver) else LendMode.HOST,
            numa=index.get(card.node, 0),
            facts_from=FactsFrom.UNKNOWN,
            iommu_group=card.iommu_group,
            link_width=card.link_width,
            link_gts=card.link_gts,
        )
        if driven is not None:
            facts = _with_nvml(facts, driven)
        return _with_catalogue(facts, known) if known is not None else facts


def _free_of_the_host(driver: str) -> bool:
    """Tell whether a card can be passed through as it is: bound to VFIO (also under a variant's name), to a stub, or to nothing."""
    return "vfio" in driver or driver in {"", "pci-stub"}


def _within(value: int | None, least: int, most: int) -> int | None:
    """Return a number of NVML's, or None for what cannot be: one odd answer must not cost the whole report."""
    return value if value is not None and least <= value <= most else None


def _with_nvml(facts: CardFacts, driven: NvmlCard) -> CardFacts:
    cores, clock = _within(driven.cores, 1, 10**6), _within(driven.clock_mhz, 1, 10**5)
    return replace(
        facts,
        model=driven.model or facts.model,
        mode=driven.mode,
        uuid=driven.uuid,
        facts_from=FactsFrom.NVML,
        memory_mib=_within(driven.memory_mib, 1, 1 << 22),
        cores=cores,
        bandwidth_gbs=_within(driven.bandwidth_gbs, 1, 10**6),
        clock_mhz=clock,
        fp32_gflops=_within(2 * cores * clock // 1000, 1, 1 << 30) if cores and clock else None,
        nvenc=driven.nvenc,
        ecc=driven.ecc,
        parts=driven.parts,
    )


def _with_catalogue(facts: CardFacts, known: catalogue.Known) -> CardFacts:
    """Published numbers win, so that equal cards are equal on every host, whoever drives them."""
    return replace(
        facts,
        model=known.model,
        facts_from=FactsFrom.CATALOGUE,
        memory_mib=known.memory_mib,
        cores=known.cores,
        bandwidth_gbs=known.bandwidth_gbs,
        clock_mhz=known.clock_mhz,
        fp32_gflops=known.fp32_gflops,
        nvenc=known.nvenc,
        ecc=facts.ecc if facts.ecc is not None else known.ecc,
    )


def _load(card: pci.PciCard, driven: NvmlCard | None, holder: holders.Holder | None) -> CardLoad:
    if driven is None:
        return CardLoad(card.address, held=holder is not None, holder=holder.server if holder else "")
    return CardLoad(
        address=card.address,
        held=driven.held or holder is not None,
        holder=holder.server if holder else "",
        busy=driven.busy if driven.busy is not None and 0 <= driven.busy <= 1 else None,
        memory_used_mib=_within(driven.memory_used_mib, 0, 1 << 22),
        temperature_c=_within(driven.temperature_c, -100, 200),
        power_w=_within(driven.power_w, 0, 10**5),
        ecc_uncorrected=_within(driven.ecc_uncorrected, 0, 1 << 53),
        fault=driven.fault,
    )
