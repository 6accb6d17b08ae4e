"""The port to an experiment's files, read as the person who asks.

Contract (tests/contract/test_files_contract.py runs on every implementation):

* a path is relative to the experiment's folder and never leads out of it: no ``..``, no symbolic link, no other file system;
* what the person's account may not read is refused, whatever the account of this process may;
* only regular files and folders are opened; opening a pipe, socket or device neither blocks nor touches it;
* a listing shows links as links and says nothing of their targets;
* names are bytes to the file system: ``Entry.name`` round-trips (surrogateescape), ``Entry.label`` is safe to show.

No page, no policy and no cache here. Who may ask is decided in ``app``.
"""

from __future__ import annotations

import os
import stat
import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, Protocol, Self

from beamdesk.domain.errors import Invalid, NotFound
from beamdesk.protocol.helper import HelperAccount

MAX_PATH: Final = 4096
MAX_NAME: Final = 255
MAX_ENTRIES: Final = 200_000
"""A folder is listed up to this many entries; ``FolderPage.truncated`` says that there are more."""


class FileKind(StrEnum):
    """What a name in a folder stands for."""

    FOLDER = "folder"
    FILE = "file"
    LINK = "link"
    OTHER = "other"


def kind_of(mode: int) -> FileKind:
    """Return the kind for a ``st_mode``."""
    if stat.S_ISREG(mode):
        return FileKind.FILE
    if stat.S_ISDIR(mode):
        return FileKind.FOLDER
    return FileKind.LINK if stat.S_ISLNK(mode) else FileKind.OTHER


def split_path(path: str) -> tuple[str, ...]:
    """Return the names in a relative path; empty for the experiment's folder itself.

    Raises:
        Invalid: absolute, too long, or with an empty, ``.``, ``..`` or NUL-bearing part.
    """
    if not path:
        return ()
    parts = tuple(path.removesuffix("/").split("/"))
    if len(os.fsencode(path)) > MAX_PATH or any(_bad_name(part) for part in parts):
        raise Invalid("This is not a path within the experiment's folder.", field="path")
    return parts


def _bad_name(name: str) -> bool:
    return name in ("", ".", "..") or "\x00" in name or len(os.fsencode(name)) > MAX_NAME


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in a folder. ``size`` (bytes) and ``modified`` are None where the person may not open the file to learn them."""

    name: str
    kind: FileKind
    size: int | None = None
    modified: datetime | None = None

    @property
    def label(self) -> str:
        """Return the name with what must not be shown (undecodable bytes, control and direction marks) as U+FFFD."""
        return printable(self.name)

    @property
    def hidden(self) -> bool:
        """Tell whether the name begins with a dot."""
        return self.name.startswith(".")


def printable(name: str) -> str:
    """Return ``name`` with every control, format, surrogate or unassigned character replaced by U+FFFD."""
    return "".join("\ufffd" if unicodedata.category(character) in _HIDDEN_CATEGORIES else character for character in name)


_HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Cn", "Zl", "Zp"})


@dataclass(frozen=True, slots=True)
class FolderPage:
    """A part of a folder, folders first, then by name with numbers in counting order. ``total`` counts all entries that match."""

    entries: tuple[Entry, ...]
    offset: int
    total: int
    truncated: bool = False


class OpenedFile:
    """An open regular file or folder; owns its descriptor, which is closed by :meth:`close`, ``with`` or collection."""

    __slots__ = ("descriptor", "facts", "kind")

    def __init__(self, descriptor: int) -> None:
        """Take ownership of ``descriptor``.

        Raises:
            NotFound: it is neither a regular file nor a folder; it has been closed.
        """
        self.descriptor = descriptor
        self.facts = os.fstat(descriptor)
        self.kind = kind_of(self.facts.st_mode)
        if self.kind not in (FileKind.FILE, FileKind.FOLDER):
            self.close()
            raise NotFound("This is neither a file nor a folder.")

    @property
    def size(self) -> int:
        """Size in bytes when it was opened."""
        return self.facts.st_size

    @property
    def modified(self) -> datetime:
        """Time of the last change of the content when it was opened, UTC."""
        return datetime.fromtimestamp(self.facts.st_mtime, UTC)

    @property
    def unchanged(self) -> bool:
        """Tell whether size and modification time are still those of the opening."""
        now = os.fstat(self.descriptor)
        return (now.st_size, now.st_mtime_ns) == (self.facts.st_size, self.facts.st_mtime_ns)

    def close(self) -> None:
        """Close the descriptor; closing twice is fine."""
        if self.descriptor >= 0:
            descriptor, self.descriptor = self.descriptor, -1
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def __del__(self) -> None:
        # A response that is dropped before its first byte never runs its generator: the descriptor must not stay open.
        if getattr(self, "descriptor", -1) >= 0:
            self.close()


class ExperimentFiles(Protocol):
    """Files beneath the experiments' folders. ``folder`` is the experiment's folder name, ``path`` relative to it."""

    async def open(self, account: HelperAccount, folder: str, path: str) -> OpenedFile:
        """Open a regular file or folder for reading; the caller closes it.

        Raises:
            Invalid: not a path within the folder. NotFound: no such file or folder. Forbidden: the account may not read it, or
            the path holds a symbolic link. CloudUnavailable: the storage does not answer now.
        """

    async def list(
        self, account: HelperAccount, folder: str, path: str, *, offset: int = 0, limit: int = 200, hidden: bool = False
    ) -> FolderPage:
        """List a part of a folder; ``hidden`` includes names that begin with a dot. Errors as for :meth:`open`.

        Raises:
            Invalid: ``path`` is a file.
        """
