"""`beamdesk openstack`: what the commands print, and how they end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from beamdesk.adapters.openstack.gpu_plan_facts import collect, to_json
from beamdesk.cli.failure import Failure
from beamdesk.cli.main import build
from openstack_ops.machines import a40, ready, untouched


def run(*args: str) -> Result:
    return CliRunner().invoke(build(with_services=True), ["openstack", *args])


@pytest.fixture
def facts(tmp_path: Path) -> Path:
    path = tmp_path / "gpu01.json"
    path.write_text(to_json(collect(untouched().write(tmp_path / "host"))))
    return path


def test_a_plan_for_a_host_elsewhere(facts: Path) -> None:
    result = run("gpu-plan", "gpu01", "--facts", str(facts))
    assert result.exit_code == 0
    assert result.stdout.startswith("GPU pass-through on gpu01\n")
    assert [f"Step {number}." in result.stdout for number in range(1, 6)] == [True] * 5


def test_a_plan_as_json(facts: Path) -> None:
    plan = json.loads(run("gpu-plan", "gpu01", "--facts", str(facts), "--json").stdout)
    assert [step["number"] for step in plan["steps"]] == [1, 2, 3, 4, 5]


def test_a_plan_for_another_host_needs_its_facts() -> None:
    result = run("gpu-plan", "no-such-host")
    assert isinstance(result.exception, Failure)
    assert "ssh no-such-host python3 -" in result.exception.message


def test_an_address_that_is_no_card(facts: Path) -> None:
    result = run("gpu-plan", "gpu01", "--facts", str(facts), "--only", "00:00.0")
    assert isinstance(result.exception, Failure)
    assert "0000:3b:00.0" in result.exception.message


@pytest.mark.parametrize(("text", "said"), [(None, "Cannot read"), ("{}", "cannot be used"), ("\x00", "cannot be used")])
def test_a_facts_file_that_is_none(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "facts.json"
    if text is not None:
        path.write_text(text)
    result = run("gpu-plan", "gpu01", "--facts", str(path))
    assert isinstance(result.exception, Failure)
    assert said in result.exception.message


def test_the_doctor_ends_with_one_when_something_is_wrong(facts: Path) -> None:
    result = run("doctor", "--host", "--facts", str(facts))
    assert result.exit_code == 1
    assert "WRONG    The IOMMU is on  [host.iommu]" in result.stdout


def test_the_doctor_ends_with_zero_when_all_is_fine(tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    path.write_text(to_json(collect(ready().write(tmp_path / "host"))))
    result = run("doctor", "--facts", str(path), "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["failed"] is False


def test_the_facts_script_runs_alone_and_gives_a_facts_file(tmp_path: Path) -> None:
    script = run("facts", "--script").stdout
    a40().write(tmp_path)
    program = script.replace("collect()", f"collect(Path({str(tmp_path)!r}))")
    done = subprocess.run([sys.executable, "-I", "-"], input=program, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert [one["device"] for one in json.loads(done.stdout)["devices"]] == ["0x2235"]


def test_a_cloud_that_clouds_yaml_does_not_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clouds = tmp_path / "clouds.yaml"
    clouds.write_text('{"clouds": {"site": {"auth": {"auth_url": "http://127.0.0.1:9"}}}}')
    monkeypatch.setenv("BEAMDESK_OPENSTACK__CLOUDS_YAML", str(clouds))
    result = run("doctor", "--cloud", "nowhere")
    assert isinstance(result.exception, Failure)
    assert "has no cloud nowhere (it has: site)" in result.exception.message
