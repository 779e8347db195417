"""Files that people store for their builds, addressed by content, so that each is stored once.

A file is stored before the build that downloads it to its worker is submitted, and is named by
its sha256. It is written in a staging directory, synced and renamed; a file that exists already
is not replaced. Who has stored it is noted before it is renamed: a hub that is killed in between
leaves a note without a file, which the next one removes.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import hashlib
import os
import re
import secrets
import shutil
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from hostler_hub.builds.artifacts.unpacker import write_all
from hostler_hub.builds.errors import QuotaReached
from hostler_hub.builds.quotas import Account, Kind, Reservation
from hostler_hub.builds.views import StoredFileView
from hostler_hub.errors import HubError, InsufficientStorage, TooLarge
from hostler_hub.runtime.clock import Clock
from hostler_hub.runtime.safe_dir import SafeDirectory
from hostler_hub.store import stored_files as rows
from hostler_hub.store.engine import Store

T = TypeVar("T")

_STAGING = "staging"  # longer than the two digits of the other directories
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NOBODY = ""


class Files:
    """The stored files. Made only while no other hub uses the directory; close it at the end."""

    def __init__(
        self, directory: Path, store: Store, clock: Clock, threads: ThreadPoolExecutor
    ) -> None:
        self._store = store
        self._clock = clock
        self.threads = threads
        self._root = SafeDirectory.open(directory)
        shutil.rmtree(directory / _STAGING, ignore_errors=True)  # what a killed hub left
        self._staging = SafeDirectory.open(directory / _STAGING)

    def close(self) -> None:
        self._staging.close()
        self._root.close()

    async def load(self) -> list[tuple[str, int]]:
        """Make the notes true: of who has stored what, and of nothing that is not there. Returns
        pairs of submitter and size in bytes.
        """
        noted = await self._store.read(rows.everything)
        known = {sha256 for sha256, _, _ in noted}
        there, unknown = await self._run(_look, self._root, known)
        gone = [(sha256, by) for sha256, by, _ in noted if sha256 not in there]
        await self._store.write(rows.remove, gone)
        at = self._clock.now()
        found = [_row(sha256, _NOBODY, size_bytes, at) for sha256, size_bytes in unknown]
        await self._store.write(rows.put_all, found)
        used = [(by, size_bytes) for sha256, by, size_bytes in noted if sha256 in there]
        return used + [(_NOBODY, size_bytes) for _, size_bytes in unknown]

    async def store(
        self, chunks: AsyncIterator[bytes], account: Account, announced_bytes: int = 0
    ) -> StoredFileView:
        """Store a file from its chunks. If they break off, nothing is kept.

        ``announced_bytes``: how large it will be, if that is known. Raises TooLarge or
        InsufficientStorage if the submitter, or the hub, has no space for it.
        """
        space = account.reservation(Kind.FILES)
        try:
            space.check(announced_bytes)
            return await self._receive(chunks, space)
        except QuotaReached as reached:
            raise _refusal(reached) from None
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise InsufficientStorage("The hub's disk is full") from error
        finally:
            space.give_back()

    async def _receive(self, chunks: AsyncIterator[bytes], space: Reservation) -> StoredFileView:
        staged = await self._run(_Staged, self._staging)
        try:
            async for chunk in chunks:
                space.take(len(chunk))
                await self._run(staged.append, chunk)
            sha256 = await self._run(staged.seal)
            await self._keep(staged, sha256, space)
        finally:
            self.threads.submit(staged.clear)
        return StoredFileView(sha256=sha256, size_bytes=staged.size_bytes)

    async def _keep(self, staged: _Staged, sha256: str, space: Reservation) -> None:
        by = space.account.submitter
        row = _row(sha256, by, staged.size_bytes, self._clock.now())
        is_new = await self._store.write(rows.put, row)
        if is_new:
            space.keep()
        try:
            if not self.has(sha256):
                await self._run(staged.move, self._root, (sha256[:2], sha256))
        except OSError:
            if is_new:
                await self._store.write(rows.remove, [(sha256, by)])
                space.account.give_back(Kind.FILES, staged.size_bytes)
            raise

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


def _refusal(reached: QuotaReached) -> HubError:
    text = str(reached)
    detail = text[:1].upper() + text[1:]
    return TooLarge(detail) if reached.is_too_large else InsufficientStorage(detail)


def _row(sha256: str, by: str, size_bytes: int, at: float) -> dict[str, Any]:
    return {"sha256": sha256, "stored_by": by, "size_bytes": size_bytes, "stored_at": at}


def _look(root: SafeDirectory, known: set[str]) -> tuple[set[str], list[tuple[str, int]]]:
    """The hashes of all files that are there, and hash and size of those that are not known."""
    there: set[str] = set()
    unknown: list[tuple[str, int]] = []
    for directory in root.names():
        if len(directory) != 2:
            continue
        for name in root.names((directory,)):
            if _SHA256.fullmatch(name) and name.startswith(directory):
                there.add(name)
                if name not in known:
                    descriptor = root.read((directory, name))
                    unknown.append((name, os.fstat(descriptor).st_size))
                    os.close(descriptor)
    return there, unknown


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
