"""Packs a directory into a stream of tar blocks while it is read, so that memory use is bounded."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import stat
import tarfile
import threading
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from typing import BinaryIO, Callable, Optional

from hostler_agent.commands.tree import Tree
from hostler_agent.wire.extension import CommandTerms

MAX_MEMBERS = 100_000
MAX_DEPTH = 64
MAX_PATH_BYTES = 1024


@dataclass(frozen=True)
class TarSource:
    """The directory to pack. For a stock master (no `terms`) links are packed as links; a Hostler
    hub takes none, so what they lead to is packed, as far as the terms let them lead.
    """

    path: str
    terms: Optional[CommandTerms]

    @property
    def follows(self) -> bool:
        """Whether tarfile itself is to follow all links."""
        return self.terms is not None and self.terms.within is None


def relative_to(root: str, path: str) -> str:
    """The part of `path` beneath `root`, with slashes. Raises OSError if it is not beneath."""
    base = root.replace(os.sep, "/").rstrip("/") + "/"
    whole = path.replace(os.sep, "/")
    if not f"{whole}/".startswith(base):
        raise OSError(errno.EXDEV, f"it is not in {root}", path)
    return whole[len(base) :]


@dataclass(frozen=True)
class TarLimits:
    """The size of the blocks of a stream, and how much the files in it may have together."""

    block_bytes: int
    maximum_bytes: int


class TarStream:
    """Packs a directory in a thread of its own. Must be made inside the event loop, and closed."""

    def __init__(
        self,
        source: TarSource,
        compress: Optional[str],
        limits: TarLimits,
        enter: Callable[[], None] = lambda: None,
    ) -> None:
        """`enter` is called first in the thread, to give it the rights to use."""
        self._source = source
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
            dereference=self._source.follows,
        ) as archive:
            terms = self._source.terms
            if terms is None or terms.within is None:
                archive.add(self._source.path, "", filter=self._checked)
            else:
                self._add_within(archive, terms.within)
        writer.flush()

    def _add_within(self, archive: tarfile.TarFile, root: str) -> None:
        tree = Tree(root)
        try:
            top = relative_to(root, self._source.path)
            waiting = [""]
            while waiting:
                name = waiting.pop()
                path = "/".join(filter(None, (top, name)))
                file = tree.open(path)
                if file is None:
                    archive.addfile(self._checked(_directory(name)))
                    waiting += [f"{name}/{each}" if name else each for each in tree.names(path)]
                    continue
                with file:
                    archive.addfile(self._checked(_file(name, file)), file)
        finally:
            tree.close()

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


def _directory(name: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = tarfile.DIRTYPE
    member.mode = 0o755
    return member


def _file(name: str, file: BinaryIO) -> tarfile.TarInfo:
    found = os.fstat(file.fileno())
    member = tarfile.TarInfo(name)
    member.size, member.mtime = found.st_size, found.st_mtime
    member.mode = stat.S_IMODE(found.st_mode)
    return member


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
