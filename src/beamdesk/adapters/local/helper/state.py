"""The helper's own memory: which servers exist, in one small file each, so that a restarted helper still lists stopped ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from beamdesk.adapters.local.helper.homes import write_atomically
from beamdesk.adapters.local.helper.log import say
from beamdesk.protocol.codec import MalformedMessage, decode, encode
from beamdesk.protocol.helper import HelperServer, ServerState


@dataclass(slots=True)
class Records:
    """All known servers, in memory and under ``folder``."""

    folder: Path
    servers: dict[str, HelperServer]

    @classmethod
    def load(cls, folder: Path) -> Records:
        """Read the records of an earlier helper: what ran then has stopped since. Unreadable records are dropped."""
        servers: dict[str, HelperServer] = {}
        for path in sorted(folder.glob("*.json")):
            try:
                server = decode(HelperServer, path.read_bytes())
            except (MalformedMessage, OSError):
                path.unlink(missing_ok=True)
                continue
            if server.state is ServerState.RUNNING:
                server = replace(server, state=ServerState.STOPPED, cause="The machine or its helper was restarted.")
            servers[server.desktop_id] = server
        return cls(folder, servers)

    def put(self, server: HelperServer) -> None:
        """Remember a server; while this process lives its memory is the truth, so that a full disk stops nobody."""
        self.servers[server.desktop_id] = server
        try:
            write_atomically(self.folder / f"{server.desktop_id}.json", encode(server), durable=False)
        except OSError as error:
            say(f"the record of {server.desktop_id} cannot be written: {error.strerror}")

    def drop(self, desktop_id: str) -> None:
        """Forget a server; absent is fine."""
        self.servers.pop(desktop_id, None)
        (self.folder / f"{desktop_id}.json").unlink(missing_ok=True)
