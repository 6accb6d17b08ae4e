"""The sandboxed process that makes one preview: ``python -m beamdesk.adapters.preview.worker``, its socket as standard input.

Imports everything first, gives up its rights, then waits for one job, answers and ends. It must import nothing lazily and open
nothing.
"""

from __future__ import annotations

import os
import socket

from beamdesk.adapters.preview import content, sandbox
from beamdesk.adapters.preview.wire import LENGTHS, Answer, Job, Unshowable
from beamdesk.ports.previews import NoPreview
from beamdesk.protocol.codec import decode, encode

_MAX_JOB = 65536


def _receive(sock: socket.socket) -> tuple[Job, int] | None:
    """Return the job and the file's descriptor; None when the portal is gone."""
    received, descriptors, _flags, _address = socket.recv_fds(sock, _MAX_JOB, 1)
    if not received or not descriptors:
        return None
    sandbox.no_more_descriptors()
    while not received.endswith(b"\n"):
        more = sock.recv(_MAX_JOB)
        if not more or len(received) > _MAX_JOB:
            return None
        received += more
    return decode(Job, received), descriptors[0]


def _work(job: Job, descriptor: int) -> tuple[Answer, bytes]:
    """Make the preview; every way in which a file can be broken ends in an answer."""
    try:
        return content.show(descriptor, job.size, job.request)
    except Unshowable as no:
        return no.answer, b""
    except MemoryError:
        return Answer(none=NoPreview("too_large", "Showing this needs more memory than a preview may use.")), b""
    except Exception as error:  # noqa: BLE001  outermost frame: readers of broken files raise anything
        kind = type(error).__name__
        return Answer(none=NoPreview("damaged", f"This file is damaged, or of a kind that cannot be shown ({kind}).")), b""


def main() -> int:
    """Confine this process, answer one job, end."""
    content.warm_up()
    with socket.socket(fileno=os.dup(0)) as sock:
        os.close(0)
        sandbox.limit()
        sandbox.enter()
        job = _receive(sock)
        if job is None:
            return 0
        answer, payload = _work(*job)
        header = encode(answer)
        sock.sendall(LENGTHS.pack(len(header), len(payload)) + header + payload)
    return 0


if __name__ == "__main__":
    status = main()
    os._exit(status)
