"""What the tests of previews share."""

from __future__ import annotations

import io
import os
from pathlib import Path

from PIL import Image

from beamdesk.adapters.preview.pool import SandboxedPreviews
from beamdesk.ports.files import OpenedFile
from beamdesk.ports.previews import ImagePreview, Preview, PreviewRequest, View

AUTO = PreviewRequest()
DATASET = PreviewRequest(View.DATASET)
DATASET_PLANE = PreviewRequest(View.DATASET, "plane")


async def show(previews: SandboxedPreviews, path: Path, request: PreviewRequest = AUTO) -> Preview:
    with OpenedFile(os.open(path, os.O_RDONLY)) as opened:
        return await previews.preview(opened, request)


def decoded(preview: Preview) -> Image.Image:
    assert isinstance(preview, ImagePreview), preview
    image = Image.open(io.BytesIO(preview.png))
    assert image.format == "PNG"
    assert image.size == (preview.width, preview.height)
    return image
