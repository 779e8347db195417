"""Those who wait for something of a name to happen: each with an event of its own.

An event shared by all who wait for a name would be lost to the others when the first one gives up.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Waiters(Generic[K]):
    """Who waits for what; nothing is kept of a name that nobody waits for."""

    def __init__(self) -> None:
        # In the order of their coming, in which they are woken: the same history each time.
        self._events: dict[K, dict[asyncio.Event, None]] = {}

    @contextlib.contextmanager
    def waiting(self, key: K) -> Iterator[asyncio.Event]:
        """An event that wake(key) sets, from now until the context ends."""
        event = asyncio.Event()
        self._events.setdefault(key, {})[event] = None
        try:
            yield event
        finally:
            left = self._events[key]
            del left[event]
            if not left:
                del self._events[key]

    def wake(self, key: K) -> None:
        for event in self._events.get(key, ()):
            event.set()

    def __len__(self) -> int:
        return len(self._events)
