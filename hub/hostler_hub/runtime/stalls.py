"""How long the hub itself stood still: stopped, suspended, starved of CPU, or waiting for its
store.

Timeouts of agents subtract this: while the hub stood still it could not hear an agent, so the agent
is not at fault (V12, A10).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator

BEAT_S = 5.0
# Less is ordinary on a loaded machine, and far below everybody's patience.
TOLERATED_S = 2.0


class Stalls:
    """Counts the seconds. The clock ``elapsed`` never goes back, and counts suspension."""

    def __init__(self, elapsed: Callable[[], float]) -> None:
        self._elapsed = elapsed
        self._counted_s = 0.0
        self._until = elapsed()
        self._waits: dict[object, float] = {}

    def total_s(self) -> float:
        """The seconds stalled so far, including a stall that still lasts. The difference of two
        calls is the stall between them.
        """
        now = self._elapsed()
        since = min(self._waits.values(), default=now)
        lasting = now - max(since, self._until) if now - since > TOLERATED_S else 0.0
        return self._counted_s + max(0.0, lasting)

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time within the context as a stall if it exceeds TOLERATED_S. For transactions
        of the store.
        """
        wait, since = object(), self._elapsed()
        self._waits[wait] = since
        try:
            yield
        finally:
            del self._waits[wait]
            self._count(since, self._elapsed())

    async def watch(self) -> None:
        """Count stalls of the event loop for as long as the hub runs: a sleep that took too long
        was one.
        """
        while True:
            due = self._elapsed() + BEAT_S
            await asyncio.sleep(BEAT_S)
            self._count(due, self._elapsed())

    def _count(self, since: float, until: float) -> None:
        if until - since > TOLERATED_S:
            self._counted_s += max(0.0, until - max(since, self._until))
            self._until = max(self._until, until)
