"""Stands in for the guest agent in a test container: runs commands that a test sends to the streaming socket.

Copied into the container's image; standard library only. A request is one JSON line ``{"argv": [...], "person": bool}``.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

PATH = "/run/beamdesk/stream/stream.sock"


def answer(line, person):
    request = json.loads(line)
    uid, gid, groups = person
    identity = {"user": uid, "group": gid, "extra_groups": groups} if request["person"] else {}
    done = subprocess.run(request["argv"], capture_output=True, text=True, check=False, **identity)
    return {"rc": done.returncode, "out": done.stdout[-20000:], "err": done.stderr[-20000:]}


def main():
    home = next(os.scandir("/home"), None)
    status = home.stat()
    groups = sorted({raw.stat().st_gid for raw in Path("/data").glob("*/raw")})
    person = (status.st_uid, status.st_gid, groups)
    sys.stdout.write("agent is up\n")
    sys.stdout.flush()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(PATH)
        Path(PATH).chmod(0o666)
        listener.listen()
        while True:
            connection, _address = listener.accept()
            if os.fork() == 0:
                with connection, connection.makefile("rwb") as file:
                    file.write(json.dumps(answer(file.readline(), person)).encode() + b"\n")
                os._exit(0)
            connection.close()
            try:
                while os.waitpid(-1, os.WNOHANG) != (0, 0):
                    pass
            except ChildProcessError:
                pass


if __name__ == "__main__":
    main()
