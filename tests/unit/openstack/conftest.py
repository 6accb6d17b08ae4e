"""What looks after a cloud in memory."""

from __future__ import annotations

import pytest

from beamdesk.adapters.openstack.watch import Watch
from unit.openstack.watch_kit import T0, Sight, Time


@pytest.fixture
def sight() -> Sight:
    return Sight()


@pytest.fixture
def clock() -> Time:
    return Time()


@pytest.fixture
def watch(sight: Sight, clock: Time) -> Watch:
    return Watch(sight, monotonic=clock, pause=clock.pause, now=lambda: T0)
