"""Pipes and terminals between the agent and a job, read without blocking the event loop.

Nothing is read ahead: if read() is not called, the pipe fills and the job waits (E11).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Optional

assert sys.platform != "win32"

READ_BYTES = 128 * 1024
"""The most bytes of one read, and the size of a full pipe: twice Linux's default, so that much
output takes half as many messages."""

_PIPE_BYTES = 64 * 1024

_F_SETPIPE_SZ = 1031  # fcntl.F_SETPIPE_SZ has it from Python 3.10 on


class PipeReader:
    """The agent's end of one output pipe, or of a terminal."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._is_enlarged = False

    @property
    def identity(self) -> int:
        """The pipe's inode, as /proc/PID/fd shows it for a process that holds the other end."""
        return os.fstat(self._descriptor).st_ino

    async def read(self) -> bytes:
        """Wait for output and return at most READ_BYTES of it; empty once nobody holds the other
        end.
        """
        while self._descriptor >= 0:
            data = self.read_now()
            if data is not None:
                return data
            await ready(self._descriptor)
        return b""

    def read_now(self) -> Optional[bytes]:
        """Return output without waiting; None if there is none yet."""
        try:
            data = os.read(self._descriptor, READ_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            # A terminal whose last holder is gone reads EIO instead of an end of file.
            return b""
        if len(data) >= _PIPE_BYTES and not self._is_enlarged:
            self._is_enlarged = True
            # Refused to a user who has very many pipes: the pipe then stays as it was.
            with contextlib.suppress(OSError):
                fcntl.fcntl(self._descriptor, _F_SETPIPE_SZ, READ_BYTES)
        return data

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class PipeWriter:
    """The agent's end of a job's standard input."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor

    async def write_all(self, data: bytes) -> None:
        """Write the data and close the pipe. A job that does not read its input is not an error."""
        view = memoryview(data)
        try:
            while view:
                view = view[self._write_now(view) :]
                if view:
                    await ready(self._descriptor, writing=True)
        except BrokenPipeError:
            pass
        finally:
            self.close()

    def _write_now(self, view: memoryview) -> int:
        try:
            return os.write(self._descriptor, view)
        except BlockingIOError:
            return 0

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


@dataclass(frozen=True)
class Stdio:
    """The pipes of a job. The ends in `child` (input, output, error) go to the job, after them the
    namespaces that it enters; all are closed after its start.
    """

    child: tuple[int, ...]
    readers: dict[str, PipeReader]
    writer: Optional[PipeWriter]

    def close_child(self) -> None:
        for descriptor in set(self.child):
            os.close(descriptor)

    def close_ours(self) -> None:
        for reader in self.readers.values():
            reader.close()
        if self.writer is not None:
            self.writer.close()


def open_stdio(use_pty: bool, with_stdin: bool, namespaces: Sequence[int] = ()) -> Stdio:
    """Open the pipes. The `namespaces` are duplicated: whoever has them may close his while they
    are on their way. Raises OSError if the agent has no descriptors left.
    """
    opened: list[int] = []
    try:
        opened.extend(map(os.dup, namespaces))
        duplicates = tuple(opened)
        stdio = _terminal(opened) if use_pty else _pipes(opened, with_stdin)
        return replace(stdio, child=(*stdio.child, *duplicates))
    except BaseException:
        for descriptor in opened:
            os.close(descriptor)
        raise


def _terminal(opened: list[int]) -> Stdio:
    ours, theirs = os.openpty()
    opened += (ours, theirs)
    return Stdio((theirs, theirs, theirs), {"stdout": PipeReader(ours)}, None)


def _pipes(opened: list[int], with_stdin: bool) -> Stdio:
    out, out_child = _pipe(opened)
    err, err_child = _pipe(opened)
    writer = None
    if with_stdin:
        in_child, in_ours = _pipe(opened)
        writer = PipeWriter(in_ours)
    else:
        in_child = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        opened.append(in_child)
    readers = {"stdout": PipeReader(out), "stderr": PipeReader(err)}
    return Stdio((in_child, out_child, err_child), readers, writer)


def _pipe(opened: list[int]) -> tuple[int, int]:
    ends = os.pipe2(os.O_CLOEXEC)
    opened += ends
    return ends


async def ready(descriptor: int, writing: bool = False) -> None:
    """Return when the descriptor can be read (or written) without blocking."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    add, remove = (
        (loop.add_writer, loop.remove_writer) if writing else (loop.add_reader, loop.remove_reader)
    )
    add(descriptor, _resolve, done)
    try:
        await done
    finally:
        remove(descriptor)


def _resolve(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)
