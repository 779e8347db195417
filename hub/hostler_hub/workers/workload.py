"""What the workers' service asks of higher rooms: builds on a worker, and why one is unused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from hostler_hub.workers.registry import Entry
from hostler_hub.workers.views import WorkerReasons


class RunningBuilds(Protocol):
    """The builds that hold leases on workers."""

    def builds_on(self, worker: str) -> list[str]:
        """The ids of the builds that hold a lease on the worker, oldest first."""

    async def released(self, workers: Sequence[str]) -> None:
        """Wait until builds that have ended on these workers have freed their slots.

        Waits for a few seconds at most.
        """


class WorkerExplainer(Protocol):
    """Explains why a worker is not started, not used or not stopped."""

    def of_worker(self, entry: Entry, now: float) -> WorkerReasons:
        """Why the worker is not started, not used, not stopped at ``now``; None for what it is."""

    def starts_paused(self, entry: Entry) -> bool:
        """Whether starts of the worker are paused after failures, so that an order to resume it
        changes something.
        """
