"""An SRM agent as the API sees one, for tests: builds its messages and keeps its numbers."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

from apikit import caller, clock_of
from beamdesk.app import srm, srm_agents
from beamdesk.app.context import App
from beamdesk.protocol.srm import (
    CardFacts,
    CardLoad,
    Cleaned,
    Enrol,
    FactsFrom,
    HostFacts,
    HostLoad,
    LendMode,
    LinkFacts,
    NumaFacts,
    Open,
    Report,
    ReportReply,
)

OPERATOR = "olga"
FIRST, SECOND = "0000:3b:00.0", "0000:af:00.0"
FACTS = HostFacts(
    64, 262144, 2000, "EPYC", "6.1", (NumaFacts(32, 131072), NumaFacts(32, 131072)), (LinkFacts("eth0", True, 100000),)
)
LOAD = HostLoad(0.25, 65536, 100)


def digest(text: str) -> str:
    """Return a SHA-256 in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def a_card(address: str = FIRST, **changes: Any) -> CardFacts:
    """Return an RTX A6000 that can be passed through."""
    card = CardFacts(
        address, "10de", "2230", "10de", "1459", "RTX A6000", "vfio-pci", LendMode.PASSTHROUGH, 0, FactsFrom.CATALOGUE,
        memory_mib=49152, cores=10752, bandwidth_gbs=768, clock_mhz=1800, fp32_gflops=38700, nvenc=True,
    )  # fmt: skip
    return replace(card, **changes)


def idle(address: str = FIRST) -> CardLoad:
    """Return the load of a card that nobody holds."""
    return CardLoad(address, held=False)


def held(address: str = FIRST, holder: str = "server-1") -> CardLoad:
    """Return the load of a card that a server holds."""
    return CardLoad(address, held=True, holder=holder)


@dataclass
class Agent:
    """One host's agent. ``say`` sends the next report; the test decides what is in it."""

    app: App
    host: str = "gpu01"
    machine: str = digest("gpu01")
    credential: str = ""
    session: str = ""
    sequence: int = 0
    address: str = "10.0.0.1"

    @classmethod
    async def enrolled(cls, app: App, host: str = "gpu01", **made: Any) -> Agent:
        """Return an agent with a credential."""
        agent = cls(app, host, digest(host))
        token = (await srm.make_enrolment(app, await caller(app, OPERATOR), host, **made)).token
        await agent.enrol(token)
        return agent

    @classmethod
    async def reporting(
        cls, app: App, host: str = "gpu01", *, can_clean: bool = False, cards: tuple[CardFacts, ...] | None = None
    ) -> Agent:
        """Return an agent that has sent a full report with two idle cards."""
        agent = await cls.enrolled(app, host)
        await agent.open(can_clean=can_clean)
        await agent.say_all(cards=(a_card(FIRST), a_card(SECOND, numa=1)) if cards is None else cards)
        return agent

    async def enrol(self, token: str) -> None:
        """Spend a token."""
        said = Enrol(token, self.host, self.machine, "test")
        self.credential = (await srm_agents.enrol(self.app, said, address=self.address)).credential

    @property
    def now(self) -> float:
        """Return the agent's clock, which agrees with the API's."""
        return clock_of(self.app).now().timestamp()

    async def open(self, *, sent_at: float | None = None, can_clean: bool = False) -> None:
        """Begin a session."""
        said = Open(self.host, self.machine, "boot-1", "test", self.now if sent_at is None else sent_at, can_clean)
        opened = await srm_agents.open_session(self.app, self.credential, said, address=self.address)
        self.session, self.sequence = opened.session, 0

    async def send(self, report: Report) -> ReportReply:
        """Send a report as it is."""
        return await srm_agents.report(self.app, self.credential, report, address=self.address)

    def next(self, **parts: Any) -> Report:
        """Return the next report."""
        return Report(**({"session": self.session, "sequence": self.sequence + 1, "sent_at": self.now} | parts))

    async def say(self, **parts: Any) -> ReportReply:
        """Send the next report."""
        reply = await self.send(self.next(**parts))
        self.sequence += 1
        return reply

    async def say_all(self, cards: tuple[CardFacts, ...], loads: tuple[CardLoad, ...] | None = None, **parts: Any) -> ReportReply:
        """Send a full report."""
        seen = tuple(idle(card.address) for card in cards) if loads is None else loads
        return await self.say(full=True, host=FACTS, load=LOAD, cards=cards, loads=seen, **parts)

    async def device(self, address: str = FIRST) -> Any:
        """Return the device as the store has it."""
        async with self.app.store.begin() as tx:
            return await tx.srm.device(self.host, address)

    async def states(self) -> dict[str, str]:
        """Return the state of every device."""
        async with self.app.store.begin() as tx:
            return {device.address: str(device.state) for device in await tx.srm.devices(self.host)}


def cleaned(address: str, job: str, *, ok: bool = True, **changes: Any) -> Cleaned:
    """Return the result of a cleaning."""
    result = Cleaned(address, job, ok, 0 if ok else 1, 2.5, digest("argv"), digest("output"))
    return replace(result, **changes)
