"""API tokens: who asks, and what they may do.

A token reads `hst_<lookup>_<secret>`: 12 characters that find its row and 43 that prove it (256
random bits, so a plain SHA-256 is enough to store; U6). A wrong secret and an unknown
lookup id do the same work and get the same answer. Tokens of agents are another kind: they are
bound to an instance, live in the ledger of instances and open no HTTP route.
"""

from __future__ import annotations

import hmac
import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hostler_hub.errors import Conflict, InvalidRequest, NotFound, TooManyAttempts, Unauthenticated
from hostler_hub.runtime import private_files
from hostler_hub.runtime.client import client_of
from hostler_hub.runtime.login_throttle import LoginThrottle
from hostler_hub.runtime.passwords import hash_of
from hostler_hub.specs.caller import Caller, Role
from hostler_hub.store import tokens as rows

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection

    from hostler_hub.runtime.clock import Clock
    from hostler_hub.store.engine import Store

ADMIN_NAME = "admin"
MAX_LIFE_S = 90 * 24 * 3600
CACHE_S = 60.0
CACHE_ENTRIES = 1024

_TOKEN = re.compile(r"hst_([a-z0-9]{12})_([A-Za-z0-9_-]{43})")
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._@-]{0,61}[A-Za-z0-9])?")
_NO_HASH = hash_of("")
_LOOKUP_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"


@dataclass(frozen=True)
class _Known:
    caller: Caller
    token_hash: str
    expires_at: float | None
    cached_at: float


class Tokens:
    """Creates, verifies and revokes tokens. One per hub: its cache counts on seeing each delete."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._cache: dict[str, _Known] = {}
        self._throttle = LoginThrottle(clock.monotonic)
        self._deletions = 0

    async def create(
        self, name: str, role: Role, *, by: str, expires_in_s: float | None = MAX_LIFE_S
    ) -> str:
        """A new token, shown this once. Raises Conflict for a taken name, InvalidRequest."""
        if not _NAME.fullmatch(name):
            raise InvalidRequest(
                "A token's name has 1 to 63 letters, digits or . _ @ - within", pointer="/name"
            )
        if name == ADMIN_NAME:
            raise InvalidRequest(
                f"The token {ADMIN_NAME} is the hub's own; choose another name", pointer="/name"
            )
        if expires_in_s is None or not 0 < expires_in_s <= MAX_LIFE_S:
            raise InvalidRequest(
                f"A token lives at most {MAX_LIFE_S} seconds (90 days)", pointer="/expires_in_s"
            )
        token = _new_token()
        row = self._row(name, role, token, by=by, expires_in_s=expires_in_s)
        await self._store.write(_insert_new, row)
        return token

    async def verify(self, presented: str, client: str) -> Caller:
        """Whom `presented` belongs to. `client` is the peer's address.

        A right token is never refused, whatever others at its address do. Raises Unauthenticated
        (always with the same words), or TooManyAttempts where one client fails more than ten times
        a minute.
        """
        match = _TOKEN.fullmatch(presented)
        lookup = match[1] if match else ""
        presented_hash = hash_of(presented)
        known = self._cached(lookup)
        if known is None or not hmac.compare_digest(known.token_hash, presented_hash):
            known = await self._load(lookup)
        right = hmac.compare_digest(known.token_hash if known else _NO_HASH, presented_hash)
        if known is None or not right or self._expired(known):
            self._count_failure(client_of(client), lookup if known else None)
            raise Unauthenticated("The token is not known, or no longer valid")
        return known.caller

    async def list(self) -> list[dict[str, Any]]:
        """Every token by name, without hashes: name, role, lookup, created_by and the instants."""
        shown = ("name", "role", "lookup", "created_by", "created_at", "expires_at")
        return [{key: row[key] for key in shown} for row in await self._store.read(rows.list_all)]

    async def delete(self, name: str) -> None:
        """Revokes a token at once. Raises NotFound."""
        gone = await self._store.write(rows.delete, name)
        self._forget(name)
        if not gone:
            raise NotFound(f"There is no token named {name}")

    async def ensure_admin(self, state_dir: Path) -> None:
        """Makes `admin.token` (0600) in the state directory, or replaces a lost or revoked one.

        It never expires by itself: it is the way back in when every other token has.
        """
        path = state_dir / "admin.token"
        if await self._is_admin(_read_token(path)):
            path.chmod(0o600)
            return
        token = _new_token()
        row = self._row(ADMIN_NAME, Role.ADMIN, token, by="hub", expires_in_s=None)
        # The file comes first: a token that is known but was never written down helps nobody,
        # and a file whose token is not known is replaced at the next start.
        private_files.write(path, token + "\n")
        await self._store.write(_replace, row)
        self._forget(ADMIN_NAME)

    async def _is_admin(self, token: str) -> bool:
        match = _TOKEN.fullmatch(token)
        known = await self._load(match[1]) if match else None
        return (
            known is not None
            and known.caller == Caller(ADMIN_NAME, Role.ADMIN)
            and hmac.compare_digest(known.token_hash, hash_of(token))
        )

    def _row(
        self, name: str, role: Role, token: str, *, by: str, expires_in_s: float | None
    ) -> dict[str, Any]:
        now = self._clock.now()
        return {
            "name": name,
            "role": role.value,
            "lookup": token.split("_")[1],
            "token_hash": hash_of(token),
            "created_by": by,
            "created_at": now,
            "expires_at": None if expires_in_s is None else now + expires_in_s,
        }

    def _cached(self, lookup: str) -> _Known | None:
        known = self._cache.get(lookup)
        if known is None or self._clock.monotonic() - known.cached_at > CACHE_S:
            return None
        return known

    async def _load(self, lookup: str) -> _Known | None:
        deletions = self._deletions
        row = await self._store.read(rows.by_lookup, lookup)
        if row is None:
            return None
        known = _Known(
            caller=Caller(row["name"], Role(row["role"])),
            token_hash=row["token_hash"],
            expires_at=row["expires_at"],
            cached_at=self._clock.monotonic(),
        )
        # A token revoked while this read was under way must not come back into the cache.
        if deletions == self._deletions:
            if len(self._cache) >= CACHE_ENTRIES:
                self._cache.pop(next(iter(self._cache)))
            self._cache[lookup] = known
        return known

    def _forget(self, name: str) -> None:
        self._deletions += 1
        self._cache = {
            lookup: known for lookup, known in self._cache.items() if known.caller.name != name
        }

    def _count_failure(self, client: str, lookup: str | None) -> None:
        wait_s = self._throttle.wait_s(client, lookup) or self._throttle.wait_s(client, None)
        self._throttle.count(client, lookup)
        if wait_s:
            raise TooManyAttempts(
                "Too many wrong tokens came from this address", retry_after_s=wait_s
            )

    def _expired(self, known: _Known) -> bool:
        return known.expires_at is not None and known.expires_at <= self._clock.now()


def _new_token() -> str:
    lookup = "".join(secrets.choice(_LOOKUP_ALPHABET) for _ in range(12))
    return f"hst_{lookup}_{secrets.token_urlsafe(32)}"


def _insert_new(c: Connection, row: dict[str, Any]) -> None:
    if any(other["name"] == row["name"] for other in rows.list_all(c)):
        raise Conflict(f"There is a token named {row['name']} already", pointer="/name")
    rows.insert(c, row)


def _replace(c: Connection, row: dict[str, Any]) -> None:
    rows.delete(c, row["name"])
    rows.insert(c, row)


def _read_token(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, ValueError):
        return ""
