"""The index of operators' open leases: the worker of each, and who waits for a change of it."""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager

from hostler_hub.lifecycle import commands
from hostler_hub.runtime.waiters import Waiters


class LeaseIndex:
    """The workers of the leases that have not ended, by lease id.

    The controller's commands report each change of a lease.
    """

    def __init__(self) -> None:
        self._workers: dict[str, str] = {}
        self._changed: Waiters[str] = Waiters()

    def add(self, lease: str, worker: str) -> None:
        self._workers[lease] = worker

    def discard(self, lease: str) -> None:
        self._workers.pop(lease, None)

    def worker_of(self, lease: str) -> str | None:
        return self._workers.get(lease)

    def workers(self) -> list[str]:
        """The names of the workers that are leased or waited for, in the order of the leases."""
        return list(self._workers.values())

    def waiting(self, lease: str) -> AbstractContextManager[asyncio.Event]:
        """A context with an event that the lease's next change sets."""
        return self._changed.waiting(lease)

    def changed(self, order: commands.TellPerson) -> None:
        """Wake those who wait for a lease that was granted, renewed or ended; drop an ended one."""
        if order.over is not None:
            self.discard(order.lease.id)
        self._changed.wake(order.lease.id)
