"""What agents may say: once, in order, about themselves, with numbers that can be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from apikit import caller, clock_of, events_of
from beamdesk.app import srm
from beamdesk.app.context import App
from beamdesk.domain.errors import Conflict, Forbidden, Invalid, NotSignedIn, TooManyRequests
from beamdesk.domain.srm import OPERATOR_MAY_SET
from beamdesk.protocol.codec import MalformedMessage, decode, encode
from beamdesk.protocol.srm import LendMode, PartsFacts, ProfileFacts, Report
from beamdesk.scheduling.reports import FOLLOWS
from srmkit import FACTS, FIRST, LOAD, OPERATOR, SECOND, Agent, a_card, digest, held, idle

pytestmark = pytest.mark.anyio
PARTS = PartsFacts("mig", 8, True, (ProfileFacts("1g.10gb", 142, 1, (0, 1, 2), 10240),))


async def refusals(app: App) -> list[dict[str, Any]]:
    return [dict(event.data) for event in await events_of(app, "srm.refused")]


async def alarms(app: App) -> list[str]:
    return [str(event.data["kind"]) for event in await events_of(app, "srm.alarm")]


def test_an_operator_may_do_what_the_core_allows() -> None:
    assert OPERATOR_MAY_SET == FOLLOWS


async def test_a_full_report_describes_host_and_cards(app: App) -> None:
    agent = await Agent.reporting(app)
    view = await srm.get_host(app, await caller(app, OPERATOR), "gpu01")
    assert (view.host.facts, view.host.load, view.stale) == (FACTS, LOAD, False)
    assert [device.facts for device in view.devices] == [a_card(FIRST), a_card(SECOND, numa=1)]
    assert await agent.states() == {FIRST: "free", SECOND: "free"}


async def test_an_empty_report_is_a_heartbeat(app: App) -> None:
    agent = await Agent.reporting(app)
    clock_of(app).tick(15)
    before = await srm.get_host(app, await caller(app, OPERATOR), "gpu01")
    assert await agent.say()
    after = await srm.get_host(app, await caller(app, OPERATOR), "gpu01")
    assert after.host.seen_at == clock_of(app).now()
    assert after.devices == before.devices
    assert after.host.version == before.host.version


async def test_only_what_changed_is_sent(app: App) -> None:
    agent = await Agent.reporting(app)
    await agent.say(loads=(replace(idle(SECOND), temperature_c=61),))
    assert (await agent.device(SECOND)).load.temperature_c == 61
    assert (await agent.device(FIRST)).load == idle(FIRST)


async def test_a_report_whose_answer_was_lost_may_come_again(app: App) -> None:
    agent = await Agent.reporting(app)
    report = agent.next(loads=(held(),))
    first = await agent.send(report)
    assert (await agent.send(report)).sequence == first.sequence
    assert len([event for event in await events_of(app, "srm.device") if event.data["to"] == "used"]) == 1


async def test_a_changed_report_under_the_same_number_is_refused_and_audited(app: App) -> None:
    agent = await Agent.reporting(app)
    await agent.say(loads=(held(),))
    forged = Report(agent.session, agent.sequence, agent.now, loads=(idle(),))
    with pytest.raises(Conflict, match="out of order"):
        await agent.send(forged)
    assert await agent.states() == {FIRST: "used", SECOND: "free"}
    assert (await refusals(app))[-1]["host"] == "gpu01"


@pytest.mark.parametrize("number", [1, 3, 9])
async def test_a_number_out_of_order_is_refused(app: App, number: int) -> None:
    agent = await Agent.reporting(app)
    with pytest.raises(Conflict):
        await agent.send(replace(agent.next(), sequence=number))
    assert len(await refusals(app)) == 1


async def test_a_replay_of_an_earlier_session_is_refused(app: App) -> None:
    agent = await Agent.reporting(app)
    old = agent.next(loads=(held(),))
    await agent.open()
    with pytest.raises(Conflict, match="session is over"):
        await agent.send(old)
    assert await agent.states() == {FIRST: "free", SECOND: "free"}


async def test_a_session_begins_with_a_full_report(app: App) -> None:
    agent = await Agent.reporting(app)
    await agent.open()
    with pytest.raises(Invalid, match="full"):
        await agent.say(loads=(idle(),))


async def test_a_wrong_credential_is_refused_and_in_the_end_not_even_looked_at(app: App) -> None:
    agent = await Agent.reporting(app)
    agent.credential = "stolen?"
    for _ in range(int(app.limits.srm_stranger.burst) - 1):
        with pytest.raises(NotSignedIn):
            await agent.say()
    with pytest.raises(TooManyRequests):
        await agent.say()


async def test_a_host_that_floods_is_slowed_down(app: App) -> None:
    agent = await Agent.reporting(app)
    while not app.limits.srm_report.take("gpu01", clock_of(app).now()):
        pass
    with pytest.raises(TooManyRequests):
        await agent.say()
    assert await refusals(app) == []


@pytest.mark.parametrize(
    ("parts", "field"),
    [
        ({"host": replace(FACTS, memory_mib=-1)}, "host.memory_mib"),
        ({"host": replace(FACTS, cpus=0)}, "host.cpus"),
        ({"host": replace(FACTS, cpus=10**9)}, "host.cpus"),
        ({"host": replace(FACTS, cpus=65)}, "host.numa"),
        ({"host": replace(FACTS, memory_mib=262145)}, "host.numa"),
        ({"load": replace(LOAD, cpu=1.5)}, "load.cpu"),
        ({"load": replace(LOAD, cpu=float("nan"))}, "load.cpu"),
        ({"load": replace(LOAD, memory_used_mib=-5)}, "load.memory_used_mib"),
        ({"cards": (a_card(memory_mib=-1),)}, "cards[0].memory_mib"),
        ({"cards": (a_card(memory_mib=0),)}, "cards[0].memory_mib"),
        ({"cards": (a_card(memory_mib=1 << 40),)}, "cards[0].memory_mib"),
        ({"cards": (a_card(cores=-10752),)}, "cards[0].cores"),
        ({"cards": (a_card(clock_mhz=10**6),)}, "cards[0].clock_mhz"),
        ({"cards": (a_card(bandwidth_gbs=0),)}, "cards[0].bandwidth_gbs"),
        ({"cards": (a_card(link_gts=float("inf")),)}, "cards[0].link_gts"),
        ({"cards": (a_card(numa=-1),)}, "cards[0].numa"),
        ({"cards": (a_card(numa=2),)}, "cards.numa"),
        ({"cards": (a_card(model="\x1b[31m"),)}, "cards[0].model"),
        ({"cards": (a_card(model=" "),)}, "cards[0].model"),
        ({"cards": (a_card(device="22 0"),)}, "cards[0].device"),
        ({"cards": (a_card("../../etc"),)}, "cards"),
        ({"cards": (a_card(), a_card())}, "cards"),
        ({"cards": (a_card(mode=LendMode.MIG),)}, "cards[0].parts"),
        ({"cards": (a_card(parts=PARTS),)}, "cards[0].parts"),
        ({"cards": (a_card(mode=LendMode.MIG, parts=replace(PARTS, slots=0)),)}, "cards[0].parts.slots"),
        ({"cards": tuple(a_card(f"0000:{bus:02x}:00.0") for bus in range(65))}, "cards"),
        ({"loads": (replace(idle(), busy=-0.1),)}, "loads[0].busy"),
        ({"loads": (replace(idle(), busy=float("nan")),)}, "loads[0].busy"),
        ({"loads": (replace(idle(), temperature_c=2000),)}, "loads[0].temperature_c"),
        ({"loads": (replace(idle(), holder="server-1"),)}, "loads[0].holder"),
        ({"loads": (replace(held(), holder="x" * 65),)}, "loads[0].holder"),
        ({"gone": (FIRST, FIRST)}, "gone"),
        ({"sent_at": float("nan")}, "sent_at"),
        ({"sent_at": -1.0}, "sent_at"),
        ({"full": True}, "full"),
    ],
)  # fmt: skip
async def test_what_cannot_be_is_refused_by_field_and_audited(app: App, parts: dict[str, Any], field: str) -> None:
    agent = await Agent.reporting(app)
    before = await agent.device()
    with pytest.raises(Invalid) as refused:
        await agent.say(**parts)
    assert refused.value.field == field
    assert await agent.device() == before
    assert [one["field"] for one in await refusals(app)] == [field]
    assert await agent.say(), "the next honest report counts"


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_that_is_none_does_not_even_decode(number: str) -> None:
    body = encode(Report("s", 1, 7.5)).decode().replace("7.5", number)
    with pytest.raises(MalformedMessage):
        decode(Report, body)


@pytest.mark.parametrize(("off", "told"), [(-4, []), (4, []), (-90, ["clock_skew"]), (90, ["clock_skew"])])
async def test_a_clock_that_is_a_little_off_is_tolerated(app: App, off: float, told: list[str]) -> None:
    agent = await Agent.reporting(app)
    await agent.say(sent_at=agent.now + off)
    await agent.say(sent_at=agent.now + off)
    assert await alarms(app) == told, "told once"
    assert (await srm.get_host(app, await caller(app, OPERATOR), "gpu01")).host.skew_s == pytest.approx(off)


@pytest.mark.parametrize(("off", "words"), [(-301, "301 s behind"), (3600, "3600 s ahead of")])
async def test_a_clock_far_off_is_refused_with_the_reason(app: App, off: float, words: str) -> None:
    agent = await Agent.reporting(app)
    with pytest.raises(Conflict, match=words):
        await agent.say(sent_at=agent.now + off)
    with pytest.raises(Conflict, match=words):
        await agent.open(sent_at=agent.now + off)
    assert [words in str(one["reason"]) for one in await refusals(app)] == [True, True]


async def test_a_token_enrols_one_agent_once(app: App) -> None:
    made = await srm.make_enrolment(app, await caller(app, OPERATOR), "gpu01")
    await Agent(app).enrol(made.token)
    with pytest.raises(Forbidden):
        await Agent(app).enrol(made.token)


async def test_a_token_ends(app: App) -> None:
    made = await srm.make_enrolment(app, await caller(app, OPERATOR), "gpu01")
    clock_of(app).tick(app.rules.srm.enrolment_ttl.total_seconds())
    with pytest.raises(Forbidden):
        await Agent(app).enrol(made.token)


async def test_a_token_is_for_one_name(app: App) -> None:
    made = await srm.make_enrolment(app, await caller(app, OPERATOR), "gpu01")
    with pytest.raises(Forbidden):
        await Agent(app, "gpu02").enrol(made.token)
    assert (await refusals(app))[-1]["host"] == "gpu01"


async def test_a_machine_has_one_name(app: App) -> None:
    await Agent.enrolled(app)
    other = await srm.make_enrolment(app, await caller(app, OPERATOR), "gpu02")
    with pytest.raises(Conflict, match="another name"):
        await Agent(app, "gpu02", digest("gpu01")).enrol(other.token)


async def test_two_hosts_with_one_name_are_refused(app: App) -> None:
    agent = await Agent.reporting(app)
    with pytest.raises(Conflict, match="enrolled already"):
        await srm.make_enrolment(app, await caller(app, OPERATOR), "gpu01")
    copy = replace(agent, machine=digest("another machine"))
    with pytest.raises(Conflict, match="two hosts"):
        await copy.open()
    assert await agent.say(), "the real one goes on"
    assert (await refusals(app))[-1]["field"] == "machine"


async def test_enrolling_again_voids_the_old_credential(app: App) -> None:
    agent = await Agent.reporting(app)
    made = await srm.make_enrolment(app, await caller(app, OPERATOR), "gpu01", again=True)
    with pytest.raises(NotSignedIn):
        await agent.say()
    replaced = Agent(app, machine=digest("new machine"))
    await replaced.enrol(made.token)
    await replaced.open()
    assert await replaced.say_all((a_card(),))


async def test_secrets_are_stored_hashed(app: App) -> None:
    agent = await Agent.enrolled(app)
    async with app.store.begin() as tx:
        host = await tx.srm.host("gpu01")
    assert agent.credential not in repr(host)
    assert host is not None
    assert host.token_hash is not None
    assert agent.credential.encode() not in host.token_hash


@pytest.mark.parametrize("person", ["ada", "bob", "chen"])
async def test_only_operators_may(app: App, person: str) -> None:
    await Agent.reporting(app)
    nobody = await caller(app, person)
    for ask in (
        srm.list_hosts(app, nobody), srm.get_host(app, nobody, "gpu01"), srm.make_enrolment(app, nobody, "gpu02"),
        srm.change_host(app, nobody, "gpu01", enabled=False), srm.remove_host(app, nobody, "gpu01"),
        srm.make_consumer(app, nobody, "nova"), srm.history(app, nobody, "gpu01", "", 1),
        srm.forget_device(app, nobody, "gpu01", FIRST),
    ):  # fmt: skip
        with pytest.raises(Forbidden):
            await ask
    assert len(await events_of(app, "refused")) == 8
