"""Put the streaming server's web client on this host: ``python -m beamdesk.gateway.webclient --dest DIR``.

Downloads one wheel of known hash, without its dependencies, and keeps two files of it: the stream client, and the audio worklet
that the client would otherwise load from a ``data:`` address, which our Content-Security-Policy refuses. Idempotent, and quick when
it is there already. Nothing of it is ever fetched from a desktop.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from base64 import b64encode
from pathlib import Path

VERSION = "2.1.0"
MANIFEST = "client.json"
# Both files of the release, the wheel and the source; only the wheel can be chosen below.
_REQUIREMENT = (
    f"selkies=={VERSION} "
    "--hash=sha256:8bde6207ca921cb2f38c3204fafe18d40b5578165894818ae1ca9e46fca7b966 "
    "--hash=sha256:9765360801ca1f381916b4cfac21b106aa27fdbe025c64e1da0081565a316abe\n"
)
_CORE = "selkies/selkies_web/src/selkies-core.js"
_CORE_SHA256 = "866a4ddf63c8f65e136b244ef9b8d33242c8d0cf6a5f728267707642f30330af"
_WORKLET = re.compile(r"`(\s*class AudioFrameProcessor extends AudioWorkletProcessor.*?registerProcessor\([^)]*\);\s*)`", re.DOTALL)
_STYLE = re.compile(r"textContent=`(\nbody \{[^`]*#videoCanvas[^`]*)`")
_ESCAPED = re.compile(r"\\([`$\\])")


class WebClientError(RuntimeError):
    """The web client cannot be installed; the text says why."""


def client_dir(base: Path) -> Path:
    """Return where below ``base`` the client of the supported version lies."""
    return base / VERSION


def install(base: Path) -> Path:
    """Install below ``base`` unless it is there; returns the directory.

    Raises:
        WebClientError: the download failed, or is not what was expected.
    """
    target = client_dir(base)
    if _complete(target):
        return target
    base.mkdir(mode=0o755, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=base, prefix=".install-") as folder:
        work = Path(folder)
        unpacked, fresh = work / "unpacked", work / "fresh"
        _download(work, unpacked)
        fresh.mkdir(mode=0o755)
        write_client(unpacked, fresh)
        shutil.rmtree(target, ignore_errors=True)
        fresh.rename(target)
    return target


def write_client(unpacked: Path, target: Path) -> None:
    """Write the files of the client from an unpacked wheel into ``target``, which exists, with their manifest.

    Raises:
        WebClientError: the release is not the one that this was written for.
    """
    try:
        core = (unpacked / _CORE).read_bytes()
        licence = next(unpacked.glob("selkies-*.dist-info/licenses/LICENSE")).read_bytes()
    except (OSError, StopIteration) as error:
        raise WebClientError("The downloaded package has no web client.") from error
    if hashlib.sha256(core).hexdigest() != _CORE_SHA256:
        raise WebClientError("The downloaded web client is not the one that was reviewed.")
    text = core.decode()
    contents = {"selkies-core.js": core, "audio-worklet.js": _literal(_WORKLET, text).encode(), "LICENSE.txt": licence}
    for name, body in contents.items():
        (target / name).write_bytes(body)
    style = b64encode(hashlib.sha256(_literal(_STYLE, text).encode()).digest()).decode()
    digests = {name: hashlib.sha256(body).hexdigest() for name, body in contents.items()}
    manifest = {"version": VERSION, "files": digests, "style_hash": f"sha256-{style}"}
    (target / MANIFEST).write_text(json.dumps(manifest, indent=1))


def _literal(pattern: re.Pattern[str], text: str) -> str:
    """Return the one template literal that matches, as JavaScript would evaluate it."""
    found = pattern.findall(text)
    if not found or re.search(r"(?<!\\)\$\{", found[-1]):
        raise WebClientError("The web client has another shape than expected.")
    return _ESCAPED.sub(r"\1", found[-1])


def _complete(target: Path) -> bool:
    try:
        manifest = json.loads((target / MANIFEST).read_text())
        return bool(manifest["version"] == VERSION) and all(
            hashlib.sha256((target / name).read_bytes()).hexdigest() == digest for name, digest in manifest["files"].items()
        )
    except (OSError, ValueError, KeyError, AttributeError):
        return False


def _download(work: Path, unpacked: Path) -> None:
    wanted = work / "requirements.txt"
    wanted.write_text(_REQUIREMENT)
    own = Path(sys.executable).with_name("uv")
    uv = str(own) if own.exists() else shutil.which("uv")
    installer = [uv, "pip", "install", "--quiet"] if uv else [sys.executable, "-m", "pip", "install", "--quiet"]
    quiet = [] if uv else ["--disable-pip-version-check", "--root-user-action=ignore", "--no-compile"]
    options = ["--no-deps", "--only-binary", ":all:", "--require-hashes", "--target", str(unpacked), "-r", str(wanted)]
    done = subprocess.run([*installer, *quiet, *options], capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-3:]
        raise WebClientError("The web client cannot be downloaded: " + " ".join(last))


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m beamdesk.gateway.webclient", description="Install the stream client.")
    parser.add_argument("--dest", type=Path, required=True, help="directory to install into")
    options = parser.parse_args(argv)
    try:
        target = install(options.dest.absolute())
    except WebClientError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"stream client {VERSION}: {target}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
