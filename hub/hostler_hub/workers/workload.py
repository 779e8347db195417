"""What the workers' service asks of the rooms above: what runs on a worker, and why it does not."""

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
        """Wait, for a few seconds at most, until builds that have ended there free their slots."""


class WorkerExplainer(Protocol):
    """Explains what a worker does not do."""

    def of_worker(self, entry: Entry, now: float) -> WorkerReasons:
        """Why it is not started, not used, not stopped; None where it is."""
