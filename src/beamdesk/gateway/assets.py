"""The files that a browser may load, read into memory at start: a path is looked up, never joined, so none can lead elsewhere.

Two sources: our own `static/`, and the web client of the streaming server, unpacked on this host by `webclient`. Never a desktop.
Every address contains a hash of the content, so that browsers may keep it for ever.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from beamdesk.domain.errors import ConfigurationError
from beamdesk.gateway.reply import IMMUTABLE, Reply
from beamdesk.gateway.webclient import MANIFEST, client_dir

_TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".json": "application/json",
    ".txt": "text/plain; charset=utf-8",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """A file with its compressed form."""

    body: bytes
    zipped: bytes
    content_type: str

    def reply(self, *, accepts_gzip: bool) -> Reply:
        """Return the answer that carries it."""
        small = accepts_gzip and len(self.zipped) < len(self.body)
        fields = (("Vary", "Accept-Encoding"), *((("Content-Encoding", "gzip"),) if small else ()))
        return Reply(200, self.zipped if small else self.body, self.content_type, fields, cache=IMMUTABLE)


@dataclass(frozen=True, slots=True)
class Assets:
    """All files by address. ``style_hash`` admits the one style sheet that the stream client writes into the page."""

    by_path: dict[str, Asset]
    static: str
    client: str
    style_hash: str

    def find(self, path: str) -> Asset | None:
        """Return the file at an address."""
        return self.by_path.get(path)


def load_assets(selkies_web_dir: Path) -> Assets:
    """Read all files.

    Raises:
        ConfigurationError: the web client is not there; the text says how to get it.
    """
    own = {entry.name: entry.read_bytes() for entry in files("beamdesk.gateway").joinpath("static").iterdir() if entry.is_file()}
    folder = client_dir(selkies_web_dir)
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        client = {name: (folder / name).read_bytes() for name in manifest["files"]}
    except (OSError, ValueError, KeyError) as error:
        raise ConfigurationError(
            f"The stream client is missing in {folder}. Run: python -m beamdesk.gateway.webclient --dest {selkies_web_dir}"
        ) from error
    static_base, client_base = f"/static/{_digest(own)}", f"/client/{_digest(client)}"
    by_path = {f"{static_base}/{name}": _asset(name, body) for name, body in own.items()}
    by_path |= {f"{client_base}/{name}": _asset(name, body) for name, body in client.items()}
    return Assets(by_path, static_base, client_base, str(manifest["style_hash"]))


def _asset(name: str, body: bytes) -> Asset:
    return Asset(body, gzip.compress(body, 9, mtime=0), _TYPES.get(Path(name).suffix, "application/octet-stream"))


def _digest(entries: dict[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name, body in sorted(entries.items()):
        digest.update(name.encode() + b"\0" + hashlib.sha256(body).digest())
    return digest.hexdigest()[:16]
