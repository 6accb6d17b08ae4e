"""Names of cards by PCI id, as far as a plan needs them. Ids and names: the PCI ID repository (pci-ids.ucw.cz).

An unknown card is planned for all the same, under its id. What the scheduler must know of a card (cores, bandwidth, clock) is not
here.
"""

from __future__ import annotations

from dataclasses import dataclass

from beamdesk.adapters.openstack.gpu_plan_facts import GPU_VENDORS, PciFunction

MEMORY_STEPS_GIB = (8, 16, 24, 32, 40, 48, 64, 80, 96, 141, 180, 192)
"""Steps of the traits that say "at least so much memory": one Placement query then finds every card that is large enough."""


@dataclass(frozen=True, slots=True)
class CardModel:
    """A model: its name, the word in traits and aliases, memory in GiB (0 = not known), and whether it can be divided by MIG."""

    name: str
    word: str
    memory_gib: int = 0
    mig: bool = False
    nvswitch: bool = False

    @property
    def trait(self) -> str:
        """Return the trait that names the model."""
        return f"CUSTOM_GPU_MODEL_{self.word}"

    @property
    def alias(self) -> str:
        """Return the PCI alias."""
        return self.word.lower().replace("_", "-")

    @property
    def traits(self) -> tuple[str, ...]:
        """Return all traits: the model, and each step of memory that it reaches."""
        steps = tuple(f"CUSTOM_GPU_MEM_GE_{step}G" for step in MEMORY_STEPS_GIB if step <= self.memory_gib)
        return (self.trait, *steps)


MODELS = {
    "10de:20b0": CardModel("A100 SXM4 40GB", "A100_SXM4_40G", 40, mig=True, nvswitch=True),
    "10de:20b2": CardModel("A100 SXM4 80GB", "A100_SXM4_80G", 80, mig=True, nvswitch=True),
    "10de:20f1": CardModel("A100 PCIe 40GB", "A100_40G", 40, mig=True),
    "10de:20b5": CardModel("A100 PCIe 80GB", "A100_80G", 80, mig=True),
    "10de:20b7": CardModel("A30", "A30", 24, mig=True),
    "10de:2330": CardModel("H100 SXM5 80GB", "H100_SXM5_80G", 80, mig=True, nvswitch=True),
    "10de:2331": CardModel("H100 PCIe", "H100_80G", 80, mig=True),
    "10de:2321": CardModel("H100 NVL", "H100_NVL", 94, mig=True),
    "10de:2335": CardModel("H200", "H200", 141, mig=True, nvswitch=True),
    "10de:233b": CardModel("H200 NVL", "H200_NVL", 141, mig=True),
    "10de:2901": CardModel("B200", "B200", 180, mig=True, nvswitch=True),
    "10de:2bb5": CardModel("RTX PRO 6000 Blackwell Server Edition", "RTX_PRO_6000_SERVER", 96, mig=True),
    "10de:2bb1": CardModel("RTX PRO 6000 Blackwell Workstation Edition", "RTX_PRO_6000", 96, mig=True),
    "10de:2235": CardModel("A40", "A40", 48),
    "10de:2236": CardModel("A10", "A10", 24),
    "10de:25b6": CardModel("A16", "A16", 16),
    "10de:27b8": CardModel("L4", "L4", 24),
    "10de:26b5": CardModel("L40", "L40", 48),
    "10de:26b9": CardModel("L40S", "L40S", 48),
    "10de:26ba": CardModel("L20", "L20", 48),
    "10de:26b2": CardModel("RTX 5000 Ada Generation", "RTX_5000_ADA", 32),
    "10de:26b1": CardModel("RTX 6000 Ada Generation", "RTX_6000_ADA", 48),
    "10de:2230": CardModel("RTX A6000", "RTX_A6000", 48),
    "10de:2231": CardModel("RTX A5000", "RTX_A5000", 24),
    "10de:24b0": CardModel("RTX A4000", "RTX_A4000", 16),
    "10de:1e30": CardModel("Quadro RTX 6000", "QUADRO_RTX_6000", 24),
    "10de:1eb8": CardModel("Tesla T4", "T4", 16),
    "10de:1db1": CardModel("Tesla V100 SXM2 16GB", "V100_SXM2_16G", 16),
    "10de:1db5": CardModel("Tesla V100 SXM2 32GB", "V100_SXM2_32G", 32),
    "10de:1db4": CardModel("Tesla V100 PCIe 16GB", "V100_16G", 16),
    "10de:1db6": CardModel("Tesla V100 PCIe 32GB", "V100_32G", 32),
    "10de:1df6": CardModel("Tesla V100S PCIe 32GB", "V100S_32G", 32),
    "10de:15f8": CardModel("Tesla P100 PCIe 16GB", "P100_16G", 16),
    "10de:1b38": CardModel("Tesla P40", "P40", 24),
    "10de:2204": CardModel("GeForce RTX 3090", "RTX_3090", 24),
    "10de:2684": CardModel("GeForce RTX 4090", "RTX_4090", 24),
    "10de:2b85": CardModel("GeForce RTX 5090", "RTX_5090", 32),
    "1002:738c": CardModel("Instinct MI100", "MI100", 32),
    "1002:740f": CardModel("Instinct MI210", "MI210", 64),
    "1002:74a1": CardModel("Instinct MI300X", "MI300X", 192),
}

_BY_SUBSYSTEM = {
    ("10de:1e30", "129e"): CardModel("Quadro RTX 8000", "QUADRO_RTX_8000", 48),
    ("10de:25b6", "157e"): CardModel("A2", "A2", 16),
}
"""Products that share their device id with another one, by the subsystem's device id, which is the same for all builders."""


def model_of(card: PciFunction) -> CardModel:
    """Return the card's model; an unknown one is named by its id."""
    vendor = GPU_VENDORS.get(card.vendor, "GPU")
    word = card.id.replace(":", "_").upper()
    return (
        _BY_SUBSYSTEM.get((card.id, card.subsystem.rpartition(":")[2]))
        or MODELS.get(card.id)
        or CardModel(f"{vendor} card {card.id}", word)
    )
