"""How work in a thread is stopped: by an interrupt, or by its time limits."""

from __future__ import annotations

import threading
import time
from typing import Optional

from hostler_agent.commands.errors import WorkStopped


class Progress:
    """The state shared by the thread that works and the event loop that waits for it."""

    def __init__(
        self, max_time_s: Optional[float] = None, timeout_s: Optional[float] = None
    ) -> None:
        self._max_time_s = max_time_s
        self._timeout_s = timeout_s
        self._begun = self._last = time.monotonic()
        self._stopped: Optional[str] = None
        self._lock = threading.Lock()

    def stop(self, why: str) -> None:
        with self._lock:
            self._stopped = self._stopped or why

    def step(self) -> None:
        """Raise WorkStopped if the work is to stop. The thread must call this between two pieces of
        work.
        """
        now = time.monotonic()
        if self._max_time_s and now - self._begun >= self._max_time_s:
            self.stop(f"timed out: {self._max_time_s:g} seconds elapsed")
        if self._timeout_s and now - self._last >= self._timeout_s:
            self.stop(f"timed out: {self._timeout_s:g} seconds without progress")
        self._last = now
        if self._stopped is not None:
            raise WorkStopped(self._stopped)
