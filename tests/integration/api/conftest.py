import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from apisite import PROGRAM, Site, running_site


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One site for all tests of this folder: each uses people and names of its own."""
    with running_site(tmp_path_factory.mktemp("site"), BEAMDESK_PERSON_QUOTA=_QUOTA, BEAMDESK_EXPERIMENT_QUOTA=_QUOTA) as running:
        yield running


_QUOTA = '{"desktops": 500, "vcpus": 500, "memory_mib": 1000000, "disk_gib": 10000, "gpus": 4}'


@dataclass
class Cli:
    """The program, run as a person would."""

    site: Site
    config: Path
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "LC_ALL") if name in os.environ}
        own = {"XDG_CONFIG_HOME": str(self.config), "BEAMDESK_URL": self.site.url, "PYTHONIOENCODING": "utf-8"}
        return kept | own | self.extra

    def run(self, *arguments: str, stdin: str = "", timeout: float = 60) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            (*PROGRAM, *arguments), env=self.environment, input=stdin, capture_output=True, text=True, timeout=timeout, check=False
        )

    def sign_in(self, person: str) -> "Cli":
        done = self.run("login", person, "--password-stdin", stdin=self.site.password + "\n")
        assert done.returncode == 0, done.stderr
        return self


@pytest.fixture
def cli(site: Site, tmp_path: Path) -> Cli:
    return Cli(site, tmp_path)


@pytest.fixture
def ada(cli: Cli) -> Cli:
    return cli.sign_in("ada")


@pytest.fixture
def olga(site: Site, tmp_path: Path) -> Cli:
    return Cli(site, tmp_path / "olga").sign_in("olga")


@pytest.fixture
def chen(site: Site, tmp_path: Path) -> Cli:
    return Cli(site, tmp_path / "chen").sign_in("chen")
