"""What every use case is given: the ports and the site's rules. Built once in wiring, passed explicitly."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta

from beamdesk.app.limits import Limits
from beamdesk.app.outlook_cache import OutlookCache
from beamdesk.app.snapshots import Snapshots
from beamdesk.domain.catalog import Resources
from beamdesk.domain.ids import DesktopId, ServerId
from beamdesk.domain.lease import LeaseRules
from beamdesk.domain.policy import Quota
from beamdesk.domain.srm import SrmRules
from beamdesk.domain.storage import GuestSite
from beamdesk.ports.catalog import Catalog
from beamdesk.ports.clock import Clock, Secrets
from beamdesk.ports.identity import PasswordSignIn
from beamdesk.ports.store import Store
from beamdesk.scheduling.host import HostFacts
from beamdesk.scheduling.policy import DEFAULT


@dataclass(frozen=True, slots=True)
class SiteRules:
    """Limits that a site sets."""

    lease: LeaseRules = field(default_factory=LeaseRules)
    person_quota: Quota = field(default_factory=lambda: Quota(4, Resources(8, 16 * 1024, 200, 1)))
    experiment_quota: Quota = field(default_factory=lambda: Quota(12, Resources(32, 64 * 1024, 800, 4)))
    ticket_ttl: timedelta = timedelta(seconds=10)
    login_ttl: timedelta = timedelta(hours=12)
    session_ttl: timedelta = timedelta(hours=24)
    srm: SrmRules = field(default_factory=SrmRules)
    policy: str = DEFAULT


@dataclass(frozen=True, slots=True)
class App:
    """The application: ports and rules.

    ``capacity`` returns what desktops may use in total, None where the cloud decides; it raises NotSupported where none can run.
    ``portal_origin`` is the only origin whose pages may change something with the portal's cookie. ``console`` reads the last
    lines of a server's console for operators, ``screen`` asks the cloud for the address of its screen. ``guest_site``: what
    desktops become when they enrol.
    ``hosts``: those among which we choose, None where the cloud does.
    """

    store: Store
    catalog: Catalog
    clock: Clock
    secrets: Secrets
    sign_in: PasswordSignIn | None
    rules: SiteRules
    capacity: Callable[[], Awaitable[Resources | None]]
    desktop_origin: Callable[[DesktopId], str]
    hint: Callable[[], None] = lambda: None
    portal_origin: str = ""
    console: Callable[[ServerId], Awaitable[str]] | None = None
    screen: Callable[[ServerId], Awaitable[str]] | None = None
    guest_site: GuestSite = field(default_factory=GuestSite)
    limits: Limits = field(default_factory=Limits)
    snapshots: Snapshots = field(default_factory=Snapshots)
    hosts: Callable[[], Awaitable[tuple[HostFacts, ...]]] | None = None
    outlooks: OutlookCache = field(default_factory=OutlookCache)
