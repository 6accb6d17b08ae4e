"""Sign in, sign out, and who is asking."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil

from beamdesk.app.context import App
from beamdesk.app.limits import RateLimit
from beamdesk.domain.errors import NotSignedIn, TooManyRequests
from beamdesk.domain.events import EventKind, NewEvent
from beamdesk.domain.ids import PersonId
from beamdesk.domain.person import Person
from beamdesk.domain.secrets import hash_secret
from beamdesk.domain.session import Login


def session_cookie(portal_origin: str) -> str:
    """Return the name of the portal's cookie: by its prefix bound to host and path where browsers come by HTTPS (RFC 6265bis)."""
    return "__Host-beamdesk_session" if portal_origin.startswith("https://") else "beamdesk_session"


@dataclass(frozen=True, slots=True)
class Caller:
    """A signed-in person and the login through which they ask."""

    person: Person
    login_id: str


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A fresh login with its secret, which is shown once."""

    caller: Caller
    login: Login
    secret: str = field(repr=False)


async def sign_in(app: App, login: str, password: str, *, kind: str, address: str = "local") -> SignedIn:
    """Verify a name and password and open a login of ``kind`` (``browser`` or ``cli``) for somebody at network ``address``.

    Raises:
        NotSignedIn: wrong name or password, or this site has no password sign-in. The text never says which.
        TooManyRequests: too many failures for this name or from this address.
    """
    buckets = ((app.limits.sign_in_login, login.casefold()[:64]), (app.limits.sign_in_address, address))
    _count_attempt(app, buckets)
    person_id = await app.sign_in.verify(login, password) if app.sign_in else None
    if person_id is None:
        await _record_refusal(app, login)
        raise NotSignedIn("The name or the password is wrong. Check both and try again.", field="password")
    for limit, key in buckets:
        limit.give_back(key, app.clock.now())
    return await open_login(app, person_id, kind=kind)


async def _record_refusal(app: App, login: str) -> None:
    """Record it for the person of that name, who may want to know. What was typed is not kept: it may be a password."""
    async with app.store.begin(write=True) as tx:
        sensible = login.isascii() and login.isprintable()
        person = await tx.people.person_by_login(login) if sensible else None
        data = {"action": "sign_in", "code": NotSignedIn.code}
        await tx.events.add(
            app.clock.now(), NewEvent(EventKind.SIGN_IN_REFUSED, owner=person.id if person else None, data=dict(data))
        )


def _count_attempt(app: App, buckets: tuple[tuple[RateLimit, str], ...]) -> None:
    """Take a token before the check, so that parallel attempts cannot all pass; not audited: a flood must not fill the log."""
    now = app.clock.now()
    for limit, key in buckets:
        wait_s = limit.take(key, now)
        if wait_s:
            raise TooManyRequests(
                f"Too many failed sign-ins. Wait {ceil(wait_s)} s and try again.", field="password", retry_after_s=ceil(wait_s)
            )


async def open_login(app: App, person_id: PersonId, *, kind: str) -> SignedIn:
    """Open a login for a person whose identity is already proven."""
    now, secret = app.clock.now(), app.secrets.token()
    login = Login(app.secrets.id(), person_id, hash_secret(secret), kind, now, now + app.rules.login_ttl)
    async with app.store.begin(write=True) as tx:
        person = await tx.people.person(person_id)
        if person is None:
            raise NotSignedIn("This account is not known here. Ask the user office.")
        await tx.sessions.insert_login(login)
        await tx.events.add(now, NewEvent(EventKind.SIGNED_IN, person.id, owner=person.id, data={"kind": kind}))
    return SignedIn(Caller(person, login.id), login, secret)


async def identify(app: App, secret: str) -> Caller:
    """Return who holds this login secret.

    Raises:
        NotSignedIn: unknown or ended.
    """
    async with app.store.begin() as tx:
        login = await tx.sessions.login_by_hash(hash_secret(secret), app.clock.now())
        person = await tx.people.person(login.person) if login else None
    if login is None or person is None:
        raise NotSignedIn("Your sign-in has ended. Sign in again.")
    return Caller(person, login.id)


async def sign_out(app: App, caller: Caller) -> None:
    """End the login and, with it, its tickets and every stream that it opened."""
    now = app.clock.now()
    async with app.store.begin(write=True) as tx:
        await tx.sessions.end_login(caller.login_id, now)
        await tx.events.add(now, NewEvent(EventKind.SIGNED_OUT, caller.person.id, owner=caller.person.id))
