"""Tomography tools of the image "Imaging beamline": reconstruct a scan, look at slices.

Runs inside a desktop with Debian's Python (numpy, scipy, scikit-image, h5py, Pillow; silx for the viewer) and knows nothing of
Beamdesk.
"""

__version__ = "1.0"
