"""Tell what a file is by its content, never by its name, and hand it to the module that shows such files. Runs in the sandbox."""

from __future__ import annotations

import io
import os
from typing import Final

import h5py
import hdf5plugin  # noqa: F401  registers the compression filters of detector data before the sandbox closes
import numpy as np

from beamdesk.adapters.preview import hdf5, pictures
from beamdesk.adapters.preview.wire import Answer, Unshowable
from beamdesk.ports.previews import PreviewRequest, TextPreview, View

_HDF5_MAGIC: Final = b"\x89HDF\r\n\x1a\n"
_PICTURES: Final = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_HEAD = 64 * 1024


class FileByDescriptor(io.RawIOBase):
    """A read-only file over a descriptor that nobody reopens: h5py's and Pillow's view of it."""

    def __init__(self, descriptor: int, size: int) -> None:
        super().__init__()
        self._descriptor, self._size, self._position = descriptor, size, 0

    def readable(self) -> bool:
        """It can be read."""
        return True

    def seekable(self) -> bool:
        """It can be positioned."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move; the end is the size that the portal saw when it opened the file."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill the buffer from the position on; less only at the end."""
        done = 0
        while done < len(buffer):
            block = os.pread(self._descriptor, len(buffer) - done, self._position + done)
            if not block:
                break
            buffer[done : done + len(block)] = block
            done += len(block)
        self._position += done
        return done


def show(descriptor: int, size: int, request: PreviewRequest) -> tuple[Answer, bytes]:
    """Make the preview of the open file.

    Raises:
        Unshowable: there is nothing to show, with the reason. The readers' own errors pass.
    """
    head = os.pread(descriptor, _HEAD, 0)
    if not head:
        raise Unshowable("empty", "This file is empty.")
    if head.startswith(_PICTURES):
        return pictures.show(FileByDescriptor(descriptor, size), size, request)
    if _is_hdf5(descriptor, head):
        return hdf5.show(FileByDescriptor(descriptor, size), request)
    if request.view not in (View.AUTO, View.DATASET):
        raise Unshowable("unsuitable", "This file cannot be shown in that way.")
    return Answer(text=_text(head, size)), b""


def _is_hdf5(descriptor: int, head: bytes) -> bool:
    """Look for the signature at 0 and, behind a user block, at powers of two from 512 (HDF5 format, II.A)."""
    offsets = (512 << step for step in range(12))
    return head.startswith(_HDF5_MAGIC) or any(os.pread(descriptor, 8, offset) == _HDF5_MAGIC for offset in offsets)


def _text(head: bytes, size: int) -> TextPreview:
    if b"\x00" in head:
        raise Unshowable("binary", "This is a binary file of a kind that cannot be shown.")
    text = head.decode("utf-8", "replace")
    if text.removesuffix("\ufffd").count("\ufffd") * 20 > len(text):
        raise Unshowable("binary", "This is a binary file of a kind that cannot be shown.")
    return TextPreview(text.replace("\r\n", "\n"), size > len(head))


def warm_up() -> None:
    """Load what is otherwise loaded at first use, while files can still be opened."""
    pictures.warm_up()
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        file.create_dataset(
            "a", data=np.arange(64.0).reshape(8, 8), chunks=(4, 4), compression="gzip", shuffle=True, fletcher32=True
        )
        file["s"] = "text"
        file.attrs["a"] = ["text"]
    hdf5.show(memory, PreviewRequest())
    hdf5.show(memory, PreviewRequest(View.DATASET, "/a"))
