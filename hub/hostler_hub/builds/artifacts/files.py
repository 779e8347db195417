"""Files that people store for their builds, addressed by content, so that each is stored once.

A file is stored before the build that downloads it to its worker is submitted, and is named by
its sha256. It is written in a staging directory, synced and renamed; a file that exists already
is not replaced.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import os
import secrets
import shutil
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from hostler_hub.builds.artifacts.unpacker import write_all
from hostler_hub.builds.views import StoredFileView
from hostler_hub.runtime.safe_dir import SafeDirectory

T = TypeVar("T")

_STAGING = "staging"  # longer than the two digits of the other directories


class Files:
    """The stored files. Made only while no other hub uses the directory; close it at the end."""

    def __init__(self, directory: Path, threads: ThreadPoolExecutor) -> None:
        self.threads = threads
        self._root = SafeDirectory.open(directory)
        shutil.rmtree(directory / _STAGING, ignore_errors=True)  # what a killed hub left
        self._staging = SafeDirectory.open(directory / _STAGING)

    def close(self) -> None:
        self._staging.close()
        self._root.close()

    async def store(self, chunks: AsyncIterator[bytes]) -> StoredFileView:
        """Store a file from its chunks. If they break off, nothing is kept."""
        staged = await self._run(_Staged, self._staging)
        try:
            async for chunk in chunks:
                await self._run(staged.append, chunk)
            sha256 = await self._run(staged.seal)
            if not self.has(sha256):
                await self._run(staged.move, self._root, (sha256[:2], sha256))
        finally:
            self.threads.submit(staged.clear)
        return StoredFileView(sha256=sha256, size_bytes=staged.size_bytes)

    def has(self, sha256: str) -> bool:
        """Whether the file with this hash is stored."""
        try:
            os.close(self._root.read((sha256[:2], sha256)))
        except FileNotFoundError:
            return False
        return True

    def open(self, sha256: str) -> BinaryIO:
        """Open the file with this hash for reading; the caller closes it.
        Blocking; raises FileNotFoundError.
        """
        return os.fdopen(self._root.read((sha256[:2], sha256)), "rb", buffering=0)

    async def _run(self, work: Callable[..., T], *arguments: Any) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.threads, functools.partial(work, *arguments))


class _Staged:
    """A file that is being received. Its methods are called in threads, clear() also
    while another runs.
    """

    def __init__(self, directory: SafeDirectory) -> None:
        self._directory = directory
        self._name = secrets.token_hex(16)
        self._descriptor: int | None = directory.create((self._name,))
        self._digest = hashlib.sha256()
        self._guard = threading.Lock()
        self.size_bytes = 0

    def append(self, data: bytes) -> None:
        with self._guard:
            if self._descriptor is not None:
                write_all(self._descriptor, data)
                self._digest.update(data)
                self.size_bytes += len(data)

    def seal(self) -> str:
        """Sync the file to disk. Returns its sha256."""
        with self._guard:
            if self._descriptor is not None:
                os.fsync(self._descriptor)
            return self._digest.hexdigest()

    def move(self, target: SafeDirectory, place: Sequence[str]) -> None:
        target.move_in(self._directory, self._name, place)

    def clear(self) -> None:
        with self._guard:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None
            self._directory.remove(self._name)
