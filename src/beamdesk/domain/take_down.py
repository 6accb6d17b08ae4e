"""Rules towards a stopped and towards a deleted desktop. Neither ever gives up. Part of `lifecycle`. Pure."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from beamdesk.domain.decision import HOST_SILENT, Decision, Situation, Step
from beamdesk.domain.desktop import Phase, Reason
from beamdesk.domain.server import HostState, Server, ServerStatus

_NOW = timedelta()
_RUNS = frozenset({ServerStatus.ACTIVE, ServerStatus.BUILD})


def toward_stopped(s: Situation) -> Decision:
    """Decide for a desktop that is wanted stopped: no server runs, the home stays, the capacity is free."""
    match s.desktop.phase:
        case Phase.STOPPED:
            runs = any(server.status in _RUNS for server in s.servers)
            return _leave(s, Phase.STOPPING) if runs else s.stay(s.timings.rest)
        case Phase.STOPPING:
            return _stopping(s)
        case Phase.QUEUED if not s.desktop.admitted and s.complete and not s.servers:
            return _stopped(s)
        case _:
            return _leave(s, Phase.STOPPING)


def _leave(s: Situation, phase: Phase) -> Decision:
    leaving = s.move(phase, _NOW, reason=s.desktop.desired_reason, absent_since=None)
    return replace(leaving, forget_guest=True)


def _stopping(s: Situation) -> Decision:
    server = s.server
    if s.duplicate:
        return _write(s, s.duplicate, Step.DELETE_DUPLICATE)
    if server is None:
        return s.absent() or _stopped(s)
    match server.status:
        case ServerStatus.ACTIVE | ServerStatus.UNKNOWN:
            return _stop(s, server)
        case ServerStatus.BUILD | ServerStatus.ERROR:  # nothing in it is worth keeping: the home is not in the server
            return _write(s, server, Step.DELETE_SERVER)
        case ServerStatus.SHUTOFF:
            return _stopped(s)
        case _:
            return s.chase(server) or s.stay(s.news_in(s.timings.waiting))


def _stop(s: Situation, server: Server) -> Decision:
    if server.lost:
        return _write(s, server, Step.DELETE_SERVER)
    stopping = _write(s, server, Step.STOP)
    if server.host is HostState.SILENT:
        told = replace(stopping.desktop, reason=Reason.HOST_LOST, detail=HOST_SILENT)
        return replace(stopping, desktop=told)
    return stopping


def _stopped(s: Situation) -> Decision:
    server_id = s.server.id if s.server else None
    stopped = s.move(Phase.STOPPED, s.timings.rest, reason=s.desktop.desired_reason, admitted=False, server_id=server_id)
    return replace(stopped, forget_guest=True)


def toward_deleted(s: Situation) -> Decision:
    """Decide for a desktop that is wanted deleted: servers first, then, when their absence is proven, the home, the row last."""
    if s.desktop.phase is not Phase.DELETING:
        return _leave(s, Phase.DELETING)
    pending = [server for server in s.servers if server.status is not ServerStatus.DELETING]
    if pending:
        return _write(s, pending[-1], Step.DELETE_SERVER)
    if s.server is not None:
        return s.chase(s.server) or s.stay(s.news_in(s.timings.waiting))
    return s.absent() or replace(s.stay(_NOW), step=Step.DELETE_HOME, remove=True)


def _write(s: Situation, server: Server, step: Step) -> Decision:
    return replace(s.stay(s.news_in(s.timings.waiting)), step=step, target=server.id)
