"""The loop that keeps Placement in step with the SRM records. One round every few seconds; a quiet one is one request."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import structlog

from beamdesk.adapters.openstack_placement.model import wanted
from beamdesk.adapters.openstack_placement.projection import Caller, Outcome, Projection
from beamdesk.app.context import App
from beamdesk.app.srm import is_stale
from beamdesk.domain.errors import BeamdeskError

EVERY_S = 10.0
log = structlog.get_logger("beamdesk.placement")


async def project(app: App, projection: Projection, deployment: str) -> Outcome:
    """Do one round with the records as they are now."""
    async with app.store.begin() as tx:
        hosts, devices = await tx.srm.hosts(), await tx.srm.devices()
    stale = frozenset(host.name for host in hosts if is_stale(app, host))
    return await projection.reconcile(wanted(deployment, hosts, devices, stale))


async def run(app: App, cloud: Caller, deployment: str, stop: asyncio.Event, *, every_s: float = EVERY_S) -> None:
    """Work until ``stop``; what fails is tried again, and told when it changes."""
    projection, told = Projection(cloud, deployment), ""
    while not stop.is_set():
        try:
            outcome = await project(app, projection, deployment)
            trouble = f"Nova knows no host {', '.join(sorted(outcome.homeless))}" if outcome.homeless else ""
            if outcome.created or outcome.changed or outcome.deleted:
                log.info("placement.written", created=outcome.created, changed=outcome.changed, deleted=outcome.deleted)
        except BeamdeskError as error:
            trouble = error.message
        except Exception:  # the outermost frame of the loop
            log.exception("placement.failed")
            trouble = "unexpected"
        if trouble and trouble != told:
            log.warning("placement.trouble", reason=trouble)
        told = trouble
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), every_s)
