"""The hub's real store, its writer's thread replaced by the loop, and what a crash does to it.

Jobs gather and are committed in groups as ever, a virtual moment after the first of them; a hub
that dies before that has lost them, one that dies after it has not. Crash points around commits
are named after what is committed: an event's name, or the written function's.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from simulation.loop import PROCESS

from hostler_hub.runtime.settings import Settings
from hostler_hub.store import schema
from hostler_hub.store.engine import Store
from hostler_hub.store.errors import StoreError, StoreFull, StoreUnavailable
from hostler_hub.store.writer import Job, JobResult, Writer
from hostler_hub.workers import transition

PATIENCE_S = 60.0


@dataclass
class Storage:
    """The disk. ``outage`` is what writes come to while it lasts; ``frozen``: they wait."""

    latency_s: Callable[[], float] = lambda: 0.001
    on_commit: Callable[[str, list[str]], None] = lambda _when, _names: None
    outage: StoreError | None = None
    frozen: bool = False
    commits: int = 0

    @contextlib.asynccontextmanager
    async def open(self, settings: Settings) -> AsyncIterator[Store]:
        """Instead of ``opening.open_store``."""
        writer = type("InlineWriter", (InlineWriter,), {"storage": self})
        store = Store(settings.database_url, exclusive=True, writer=writer)
        _share_statements(store)
        async with store:
            yield store


class InlineWriter(Writer):
    """Commits in the loop. Dies with its process, as the system would see to it."""

    storage: ClassVar[Storage]

    def _start(self) -> None:
        self._due = False
        self._gathered: list[Job] = []
        self._gathered_at = 0.0
        process = PROCESS.get()
        assert process is not None
        process.deaths.append(self._abandon)

    def put(self, fn: Any, args: Any, kwargs: Any, future: asyncio.Future[Any]) -> None:
        super().put(fn, args, kwargs, future)
        self._flush_later(self.storage.latency_s())

    def close(self) -> None:
        """Whoever closes has waited for his writes; others' are committed now, in their order."""
        gathered, self._gathered = self._gathered, []
        while gathered or not self._jobs.empty():
            batch = gathered or self._gather()[0]
            gathered = []
            self._hand_out(batch, self._run_until_stored(batch))
        self._abandon()

    def _flush_later(self, after_s: float) -> None:
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_later(after_s, self._flush)

    def _flush(self) -> None:
        self._due = False
        loop = asyncio.get_running_loop()
        if not self._gathered:
            if self._jobs.empty():
                return
            self._gathered, _ = self._gather()
            self._gathered_at = loop.time()
        if self.storage.frozen or self._waits_for_the_outage(loop.time()):
            self._flush_later(0.5)
            return
        batch, self._gathered = self._gathered, []
        self._commit(batch)
        if not self._jobs.empty():
            self._flush_later(self.storage.latency_s())

    def _waits_for_the_outage(self, now: float) -> bool:
        outage = self.storage.outage
        if outage is None or isinstance(outage, StoreFull):
            return False
        if isinstance(outage, StoreUnavailable):
            self._on_trouble(outage)
        return now < self._gathered_at + PATIENCE_S

    def _commit(self, batch: list[Job]) -> None:
        if self.storage.outage is not None:
            if isinstance(self.storage.outage, StoreUnavailable):
                self._on_trouble(self.storage.outage)
            self._hand_out(batch, [JobResult(None, self.storage.outage)] * len(batch))
            return
        names = [name for job in batch for name in names_of(job)]
        self.storage.on_commit("before", names)
        outcomes = self._run_until_stored(batch)
        self.storage.commits += 1
        self.storage.on_commit("after", names)
        self._hand_out(batch, outcomes)

    def _abandon(self) -> None:
        self._release(lost=True)
        self._engine.dispose()
        self._backend.close()
        if self._lock is not None:
            self._lock.release()


_dialect: list[Any] = []
_statements: dict[Any, Any] = {}


def _share_statements(store: Store) -> None:
    """Statements are compiled once per engine, which is half of a short simulation's time."""
    for engine in (store._writer._engine, store._readers):
        if not _dialect:
            _dialect.append(engine.dialect)
        engine.dialect = _dialect[0]
        engine.pool._dialect = _dialect[0]
        engine._compiled_cache = _statements  # type: ignore[assignment]


def names_of(job: Job) -> list[str]:
    """What a job writes, in the words of crash points."""
    if job.fn is transition.write and job.args[0]:
        return [type(each.event).__name__ for each in job.args[0]]
    return [job.fn.__qualname__]


@functools.cache
def _template() -> bytes:
    """An empty database at today's schema: to make one takes longer than most simulations."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "hub.sqlite3"
        schema.upgrade(f"sqlite:///{path}")
        return path.read_bytes()


def prepare(path: Path) -> None:
    """A new database."""
    path.write_bytes(_template())
    path.chmod(0o600)
