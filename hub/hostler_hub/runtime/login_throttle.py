"""Slows down who guesses names and passwords, and nobody else (U6, V19).

Theory of operation. Failed attempts are counted by client, and by client and name where the name is
known; windows last a minute, and FAILURES of them are free. A name that is known is refused once it
has failed that often itself, so a bad agent keeps no neighbour at its address out. Names that are
not known are refused once the client has failed that often with whatever names. What is right is
never refused for its neighbours' failures; callers verify cheap credentials first and ask nothing.

An attempt is counted when it begins, so that many at once count too; a right one is taken back.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

FAILURES = 10
WINDOW_S = 60.0
ENTRIES = 10_000


@dataclass(slots=True)
class _Window:
    since: float
    count: int = 0


class LoginThrottle:
    """Counts the failed attempts of the last minute, of at most ENTRIES clients and names (V15)."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._windows: dict[tuple[str, str | None], _Window] = {}

    def __len__(self) -> int:
        return len(self._windows)

    def wait_s(self, client: str, name: str | None) -> int:
        """How many seconds the client must wait before it tries this name again; 0 if it need not.
        ``name`` is None for one that is not known.
        """
        window = self._windows.get((client, name))
        if window is None or window.count < FAILURES:
            return 0
        return max(0, math.ceil(window.since + WINDOW_S - self._monotonic()))

    def count(self, client: str, name: str | None) -> None:
        """Count an attempt that has begun, or has failed."""
        for key in {(client, None), (client, name)}:
            self._window(key).count += 1

    def take_back(self, client: str, name: str | None) -> None:
        """The attempt that was counted was right."""
        for key in {(client, None), (client, name)}:
            if (window := self._windows.get(key)) is not None and window.count > 0:
                window.count -= 1

    def _window(self, key: tuple[str, str | None]) -> _Window:
        now = self._monotonic()
        window = self._windows.get(key)
        if window is None or now - window.since >= WINDOW_S:
            self._windows.pop(key, None)
            if len(self._windows) >= ENTRIES:  # the oldest window makes room
                del self._windows[next(iter(self._windows))]
            window = self._windows[key] = _Window(now)
        return window
