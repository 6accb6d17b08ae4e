"""Signing in, being asked who one is, and signing out."""

import anyio
import pytest

from apikit import PASSWORD, a_desktop, clock_of, events_of, make_ready, running_app, signed_in
from beamdesk.app.connections import attach, connect, open_session
from beamdesk.app.logins import identify, sign_in, sign_out
from beamdesk.domain.errors import NotSignedIn, TicketRefused, TooManyRequests

pytestmark = pytest.mark.anyio


async def test_the_right_password_signs_in(app):
    fresh = await sign_in(app, "ada", PASSWORD, kind="cli")
    assert (await identify(app, fresh.secret)).person.full_name == "Ada Lin"
    assert [event.actor for event in await events_of(app, "login.created")] == ["ada"]


@pytest.mark.parametrize(
    ("login", "password"), [("ada", "wrong"), ("nobody", PASSWORD), ("", ""), ("ada\x00", PASSWORD), ("\ud800", "x")]
)
async def test_a_wrong_name_or_password_is_refused_alike_and_recorded(app, login, password):
    with pytest.raises(NotSignedIn, match="The name or the password is wrong"):
        await sign_in(app, login, password, kind="cli")
    assert len(await events_of(app, "login.refused")) == 1


async def test_people_see_that_somebody_failed_to_sign_in_as_them(app):
    with pytest.raises(NotSignedIn):
        await sign_in(app, "ada", "wrong", kind="cli")
    with pytest.raises(NotSignedIn):
        await sign_in(app, "canary-typed-into-the-wrong-field", "x", kind="cli")
    assert [event.owner for event in await events_of(app, "login.refused")] == ["ada", None]
    assert "canary" not in repr(await events_of(app))


async def test_a_site_without_password_sign_in_refuses(tmp_path):
    async with running_app(tmp_path, sign_in=None) as app:
        with pytest.raises(NotSignedIn):
            await sign_in(app, "ada", PASSWORD, kind="cli")


async def test_guessing_at_one_name_is_slowed_down_from_any_address(app):
    for number in range(10):
        with pytest.raises(NotSignedIn):
            await sign_in(app, "ada", "wrong", kind="cli", address=f"10.0.0.{number}")
    with pytest.raises(TooManyRequests) as refusal:
        await sign_in(app, "ADA", PASSWORD, kind="cli", address="10.0.0.99")
    assert refusal.value.context["retry_after_s"] == 5
    clock_of(app).tick(5)
    assert await sign_in(app, "ada", PASSWORD, kind="cli")


async def test_guessing_from_one_address_is_slowed_down_whatever_the_name(app):
    for number in range(30):
        with pytest.raises(NotSignedIn):
            await sign_in(app, f"name{number}", "wrong", kind="cli", address="10.0.0.1")
    with pytest.raises(TooManyRequests):
        await sign_in(app, "bob", PASSWORD, kind="cli", address="10.0.0.1")
    assert await sign_in(app, "bob", PASSWORD, kind="cli", address="10.0.0.2")


async def test_parallel_guesses_do_not_slip_through(app):
    async with anyio.create_task_group() as group:
        for _ in range(40):
            group.start_soon(_guess, app)
    assert app.sign_in.attempts == 10


async def _guess(app):
    with pytest.raises((NotSignedIn, TooManyRequests)):
        await sign_in(app, "ada", "wrong", kind="cli")


async def test_successful_sign_ins_do_not_use_the_limit_up(app):
    for _ in range(50):
        await sign_in(app, "ada", PASSWORD, kind="cli")


async def test_a_login_ends_by_itself(app):
    fresh = await signed_in(app, "ada")
    clock_of(app).tick(12 * 3600 + 1)
    with pytest.raises(NotSignedIn):
        await identify(app, fresh.secret)


async def test_signing_out_ends_the_login_its_tickets_and_its_streams(app):
    fresh = await signed_in(app, "ada")
    desktop = (await a_desktop(app)).desktop
    await make_ready(app, desktop.id)
    unused = await connect(app, fresh.caller, desktop.id)
    opened = await open_session(app, desktop.id, (await connect(app, fresh.caller, desktop.id)).ticket)
    await sign_out(app, fresh.caller)
    with pytest.raises(NotSignedIn):
        await identify(app, fresh.secret)
    with pytest.raises(TicketRefused):
        await open_session(app, desktop.id, unused.ticket)
    with pytest.raises(TicketRefused):
        await attach(app, desktop.id, opened.secret)


async def test_secrets_stay_out_of_every_repr(app):
    fresh = await sign_in(app, "ada", PASSWORD, kind="cli")
    assert fresh.secret not in repr(fresh)
    assert repr(fresh.login.secret_hash) not in repr(fresh)
