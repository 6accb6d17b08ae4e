"""The life of a card: used, dirty, cleaning, free; failed is quarantine. What is lent is never forgotten."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apikit import START, caller, clock_of, events_of
from beamdesk.app import srm, srm_devices
from beamdesk.app.context import App
from beamdesk.app.srm_upkeep import purge_history, upkeep
from beamdesk.domain.errors import Conflict
from beamdesk.domain.srm import CardState, DeviceRecord, StateReason, observe
from beamdesk.protocol.srm import CardLoad, LendMode
from beamdesk.scheduling.reports import FOLLOWS
from srmkit import FIRST, LOAD, OPERATOR, SECOND, Agent, a_card, cleaned, held, idle

pytestmark = pytest.mark.anyio


async def alarms(app: App) -> list[str]:
    return [str(event.data["kind"]) for event in await events_of(app, "srm.alarm")]


async def set_state(app: App, state: CardState, address: str = FIRST) -> DeviceRecord:
    return await srm.set_device(app, await caller(app, OPERATOR), "gpu01", address, state, why="test")


async def test_a_card_that_a_server_holds_is_used_and_then_dirty(app: App) -> None:
    agent = await Agent.reporting(app)
    await agent.say(loads=(held(),))
    device = await agent.device()
    assert (device.state, device.reason, device.holder) == (CardState.USED, StateReason.HELD, "server-1")
    await agent.say(loads=(idle(),))
    device = await agent.device()
    assert (device.state, device.reason, device.holder) == (CardState.DIRTY, StateReason.RELEASED, "")


async def test_used_dirty_cleaning_free(app: App) -> None:
    agent = await Agent.reporting(app, can_clean=True)
    await agent.say(loads=(held(),))
    (order,) = (await agent.say(loads=(idle(),))).clean
    assert order.address == FIRST
    assert await agent.states() == {FIRST: "cleaning", SECOND: "free"}
    assert (await agent.say()).clean == (order,), "told until there is a result"
    assert (await agent.say(cleaned=(cleaned(FIRST, order.job),))).clean == ()
    device = await agent.device()
    assert (device.state, device.reason) == (CardState.FREE, StateReason.CLEANED)
    assert device.detail.startswith("command ")
    told = [
        (event.data["from"], event.data["to"]) for event in await events_of(app, "srm.device") if event.data["address"] == FIRST
    ]
    assert told == [("", "free"), ("free", "used"), ("used", "cleaning"), ("cleaning", "free")]


async def test_without_a_hook_a_card_stays_dirty_until_an_operator_attests(app: App) -> None:
    agent = await Agent.reporting(app)
    await agent.say(loads=(held(),))
    assert (await agent.say(loads=(idle(),))).clean == ()
    with pytest.raises(Conflict, match="can be set to: cleaning, failed"):
        await set_state(app, CardState.FREE)
    await set_state(app, CardState.CLEANING)
    assert (await agent.say()).clean == ()
    assert (await set_state(app, CardState.FREE)).reason is StateReason.OPERATOR


async def test_a_forged_cleaning_frees_nothing(app: App) -> None:
    agent = await Agent.reporting(app, can_clean=True)
    await agent.say(loads=(held(),))
    await agent.say(loads=(idle(),))
    await agent.say(cleaned=(cleaned(FIRST, "guessed"), cleaned(SECOND, "")))
    assert (await agent.device()).state is CardState.CLEANING
    assert await alarms(app) == ["cleaning_unknown", "cleaning_unknown"]


async def test_a_cleaning_counts_once(app: App) -> None:
    agent = await Agent.reporting(app, can_clean=True)
    await agent.say(loads=(held(),))
    (order,) = (await agent.say(loads=(idle(),))).clean
    await agent.say(cleaned=(cleaned(FIRST, order.job),))
    await agent.say(loads=(held(),))
    await agent.say(loads=(idle(),))
    await agent.say(cleaned=(cleaned(FIRST, order.job),))
    assert (await agent.device()).state is CardState.CLEANING


async def test_a_card_that_cannot_be_cleaned_is_quarantined(app: App) -> None:
    agent = await Agent.reporting(app, can_clean=True)
    await agent.say(loads=(held(),))
    reply = await agent.say(loads=(idle(),))
    jobs = set()
    for _ in range(app.rules.srm.clean_attempts):
        (order,) = reply.clean
        jobs.add(order.job)
        reply = await agent.say(cleaned=(cleaned(FIRST, order.job, ok=False, detail="reset failed"),))
    assert len(jobs) == app.rules.srm.clean_attempts
    assert reply.clean == ()
    assert await agent.states() == {FIRST: "failed", SECOND: "free"}
    assert await alarms(app) == ["cleaning_failed"]
    await set_state(app, CardState.DIRTY)
    assert len((await agent.say()).clean) == 1, "an operator may have it tried again"


async def test_a_card_that_is_held_after_its_cleaning_is_not_free(app: App) -> None:
    agent = await Agent.reporting(app, can_clean=True)
    await agent.say(loads=(held(),))
    (order,) = (await agent.say(loads=(idle(),))).clean
    await agent.say(loads=(held(holder="intruder"),), cleaned=(cleaned(FIRST, order.job),))
    assert (await agent.device()).state is CardState.DIRTY


async def test_a_cleaning_without_a_result_fails_in_time(app: App) -> None:
    agent = await Agent.reporting(app, can_clean=True)
    await agent.say(loads=(held(),))
    (order,) = (await agent.say(loads=(idle(),))).clean
    clock_of(app).tick(app.rules.srm.clean_timeout.total_seconds())
    await upkeep(app)
    device = await agent.device()
    assert (device.state, device.attempts, device.job) == (CardState.DIRTY, 1, "")
    await upkeep(app)
    assert (await agent.device()) == device
    await agent.say(cleaned=(cleaned(FIRST, order.job),))
    assert (await agent.device()).state is CardState.CLEANING, "too late: another job is under way"


async def test_a_card_in_use_that_is_not_reported_is_failed_and_alarmed(app: App) -> None:
    agent = await Agent.reporting(app)
    await agent.say(loads=(held(),))
    await agent.open()
    await agent.say_all((a_card(SECOND, numa=1),))
    device = await agent.device()
    assert (device.state, device.reason, device.present, device.holder) == (
        CardState.FAILED,
        StateReason.MISSING,
        False,
        "server-1",
    )
    assert await alarms(app) == ["card_missing_in_use"]
    await agent.say()
    assert await alarms(app) == ["card_missing_in_use"], "told once"


async def test_a_card_that_comes_back_is_dirty(app: App) -> None:
    agent = await Agent.reporting(app)
    await agent.say(gone=(FIRST,))
    assert await agent.states() == {FIRST: "failed", SECOND: "free"}
    await agent.say(cards=(a_card(),), loads=(idle(),))
    assert await agent.states() == {FIRST: "dirty", SECOND: "free"}


async def test_another_card_in_the_same_slot_is_dirty_and_told(app: App) -> None:
    agent = await Agent.reporting(app)
    await agent.say(cards=(a_card(device="26b1", model="RTX 6000 Ada Generation"),))
    assert (await agent.device()).state is CardState.DIRTY
    assert await alarms(app) == ["card_replaced"]


async def test_a_card_with_a_fault_is_quarantined_until_an_operator_says_otherwise(app: App) -> None:
    agent = await Agent.reporting(app)
    await agent.say(loads=(CardLoad(FIRST, held=False, fault="fell off the bus"),))
    await agent.say(loads=(idle(),))
    assert (await agent.device()).state is CardState.FAILED
    assert await alarms(app) == ["card_fault"]
    assert (await set_state(app, CardState.DIRTY)).state is CardState.DIRTY


async def test_a_server_on_a_dirty_card_is_told_and_changes_nothing(app: App) -> None:
    agent = await Agent.reporting(app)
    await set_state(app, CardState.DIRTY)
    await agent.say(loads=(held(),))
    assert (await agent.device()).state is CardState.DIRTY
    assert await alarms(app) == ["card_held"]
    with pytest.raises(Conflict, match="still holds"):
        await set_state(app, CardState.CLEANING)


async def test_a_claimed_card_waits_for_its_server(app: App) -> None:
    agent = await Agent.reporting(app)
    async with app.store.begin(write=True) as tx:
        await srm_devices.lend(tx, "gpu01", FIRST, "desktop1", clock_of(app).now())
        await srm_devices.lend(tx, "gpu01", FIRST, "desktop1", clock_of(app).now())
    await agent.say(loads=(idle(),))
    assert (await agent.device()).state is CardState.USED
    with pytest.raises(Conflict, match="used, not free"):
        async with app.store.begin(write=True) as tx:
            await srm_devices.lend(tx, "gpu01", FIRST, "desktop2", clock_of(app).now())
    async with app.store.begin(write=True) as tx:
        await srm_devices.give_back(tx, "gpu01", FIRST, clock_of(app).now())
        await srm_devices.give_back(tx, "gpu01", FIRST, clock_of(app).now())
    assert (await agent.device()).state is CardState.DIRTY


async def test_a_silent_host_goes_stale_once_and_comes_back(app: App) -> None:
    agent = await Agent.reporting(app)
    clock_of(app).tick(app.rules.srm.stale_after.total_seconds() + 1)
    await upkeep(app)
    await upkeep(app)
    assert await alarms(app) == ["host_silent"]
    assert (await srm.get_host(app, await caller(app, OPERATOR), "gpu01")).stale
    await agent.say()
    assert not (await srm.get_host(app, await caller(app, OPERATOR), "gpu01")).stale
    assert [event.data.get("change") for event in await events_of(app, "srm.host")][-1] == "back"


async def test_history_has_a_point_a_minute_and_ends(app: App) -> None:
    agent = await Agent.reporting(app)
    for _ in range(8):
        clock_of(app).tick(15)
        await agent.say(load=LOAD, loads=(replace(idle(), busy=0.5, temperature_c=60),))
    operator = await caller(app, OPERATOR)
    points = await srm.history(app, operator, "gpu01", FIRST, 1)
    assert [(point.at - START).total_seconds() for point in points] == [0, 60, 120]
    assert [(point.state, point.busy, point.temperature_c) for point in points[1:]] == [("free", 0.5, 60)] * 2
    assert [point.busy for point in await srm.history(app, operator, "gpu01", "", 1)] == [0.25] * 3
    clock_of(app).tick(app.rules.srm.history.total_seconds() - 100)
    assert await purge_history(app) == 3
    assert len(await srm.history(app, operator, "gpu01", FIRST, 2400)) == 2


async def test_a_host_with_a_used_card_is_not_forgotten(app: App) -> None:
    agent = await Agent.reporting(app)
    operator = await caller(app, OPERATOR)
    await agent.say(loads=(held(),))
    with pytest.raises(Conflict, match="in use"):
        await srm.remove_host(app, operator, "gpu01")
    with pytest.raises(Conflict, match="still reports"):
        await srm.forget_device(app, operator, "gpu01", FIRST)
    await agent.say(loads=(idle(),))
    await srm.remove_host(app, operator, "gpu01")
    await srm.remove_host(app, operator, "gpu01")
    assert await srm.list_hosts(app, operator) == ()


async def test_a_resync_is_asked_for_until_it_comes(app: App) -> None:
    agent = await Agent.reporting(app)
    await srm.change_host(app, await caller(app, OPERATOR), "gpu01", resync=True)
    assert (await agent.say()).resync
    assert not (await agent.say_all((a_card(FIRST), a_card(SECOND, numa=1)))).resync


_LOADS = st.sampled_from(
    [None, idle(), held(), held(holder="b"), CardLoad(FIRST, held=True), CardLoad(FIRST, held=False, fault="x")]
)
_BY_OBSERVING = {old: set(new) for old, new in FOLLOWS.items()}
_BY_OBSERVING[CardState.FREE].add(CardState.USED)
_BY_OBSERVING[CardState.USED].add(CardState.DIRTY)


@given(
    st.sampled_from(CardState), st.sampled_from(StateReason), st.sampled_from(LendMode), st.booleans(),
    st.lists(st.tuples(st.booleans(), _LOADS), min_size=1, max_size=6),
)  # fmt: skip
def test_observing_follows_the_edges_and_never_frees(
    state: CardState, reason: StateReason, mode: LendMode, present: bool, said: list[tuple[bool, CardLoad | None]]
) -> None:
    device = DeviceRecord("h", FIRST, a_card(mode=mode), state, START, reason, present=present)
    for there, load in said:
        after, _alarm = observe(replace(device, present=there, load=load), START)
        assert after.state is device.state or after.state in _BY_OBSERVING[device.state]
        assert after.state is not CardState.FREE or device.state is CardState.FREE
        assert observe(after, START) == (after, None), "the same report again changes and tells nothing"
        device = after
