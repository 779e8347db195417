"""Opens the hub's end of a step's file transfer, and stores the files that came through it."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from hostler_hub.builds.artifacts.files import Files
from hostler_hub.builds.artifacts.store import Artifacts
from hostler_hub.builds.artifacts.transfers import (
    DirectoryReceiver,
    FileReceiver,
    FileSender,
    Transfer,
)
from hostler_hub.builds.artifacts.unpacker import StoredFile
from hostler_hub.builds.errors import TransferRefused
from hostler_hub.builds.logs import StepKey
from hostler_hub.builds.quotas import Account, Kind, Quotas
from hostler_hub.builds.step_kinds import ReceiveDirectory, ReceiveFile, SendFile, Wanted
from hostler_hub.runtime.clock import Clock
from hostler_hub.store.engine import Store

# For the bytes of artifacts and stored files; more would not make a disk faster.
_FILE_THREADS = 4


@contextlib.contextmanager
def open_exchange(
    directory: Path, store: Store, clock: Clock, quotas: Quotas
) -> Iterator[Exchange]:
    """Open the stores in ``directory``/artifacts and ``directory``/files; close them at the end."""
    with contextlib.ExitStack() as stack:
        threads = ThreadPoolExecutor(_FILE_THREADS, thread_name_prefix="files")
        artifacts = Artifacts(directory / "artifacts", store, clock, threads)
        stack.callback(artifacts.close)
        files = Files(directory / "files", store, clock, threads)
        stack.callback(files.close)
        stack.callback(threads.shutdown)
        yield Exchange(artifacts, files, quotas)


@dataclass(frozen=True, slots=True)
class Exchange:
    """The files of builds in both directions: artifacts that the hub receives, stored files
    that it sends.
    """

    artifacts: Artifacts
    files: Files
    quotas: Quotas

    async def load(self) -> None:
        """Count what is stored, and mend what a killed hub left half done. Called once, before
        anything is received.
        """
        self.quotas.count(Kind.ARTIFACTS, await self.artifacts.load())
        self.quotas.count(Kind.FILES, await self.files.load())

    def open(self, wanted: Wanted, account: Account) -> Transfer:
        """The hub's end of a transfer, which is good for one command of a build of ``account``."""
        if isinstance(wanted, ReceiveFile):
            space = account.reservation(Kind.ARTIFACTS)
            return self.artifacts.receive_file(wanted.max_size_bytes, space)
        if isinstance(wanted, ReceiveDirectory):
            space = account.reservation(Kind.ARTIFACTS)
            return self.artifacts.receive_directory(wanted.compress, space)
        return FileSender(self.files.threads, self._source(wanted), wanted.sha256)

    def _source(self, wanted: SendFile) -> Callable[[], BinaryIO]:
        sha256, content = wanted.sha256, wanted.content or ""
        if sha256 is None:
            return lambda: io.BytesIO(content.encode())

        def stored() -> BinaryIO:
            try:
                return self.files.open(sha256)
            except FileNotFoundError:
                raise TransferRefused(f"file {sha256} is not stored any more") from None

        return stored

    async def keep(self, transfer: Transfer, wanted: Wanted, step: StepKey) -> list[dict[str, Any]]:
        """Store the files that a transfer received, after its command has succeeded.

        Returns the path, size in bytes and sha256 of each file; of a file that was sent its size
        and sha256. Raises TransferRefused if the transfer is not complete or a file cannot become
        an artifact, OSError for the hub's disk.
        """
        if isinstance(transfer, FileReceiver) and isinstance(wanted, ReceiveFile):
            return [_stored(await self.artifacts.keep_file(transfer, step, wanted.name))]
        if isinstance(transfer, DirectoryReceiver) and isinstance(wanted, ReceiveDirectory):
            files = await self.artifacts.keep_directory(transfer, step, wanted.name)
            return [_stored(file) for file in files]
        assert isinstance(transfer, FileSender)
        if not transfer.is_complete:
            raise TransferRefused("the agent says it has the file, but has not read all of it")
        return [{"size_bytes": transfer.size_bytes, "sha256": transfer.sha256}]


def _stored(file: StoredFile) -> dict[str, Any]:
    return {"path": file.path, "size_bytes": file.size_bytes, "sha256": file.sha256}
