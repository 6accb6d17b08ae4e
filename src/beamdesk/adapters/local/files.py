"""Experiments' files on this machine: through the privileged helper, or directly.

:class:`HelperFiles` is what a deployment uses: the service's account may read no experiment; the helper opens each file with the
person's uid and the experiment's group and passes the descriptor. :class:`DirectFiles` opens with this process's own rights, after
checking the account's mode bits on each step of the path (it knows no ACLs): for development and tests on files that this
account may read anyhow. Both walk by descriptors, so that no rename or link made meanwhile leads elsewhere.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from beamdesk.domain.errors import Forbidden, Invalid, NotFound, Refused
from beamdesk.ports.files import MAX_ENTRIES, Entry, FileKind, FolderPage, OpenedFile, kind_of, split_path
from beamdesk.protocol.helper import MAX_FACTS, EntryFacts, HelperAccount

_DIGITS = re.compile(r"(\d+)")
_BATCH_BYTES = 32 * 1024
_MAX_LIMIT = 1000


class Helper(Protocol):
    """The part of the helper's client that is needed here."""

    async def open_file(self, account: HelperAccount, experiment: str, path: str) -> int:
        """Open as the account; return a descriptor that the caller owns."""

    async def entry_facts(
        self, account: HelperAccount, experiment: str, path: str, names: Sequence[str]
    ) -> tuple[EntryFacts | None, ...]:
        """Look at entries of a folder as the account."""


@dataclass(frozen=True, slots=True)
class HelperFiles:
    """Files opened by the privileged helper with the person's rights."""

    helper: Helper

    async def open(self, account: HelperAccount, folder: str, path: str) -> OpenedFile:
        """Open a file or folder; see :class:`beamdesk.ports.files.ExperimentFiles`."""
        return OpenedFile(await self.helper.open_file(account, _checked(folder), _wire_path(path)))

    async def list(
        self, account: HelperAccount, folder: str, path: str, *, offset: int = 0, limit: int = 200, hidden: bool = False
    ) -> FolderPage:
        """List a folder; see :class:`beamdesk.ports.files.ExperimentFiles`.

        Names and kinds come from the folder's descriptor. Sizes need the person's rights (this account may not search the folder),
        so the helper looks at those entries of the page that have none.
        """
        with await self.open(account, folder, path) as opened:
            page = await asyncio.to_thread(_page, opened, offset, limit, hidden)
        names = [entry.name for entry in page.entries if _lacks_facts(entry)]
        known: dict[str, EntryFacts] = {}
        for batch in _batches(names):
            try:
                facts = await self.helper.entry_facts(account, folder, _wire_path(path), batch)
            except Refused:  # the folder is gone or closed since: the names stay, the sizes are unknown
                break
            known |= {name: fact for name, fact in zip(batch, facts, strict=True) if fact is not None}
        return replace(page, entries=tuple(_with_facts(entry, known.get(entry.name)) for entry in page.entries))


def _lacks_facts(entry: Entry) -> bool:
    return entry.size is None and entry.kind in (FileKind.FILE, FileKind.FOLDER) and _is_utf8(entry.name)


def _is_utf8(name: str) -> bool:
    """Tell whether the helper's JSON can carry a name."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _batches(names: Iterable[str]) -> Iterator[list[str]]:
    """Split names into requests that the helper accepts."""
    batch: list[str] = []
    size = 0
    for name in names:
        cost = len(json.dumps(name)) + 1
        if batch and (len(batch) == MAX_FACTS or size + cost > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(name)
        size += cost
    if batch:
        yield batch


def _with_facts(entry: Entry, facts: EntryFacts | None) -> Entry:
    if facts is None:
        return entry
    kind = FileKind.FOLDER if facts.folder else FileKind.FILE
    return replace(entry, kind=kind, size=facts.size, modified=datetime.fromtimestamp(facts.modified, UTC))


@dataclass(frozen=True, slots=True)
class DirectFiles:
    """Files beneath ``root`` opened by this process, for development and tests; see the module."""

    root: Path

    async def open(self, account: HelperAccount, folder: str, path: str) -> OpenedFile:
        """Open a file or folder; see :class:`beamdesk.ports.files.ExperimentFiles`."""
        return await asyncio.to_thread(self._open, account, (_checked(folder), *split_path(path)))

    async def list(
        self, account: HelperAccount, folder: str, path: str, *, offset: int = 0, limit: int = 200, hidden: bool = False
    ) -> FolderPage:
        """List a folder; see :class:`beamdesk.ports.files.ExperimentFiles`."""
        with await self.open(account, folder, path) as opened:
            return await asyncio.to_thread(_page, opened, offset, limit, hidden)

    def _open(self, account: HelperAccount, parts: tuple[str, ...]) -> OpenedFile:
        try:
            handle = _walk(self.root, account, parts)
            try:
                if kind_of(os.fstat(handle).st_mode) not in (FileKind.FILE, FileKind.FOLDER):
                    raise NotFound("This is neither a file nor a folder.")
                _require(account, os.fstat(handle), os.R_OK)
                return OpenedFile(os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
            finally:
                os.close(handle)
        except OSError as error:
            raise _translated(error) from error


def _walk(root: Path, account: HelperAccount, parts: tuple[str, ...]) -> int:
    """Return an O_PATH descriptor of the last part, having followed no link and left no file system below the experiment."""
    here = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    device = None
    for part in parts:
        try:
            if device is not None:
                _require_passable(account, os.fstat(here))
            below = os.open(part, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
        finally:
            os.close(here)
        here = below
        facts = os.fstat(here)
        device = facts.st_dev if device is None else device
        if stat.S_ISLNK(facts.st_mode) or facts.st_dev != device:
            os.close(here)
            raise Forbidden("Symbolic links and other file systems are not followed.")
    return here


def _require_passable(account: HelperAccount, facts: os.stat_result) -> None:
    if not stat.S_ISDIR(facts.st_mode):
        raise NotFound("There is no such file or folder.")
    _require(account, facts, os.X_OK)


def _require(account: HelperAccount, facts: os.stat_result, want: int) -> None:
    """Check POSIX mode bits as the kernel does: the first class that matches decides."""
    if facts.st_uid == account.uid:
        bits = facts.st_mode >> 6
    elif facts.st_gid == account.gid or facts.st_gid in account.gids:
        bits = facts.st_mode >> 3
    else:
        bits = facts.st_mode
    if not bits & want:
        raise Forbidden("You may not read this.")


def _translated(error: OSError) -> Refused:
    if error.errno in (errno.EACCES, errno.EPERM, errno.ELOOP):
        return Forbidden("You may not read this.")
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENXIO):
        return NotFound("There is no such file or folder.")
    return NotFound("This cannot be opened.", errno=error.errno)


def _checked(folder: str) -> str:
    if len(split_path(folder)) != 1 or folder.startswith("."):
        raise Invalid("This is not the name of an experiment's folder.", field="experiment")
    return folder


def _wire_path(path: str) -> str:
    """Return the path as the helper's JSON can carry it.

    Raises:
        Invalid: it leaves the folder, or holds bytes that are not UTF-8.
    """
    joined = "/".join(split_path(path))
    try:
        joined.encode()
    except UnicodeEncodeError as error:
        raise Invalid("This name is not valid UTF-8; rename the file to open it here.", field="path") from error
    return joined


def _page(opened: OpenedFile, offset: int, limit: int, hidden: bool) -> FolderPage:
    """Read a folder's names, sort them and look at the page's entries; blocking, so it runs in a thread."""
    if opened.kind is not FileKind.FOLDER:
        raise Invalid("This is a file, not a folder.", field="path")
    if offset < 0 or not 1 <= limit <= _MAX_LIMIT:
        raise Invalid(f"A page has 1 to {_MAX_LIMIT} entries and starts at 0 or later.", field="offset")
    found: list[tuple[FileKind, str]] = []
    truncated = False
    with os.scandir(opened.descriptor) as listing:
        for item in listing:
            if item.name.startswith(".") and not hidden:
                continue
            if len(found) == MAX_ENTRIES:
                truncated = True
                break
            found.append((_kind(item), item.name))
    found.sort(key=_order)
    entries = tuple(_entry(opened.descriptor, kind, name) for kind, name in found[offset : offset + limit])
    return FolderPage(entries, offset, len(found), truncated)


def _kind(item: os.DirEntry[str]) -> FileKind:
    """Return the kind from the folder's own record, which needs no right to search the folder."""
    checks: Iterable[tuple[Callable[[], bool], FileKind]] = (
        (item.is_symlink, FileKind.LINK),
        (lambda: item.is_dir(follow_symlinks=False), FileKind.FOLDER),
        (lambda: item.is_file(follow_symlinks=False), FileKind.FILE),
    )
    with suppress(OSError):  # a file system without d_type, in a folder that only the person may search
        for check, kind in checks:
            if check():
                return kind
    return FileKind.OTHER


def _order(item: tuple[FileKind, str]) -> tuple[bool, list[tuple[int, str]], str]:
    """Sort folders first, then without regard to case, numbers by value: scan_2 before scan_10."""
    kind, name = item
    pieces = _DIGITS.split(name.casefold())
    return (
        kind is not FileKind.FOLDER,
        [(int(piece[:300]), "") if odd % 2 else (0, piece) for odd, piece in enumerate(pieces)],
        name,
    )


def _entry(folder: int, kind: FileKind, name: str) -> Entry:
    try:
        facts = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return Entry(name, kind)
    if kind_of(facts.st_mode) is FileKind.LINK:
        return Entry(name, FileKind.LINK)
    return Entry(name, kind_of(facts.st_mode), facts.st_size, datetime.fromtimestamp(facts.st_mtime, UTC))
