"""How patient a deployment's reconciler is, and how much it does at once: by its settings, machines otherwise than containers."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from beamdesk.domain.decision import Timings
from beamdesk.reconcile.rules import ReconcileRules
from beamdesk.settings import Settings

_CLOUD_POLL = timedelta(seconds=1)
_REQUESTS_A_CALL = 3
_CLOUD_BOOT_S, _CLOUD_SILENT_S = 600.0, 75.0
"""A machine's first boot on slow storage, and a pause for a live migration, are no reason to start it anew.

Nova calls a host silent after 60 s (``service_down_time``): it should be known before its desktops are repaired."""
_CLOUD_HEALTHY = timedelta(minutes=10)
"""A healthy desktop is looked at so seldom: its agent speaks for it every few seconds, and the sweeper compares all of them with
the cloud once a minute by a constant number of requests."""


def timings(settings: Settings) -> Timings:
    """Return the reconciler's times: machines boot and pause for longer than containers."""
    guest, usual = settings.guest, Timings()
    in_cloud = settings.cloud == "openstack"
    boot = guest.boot_timeout_s or (_CLOUD_BOOT_S if in_cloud else usual.boot_timeout.total_seconds())
    silent = guest.silent_after_s or (_CLOUD_SILENT_S if in_cloud else usual.silent.total_seconds())
    poll = _CLOUD_POLL if in_cloud else usual.poll
    cut_off = max(silent, guest.cut_off_after_s)
    return replace(
        usual,
        poll=poll,
        healthy=_CLOUD_HEALTHY if in_cloud else usual.healthy,
        boot_timeout=timedelta(seconds=boot),
        silent=timedelta(seconds=silent),
        cut_off=timedelta(seconds=cut_off),
    )


def reconcile_rules(settings: Settings) -> ReconcileRules:
    """Return how the reconciler works. A call on OpenStack may take longer than one answer: making a server is several requests."""
    usual = ReconcileRules(timings(settings), settings.lease.rules(), keep_events=timedelta(days=settings.keep_events_days))
    if settings.cloud != "openstack":
        return usual
    places = len(settings.openstack.places) or 1
    call_timeout = timedelta(seconds=_REQUESTS_A_CALL * settings.openstack.call_timeout_s)
    orders = settings.openstack.concurrency * places
    return replace(usual, call_timeout=call_timeout, orders=orders, concurrency=2 * orders)  # the others look and write meanwhile
