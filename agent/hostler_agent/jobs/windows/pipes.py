"""Pipes between the agent and a job, on asyncio's Proactor loop.

Anonymous pipes cannot be read asynchronously, so these are named pipes with one instance each,
which can be opened only from this machine and only once. At most a few blocks are read ahead of
read(): if it is not called, the pipe fills, and the job waits (E11).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import secrets
import sys
from ctypes import wintypes
from dataclasses import dataclass
from typing import Optional

assert sys.platform == "win32"

from hostler_agent.win32 import api
from hostler_agent.win32.api import KERNEL32, Handle, function

READ_BYTES = 64 * 1024

_ACCESS_INBOUND = 1
_ACCESS_DUPLEX = 3
_FIRST_PIPE_INSTANCE = 0x00080000
_OVERLAPPED = 0x40000000
_REJECT_REMOTE_CLIENTS = 8

_create_named_pipe = function(
    KERNEL32,
    "CreateNamedPipeW",
    ctypes.c_void_p,
    wintypes.LPCWSTR,
    *[wintypes.DWORD] * 6,
    ctypes.c_void_p,
)


class PipeReader:
    """The agent's end of one output pipe; see containment.Reader."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self.identity = handle.value
        self._stream: Optional[asyncio.StreamReader] = None
        self._transport: Optional[asyncio.ReadTransport] = None

    async def open(self) -> None:
        """Start reading. Must be called once the job has the other end."""
        loop = asyncio.get_running_loop()
        self._stream = stream = asyncio.StreamReader(READ_BYTES)
        self._transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), self._handle
        )

    def read_now(self) -> Optional[bytes]:
        """Return None: on Windows it cannot be known without waiting."""
        return None

    async def read(self) -> bytes:
        """Wait for output and return at most 64 KiB of it; empty once nobody holds the
        other end.
        """
        if self._stream is None:
            return b""
        try:
            return await self._stream.read(READ_BYTES)
        except OSError:
            # How some Windows versions tell that the last holder was killed.
            return b""

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
        else:
            self._handle.close()


class PipeWriter(asyncio.BaseProtocol):
    """The agent's end of a job's standard input; see containment.Writer."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self._transport: Optional[asyncio.WriteTransport] = None
        self._lost: Optional[asyncio.Future[None]] = None

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        self._lost = loop.create_future()
        self._transport, _ = await loop.connect_write_pipe(lambda: self, self._handle)

    async def write_all(self, data: bytes) -> None:
        """Write the data and close the pipe. A job that does not read its input is not an error."""
        assert self._transport is not None
        assert self._lost is not None
        self._transport.write(data)
        # Closes when all is written; the end of the job, which breaks the pipe, is one as well.
        self._transport.close()
        await asyncio.shield(self._lost)

    def connection_lost(self, _error: Optional[Exception]) -> None:
        assert self._lost is not None
        if not self._lost.done():
            self._lost.set_result(None)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()
        else:
            self._handle.close()


@dataclass(frozen=True)
class Stdio:
    """The pipes of a job. The ends in `child` go to the job (input, output, error) or to its
    terminal, and are closed after its start.
    """

    child: tuple[Handle, ...]
    readers: dict[str, PipeReader]
    writer: Optional[PipeWriter]

    async def open(self) -> None:
        for end in (*self.readers.values(), self.writer):
            if end is not None:
                await end.open()

    def close_child(self) -> None:
        for handle in self.child:
            handle.close()

    def close_ours(self) -> None:
        for end in (*self.readers.values(), self.writer):
            if end is not None:
                end.close()


def open_stdio(with_stdin: bool) -> Stdio:
    """Open the pipes. Raises OSError if the agent has no handles left."""
    with contextlib.ExitStack() as undo:

        def keep(*handles: Handle) -> tuple[Handle, ...]:
            for handle in handles:
                undo.callback(handle.close)
            return handles

        out, out_child = keep(*output_pipe())
        err, err_child = keep(*output_pipe())
        writer = None
        if with_stdin:
            # The Proactor learns that the reader is gone by reading, so it needs both directions.
            ours, in_child = keep(*_pipe(_ACCESS_DUPLEX, api.GENERIC_READ))
            writer = PipeWriter(ours)
        else:
            (in_child,) = keep(_null())
        undo.pop_all()
    readers = {"stdout": PipeReader(out), "stderr": PipeReader(err)}
    return Stdio((in_child, out_child, err_child), readers, writer)


def output_pipe() -> tuple[Handle, Handle]:
    """Create a pipe: (the agent's end to read, the job's end to write)."""
    return _pipe(_ACCESS_INBOUND, api.GENERIC_WRITE)


def silent_pipe() -> tuple[Handle, Handle]:
    """Create a pipe: (the agent's end, into which nothing is written; the job's end to read)."""
    return _pipe(_ACCESS_DUPLEX, api.GENERIC_READ)


def _pipe(access: int, child_access: int) -> tuple[Handle, Handle]:
    """Create a pipe: (the agent's end, the job's end)."""
    name = rf"\\.\pipe\hostler-{secrets.token_hex(16)}"
    mode = access | _FIRST_PIPE_INSTANCE | _OVERLAPPED
    sizes = (READ_BYTES, READ_BYTES)
    ours = api.made(_create_named_pipe(name, mode, _REJECT_REMOTE_CLIENTS, 1, *sizes, 0, None))
    try:
        theirs = api.create_file(name, child_access, 0, security=api.inheritable())
    except BaseException:
        ours.close()
        raise
    return ours, theirs


def _null() -> Handle:
    share = api.SHARE_READ | api.SHARE_WRITE
    return api.create_file("NUL", api.GENERIC_READ, share, security=api.inheritable())
