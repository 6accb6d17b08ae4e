"""A desktop in the browser at 1080p: our page beside TigerVNC with noVNC, in the same run, in turns.

First picture (from the click on Connect, or from the address, to the first readable picture), click to pixel on a still screen, and
painted pictures a second of a moving one (30 drawn). Everything is on this machine, the browser's software decoder too: the figures
compare, they are no promise. Needs Xvfb, TigerVNC, websockify, noVNC (from npm, or Debian's), Chromium and the streaming server
(BEAMDESK_TEST_SELKIES or a built image). About two minutes.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from playwright.async_api import Browser, Page, async_playwright
from playwright.async_api import Error as PlaywrightError

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests")]

from beamdesk.adapters.sql.store import SqlStore  # noqa: E402
from beamdesk.app.connections import connect  # noqa: E402
from beamdesk.app.logins import open_login  # noqa: E402
from beamdesk.gateway import webclient  # noqa: E402
from beamdesk.gateway.config import GatewaySettings  # noqa: E402
from integration.gateway.selkies import real_desktop  # noqa: E402
from integration.gateway.stage import ADA, MASTER, free_port, make_app, put_people, put_ready_desktop, running  # noqa: E402

ROUNDS, SECONDS, CLICKS = 2, 6, 12
WIDTH, HEIGHT = 1920, 1080
NOVNC_VERSION = "1.7.0"
FLAGS = [
    "--no-sandbox", "--headless=new", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--force-device-scale-factor=1",
]  # fmt: skip
FORM = """<!doctype html><form method="post" action="{url}"><input name="ticket" value="{ticket}"><button>Connect</button></form>"""
NOVNC_PAGE = """<!doctype html><style>html,body{{margin:0;overflow:hidden}}#s{{width:{width}px;height:{height}px}}</style>
<div id=s></div><script type=module>import RFB from './core/rfb.js';
const r=new RFB(document.getElementById('s'),'ws://'+location.host+'/websockify',{{}});
r.qualityLevel=6;r.compressionLevel=1;</script>"""


@dataclass
class Candidate:
    """A way to see a desktop: how to open it in a page, on which display the workload draws."""

    name: str
    display: str
    first: list[float] = field(default_factory=list)
    clicks: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    ages: list[float] = field(default_factory=list)

    async def open(self, page: Page) -> float:
        """Open it; returns when the person's wait began (seconds since the epoch)."""
        raise NotImplementedError


@dataclass
class Ours(Candidate):
    portal: str = ""

    async def open(self, page: Page) -> float:
        await page.goto(self.portal)
        began = time.time()
        await page.click("button", no_wait_after=True)
        return began


@dataclass
class NoVnc(Candidate):
    url: str = ""

    async def open(self, page: Page) -> float:
        began = time.time()
        await page.goto(self.url, wait_until="commit")
        return began


@contextmanager
def program(*command: str, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    started = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
    try:
        yield started
    finally:
        started.terminate()
        started.wait()


def fetch_novnc() -> Path:
    """Return the unpacked npm package, fetched once; without npm, what Debian packages (an older version)."""
    if shutil.which("npm") is None:
        return Path("/usr/share/novnc")
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "beamdesk-bench" / f"novnc-{NOVNC_VERSION}"
    if not (cache / "core" / "rfb.js").exists():
        cache.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache.parent) as folder:
            subprocess.run(
                ["npm", "pack", "--silent", f"@novnc/novnc@{NOVNC_VERSION}"], cwd=folder, check=True, stdout=subprocess.DEVNULL
            )
            subprocess.run(["tar", "xf", next(Path(folder).glob("*.tgz"))], cwd=folder, check=True)
            shutil.rmtree(cache, ignore_errors=True)
            (Path(folder) / "package").rename(cache)
    return cache


def start_novnc(stack: ExitStack, folder: Path) -> NoVnc:
    number, rfb, port = random.randint(200, 900), free_port(), free_port()
    web = folder / "novnc"
    shutil.copytree(fetch_novnc(), web)
    (web / "bench.html").write_text(NOVNC_PAGE.format(width=WIDTH, height=HEIGHT))
    vnc = f"Xvnc :{number} -geometry {WIDTH}x{HEIGHT} -depth 24 -rfbport {rfb} -localhost -SecurityTypes None"
    stack.enter_context(program(*f"{vnc} -AlwaysShared -nolisten tcp -ac -FrameRate 60 -AcceptSetDesktopSize=0".split()))
    stack.enter_context(program("websockify", "--web", str(web), f"127.0.0.1:{port}", f"127.0.0.1:{rfb}"))
    return NoVnc("TigerVNC + noVNC", f":{number}", url=f"http://127.0.0.1:{port}/bench.html")


@asynccontextmanager
async def start_ours(stack: ExitStack, folder: Path) -> AsyncIterator[Ours]:
    port = free_port()
    (folder / "run").mkdir()
    socket = folder / "run" / "stream.sock"
    webclient.install(folder / "client")
    store = await SqlStore.open(f"sqlite+aiosqlite:///{folder}/store.db")
    app = make_app(store, port)
    await put_people(store)
    desktop = await put_ready_desktop(app, f"unix:{socket}")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        ticket = await connect(app, (await open_login(app, ADA.id, kind="browser")).caller, desktop.id)
        body = FORM.format(url=ticket.url, ticket=ticket.ticket).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nReferrer-Policy: strict-origin\r\nContent-Length: {len(body)}"
        writer.write(head.encode() + b"\r\nConnection: close\r\n\r\n" + body)
        await writer.drain()
        writer.close()

    portal = await asyncio.start_server(serve, "127.0.0.1", 0)
    origin = f"http://localhost:{portal.sockets[0].getsockname()[1]}"
    settings = GatewaySettings("127.0.0.1", port, origin, "localhost", folder / "client", folder / "run")
    real = stack.enter_context(real_desktop(folder, socket, MASTER))
    async with running(app, settings):
        yield Ours("gateway + our page", real.display, portal=origin)
    portal.close()
    await store.close()


async def wait_for_picture(page: Page) -> float:
    """Return when the first picture was readable (seconds since the epoch)."""
    for _ in range(400):
        with suppress(PlaywrightError):  # the page is on its way to another address
            if first := await page.evaluate("window.__probe ? window.__probe.first : 0"):
                return float(first) / 1000
        await asyncio.sleep(0.05)
    raise RuntimeError("no picture in 20 s")


async def one_round(browser: Browser, candidate: Candidate, mode: str) -> None:
    workload = [sys.executable, "-m", "bench._workload", candidate.display, mode, str(WIDTH), str(HEIGHT)]
    with program(*workload, cwd=ROOT):
        await asyncio.sleep(2.5)  # until it draws
        context = await browser.new_context(viewport={"width": WIDTH, "height": HEIGHT})
        page = await context.new_page()
        await page.add_init_script(path=ROOT / "bench" / "_probe.js")
        began = await candidate.open(page)
        candidate.first.append(1000 * (await wait_for_picture(page) - began))
        await asyncio.sleep(2)
        await (click_around if mode == "still" else watch)(page, candidate)
        await context.close()
    await asyncio.sleep(0.7)


async def click_around(page: Page, candidate: Candidate) -> None:
    await page.evaluate("window.__probe.clicks = []")
    for _ in range(CLICKS):
        await page.mouse.move(WIDTH // 2 + random.randint(-40, 40), HEIGHT // 2)
        await asyncio.sleep(0.25 + random.random() * 0.15)
        await page.mouse.down()
        await page.mouse.up()
    await asyncio.sleep(0.8)
    candidate.clicks += await page.evaluate("window.__probe.clicks")


async def watch(page: Page, candidate: Candidate) -> None:
    await page.evaluate("Object.assign(window.__probe, {painted: 0, ages: []})")
    start = time.monotonic()
    await asyncio.sleep(SECONDS)
    seen = await page.evaluate("({painted: window.__probe.painted, ages: window.__probe.ages})")
    candidate.rates.append(seen["painted"] / (time.monotonic() - start))
    candidate.ages += seen["ages"]


def report(candidates: list[Candidate]) -> None:
    def low(values: list[float]) -> float:
        return sorted(values)[len(values) // 10] if values else float("nan")

    print(f"{'':20} first picture ms    click to pixel ms    painted/s   draw to paint ms")
    print(f"{'':20}   min     median        min     median      median        p10   median")
    for one in candidates:
        median = statistics.median
        print(
            f"{one.name:20}{min(one.first):6.0f}  {median(one.first):8.0f}  {min(one.clicks):9.0f}  {median(one.clicks):8.0f}"
            f"  {median(one.rates):10.1f}  {low(one.ages):9.0f}  {median(one.ages):7.0f}"
        )


async def run() -> None:
    load = os.getloadavg()[0]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="beamdesk-bench-")))
        async with AsyncExitStack() as deep:
            candidates = [await deep.enter_async_context(start_ours(stack, folder)), start_novnc(stack, folder)]
            playwright = await deep.enter_async_context(async_playwright())
            browser = await playwright.chromium.launch(executable_path="/usr/bin/chromium", headless=False, args=FLAGS)
            for index in range(ROUNDS):
                for mode in ("still", "moving"):
                    for candidate in candidates if index % 2 else candidates[::-1]:
                        await one_round(browser, candidate, mode)
            await browser.close()
    report(candidates)
    print("goal for the first picture: 700 ms")
    print(f"load average {load:.1f} before, {os.getloadavg()[0]:.1f} after, on {os.cpu_count()} cores")


def main() -> None:
    """Run it."""
    for needed in ("Xvfb", "Xvnc", "websockify", "chromium"):
        if shutil.which(needed) is None:
            raise RuntimeError(f"{needed} is missing")
    asyncio.run(run())


if __name__ == "__main__":
    main()
