"""The sessions of people who are signed in: kept in memory, opened with an API token (U8).

A session holds the token with which it was opened. The token is verified again at each request,
so that revoking it ends its sessions at once. A restart of the hub ends all sessions; people
sign in again.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from hostler_hub.runtime.passwords import hash_of

LIFE_S = 12 * 3600.0
IDLE_S = 3600.0
SESSIONS = 1000


@dataclass(slots=True)
class Session:
    """One browser's session. Each form must send the value of ``csrf``."""

    token: str = field(repr=False)
    opened_at: float
    seen_at: float
    csrf: str = field(repr=False)

    def check_csrf(self, given: str) -> bool:
        return hmac.compare_digest(self.csrf.encode(), given.encode("utf-8", "replace"))


class Sessions:
    """The open sessions, by the hash of their cookie. ``monotonic`` reads a clock, in seconds."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._open: dict[str, Session] = {}

    def open(self, token: str) -> str:
        """Open a session for a token that was verified. Returns the cookie's value."""
        now = self._monotonic()
        self._forget_old(now)
        if len(self._open) >= SESSIONS:  # V15: the one unused longest is closed
            del self._open[min(self._open, key=lambda key: self._open[key].seen_at)]
        cookie = secrets.token_urlsafe(32)
        self._open[hash_of(cookie)] = Session(token, now, now, secrets.token_urlsafe(32))
        return cookie

    def find(self, cookie: str) -> Session | None:
        """The session of the cookie. None if there is none or it is over: 12 hours after it was
        opened, or after one hour without a request.
        """
        now = self._monotonic()
        session = self._open.get(hash_of(cookie))
        if session is None or _is_over(session, now):
            return None
        session.seen_at = now
        return session

    def close(self, cookie: str) -> None:
        self._open.pop(hash_of(cookie), None)

    def _forget_old(self, now: float) -> None:
        self._open = {
            key: session for key, session in self._open.items() if not _is_over(session, now)
        }


def _is_over(session: Session, now: float) -> bool:
    return now - session.opened_at > LIFE_S or now - session.seen_at > IDLE_S
