"""Hashes of tokens and passwords, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import os

# Verified against when there is nothing to verify, so that it takes as long.
NO_SECRET = "0" * 64


def hash_of(secret: str) -> str:
    """The SHA-256 of a token. That suffices for 256 random bits; the token itself is stored
    nowhere.

    Any text has a hash, also one that is no token.
    """
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def hash_password(password: str) -> str:
    """The scrypt hash of a password with a random salt, as ``salt$hash`` in hex."""
    salt = os.urandom(16)
    return f"{salt.hex()}${_scrypt(password, salt).hex()}"


def verify_password(password: str, stored: str | None) -> bool:
    """Whether the password matches the stored hash. Takes as long if there is none."""
    salt, _, expected = (stored or f"{'0' * 32}${NO_SECRET}").partition("$")
    right = hmac.compare_digest(_scrypt(password, bytes.fromhex(salt)).hex(), expected)
    return right and stored is not None


def _scrypt(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=2**14, r=8, p=1, dklen=32)
