"""Entity tags of desktops: ``If-None-Match`` on reading, ``If-Match`` on changing.

A tag is `"<version>.<hash>"`. The hash covers what the caller sees (steps and permissions change without a new version), so that a
304 is never stale; the version alone decides about a change, so that a step that went by meanwhile does not refuse a stop.
Clients must take tags as opaque.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Annotated

from fastapi import Header

from beamdesk.domain.errors import StaleWrite

_TAG = re.compile(r'"(\d{1,18})\.[0-9a-f]{16}"\Z')

IfMatch = Annotated[
    str | None, Header(alias="If-Match", max_length=200, description="Change it only if it is still this version (ETag), or `*`.")
]
IfNoneMatch = Annotated[
    str | None, Header(alias="If-None-Match", max_length=1000, description="Answer 304 if it is still this (ETag).")
]
ETAG_HEADER = {"ETag": {"description": "For If-Match and If-None-Match; opaque.", "schema": {"type": "string"}}}


def tag_of(version: int, body: bytes) -> str:
    """Return the entity tag of a representation."""
    return f'"{version}.{sha256(body).hexdigest()[:16]}"'


def expected_version(if_match: str | None) -> int | None:
    """Return the version that must still be current; None = any.

    Raises:
        StaleWrite: the tag is none of ours, or weak: by strong comparison it matches nothing.
    """
    if if_match is None or if_match.strip() == "*":
        return None
    match = _TAG.match(if_match.strip())
    if match is None:
        raise StaleWrite("This is not the ETag of this desktop's present state. Read it again.", field="If-Match")
    return int(match[1])


def unchanged(if_none_match: str | None, tag: str) -> bool:
    """Tell whether the caller has this representation already (weak comparison, RFC 9110 section 13.1.2)."""
    if if_none_match is None:
        return False
    tags = [one.strip().removeprefix("W/") for one in if_none_match.split(",")]
    return "*" in tags or tag in tags
