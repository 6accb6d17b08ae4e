"""Schedules for the stage: what Hypothesis may choose from, and how it is played."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from beamdesk.domain.desktop import Desired
from beamdesk.domain.ids import DesktopId
from beamdesk.domain.server import HostState, Remedy
from engine_stage import NAMES, Stage

_CALLS = ("create_server", "start_server", "stop_server", "delete_server", "delete_home", "find_servers", "list_servers")
_FAULTS = (
    "stale",
    "incomplete",
    *(f"broken {remedy}" for remedy in Remedy),
    *(f"{kind} {call}" for kind in ("lost", "down") for call in _CALLS),
    "refused create_server",
)
_WHO = st.integers(0, 2)
_WHICH = st.integers(0, len(NAMES) - 1)
_GATES = st.sampled_from(["write before", "write before", "write between", "write after", "committed"])
_STEPS = st.tuples(st.just("step"), _WHO, st.integers(1, 12))

MOVES = st.one_of(
    _STEPS,
    st.tuples(st.just("pass"), _WHO),
    st.tuples(st.just("pass"), _WHO),
    st.tuples(st.just("work"), st.integers(2, 8)),
    st.tuples(st.just("hold"), _WHO, _GATES),
    st.tuples(st.just("die"), _WHO, _GATES),
    st.tuples(st.just("overtaken"), _WHO, _GATES),
    st.tuples(st.just("overtaken"), _WHO, _GATES),
    st.tuples(st.just("crash"), _WHO),
    st.tuples(st.just("advance"), st.sampled_from([0.1, 0.5, 1.1, 4, 7, 16, 61, 200, 601])),
    st.tuples(st.just("guests"), st.integers(1, 8)),
    st.tuples(st.just("apply"), _WHICH),
    st.tuples(st.just("want"), _WHICH, st.sampled_from(Desired)),
    st.tuples(st.just("rebuild"), _WHICH),
    st.tuples(st.just("resize"), _WHICH),
    st.tuples(st.just("lease"), _WHICH),
    st.tuples(st.just("spoil"), st.sampled_from(_FAULTS)),
    st.tuples(st.just("kill"), _WHICH),
    st.tuples(st.just("silence"), _WHICH),
    st.tuples(st.just("strand"), _WHICH, st.sampled_from([HostState.SILENT, HostState.DOWN])),
    st.tuples(st.just("guest_fails"), _WHICH),
    st.tuples(st.just("sweep")),
)
SCHEDULES = st.lists(MOVES, min_size=10, max_size=50)


async def play(stage: Stage, schedule: list[tuple[Any, ...]], *, one_server: bool) -> None:
    """Play a schedule, checking after every move what must always hold."""
    await stage.apply_for(0)
    for move in schedule:
        if not await stage.play_more(*move):
            await _play_one(stage, *move)
        await stage.check_always(one_server=one_server)


async def _play_one(stage: Stage, name: str, *details: Any) -> None:  # noqa: C901, PLR0912  # a table of moves
    match name, *details:
        case "step", who, times:
            await stage.step(who, times)
        case "pass", who:
            await stage.whole_pass(who)
        case "work", times:
            for _ in range(times):
                stage.clock.advance(0.3)
                await stage.whole_pass(0)
                await stage.guests.tick()
        case "hold", who, gate:
            await stage.run_until(who, gate)
        case "die", who, gate:
            if await stage.run_until(who, gate):
                await stage.crash(who)
                stage.clock.advance(16)
        case "overtaken", who, gate:
            if await stage.run_until(who, gate):
                stage.clock.advance(16)
                await stage.whole_pass(who + 1)
                await stage.whole_pass(who + 1)
                await stage.whole_pass(who)
        case "crash", who:
            await stage.crash(who)
        case "advance", seconds:
            stage.clock.advance(seconds)
        case "guests", ticks:
            for _ in range(ticks):
                stage.clock.advance(0.1)
                await stage.guests.tick()
        case "apply", which:
            await stage.apply_for(which)
        case "want", which, desired:
            await stage.want(which, desired)
        case "rebuild", which:
            await stage.rebuild(which)
        case "resize", which:
            await stage.resize(which)
        case "lease", which:
            await stage.end_lease(which)
        case "spoil", kind:
            stage.spoil(kind)
        case "kill", which:
            stage.cloud.kill(DesktopId(NAMES[which]))
        case "silence", which:
            stage.guests.silent.add(DesktopId(NAMES[which]))
        case "strand", which, host:
            stage.cloud.strand(DesktopId(NAMES[which]), host)
            stage.guests.silent.add(DesktopId(NAMES[which]))
        case "guest_fails", which:
            stage.guests.failing[DesktopId(NAMES[which])] = "The X server ended."
        case ("sweep",):
            await stage.sweeper.sweep()
