"""Every shell script of the images and of the deployment, read by ShellCheck; .shellcheckrc at the top says what it may leave out."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]
PLACES = (REPOSITORY / "deploy", REPOSITORY / ".ci")


def shell_of(path):
    """Return which shell reads a file: what its first line asks for, bash for the recipes' setup.sh, sh for what is sourced."""
    begin = path.read_bytes()[:64]
    asked = re.match(rb"#!\s*(?:/usr/bin/env )?(?:/\S*/)?(bash|dash|sh)\b", begin)
    if asked:
        return asked[1].decode()
    if path.suffix != ".sh" or begin.startswith(b"#!"):
        return None
    return "bash" if path.name == "setup.sh" else "sh"


def check(shell, *paths, text=None):
    command = [shutil.which("shellcheck", path=Path(sys.executable).parent), "--format=gcc", f"--shell={shell}", *paths]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False, cwd=REPOSITORY)


def scripts():
    found = [path for place in PLACES for path in place.rglob("*") if path.is_file() and "driver" not in path.parts]
    return [(shell, path) for path in sorted(found) if (shell := shell_of(path))]


@pytest.mark.parametrize("shell", ["bash", "sh"])
def test_the_scripts_have_no_faults_that_a_linter_knows(shell):
    paths = [path for kind, path in scripts() if kind == shell]
    assert len(paths) > 2
    result = check(shell, *paths)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_script_of_the_kickstart_has_none_either():
    text = (REPOSITORY / "deploy/images/rhel/beamdesk.ks").read_text()
    bodies = re.findall(r"^%(?:pre|post)\b.*?\n(.*?)^%end", text, re.MULTILINE | re.DOTALL)
    assert bodies
    for body in bodies:
        result = check("bash", "-", text=body)
        assert result.returncode == 0, result.stdout


def test_the_linter_says_something_where_something_is_wrong():
    result = check("bash", "-", text='name=$(mktemp)\nrm $name\nif true; then\n    echo "$unset"\nfi\n')
    assert result.returncode == 1
    assert "SC2086" in result.stdout
    assert "SC2154" in result.stdout
