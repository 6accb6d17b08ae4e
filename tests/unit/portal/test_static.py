"""Our static files, and those that are not ours."""

from __future__ import annotations

import hashlib
import re
import tomllib
from pathlib import Path

import pytest

from beamdesk.portal.site import STATIC, VENDORED

from .conftest import Browse


def test_vendored_files_are_what_the_notice_says() -> None:
    notice = (STATIC / "vendor" / "NOTICE.md").read_text()
    rows = dict(re.findall(r"^\| `([\w.-]+\.js)` .* `([0-9a-f]{64})` \|$", notice, re.MULTILINE))
    assert {f"vendor/{name}" for name in rows} == set(VENDORED)
    assert {path.name for path in (STATIC / "vendor").glob("*.js")} == set(rows)
    for name, checksum in rows.items():
        assert hashlib.sha256((STATIC / "vendor" / name).read_bytes()).hexdigest() == checksum


@pytest.mark.anyio
async def test_static_files_are_kept_by_their_version(browse: Browse) -> None:
    async with browse(None) as client:
        page = await client.get("/sign-in")
        address = re.search(r'href="(/static/app.css\?v=\w+)"', page.text)
        assert address
        answer = await client.get(address[1])
        plain = await client.get("/static/app.css")
    assert "immutable" in answer.headers["cache-control"]
    assert plain.headers["cache-control"] == "no-cache"


@pytest.mark.anyio
@pytest.mark.parametrize(
    "path", ["/static/../site.py", "/static/%2e%2e/site.py", "/static//etc/passwd", "/static/", "/static/vendor"]
)
async def test_static_serves_static_files_only(browse: Browse, path: str) -> None:
    async with browse(None) as client:
        answer = await client.get(path)
    assert answer.status_code in {404, 405}
    assert "beamdesk.app" not in answer.text


def test_every_icon_that_is_used_is_drawn() -> None:
    drawn = set(re.findall(r'<symbol id="([\w-]+)"', (STATIC / "icons.svg").read_text()))
    templates = STATIC.parent / "templates"
    used = {name for path in templates.rglob("*.html") for name in re.findall(r'icon\("([\w-]+)"', path.read_text())}
    assert used <= drawn


def test_the_locales_are_toml() -> None:
    for path in Path(STATIC.parent / "locale").glob("*.toml"):
        assert tomllib.loads(path.read_text())
