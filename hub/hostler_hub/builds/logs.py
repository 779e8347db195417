"""Step logs: appended by the runner of the step, read and followed by many.

The bytes are in the store (V7); this module keeps the followers that wait for more, and the limit
on a log's size.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from sqlalchemy import Connection

from hostler_hub.runtime.waiters import Waiters
from hostler_hub.specs.states import TERMINAL_STEP_STATES
from hostler_hub.store import builds
from hostler_hub.store import logs as log_rows
from hostler_hub.store.engine import Store
from hostler_hub.store.errors import LogGap

FOLLOW_CHUNK_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class StepKey:
    """Identifies a step: its build's id, the attempt (1, 2, ...), the step's index (0, 1, ...)."""

    build: str
    attempt: int
    index: int


@dataclass(frozen=True, slots=True)
class LogSlice:
    """Bytes of a log from ``offset`` to ``end``. ``complete``: the log ends there, and no
    more will come.
    """

    data: bytes
    offset: int
    end: int
    complete: bool


class Logs:
    """Reads, appends and follows the logs of steps."""

    def __init__(self, store: Store, step_limit_bytes: int) -> None:
        self._store = store
        self._limit = step_limit_bytes
        self._followers: Waiters[StepKey] = Waiters()

    def writer(self, key: StepKey, size_bytes: int = 0) -> LogWriter:
        return LogWriter(self, self._store, key, size_bytes, self._limit)

    def changed(self, key: StepKey) -> None:
        """Wake the followers of this log, because it grew or its step ended."""
        self._followers.wake(key)

    async def read(self, key: StepKey, offset: int, limit: int) -> LogSlice:
        data, end, complete = await self._store.read(_read, key, offset, limit)
        return LogSlice(data, offset, end, complete)

    async def follow(self, key: StepKey, offset: int) -> AsyncIterator[bytes]:
        """Yield the log's bytes from ``offset`` on as they come, until the step has ended."""
        with self._followers.waiting(key) as grown:
            while True:
                grown.clear()
                part = await self.read(key, offset, FOLLOW_CHUNK_BYTES)
                if part.data:
                    yield part.data
                    offset = part.end
                elif part.complete:
                    return
                else:
                    await grown.wait()


class LogWriter:
    """Appends to one step's log in the order of the calls."""

    def __init__(
        self, logs: Logs, store: Store, key: StepKey, size_bytes: int, limit_bytes: int
    ) -> None:
        self._logs = logs
        self._store = store
        self._key = key
        self._limit = limit_bytes
        self.end = size_bytes

    def append(self, stream: str, data: bytes, offset: int | None = None) -> asyncio.Future[int]:
        """Append bytes at ``offset``, in the order of the calls; the future is done when
        they are durable.

        Without ``offset`` they go to the log's end (for peers that report no offsets). Beyond the
        limit nothing more is stored, and one line in the log says so (V7). Raises LogGap if
        ``offset`` is behind the end of what was appended.
        """
        start = self.end if offset is None else offset
        if start > self._limit:
            nothing: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            nothing.set_result(self._limit)
            return nothing
        if start > self.end:
            raise LogGap(start, self.end)
        if start + len(data) > self._limit:
            data = data[: self._limit - start] + f"\n[truncated at {self._limit} bytes]\n".encode()
        self.end = max(self.end, start + len(data))
        key = self._key
        stored = self._store.write(
            log_rows.append, key.build, key.attempt, key.index, start, stream, data
        )
        stored.add_done_callback(lambda _: self._logs.changed(key))
        return stored


def _read(c: Connection, key: StepKey, offset: int, limit: int) -> tuple[bytes, int, bool]:
    # The step's state is read first: bytes that come later belong to a step that had not ended.
    rows = builds.steps(c, key.build, key.attempt)
    ended = key.index < len(rows) and rows[key.index]["state"] in TERMINAL_STEP_STATES
    data, end = log_rows.read(c, key.build, key.attempt, key.index, offset, limit)
    complete = ended and end >= rows[key.index]["log_size_bytes"]
    return data, end, complete
