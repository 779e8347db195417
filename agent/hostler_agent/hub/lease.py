"""The agent's side of the lease: how long its jobs may go on without the hub.

The hub gives a worker's build to another worker `lease_ttl_s` (and a margin) after it last *heard*
from the agent. The agent ends its jobs a margin *before* that time has passed since it *sent* the
last message that is known to have arrived. Each counts on its own clock, so the clocks need not
agree, and a job never runs twice at the same time (A7). The clock counts suspension (A8).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, Optional

if TYPE_CHECKING:
    from hostler_agent.clock import Clock

MARGIN_S = 30.0
LONGEST_NAP_S = 5.0
"""Sleeping does not count suspension, so the clock is looked at at least this often."""


class LeaseTimer:
    """Calls `expired` when the lease runs out. Inactive until the hub has said how long the lease
    is; a stock master never does.
    """

    def __init__(self, clock: Clock, expired: Callable[[], None]) -> None:
        """`expired` is called once each time the lease runs out."""
        self._clock = clock
        self._expired = expired
        self._contact_at = clock.now()
        self._ttl_s: Optional[float] = None
        self._is_over = False

    def contacted(self, sent_at: float) -> None:
        """The hub has answered a message that was sent at `sent_at`: the lease lasts from
        then on.
        """
        self.check()
        if sent_at > self._contact_at:
            self._contact_at = sent_at
            self._is_over = False

    def granted(self, ttl_s: Optional[float]) -> None:
        """Set the lease's duration; None from a stock master, which has no leases."""
        self._ttl_s = ttl_s

    def remaining_s(self) -> Optional[float]:
        """Seconds until the jobs must end; None if they need not."""
        if self._ttl_s is None:
            return None
        margin_s = min(MARGIN_S, self._ttl_s / 2)
        return self._contact_at + self._ttl_s - margin_s - self._clock.now()

    def check(self) -> None:
        """Call `expired` if the lease has run out. Must be called before anything is sent that
        depends on the lease.
        """
        remaining_s = self.remaining_s()
        if remaining_s is not None and remaining_s <= 0 and not self._is_over:
            self._is_over = True
            self._expired()

    async def watch(self) -> None:
        """Check the lease for as long as the agent lives."""
        while True:
            remaining_s = self.remaining_s()
            idle = remaining_s is None or self._is_over
            nap_s = LONGEST_NAP_S if idle else min(max(remaining_s or 0.0, 0.05), LONGEST_NAP_S)
            await self._clock.sleep(nap_s)
            self.check()
