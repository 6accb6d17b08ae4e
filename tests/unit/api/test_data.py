"""An experiment's data over the API, on real files read without a helper."""

import os

import pytest

from apikit import DIFFRACTION, IMAGING, PASSWORD, api_client, events_of
from beamdesk.app.data import Data
from beamdesk.domain.errors import NotFound
from beamdesk.ports.files import Entry, FileKind, FolderPage, OpenedFile, kind_of, split_path
from beamdesk.ports.previews import ImagePreview, NoPreview, TextPreview, View

pytestmark = pytest.mark.anyio
CONTENT = bytes(range(256)) * 40


class PlainFiles:
    """Files of one folder, opened as this process."""

    def __init__(self, root):
        self._root = root

    async def open(self, account, folder, path):
        assert account.gids == (30147,)
        try:
            return OpenedFile(os.open(self._root.joinpath(folder, *split_path(path)), os.O_RDONLY))
        except OSError as error:
            raise NotFound("There is no such file or folder.") from error

    async def list(self, account, folder, path, *, offset=0, limit=200, hidden=False):
        where = self._root.joinpath(folder, *split_path(path))
        if not where.is_dir():
            raise NotFound("There is no such file or folder.")
        entries = [Entry(one.name, kind_of(one.stat().st_mode)) for one in sorted(where.iterdir())]
        return FolderPage(tuple(entries[offset : offset + limit]), offset, len(entries))


class FixedPreviews:
    async def preview(self, opened, request):
        if request.view is View.IMAGE:
            return ImagePreview(b"\x89PNG...", 10, 10)
        return TextPreview("head", truncated=False) if request.view is View.AUTO else NoPreview("unknown", "Nothing to show.")

    async def close(self):
        return None


@pytest.fixture
def data(app, tmp_path):
    raw = tmp_path / IMAGING / "raw"
    raw.mkdir(parents=True)
    (raw / "scan 1&2.nxs").write_bytes(CONTENT)
    (raw / os.fsdecode(b"odd-\xff\xfe.dat")).write_bytes(b"odd")
    (raw / "page.html").write_bytes(b"<script>alert(1)</script>")
    return Data(app, PlainFiles(tmp_path), FixedPreviews())


async def test_every_listed_path_can_be_downloaded_as_it_is(app, data):
    async with api_client(app, data=data) as client:
        page = (await client.get(f"/experiments/{IMAGING}/data?path=raw")).json()
        assert [(item["name"], item["kind"]) for item in page["items"]] == [
            ("odd-\ufffd\ufffd.dat", FileKind.FILE),
            ("page.html", FileKind.FILE),
            ("scan 1&2.nxs", FileKind.FILE),
        ]
        got = {item["name"]: (await client.get(f"/experiments/{IMAGING}/file?path={item['path']}")) for item in page["items"]}
    assert got["odd-\ufffd\ufffd.dat"].content == b"odd"
    assert got["scan 1&2.nxs"].content == CONTENT
    assert got["page.html"].headers["content-type"] == "text/plain; charset=utf-8"
    assert got["page.html"].headers["content-disposition"].startswith("attachment")
    assert "sandbox" in got["page.html"].headers["content-security-policy"]


async def test_a_download_goes_on_where_it_broke_off(app, data):
    async with api_client(app, data=data) as client:
        address = f"/experiments/{IMAGING}/file?path=raw/scan%201%262.nxs"
        head = await client.head(address)
        assert (head.headers["content-length"], head.content) == (str(len(CONTENT)), b"")
        part = await client.get(address, headers={"Range": "bytes=1000-"})
        assert (part.status_code, part.content) == (206, CONTENT[1000:])
        assert part.headers["content-range"] == f"bytes 1000-{len(CONTENT) - 1}/{len(CONTENT)}"
        beyond = await client.get(address, headers={"Range": "bytes=99999999-"})
        assert (beyond.status_code, beyond.json()["code"]) == (416, "range_not_satisfiable")
        assert beyond.headers["content-range"] == f"bytes */{len(CONTENT)}"


@pytest.mark.parametrize(
    "path", ["../x", "raw/../../x", "/etc/passwd", "raw//x", "raw/./x", "raw/%00", "x" * 5000, "raw/\U0001f4a3" * 900]
)
async def test_a_path_out_of_the_folder_is_invalid(app, data, path):
    async with api_client(app, data=data) as client:
        for what in ("data", "file", "preview"):
            assert (await client.get(f"/experiments/{IMAGING}/{what}", params={"path": path})).status_code in (404, 422)
            assert (await client.get(f"/experiments/{IMAGING}/{what}?path={path[:3000]}")).status_code in (404, 422)


@pytest.mark.parametrize(("person", "experiment"), [("chen", IMAGING), ("olga", IMAGING), ("ada", DIFFRACTION), ("ada", "none")])
async def test_foreign_data_are_not_there_operators_included(app, data, person, experiment):
    async with api_client(app, person, data=data) as client:
        for what in ("data", "file", "preview"):
            assert (await client.get(f"/experiments/{experiment}/{what}?path=raw")).status_code == 404
    assert len(await events_of(app, "refused")) == 3


async def test_previews_are_pictures_or_json(app, data):
    async with api_client(app, data=data) as client:
        address = f"/experiments/{IMAGING}/preview?path=raw/page.html"
        assert (await client.get(address)).json() == {"kind": "text", "content": {"text": "head", "truncated": False}}
        assert (await client.get(f"{address}&view=tree")).json()["kind"] == "none"
        picture = await client.get(f"{address}&view=image")
    assert picture.headers["content-type"] == "image/png"
    assert "sandbox" in picture.headers["content-security-policy"]


async def test_a_site_without_data_says_so(app):
    assert PASSWORD
    async with api_client(app) as client:
        answer = await client.get(f"/experiments/{IMAGING}/data")
    assert (answer.status_code, answer.json()["code"]) == (501, "not_supported")
