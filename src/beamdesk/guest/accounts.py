"""The person's account inside the desktop: entries in passwd, group and shadow, the runtime folder, and the home on first use.

Writes the files directly: no set-uid program, no lock daemon and no extra process stands between start and first picture. It must
never follow a link that the person could have laid, and never give anybody an id that the system uses.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from beamdesk.guest.errors import SetupError
from beamdesk.protocol.guest import Account

_LOGIN = re.compile(r"[a-z_][a-z0-9_-]{0,30}\Z")
_FIRST_ID = 1000
_LAST_ID = 2**31
_LEFT_BY_MKFS = frozenset({"lost+found"})


@dataclass(frozen=True, slots=True)
class Person:
    """Whose programs run: the ids to drop to and where home is."""

    login: str
    uid: int
    gid: int
    gids: tuple[int, ...]
    home: Path

    @property
    def runtime(self) -> Path:
        """The private folder for sockets and the like."""
        return Path("/run/user") / str(self.uid)


def check(account: Account) -> Person:
    """Validate the account the API told us to make.

    Raises:
        SetupError: naming what is wrong.
    """
    names = (account.login, *(group.name for group in account.groups))
    if not all(_LOGIN.match(name) for name in names):
        raise SetupError("the account's login or a group is not a POSIX name")
    ids = (account.uid, account.gid, *(group.gid for group in account.groups))
    if not all(_FIRST_ID <= number < _LAST_ID for number in ids):
        raise SetupError(f"the account has an id outside {_FIRST_ID}..{_LAST_ID - 1}")
    if account.home != f"/home/{account.login}":
        raise SetupError("the account's home is not /home/<login>")
    gids = tuple(sorted({account.gid, *(group.gid for group in account.groups)}))
    return Person(account.login, account.uid, account.gid, gids, Path(account.home))


def ensure(account: Account, etc: Path = Path("/etc")) -> Person:
    """Make the account and its groups; those that exist as told are left alone.

    Raises:
        SetupError: a name or id is taken by something else.
    """
    person = check(account)
    full_name = "".join(char for char in account.full_name if char.isprintable() and char not in ":,=")
    user = f"{account.login}:x:{account.uid}:{account.gid}:{full_name}:{account.home}:/bin/bash"
    groups = {account.login: account.gid, **{group.name: group.gid for group in account.groups}}
    primary = next((name for name, gid in groups.items() if gid == account.gid and name != account.login), "")
    if primary:
        del groups[account.login]
    members = {name: ("" if gid == account.gid else account.login) for name, gid in groups.items()}
    _ensure_lines(etc / "group", [f"{name}:x:{gid}:{members[name]}" for name, gid in groups.items()])
    _ensure_lines(etc / "passwd", [user])
    _ensure_lines(etc / "shadow", [f"{account.login}:!:19000:0:99999:7:::"], unique_id=False)
    return person


def _ensure_lines(path: Path, wanted: list[str], *, unique_id: bool = True) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    for line in wanted:
        name, _password, number, *_rest = line.split(":")
        for other in lines:
            fields = other.split(":")
            if fields[0] == name and (not unique_id or fields[2] == number):
                break
            if fields[0] == name or (unique_id and len(fields) > 2 and fields[2] == number):
                raise SetupError(f"{path.name}: {name} or the id {number} is taken by {fields[0]}")
        else:
            lines.append(line)
    draft = path.with_name(f".{path.name}.beamdesk")
    draft.write_text("\n".join(lines) + "\n", encoding="utf-8")
    shutil.copystat(path, draft)
    os.chown(draft, path.stat().st_uid, path.stat().st_gid)
    draft.rename(path)


def with_devices(person: Person, groups: Collection[int]) -> Person:
    """Return the person with the groups that open the desktop's cards."""
    return replace(person, gids=tuple(sorted({*person.gids, *groups})))


def make_runtime(person: Person, folder: Path | None = None) -> Path:
    """Make the person's runtime folder and the folder of X sockets; return the former."""
    runtime = folder or person.runtime
    runtime.parent.mkdir(mode=0o755, exist_ok=True)
    runtime.mkdir(mode=0o700, exist_ok=True)
    os.chown(runtime, person.uid, person.gid)
    runtime.chmod(0o700)
    return runtime


def fill_home(person: Person, skeleton: Path = Path("/etc/skel")) -> bool:
    """Give a new, empty home to the person with the skeleton's files; tell whether it was new.

    Raises:
        SetupError: there is no home, or it belongs to somebody else.
    """
    home = person.home
    try:
        home.mkdir(mode=0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise SetupError(f"the home {home} cannot be made: {error.strerror}") from error
    info = home.lstat()
    if not stat.S_ISDIR(info.st_mode):
        raise SetupError(f"the home {home} is not a folder")
    if {item.name for item in home.iterdir()} - _LEFT_BY_MKFS:
        if info.st_uid != person.uid:
            raise SetupError(f"the home {home} belongs to uid {info.st_uid}, not to {person.login}")
        return False
    try:
        _copy(skeleton, home, person)
        if (home / "lost+found").exists():
            _give(home / ".hidden", person, b"lost+found\n")
        # last: only a complete home belongs to the person
        os.chown(home, person.uid, person.gid)
        home.chmod(0o700)
    except OSError as error:
        raise SetupError(f"the home {home} cannot be filled: {error.strerror}") from error
    return True


def _copy(source: Path, target: Path, person: Person) -> None:
    for item in sorted(source.iterdir()):
        copy = target / item.name
        if item.is_symlink():
            copy.symlink_to(item.readlink())
        elif item.is_dir():
            copy.mkdir(mode=0o755)
            _copy(item, copy, person)
        else:
            shutil.copyfile(item, copy)
            copy.chmod(item.stat().st_mode & 0o755)
        os.lchown(copy, person.uid, person.gid)


def _give(path: Path, person: Person, content: bytes) -> None:
    path.write_bytes(content)
    os.lchown(path, person.uid, person.gid)
