"""Typed identifiers. All are opaque strings; a desktop's id is also a DNS label (RFC 1123), lower-case letters and digits."""

from __future__ import annotations

from typing import NewType

DesktopId = NewType("DesktopId", str)
ServerId = NewType("ServerId", str)
PersonId = NewType("PersonId", str)
ExperimentId = NewType("ExperimentId", str)
ImageId = NewType("ImageId", str)
FlavorId = NewType("FlavorId", str)
SessionId = NewType("SessionId", str)
EventId = NewType("EventId", int)
