"""How the reconciler works: times and limits. Built from the settings in wiring, passed explicitly."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from beamdesk.domain.decision import Timings
from beamdesk.domain.lease import LeaseRules


@dataclass(frozen=True, slots=True)
class ReconcileRules:
    """``claim``: how long a desktop waits for another reconciler when the one that holds it dies; a living one renews it.

    ``calm``: the longest pause between two looks at a server that is only waited for, while news of it comes (see `news`).
    ``sweep_homes``: how often what deleted desktops left behind is looked for, while nothing is known to be left.
    ``tick``: how often a pass that takes long renews its claim and says so. ``call_timeout``: the longest a cloud call may take
    before its answer counts as lost. ``concurrency``: passes at work; ``stalled_most``: passes besides that wait for a slow cloud.
    ``orders``: how many of all these may give the cloud an order at once: a cloud that is slow is not made slower.
    """

    timings: Timings = field(default_factory=Timings)
    lease: LeaseRules = field(default_factory=LeaseRules)
    concurrency: int = 16
    orders: int = 16
    stalled_most: int = 1000
    claim: timedelta = timedelta(seconds=6)
    tick: timedelta = timedelta(seconds=1)
    call_timeout: timedelta = timedelta(seconds=7)
    poll: timedelta = timedelta(seconds=1)
    calm: timedelta = timedelta(seconds=120)
    watchdog: timedelta = timedelta(seconds=1)
    capacity_for: timedelta = timedelta(seconds=5)
    sweep: timedelta = timedelta(seconds=60)
    sweep_homes: timedelta = timedelta(minutes=5)
    sweep_min_age: timedelta = timedelta(minutes=5)
    sweep_most: int = 5
    keep_sessions: timedelta = timedelta(days=1)
    keep_events: timedelta = timedelta(days=400)
