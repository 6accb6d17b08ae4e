"""Beamdesk: cloud desktops for photon and neutron sources."""

__version__ = "0.1.0"
