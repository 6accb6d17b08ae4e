"""Put files and folders of an experiment in place with the owners and modes of a facility's data store.

``<root>/<experiment>`` root:group 2750, ``raw`` owned by the data acquisition 2750 with files 0640, ``processed`` 2770 for the
team. A file appears complete or not at all: it is made in a private folder of the same file system, then renamed. Without root
nothing changes owner.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from beamdesk.domain.experiment import Experiment


@dataclass(frozen=True, slots=True)
class Owners:
    """Who owns what. ``change`` is false for a plain user, who may not give files away."""

    daq_uid: int
    change: bool


class Place:
    """The folders of one experiment beneath the data root."""

    def __init__(self, root: Path, experiment: Experiment, owners: Owners) -> None:
        self._owners = owners
        self._gid = experiment.gid
        self.folder = root / experiment.folder
        self.raw = self.folder / "raw"
        self.processed = self.folder / "processed"

    def make_folders(self) -> None:
        """Make the three folders, or put right the owners and modes of existing ones."""
        self._folder(self.folder, 0, 0o2750)
        self._folder(self.raw, self._owners.daq_uid, 0o2750)
        self._folder(self.processed, 0, 0o2770)

    def _folder(self, path: Path, uid: int, mode: int) -> None:
        path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            if self._owners.change:
                os.fchown(descriptor, uid, self._gid)
            os.fchmod(descriptor, mode)
        finally:
            os.close(descriptor)

    def put(self, folder: Path, name: str, write: Callable[[str], None]) -> bool:
        """Make ``folder/name`` by ``write(path)`` unless it exists; tell whether it was made."""
        target = folder / name
        if target.is_file() and not target.is_symlink():
            return False
        with _staging(self.folder.parent) as private:
            made = private / name
            write(str(made))
            self._finish(made, self._owners.daq_uid if folder == self.raw else 0)
            made.replace(target)
        return True

    def _finish(self, path: Path, uid: int) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            if self._owners.change:
                os.fchown(descriptor, uid, self._gid)
            os.fchmod(descriptor, 0o640)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _staging(root: Path) -> Iterator[Path]:
    """Make a folder that only this account can enter: nobody can slip a link under a file that is being written."""
    private = Path(tempfile.mkdtemp(prefix=".making-", dir=root))
    try:
        yield private
    finally:
        shutil.rmtree(private)


def clear_leftovers(root: Path) -> None:
    """Remove what an interrupted run left behind."""
    for path in root.glob(".making-*"):
        shutil.rmtree(path)
