"""Checks the passwords of permanent workers, and slows down who guesses them (U6).

A hash costs 50 ms and 16 MiB, so only a few are computed at the same time, and none for a client
that has failed too often. What can be verified cheaply is never slowed down (V19): a password that
the hub can read, and one that was right before, which a keyed digest in memory knows again.
"""

from __future__ import annotations

import asyncio
import hmac
import time

import structlog

from hostler_hub.runtime.clock import Clock
from hostler_hub.runtime.errors import SecretRefused
from hostler_hub.runtime.login_throttle import LoginThrottle
from hostler_hub.runtime.passwords import VerifiedPasswords, hash_of, verify_password
from hostler_hub.runtime.secrets import Secrets
from hostler_hub.specs.secret_ref import SecretRef
from hostler_hub.workers.errors import HandshakeRefused
from hostler_hub.workers.registry import Entry

_log = structlog.get_logger(__name__)

# How many hashes are computed at the same time.
HASHES = 2


class PasswordCheck:
    """Whether a password is a worker's."""

    def __init__(self, clock: Clock, secrets: Secrets) -> None:
        self._secrets = secrets
        self._throttle = LoginThrottle(clock.monotonic)
        self._verified = VerifiedPasswords()
        self._hashing = asyncio.Semaphore(HASHES)
        self._hash_s = 0.0  # what the latest one took

    async def is_right(self, entry: Entry | None, given: str, client: str) -> bool:
        """Whether ``given`` is the password of the worker; ``entry`` is None for an unknown name.

        All that is wrong costs the same work, for a name that is unknown, one with a hash and one
        with a reference, so that the time does not tell them apart. Raises HandshakeRefused (429)
        if the client has failed too often.
        """
        name = None if entry is None else entry.life.name
        ref = None if entry is None else entry.definition.password_ref
        stored = None if entry is None or ref is not None else entry.password_hash
        if ref is not None and self._is_secret(ref, given):
            return True
        if name is not None and stored is not None and self._verified.knows(name, stored, given):
            return True
        right = await self._is_hash_of(stored, given, client, name)
        if right and name is not None and stored is not None:
            self._verified.note(name, stored, given)
        return right

    def _is_secret(self, ref: SecretRef, given: str) -> bool:
        try:
            secret = self._secrets.resolve(ref)
        except SecretRefused as error:
            _log.error("worker's password is not to be had", reason=str(error))
            return False
        return hmac.compare_digest(hash_of(secret), hash_of(given))

    async def _is_hash_of(
        self, stored: str | None, given: str, client: str, name: str | None
    ) -> bool:
        """Whether the hash is the password's; False, after the same work, if there is none.

        A client whose unknown names are refused gets the same answer for a wrong password of a
        known one, or the answers would tell which names there are.
        """
        strangers_wait_s = self._throttle.wait_s(client, None)
        if wait_s := self._throttle.wait_s(client, name):
            await asyncio.sleep(self._hash_s)
            raise _refusal(wait_s)
        self._throttle.count(client, name)
        async with self._hashing:
            began_at = time.perf_counter()
            right = await asyncio.to_thread(verify_password, given, stored)
            self._hash_s = min(1.0, time.perf_counter() - began_at)
        if right:
            self._throttle.take_back(client, name)
        elif strangers_wait_s:
            raise _refusal(strangers_wait_s)
        return right


def _refusal(wait_s: int) -> HandshakeRefused:
    return HandshakeRefused(429, "too many failed attempts from this address", wait_s)
