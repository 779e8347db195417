"""Names and ids: which names a worker may have, and ULIDs, which sort by the time they were
made.
"""

from __future__ import annotations

import re
import secrets
import threading
import time

WORKER_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
"""A DNS label in lower case, so that it fits a host name, a path, a provider's tag and an argument.

Match it with `fullmatch`: `$` would let a trailing newline through.
"""

ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_RANDOM_BITS = 80
_MAX_MS = (1 << 48) - 1


def check_worker_name(name: str) -> str:
    """Return the name if a worker may have it; else raise ValueError, which says what is
    allowed.
    """
    if not WORKER_NAME.fullmatch(name):
        raise ValueError(
            f"{name[:80]!r} is no worker name: 1 to 63 of a-z, 0-9 and '-', not at either end"
        )
    return name


def is_ulid(text: str) -> bool:
    """Whether `text` is a ULID as new_ulid makes them (upper case)."""
    return ULID.fullmatch(text) is not None


class _Ulids:
    """Makes ULIDs. Within one millisecond the random part counts up, so that ids keep the order of
    the calls.

    See https://github.com/ulid/spec#monotonicity. No id is a secret here, so it does not matter
    that a neighbour's id can be guessed.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._at_ms = -1
        self._random = 0

    def new(self, now_ms: int) -> int:
        with self._lock:
            if now_ms == self._at_ms:
                self._random += 1
            else:
                self._at_ms = now_ms
                # The top bit is left clear: room to count up without running over.
                self._random = secrets.randbits(_RANDOM_BITS - 1)
            return now_ms << _RANDOM_BITS | self._random


_ulids = _Ulids()


def new_ulid(now_ms: int | None = None) -> str:
    """A new ULID: 26 characters of Crockford's base 32, sorting by `now_ms` and then by call.

    `now_ms` is milliseconds since the epoch, the system clock's by default.
    """
    if now_ms is None:
        now_ms = time.time_ns() // 1_000_000
    if not 0 <= now_ms <= _MAX_MS:
        raise ValueError(f"a ULID cannot hold the time {now_ms} ms")
    value = _ulids.new(now_ms)
    return "".join(_ALPHABET[value >> shift & 31] for shift in range(125, -1, -5))


def earliest_ulid(at_ms: int) -> str:
    """The least ULID of that millisecond: every id that sorts before it was made earlier."""
    value = max(0, min(at_ms, _MAX_MS)) << _RANDOM_BITS
    return "".join(_ALPHABET[value >> shift & 31] for shift in range(125, -1, -5))


def ulid_ms(id: str) -> int:
    """When a ULID was made, in milliseconds since the epoch; 0 if the text is not a ULID."""
    value = 0
    for character in id[:10]:
        value = value << 5 | max(0, _ALPHABET.find(character))
    return value if is_ulid(id) else 0
