"""Reading pages in tests."""

from __future__ import annotations

import re
from html import unescape

import httpx2


async def csrf(client: httpx2.AsyncClient) -> str:
    """Return the form token of the signed-in person."""
    page = await client.get("/desktops")
    found = re.search(r'name="csrf" value="([0-9a-f]{64})"', page.text)
    assert found, "no form token on the page"
    return found[1]


async def send(client: httpx2.AsyncClient, path: str, **fields: str) -> httpx2.Response:
    """Submit a form with its token."""
    return await client.post(path, data={"csrf": await csrf(client), **fields})


def field(page: httpx2.Response, name: str) -> str:
    """Return the value of an input of the page's main form (the header's come before)."""
    found = re.findall(rf'<input[^>]*name="{name}"[^>]*value="([^"]*)"', page.text)
    assert found, f"no field {name}"
    return unescape(found[-1])


def text(page: httpx2.Response) -> str:
    """Return what a reader sees, roughly: without tags, in one line."""
    body = re.sub(r"<script.*?</script>", " ", page.text, flags=re.DOTALL)
    return unescape(" ".join(re.sub(r"<[^>]+>", " ", body).split()))
