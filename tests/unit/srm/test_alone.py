"""The agent runs on a hypervisor with Python alone."""

import subprocess
import sys
from pathlib import Path

import beamdesk

SOURCE = Path(beamdesk.__file__).parent.parent


def test_the_agent_needs_the_standard_library_alone(tmp_path: Path) -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(SOURCE)!r})\n"
        "from beamdesk.srm.main import main\n"
        "status = main(['look', '--config', '/nowhere/srm.toml'])\n"
        "ours = {name.split('.')[1] for name in sys.modules if name.startswith('beamdesk.')}\n"
        "assert ours == {'srm', 'protocol'}, ours\n"
        "sys.exit(status)\n"
    )
    done = subprocess.run(
        (sys.executable, "-I", "-S", "-c", program), capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert '"cpus"' in done.stdout
