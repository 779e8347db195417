"""Whether workers of a group are started at all: a circuit breaker on failed starts (P5, P9). Pure.

Each worker that fails rests by itself; the breaker is for what they have in common: a quota, an
image, an outage. It opens after so many failures in a row of more than one worker; when its pause
is over a single start is let through as a probe: if that fails too the pause doubles, and the first
success closes the breaker.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from hostler_hub.lifecycle.backoff import Backoff

PAUSES = Backoff(first_s=30.0, longest_s=3600.0)


@dataclass(frozen=True, slots=True)
class Breaker:
    """``failures`` in a row and of which ``workers``; ``open_until`` is None while it is closed."""

    failures: int = 0
    workers: frozenset[str] = frozenset()
    error: str = ""
    open_until: float | None = None
    pause_s: float = 0.0

    def failed(self, at: float, worker: str, error: str, allowed: int) -> Breaker:
        """A start has failed."""
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
        """A start has succeeded: all is forgotten."""
        return Breaker()

    def starts(self, now: float, starting: int) -> int | None:
        """How many starts are let through, with so many under way; None for any number."""
        if self.open_until is None:
            return None
        return 0 if self._pauses(now) else max(0, 1 - starting)

    def state(self, now: float) -> str:
        if self.open_until is None:
            return "closed"
        return "open" if self._pauses(now) else "half-open"

    def _pauses(self, now: float) -> bool:
        """A clock that is set back does not make the pause longer (A9)."""
        return self.open_until is not None and 0 < self.open_until - now <= self.pause_s
