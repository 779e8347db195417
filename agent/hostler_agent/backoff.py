"""The delays between repeated attempts after failures. Pure.

The hub's lifecycle core has a similar class: the two packages share nothing but the wire protocol.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Backoff:
    """Delays in seconds that grow by ``factor`` from ``first_s`` up to ``longest_s``."""

    first_s: float
    longest_s: float
    factor: float = 2.0

    def delay_s(self, failures: int) -> float:
        """The delay in seconds after this many failures in a row (at least 1)."""
        try:
            delay_s = self.first_s * self.factor ** (max(failures, 1) - 1)
        except OverflowError:
            delay_s = self.longest_s
        return min(delay_s, self.longest_s)
