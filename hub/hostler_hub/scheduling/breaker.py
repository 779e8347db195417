"""A circuit breaker on the failed starts of a pool's workers (P5, P9). Pure.

Each worker whose start fails is quarantined by itself; the breaker is for causes that workers
share: a quota, an image, an outage. It opens after a number of failures in a row of more than one
worker. When its pause is over, a single start is let through as a probe: if the probe fails, the
pause doubles; the first success closes the breaker.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from hostler_hub.lifecycle.backoff import Backoff

PAUSES = Backoff(first_s=30.0, longest_s=3600.0)


@dataclass(frozen=True, slots=True)
class Breaker:
    """The state of a breaker.

    ``failures``: failed starts in a row. ``workers``: up to two of the workers that failed.
    ``open_until``: when its pause ends (seconds since the epoch), None while it is closed.
    """

    failures: int = 0
    workers: frozenset[str] = frozenset()
    error: str = ""
    open_until: float | None = None
    pause_s: float = 0.0

    def failed(self, at: float, worker: str, error: str, allowed: int) -> Breaker:
        """The breaker after a failed start of ``worker``. ``allowed``: the number of failures
        that opens it.
        """
        made = replace(
            self,
            failures=self.failures + 1,
            workers=self.workers if len(self.workers) > 1 else self.workers | {worker},
            error=error,
        )
        if self.open_until is None:
            opens = made.failures >= allowed and len(made.workers) > 1
        else:
            opens = not self._pauses(at)  # the probe; not what was under way when it opened
        if not opens:
            return made
        pause_s = PAUSES.after_s(self.pause_s)
        return replace(made, open_until=at + pause_s, pause_s=pause_s)

    def succeeded(self) -> Breaker:
        """The breaker after a successful start: closed, with no failures."""
        return Breaker()

    def starts(self, now: float, starting: int) -> int | None:
        """How many starts the breaker lets through while ``starting`` are in progress;
        None: any number.
        """
        if self.open_until is None:
            return None
        return 0 if self._pauses(now) else max(0, 1 - starting)

    def state(self, now: float) -> Literal["closed", "open", "half-open"]:
        if self.open_until is None:
            return "closed"
        return "open" if self._pauses(now) else "half-open"

    def _pauses(self, now: float) -> bool:
        """Whether the pause is not over. A clock that is set back does not make the
        pause longer (A9).
        """
        return self.open_until is not None and 0 < self.open_until - now <= self.pause_s
