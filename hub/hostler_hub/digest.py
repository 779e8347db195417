"""How secrets of the hub's own making are stored: as what they are compared by."""

from __future__ import annotations

import hashlib


def hash_of(secret: str) -> str:
    """SHA-256 suffices for 256 random bits; the secret itself is stored nowhere.

    Whatever somebody sends instead of one has a hash as well.
    """
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
