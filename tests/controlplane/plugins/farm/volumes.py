"""Cinder's own driver that carries nothing out, with images that are cloned in the storage, as Ceph and many arrays do it.

While the file ``fail-volumes`` is in the folder `BEAMDESK_FAULTS`, no volume can be made from an image.
"""

import os
import pathlib

from cinder import exception
from cinder.tests import fake_driver


class NoDataDriver(fake_driver.FakeLoggingVolumeDriver):
    """Volumes without data."""

    def clone_image(self, context, volume, image_location, image_meta, image_service):
        """Say that the storage has made the volume from the image by itself."""
        if (pathlib.Path(os.environ["BEAMDESK_FAULTS"]) / "fail-volumes").exists():
            raise exception.VolumeBackendAPIException(data="the simulated storage was told to fail")
        return {}, True
