"""The driver and its client against a scripted helper: translation of answers and of every way a helper can fail."""

from __future__ import annotations

import array
import asyncio
import json
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from beamdesk.adapters.local.client import HelperClient, HelperRefused
from beamdesk.adapters.local.driver import LocalCloud, helper_account
from beamdesk.domain.errors import CloudError, CloudRefused, CloudUnavailable, Forbidden, NotFound, NotSupported
from beamdesk.domain.ids import DesktopId, ServerId
from beamdesk.ports.cloud import Capacity, ServerAccount, ServerMount, ServerSpec, ServerStatus
from beamdesk.scheduling.cards import CardMode
from beamdesk.srm import catalogue

ADA = ServerAccount("ada", 20001, 20001, (30001,), "Ada Lin")
SPEC = ServerSpec(
    desktop_id=DesktopId("desktop1"),
    image_ref="0" * 16,
    vcpus=2,
    memory_mib=1024,
    disk_gib=10,
    gpus=2,
    account=ADA,
    mounts=(ServerMount("exp", "raw", writable=False),),
    nonce="n" * 43,
)
SERVER = {
    "desktop_id": "desktop1",
    "deployment_id": "mine",
    "state": "running",
    "created_at": 1.5,
    "stream_socket": "/run/s/stream.sock",
    "cause": "",
}
OTHER = {**SERVER, "desktop_id": "desktop2", "deployment_id": "theirs"}


@contextmanager
def helper(
    *answers: dict[str, Any] | bytes | None, descriptors: tuple[int, ...] = ()
) -> Iterator[tuple[Path, list[dict[str, Any]]]]:
    """Answer one connection each with ``answers``; None stays silent until the client gives up."""
    requests: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        path = Path(folder) / "helper.sock"
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            for answer in answers:
                connection, _address = listener.accept()
                with connection, connection.makefile("rb") as file:
                    requests.append(json.loads(file.readline()))
                    if answer is None:
                        file.read()
                        continue
                    data = answer if isinstance(answer, bytes) else json.dumps(answer).encode() + b"\n"
                    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
                    connection.sendmsg([data], rights)

        thread = Thread(target=serve, daemon=True)
        thread.start()
        yield path, requests
        thread.join(5)
        assert not thread.is_alive(), "the client asked less than expected"


def cloud(path: Path) -> LocalCloud:
    return LocalCloud(HelperClient(path, timeout_s=0.3), "mine")


def test_a_server_is_made_with_the_spec_and_any_free_cards() -> None:
    with helper({"servers": []}, {"server": SERVER}) as (path, requests):
        server = asyncio.run(cloud(path).create_server(SPEC))
    assert (server.status, server.address) == (ServerStatus.ACTIVE, "unix:/run/s/stream.sock")
    start = requests[1]["start"]
    assert start["gpus"] == ["any", "any"]
    assert start["deployment_id"] == "mine"
    assert start["account"] == {"login": "ada", "uid": 20001, "gid": 20001, "gids": [30001]}


def test_an_existing_server_is_not_started() -> None:
    with helper({"servers": [OTHER, {**SERVER, "state": "stopped", "stream_socket": ""}]}) as (path, requests):
        server = asyncio.run(cloud(path).create_server(SPEC))
    assert (server.status, server.address) == (ServerStatus.SHUTOFF, None)
    assert [request["op"] for request in requests] == ["list"]


def test_a_failed_server_tells_its_fault() -> None:
    with helper({"servers": [{**SERVER, "state": "failed", "cause": "No display."}]}) as (path, _requests):
        (server,) = asyncio.run(cloud(path).find_servers(DesktopId("desktop1"))).servers
    assert (server.status, server.fault) == (ServerStatus.ERROR, "No display.")


def test_what_belongs_to_others_is_not_listed() -> None:
    homes = [
        {"desktop_id": name, "deployment_id": owner, "disk_gib": 1}
        for name, owner in (("desktop1", "mine"), ("desktop2", "theirs"))
    ]
    with helper({"servers": [OTHER]}, {"homes": homes}) as (path, _requests):
        assert asyncio.run(cloud(path).list_servers()).servers == ()
        assert asyncio.run(cloud(path).list_homes()) == ("desktop1",)


def test_stop_and_delete_name_the_deployment() -> None:
    with helper({}, {}, {}) as (path, requests):
        asyncio.run(cloud(path).stop_server(ServerId("desktop1")))
        asyncio.run(cloud(path).delete_server(ServerId("desktop1")))
        asyncio.run(cloud(path).delete_home(DesktopId("desktop1")))
    assert [request["op"] for request in requests] == ["stop", "delete", "delete_home"]
    assert {request["desktop"]["deployment_id"] for request in requests} == {"mine"}


def test_a_machine_that_cannot_isolate_says_what_it_lacks() -> None:
    facts = {"vcpus": 8, "memory_mib": 1024, "disk_gib": 10, "gpus": ["nvidia0"], "missing": []}
    with helper({"host": facts}, {"host": {**facts, "missing": ["user namespaces"]}}) as (path, _requests):
        assert asyncio.run(cloud(path).capacity()) == Capacity(8, 1024, 10, 1)
        with pytest.raises(NotSupported, match="it lacks user namespaces"):
            asyncio.run(cloud(path).capacity())


def test_this_machine_is_one_host_whose_cards_its_kernel_drives() -> None:
    facts = {"vcpus": 8, "memory_mib": 1024, "disk_gib": 10, "gpus": ["nvidia0"], "missing": []}
    with helper({"host": facts}, {"host": {**facts, "missing": ["user namespaces"]}}) as (path, _requests):
        (host,) = asyncio.run(cloud(path).hosts())
        with pytest.raises(NotSupported, match="it lacks user namespaces"):
            asyncio.run(cloud(path).hosts())
    assert (host.cpu_milli, host.memory_mib, host.disk_gib) == (8000, 1024, 10)
    assert [(card.address, card.mode) for card in host.cards] == [("nvidia0", CardMode.HOST)]


def test_cards_are_known_by_their_pci_ids_and_images_by_what_lies_here() -> None:
    cards = [
        {"name": "nvidia0", "address": "0000:41:00.0", "vendor": "10de", "device": "1eb8", "subsystem": "12a2"},
        {"name": "nvidia1", "address": "0000:42:00.0", "vendor": "10de", "device": "ffff", "subsystem": "0000"},
    ]
    facts = {"vcpus": 8, "memory_mib": 1024, "disk_gib": 10, "gpus": ["nvidia0", "nvidia1"], "missing": []}
    with helper({"host": {**facts, "cards": cards, "images": ["ab" * 8]}}) as (path, _requests):
        (host,) = asyncio.run(replace(cloud(path), aggregates=frozenset({"B7"}), dedicated=True).hosts())
    known = catalogue.load().find("10de", "1eb8", "12a2")
    assert known is not None
    assert [(card.address, card.model, card.memory_mib) for card in host.cards] == [
        ("0000:41:00.0", known.model, known.memory_mib),
        ("0000:42:00.0", "GPU", 0),
    ]
    assert (host.images, host.aggregates, host.dedicated) == (frozenset({"ab" * 8}), frozenset({"B7"}), True)


def test_the_cards_that_were_chosen_are_asked_for_by_name() -> None:
    with helper({"servers": []}, {"server": SERVER}) as (path, requests):
        asyncio.run(cloud(path).create_server(replace(SPEC, cards=("nvidia3", "nvidia1"))))
    assert requests[1]["start"]["gpus"] == ["nvidia3", "nvidia1"]


def test_the_console_gives_the_last_lines() -> None:
    with helper({"text": "one\ntwo\nthree\n"}) as (path, _requests):
        assert asyncio.run(cloud(path).console_log(ServerId("desktop1"), lines=2)) == "two\nthree"


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("not_supported", NotSupported),
        ("busy", CloudUnavailable),
        ("failed", CloudUnavailable),
        ("no_capacity", CloudError),
        ("unknown_image", HelperRefused),
        ("not_allowed", HelperRefused),
        ("something_new", HelperRefused),
    ],
)
def test_a_refusal_keeps_its_cause(code: str, kind: type[CloudError]) -> None:
    with helper({"error": code, "detail": "The cause."}) as (path, _requests), pytest.raises(CloudError) as raised:
        asyncio.run(cloud(path).start_server(ServerId("desktop1"), SPEC))
    assert type(raised.value) is kind
    assert raised.value.message == "The cause."
    assert raised.value.retryable == (code in ("busy", "failed", "no_capacity"))


@pytest.mark.parametrize("answer", [b"", b"{", b"nonsense\n", b'{"unknown":1}\n', b"x" * 300_000, None])
def test_silence_and_nonsense_are_no_answer(answer: bytes | None) -> None:
    with helper(answer) as (path, _requests), pytest.raises(CloudUnavailable):
        asyncio.run(cloud(path).list_servers())


def test_an_absent_helper_is_unavailable() -> None:
    with pytest.raises(CloudUnavailable, match="cannot be reached"):
        asyncio.run(cloud(Path("/nonexistent/helper.sock")).list_servers())


@pytest.mark.parametrize("server_id", ["", "../../x", "UPPER-CASE"])
def test_an_id_that_cannot_be_one_is_refused_without_asking(server_id: str) -> None:
    with pytest.raises(CloudRefused):
        asyncio.run(cloud(Path("/nonexistent")).stop_server(ServerId(server_id)))


def test_a_file_comes_as_a_descriptor(tmp_path: Path) -> None:
    (tmp_path / "scan").write_text("counts")
    source = os.open(tmp_path / "scan", os.O_RDONLY)
    with helper({}, descriptors=(source,)) as (path, requests):
        received = asyncio.run(HelperClient(path).open_file(helper_account(ADA), "exp", "raw/scan"))
    os.close(source)
    assert os.read(received, 100) == b"counts"
    assert not os.get_inheritable(received)
    os.close(received)
    assert requests[0]["file"]["path"] == "raw/scan"


@pytest.mark.parametrize(
    ("code", "kind"), [("not_found", NotFound), ("unknown_data", NotFound), ("denied", Forbidden), ("busy", CloudUnavailable)]
)
def test_a_file_that_cannot_be_opened_is_a_plain_refusal(code: str, kind: type[Exception]) -> None:
    with helper({"error": code, "detail": "The cause."}) as (path, _requests), pytest.raises(kind):
        asyncio.run(HelperClient(path).open_file(helper_account(ADA), "exp", "raw/scan"))


@pytest.mark.parametrize("count", [0, 2])
def test_an_ok_without_exactly_one_descriptor_is_an_error_and_leaks_none(count: int) -> None:
    source = os.open("/dev/null", os.O_RDONLY)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with helper({}, descriptors=(source,) * count) as (path, _requests), pytest.raises(CloudError):
        asyncio.run(HelperClient(path).open_file(helper_account(ADA), "exp", "raw/scan"))
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    os.close(source)


def test_a_descriptor_that_was_not_asked_for_is_closed() -> None:
    source = os.open("/dev/null", os.O_RDONLY)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with helper({"servers": []}, descriptors=(source,)) as (path, _requests):
        asyncio.run(cloud(path).list_servers())
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    os.close(source)
