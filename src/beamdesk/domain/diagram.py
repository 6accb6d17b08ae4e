"""Draws the lifecycle for the documentation from the table that the program uses.

``python -m beamdesk.domain.diagram docs/explanation/lifecycle.md`` rewrites what is between the markers; a test compares.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from beamdesk.domain.desktop import Phase
from beamdesk.domain.lifecycle import TRANSITIONS
from beamdesk.protocol.guest import StepName

_MARKED = re.compile(r"(<!-- (?P<name>diagram|transitions|steps): generated -->\n).*?(<!-- end -->)", re.DOTALL)


def mermaid() -> str:
    """Return the state diagram. Deleting is possible from everywhere and drawn once."""
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {Phase.QUEUED}"]
    lines += [f"    {one.source} --> {one.to or '[*]'}" for one in TRANSITIONS if one.to is not Phase.DELETING]
    return "\n".join([*lines, "```", ""])


def table() -> str:
    """Return every transition with its sentence."""
    rows = [f"| {one.source} | {one.to or '(row removed)'} | {one.when} |" for one in TRANSITIONS]
    return "\n".join(["| from | to | when |", "|---|---|---|", *rows, ""])


def steps() -> str:
    """Return the steps that a waiting person sees, in order."""
    names = ["queue", "server", *(str(name) for name in StepName)]
    return "\n".join([*(f"{number}. `{name}`" for number, name in enumerate(names, 1)), ""])


def document(text: str) -> str:
    """Return the document with its generated parts renewed."""
    parts = {"diagram": mermaid, "transitions": table, "steps": steps}
    return _MARKED.sub(lambda found: f"{found[1]}{parts[found['name']]()}{found[3]}", text)


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(document(path.read_text(encoding="utf-8")), encoding="utf-8")
