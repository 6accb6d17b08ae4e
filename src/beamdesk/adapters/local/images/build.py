"""Builds what an image lacks: layer after layer, from the base up, each published only when complete."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from . import chroot, debian, python
from .cache import Cache, drop_set_id
from .progress import Progress
from .recipes import Guest, Image, Layer, Recipes, Venv, image_hash

_SCRIPT = "/var/tmp/setup.sh"  # noqa: S108 inside the root, where nobody else is


@dataclass(frozen=True, slots=True)
class Built:
    """A published image: its content hash and its layers, topmost first."""

    image: Image
    hash: str
    layers: tuple[str, ...]


class Builder:
    """Builds images of ``recipes`` into ``cache`` and says so to ``progress``."""

    def __init__(self, recipes: Recipes, cache: Cache, progress: Progress) -> None:
        self._recipes = recipes
        self._cache = cache
        self._progress = progress
        self._isolated = False

    def plan(self, image_id: str) -> Built:
        """Return what the image will be called and made of, built or not."""
        image = self._recipes.image(image_id)
        hashes = (self._recipes.guest().hash, *(layer.hash for layer in image.layers))
        return Built(image, image_hash(hashes), hashes)

    def build(self, image_ids: tuple[str, ...]) -> tuple[Built, ...]:
        """Build and publish the images, with the catalogue of all that are complete. Cheap when nothing is missing.

        Raises:
            ImageError: the cause in plain words; nothing unfinished is left behind.
        """
        plans = [self.plan(image_id) for image_id in image_ids]
        self._cache.prepare()
        self._make_sure(plans)
        self._publish_catalog()
        for plan in plans:
            self._progress.image(plan.image.id, "ready", f"ready ({plan.hash[:12]})")
        return tuple(plans)

    def _make_sure(self, plans: list[Built]) -> None:
        image_ids = [plan.image.id for plan in plans]
        if not all(self._cache.has_image(plan.hash, plan.layers) for plan in plans):
            with self._cache.locked(
                lambda: self._progress.image(image_ids[0], "waiting", "another build is at work; waiting for it")
            ):
                self._build_missing(plans)

    def build_on_top(self, image_id: str, folders: tuple[str, ...]) -> Built:
        """Build an image and, on its layers, those of ``folders`` (lowest first); the guest layer stays topmost.

        The catalogue of this machine stays as it is: only the layers are in the cache.

        Raises:
            ImageError: the cause in plain words; nothing unfinished is left behind.
        """
        plain = self.plan(image_id)
        self._cache.prepare()
        self._make_sure([plain])
        chain = plain.image.layers
        with self._cache.locked(lambda: self._progress.image(image_id, "waiting", "another build is at work; waiting for it")):
            self._cache.clear_work()
            try:
                for folder in folders:
                    layer = self._recipes.on_top(folder, chain[0].hash)
                    if not self._cache.has_layer(layer.hash):
                        self._progress.begin(image_id, layer.name)
                        self._build_layer(layer, chain)
                    chain = (layer, *chain)
            finally:
                self._cache.clear_work()
        hashes = (plain.layers[0], *(layer.hash for layer in chain))
        return Built(plain.image, image_hash(hashes), hashes)

    def isolate(self) -> None:
        """Keep the mounts of this process from everybody else, once; whatever happens they vanish with it."""
        if not self._isolated:
            chroot.own_mounts()
            self._isolated = True

    def used_layers(self) -> frozenset[str]:
        """Return the hashes of all layers that the present recipes use."""
        return frozenset(layer for image_id in self._recipes.image_ids() for layer in self.plan(image_id).layers)

    def _build_missing(self, plans: list[Built]) -> None:
        self._cache.clear_work()  # what a killed build left
        try:
            for plan in plans:
                chain = plan.image.layers[::-1]
                for position, layer in enumerate(chain):
                    if not self._cache.has_layer(layer.hash):
                        self._progress.begin(plan.image.id, layer.name)
                        self._build_layer(layer, chain[:position][::-1])
                if not self._cache.has_layer(plan.layers[0]):
                    self._progress.begin(plan.image.id, "guest")
                    self._build_guest(self._recipes.guest(), chain[0])
                self._cache.publish_image(plan.hash, plan.layers)
        finally:
            self._cache.clear_work()

    def _publish_catalog(self) -> None:
        complete = [plan for plan in map(self.plan, self._recipes.image_ids()) if self._cache.has_image(plan.hash, plan.layers)]
        if self._cache.publish_catalog([(plan.image, plan.hash, plan.layers) for plan in complete]):
            self._cache.publish_icons(self._recipes.folder / "icons")

    def _build_layer(self, layer: Layer, below: tuple[Layer, ...]) -> None:
        with self._log(layer.name) as log, self._work(layer.hash, below) as (root, upper):
            if layer.suite:
                self._progress.step(f"debootstrapping {layer.suite}")
                debian.bootstrap(log, layer, root)
            with self._fetched_wheels(layer, root, upper.parent) as wheels:
                if layer.packages and not layer.suite:
                    debian.install(log, layer, root, self._cache.work / "apt", self._progress.step, self._progress.tick)
                for venv in layer.venvs:
                    self._progress.step(f"installing Python packages into {venv.path}")
                    python.install(log, root, venv, wheels[venv.path].result())
            self._customise(log, layer, root)
        self._publish(layer.hash, upper)

    @contextlib.contextmanager
    def _fetched_wheels(self, layer: Layer, root: Path, folder: Path) -> Iterator[dict[str, Future[Path]]]:
        """Download the layer's wheels while its Debian packages are installed."""
        with ThreadPoolExecutor(1) as pool:
            futures = {venv.path: pool.submit(self._fetch, layer, venv, root, folder) for venv in layer.venvs}
            yield futures

    def _fetch(self, layer: Layer, venv: Venv, root: Path, folder: Path) -> Path:
        wheels = folder / f"wheels{venv.path.replace('/', '-')}"
        wheels.mkdir()
        with self._log(f"{layer.name}-wheels") as log:
            python.fetch(log, venv.requirements, python.version_inside(root), wheels)
        return wheels

    def _customise(self, log: chroot.Log, layer: Layer, root: Path) -> None:
        for copy in layer.copies:
            _copy_tree(copy.source, root / copy.target.lstrip("/"))
        if (layer.folder / "files").is_dir():
            _copy_tree(layer.folder / "files", root)
        if (layer.folder / "setup.sh").is_file():
            self._progress.step("setting up")
            script = root / _SCRIPT.lstrip("/")
            shutil.copyfile(layer.folder / "setup.sh", script)
            chroot.run_inside(log, f"setup.sh of layer {layer.name}", root, ["bash", "-eu", _SCRIPT])
            script.unlink()

    def _build_guest(self, guest: Guest, base: Layer) -> None:
        with self._log("guest") as log, self._work(guest.hash, (base,)) as (root, upper):
            self._progress.step("copying the guest agent")
            package = root / "opt/beamdesk/lib/beamdesk"
            for source in guest.sources:
                _copy_tree(source, package / source.name)
            python.compile_tree(log, root, "/opt/beamdesk/lib")
        self._publish(guest.hash, upper)

    def _publish(self, layer_hash: str, root: Path) -> None:
        drop_set_id(root)
        size = self._cache.publish_layer(layer_hash, root)
        self._progress.done(f"done, {size // 1_000_000} MB")

    @contextlib.contextmanager
    def _log(self, name: str) -> Iterator[chroot.Log]:
        log = chroot.Log(self._cache.logs / f"{name}.log")
        try:
            yield log
        finally:
            log.close()

    @contextlib.contextmanager
    def _work(self, layer_hash: str, below: tuple[Layer, ...]) -> Iterator[tuple[Path, Path]]:
        """Give a root to work on and the folder that becomes the layer."""
        self.isolate()
        folder = self._cache.begin_layer(layer_hash)
        upper = folder / "upper"
        upper.mkdir(mode=0o755)
        if not below:
            yield upper, upper
            return
        root, work = folder / "root", folder / "work"
        root.mkdir()
        work.mkdir()
        chroot.mount_overlay([self._cache.layers / layer.hash for layer in below], upper, work, root)
        try:
            yield root, upper
        finally:
            chroot.unmount(root)


def _copy_tree(source: Path, target: Path) -> None:
    """Copy files and folders as root's, with plain modes, over what is there."""
    if not source.is_dir():
        _make_folder(target.parent)
        shutil.copyfile(source, target, follow_symlinks=False)
        if not source.is_symlink():
            target.chmod(0o755 if source.stat().st_mode & 0o111 else 0o644)
        return
    _make_folder(target)
    for item in sorted(source.iterdir()):
        if item.name not in {"__pycache__", ".gitignore"} and item.suffix != ".pyc":
            _copy_tree(item, target / item.name)


def _make_folder(path: Path) -> None:
    if not path.is_dir():
        _make_folder(path.parent)
        path.mkdir()
        path.chmod(0o755)
