"""Packs a directory into a stream of tar blocks while it is read, so that memory use is bounded."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tarfile
import threading
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from typing import Callable, Optional

MAX_MEMBERS = 100_000
MAX_DEPTH = 64
MAX_PATH_BYTES = 1024


@dataclass(frozen=True)
class TarLimits:
    """The size of the blocks of a stream, and how much the files in it may have together."""

    block_bytes: int
    maximum_bytes: int


class TarStream:
    """Packs a directory in a thread of its own. Must be made inside the event loop, and closed."""

    def __init__(
        self,
        path: str,
        compress: Optional[str],
        limits: TarLimits,
        enter: Callable[[], None] = lambda: None,
    ) -> None:
        """`enter` is called first in the thread, to give it the rights to use."""
        self._path = path
        self._mode = f"w|{compress or ''}"
        self._enter = enter
        self.block_bytes = limits.block_bytes
        self._maximum_bytes = limits.maximum_bytes
        self._members = 0
        self._size_bytes = 0
        self._loop = asyncio.get_running_loop()
        # One block waits while the next is packed.
        self._blocks: asyncio.Queue[bytes | OSError] = asyncio.Queue(1)
        self._closed = False
        self._putting: Optional[Future[None]] = None
        self._lock = threading.Lock()
        threading.Thread(target=self._pack, name="tar", daemon=True).start()

    async def read(self) -> bytes:
        """Return the next block; empty at the end. Raises OSError."""
        block = await self._blocks.get()
        if isinstance(block, OSError):
            raise block
        return block

    def close(self) -> None:
        """End the thread, even before the end of the stream."""
        with self._lock:
            self._closed = True
            if self._putting is not None:
                self._putting.cancel()

    def _pack(self) -> None:
        # CancelledError is close(), RuntimeError a loop that has ended: nobody reads any more.
        with contextlib.suppress(CancelledError, RuntimeError):
            try:
                self._enter()
                self._write_archive()
            except (OSError, tarfile.TarError, RecursionError) as error:
                self._put(error if isinstance(error, OSError) else OSError(str(error)))
            else:
                self._put(b"")

    def _write_archive(self) -> None:
        writer = _Writer(self)
        with tarfile.open(
            mode=self._mode,  # type: ignore[call-overload] # a mode made of parts
            fileobj=writer,
            bufsize=self.block_bytes,
            format=tarfile.PAX_FORMAT,
        ) as archive:
            archive.add(self._path, "", filter=self._checked)
        writer.flush()

    def _checked(self, member: tarfile.TarInfo) -> tarfile.TarInfo:
        """Raise OSError for a member that exceeds the limits of the hub. The limits here are the
        same.
        """
        path = os.fsencode(member.name)
        names = path.split(b"/")
        self._members += 1
        self._size_bytes += member.size
        if self._members > MAX_MEMBERS:
            raise OSError(f"more than {MAX_MEMBERS} files")
        if self._size_bytes > self._maximum_bytes:
            raise OSError(f"more than {self._maximum_bytes} bytes")
        if len(names) > MAX_DEPTH or len(path) > MAX_PATH_BYTES:
            raise OSError(f"{member.name[:80]}… is too long or too deep a path")
        return member

    def _put(self, block: bytes | OSError) -> None:
        with self._lock:
            if self._closed:
                raise CancelledError
            put = self._blocks.put(block)
            try:
                self._putting = asyncio.run_coroutine_threadsafe(put, self._loop)
            except RuntimeError:
                put.close()
                raise
        self._putting.result()

    def put(self, block: bytes) -> None:
        self._put(block)


class _Writer:
    """The file object that tarfile writes to; it gathers blocks of the requested size."""

    def __init__(self, stream: TarStream) -> None:
        self._stream = stream
        self._held = bytearray()

    def write(self, data: bytes) -> int:
        self._held += data
        size = self._stream.block_bytes
        while len(self._held) >= size:
            self._stream.put(bytes(self._held[:size]))
            del self._held[:size]
        return len(data)

    def flush(self) -> None:
        if self._held:
            self._stream.put(bytes(self._held))
            self._held.clear()
