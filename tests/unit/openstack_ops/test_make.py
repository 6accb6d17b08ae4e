"""`make up CLOUD=name` starts the same program with another cloud, and finds the caller's clouds.yaml."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[3]


def commands(home: Path, *arguments: str, **environment: str) -> str:
    known = {"PATH": os.environ["PATH"], "HOME": str(home)}
    done = subprocess.run(
        ["make", "-n", "up", *arguments], cwd=ROOT, env=known | environment, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_without_a_cloud_desktops_run_here(tmp_path: Path) -> None:
    said = commands(tmp_path)
    assert "deploy/setup runtime" in said
    assert "BEAMDESK_CLOUD" not in said


def test_a_cloud_is_named_to_the_program_and_needs_no_container_images(tmp_path: Path) -> None:
    said = commands(tmp_path, "CLOUD=site")
    assert "deploy/setup cloud" in said
    assert "BEAMDESK_CLOUD=openstack BEAMDESK_OPENSTACK__CLOUD='site'" in said


def test_the_callers_clouds_yaml_is_named(tmp_path: Path) -> None:
    own = tmp_path / ".config/openstack/clouds.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("clouds: {}")
    assert f"OS_CLIENT_CONFIG_FILE='{own}'" in commands(tmp_path, "CLOUD=site")
    assert "OS_CLIENT_CONFIG_FILE='/srv/clouds.yaml'" in commands(tmp_path, "CLOUD=site", OS_CLIENT_CONFIG_FILE="/srv/clouds.yaml")
