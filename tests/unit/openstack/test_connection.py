"""Calls: what is tried again, what is not, what the errors say, and that no secret is in them."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import anyio
import pytest

from beamdesk.adapters.openstack.config import Place
from beamdesk.adapters.openstack.connection import PAGE, Connection, open_region
from beamdesk.adapters.openstack.errors import NOT_SENT, Service
from beamdesk.domain.errors import CloudError, CloudRefused, CloudUnavailable, ConfigurationError, NotSupported
from unit.openstack.tiny_cloud import PASSWORD, SERVICES, Answer, TinyCloud, config_for, tiny_cloud

pytestmark = pytest.mark.anyio
SERVERS = "/compute/v2.1/servers"


@pytest.fixture
def cloud() -> Iterator[TinyCloud]:
    with tiny_cloud() as serving:
        yield serving


@pytest.fixture
def connection(cloud: TinyCloud, tmp_path: Path) -> Iterator[Connection]:
    opened = connect(cloud, tmp_path)
    yield opened
    opened.close()


def connect(cloud: TinyCloud, folder: Path, timeout_s: float = 10.0) -> Connection:
    config = config_for(cloud, folder, timeout_s=timeout_s)
    return Connection(config.places[0], config, jitter=lambda: 0.0)


async def test_reading_is_tried_again_after_a_passing_failure(cloud: TinyCloud, connection: Connection) -> None:
    cloud.on("GET", SERVERS, Answer(503), Answer(502, raw="<html>bad gateway</html>"), Answer(200, {"servers": []}))
    reply = await connection.call(Service.COMPUTE, "GET", "/servers", "list the servers")
    assert reply.data == {"servers": []}
    assert cloud.asked["GET", SERVERS] == 3


async def test_reading_is_given_up_in_the_end(cloud: TinyCloud, connection: Connection) -> None:
    cloud.on("GET", SERVERS, Answer(503))
    with pytest.raises(CloudUnavailable, match="Nova failed"):
        await connection.call(Service.COMPUTE, "GET", "/servers", "list the servers")
    assert cloud.asked["GET", SERVERS] == 3


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_a_write_with_an_unknown_outcome_is_sent_once(cloud: TinyCloud, connection: Connection, status: int) -> None:
    cloud.on("POST", SERVERS, Answer(status))
    with pytest.raises(CloudUnavailable, match="it may have happened"):
        await connection.call(Service.COMPUTE, "POST", "/servers", "make the server", body={"server": {}})
    assert cloud.asked["POST", SERVERS] == 1


async def test_an_answer_that_does_not_come_is_unavailable(cloud: TinyCloud, tmp_path: Path) -> None:
    connection = connect(cloud, tmp_path, timeout_s=0.5)
    await connection.microversion()
    cloud.on("POST", SERVERS, Answer(202, after=3))
    with pytest.raises(CloudUnavailable, match="did not answer when asked to make the server"):
        await connection.call(Service.COMPUTE, "POST", "/servers", "make the server", body={})
    connection.close()


async def test_what_stands_in_no_line_has_a_time_limit_of_its_own(cloud: TinyCloud, tmp_path: Path) -> None:
    config = config_for(cloud, tmp_path, timeout_s=0.4, concurrency=1)
    connection = Connection(config.places[0], config, jitter=lambda: 0.0)
    await connection.microversion()
    cloud.on("GET", SERVERS, Answer(200, {"servers": []}, after=0.8))
    reply = await connection.call(Service.COMPUTE, "GET", "/servers", "list the servers", ahead=10)
    assert reply.data == {"servers": []}
    with pytest.raises(CloudUnavailable, match=r"nothing within 0\.4 s"):
        await connection.call(Service.COMPUTE, "GET", "/servers", "list the servers")
    with pytest.raises(CloudUnavailable, match=r"nothing within 0\.2 s"):
        await connection.call(Service.COMPUTE, "GET", "/servers", "list the servers", ahead=0.2)
    connection.close()


async def test_reading_takes_no_longer_than_one_answer_may_however_often_it_is_tried(cloud: TinyCloud, tmp_path: Path) -> None:
    connection = connect(cloud, tmp_path, timeout_s=0.6)
    await connection.microversion()
    cloud.on("GET", SERVERS, Answer(503, after=0.4))
    begun = time.monotonic()
    with pytest.raises(CloudUnavailable):
        await connection.call(Service.COMPUTE, "GET", "/servers", "list the servers")
    assert time.monotonic() - begun < 1.2
    connection.close()


async def test_a_keystone_that_hangs_holds_no_thread_for_ever(cloud: TinyCloud, tmp_path: Path) -> None:
    config = config_for(cloud, tmp_path, timeout_s=0.3, concurrency=1)
    connection = Connection(config.places[0], config, jitter=lambda: 0.0)
    cloud.on("POST", "/identity/v3/auth/tokens", Answer(503, after=30))
    with pytest.raises(CloudUnavailable):
        await connection.call(Service.NETWORK, "GET", "/ports", "list the ports")
    del cloud.script["POST", "/identity/v3/auth/tokens"]
    cloud.on("GET", "/network/v2.0/ports", Answer(200, {"ports": []}))
    with anyio.fail_after(10):
        while True:
            with suppress(CloudUnavailable):
                await connection.call(Service.NETWORK, "GET", "/ports", "list the ports")
                break
    connection.close()


async def test_an_answer_that_is_not_json_is_unavailable(cloud: TinyCloud, connection: Connection) -> None:
    cloud.on("GET", SERVERS, Answer(200, raw="<html>login</html>"))
    with pytest.raises(CloudUnavailable, match="not JSON"):
        await connection.call(Service.COMPUTE, "GET", "/servers", "list the servers")


async def test_an_expired_token_is_renewed_without_anybody_noticing(cloud: TinyCloud, connection: Connection) -> None:
    cloud.on("GET", SERVERS, Answer(401, {"error": {"message": "expired"}}), Answer(200, {"servers": []}))
    assert (await connection.call(Service.COMPUTE, "GET", "/servers", "list the servers")).status == 200
    assert cloud.tokens == 2


async def test_credentials_that_are_refused_are_said_to_be_so_and_never_shown(
    cloud: TinyCloud, connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    refusal = {"error": {"code": 401, "title": "Unauthorized", "message": "The request you have made requires authentication."}}
    cloud.on("POST", "/identity/v3/auth/tokens", Answer(401, refusal))
    with pytest.raises(CloudError, match="does not accept Beamdesk's credentials") as refused:
        await connection.call(Service.COMPUTE, "GET", "/servers", "list the servers")
    assert refused.value.retryable
    assert PASSWORD not in caplog.text + refused.value.message


async def test_nothing_that_is_sent_or_received_is_logged(
    cloud: TinyCloud, connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    cloud.on("POST", SERVERS, Answer(202, {"server": {"id": "x", "adminPass": "made-by-nova"}}))
    await connection.call(Service.COMPUTE, "POST", "/servers", "make the server", body={"user_data": "the-nonce"})
    assert cloud.bodies == [{"user_data": "the-nonce"}]
    assert not any(secret in caplog.text for secret in ("the-nonce", "made-by-nova", PASSWORD, "token-1"))


async def test_a_cloud_that_is_too_old_is_named_with_its_version(cloud: TinyCloud, connection: Connection) -> None:
    cloud.microversions = ("2.1", "2.38")
    with pytest.raises(NotSupported, match=r"up to 2\.38; Beamdesk needs 2\.52"):
        await connection.call(Service.COMPUTE, "GET", "/servers", "list the servers")
    assert cloud.asked["GET", SERVERS] == 0


@pytest.mark.parametrize(("offered", "used"), [("2.96", "2.79"), ("2.60", "2.60"), ("2.100", "2.79")])
async def test_the_newest_version_that_both_know_is_used(cloud: TinyCloud, connection: Connection, offered: str, used: str) -> None:
    cloud.microversions = ("2.1", offered)
    assert await connection.microversion() == used


async def test_a_list_is_read_to_its_end_with_one_request_a_page(cloud: TinyCloud, connection: Connection) -> None:
    first = [{"id": f"s{number}"} for number in range(PAGE)]
    cloud.on("GET", SERVERS, Answer(200, {"servers": first}), Answer(200, {"servers": [{"id": "last"}]}))
    pages = connection.pages(Service.COMPUTE, "/servers", "servers", "list the servers", {"tags": "a,b"})
    assert [len(page.data["servers"]) async for page in pages] == [PAGE, 1]
    assert cloud.asked["GET", SERVERS] == 2
    assert f"marker=s{PAGE - 1}" in cloud.queries[-1]


async def test_a_cloud_with_smaller_pages_is_read_to_its_end(cloud: TinyCloud, connection: Connection) -> None:
    links = [{"rel": "next", "href": "x"}]
    cloud.on("GET", SERVERS, Answer(200, {"servers": [{"id": "a"}], "servers_links": links}), Answer(200, {"servers": []}))
    pages = connection.pages(Service.COMPUTE, "/servers", "servers", "list the servers", {})
    assert [len(page.data["servers"]) async for page in pages] == [1, 0]


async def test_a_link_to_the_page_before_is_no_next_page(cloud: TinyCloud, connection: Connection) -> None:
    links = [{"rel": "previous", "href": "x"}]
    cloud.on("GET", SERVERS, Answer(200, {"servers": [{"id": "a"}], "servers_links": links}))
    pages = connection.pages(Service.COMPUTE, "/servers", "servers", "list the servers", {})
    assert [len(page.data["servers"]) async for page in pages] == [1]


async def test_a_list_without_end_is_given_up(cloud: TinyCloud, connection: Connection) -> None:
    cloud.on("GET", SERVERS, Answer(200, {"servers": [{"id": "a"}], "servers_links": [{"rel": "next", "href": "x"}]}))
    with pytest.raises(CloudError, match="does not end"):
        _ = [page async for page in connection.pages(Service.COMPUTE, "/servers", "servers", "list the servers", {})]


async def test_a_service_that_the_catalogue_lacks_is_told(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(SERVICES, "placement")
    with pytest.raises(CloudError, match="no placement service"):
        await connection.call(Service.PLACEMENT, "GET", "/usages", "tell the usage")
    assert not await connection.has(Service.PLACEMENT)
    assert await connection.has(Service.VOLUME)


async def test_nobody_listening_is_unavailable(cloud: TinyCloud, tmp_path: Path) -> None:
    cloud.url = "http://127.0.0.1:9"
    connection = connect(cloud, tmp_path)
    with pytest.raises(CloudUnavailable, match="no connection"):
        await connection.call(Service.NETWORK, "POST", "/ports", "make the port", body={})
    connection.close()


async def test_what_was_never_sent_is_told_from_what_may_have_been_carried_out(cloud: TinyCloud, connection: Connection) -> None:
    cloud.on("POST", SERVERS, Answer(breaks=True))
    with pytest.raises(CloudUnavailable) as unsure:
        await connection.call(Service.COMPUTE, "POST", "/servers", "make the server", body={})
    assert unsure.value.context.get("kind") != NOT_SENT
    connection._adapter(Service.COMPUTE).endpoint_override = "http://127.0.0.1:9"
    with pytest.raises(CloudUnavailable) as unsent:
        await connection.call(Service.COMPUTE, "POST", "/servers", "make the server", body={})
    assert unsent.value.context.get("kind") == NOT_SENT


def test_a_cloud_that_clouds_yaml_lacks_is_a_configuration_error_that_names_those_it_has(cloud: TinyCloud, tmp_path: Path) -> None:
    config = config_for(cloud, tmp_path)
    with pytest.raises(ConfigurationError, match=r"no cloud elsewhere \(it has: beamdesk") as wrong:
        open_region(Place("main", "elsewhere", "desktops"), config)
    assert PASSWORD not in wrong.value.message


async def test_a_redirect_is_not_followed_with_our_token(cloud: TinyCloud, connection: Connection) -> None:
    cloud.on("GET", SERVERS, Answer(302))
    with pytest.raises((CloudError, CloudRefused)):
        await connection.call(Service.COMPUTE, "GET", "/servers", "list the servers")
