"""Real builds of small layers on the published base: what they leave behind, and what they do not."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from integration.guest.container import CACHE

pytestmark = [pytest.mark.root, pytest.mark.desktop]

REPOSITORY = Path(__file__).parents[3]
IMAGE = '[title]\nen = "T"\nzh = "T"\n[description]\nen = "D"\nzh = "D"\n'


@pytest.fixture
def place(tmp_path):
    """A cache that has the base, and recipes with one more layer."""
    recipes, cache = tmp_path / "recipes", tmp_path / "cache"
    shutil.copytree(REPOSITORY / "deploy/images/layers/base", recipes / "layers/base")
    (recipes / "icons").mkdir()
    for name, script in {
        "good": "id -u > /marker; install -m 4755 /bin/true /usr/bin/raise",
        "bad": "echo the true cause >&2; exit 7",
    }.items():
        (recipes / "layers" / name).mkdir()
        (recipes / "layers" / name / "layer.toml").write_text('parent = "base"\n')
        (recipes / "layers" / name / "setup.sh").write_text(script)
        (recipes / name).mkdir()
        (recipes / name / "image.toml").write_text(f'layer = "{name}"\n{IMAGE}')
    base = run(recipes, cache, "hash", "good", library=True)
    (cache / "layers").mkdir(parents=True)
    if not (CACHE / "layers" / base).is_dir():
        pytest.fail(f"the base layer is not in {CACHE}: run 'python -m beamdesk.adapters.local.images build'")
    subprocess.run(
        ["cp", "-a", "--reflink=auto", str(CACHE / "layers" / base), str(CACHE / "layers" / f"{base}.size"), str(cache / "layers")],
        check=True,
    )
    return recipes, cache


def run(recipes, cache, *arguments, library=False):
    if library:
        code = f"from pathlib import Path; from beamdesk.adapters.local.images.recipes import Recipes; print(Recipes(Path({str(recipes)!r}), Path('src/beamdesk')).image('good').layers[-1].hash)"
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY, env={"PYTHONPATH": "src"}
        )
        return done.stdout.strip()
    command = [sys.executable, "-m", "beamdesk.adapters.local.images", *arguments, "--recipes", str(recipes), "--cache", str(cache)]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
        env={"PYTHONPATH": "src", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    )


def published(cache):
    return {path.name for folder in ("layers", "index", "work") for path in (cache / folder).iterdir()}


def test_a_good_build_is_published_and_the_second_is_instant(place):
    recipes, cache = place
    assert run(recipes, cache, "build", "good").returncode == 0
    (entry,) = json.loads((cache / "catalog.json").read_text())["images"]
    guest, good, base = map(Path, json.loads((cache / "index" / f"{entry['hash']}.json").read_text())["layers"])
    assert (good / "marker").read_text() == "0\n"
    assert not (good / "usr/bin/raise").stat().st_mode & 0o6000
    assert list((guest / "opt/beamdesk/lib/beamdesk/guest/__pycache__").glob("__main__.*.pyc"))
    assert (base / "usr/bin/python3").is_symlink()
    began = time.monotonic()
    assert "ready" in run(recipes, cache, "build", "good").stdout
    assert time.monotonic() - began < 2
    assert not list((cache / "work").iterdir())


def test_a_failed_build_says_the_cause_and_leaves_nothing(place):
    recipes, cache = place
    before = {path.name for path in (cache / "layers").iterdir()}
    failed = run(recipes, cache, "build", "bad", "--json")
    assert failed.returncode == 1
    assert "the true cause" in failed.stderr
    assert str(cache / "log" / "bad.log") in failed.stderr
    assert json.loads(failed.stdout.splitlines()[-1])["state"] == "failed"
    assert published(cache) == before
    assert "cache/work" not in Path("/proc/self/mountinfo").read_text()


def test_a_killed_build_is_forgotten_by_the_next(place):
    recipes, cache = place
    (recipes / "layers/bad/setup.sh").write_text("exec sleep 61.4321")
    command = [
        sys.executable,
        "-m",
        "beamdesk.adapters.local.images",
        "build",
        "bad",
        "--recipes",
        str(recipes),
        "--cache",
        str(cache),
    ]
    with subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env={"PYTHONPATH": "src", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        stdout=subprocess.PIPE,
        text=True,
    ) as build:
        assert build.stdout
        while "setting up" not in build.stdout.readline():
            pass
        build.kill()
    assert str(cache) not in Path("/proc/self/mountinfo").read_text()
    assert list((cache / "work").iterdir())
    time.sleep(0.3)
    assert subprocess.run(["pgrep", "-f", "sleep 61.4321"], check=False, capture_output=True).returncode == 1
    assert run(recipes, cache, "build", "good").returncode == 0
    assert not list((cache / "work").iterdir())


def test_two_builds_at_once_build_once(place):
    recipes, cache = place
    command = [
        sys.executable,
        "-m",
        "beamdesk.adapters.local.images",
        "build",
        "good",
        "--recipes",
        str(recipes),
        "--cache",
        str(cache),
    ]
    both = [
        subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env={"PYTHONPATH": "src", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    said = [build.communicate(timeout=60)[0] for build in both]
    assert [build.returncode for build in both] == [0, 0]
    assert sum("layer good: done" in text for text in said) == 1


def test_an_unknown_image_is_an_error(place):
    recipes, cache = place
    failed = run(recipes, cache, "build", "none")
    assert failed.returncode == 1
    assert "known are: bad, good" in failed.stderr
