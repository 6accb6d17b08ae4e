"""The reference pages say what the program does."""

import re
from pathlib import Path

from typer.main import get_command

from beamdesk.api.app import create_api
from beamdesk.api.problems import PROBLEMS
from beamdesk.cli.failure import Exit
from beamdesk.cli.main import build

REFERENCE = Path(__file__).parents[3] / "docs" / "reference"


def commands(command, name="beamdesk"):
    children = getattr(command, "commands", None)
    if not children:
        return {name}
    return {found for child, below in children.items() for found in commands(below, f"{name} {child}")}


def test_every_command_is_documented():
    page = (REFERENCE / "cli.md").read_text()
    names = commands(get_command(build(with_services=True)))
    assert len(names) > 40
    rows = re.findall(r"^\| `(beamdesk [^`]+)`", page, re.MULTILINE)
    assert {re.match(r"beamdesk( [a-z][a-z-]*)+", row).group().strip() for row in rows} == names


def test_every_exit_code_is_documented():
    page = (REFERENCE / "cli.md").read_text()
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)} == {*map(int, Exit), 130}


def test_every_problem_is_documented():
    page = (REFERENCE / "api.md").read_text()
    found = {code: int(status) for code, status in re.findall(r"^\| `(\w+)` \| (\d+) \|", page, re.MULTILINE)}
    assert found == {code: status for code, (status, _) in PROBLEMS.items()}


def test_every_operation_is_documented():
    page = (REFERENCE / "api.md").read_text()
    document = create_api(object()).openapi()
    operations = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}
    assert set(re.findall(r"^\| `([A-Z]+ /[^`]+)`", page, re.MULTILINE)) == operations
