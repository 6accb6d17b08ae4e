import io
import json

import pytest

from beamdesk.adapters.local.images import debian
from beamdesk.adapters.local.images.chroot import Log, run
from beamdesk.adapters.local.images.errors import BuildError
from beamdesk.adapters.local.images.progress import Progress

LISTING = """\
Debian|bookworm|http://mirror.example/debian/|bookworm|main|/usr/share/keyrings/debian-archive-keyring.gpg
Debian|bookworm|http://mirror.example/debian/|bookworm|contrib|
Debian|bookworm-updates|http://mirror.example/debian/|bookworm-updates|main|
Debian|bookworm-security|http://mirror.example/security/|bookworm-security|main|
Other|bookworm|http://vendor.example/|stable|main|
Debian|bookworm|file:/srv/mirror/|bookworm|main|
"""


def test_mirrors_of_the_host_are_used_for_the_suite():
    assert debian.sources_from(LISTING, "bookworm") == [
        "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://mirror.example/debian/ bookworm main",
        "deb http://mirror.example/debian/ bookworm-updates main",
        "deb http://mirror.example/security/ bookworm-security main",
    ]


def test_a_host_of_another_release_gives_no_mirrors():
    assert debian.sources_from(LISTING, "trixie") == []
    assert debian.sources_from("Ubuntu|noble|http://x/|noble|main|\n", "bookworm") == []


def progress(as_json, now):
    out = io.StringIO()
    return Progress(as_json=as_json, out=out, clock=lambda: now[0]), out


def test_lines_for_a_person():
    now = [0.0]
    said, out = progress(False, now)
    said.begin("imaging", "desktop")
    now[0] = 40.2
    said.step("installing 214 packages")
    said.image("imaging", "ready", "ready (abc)")
    assert out.getvalue() == "[image imaging] layer desktop: installing 214 packages ... 40 s\n[image imaging] ready (abc)\n"


def test_objects_for_a_program():
    now = [0.0]
    said, out = progress(True, now)
    said.begin("imaging", "desktop")
    now[0] = 1.25
    said.step("installing")
    assert json.loads(out.getvalue()) == {
        "image": "imaging",
        "layer": "desktop",
        "state": "building",
        "detail": "installing",
        "elapsed_s": 1.2,
    }


def test_small_advances_are_not_all_told():
    now = [0.0]
    said, out = progress(False, now)
    said.begin("imaging", "desktop")
    for _ in range(100):
        now[0] += 0.2
        said.tick("installing")
    assert 1 <= len(out.getvalue().splitlines()) <= 3


def test_a_failed_step_names_its_last_lines_and_its_log(tmp_path):
    log = Log(tmp_path / "x.log")
    with pytest.raises(BuildError, match="the step failed") as caught:
        run(log, "the step", ["sh", "-c", "for i in $(seq 50); do echo line $i; done; echo the cause >&2; exit 3"])
    log.close()
    assert str(tmp_path / "x.log") in str(caught.value)
    assert "the cause" in str(caught.value)
    assert "line 1\n" not in str(caught.value)


def test_a_missing_program_is_named(tmp_path):
    log = Log(tmp_path / "x.log")
    with pytest.raises(BuildError, match="no-such-program-here"):
        run(log, "the step", ["no-such-program-here"])
    log.close()
