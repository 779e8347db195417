"""The dead-man switch: an agent whose hub is gone for good ends its instance, so that it stops
costing money (P17).

Silence alone does not end it: while a command runs, the lease decides how long it may go on (A7).
The time is counted from the last message that the hub answered, on a clock that counts suspension.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

if TYPE_CHECKING:
    from hostler_agent.clock import Clock

LONGEST_NAP_S = 30.0
"""Sleeping does not count suspension, so the clock is looked at at least this often."""


class DeadManSwitch:
    """Detects that the hub has been silent for too long."""

    def __init__(self, clock: Clock, timeout_s: float, is_idle: Callable[[], bool]) -> None:
        """`timeout_s`: how long the hub may be silent; 0 or less means for ever."""
        self._clock = clock
        self._timeout_s = timeout_s
        self._is_idle = is_idle
        self._heard_at = clock.now()

    def contacted(self, sent_at: float) -> None:
        """The hub has answered a message that was sent at `sent_at`."""
        self._heard_at = max(self._heard_at, sent_at)

    async def watch(self) -> None:
        """Return when the hub has been silent for `timeout_s` and no command runs."""
        while True:
            silent_s = self._clock.now() - self._heard_at
            left_s = self._timeout_s - silent_s
            if self._timeout_s > 0 and left_s <= 0 and self._is_idle():
                return
            # Overdue but busy: the lease ends the commands before long.
            soon = left_s > 0 and self._timeout_s > 0
            await self._clock.sleep(min(left_s, LONGEST_NAP_S) if soon else LONGEST_NAP_S)
