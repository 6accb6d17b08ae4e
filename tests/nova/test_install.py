"""What a nova-scheduler's Python must have for the plugins: numpy, and what Nova brings anyway."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from novaplane import python_path

PURE = ("asked", "engine", "fetch", "journal", "options", "seen", "show", "world")


def test_all_but_the_thin_classes_imports_with_numpy_alone(tmp_path: Path) -> None:
    program = f"import sys; sys.path.append({str(python_path(tmp_path))!r})\n" + "\n".join(
        f"import beamdesk.plugins.nova.{name}" for name in PURE
    )
    # -S: no site-packages; -I: nothing from the environment.
    done = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_thin_classes_ask_for_nova_and_oslo_only(tmp_path: Path) -> None:
    path = python_path(tmp_path)
    for name, missing in {"filter": "nova", "weigher": "nova", "runtime": "oslo_config"}.items():
        program = f"import sys; sys.path.append({str(path)!r}); import beamdesk.plugins.nova.{name}"
        done = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=False)
        assert f"No module named '{missing}'" in done.stderr
