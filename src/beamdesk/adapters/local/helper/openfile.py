"""Open data, and look at folders, as a person: the kernel decides with their own uid and groups, not Beamdesk.

Runs in a child that gives up root for good before it looks at the first path.
"""

from __future__ import annotations

import array
import errno
import os
import socket
import stat

from beamdesk.adapters.local.helper import syscalls
from beamdesk.adapters.local.helper.config import Config
from beamdesk.adapters.local.helper.errors import HelperError
from beamdesk.protocol.codec import encode
from beamdesk.protocol.helper import EntryFacts, FolderEntries, HelperAccount, OpenFile, Reply

_FOLDER = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS | syscalls.RESOLVE_NO_MAGICLINKS
_BENEATH = _FOLDER | syscalls.RESOLVE_NO_XDEV
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG})
_ESCAPES = frozenset({errno.ELOOP, errno.EXDEV})


def serve(config: Config, request: OpenFile, connection: socket.socket) -> None:
    """Become the person, open the file and answer on ``connection``, with the descriptor when there is one."""
    try:
        descriptor = _open_as_person(config, request)
    except HelperError as error:
        connection.sendmsg([encode(Reply(error=error.code, detail=error.detail)) + b"\n"])
        return
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))
    connection.sendmsg([encode(Reply()) + b"\n"], [rights])


def serve_facts(config: Config, request: FolderEntries, connection: socket.socket) -> None:
    """Become the person, look at the entries of a folder and answer on ``connection``."""
    try:
        folder = _open_as_person(config, request)
        reply = Reply(facts=tuple(_facts(folder, name) for name in request.names))
    except HelperError as error:
        reply = Reply(error=error.code, detail=error.detail)
    connection.setblocking(True)  # the answer may be larger than the socket's buffer; the parent limits the time
    connection.sendall(encode(reply) + b"\n")


def _open_as_person(config: Config, request: OpenFile | FolderEntries) -> int:
    root = os.open(config.data_root, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    become(request.account)
    return open_beneath(root, request.experiment, request.path)


def _facts(folder: int, name: str) -> EntryFacts | None:
    """Look at one entry, through no link and into no other file system."""
    try:
        place = syscalls.openat2(folder, name, os.O_PATH, _BENEATH)
    except OSError:  # a link, another file system, unreadable, or gone since: its name is all that is told
        return None
    try:
        facts = os.fstat(place)
    finally:
        os.close(place)
    if not stat.S_ISREG(facts.st_mode) and not stat.S_ISDIR(facts.st_mode):
        return None
    return EntryFacts(stat.S_ISDIR(facts.st_mode), facts.st_size, facts.st_mtime)


def become(account: HelperAccount) -> None:
    """Turn this process into the person for good."""
    os.setgroups([gid for gid in account.gids if gid != account.gid])
    os.setresgid(account.gid, account.gid, account.gid)
    os.setresuid(account.uid, account.uid, account.uid)
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)


def open_beneath(root: int, experiment: str, path: str) -> int:
    """Open ``path`` beneath an experiment's folder read-only: a regular file or a folder, through no symbolic link.

    Raises:
        HelperError: ``not_found`` or ``denied``.
    """
    try:
        folder = syscalls.openat2(root, experiment, os.O_PATH | os.O_DIRECTORY, _FOLDER)
        place = syscalls.openat2(folder, path or ".", os.O_PATH, _BENEATH)
        mode = os.fstat(place).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise HelperError("not_found", "This is neither a file nor a folder.")
        # The same object again, now for reading: nothing can be exchanged in between.
        return os.open(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _ABSENT:
            raise HelperError("not_found", "There is no such file or folder in this experiment.") from error
        if error.errno in _ESCAPES:
            raise HelperError("denied", "The path leaves the experiment's folder or goes through a link.") from error
        raise HelperError("denied", f"The file cannot be opened: {error.strerror}.") from error
