"""Hashes of tokens and passwords, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import os

# Verified against when there is nothing to verify, so that it takes as long.
NO_SECRET = "0" * 64
_KNOWN = 10_000


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


class VerifiedPasswords:
    """Knows passwords again that were verified: by a digest with a key that only this process has.

    Each belongs to the hash with which it was verified, so one that was changed is forgotten.
    """

    def __init__(self) -> None:
        self._key = os.urandom(32)
        self._known: dict[str, tuple[str, bytes]] = {}  # by name: the stored hash, the digest

    def knows(self, name: str, stored: str, password: str) -> bool:
        """Whether the password was verified for that name against that hash."""
        known = self._known.get(name)
        right = known is not None and hmac.compare_digest(known[1], self._digest(password))
        return right and known is not None and known[0] == stored

    def note(self, name: str, stored: str, password: str) -> None:
        """The password was verified just now."""
        self._known.pop(name, None)
        if len(self._known) >= _KNOWN:  # V15: the one not noted for longest
            del self._known[next(iter(self._known))]
        self._known[name] = (stored, self._digest(password))

    def _digest(self, password: str) -> bytes:
        return hmac.digest(self._key, password.encode("utf-8", "surrogatepass"), "sha256")


def _scrypt(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=2**14, r=8, p=1, dklen=32)
