"""The hub's ends of file transfers: one per command, opened by the hub before the command is sent.

Theory of operation. An agent never names a path on the hub: what it sends goes to the one
transfer that belongs to its command's id, which nobody can guess and which is good for that
command only (U1). What arrives is staged. It becomes an artifact after the command has
succeeded (``Exchange.keep``); otherwise discard() removes it, so that an upload that breaks off
leaves nothing (N3).

Files are read and written in threads. A peer waits for each block's answer before it sends the
next; a peer that does not is refused, so that only a few blocks are in memory at a time (V15).
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any, BinaryIO, Protocol, TypeVar

from hostler_agent.wire import messages
from hostler_agent.wire.errors import ProtocolError
from hostler_hub.builds.artifacts.tar import LAST_INSTANT
from hostler_hub.builds.artifacts.unpacker import StoredFile, Unpacker, write_all
from hostler_hub.builds.errors import BadArchive, QuotaReached, TransferRefused
from hostler_hub.builds.quotas import Reservation
from hostler_hub.builds.step_kinds import BLOCK_BYTES
from hostler_hub.runtime.safe_dir import SafeDirectory

WAITING_BLOCKS = 4

T = TypeVar("T")


class Staging(Protocol):
    """The staging directory of transfers, and the threads in which they read and write files."""

    @property
    def threads(self) -> Executor: ...
    @property
    def directory(self) -> SafeDirectory: ...


class Transfer:
    """What all ends of transfers share: they handle one message after the other, in threads, until
    they are over.
    """

    def __init__(self, threads: Executor) -> None:
        self._threads = threads
        self._order = asyncio.Lock()
        self._waiting = 0
        # A thread may still work for a message whose task was cancelled with its connection.
        self._guard = threading.Lock()
        self.size_bytes = 0  # so far
        self.is_over = False
        self._is_handed_over = False

    async def take(self, message: messages.Message) -> Any:
        """Handle one message and return the answer. Raises TransferRefused, ProtocolError, OSError
        (the hub's disk).
        """
        if self._waiting >= WAITING_BLOCKS:
            raise ProtocolError(f"{message.op}: the blocks before have not been answered yet")
        self._waiting += 1
        try:
            async with self._order:
                return await self._answer(message)
        finally:
            self._waiting -= 1

    async def _answer(self, message: messages.Message) -> Any:
        raise NotImplementedError

    async def _in_thread(self, work: Callable[..., T], *arguments: Any) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._guarded, work, arguments)

    def _guarded(self, work: Callable[..., T], arguments: Sequence[Any]) -> T:
        with self._guard:
            return work(*arguments)

    def hand_over(self) -> None:
        """Leave the staged files, and the space that they take, to the caller. Blocking; raises
        TransferRefused if the transfer is over.
        """
        with self._guard:
            if self.is_over:
                raise TransferRefused("the transfer was ended before its files were stored")
            self.is_over = self._is_handed_over = True

    def discard(self) -> None:
        """End the transfer and remove what it has staged. May be called at any time, and
        more than once.
        """
        self.is_over = True
        self._threads.submit(self._guarded, self._discard, ())

    def _discard(self) -> None:
        raise NotImplementedError

    def _refuse(self, message: messages.Message) -> ProtocolError:
        return ProtocolError(f"{message.op}: the command was given no such transfer, or it is over")


def _take(space: Reservation, size_bytes: int) -> None:
    try:
        space.take(size_bytes)
    except QuotaReached as reached:
        raise TransferRefused(str(reached)) from None


class FileReceiver(Transfer):
    """Receives one file from an agent, and stages it under the name ``stage``. The file is
    complete after update_upload_file_close.
    """

    def __init__(
        self, staging: Staging, stage: str, max_size_bytes: int, space: Reservation
    ) -> None:
        super().__init__(staging.threads)
        self.stage = stage
        self.space = space
        self._directory = staging.directory
        self._limit = max_size_bytes
        self._descriptor: int | None = None
        self._digest = hashlib.sha256()
        self._is_closed = False
        self._modified_at: float | None = None

    def received(self, path: str) -> StoredFile:
        """The staged file, named ``path``. Raises TransferRefused if it is not complete."""
        if not self._is_closed:
            raise TransferRefused("the agent did not say that the file is complete")
        digest = self._digest.hexdigest()
        return StoredFile(path, self.size_bytes, digest, self._modified_at, self.stage)

    async def _answer(self, message: messages.Message) -> Any:
        if self.is_over:
            raise self._refuse(message)
        if isinstance(message, messages.UpdateUploadFileUtime):
            self._modified_at = min(max(0.0, message.modified_time), LAST_INSTANT)
        elif self._is_closed:
            raise self._refuse(message)
        elif isinstance(message, messages.UpdateUploadFileWrite):
            await self._in_thread(self._write, message.args)
        elif isinstance(message, messages.UpdateUploadFileClose):
            await self._in_thread(self._close)
        else:
            raise self._refuse(message)

    def _write(self, data: bytes) -> None:
        if self.size_bytes + len(data) > self._limit:
            raise TransferRefused(f"the file is larger than {self._limit} bytes")
        if self.is_over:
            return
        if self._descriptor is None:
            self._descriptor = self._directory.create((self.stage,))
        _take(self.space, len(data))
        write_all(self._descriptor, data)
        self._digest.update(data)
        self.size_bytes += len(data)

    def _close(self) -> None:
        self._write(b"")  # an empty file is one, too
        if self._descriptor is not None:
            os.fsync(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None
            self._is_closed = True

    def _discard(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        if not self._is_handed_over:
            self._directory.remove(self.stage)
            self.space.give_back()


class DirectoryReceiver(Transfer):
    """Receives a directory from an agent as a tar stream, and unpacks it into the staging directory
    ``stage`` as it comes.
    """

    def __init__(
        self, staging: Staging, stage: str, compress: str | None, space: Reservation
    ) -> None:
        super().__init__(staging.threads)
        self.stage = stage
        self.space = space
        self._directory = staging.directory
        self._compress = compress
        self._unpacker: Unpacker | None = None
        self._target: SafeDirectory | None = None
        self._files: list[StoredFile] | None = None

    def received(self) -> list[StoredFile]:
        """The staged files. Raises TransferRefused if the directory is not complete."""
        if self._files is None:
            raise TransferRefused("the agent did not say that the directory is complete")
        return self._files

    async def _answer(self, message: messages.Message) -> Any:
        if self.is_over or self._files is not None:
            raise self._refuse(message)
        try:
            if isinstance(message, messages.UpdateUploadDirectoryWrite):
                await self._in_thread(self._unpack, message.args)
            elif isinstance(message, messages.UpdateUploadDirectoryUnpack):
                await self._in_thread(self._finish)
            else:
                raise self._refuse(message)
        except BadArchive as error:
            self.is_over = True
            raise TransferRefused(f"the directory cannot be unpacked: {error}") from error

    def _unpack(self, data: bytes) -> None:
        if self.is_over:
            return
        if self._unpacker is None:
            self._directory.make((self.stage,))
            with self._directory.directory((self.stage,)) as descriptor:
                self._target = SafeDirectory(os.dup(descriptor))
            reserve = functools.partial(_take, self.space)
            self._unpacker = Unpacker(self._target, self._compress, reserve)
        self._unpacker.feed(data)
        self.size_bytes += len(data)

    def _finish(self) -> None:
        self._unpack(b"")
        if self._unpacker is not None:
            self._files = self._unpacker.finish()

    def _discard(self) -> None:
        if self._unpacker is not None:
            self._unpacker.close()
            self._unpacker = None
        if self._target is not None:
            self._target.close()
            self._target = None
        if not self._is_handed_over:
            self._directory.remove(self.stage)
            self.space.give_back()


class FileSender(Transfer):
    """Sends a file to an agent. ``open_`` is called, in a thread, at the first read.

    With ``sha256`` the last answer, which is empty, is given only if the bytes that were sent
    have this hash.
    """

    def __init__(
        self, threads: Executor, open_: Callable[[], BinaryIO], sha256: str | None = None
    ) -> None:
        super().__init__(threads)
        self._open = open_
        self._expected = sha256
        self._file: BinaryIO | None = None
        self._digest = hashlib.sha256()
        self.is_complete = False

    @property
    def sha256(self) -> str:
        """The hash of what was sent so far, in hexadecimal digits."""
        return self._digest.hexdigest()

    async def _answer(self, message: messages.Message) -> Any:
        if isinstance(message, messages.UpdateReadFileClose):
            self.discard()
            return None
        if self.is_over or not isinstance(message, messages.UpdateReadFile) or not message.length:
            raise self._refuse(message)
        return await self._in_thread(self._read, min(message.length, BLOCK_BYTES))

    def _read(self, length: int) -> bytes:
        """The next bytes, at most ``length``; empty only at the file's end.

        Raises ProtocolError if the transfer is over, TransferRefused if the file has another hash.
        """
        if self.is_over:
            raise ProtocolError("the transfer is over")
        if self._file is None:
            self._file = self._open()
        data = self._file.read(length)
        self._digest.update(data)
        self.size_bytes += len(data)
        if not data:
            if self._expected not in (None, self.sha256):
                raise TransferRefused("the stored file is damaged: its sha256 is another")
            self.is_complete = True
        return data

    def _discard(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
