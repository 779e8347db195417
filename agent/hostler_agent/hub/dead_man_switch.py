"""The dead-man switch: an agent whose hub is gone for good ends its instance, so that it stops
costing money (P17).

Silence alone does not end it: while a command runs the lease says how long it may (A7). What is
counted is the time since the last thing the hub has answered, on a clock that counts suspension.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

if TYPE_CHECKING:
    from hostler_agent.clock import Clock

LONGEST_NAP_S = 30.0
"""Sleeping does not count suspension, so the clock is looked at at least this often."""


class DeadManSwitch:
    """Watches for the hub's silence."""

    def __init__(self, clock: Clock, timeout_s: float, is_idle: Callable[[], bool]) -> None:
        """`timeout_s`: how long the hub may be silent; 0 or less: for ever."""
        self._clock = clock
        self._timeout_s = timeout_s
        self._is_idle = is_idle
        self._heard_at = clock.now()

    def contacted(self, sent_at: float) -> None:
        """The hub has answered something that was sent at that time."""
        self._heard_at = max(self._heard_at, sent_at)

    async def watch(self) -> None:
        """Returns when the hub has been silent for too long and no command runs."""
        while True:
            silent_s = self._clock.now() - self._heard_at
            left_s = self._timeout_s - silent_s
            if self._timeout_s > 0 and left_s <= 0 and self._is_idle():
                return
            # Overdue but busy: the lease ends the commands before long.
            soon = left_s > 0 and self._timeout_s > 0
            await self._clock.sleep(min(left_s, LONGEST_NAP_S) if soon else LONGEST_NAP_S)
