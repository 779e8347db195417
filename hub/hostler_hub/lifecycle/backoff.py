"""How long to wait between the tries of something that failed (V13).

Pure: the caller counts its failures, or keeps the delay before, and brings its random number.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delays in seconds that grow by ``factor`` from ``first_s`` up to ``longest_s``.

    ``jitter`` is the share of a delay, from 0 to 1, by which it may be shorter or longer.
    """

    first_s: float
    longest_s: float
    factor: float = 2.0
    jitter: float = 0.0

    def delay_s(self, failures: int, share: float = 0.5) -> float:
        """The delay after so many failures in a row, counted from 1.

        ``share``, from 0 to 1, is the place within the jitter: 0.5 is its middle.
        """
        try:
            delay_s = self.first_s * self.factor ** (max(failures, 1) - 1)
        except OverflowError:
            delay_s = self.longest_s
        return min(delay_s, self.longest_s) * (1 + self.jitter * (2 * share - 1))

    def after_s(self, previous_s: float) -> float:
        """The delay that follows a delay of ``previous_s``; 0 stands for none before."""
        return min(previous_s * self.factor or self.first_s, self.longest_s)

    def delays_s(self, count: int) -> tuple[float, ...]:
        """The first ``count`` delays, for a number of tries that is fixed."""
        return tuple(self.delay_s(failures) for failures in range(1, count + 1))
