"""Step logs: appended by the runner of the step, read and followed by many.

The bytes are in the store (V7); this module keeps the followers that wait for more, and the limits:
on a log's size, and on all logs of a submitter.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from sqlalchemy import Connection

from hostler_hub.builds.quotas import Account, Kind, Quotas
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


@dataclass(frozen=True, slots=True)
class StoredLog:
    """What is stored of a log: its size, and where a quota has ended it, if one has."""

    size_bytes: int = 0
    cut_at: int | None = None


class Logs:
    """Reads, appends and follows the logs of steps."""

    def __init__(self, store: Store, step_limit_bytes: int, quotas: Quotas) -> None:
        self._store = store
        self._limit = step_limit_bytes
        self._quotas = quotas
        self._followers: Waiters[StepKey] = Waiters()

    async def load(self) -> None:
        """Count the logs that are stored. Called once, before anything is appended."""
        self._quotas.count(Kind.LOGS, await self._store.read(log_rows.sizes))

    def writer(self, key: StepKey, account: Account, stored: StoredLog) -> LogWriter:
        return LogWriter(self, self._store, key, account, stored, self._limit)

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
    """Appends to one step's log in the order of the calls. ``account``: whose quota the log is in,
    and that of the step's artifacts.
    """

    def __init__(
        self,
        logs: Logs,
        store: Store,
        key: StepKey,
        account: Account,
        stored: StoredLog,
        limit_bytes: int,
    ) -> None:
        self._logs = logs
        self._store = store
        self._key = key
        self.account = account
        self._limit = limit_bytes if stored.cut_at is None else stored.cut_at
        self._last_line = f"\n[truncated at {limit_bytes} bytes]\n".encode()
        self._cut_at = stored.cut_at
        if stored.cut_at is not None:
            self._last_line = b""  # it is stored already
        self.end = stored.size_bytes

    @property
    def is_cut(self) -> bool:
        """Whether a quota has ended the log before its output."""
        return self._cut_at is not None

    def append(self, stream: str, data: bytes, offset: int | None = None) -> asyncio.Future[int]:
        """Append bytes at ``offset``, in the order of the calls; the future is done when
        they are durable.

        Without ``offset`` they go to the log's end (for peers that report no offsets). Beyond the
        limit of a log, or its submitter's quota, nothing more is stored, and one line in the log
        says so (V7). Raises LogGap if ``offset`` is behind the end of what was appended.
        """
        start = self.end if offset is None else offset
        if start > self._limit:
            nothing: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            nothing.set_result(self._limit)
            return nothing
        if start > self.end:
            raise LogGap(start, self.end)
        self._take_space(start, len(data))
        if start + len(data) > self._limit:
            data = data[: self._limit - start] + self._last_line
        self.end = max(self.end, start + len(data))
        stored = self._write(start, stream, data)
        stored.add_done_callback(lambda _: self._logs.changed(self._key))
        return stored

    def note(self, text: str) -> None:
        """Append a line of the hub's own, also to a log that a limit has ended."""
        data = f"{text}\n".encode()
        start, self.end = self.end, self.end + len(data)
        stored = self._write(start, "header", data)
        stored.add_done_callback(lambda _: self._logs.changed(self._key))

    def _take_space(self, start: int, size_bytes: int) -> None:
        """Take space for what was not appended before, and end the log where there is none."""
        first = max(start, self.end)
        wanted = min(start + size_bytes, self._limit) - first
        if wanted <= 0:
            return
        quotas, submitter = self.account.quotas, self.account.submitter
        room, why = quotas.take_for_log(submitter, wanted)
        if room < wanted:
            self._limit = self._cut_at = first + room
            self._last_line = f"\n[truncated: {why}]\n".encode()

    def _write(self, start: int, stream: str, data: bytes) -> asyncio.Future[int]:
        key = self._key
        place = (key.build, key.attempt, key.index, start, stream, data)
        if self._cut_at is not None and start + len(data) > self._cut_at:
            return self._store.write(log_rows.append_last, *place, self._cut_at)
        return self._store.write(log_rows.append, *place)


def _read(c: Connection, key: StepKey, offset: int, limit: int) -> tuple[bytes, int, bool]:
    # The step's state is read first: bytes that come later belong to a step that had not ended.
    rows = builds.steps(c, key.build, key.attempt)
    ended = key.index < len(rows) and rows[key.index]["state"] in TERMINAL_STEP_STATES
    data, end = log_rows.read(c, key.build, key.attempt, key.index, offset, limit)
    complete = ended and end >= rows[key.index]["log_size_bytes"]
    return data, end, complete
