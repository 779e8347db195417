"""Reads log files that a command writes beside its output, while they grow."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, Callable, Optional

from hostler_agent import machine
from hostler_agent.clock import Clock, wait_any

POLL_S = 1.0
InThread = Callable[..., Awaitable[Any]]
"""Runs a function with its arguments in a thread."""

READ_BYTES = 64 * 1024


@dataclass(frozen=True)
class LogFile:
    """A log file to read. With `follow` only what is appended from the start on is delivered;
    otherwise the whole file once it has changed.
    """

    name: str
    path: str
    follow: bool = False


class Tail:
    """Reads one log file. A file that the command leaves unchanged is not delivered."""

    def __init__(
        self,
        log: LogFile,
        deliver: Callable[[str, bytes], Awaitable[None]],
        clock: Clock,
        in_thread: InThread,
    ) -> None:
        """`in_thread` runs what touches the file, with the rights to do so."""
        self._log = log
        self._deliver = deliver
        self._clock = clock
        self._in_thread = in_thread
        self._before: Optional[os.stat_result] = None
        self._descriptor: Optional[int] = None
        self._identity: Optional[tuple[int, int]] = None
        self._offset = 0

    async def look(self) -> None:
        """See how the file is before the command starts. Must be called before run()."""
        self._before = await self._in_thread(_stat_regular, self._log.path)

    async def run(self, ended: asyncio.Future[None]) -> None:
        """Deliver what is written until `ended` is set, and then once more, so that nothing is
        missed.
        """
        try:
            last = False
            while True:
                while data := await self._in_thread(self._read):
                    await self._deliver(self._log.name, data)
                if last:
                    return
                await wait_any(self._clock, [ended], POLL_S)
                last = ended.done()
        finally:
            self._close()

    def _read(self) -> bytes:
        with contextlib.suppress(OSError):
            self._reopen_if_replaced()
            if self._descriptor is not None:
                os.lseek(self._descriptor, self._offset, os.SEEK_SET)
                data = os.read(self._descriptor, READ_BYTES)
                self._offset += len(data)
                return data
        return b""

    def _reopen_if_replaced(self) -> None:
        """Open the file when the command has created, changed or rotated it; rewind if it was
        truncated.
        """
        now = _stat_regular(self._log.path)
        if now is None:
            # Gone: whatever comes next is new.
            self._before = None
            return
        identity = (now.st_dev, now.st_ino)
        if self._descriptor is not None and identity == self._identity:
            if now.st_size < self._offset:
                self._offset = 0
            return
        if self._descriptor is None and self._before is not None and _same(now, self._before):
            return
        grown = self._before is not None and identity == (self._before.st_dev, self._before.st_ino)
        self._close()
        self._descriptor = machine.open_log(self._log.path)
        self._identity = identity
        skipped = self._before.st_size if self._before is not None and grown else 0
        self._offset = skipped if self._log.follow and skipped <= now.st_size else 0

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _stat_regular(path: str) -> Optional[os.stat_result]:
    """The file's status; None unless it is a regular file."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found if stat.S_ISREG(found.st_mode) else None


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_ino, one.st_size, one.st_mtime_ns) == (
        other.st_ino,
        other.st_size,
        other.st_mtime_ns,
    )
