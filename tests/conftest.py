"""Fixtures of all tests, and how thoroughly properties are looked for: `--hypothesis-profile=quick` in `make check`."""

from hypothesis import settings

from controlplane.fixture import openstack
from postgres import postgres, url

__all__ = ["openstack", "postgres", "url"]

# No deadline: a machine that is busy elsewhere is no finding.
settings.register_profile("default", deadline=None)
settings.register_profile("quick", deadline=None, max_examples=30)
settings.load_profile("default")
