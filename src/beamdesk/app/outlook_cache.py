"""The last answers of this process about what can be had, each under a key of everything that it rests on."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field

from beamdesk.domain.outlook import Outlooks

KEPT = 64


@dataclass(slots=True)
class OutlookCache:
    """The last answers of this process. The lock keeps many people who ask at once from asking the core as often."""

    answers: OrderedDict[Hashable, Outlooks] = field(default_factory=OrderedDict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def find(self, key: Hashable) -> Outlooks | None:
        """Return what is known under a key."""
        return self.answers.get(key)

    def keep(self, key: Hashable, answer: Outlooks) -> None:
        """Keep an answer instead of the oldest."""
        self.answers[key] = answer
        if len(self.answers) > KEPT:
            self.answers.popitem(last=False)
