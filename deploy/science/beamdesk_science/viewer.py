"""The slice viewer ``beamdesk-slices``: scans, reconstructions and TIFF stacks, frame by frame, in three directions.

A thin window around silx's StackView: it opens files, finds the data to show, sets a robust contrast and explains errors. Data
stay in the file; a direction other than the stored one reads all of it once.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image
from silx.gui import qt
from silx.gui.colors import Colormap
from silx.gui.plot.StackView import StackViewMainWindow

from beamdesk_science.scan import ScanError, find_newest

_FILTER = "Scans and images (*.nxs *.nx *.h5 *.hdf5 *.tif *.tiff);;All files (*)"
_MAX_SEARCH = 5000


class NothingToShow(Exception):
    """The file holds no stack of images; the text is for people."""


class Stack:
    """Images of one file: an array-like of three dimensions, its name and the names of its axes."""

    def __init__(self, data: Any, name: str, axes: tuple[str, str, str], file: h5py.File | None = None) -> None:
        self.data, self.name, self.axes, self._file = data, name, axes, file

    def close(self) -> None:
        """Close the file behind the images."""
        if self._file is not None:
            self._file.close()

    def contrast(self) -> tuple[float, float]:
        """Return values between which most of the middle image lies."""
        middle = np.asarray(self.data[len(self.data) // 2], np.float64)
        finite = middle[np.isfinite(middle)]
        if not finite.size:
            return 0.0, 1.0
        low, high = np.percentile(finite, (1, 99.7))
        return float(low), float(high if high > low else low + 1)


def open_stack(path: Path) -> Stack:
    """Open a file of any known kind; of a folder, its slices.

    Raises:
        NothingToShow: it cannot be read or holds no images.
    """
    try:
        if path.is_dir():
            return _tiff_stack(sorted(path.rglob("*.tif"))[:4096], path.name)
        if path.suffix.lower() in (".tif", ".tiff"):
            return _tiff_stack([path], path.name)
        return _hdf5_stack(path)
    except (OSError, ValueError, KeyError) as error:
        raise NothingToShow(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _tiff_stack(paths: list[Path], name: str) -> Stack:
    if not paths:
        raise NothingToShow(f"There are no images in {name}.")
    images = [np.asarray(Image.open(path)) for path in paths]
    return Stack(np.stack(images), name, ("image", "y", "x"))


def _hdf5_stack(path: Path) -> Stack:
    file = h5py.File(path, "r")
    dataset = _default(file) or _largest(file)
    if dataset is None:
        file.close()
        raise NothingToShow(f"{path.name} holds no images.")
    axes = ("frame", "row", "column") if "image_key" in dataset.parent else ("slice", "y", "x")
    data = dataset if dataset.ndim == 3 else dataset[()][None]
    return Stack(data, f"{path.name} · {dataset.name}", axes, file)


def _is_stack(item: Any) -> bool:
    return isinstance(item, h5py.Dataset) and item.ndim in (2, 3) and item.dtype.kind in "iuf" and min(item.shape[-2:]) > 1


def _default(file: h5py.File) -> h5py.Dataset | None:
    """Return what the file's author wants shown (NeXus's default and signal attributes)."""
    here: Any = file
    for _step in range(8):
        signal = here.attrs.get("signal")
        if signal is not None:
            found = here.get(signal)
            return found if _is_stack(found) else None
        here = here.get(here.attrs.get("default", ""))
        if not isinstance(here, h5py.Group):
            return None
    return None


def _largest(file: h5py.File) -> h5py.Dataset | None:
    found: list[h5py.Dataset] = []
    seen = [0]

    def visit(_name: str, item: Any) -> bool | None:
        seen[0] += 1
        if _is_stack(item):
            found.append(item)
        return True if seen[0] > _MAX_SEARCH else None

    file.visititems(visit)
    return max(found, key=lambda item: item.size, default=None)


class SliceWindow(StackViewMainWindow):
    """The window."""

    def __init__(self) -> None:
        super().__init__()
        self._shown: Stack | None = None
        self.setWindowTitle("Slices")
        self.setWindowIcon(qt.QIcon.fromTheme("beamdesk-slices"))
        self.resize(1040, 820)
        self.setKeepDataAspectRatio(True)
        self.setYAxisInverted(True)
        tools = self.addToolBar("File")
        for text, icon, shortcut, action in (
            ("Open…", "document-open", qt.QKeySequence.Open, self.choose),
            ("Contrast", "contrast", "C", self.reset_contrast),
        ):
            button = qt.QAction(qt.QIcon.fromTheme(icon), text, self)
            button.setShortcut(shortcut)
            button.triggered.connect(action)
            tools.addAction(button)

    def choose(self) -> None:
        """Ask for a file and show it."""
        start = str(Path("/data")) if Path("/data").is_dir() else ""
        name, _kind = qt.QFileDialog.getOpenFileName(self, "Open a scan or reconstruction", start, _FILTER)
        if name:
            self.show_file(Path(name))

    def show_file(self, path: Path) -> bool:
        """Show a file; explain in a box what went wrong otherwise. Tell whether it worked."""
        try:
            stack = open_stack(path)
        except NothingToShow as error:
            qt.QMessageBox.warning(self, "Slices", str(error))
            return False
        if self._shown is not None:
            self.setStack(None)
            self._shown.close()
        self._shown = stack
        self.setStack(stack.data)
        self.setLabels(list(stack.axes))
        self.setWindowTitle(f"Slices · {stack.name}")
        self.setFrameNumber(len(stack.data) // 2)
        self.reset_contrast()
        self.resetZoom()
        return True

    def reset_contrast(self) -> None:
        """Spread the gray levels over what the middle image holds, outliers left aside."""
        if self._shown is not None:
            low, high = self._shown.contrast()
            self.setColormap(Colormap(name="gray", vmin=low, vmax=high))


def main(arguments: list[str] | None = None) -> int:
    """Run the viewer; without a file it shows the newest scan, or asks."""
    parser = argparse.ArgumentParser(
        prog="beamdesk-slices", description="Look at tomography scans, reconstructions and TIFF images."
    )
    parser.add_argument("file", nargs="?", type=Path, help="NeXus/HDF5 or TIFF file, or a folder of TIFF files")
    options = parser.parse_args(arguments)
    application = qt.QApplication(sys.argv[:1])
    application.setApplicationName("Slices")
    window = SliceWindow()
    window.show()
    path = options.file
    if path is None:
        try:
            path = find_newest()
        except ScanError:
            qt.QTimer.singleShot(0, window.choose)
    if path is not None:
        qt.QTimer.singleShot(0, lambda: window.show_file(path))
    return int(application.exec_())


if __name__ == "__main__":
    sys.exit(main())
