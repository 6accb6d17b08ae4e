"""The store port: short transactions over rows, on SQLite and PostgreSQL alike.

``begin()`` opens one transaction; leaving the block commits, an exception rolls back. Nothing from outside (cloud, network, guest)
is awaited inside one. Raises `StoreUnavailable` when the database does not answer.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from beamdesk.domain.catalog import Resources
from beamdesk.domain.desktop import Desired, Desktop, Phase, QueuePlace, Reason, Shape
from beamdesk.domain.events import Event, NewEvent
from beamdesk.domain.experiment import Experiment
from beamdesk.domain.guest import Guest
from beamdesk.domain.ids import DesktopId, EventId, ExperimentId, PersonId, ServerId, SessionId
from beamdesk.domain.person import Person
from beamdesk.domain.policy import Usage
from beamdesk.domain.session import Login, Session, Ticket
from beamdesk.ports.placing import Placing
from beamdesk.ports.srm import Srm
from beamdesk.protocol.guest import Step


@dataclass(frozen=True, slots=True)
class Claimed:
    """A desktop under a claim: ``token`` proves it until ``until``."""

    desktop: Desktop
    token: str
    until: datetime


@dataclass(frozen=True, slots=True)
class Outcome:
    """The state half of a desktop after one pass, to be applied under the claim."""

    phase: Phase
    phase_since: datetime
    reason: Reason
    detail: str
    observed_generation: int
    admitted: bool
    server_id: ServerId | None
    address: str | None
    attempts: int
    queued_at: datetime | None
    queue: QueuePlace | None
    due_at: datetime
    last_active_at: datetime
    idle_warned_at: datetime | None
    lease_warned_at: datetime | None
    repairs: int = 0
    absent_since: datetime | None = None
    server_generation: int = 0


class Desktops(Protocol):
    """The desktop table."""

    async def get(self, desktop_id: DesktopId) -> Desktop | None:
        """Return one desktop."""

    async def insert(self, desktop: Desktop, *, idempotency_key: str | None = None) -> Desktop:
        """Insert; with a key that the owner used before, return that desktop instead (whatever happened to it since)."""

    async def find_by_key(self, owner: PersonId, idempotency_key: str) -> Desktop | None:
        """Return the desktop that the owner created with this idempotency key."""

    async def page(
        self,
        *,
        owner: PersonId | None = None,
        experiments: tuple[ExperimentId, ...] | None = None,
        after: str | None = None,
        limit: int = 50,
    ) -> tuple[Desktop, ...]:
        """Return desktops owned by ``owner`` or (OR) in ``experiments``; both None = all.

        Newest first; ``after`` is the last id seen.
        """

    async def lock_usage(self, owner: PersonId, experiment: ExperimentId) -> None:
        """Hold back others who ask for the same to the end of the transaction, so that what `usage` says stays true until then.

        Call it before any write of the transaction.
        """

    async def usage(self, *, owner: PersonId | None = None, experiment: ExperimentId | None = None) -> Usage:
        """Sum what counts against a quota: all rows not wanted deleted; resources of those wanted running."""

    async def change_intent(
        self,
        desktop_id: DesktopId,
        *,
        now: datetime,
        desired: Desired | None = None,
        reason: Reason = Reason.USER,
        lease_ends_at: datetime | None = None,
        name: str | None = None,
        shape: Shape | None = None,
        expected_version: int | None = None,
    ) -> Desktop:
        """Write the intent half, generation + 1, version + 1, due now. A desktop wanted deleted stays so.

        ``shape``: its next start needs a server made anew, like this.

        Raises:
            NotFound: no such row. StaleWrite: the version is another than expected.
        """

    async def wake(self, desktop_id: DesktopId, now: datetime) -> None:
        """Make the desktop due now (a hint from the guest, say); absent is fine."""

    async def moves(self) -> bool:
        """Tell whether any desktop is on its way to what is wanted and waits for its server (for the news)."""

    async def wake_moving(self, now: datetime, among: frozenset[DesktopId] | None) -> int:
        """Make rows on their way due now, those under a claim included: all, or ``among``; returns how many."""

    async def claim(
        self, *, token: str, now: datetime, until: datetime, limit: int, woken_only: bool = False
    ) -> tuple[Claimed, ...]:
        """Claim due rows that nobody holds, by one statement: woken ones first, since they are soon done, then the oldest due."""

    async def renew(self, claimed: Claimed, until: datetime) -> bool:
        """Hold on to a claim until later and lock its row to the end of the transaction; False = the claim was lost."""

    async def renew_all(self, claimed: tuple[Claimed, ...], until: datetime) -> frozenset[DesktopId]:
        """Hold on to claims until later; return which are still held, the others were lost."""

    async def tell(self, claimed: Claimed, reason: Reason, detail: str) -> bool:
        """Write why the desktop is where it is while its pass goes on, version + 1; False = the claim was lost."""

    async def apply(self, claimed: Claimed, outcome: Outcome, now: datetime) -> bool:
        """Write the state half and release, WHERE id AND token. False = the claim was lost: nothing was written.

        If the intent changed meanwhile (generation), the row is due now instead of at ``outcome.due_at``. Version grows only if
        something visible changed.
        """

    async def admit(self, claimed: Claimed, total: Resources, now: datetime) -> QueuePlace | None:
        """Give the desktop its share of ``total`` if it fits and nobody is before it in line: sets ``admitted``, returns None.

        Otherwise returns its place. Serialised over all reconcilers. Resources are held by rows with ``admitted`` until they are
        stopped or gone.
        """

    async def admitted_total(self) -> Resources:
        """Sum the resources of all admitted rows."""

    async def holders(self) -> tuple[Desktop, ...]:
        """Return all admitted rows, soonest lease end first (for expected times)."""

    async def remove(self, claimed: Claimed, now: datetime) -> bool:
        """Delete the row (and its guest and tickets) and end its sessions under the claim; False = the claim was lost."""

    async def wake_waiting(self, now: datetime) -> int:
        """Make all rows in the waiting line due now (capacity came free); returns how many."""

    async def wake_silent(self, seen_before: datetime, now: datetime) -> int:
        """Make ready rows due whose guest was last seen before ``seen_before`` (the watchdog); returns how many."""

    async def phases(self) -> dict[DesktopId, Phase]:
        """Return the phase of every row (for the sweeper, to find drift)."""

    async def ready_addresses(self, desktop_ids: frozenset[DesktopId]) -> dict[DesktopId, str]:
        """Return where those of the given desktops that are ready are reached (the gateway asks four times a second)."""

    async def known_ids(self) -> frozenset[DesktopId]:
        """Return the ids of all rows (for the sweeper)."""

    async def removed_among(self, desktop_ids: frozenset[DesktopId]) -> frozenset[DesktopId]:
        """Return those that had a row here once and whose row was removed: the only ones that a sweeper may clean up after."""

    async def due_count(self, now: datetime) -> int:
        """Count due rows (for metrics)."""


class Guests(Protocol):
    """The guest table."""

    async def put(self, guest: Guest) -> None:
        """Insert or replace the guest of a desktop.

        Nonces of earlier guests of this desktop stay valid until they expire, one is spent or `remove`: the server may have been
        started with any of them when an answer got lost.

        Raises:
            LookupError: the desktop's row is gone; the transaction must end here.
        """

    async def remove(self, desktop_id: DesktopId) -> None:
        """Forget the guest: its nonces, its identity and its stream secret are worthless from now on; absent is fine."""

    async def get(self, desktop_id: DesktopId) -> Guest | None:
        """Return the guest of a desktop."""

    async def many(self, desktop_ids: Collection[DesktopId]) -> dict[DesktopId, Guest]:
        """Return the guests of several desktops by one query; those that have none are left out."""

    async def spend_nonce(self, nonce_hash: bytes, token_hash: bytes, now: datetime) -> Guest | None:
        """Exchange an unspent, unexpired nonce for an identity by one atomic UPDATE; None = refused."""

    async def by_token(self, token_hash: bytes) -> Guest | None:
        """Return the guest that holds this identity."""

    async def report(
        self,
        desktop_id: DesktopId,
        *,
        now: datetime,
        steps: tuple[Step, ...],
        failure: str,
        input_idle_s: float,
        cpu: float,
        gpu: float | None,
        worked: bool = False,
    ) -> None:
        """Record what the agent says. ``worked``: it computes so much that this counts as use now."""

    async def put_thumbnail(self, desktop_id: DesktopId, content_type: str, image: bytes, now: datetime) -> None:
        """Keep the newest thumbnail only."""

    async def thumbnail(self, desktop_id: DesktopId) -> tuple[str, bytes, datetime] | None:
        """Return content type, image and time of the newest thumbnail."""


class Sessions(Protocol):
    """Logins, tickets and viewer sessions."""

    async def insert_login(self, login: Login) -> None:
        """Record a login."""

    async def login_by_hash(self, secret_hash: bytes, now: datetime) -> Login | None:
        """Return a login that has not ended."""

    async def end_login(self, login_id: str, now: datetime) -> None:
        """End a login, its tickets and its viewer sessions; absent is fine."""

    async def insert_ticket(self, ticket: Ticket) -> None:
        """Record a ticket."""

    async def spend_ticket(self, ticket_hash: bytes, desktop_id: DesktopId, now: datetime) -> Ticket | None:
        """Spend a ticket for this desktop by one atomic statement; None = unknown, spent, expired or for another desktop."""

    async def insert_session(self, session: Session) -> None:
        """Record a viewer session."""

    async def session_by_hash(self, secret_hash: bytes, desktop_id: DesktopId, now: datetime) -> Session | None:
        """Return an open session of this desktop."""

    async def ended_among(self, session_ids: tuple[SessionId, ...], now: datetime) -> tuple[Session, ...]:
        """Return those of the given sessions that ended or expired: the gateway's revocation feed, one query a poll."""

    async def end_sessions(
        self,
        now: datetime,
        reason: str,
        *,
        session: SessionId | None = None,
        desktop: DesktopId | None = None,
        person: PersonId | None = None,
        experiment: ExperimentId | None = None,
        login_id: str | None = None,
    ) -> int:
        """End the open sessions that match all given keys; returns how many."""

    async def open_sessions(self, desktop_id: DesktopId, now: datetime) -> tuple[Session, ...]:
        """Return the open sessions of a desktop."""

    async def purge(self, before: datetime) -> int:
        """Delete logins, tickets and sessions that ended or expired before ``before``; returns how many."""


class Events(Protocol):
    """The event table."""

    async def add(self, now: datetime, *events: NewEvent) -> None:
        """Write events in this transaction."""

    async def page(
        self,
        *,
        owner: PersonId | None = None,
        actor: PersonId | None = None,
        experiments: tuple[ExperimentId, ...] | None = None,
        desktop_id: DesktopId | None = None,
        after: EventId | None = None,
        before: EventId | None = None,
        limit: int = 50,
        newest_first: bool = True,
    ) -> tuple[Event, ...]:
        """Return events that match ``desktop_id`` (AND) and any of owner, actor, experiments (OR; all None = everything)."""

    async def last_id(self) -> EventId:
        """Return the newest event's id, 0 when there is none."""

    async def purge(self, before: datetime, *, most: int = 1000) -> int:
        """Remove the oldest events, ``most`` at most, from before a time; return how many. The newest event always stays."""


class People(Protocol):
    """People and experiments."""

    async def person(self, person_id: PersonId) -> Person | None:
        """Return a person."""

    async def person_by_login(self, login: str) -> Person | None:
        """Return a person by login name."""

    async def put_person(self, person: Person) -> None:
        """Insert or replace a person."""

    async def experiment(self, experiment_id: ExperimentId) -> Experiment | None:
        """Return an experiment with its team."""

    async def experiments_of(self, person_id: PersonId) -> tuple[Experiment, ...]:
        """Return the experiments with this person in the team, newest first."""

    async def all_experiments(self) -> tuple[Experiment, ...]:
        """Return all experiments (operators, beamline scientists)."""

    async def put_experiment(self, experiment: Experiment) -> None:
        """Insert or replace an experiment and its team."""


class Transaction(Protocol):
    """One open transaction: the tables."""

    @property
    def desktops(self) -> Desktops:
        """The desktop table."""

    @property
    def guests(self) -> Guests:
        """The guest table."""

    @property
    def sessions(self) -> Sessions:
        """Logins, tickets, viewer sessions."""

    @property
    def events(self) -> Events:
        """The event table."""

    @property
    def people(self) -> People:
        """People and experiments."""

    @property
    def srm(self) -> Srm:
        """Hosts and devices as their agents report them."""

    @property
    def placing(self) -> Placing:
        """Where desktops are placed, what was decided, what is booked."""


class Store(Protocol):
    """The database."""

    def begin(self, *, write: bool = False) -> AbstractAsyncContextManager[Transaction]:
        """Open a transaction; ``write`` takes the write lock at once where the database has one (SQLite)."""

    async def wait_for_events(self, after: EventId, timeout_s: float) -> None:
        """Return when there may be events newer than ``after``, or at the timeout; a hint (LISTEN/NOTIFY, polling)."""

    async def may_be_due(self, now: datetime) -> bool:
        """Tell whether a claim could take anything: much cheaper than one that takes nothing. Unsure is true."""

    async def wait_for_work(self, timeout_s: float) -> None:
        """Return when a row may have become due by an intent or a wake since the last call, or at the timeout; a hint."""

    async def close(self) -> None:
        """Close all connections."""
