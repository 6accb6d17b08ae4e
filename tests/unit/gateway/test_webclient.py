"""Taking the stream client out of a package."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from beamdesk.gateway import webclient
from beamdesk.gateway.webclient import MANIFEST, WebClientError, client_dir, install, write_client

CORE = r"""var a=1;e.textContent=`
body { margin: 0 }
.video-container #videoCanvas { z-index: 2 }
`;await h.audioWorklet.addModule(R(`
class AudioFrameProcessor extends AudioWorkletProcessor { /* marked (\`ending\`) \${x} */ }
registerProcessor('audio-frame-processor', AudioFrameProcessor);
`));"""


def unpack(folder: Path, core: str = CORE) -> Path:
    (folder / "selkies/selkies_web/src").mkdir(parents=True)
    (folder / "selkies/selkies_web/src/selkies-core.js").write_text(core)
    (folder / "selkies-2.1.0.dist-info/licenses").mkdir(parents=True)
    (folder / "selkies-2.1.0.dist-info/licenses/LICENSE").write_text("MPL")
    return folder


@pytest.fixture
def reviewed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webclient, "_CORE_SHA256", hashlib.sha256(CORE.encode()).hexdigest())


@pytest.mark.usefixtures("reviewed")
def test_the_worklet_becomes_a_file(tmp_path: Path):
    target = tmp_path / "out"
    target.mkdir()
    write_client(unpack(tmp_path / "in"), target)
    worklet = (target / "audio-worklet.js").read_text()
    assert "marked (`ending`) ${x}" in worklet
    assert "registerProcessor('audio-frame-processor'" in worklet
    manifest = json.loads((target / MANIFEST).read_text())
    assert set(manifest["files"]) == {"selkies-core.js", "audio-worklet.js", "LICENSE.txt"}
    assert manifest["style_hash"].startswith("sha256-")


def test_another_client_than_the_reviewed_one_is_refused(tmp_path: Path):
    with pytest.raises(WebClientError, match="reviewed"):
        write_client(unpack(tmp_path / "in"), tmp_path)


def test_a_package_without_a_client_is_refused(tmp_path: Path):
    with pytest.raises(WebClientError, match="no web client"):
        write_client(tmp_path, tmp_path)


@pytest.mark.usefixtures("reviewed")
def test_what_is_there_is_not_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fetched = []

    def download(_work: Path, unpacked: Path) -> None:
        fetched.append(1)
        unpack(unpacked)

    monkeypatch.setattr(webclient, "_download", download)
    base = tmp_path / "base"
    assert install(base) == install(base) == client_dir(base)
    assert len(fetched) == 1
    (client_dir(base) / "audio-worklet.js").write_text("changed")
    install(base)
    assert len(fetched) == 2
    assert [path.name for path in base.iterdir()] == [client_dir(base).name]
