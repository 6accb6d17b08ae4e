"""Hashing of high-entropy secrets for storage.

Tokens, tickets and nonces are 256 random bits, so one SHA-256 is enough (nothing to brute-force); passwords never come here.
"""

from __future__ import annotations

import hashlib


def hash_secret(secret: str) -> bytes:
    """Return the 32 bytes under which a secret is stored and looked up."""
    return hashlib.sha256(secret.encode()).digest()
