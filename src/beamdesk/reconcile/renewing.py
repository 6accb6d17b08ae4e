"""The claims of passes that take long, renewed together: one statement for all of them, however many wait for a slow cloud."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from beamdesk.ports.clock import Clock
from beamdesk.ports.store import Claimed, Store
from beamdesk.reconcile.rules import ReconcileRules


@dataclass(slots=True, eq=False)
class Held:
    """A claim under which a pass goes on. ``lost``: somebody else has the desktop now."""

    claimed: Claimed
    lost: bool = False


class Renewals:
    """The claims that one reconciler holds for long."""

    def __init__(self, store: Store, clock: Clock, rules: ReconcileRules) -> None:
        self._store = store
        self._clock = clock
        self._rules = rules
        self._held: set[Held] = set()
        self._renewing = asyncio.Lock()

    def hold(self, held: Held) -> None:
        """Renew this one, too, from now on."""
        self._held.add(held)

    def release(self, held: Held) -> None:
        """Renew it no more; one that is not held is fine."""
        self._held.discard(held)

    async def renew(self) -> None:
        """Renew all that are half over, if any is, and those that soon will be with them."""
        async with self._renewing:
            now, claim = self._clock.now(), self._rules.claim
            left = {held: held.claimed.until - now for held in self._held if not held.lost}
            if not any(rest < claim / 2 for rest in left.values()):
                return
            due = [held for held, rest in left.items() if rest < claim * 3 / 4]
            async with self._store.begin(write=True) as tx:
                kept = await tx.desktops.renew_all(tuple(held.claimed for held in due), now + claim)
            for held in due:
                if held.claimed.desktop.id in kept:
                    held.claimed = replace(held.claimed, until=now + claim)
                else:
                    held.lost = True
