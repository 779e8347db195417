"""Artifacts: the files that builds give to the hub, kept beneath its state directory.

An artifact is called what its build says only in its row; its file's place is
``BUILD/ATTEMPT/FILE``, where FILE is an id of the hub's own (one for a whole directory, with the
number of each file beneath). It is written in a staging directory on the same file system, synced,
and renamed when the command that sent it has succeeded (N3). Its row is stored after that, so that
every file that is listed exists; a file without a row, which a killed hub may leave, is removed by
the next hub. Each attempt has its own directory, and a new attempt removes those of the attempts
before it. Artifacts of older hubs are called by their paths and stay where they are.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import re
import secrets
import shutil
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from weakref import WeakValueDictionary

from sqlalchemy import RowMapping

from hostler_hub.builds.artifacts.transfers import DirectoryReceiver, FileReceiver
from hostler_hub.builds.artifacts.unpacker import StoredFile
from hostler_hub.builds.errors import TransferRefused
from hostler_hub.builds.logs import StepKey
from hostler_hub.builds.quotas import Account, Kind, Reservation
from hostler_hub.builds.views import ArtifactPage, ArtifactView, artifact_view
from hostler_hub.errors import NotFound
from hostler_hub.runtime.clock import Clock
from hostler_hub.runtime.safe_dir import SafeDirectory
from hostler_hub.runtime.tasks import Tasks
from hostler_hub.specs.artifact_path import parts_of, shown
from hostler_hub.store import artifacts as rows
from hostler_hub.store import builds
from hostler_hub.store.engine import Store

T = TypeVar("T")

_STAGING = "staging"  # no build's id
_ID = re.compile(r"[0-9a-f]{32}")
_ROWS_AT_ONCE = 5000


class Artifacts:
    """All builds' artifacts. Made when no other hub uses the directory; close it at the end."""

    def __init__(
        self, directory: Path, store: Store, clock: Clock, threads: ThreadPoolExecutor
    ) -> None:
        self._store = store
        self._clock = clock
        self.threads = threads
        self._root = SafeDirectory.open(directory)
        shutil.rmtree(directory / _STAGING, ignore_errors=True)  # what a killed hub left
        self.directory = SafeDirectory.open(directory / _STAGING)
        self._tasks = Tasks()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # by build

    async def load(self) -> list[tuple[str, int]]:
        """Remove what a killed hub may have left of builds that are not over: files without rows,
        and the attempts before the latest. Returns pairs of submitter and bytes of the artifacts
        that are there.
        """
        for build, attempt in await self._store.read(builds.begun):
            if attempt > 1:
                await self._store.write(rows.forget, build, attempt)
                await self._run(_forget, self._root, build, attempt)
            files = await self._store.read(rows.files, build)
            await self._run(_sweep, self._root, build, files)
        there = set(await self._run(self._root.names))
        sizes = await self._store.read(rows.sizes)
        return [(by, size_bytes) for build, by, size_bytes in sizes if build in there]

    def close(self) -> None:
        self.directory.close()
        self._root.close()

    # --- for the one who runs a step ------------------------------------------------------------

    def receive_file(self, max_size_bytes: int, space: Reservation) -> FileReceiver:
        """The hub's end of a file's upload. Nothing is written before the agent's first message."""
        return FileReceiver(self, secrets.token_hex(16), max_size_bytes, space)

    def receive_directory(self, compress: str | None, space: Reservation) -> DirectoryReceiver:
        return DirectoryReceiver(self, secrets.token_hex(16), compress, space)

    async def keep_file(self, received: FileReceiver, step: StepKey, name: str) -> StoredFile:
        """Make a received file the artifact ``name``, which replaces one of that name.
        Raises TransferRefused, OSError.
        """
        file = received.received(name)
        await self._keep(received, step, name, [file])
        return file

    async def keep_directory(
        self, received: DirectoryReceiver, step: StepKey, name: str
    ) -> list[StoredFile]:
        """Make the files of a received directory artifacts beneath ``name``.
        Raises TransferRefused, OSError.
        """
        files = [
            replace(file, path=f"{name}/{file.path}", file=f"{received.stage}/{file.file}")
            for file in received.received()
        ]
        await self._keep(received, step, name, files)
        return files

    async def _keep(
        self,
        received: FileReceiver | DirectoryReceiver,
        step: StepKey,
        name: str,
        files: Sequence[StoredFile],
    ) -> None:
        for path in (name, *(file.path for file in files)):
            _parts(path)
        known = await self._store.read(rows.related, step.build, step.attempt, name)
        if _clash(known, [file.path for file in files]):
            text = f"there is an artifact where {shown(name)} or a directory of it should be"
            raise TransferRefused(text)
        # To its end, also if the attempt is lost meanwhile: else a file would have no row.
        storing = self._store_files(received, step, files)
        await self._tasks.unbroken(storing, f"store artifacts of build {step.build}")

    async def _store_files(
        self,
        received: FileReceiver | DirectoryReceiver,
        step: StepKey,
        files: Sequence[StoredFile],
    ) -> None:
        async with self._lock(step.build):
            await self._run(received.hand_over)
            try:
                place = (step.build, str(step.attempt), received.stage)
                if files:
                    await self._run(self._root.move_in, self.directory, received.stage, place)
                replaced = await self._record(step, files)
                received.space.keep()
            finally:
                received.space.give_back()
                self.threads.submit(self.directory.remove, received.stage)
            received.space.account.give_back(
                Kind.ARTIFACTS, sum(each.size_bytes for each in replaced)
            )
            await self._run(_remove, self._root, step, replaced)

    def _lock(self, build: str) -> asyncio.Lock:
        return self._locks.setdefault(build, asyncio.Lock())

    async def forget_before(self, build: str, attempt: int, account: Account) -> None:
        """Remove the artifacts of all attempts before ``attempt``. Called when a
        new attempt begins.
        """
        async with self._lock(build):  # behind what the lost attempt still stores
            size_bytes = await self._store.insist(rows.forget, build, attempt)
            account.give_back(Kind.ARTIFACTS, size_bytes)
            await self._run(_forget, self._root, build, attempt)

    async def _record(self, step: StepKey, files: Sequence[StoredFile]) -> list[rows.Replaced]:
        at = self._clock.now()
        replaced: list[rows.Replaced] = []
        for start in range(0, len(files), _ROWS_AT_ONCE):
            some = [_row(step, file, at) for file in files[start : start + _ROWS_AT_ONCE]]
            replaced += await self._store.insist(rows.put, some)
        return replaced

    # --- for people -----------------------------------------------------------------------------

    async def page(self, build: str, limit: int, after: str | None) -> ArtifactPage:
        """The artifacts of the build's latest attempt, by path. Raises NotFound."""
        attempt = await self._attempt(build)
        found = await self._store.read(rows.page, build, attempt, limit, after or "")
        items = [artifact_view(row) for row in found]
        return ArtifactPage(items=items, next=items[-1].path if len(items) == limit else None)

    async def open(self, build: str, path: str) -> tuple[ArtifactView, BinaryIO]:
        """An artifact's view, and its open file, which the caller closes. Raises NotFound."""
        attempt = await self._attempt(build)
        row = await self._store.read(rows.get, build, attempt, path)
        if row is None:
            raise NotFound(f"build {build} has no artifact {shown(path)}")
        place = (build, str(attempt), *_place(row["file"], path))
        try:
            descriptor = await self._run(self._root.read, place)
        except FileNotFoundError:
            raise NotFound(f"artifact {shown(path)} was removed from the hub's disk") from None
        return artifact_view(row), os.fdopen(descriptor, "rb", buffering=0)

    async def _attempt(self, build: str) -> int:
        row: RowMapping | None = await self._store.read(builds.get, build)
        if row is None:
            raise NotFound(f"there is no build {build}")
        return int(row["attempts"])

    async def _run(self, work: Callable[..., T], *arguments: Any) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.threads, functools.partial(work, *arguments))


def _row(step: StepKey, file: StoredFile, at: float) -> dict[str, Any]:
    return {
        "build": step.build,
        "attempt": step.attempt,
        "path": file.path,
        "file": file.file,
        "step": step.index,
        "size_bytes": file.size_bytes,
        "sha256": file.sha256,
        "modified_at": file.modified_at,
        "stored_at": at,
    }


def _parts(path: str) -> tuple[str, ...]:
    try:
        return parts_of(path)
    except ValueError as error:
        raise TransferRefused(str(error)) from None


def _clash(known: Collection[str], new: Collection[str]) -> bool:
    """Whether a path of the one is a directory of the other."""
    if not known:
        return False
    return bool(_directories(known) & set(new) or _directories(new) & set(known))


def _directories(paths: Collection[str]) -> set[str]:
    found: set[str] = set()
    for path in paths:
        while (path := path.rpartition("/")[0]) and path not in found:
            found.add(path)
    return found


def _place(file: str | None, path: str) -> tuple[str, ...]:
    """Where an artifact is beneath its attempt's directory."""
    return tuple(file.split("/")) if file is not None else parts_of(path)


def _remove(root: SafeDirectory, step: StepKey, replaced: Sequence[rows.Replaced]) -> None:
    for each in replaced:
        *above, name = _place(each.file, each.path)
        with (
            contextlib.suppress(FileNotFoundError),
            root.directory((step.build, str(step.attempt), *above)) as directory,
        ):
            SafeDirectory(directory).remove(name)


def _sweep(root: SafeDirectory, build: str, files: Collection[tuple[int, str]]) -> None:
    """Remove what has no row from a build's directories."""
    for attempt in root.names((build,)):
        known = {file for of, file in files if str(of) == attempt}
        with root.directory((build, attempt)) as descriptor:
            directory = SafeDirectory(descriptor)
            for name in filter(_ID.fullmatch, directory.names()):
                inside = directory.names((name,))
                strays = [each for each in inside if f"{name}/{each}" not in known]
                if len(strays) == len(inside) and name not in known:
                    directory.remove(name)
                elif strays:
                    with directory.directory((name,)) as inner:
                        for each in strays:
                            SafeDirectory(inner).remove(each)


def _forget(root: SafeDirectory, build: str, before_attempt: int) -> None:
    with contextlib.suppress(FileNotFoundError), root.directory((build,)) as directory:
        for attempt in range(1, before_attempt):
            SafeDirectory(directory).remove(str(attempt))
