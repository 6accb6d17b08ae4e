"""Run all benchmarks, or those named: `python -m bench claims relay`."""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
from pathlib import Path

ON_DEMAND = frozenset({"openstack"})
"""Too long to be part of "all": `make bench-openstack`."""


def names() -> list[str]:
    here = str(Path(__file__).parent)
    return sorted(module.name for module in pkgutil.iter_modules([here]) if not module.name.startswith("_") and not module.ispkg)


def main() -> int:
    wanted = sys.argv[1:] or [name for name in names() if name not in ON_DEMAND]
    unknown = set(wanted) - set(names())
    if unknown:
        print(f"bench: no benchmark named {', '.join(sorted(unknown))}; there are {', '.join(names())}", file=sys.stderr)
        return 2
    failed = []
    for name in wanted:
        print(f"\n== {name}   (load {os.getloadavg()[0]:.2f} on {os.cpu_count()} cores)", flush=True)
        module = importlib.import_module(f"bench.{name}")
        sys.argv = [f"bench.{name}"]
        try:
            module.main()
        except Exception as error:  # noqa: BLE001 - the outermost frame: the others still run
            print(f"bench {name} failed: {error!r}", flush=True)
            failed.append(name)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
