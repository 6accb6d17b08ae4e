"""Folders and downloads: what is shown, what is sent, and that nothing in a file can run."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from apikit import ORIGIN, PASSWORD
from beamdesk.adapters.demo.people import ADA, IMAGING
from beamdesk.adapters.local.files import DirectFiles
from beamdesk.app.context import App
from beamdesk.app.data import Data
from beamdesk.portal.app import create_portal
from beamdesk.ports.files import OpenedFile
from beamdesk.ports.previews import (
    ImagePreview,
    Node,
    NoPreview,
    PlotPreview,
    Preview,
    PreviewRequest,
    TextPreview,
    TreePreview,
    View,
)

from .conftest import SETTINGS, Browse
from .pages import text

pytestmark = pytest.mark.anyio
BASE = f"/data/{IMAGING.id}"


class ScriptedPreviews:
    """Answers as it is told, and remembers what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[View, Preview] = {}
        self.asked: list[PreviewRequest] = []

    async def preview(self, _opened: OpenedFile, request: PreviewRequest) -> Preview:
        self.asked.append(request)
        return self.answers.get(request.view, NoPreview("binary", "This is a binary file of a kind that cannot be shown."))

    async def close(self) -> None: ...


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "data" / IMAGING.folder
    for area in ("raw", "processed"):
        (root / area).mkdir(parents=True)
    (root / "raw" / "scan_2.nxs").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(2000))
    (root / "raw" / "scan_10.nxs").write_bytes(b"\x89HDF\r\n\x1a\n")
    (root / "raw" / "big.dat").write_bytes(bytes(range(256)) * 100)
    (root / "processed" / "evil.html").write_text("<script>alert(1)</script>")
    (root / "processed" / "evil.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>')
    (root / "processed" / '<img src=x onerror="alert(1)">.txt').write_text("x")
    (root / "processed" / "空 格+&%2e.txt").write_text("读")
    (root / "processed" / "secret").symlink_to("/etc/passwd")
    os.mkfifo(root / "processed" / "pipe")
    for path in [root.parent, root, *root.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() else 0o644)
    return tmp_path / "data"


@pytest.fixture
def previews() -> ScriptedPreviews:
    return ScriptedPreviews()


@asynccontextmanager
async def visitor(app: App, folder: Path, previews: ScriptedPreviews, person: str = "bob") -> AsyncIterator[httpx2.AsyncClient]:
    data = Data(app, DirectFiles(folder), previews)
    transport = httpx2.ASGITransport(create_portal(app, SETTINGS, data), raise_app_exceptions=False)
    headers = {"Origin": ORIGIN, "Accept-Language": "en"}
    async with httpx2.AsyncClient(transport=transport, base_url=ORIGIN, headers=headers) as client:
        assert (await client.post("/sign-in", data={"login": person, "password": PASSWORD})).status_code == 303
        client.cookies.set("beamdesk_language", "en")
        yield client


async def test_an_experiment_leads_to_its_folders(app: App, folder: Path, previews: ScriptedPreviews) -> None:
    async with visitor(app, folder, previews) as client:
        assert IMAGING.title.en in text(await client.get("/data"))
        page = await client.get(BASE)
    assert f'href="{BASE}?path=raw"' in page.text
    assert f'href="{BASE}?path=processed"' in page.text


async def test_the_data_of_others_do_not_exist(app: App, folder: Path, previews: ScriptedPreviews) -> None:
    async with visitor(app, folder, previews, "chen") as client:
        assert IMAGING.proposal not in text(await client.get("/data"))
        for suffix in ("", "?path=raw", "/view?path=raw/big.dat", "/download?path=raw/big.dat"):
            assert (await client.get(BASE + suffix)).status_code == 404


async def test_an_operator_reads_no_data(app: App, folder: Path, previews: ScriptedPreviews) -> None:
    async with visitor(app, folder, previews, "olga") as client:
        assert (await client.get(f"{BASE}/download?path=raw/big.dat")).status_code == 404


@pytest.mark.parametrize(
    "path", ["../other", "/etc", "raw/../../x", "raw//x", "raw/\x00", "%2e%2e/x", "processed/secret", "a" * 5000]
)
async def test_no_path_leads_out(app: App, folder: Path, previews: ScriptedPreviews, path: str) -> None:
    async with visitor(app, folder, previews) as client:
        for page in ("", "/view", "/download"):
            answer = await client.get(BASE + page, params={"path": path})
            assert answer.status_code in {400, 403, 404}
            assert "root:" not in answer.text


async def test_files_are_listed_in_counting_order_with_sizes(app: App, folder: Path, previews: ScriptedPreviews) -> None:
    async with visitor(app, folder, previews) as client:
        page = text(await client.get(f"{BASE}?path=raw"))
    assert page.index("big.dat") < page.index("scan_2.nxs") < page.index("scan_10.nxs")
    assert "25.0 KiB" in page
    assert "As the instrument wrote them" in page


async def test_files_can_be_sorted_and_filtered(app: App, folder: Path, previews: ScriptedPreviews) -> None:
    async with visitor(app, folder, previews) as client:
        largest = await client.get(f"{BASE}?path=raw&sort=-size")
        found = text(await client.get(f"{BASE}?path=raw&filter=SCAN_1"))
        nothing = text(await client.get(f"{BASE}?path=raw&filter=zzz"))
    order = text(largest)
    assert order.index("big.dat") < order.index("scan_2.nxs") < order.index("scan_10.nxs")
    assert 'aria-sort="descending"' in largest.text
    assert "scan_10.nxs" in found
    assert "big.dat" not in found
    assert "Nothing here matches “zzz”." in nothing


async def test_a_large_folder_comes_in_pages(app: App, folder: Path, previews: ScriptedPreviews) -> None:
    for number in range(150):
        (folder / IMAGING.folder / "raw" / f"frame_{number:03}.dat").touch(0o644)
    async with visitor(app, folder, previews) as client:
        first = await client.get(f"{BASE}?path=raw")
        second = await client.get(f"{BASE}?path=raw&offset=100")
        sorted_second = text(await client.get(f"{BASE}?path=raw&sort=-name&offset=100"))
    assert "offset=100" in first.text
    assert "frame_149.dat" in text(second)
    assert "frame_149.dat" not in text(first)
    assert "frame_000.dat" in sorted_second


async def test_hostile_file_names_are_shown_as_text(app: App, folder: Path, previews: ScriptedPreviews) -> None:
    async with visitor(app, folder, previews) as client:
        page = await client.get(f"{BASE}?path=processed")
    assert "<img src=x" not in page.text
    assert "&lt;img src=x" in page.text


async def test_links_and_pipes_are_shown_but_not_followed(app: App, folder: Path, previews: ScriptedPreviews) -> None:
    async with visitor(app, folder, previews) as client:
        page = await client.get(f"{BASE}?path=processed")
        pipe = await client.get(f"{BASE}/download?path=processed/pipe")
    assert "A link; it is not followed here." in text(page)
    assert "path=processed%2Fsecret" not in page.text
    assert pipe.status_code == 404


async def test_names_that_need_quoting_round_trip(app: App, folder: Path, previews: ScriptedPreviews) -> None:
    async with visitor(app, folder, previews) as client:
        page = await client.get(f"{BASE}?path=processed")
        encoded = "processed%2F%E7%A9%BA%20%E6%A0%BC%2B%26%252e.txt"
        assert f'href="{BASE}/download?path={encoded}"' in page.text
        assert (await client.get(f"{BASE}/download?path={encoded}")).text == "读"


@pytest.mark.parametrize("name", ["evil.html", "evil.svg"])
async def test_a_hostile_file_is_sent_so_that_it_cannot_run_here(
    app: App, folder: Path, previews: ScriptedPreviews, name: str
) -> None:
    async with visitor(app, folder, previews) as client:
        answer = await client.get(f"{BASE}/download?path=processed/{name}")
    assert answer.headers["content-disposition"].startswith("attachment;")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]
    assert "allow-scripts" not in answer.headers["content-security-policy"]
    assert answer.headers["content-type"].split(";")[0] in {"text/plain", "application/octet-stream"}


async def test_downloads_can_go_on_where_they_broke_off(app: App, folder: Path, previews: ScriptedPreviews) -> None:
    whole = bytes(range(256)) * 100
    url = f"{BASE}/download?path=raw/big.dat"
    async with visitor(app, folder, previews) as client:
        head = await client.head(url)
        all_of_it = await client.get(url)
        rest = await client.get(url, headers={"Range": "bytes=25000-", "If-Range": head.headers["etag"]})
        beyond = await client.get(url, headers={"Range": "bytes=99999-"})
        same = await client.get(url, headers={"If-None-Match": head.headers["etag"]})
    assert head.headers["content-length"] == str(len(whole))
    assert head.content == b""
    assert all_of_it.content == whole
    assert rest.status_code == 206 or head.headers["etag"].startswith("W/")
    assert rest.content in {whole[25000:], whole}
    assert beyond.status_code == 416
    assert same.status_code == 304


async def test_a_tree_is_shown_with_its_default_drawn(app: App, folder: Path, previews: ScriptedPreviews) -> None:
    nodes = (
        Node("/entry", "entry", "group", 0, nx_class="NXentry"),
        Node("/entry/<b>", "<b>data</b>", "dataset", 1, (4, 8, 8), "uint16", show=View.IMAGE),
    )
    previews.answers = {
        View.AUTO: TreePreview(nodes, "/entry/<b>", truncated=True),
        View.DATASET: ImagePreview(b"PNG", 8, 8, "/entry/<b>", "<i>title</i>", (4, 8, 8), "uint16", "counts", 1.0, 9.5, 0, 2, 4),
    }
    async with visitor(app, folder, previews) as client:
        page = await client.get(f"{BASE}/view?path=raw/scan_2.nxs")
    assert 'src="data:image/png;base64,UE5H"' in page.text
    assert "Slice 3 of 4" in text(page)
    assert "Values from 1 to 9.5" in text(page)
    assert "<b>data" not in page.text
    assert "<i>title" not in page.text
    assert "The list was cut" in text(page)


async def test_a_slice_alone_comes_without_the_page(app: App, folder: Path, previews: ScriptedPreviews) -> None:
    previews.answers = {View.DATASET: ImagePreview(b"PNG", 8, 8, "/d", "", (4, 8, 8), low=0.0, high=1.0, index=3, count=4)}
    query = "path=raw/scan_2.nxs&dataset=/d&index=3&axis=1&colours=viridis&log=1"
    async with visitor(app, folder, previews) as client:
        part = await client.get(f"{BASE}/view?{query}", headers={"HX-Request": "true"})
    assert "<html" not in part.text
    assert 'id="figure-body"' in part.text
    (asked,) = previews.asked
    assert (asked.dataset, asked.index, asked.axis, asked.colours, asked.log) == ("/d", 3, 1, "viridis", True)


async def test_nonsense_in_the_query_means_the_default(app: App, folder: Path, previews: ScriptedPreviews) -> None:
    previews.answers = {View.DATASET: ImagePreview(b"PNG", 8, 8, "/d")}
    query = "path=raw/scan_2.nxs&index=-1&axis=99999&colours=plaid&view=x&log=maybe"
    async with visitor(app, folder, previews) as client:
        assert (await client.get(f"{BASE}/view?{query}", headers={"HX-Request": "true"})).status_code == 200
    assert previews.asked[0].index is None
    assert previews.asked[0].colours == "gray"


async def test_text_is_shown_as_text(app: App, folder: Path, previews: ScriptedPreviews) -> None:
    previews.answers = {View.AUTO: TextPreview("<script>alert(1)</script>", truncated=True)}
    async with visitor(app, folder, previews) as client:
        page = await client.get(f"{BASE}/view?path=raw/big.dat")
    assert "&lt;script&gt;alert(1)" in page.text
    assert "Only the beginning is shown." in text(page)


async def test_a_curve_is_an_image_not_part_of_the_document(app: App, folder: Path, previews: ScriptedPreviews) -> None:
    previews.answers = {View.AUTO: PlotPreview(b"<svg onload='alert(1)'/>", "/mu", "t", "x", "y", 487)}
    async with visitor(app, folder, previews) as client:
        page = await client.get(f"{BASE}/view?path=raw/big.dat")
    assert "<svg onload" not in page.text
    assert 'src="data:image/svg+xml;base64,' in page.text


async def test_a_file_without_preview_says_why_in_both_languages(app: App, folder: Path, previews: ScriptedPreviews) -> None:
    async with visitor(app, folder, previews) as client:
        english = text(await client.get(f"{BASE}/view?path=raw/big.dat"))
        client.cookies.clear()
        await client.post("/sign-in", data={"login": "ada", "password": PASSWORD})
        chinese = text(await client.get(f"{BASE}/view?path=raw/big.dat"))
    assert "This is a binary file of a kind that cannot be shown." in english
    assert "这是无法显示的二进制文件" in chinese
    assert ADA.language == "zh"


async def test_without_data_the_site_says_so(browse: Browse) -> None:
    async with browse("bob") as client:
        assert "This site does not show data in the portal" in text(await client.get("/data"))
        assert (await client.get(BASE)).status_code == 501
