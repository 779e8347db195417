"""Waiters for a named thing to happen; each has an event of its own.

If all waiters of a name shared one event, it would be lost to the others when the first gives up.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Waiters(Generic[K]):
    """The waiters by key. Nothing is kept for a key that nobody waits for."""

    def __init__(self) -> None:
        # In the order of their coming, in which they are woken: the same history each time.
        self._events: dict[K, dict[asyncio.Event, None]] = {}

    @contextlib.contextmanager
    def waiting(self, key: K) -> Iterator[asyncio.Event]:
        """An event that wake(key) sets, for the time of the context."""
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
