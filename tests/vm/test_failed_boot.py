"""A machine whose image cannot boot: its owner is told, operators read what it said last, deleting it leaves nothing."""

import pytest

from acceptance.people import until
from beamdesk.adapters.demo.people import IMAGING
from vm.cloud import BROKEN
from vm.machine import STEP_S
from vm.site import Site

pytestmark = [pytest.mark.root, pytest.mark.vm]


@pytest.fixture(scope="module")
def impatient(cloud):
    with Site.running(cloud, boot_timeout_s=60) as site:
        yield site


@pytest.fixture(scope="module")
def failed(impatient):
    with impatient.api("bob") as bob:
        wanted = {"experiment": IMAGING.id, "image": BROKEN, "flavor": "small"}
        answer = bob.post("/desktops", json=wanted)
        answer.raise_for_status()
        desktop_id = answer.json()["id"]

        def over():
            now = bob.get(f"/desktops/{desktop_id}").json()
            return now if now["phase"] == "failed" else None

        yield until("the desktop has failed", over, seconds=STEP_S, pause=1)


def test_its_owner_is_told_that_it_did_not_come_up(failed):
    assert failed["reason"] == "boot_timeout"
    assert next(step["state"] for step in failed["steps"] if step["name"] == "enrol") != "done"


def test_operators_read_the_last_words_on_its_console(impatient, failed):
    with impatient.api("olga") as operator:
        text = operator.get(f"/desktops/{failed['id']}/console").json()["text"]
    assert "Kernel panic" in text
    assert "Unable to mount root fs" in text


def test_deleting_it_leaves_nothing(impatient, failed):
    server = impatient.cloud.server(failed["id"]).id
    with impatient.api("bob") as bob:
        bob.delete(f"/desktops/{failed['id']}").raise_for_status()
        until("deleted", lambda: bob.get(f"/desktops/{failed['id']}").status_code == 404, seconds=STEP_S, pause=1)
    assert server not in impatient.cloud.domains()
    assert not [name for names in impatient.cloud.left().values() for name in names if failed["id"] in name]


def test_the_doctor_finds_nothing_wrong_with_the_cloud(impatient):
    found = impatient.doctor()
    assert found.returncode == 0, found.stdout + found.stderr
