"""A real NFS server for the experiments' data: NFS-Ganesha, version 4 only, raw data read-only."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CONFIG = """
NFS_CORE_PARAM {{ NFS_Port = {port}; Protocols = 4; Bind_addr = {address}; Enable_NLM = false; Enable_RQUOTA = false; Enable_UDP = None; }}
NFSV4 {{ Graceless = true; Only_Numeric_Owners = true; Minor_Versions = 1, 2; RecoveryBackend = fs; RecoveryRoot = {folder}/recovery; }}
NFS_KRB5 {{ Active_krb5 = false; }}
EXPORT_DEFAULTS {{ Protocols = 4; Transports = TCP; SecType = sys; Squash = Root_Squash; Anonymous_Uid = 65534; Anonymous_Gid = 65534; }}
LOG {{ Default_Log_Level = EVENT; }}
"""
_EXPORT = """
EXPORT {{ Export_Id = {number}; Path = {path}; Pseudo = /export/{name}; Access_Type = {access}; FSAL {{ Name = VFS; }} }}
"""


@contextmanager
def nfs_server(folder: Path, exports: dict[str, tuple[Path, bool]], address: str, port: int) -> Iterator[None]:
    """Serve ``exports`` (name: path, writable) as ``/export/NAME``."""
    (folder / "recovery").mkdir(parents=True)
    text = _CONFIG.format(address=address, port=port, folder=folder)
    for number, (name, (path, writable)) in enumerate(exports.items(), start=1):
        text += _EXPORT.format(number=number, path=path, name=name, access="RW" if writable else "RO")
    (folder / "ganesha.conf").write_text(text)
    command = ["ganesha.nfsd", "-F", "-f", folder / "ganesha.conf", "-L", folder / "ganesha.log", "-p", folder / "pid"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for((address, port), process, folder / "ganesha.log")
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(address: tuple[str, int], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            socket.create_connection(address, 1).close()
        except OSError:
            time.sleep(0.1)
            continue
        return
    raise AssertionError(f"the NFS server did not come up: {log.read_text()[-2000:] if log.exists() else ''}")
