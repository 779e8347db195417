"""Artifacts: the files that builds give to the hub, kept beneath its state directory.

A file's place is ``BUILD/ATTEMPT/PATH``. It is written in a staging directory on the same file
system, synced, and renamed when the command that sent it has succeeded (N3). Its row is stored
after that, so that every file that is listed exists. Each attempt has its own directory, and a new
attempt removes those of the attempts before it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import secrets
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from sqlalchemy import RowMapping

from hostler_hub.builds.artifacts.transfers import DirectoryReceiver, FileReceiver
from hostler_hub.builds.artifacts.unpacker import StoredFile
from hostler_hub.builds.errors import TransferRefused
from hostler_hub.builds.logs import StepKey
from hostler_hub.builds.views import ArtifactPage, ArtifactView, artifact_view
from hostler_hub.errors import NotFound
from hostler_hub.runtime.clock import Clock
from hostler_hub.runtime.safe_dir import SafeDirectory
from hostler_hub.specs.artifact_path import parts_of
from hostler_hub.store import artifacts as rows
from hostler_hub.store import builds
from hostler_hub.store.engine import Store

T = TypeVar("T")

_STAGING = "staging"  # no build's id
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

    def close(self) -> None:
        self.directory.close()
        self._root.close()

    # --- for the one who runs a step ------------------------------------------------------------

    def receive_file(self, max_size_bytes: int) -> FileReceiver:
        """The hub's end of a file's upload. Nothing is written before the agent's first message."""
        return FileReceiver(self, secrets.token_hex(16), max_size_bytes)

    def receive_directory(self, compress: str | None) -> DirectoryReceiver:
        return DirectoryReceiver(self, secrets.token_hex(16), compress)

    async def keep_file(self, received: FileReceiver, step: StepKey, name: str) -> StoredFile:
        """Make a received file the artifact ``name``, which replaces one of that name.
        Raises TransferRefused, OSError.
        """
        file = received.received(name)
        place = (step.build, str(step.attempt), *_parts(name))
        await self._run(_install, self._root, self.directory, received.stage, place)
        await self._record(step, [file])
        return file

    async def keep_directory(
        self, received: DirectoryReceiver, step: StepKey, name: str
    ) -> list[StoredFile]:
        """Make the files of a received directory artifacts beneath ``name``.
        Raises TransferRefused, OSError.
        """
        inside = received.received()
        place = (step.build, str(step.attempt), *_parts(name))
        files = [
            StoredFile(f"{name}/{file.path}", file.size_bytes, file.sha256, file.modified_at)
            for file in inside
        ]
        for file in files:
            _parts(file.path)
        paths = [tuple(file.path.split("/")) for file in inside]
        await self._run(_install_tree, self._root, self.directory, received.stage, place, paths)
        await self._record(step, files)
        return files

    async def forget_before(self, build: str, attempt: int) -> None:
        """Remove the artifacts of all attempts before ``attempt``. Called when a
        new attempt begins.
        """
        await self._store.insist(rows.forget, build, attempt)
        await self._run(_forget, self._root, build, attempt)

    async def _record(self, step: StepKey, files: Sequence[StoredFile]) -> None:
        at = self._clock.now()
        for start in range(0, len(files), _ROWS_AT_ONCE):
            some = [_row(step, file, at) for file in files[start : start + _ROWS_AT_ONCE]]
            await self._store.insist(rows.put, some)

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
            raise NotFound(f"build {build} has no artifact {path[:200]!r}")
        place = (build, str(attempt), *parts_of(path))
        try:
            descriptor = await self._run(self._root.read, place)
        except FileNotFoundError:
            raise NotFound(f"artifact {path[:200]!r} was removed from the hub's disk") from None
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


def _install(root: SafeDirectory, staging: SafeDirectory, stage: str, place: Sequence[str]) -> None:
    try:
        root.move_in(staging, stage, place)
    except (IsADirectoryError, NotADirectoryError, FileExistsError):
        name = "/".join(place[2:])
        text = f"there is an artifact where {name} or a directory of it should be"
        raise TransferRefused(text) from None


def _install_tree(
    root: SafeDirectory,
    staging: SafeDirectory,
    stage: str,
    place: Sequence[str],
    paths: Sequence[Sequence[str]],
) -> None:
    try:
        root.move_in(staging, stage, place)  # at once, when nothing is there
    except OSError:
        for path in paths:
            with staging.directory((stage, *path[:-1])) as source:
                _install(root, SafeDirectory(source), path[-1], (*place, *path))


def _forget(root: SafeDirectory, build: str, before_attempt: int) -> None:
    with contextlib.suppress(FileNotFoundError), root.directory((build,)) as directory:
        for attempt in range(1, before_attempt):
            SafeDirectory(directory).remove(str(attempt))
