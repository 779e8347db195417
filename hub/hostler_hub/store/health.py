"""The store's health: whether the database takes writes and answers reads now, and if not, why.

The store's threads report each failure, which may be many in a second; one line is logged when an
outage begins, when its reason changes, and when it is over.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import structlog

from hostler_hub.store.errors import StoreUnavailable

_log = structlog.get_logger(__name__)


class Use(StrEnum):
    """What the database is used for. A full disk takes no writes and still answers reads."""

    WRITE = "write"
    READ = "read"


@dataclass(frozen=True, slots=True)
class Trouble:
    """An outage that lasts: why, in words that anybody may read, and since when (monotonic)."""

    reason: str
    since: float


class Health:
    """The present outage, if there is one. All methods may be called from any thread."""

    def __init__(self, elapsed: Callable[[], float] = time.monotonic) -> None:
        self._elapsed = elapsed
        self._lock = threading.Lock()
        self._troubles: dict[Use, Trouble] = {}
        self._listeners: list[Callable[[], None]] = []

    @property
    def trouble(self) -> Trouble | None:
        """The outage, that of writes before that of reads."""
        with self._lock:
            return self._troubles.get(Use.WRITE) or self._troubles.get(Use.READ)

    def is_failing(self, use: Use) -> bool:
        """Whether that use of the database has failed and not succeeded since."""
        return use in self._troubles

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener`, in the thread that noticed it, when an outage begins."""
        self._listeners.append(listener)

    def failed(self, use: Use, error: StoreUnavailable) -> None:
        """Note that the database could not be used."""
        with self._lock:
            known = self._troubles.get(use)
            if known is not None and known.reason == error.summary:
                return
            is_first = not self._troubles
            others = {each.reason for each in self._troubles.values()}
            since = known.since if known is not None else self._elapsed()
            self._troubles[use] = Trouble(error.summary, since)
        if error.summary not in others:
            _log.error("database unavailable", use=use.value, reason=str(error))
        if is_first:
            for listener in self._listeners:
                listener()

    def recovered(self, use: Use) -> None:
        """Note that the database was used so without an error."""
        if use not in self._troubles:
            return
        with self._lock:
            over = self._troubles.pop(use, None)
            if over is None or self._troubles:
                return
        _log.info("database available again", away_s=round(self._elapsed() - over.since, 1))
