"""Ends an instance's processes once whoever started them is gone, however it went: killed, too.

``python -m controlplane.undertaker PIDS SECONDS`` reads its standard input, a pipe of which that process alone holds the other end.
"""

from __future__ import annotations

import sys
from pathlib import Path

from .processes import end


def main(pids: Path, softly_s: float) -> None:
    """Wait until nobody holds the other end, then end what the files in ``pids`` name."""
    sys.stdin.buffer.read()
    end(sorted(pids.glob("*")), softly_s)


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
