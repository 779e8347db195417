"""How tokens and passwords are stored: as hashes that are compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import os

# Verified against when there is nothing to verify, so that it takes as long.
NO_SECRET = "0" * 64


def hash_of(secret: str) -> str:
    """SHA-256 suffices for 256 random bits; the secret itself is stored nowhere.

    Whatever somebody sends instead of one has a hash as well.
    """
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def hash_password(password: str) -> str:
    """scrypt with a salt of its own: ``salt$hash`` in hex."""
    salt = os.urandom(16)
    return f"{salt.hex()}${_scrypt(password, salt).hex()}"


def verify_password(password: str, stored: str | None) -> bool:
    """Whether the password is the stored one; takes as long when nothing is stored."""
    salt, _, expected = (stored or f"{'0' * 32}${NO_SECRET}").partition("$")
    right = hmac.compare_digest(_scrypt(password, bytes.fromhex(salt)).hex(), expected)
    return right and stored is not None


def _scrypt(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=2**14, r=8, p=1, dklen=32)
