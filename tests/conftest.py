"""Fixtures of all tests."""

from controlplane.fixture import openstack

__all__ = ["openstack"]
